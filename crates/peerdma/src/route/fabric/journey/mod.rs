//! A request followed number by number through a fabric whose every register is stated.
//!
//! Where [`FabricView`](super::FabricView) asks what becomes of requests for a target, as
//! far as the input tells, a [`StatedFabric`] takes one TLP literally: its address, its
//! requester ID, its length; enables and payload sizes as they are programmed; and a root
//! complex whose habits somebody states ([`RootComplex`]). The rules are the same. What
//! the specification leaves undefined ends in [`Ending::Undefined`].

mod completions;
mod root;

pub use completions::fewest_completions;

use super::Kind;
use super::course::{Course, End, Then};
use super::ground::{Ground, Terms};
use super::tlp::{At, Number, Tlp};
use crate::addr::{AddrRange, BusAddr, Bytes, Iova, PhysAddr};
use crate::pcie::{Fact, PciAddr};
use crate::route::payload;
use crate::topology::{FunctionId, Parent, PeerForwarding, Topology};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

/// A memory request as it stands on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// What kind.
    pub kind: Kind,
    /// The AT field; a translation request is a read.
    pub at: At,
    /// Who sends it.
    pub from: FunctionId,
    /// The requester ID it carries, which may be a forged one.
    pub requester: PciAddr,
    /// The address it carries, whatever it was meant to be.
    pub address: BusAddr,
    /// Length of the data, in one TLP; of an AtomicOp the operand's.
    pub len: Bytes,
}

/// What an IOMMU in the root complex knows.
pub trait Iommu {
    /// Where an untranslated address of this requester leads; `None` where it is not
    /// mapped or not allowed.
    fn translate(&self, requester: PciAddr, address: Iova, kind: Kind) -> Option<PhysAddr>;

    /// Whether translated addresses of this requester are taken at their word.
    fn trusts(&self, requester: PciAddr) -> bool;
}

/// What a root complex does; none of it stands in a register.
#[derive(Clone)]
pub struct RootComplex<'i> {
    /// Its IOMMU; `None` where it is off, so that numbers are taken as CPU addresses.
    pub iommu: Option<&'i dyn Iommu>,
    /// Memory.
    pub memory: Vec<AddrRange<PhysAddr>>,
    /// Writes to here are interrupts.
    pub interrupts: Option<AddrRange<BusAddr>>,
    /// What becomes of peer requests.
    pub peer: PeerForwarding,
    /// Whether it puts its own ID on what it sends on.
    pub replaces_requester: bool,
    /// Whether root ports reach each other's windows before the IOMMU sees a request.
    pub between_ports: bool,
    /// Whether it splits a write that is too long for the way down; else it drops it.
    pub splits: bool,
}

/// A fabric of which everything is stated.
#[derive(Clone)]
pub struct StatedFabric<'t> {
    ground: Ground<'t>,
    root: RootComplex<'t>,
}

/// How a TLP ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Ending {
    /// This function took it.
    Function(FunctionId),
    /// Memory took it.
    Memory,
    /// The root complex took it as an interrupt.
    Interrupt,
    /// The root complex answered it with a translation.
    Translation,
    /// The IOMMU refused it.
    Fault,
    /// The root complex did not send it on.
    Dropped,
    /// ACS Violation at this port or function.
    Violation(FunctionId),
    /// Unsupported Request at this port or function.
    Unsupported(FunctionId),
    /// AtomicOp Egress Blocked at this port.
    EgressBlocked(FunctionId),
    /// Malformed TLP at this port or function.
    Malformed(FunctionId),
    /// This function did not ask for the completion, or nobody below this port did.
    Unexpected(FunctionId),
    /// The specification gives no behaviour at this port or function.
    Undefined(FunctionId),
    /// The sender's bus mastering is off, so nothing was sent.
    NotIssued,
    /// A register that matters at this port or function was not stated.
    NotStated(FunctionId),
}

/// What became of a TLP.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Outcome {
    /// Whether it was handed to the root complex.
    pub through_root: bool,
    /// The address that the IOMMU made of it.
    pub translated: Option<PhysAddr>,
    /// How it ended.
    pub end: Ending,
}

/// What the requester is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Seen {
    /// Nothing: a posted request has no answer.
    Nothing,
    /// The data.
    Data,
    /// All ones, as if they were the data.
    AllOnes,
    /// A completion with status Completer Abort.
    CompleterAbort,
    /// A completion with status Unsupported Request.
    UnsupportedRequest,
    /// No completion in time.
    Timeout,
    /// One of these; which is not specified.
    Unspecified,
}

/// A request's way, its completion's, and what the requester is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Journey {
    /// What became of the request.
    pub request: Outcome,
    /// What became of the completion of a function that took a non-posted request.
    pub completion: Option<Outcome>,
    /// What the requester is told.
    pub seen: Seen,
}

impl<'t> StatedFabric<'t> {
    /// A fabric of this topology and this root complex.
    pub fn new(topology: &'t Topology, root: RootComplex<'t>) -> Self {
        let terms = Terms {
            enables_count: true,
            inside: Some(BTreeSet::new()),
            between_root_ports: Fact::Known(root.between_ports),
            groups: BTreeMap::new(),
        };
        Self { ground: Ground::new(topology, terms), root }
    }

    /// States that a function's requests reach its device's other functions inside the device.
    pub fn routes_inside(&mut self, function: FunctionId) {
        self.ground.terms.inside.get_or_insert_default().insert(function);
    }

    /// States the ARI function group of a function whose device counts egress vectors by groups.
    pub fn function_group(&mut self, function: FunctionId, group: u8) {
        self.ground.terms.groups.insert(function, u32::from(group));
    }

    /// Follows a request, and the completion it brings about.
    pub fn send(&self, request: &Request) -> Journey {
        let outcome = self.request(request);
        let completion = match outcome.end {
            Ending::Function(to) if request.kind != Kind::Write => {
                Some(self.completion_of(request, to, &outcome, false))
            }
            _ => None,
        };
        Journey { request: outcome, completion, seen: self.seen(request, &outcome, completion.as_ref()) }
    }

    /// As [`Self::send`], where the completer sets Relaxed Ordering in its completion.
    pub fn send_and_answer_relaxed(&self, request: &Request) -> Journey {
        let mut journey = self.send(request);
        if let (Ending::Function(to), Some(_)) = (journey.request.end, journey.completion) {
            let completion = self.completion_of(request, to, &journey.request, true);
            journey.completion = Some(completion);
            journey.seen = self.seen(request, &journey.request, Some(&completion));
        }
        journey
    }

    /// Follows a completion of `from` for the requester ID `to`.
    pub fn complete(&self, from: FunctionId, to: PciAddr, len: Bytes, relaxed: bool) -> Outcome {
        let tlp = Tlp::Completion { to, holder: None, relaxed, payload: Some(self.cut(from, len)) };
        let mut through_root = false;
        let course = self.ground.leave(from, &tlp).and_then(&mut |end| match end {
            End::Root { from, host } => {
                through_root = true;
                self.ground.descend_from_root(host, from, &tlp)
            }
            other => Course::end(other),
        });
        let end = match ending(&course) {
            // Nobody waits for it where it arrives.
            Ending::Function(at) if self.address(at) != to => Ending::Unexpected(at),
            end => end,
        };
        Outcome { through_root, translated: None, end }
    }

    fn address(&self, function: FunctionId) -> PciAddr {
        self.ground.topology.function(function).address()
    }

    /// A completer cuts its data at its own Max_Payload_Size.
    fn cut(&self, completer: FunctionId, len: Bytes) -> Bytes {
        payload::in_force(self.ground.topology, completer).max_payload.map_or(len, |most| most.min(len))
    }

    fn request(&self, request: &Request) -> Outcome {
        let direct = |end| Outcome { through_root: false, translated: None, end };
        if self.ground.info(request.from).registers.command.is_some_and(|command| !command.bus_master) {
            return direct(Ending::NotIssued);
        }
        let Some(range) = AddrRange::new(request.address, request.len) else {
            return direct(Ending::Malformed(request.from));
        };
        // A request does not cross a 4 KiB boundary, and an AtomicOp is aligned to its
        // operand (PCIe 6.0 §2.2.7); who receives it first may check.
        let crosses = request.address.as_u64() >> 12 != range.last().as_u64() >> 12;
        let unaligned = request.kind == Kind::Atomic && !request.address.as_u64().is_multiple_of(request.len.as_u64());
        if crosses || unaligned {
            let receiver = match self.ground.topology.upstream(request.from) {
                Parent::Bridge(port) => port,
                _ => request.from,
            };
            return direct(Ending::Malformed(receiver));
        }
        let tlp = Tlp::Request {
            kind: request.kind,
            at: request.at,
            number: Number { range: Some(range), target: None },
            requester: request.requester,
            payload: (request.kind == Kind::Write).then_some(request.len),
            operand: (request.kind == Kind::Atomic).then_some(request.len),
        };
        let mut outcome = Outcome { through_root: false, translated: None, end: Ending::NotIssued };
        let course = self.ground.leave(request.from, &tlp);
        outcome.end = match course.then {
            Then::End(End::Root { from, .. }) => {
                outcome.through_root = true;
                self.at_root(request, from, &mut outcome.translated)
            }
            _ => ending(&course),
        };
        outcome
    }

    fn completion_of(&self, request: &Request, completer: FunctionId, way: &Outcome, relaxed: bool) -> Outcome {
        if !(way.through_root && self.root.replaces_requester) {
            return self.complete(completer, request.requester, request.len, relaxed);
        }
        // It goes to the root complex, which completes the request it took over.
        let mut host = None;
        let mut at = completer;
        while host.is_none() {
            match self.ground.topology.upstream(at) {
                Parent::Bridge(above) => at = above,
                Parent::Root(above) => host = Some(above),
                Parent::Unknown { .. } => break,
            }
        }
        let own = host.map(|host| self.ground.topology.host_bridge(host)).map_or(self.address(completer), |host| {
            PciAddr::new(host.domain(), host.bus(), crate::pcie::DevFn::new(0))
        });
        let payload = Some(self.cut(completer, request.len));
        let tlp = Tlp::Completion { to: own, holder: None, relaxed, payload };
        let onward = Tlp::Completion { to: request.requester, holder: None, relaxed, payload };
        let course = self.ground.leave(completer, &tlp).and_then(&mut |end| match end {
            End::Root { from, host } => self.ground.descend_from_root(host, from, &onward),
            other => Course::end(other),
        });
        Outcome { through_root: true, translated: None, end: ending(&course) }
    }

    fn seen(&self, request: &Request, outcome: &Outcome, completion: Option<&Outcome>) -> Seen {
        if request.kind == Kind::Write || outcome.end == Ending::NotIssued {
            return Seen::Nothing;
        }
        // A refusal is answered to the ID in the request.
        let told = |seen| if request.requester == self.address(request.from) { seen } else { Seen::Timeout };
        match outcome.end {
            Ending::Memory | Ending::Translation | Ending::Interrupt => told(Seen::Data),
            Ending::Function(_) => match completion.map(|completion| completion.end) {
                Some(Ending::Function(to)) if to == request.from => Seen::Data,
                Some(Ending::Undefined(_) | Ending::NotStated(_)) => Seen::Unspecified,
                _ => Seen::Timeout,
            },
            Ending::Violation(_) => told(Seen::CompleterAbort),
            Ending::Unsupported(_) | Ending::EgressBlocked(_) => told(Seen::UnsupportedRequest),
            Ending::Malformed(_) => Seen::Timeout,
            Ending::Dropped if self.root.peer == PeerForwarding::AllOnes => told(Seen::AllOnes),
            Ending::Fault | Ending::Dropped | Ending::Undefined(_) | Ending::NotStated(_) => Seen::Unspecified,
            Ending::Unexpected(_) | Ending::NotIssued => Seen::Nothing,
        }
    }
}

/// The one end of a course in which nothing is open.
fn ending(course: &Course) -> Ending {
    match &course.then {
        Then::Unread { at, .. } => Ending::NotStated(*at),
        Then::Open { at, .. } => Ending::Undefined(*at),
        Then::End(end) => match *end {
            End::Delivered { to, .. } => Ending::Function(to),
            End::Violation(at) => Ending::Violation(at),
            End::Unsupported(at) => Ending::Unsupported(at),
            End::EgressBlocked(at) => Ending::EgressBlocked(at),
            End::Malformed(at) => Ending::Malformed(at),
            End::Undefined(at) => Ending::Undefined(at),
            End::Adrift(at) => Ending::Unexpected(at),
            End::Unplaced(at) | End::Untyped(at) => Ending::NotStated(at),
            End::NotForwarded | End::Root { .. } => Ending::Dropped,
        },
    }
}
