//! From a course to reasons: which port, what was read there, which rule.

use super::course::{Assumption, Choice, Course, End, Note, Then, Unread};
use super::ground::Ground;
use super::pair::Pair;
use super::rules::Cause;
use super::{Explanation, Fate, Handed, Kind};
use crate::pcie::acs::{Acs, AcsUnread};
use crate::route::lint::passthrough_parameter;
use crate::route::{Gate, Reason, payload};
use crate::topology::{FunctionId, Origin};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

pub(super) const READ_AS_ROOT: &str = "read all of config space: run as root, or take the dump as root";

/// Writes a course's reasons and assumptions into an explanation.
pub(super) fn tell(pair: &Pair<'_, '_>, course: &Course, explanation: &mut Explanation) {
    let mut told = Told { pair, reasons: Vec::new() };
    told.course(course, explanation);
    for reason in told.reasons {
        push(&mut explanation.reasons, reason);
    }
}

fn push(reasons: &mut Vec<Reason>, reason: Reason) {
    if !reasons.contains(&reason) {
        reasons.push(reason);
    }
}

struct Told<'p, 'g, 't> {
    pair: &'p Pair<'g, 't>,
    reasons: Vec<Reason>,
}

impl Told<'_, '_, '_> {
    fn name(&self, function: FunctionId) -> String {
        self.pair.topology().function(function).address().to_string()
    }

    fn say(&mut self, gate: Gate, object: String, evidence: String, fix: Option<&str>) {
        push(&mut self.reasons, Reason { gate, object, evidence, fix: fix.map(ToString::to_string) });
    }

    fn at_port(&mut self, function: FunctionId, evidence: &str) {
        self.say(Gate::FabricPort, self.name(function), evidence.into(), None);
    }

    fn course(&mut self, course: &Course, explanation: &mut Explanation) {
        for note in &course.notes {
            self.note(*note, explanation);
        }
        match &course.then {
            Then::End(end) => self.end(*end),
            Then::Unread { at, what, branches } => {
                let is_unknown = self.pair.fates(course).fate() == Fate::Unknown;
                let ways_differ =
                    branches.windows(2).any(|two| super::fates::way(&two[0]) != super::fates::way(&two[1]));
                if is_unknown || ways_differ {
                    self.unread(*at, *what);
                }
                // Of these the first goes on, and the others end right here.
                let told = if *what == Unread::Acs { branches.as_slice() } else { &branches[..branches.len().min(1)] };
                self.branches(told, explanation, !is_unknown);
            }
            Then::Open { at, choice, branches } => {
                let all: Vec<_> = branches.iter().map(|branch| self.pair.fates(branch)).collect();
                if all.windows(2).all(|two| two[0] == two[1]) {
                    // The choice changes nothing; the first branch tells why.
                    if let Some(first) = branches.first() {
                        self.course(first, explanation);
                    }
                } else {
                    self.open(*at, *choice);
                    self.branches(branches, explanation, true);
                }
            }
        }
    }

    /// What the branches say: all of it, or only what is missing in them.
    fn branches(&mut self, branches: &[Course], explanation: &mut Explanation, all: bool) {
        for branch in branches {
            let mut inner = Told { pair: self.pair, reasons: Vec::new() };
            inner.course(branch, explanation);
            let missing =
                |gate| matches!(gate, Gate::AcsUnknown | Gate::ParentUnknown | Gate::RootComplex | Gate::Atomics);
            for reason in inner.reasons.into_iter().filter(|reason| all || missing(reason.gate)) {
                push(&mut self.reasons, reason);
            }
        }
    }

    fn note(&mut self, note: Note, explanation: &mut Explanation) {
        match note {
            Note::Rule(at, cause) => {
                self.at_port(at, cause.words());
                let target = self.pair.target.function();
                let ordering = payload::in_force(self.pair.topology(), target).relaxed_ordering;
                if cause == Cause::CompletionRedirect && ordering != Some(false) {
                    self.assume(target, Assumption::RelaxedOrdering, explanation);
                }
            }
            Note::Assumed(at, assumption) => self.assume(at, assumption, explanation),
            Note::AtomicsNotRouted(at) => {
                self.say(Gate::Atomics, self.name(at), "does not route AtomicOps (PCIe 6.0 §6.15.3)".into(), None);
            }
            Note::AtomicsNotDone(at) => {
                self.say(Gate::Atomics, self.name(at), "does not complete AtomicOps (PCIe 6.0 §6.15.3)".into(), None);
            }
            Note::OnInternalBus(at) => {
                self.at_port(at, "sits on the internal bus of a switch, for which the specification has no requests");
            }
            Note::SharedBus(bridge) => {
                self.at_port(
                    bridge,
                    "on the conventional PCI bus below it functions reach each other directly, unseen by any port",
                );
            }
            Note::ThroughRoot => self.root(),
            Note::StoppedByIommu => {
                let evidence = "its domain translates, so the IOMMU takes the target's address for an IOVA, which nobody \
                                mapped, and stops the request";
                let passthrough = passthrough_parameter(self.pair.topology().machine());
                let fix = format!("hand out an IOVA that is mapped to the target, or boot with {passthrough}");
                self.say(Gate::IommuMode, self.name(self.pair.initiator), evidence.into(), Some(&fix));
            }
            Note::BusAddressAtRoot => {
                let evidence = "a bus address that differs from the CPU address goes up to the root complex, and what \
                                that takes it for is not specified; it may be an address of memory";
                self.say(
                    Gate::RootComplex,
                    "root complex".into(),
                    evidence.into(),
                    Some("hand out the CPU address or an IOVA"),
                );
            }
            Note::TakenByAnother(_) => {}
        }
    }

    /// What the root complex does with the request, and who says so.
    fn root(&mut self) {
        let kind = match self.pair.kind {
            Kind::Write => "writes",
            Kind::Read => "reads",
            Kind::Atomic => "AtomicOps",
        };
        let delivers = self.pair.delivers();
        let sources = self.pair.sources();
        let (evidence, fix) = match delivers.known() {
            Some(true) => (format!("{kind} reach the target through the root complex, {sources}"), None),
            Some(false) => (format!("{kind} do not come out of the root complex again, {sources}"), None),
            None => (
                format!("{kind} go up to the root complex, and {sources}"),
                Some("try it with peerdma copy, or state what the host bridge does in a platform file"),
            ),
        };
        self.say(Gate::RootComplex, "root complex".into(), evidence, fix);
    }

    fn end(&mut self, end: End) {
        match end {
            End::Delivered { to, .. } if to == self.pair.wanted() => {}
            End::Delivered { to, .. } => {
                self.at_port(to, "takes the request: the number is an address of its own below this host bridge");
            }
            End::Adrift(at) => {
                self.at_port(at, "the requester's bus is below no port here, so the completion is dropped")
            }
            End::EgressBlocked(at) => {
                let evidence = "AtomicOp Egress Blocking is on (PCIe 6.0 §6.15.3)";
                self.say(Gate::Atomics, self.name(at), evidence.into(), None);
            }
            End::Malformed(at) => {
                self.say(Gate::PayloadSize, self.name(at), "the payload is larger than it takes".into(), None);
            }
            End::Unplaced(at) => push(&mut self.reasons, unplaced(self.pair.ground, at)),
            End::Untyped(at) => push(&mut self.reasons, untyped(self.pair.ground, at)),
            End::Unsupported(at) if !self.is_explained(at) => {
                self.at_port(at, "no window or BAR here holds the address (PCIe 6.0 §7.5.1.3)");
            }
            // The rule that ended it is told already.
            End::Violation(_) | End::Undefined(_) | End::Unsupported(_) | End::NotForwarded | End::Root { .. } => {}
        }
    }

    fn is_explained(&self, at: FunctionId) -> bool {
        let object = self.name(at);
        self.reasons.iter().any(|reason| reason.object == object)
    }

    fn unread(&mut self, at: FunctionId, what: Unread) {
        let object = self.name(at);
        let missing = |name: &str| format!("{name} was not read");
        let described = self.pair.ground.info(at).origin == Origin::Platform;
        let fix = if described { "say what it does with AtomicOps in the platform file" } else { READ_AS_ROOT };
        match what {
            Unread::Acs => push(&mut self.reasons, acs_unread(self.pair.ground, at)),
            Unread::AtomicRouting => {
                self.say(Gate::Atomics, object, missing("AtomicOp Routing Supported"), Some(fix));
            }
            Unread::AtomicEgress => {
                self.say(Gate::Atomics, object, missing("AtomicOp Egress Blocking"), Some(fix));
            }
            Unread::AtomicCompleter => {
                self.say(Gate::Atomics, object, missing("AtomicOp Completer Supported"), Some(fix));
            }
            // Told where the request entered the root complex.
            Unread::Forwarding => {}
        }
    }

    fn open(&mut self, at: FunctionId, choice: Choice) {
        self.at_port(at, left_open(choice));
    }

    fn assume(&self, at: FunctionId, assumption: Assumption, explanation: &mut Explanation) {
        let evidence = taken_for_granted(assumption);
        // An IOVA is compared with no window on the way up, and comes down by the host bridge's own map.
        if assumption == Assumption::BarAddress && self.pair.handed == Handed::Iova {
            return;
        }
        let reason = Reason { gate: Gate::Assumed, object: self.name(at), evidence: evidence.into(), fix: None };
        push(&mut explanation.assumed, reason);
    }
}

/// A reason about one function.
pub(super) fn about(ground: &Ground<'_>, at: FunctionId, gate: Gate, evidence: &str, fix: Option<&str>) -> Reason {
    let object = ground.info(at).address.to_string();
    Reason { gate, object, evidence: evidence.into(), fix: fix.map(ToString::to_string) }
}

/// RR, CR and EC, or the bit of the egress vector that they ask for.
pub(super) fn acs_unread(ground: &Ground<'_>, at: FunctionId) -> Reason {
    let acs = &ground.info(at).registers.acs;
    let evidence = if acs.registers().is_some_and(|registers| registers.control.known().is_some()) {
        "EC=1, and the egress vector's bit for this egress was not read: it decides (PCIe 6.0 §6.12.3)"
    } else {
        "RR, CR and EC were not read; they decide whether TLPs for peers go across, up or nowhere (PCIe 6.0 §6.12.3)"
    };
    let declared = *acs == Acs::Unknown(AcsUnread::Declared);
    let fix = if declared { "say what the port has in the platform file" } else { READ_AS_ROOT };
    about(ground, at, Gate::AcsUnknown, evidence, Some(fix))
}

pub(super) fn unplaced(ground: &Ground<'_>, at: FunctionId) -> Reason {
    let evidence = "what it hangs below is not known, so neither is the way";
    let fix = "list every function, with lspci -vvv -PP as root or with peerdma capture";
    about(ground, at, Gate::ParentUnknown, evidence, Some(fix))
}

pub(super) fn untyped(ground: &Ground<'_>, at: FunctionId) -> Reason {
    let evidence = "its port type was not read or does not fit its place, so what lies below it is not known";
    about(ground, at, Gate::ParentUnknown, evidence, Some(READ_AS_ROOT))
}

/// What the specification leaves to whoever built it.
pub(super) const fn left_open(choice: Choice) -> &'static str {
    match choice {
        Choice::InsideDevice => {
            "whether the device routes between its functions inside, or sends this out on its link, is its own affair \
             (PCIe 6.0 §6.12.1.2)"
        }
        Choice::BetweenRootPorts => {
            "EC=1 and RR=0 block this where the root complex has a path of its own between root ports, which no register \
             tells (PCIe 6.0 §1.3.1)"
        }
        Choice::PastIommu => {
            "whether the root complex passes this to its other root port by the bare number, before its IOMMU sees it, no \
             register tells (PCIe 6.0 §1.3.1)"
        }
        Choice::RequesterKept => {
            "whether the completion comes back by the target's ports or to the root complex depends on the ID that the \
             root complex puts on the request (PCIe 6.0 §1.3.1)"
        }
        Choice::TranslationKind => {
            "bus and CPU address differ, and which of them a translation gives is not specified (PCIe 6.0 §10.2.3)"
        }
    }
}

pub(super) const fn taken_for_granted(assumption: Assumption) -> &'static str {
    match assumption {
        Assumption::OtherAcsBits => "SV, TB, UF and DT were not read; taken to be clear",
        Assumption::RootPortEgress => "egress control of this root port was not read; taken to be off",
        Assumption::Windows => "its windows were not all read; taken to hold the BARs below it",
        Assumption::OtherNumbers => "its windows were not all read; taken to hold no number but those of BARs below it",
        Assumption::BarAddress => "its bus address is not known; taken to lie in the windows of the ports above it",
        Assumption::Memory => "memory decoding is off now; taken to be on when drivers are at work",
        Assumption::BusMaster => "bus mastering is off now; taken to be on when drivers are at work",
        Assumption::RelaxedOrdering => {
            "its completions are taken not to carry relaxed ordering, which would exempt them from CR"
        }
        Assumption::FunctionGroups => "ACS function groups were not read; taken to be off",
        Assumption::AtomicRequester => {
            "AtomicOp Requester Enable is not known to be on; taken to be on when its driver is at work"
        }
    }
}
