//! What may become of a TLP, as a tree.
//!
//! A course branches where a register was not read and where the specification
//! leaves the choice to the implementation. With everything stated it is one line.

use super::rules::Cause;
use crate::topology::{FunctionId, HostBridgeId};
use alloc::vec::Vec;

/// How a TLP ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// This function takes it.
    Delivered { to: FunctionId, through_root: bool },
    /// ACS Violation.
    Violation(FunctionId),
    /// Unsupported Request.
    Unsupported(FunctionId),
    /// AtomicOp Egress Blocked.
    EgressBlocked(FunctionId),
    /// Malformed TLP.
    Malformed(FunctionId),
    /// The specification does not say what this port does with it.
    Undefined(FunctionId),
    /// The root complex has it, from this root port or from a function on a root bus.
    Root { from: FunctionId, host: HostBridgeId },
    /// The root complex does not send it on.
    NotForwarded,
    /// A completion that nobody below this port expects.
    Adrift(FunctionId),
    /// It is not known what lies above this function.
    Unplaced(FunctionId),
    /// It is not known what kind of port this is, and here it matters.
    Untyped(FunctionId),
}

/// What was not read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unread {
    /// RR, CR, EC or the egress vector.
    Acs,
    /// AtomicOp Routing Supported.
    AtomicRouting,
    /// AtomicOp Egress Blocking.
    AtomicEgress,
    /// AtomicOp Completer Supported.
    AtomicCompleter,
    /// What the root complex does.
    Forwarding,
}

/// What the specification leaves to the implementation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Choice {
    /// Whether a device routes between its functions inside.
    InsideDevice,
    /// Whether a root complex has a path between its ports of its own.
    BetweenRootPorts,
    /// Whether that path takes a request by its bare number, so that no IOMMU sees it.
    PastIommu,
    /// Whether a root complex keeps the requester's ID.
    RequesterKept,
    /// Whether a translation is a CPU address or a bus address where these differ.
    TranslationKind,
}

/// What a course passed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Note {
    /// A rule that decided at a port.
    Rule(FunctionId, Cause),
    /// Something taken to be as usual.
    Assumed(FunctionId, Assumption),
    /// An element does not route AtomicOps.
    AtomicsNotRouted(FunctionId),
    /// A completer does not do AtomicOps.
    AtomicsNotDone(FunctionId),
    /// A function sits on the internal bus of a switch.
    OnInternalBus(FunctionId),
    /// Functions on one conventional bus see each other's requests.
    SharedBus(FunctionId),
    /// It went through the root complex.
    ThroughRoot,
    /// An address of the target went up to an IOMMU, which takes it for an IOVA.
    StoppedByIommu,
    /// A bus address that is no CPU address went up to the root complex.
    BusAddressAtRoot,
    /// Another function took the request.
    TakenByAnother(FunctionId),
}

/// Something that was not read, or changes from minute to minute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Assumption {
    /// SV, TB, UF and DT are clear.
    OtherAcsBits,
    /// Egress control of a root port is off.
    RootPortEgress,
    /// The windows hold the BARs below.
    Windows,
    /// Windows that were not read do not hold a number that is no address of a BAR below.
    OtherNumbers,
    /// The BAR's bus address lies in the windows above.
    BarAddress,
    /// Memory decoding will be on.
    Memory,
    /// Bus mastering will be on.
    BusMaster,
    /// Completions do not carry Relaxed Ordering.
    RelaxedOrdering,
    /// Function groups are off, so that a vector counts functions.
    FunctionGroups,
    /// AtomicOp Requester Enable will be on.
    AtomicRequester,
}

/// A course: notes, and how it went on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Course {
    pub(super) notes: Vec<Note>,
    pub(super) then: Then,
}

/// How a course goes on after its notes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Then {
    End(End),
    /// One branch for each thing that the unread register may make of it.
    Unread {
        at: FunctionId,
        what: Unread,
        branches: Vec<Course>,
    },
    /// One branch for each thing that an implementation may do.
    Open {
        at: FunctionId,
        choice: Choice,
        branches: Vec<Course>,
    },
}

impl Course {
    pub(super) fn end(end: End) -> Self {
        Self { notes: Vec::new(), then: Then::End(end) }
    }

    pub(super) fn unread(at: FunctionId, what: Unread, branches: Vec<Course>) -> Self {
        Self { notes: Vec::new(), then: Then::Unread { at, what, branches } }
    }

    pub(super) fn open(at: FunctionId, choice: Choice, branches: Vec<Course>) -> Self {
        Self { notes: Vec::new(), then: Then::Open { at, choice, branches } }
    }

    /// This course with notes in front.
    pub(super) fn after(mut self, mut notes: Vec<Note>) -> Self {
        notes.append(&mut self.notes);
        self.notes = notes;
        self
    }

    /// This course as one within a root complex: what is delivered has come through it.
    pub(super) fn in_root_complex(self) -> Self {
        self.and_then(&mut |end| match end {
            End::Delivered { to, .. } => Self::end(End::Delivered { to, through_root: true }),
            other => Self::end(other),
        })
    }

    /// This course with every end gone on from.
    pub(super) fn and_then(self, go_on: &mut impl FnMut(End) -> Course) -> Self {
        let all =
            |branches: Vec<Course>, go_on: &mut _| branches.into_iter().map(|branch| branch.and_then(go_on)).collect();
        let Self { notes, then } = self;
        match then {
            Then::End(end) => go_on(end).after(notes),
            Then::Unread { at, what, branches } => {
                Self { notes, then: Then::Unread { at, what, branches: all(branches, go_on) } }
            }
            Then::Open { at, choice, branches } => {
                Self { notes, then: Then::Open { at, choice, branches: all(branches, go_on) } }
            }
        }
    }
}
