//! What the hardware does with a request, by the PCI Express specification.
//!
//! A request is routed by a bare number. Every port that it enters from below compares
//! the number with its own side, with its siblings' windows and with nothing else, and
//! its ACS controls say whether the request goes across, up, or nowhere; what travels
//! down is never examined. The completion of a read or AtomicOp finds its own way, by
//! the requester's bus, under other controls. Linux's decision is not asked here, and
//! the two differ in both directions ([`kernel_view`](super::kernel_view)).
//!
//! One set of rules, read from the bottom up:
//!
//! - `rules`: what one port does, its registers stated;
//! - `controls`: which values the registers may have where they were not read;
//! - `ground`, `leave` and `walk`: who claims a number or a bus, and the way from port to port;
//! - `course`: what may become of a TLP, as a tree that branches where a register was not
//!   read, or where the specification leaves the choice; `fates` folds it.
//!
//! Two views stand on them. [`FabricView`] asks about pairs, as far as an input tells:
//! it knows targets rather than numbers, takes for granted what drivers switch on, and
//! leaves the root complex to [`root_complex`](super::root_complex); [`FabricView::follow`] asks it
//! about numbers that are nobody's address yet, as a guest's are. [`journey`] follows
//! single TLPs by their numbers through a fabric of which everything is stated, so that
//! literal cases can be checked; [`ordering`] says which of two arrives first.
//!
//! Three answers are kept apart. *Undefined*: the specification does not say, as for a
//! redirected request that turns in a port without upstream forwarding, or for a number
//! that a root complex may pass between its ports past its IOMMU. *Unknown*: two
//! ways of filling in what was not read (RR, CR, EC, the root complex) give different
//! fates. *Assumed*: other unread bits count as clear, unread windows as holding what is
//! below them, egress control of root ports, which acts only where a root complex has a
//! path of its own between them, as off; each is said in [`Explanation::assumed`].

mod controls;
mod course;
mod fates;
mod ground;
pub mod journey;
mod leave;
mod number;
pub mod ordering;
mod pair;
mod rules;
mod tell;
mod tlp;
mod walk;

pub use number::{Led, Stretch};
pub use tlp::At;

use self::ground::{Ground, Terms};
use self::pair::Pair;
use super::{Reason, Target};
use crate::addr::{AddrRange, BusAddr};
use crate::pcie::Fact;
use crate::topology::{FunctionId, Topology};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// A kind of memory request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Kind {
    /// Memory write: posted, nobody answers.
    Write,
    /// Memory read: a completion brings the data back.
    Read,
    /// AtomicOp (FetchAdd, Swap, CAS): carries data, and a completion brings the old value back.
    Atomic,
}

/// What the number is that the initiator puts on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Handed {
    /// The target's bus address, untranslated.
    Bus,
    /// The target's address as the CPU sees it, untranslated.
    CpuPhysical,
    /// An I/O virtual address that the IOMMU maps to the target for this initiator, outside all windows.
    Iova,
    /// A translated address (AT = 10b) that ATS returned for the target.
    Translated,
}

/// How a request went.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Way {
    /// Without passing the root complex.
    BelowRoot,
    /// Through the root complex.
    RootComplex,
}

/// What becomes of a request and of its completion.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Fate {
    /// It arrives, and so does its completion if it has one.
    Arrives,
    /// It, or its completion, is lost for sure.
    Lost,
    /// The specification leaves open what becomes of it.
    Undefined,
    /// A fact is missing.
    Unknown,
}

/// A request on its way, and its completion on the way back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Passage {
    /// What kind of request.
    pub kind: Kind,
    /// What number it carried.
    pub handed: Handed,
    /// What became of it.
    pub fate: Fate,
    /// How the request went, as far as that is known.
    pub way: Option<Way>,
}

/// Why a passage is what it is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Explanation {
    /// Port by port.
    pub reasons: Vec<Reason>,
    /// What was not read and is taken to be as usual.
    pub assumed: Vec<Reason>,
}

/// The fabric of one topology.
#[derive(Clone, Debug)]
pub struct FabricView<'t> {
    ground: Ground<'t>,
}

impl<'t> FabricView<'t> {
    /// Prepares the view.
    pub fn new(topology: &'t Topology) -> Self {
        let terms =
            Terms { enables_count: false, inside: None, between_root_ports: Fact::Unknown, groups: BTreeMap::new() };
        Self { ground: Ground::new(topology, terms) }
    }

    /// Follows one request of `initiator` to `target`, and its completion back.
    pub fn pass(&self, initiator: FunctionId, target: &Target, kind: Kind, handed: Handed) -> Passage {
        Pair::new(&self.ground, initiator, target, kind, handed).passage()
    }

    /// Where requests of `initiator` with the numbers `range` are led before a root complex has them, whatever the
    /// numbers were meant to be; ascending, together all of `range`, neighbours different.
    ///
    /// Taken for granted are only enables that drivers set. What else was not read and could lead
    /// elsewhere is [`Led::Unknown`].
    pub fn follow(&self, initiator: FunctionId, at: At, range: AddrRange<BusAddr>) -> Vec<Stretch> {
        number::follow(&self.ground, initiator, at, range)
    }

    /// Why that request fares as [`pass`](Self::pass) says; made when asked for, since most
    /// pairs of a machine are only counted.
    pub fn explain(&self, initiator: FunctionId, target: &Target, kind: Kind, handed: Handed) -> Explanation {
        Pair::new(&self.ground, initiator, target, kind, handed).explanation()
    }
}
