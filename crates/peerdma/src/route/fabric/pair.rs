//! The view of a pair: what becomes of a request of one function for another's memory.
//!
//! The number on the wire follows from what the initiator was handed. Where it is the
//! target's bus address it leads to the target, as far as windows were read; an IOVA or
//! a CPU address from behind an offset leads past all windows, to the root complex. The
//! root complex is asked through [`root_complex::forwarding`]; a completion comes back
//! by the target's own ports.

use super::course::{Choice, Course, End, Note, Unread};
use super::fates;
use super::ground::Ground;
use super::tell;
use super::tlp::{At, Number, Tlp};
use super::{Explanation, Fate, Handed, Kind, Passage};
use crate::addr::{AddrRange, BusAddr};
use crate::pcie::{DevFn, Fact, PciAddr};
use crate::route::domain::Domain;
use crate::route::root_complex::{self, Forwarding};
use crate::route::{Gate, Reason, Target, payload};
use crate::topology::{FunctionId, HostBridgeId, Parent, Topology};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::cell::OnceCell;

/// One request for one target.
pub(super) struct Pair<'g, 't> {
    pub(super) ground: &'g Ground<'t>,
    pub(super) initiator: FunctionId,
    pub(super) target: &'g Target,
    pub(super) kind: Kind,
    pub(super) handed: Handed,
    /// What is known of the root complex, once somebody asks.
    forwarding: OnceCell<Forwarding>,
}

impl<'g, 't> Pair<'g, 't> {
    pub(super) fn new(
        ground: &'g Ground<'t>,
        initiator: FunctionId,
        target: &'g Target,
        kind: Kind,
        handed: Handed,
    ) -> Self {
        Self { ground, initiator, target, kind, handed, forwarding: OnceCell::new() }
    }

    pub(super) fn passage(&self) -> Passage {
        let (kind, handed) = (self.kind, self.handed);
        if self.cannot_send().is_some() {
            return Passage { kind, handed, fate: Fate::Lost, way: None };
        }
        let request = self.request();
        let way = fates::way(&request);
        let course = self.whole(request);
        Passage { kind, handed, fate: self.fates(&course).fate(), way }
    }

    pub(super) fn explanation(&self) -> Explanation {
        let mut explanation = Explanation { reasons: Vec::new(), assumed: self.assumed_address() };
        match self.cannot_send() {
            Some(evidence) => explanation.reasons.push(Reason {
                gate: Gate::IommuMode,
                object: self.topology().function(self.initiator).address().to_string(),
                evidence: evidence.into(),
                fix: None,
            }),
            None => tell::tell(self, &self.whole(self.request()), &mut explanation),
        }
        explanation
    }

    /// With the completion, of requests that have one.
    fn whole(&self, request: Course) -> Course {
        if self.kind == Kind::Write { request } else { self.with_completion(request) }
    }

    pub(super) fn topology(&self) -> &Topology {
        self.ground.topology
    }

    pub(super) fn wanted(&self) -> FunctionId {
        if self.kind == Kind::Write { self.target.function() } else { self.initiator }
    }

    pub(super) fn fates(&self, course: &Course) -> fates::Fates {
        fates::fates(course, self.wanted())
    }

    /// The host bridge above a function; `None` where the way up to it is not known.
    fn host_of(&self, function: FunctionId) -> Option<HostBridgeId> {
        let mut at = function;
        loop {
            match self.topology().upstream(at) {
                Parent::Root(host) => return Some(host),
                Parent::Bridge(above) => at = above,
                Parent::Unknown { .. } => return None,
            }
        }
    }

    fn forwarding(&self) -> &Forwarding {
        self.forwarding.get_or_init(|| {
            let hosts = [self.initiator, self.target.function()].map(|function| self.host_of(function));
            root_complex::forwarding(self.topology(), hosts[0], hosts[1])
        })
    }

    /// Whether the root complex delivers requests of this kind.
    pub(super) fn delivers(&self) -> Fact<bool> {
        if self.kind == Kind::Write { self.forwarding().writes } else { self.forwarding().reads }
    }

    /// Translated addresses are for those with ATS enabled.
    fn cannot_send(&self) -> Option<&'static str> {
        if self.handed != Handed::Translated {
            return None;
        }
        match self.ground.info(self.initiator).registers.ats {
            Fact::Known(None) => Some("has no ATS capability, so it cannot send translated addresses"),
            Fact::Known(Some(ats)) if !ats.enabled => {
                Some("ATS is not enabled, so the root complex refuses its translated addresses (PCIe 6.0 §10.2.1)")
            }
            Fact::Known(Some(_)) | Fact::Unknown => None,
        }
    }

    /// What is taken for granted of the number itself.
    fn assumed_address(&self) -> Vec<Reason> {
        let mut assumed = Vec::new();
        let mut say = |object: FunctionId, evidence: &str| {
            let object = self.topology().function(object).address().to_string();
            assumed.push(Reason { gate: Gate::Assumed, object, evidence: evidence.into(), fix: None });
        };
        if self.handed == Handed::CpuPhysical && self.offset() == Fact::Unknown {
            say(
                self.target.function(),
                "whether its bus address differs from its CPU address was not read; taken to be equal",
            );
        }
        if self.handed == Handed::Translated && self.ground.info(self.initiator).registers.ats == Fact::Unknown {
            say(self.initiator, "its ATS capability was not read; taken to be enabled");
        }
        assumed
    }

    /// Whether the target's bus address is another number than its CPU address.
    fn offset(&self) -> Fact<bool> {
        let differs = |(bus, cpu): (AddrRange<BusAddr>, AddrRange<crate::addr::PhysAddr>)| {
            bus.start().as_u64() != cpu.start().as_u64()
        };
        Fact::from(self.target.bus().zip(self.target.cpu()).map(differs))
    }

    /// The numbers that may stand on the wire.
    fn numbers(&self) -> Vec<Number> {
        let as_bus = Number { range: self.target.bus(), target: Some(self.target.function()) };
        let as_cpu = || {
            let cpu = self.target.cpu();
            let range = cpu.and_then(|cpu| AddrRange::new(BusAddr::new(cpu.start().as_u64()), cpu.len()));
            Number { range, target: None }
        };
        match (self.handed, self.offset()) {
            (Handed::Iova, _) => vec![Number::NOWHERE],
            (Handed::CpuPhysical, Fact::Known(true)) => vec![as_cpu()],
            // Whether a translation is for the root complex or for the switches is not
            // laid down where the two differ.
            (Handed::Translated, Fact::Known(true)) => vec![as_bus, as_cpu()],
            (Handed::Bus | Handed::CpuPhysical | Handed::Translated, _) => vec![as_bus],
        }
    }

    fn request(&self) -> Course {
        let mut courses: Vec<Course> = self.numbers().into_iter().map(|number| self.request_with(number)).collect();
        match courses.pop() {
            Some(only) if courses.is_empty() => only,
            Some(last) => {
                courses.push(last);
                Course::open(self.initiator, Choice::TranslationKind, courses)
            }
            None => Course::end(End::Undefined(self.initiator)),
        }
    }

    fn request_with(&self, number: Number) -> Course {
        let at = if self.handed == Handed::Translated { At::Translated } else { At::Untranslated };
        let requester = self.topology().function(self.initiator).address();
        let tlp = Tlp::Request { kind: self.kind, at, number, requester, payload: None, operand: None };
        let mut notes = Vec::new();
        self.ground.bus_master_on(self.initiator, &mut notes);
        let express = payload::in_force(self.topology(), self.initiator);
        if self.kind == Kind::Atomic && express.atomic_requester != Some(true) {
            notes.push(Note::Assumed(self.initiator, super::course::Assumption::AtomicRequester));
        }
        let course = self.ground.leave(self.initiator, &tlp).after(notes);
        course.and_then(&mut |end| match end {
            End::Root { from, .. } => self.through_root(from, &tlp),
            // By a path between root ports, of which there is none in a root complex that forwards nothing.
            End::Delivered { to, through_root: true } => self.as_delivers(to, &|| Course::end(end)),
            other => Course::end(other),
        })
    }

    /// What the root complex sends on, if it does; `at` is where that is asked.
    fn as_delivers(&self, at: FunctionId, go_on: &dyn Fn() -> Course) -> Course {
        match self.delivers() {
            Fact::Known(true) => go_on(),
            Fact::Known(false) => Course::end(End::NotForwarded),
            Fact::Unknown => Course::unread(at, Unread::Forwarding, vec![go_on(), Course::end(End::NotForwarded)]),
        }
    }

    /// The root complex has the request and sends it on to the target, or not.
    fn through_root(&self, from: FunctionId, tlp: &Tlp) -> Course {
        let Some(host) = self.host_of(self.target.function()) else {
            return Course::end(End::Unplaced(self.target.function()));
        };
        // Where the mode is not told the address is what is unknown, not the way.
        let iommu_takes_it_for_iova = matches!(self.handed, Handed::Bus | Handed::CpuPhysical)
            && Domain::of(self.topology(), self.initiator).translates() == Some(true);
        if iommu_takes_it_for_iova {
            return Course::end(End::NotForwarded).after(vec![Note::StoppedByIommu]);
        }
        if self.handed == Handed::Bus && self.offset() == Fact::Known(true) {
            return Course::end(End::Undefined(from)).after(vec![Note::BusAddressAtRoot]);
        }
        self.as_delivers(from, &|| self.down_from_root(from, host, tlp)).after(vec![Note::ThroughRoot])
    }

    /// Down again, with the target's bus address.
    fn down_from_root(&self, from: FunctionId, host: HostBridgeId, tlp: &Tlp) -> Course {
        let Tlp::Request { kind, at, requester, .. } = *tlp else { return Course::end(End::NotForwarded) };
        let number = Number { range: self.target.bus(), target: Some(self.target.function()) };
        let down = Tlp::Request { kind, at, number, requester, payload: None, operand: None };
        let go_on = || self.ground.descend_from_root(host, from, &down).in_root_complex();
        // Between root ports, the one it came in by routes too (PCIe 6.0 §6.15.3).
        if self.ground.info(from).is_bridge() { self.ground.routed_atomics(from, tlp, false, &go_on) } else { go_on() }
    }

    /// A request that arrives is answered; the answer travels by the requester's ID.
    fn with_completion(&self, request: Course) -> Course {
        let target = self.target.function();
        request.and_then(&mut |end| match end {
            End::Delivered { to, through_root } if to == target => {
                let kept = self.completion(through_root);
                let replaced = || Course::end(End::Delivered { to: self.initiator, through_root });
                if through_root { Course::open(target, Choice::RequesterKept, vec![kept, replaced()]) } else { kept }
            }
            // Whoever else takes it does not answer with the target's bytes.
            End::Delivered { to, through_root } => {
                Course::end(End::Delivered { to, through_root }).after(vec![Note::TakenByAnother(to)])
            }
            other => Course::end(other),
        })
    }

    /// The root complex holds a completion behind what it redirects and sends it on
    /// without new checks (PCIe 6.0 §6.12.1.1).
    ///
    /// A bridge to conventional PCI asks and answers for what is behind it (PCI Express to PCI Bridge 1.0
    /// §2.2.2): in the name of its bus, by its own link, and also where both ends are on that bus, if the
    /// request has left it.
    fn completion(&self, through_root: bool) -> Course {
        let (initiator, target) = (self.initiator, self.target.function());
        let beyond = |one, other| {
            let bridge = self.ground.bridge_to_pci(one);
            bridge.filter(|&bridge| through_root || !self.ground.is_below(other, bridge))
        };
        let own = self.topology().function(initiator).address();
        let named = beyond(initiator, target).and_then(|bridge| self.ground.info(bridge).registers.buses);
        let to = named.map_or(own, |buses| PciAddr::new(own.domain(), buses.secondary, DevFn::new(0)));
        let tlp = Tlp::Completion { to, holder: Some(initiator), relaxed: false, payload: None };
        let completer = beyond(target, initiator).unwrap_or(target);
        self.ground.leave(completer, &tlp).and_then(&mut |end| match (end, self.host_of(initiator)) {
            (End::Root { from, .. }, Some(host)) => self.ground.descend_from_root(host, from, &tlp),
            (End::Root { .. }, None) => Course::end(End::Unplaced(initiator)),
            (other, _) => Course::end(other),
        })
    }

    /// Who says what the root complex does.
    pub(super) fn sources(&self) -> String {
        match self.forwarding().sources.as_slice() {
            [] => "nothing says what it does with peer requests".into(),
            sources => {
                let sources: Vec<String> = sources.iter().map(ToString::to_string).collect();
                format!("because {}", sources.join("; "))
            }
        }
    }
}
