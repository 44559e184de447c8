//! A TLP's way: up from port to port, across where a port lets it, and down.
//!
//! A port compares a number or a bus with its own side first, then with its
//! siblings' (PCIe 6.0 §2.2.4, §7.5.1.3); [`super::rules`] says what it does then.
//! [`super::leave`] is where a walk begins, and where it leaves a switch. The root
//! complex is where a walk up ends; a walk down starts there again.

use super::controls::{self, Filling};
use super::course::{Assumption, Choice, Course, End, Note, Unread};
use super::ground::{Ground, Role};
use super::rules::{self, Cause, Homeward, Port, Step, Toward};
use super::tlp::{At, Number, Tlp};
use crate::pcie::Fact;
use crate::route::payload;
use crate::topology::{FunctionId, HostBridgeId, Parent};
use alloc::vec;
use alloc::vec::Vec;

/// Where a TLP leads, seen from the port that it entered from below.
struct Located {
    toward: Toward,
    /// Who takes it if it goes across.
    taker: Option<FunctionId>,
}

impl Ground<'_> {
    /// A TLP that enters a root port or downstream port from the link below it.
    pub(super) fn enter_from_below(&self, port: FunctionId, tlp: &Tlp) -> Course {
        if self.is_malformed(port, tlp) {
            return Course::end(End::Malformed(port));
        }
        let mut notes = Vec::new();
        let course = match tlp {
            Tlp::Request { at, number, requester, .. } => {
                let located = self.locate(port, number, &mut notes);
                let source_inside = self.source_is_below(port, *requester);
                let bus_master = self.bus_master_on(port, &mut notes);
                match (self.role(port), located.toward) {
                    (Role::Untold, Toward::Own) => Course::end(End::Untyped(port)),
                    (Role::Untold, Toward::Peer { .. }) => Course::end(End::Untyped(port)),
                    _ => {
                        notes.extend(self.assumed_controls(port));
                        self.request_at(port, &located, (*at, source_inside, bus_master), tlp, &mut notes)
                    }
                }
            }
            Tlp::Completion { to, holder, relaxed, .. } => {
                let (homeward, taker) = self.locate_requester(port, *to, *holder);
                if homeward != Homeward::Above {
                    notes.extend(self.assumed_controls(port));
                }
                let fillings = controls::fillings(&self.info(port).registers.acs, None);
                let step = |filling: &Filling| rules::completion(filling.controls, *relaxed, homeward);
                self.by_filling(port, &fillings, &step, &|step, _| match (step, taker) {
                    (Step::Up, _) => self.go_up(port, tlp),
                    (Step::Across, Some(taker)) => self.descend(taker, tlp),
                    _ => Course::end(End::Undefined(port)),
                })
            }
        };
        course.after(notes)
    }

    fn request_at(
        &self,
        port: FunctionId,
        located: &Located,
        (at, source_inside, bus_master): (At, bool, bool),
        tlp: &Tlp,
        notes: &mut Vec<Note>,
    ) -> Course {
        let number = located.taker.map(|taker| self.info(taker).registers.express.port_number.map(u32::from).into());
        let mut fillings = controls::fillings(&self.info(port).registers.acs, number);
        let is_root_port = self.role(port) == Role::Root;
        let own_path = self.terms.between_root_ports;
        let mut toward = located.toward;
        if is_root_port && toward != Toward::Own && own_path == Fact::Known(false) {
            // Without a path between root ports the root complex has it next, whatever it is for.
            toward = Toward::Above;
        }
        let open_path = is_root_port && own_path == Fact::Unknown && matches!(toward, Toward::Peer { .. });
        if open_path && controls::others_are_assumed(&self.info(port).registers.acs) {
            // The first one has all of them clear.
            fillings.truncate(1);
            notes.push(Note::Assumed(port, Assumption::RootPortEgress));
        }
        let step = |filling: &Filling| {
            let toward = match toward {
                Toward::Peer { .. } => Toward::Peer { bit: filling.bit },
                other => other,
            };
            let state = Port { controls: filling.controls, enhanced: filling.enhanced, bus_master };
            rules::request(state, at, source_inside, toward)
        };
        self.by_filling(port, &fillings, &step, &|step, cause| match step {
            Step::Violation if open_path && cause == Cause::EgressBlocked => {
                let branches = vec![Course::end(End::Violation(port)), self.go_up(port, tlp)];
                Course::open(port, Choice::BetweenRootPorts, branches)
            }
            Step::Violation => Course::end(End::Violation(port)),
            Step::Unsupported => Course::end(End::Unsupported(port)),
            Step::Undefined => Course::end(End::Undefined(port)),
            Step::Across if open_path => match located.taker {
                Some(taker) => {
                    let across = self.routed_atomics(port, tlp, false, &|| self.descend(taker, tlp)).in_root_complex();
                    Course::open(port, Choice::PastIommu, vec![self.go_up(port, tlp), across])
                }
                None => self.go_up(port, tlp),
            },
            Step::Up => self.go_up(port, tlp),
            Step::Across => match located.taker {
                Some(taker) => self.routed_atomics(port, tlp, false, &|| self.descend(taker, tlp)),
                None => self.go_up(port, tlp),
            },
        })
    }

    /// One course for each different step that the registers may lead to.
    pub(super) fn by_filling(
        &self,
        at: FunctionId,
        fillings: &[Filling],
        step: &dyn Fn(&Filling) -> (Step, Cause),
        go_on: &dyn Fn(Step, Cause) -> Course,
    ) -> Course {
        let mut steps: Vec<(Step, Cause)> = Vec::new();
        for decided in fillings.iter().map(step) {
            if !steps.iter().any(|(known, _)| *known == decided.0) {
                steps.push(decided);
            }
        }
        let mut branches: Vec<Course> = steps
            .iter()
            .map(|&(step, cause)| {
                let silent = cause == Cause::Elsewhere || steps.len() > 1;
                go_on(step, cause).after(if silent { Vec::new() } else { vec![Note::Rule(at, cause)] })
            })
            .collect();
        match branches.pop() {
            Some(only) if branches.is_empty() => only,
            Some(last) => {
                branches.push(last);
                Course::unread(at, Unread::Acs, branches)
            }
            // There is always at least one way of filling in.
            None => Course::end(End::Undefined(at)),
        }
    }

    /// Where an address leads from a port.
    fn locate(&self, port: FunctionId, number: &Number, notes: &mut Vec<Note>) -> Located {
        let at = |toward, taker| Located { toward, taker };
        if self.windows_hold(port, number, notes) {
            return at(Toward::Own, None);
        }
        match self.topology.upstream(port) {
            Parent::Bridge(upstream) => {
                let siblings = self.below(upstream).iter().copied();
                if let Some(own) = siblings.clone().find(|&sibling| self.bars_hold(sibling, number)) {
                    return at(Toward::DownstreamBar, Some(own));
                }
                if self.bars_hold(upstream, number) {
                    return at(Toward::UpstreamBar, Some(upstream));
                }
                let peer = siblings
                    .filter(|&sibling| sibling != port && self.info(sibling).is_bridge())
                    .find(|&sibling| self.windows_hold(sibling, number, notes) && self.memory_on(sibling, notes));
                match peer {
                    Some(peer) => at(Toward::Peer { bit: false }, Some(peer)),
                    None if self.role(upstream) == Role::Upstream && self.windows_hold(upstream, number, notes) => {
                        at(Toward::Hole, None)
                    }
                    None => at(Toward::Above, None),
                }
            }
            Parent::Root(host) if self.role(port) == Role::Root => {
                let peer = self.on_root_bus(host).iter().copied().find(|&sibling| {
                    sibling != port && self.role(sibling) == Role::Root && self.windows_hold(sibling, number, notes)
                });
                match peer {
                    Some(peer) => at(Toward::Peer { bit: false }, Some(peer)),
                    None => at(Toward::Above, None),
                }
            }
            Parent::Root(_) | Parent::Unknown { .. } => at(Toward::Above, None),
        }
    }

    /// Where a completion leads from a port (PCIe 6.0 §2.2.4.2: by the requester's bus).
    fn locate_requester(
        &self,
        port: FunctionId,
        to: crate::pcie::PciAddr,
        holder: Option<FunctionId>,
    ) -> (Homeward, Option<FunctionId>) {
        if self.buses_hold(port, to, holder) {
            return (Homeward::Own, None);
        }
        let Parent::Bridge(upstream) = self.topology.upstream(port) else { return (Homeward::Above, None) };
        let peer = self.below(upstream).iter().copied().find(|&sibling| {
            sibling != port && (self.info(sibling).is_bridge() && self.buses_hold(sibling, to, holder))
        });
        match peer {
            Some(peer) => (Homeward::Peer, Some(peer)),
            None => (Homeward::Above, None),
        }
    }

    /// From a port towards the root: out of the switch by its upstream port, or to the root complex.
    fn go_up(&self, port: FunctionId, tlp: &Tlp) -> Course {
        match self.topology.upstream(port) {
            Parent::Unknown { .. } => Course::end(End::Unplaced(port)),
            Parent::Root(host) => Course::end(End::Root { from: port, host }),
            Parent::Bridge(upstream) if self.role(upstream) == Role::Upstream => {
                self.routed_atomics(port, tlp, false, &|| {
                    self.routed_atomics(upstream, tlp, true, &|| {
                        let mut notes = Vec::new();
                        let is_request = matches!(tlp, Tlp::Request { .. });
                        let course = if is_request && !self.bus_master_on(upstream, &mut notes) {
                            Course::end(End::Unsupported(upstream))
                        } else {
                            self.leave(upstream, tlp)
                        };
                        course.after(notes)
                    })
                })
            }
            Parent::Bridge(_) => self.leave(port, tlp),
        }
    }

    /// A TLP that the root complex sends down below a host bridge. `from` is where it came in.
    pub(super) fn descend_from_root(&self, host: HostBridgeId, from: FunctionId, tlp: &Tlp) -> Course {
        let mut notes = Vec::new();
        // A root port whose memory decoding is off refuses what is its own, below.
        let taker = self.on_root_bus(host).iter().copied().find(|&below| match tlp {
            Tlp::Request { number, .. } => {
                self.bars_hold(below, number)
                    || self.info(below).is_bridge() && self.windows_hold(below, number, &mut notes)
            }
            Tlp::Completion { .. } => self.takes(below, tlp, &mut notes),
        });
        let course = match (taker, tlp) {
            (Some(taker), _) => self.descend(taker, tlp),
            (None, Tlp::Request { .. }) => Course::end(End::Unsupported(from)),
            (None, Tlp::Completion { .. }) => Course::end(End::Adrift(from)),
        };
        course.after(notes)
    }

    /// A TLP that travels down to a function that takes it. Nothing of ACS applies.
    pub(super) fn descend(&self, to: FunctionId, tlp: &Tlp) -> Course {
        let info = self.info(to);
        let own = match tlp {
            Tlp::Request { number, .. } => self.bars_hold(to, number),
            Tlp::Completion { to: address, .. } => info.address == *address,
        };
        if own || !info.is_bridge() {
            return self.arrive(to, tlp);
        }
        let mut notes = Vec::new();
        if matches!(tlp, Tlp::Request { .. }) && !self.memory_on(to, &mut notes) {
            return Course::end(End::Unsupported(to)).after(notes);
        }
        // A bridge to conventional PCI has asked for whoever is behind it, and remembers for whom.
        if let Tlp::Completion { holder: Some(holder), .. } = *tlp
            && self.bridge_to_pci(holder) == Some(to)
        {
            return match self.is_malformed(to, tlp) {
                true => Course::end(End::Malformed(to)),
                false => Course::end(End::Delivered { to: holder, through_root: false }),
            };
        }
        let role = self.role(to);
        // The payload is checked where a TLP comes off a link.
        if !matches!(role, Role::Root | Role::Downstream) && self.is_malformed(to, tlp) {
            return Course::end(End::Malformed(to)).after(notes);
        }
        if role == Role::Conventional && tlp.is_atomic() {
            return Course::end(End::Unsupported(to)).after(vec![Note::AtomicsNotRouted(to)]);
        }
        let taker = self.below(to).iter().copied().find(|&below| self.takes(below, tlp, &mut notes));
        let go_on = || match (taker, tlp) {
            (Some(taker), _) => self.descend(taker, tlp),
            (None, Tlp::Completion { .. }) => Course::end(End::Adrift(to)),
            // On a link it is the device that does not know the address; on an internal bus the switch.
            (None, Tlp::Request { .. }) if role == Role::Upstream => Course::end(End::Unsupported(to)),
            (None, Tlp::Request { .. }) => Course::end(End::Unsupported(self.below(to).first().copied().unwrap_or(to))),
        };
        let is_egress = matches!(role, Role::Root | Role::Downstream);
        self.routed_atomics(to, tlp, is_egress, &go_on).after(notes)
    }

    /// A function takes a TLP as its own.
    fn arrive(&self, at: FunctionId, tlp: &Tlp) -> Course {
        let mut notes = Vec::new();
        let delivered = || Course::end(End::Delivered { to: at, through_root: false });
        if self.is_malformed(at, tlp) {
            return Course::end(End::Malformed(at));
        }
        let Tlp::Request { at: translation, operand, .. } = tlp else { return delivered() };
        if !self.memory_on(at, &mut notes) || *translation == At::TranslationRequest {
            return Course::end(End::Unsupported(at)).after(notes);
        }
        if !tlp.is_atomic() {
            return delivered().after(notes);
        }
        let physical = self.topology.placed_as(at);
        let sizes = self.express(at).atomic_completer.or(self.express(physical).atomic_completer);
        match sizes.map(|sizes| sizes.takes(*operand)) {
            Some(true) => delivered(),
            Some(false) => Course::end(End::Unsupported(at)).after(vec![Note::AtomicsNotDone(at)]),
            None => Course::unread(at, Unread::AtomicCompleter, vec![delivered(), Course::end(End::Unsupported(at))]),
        }
        .after(notes)
    }

    /// AtomicOps pass only elements that route them, and egress ports that do not block
    /// them (PCIe 6.0 §6.15.3).
    pub(super) fn routed_atomics(
        &self,
        port: FunctionId,
        tlp: &Tlp,
        is_egress: bool,
        go_on: &dyn Fn() -> Course,
    ) -> Course {
        if !tlp.is_atomic() {
            return go_on();
        }
        let express = self.express(port);
        let egress = || match express.atomic_egress_blocked {
            _ if !is_egress => go_on(),
            Some(false) => go_on(),
            Some(true) => Course::end(End::EgressBlocked(port)),
            None => Course::unread(port, Unread::AtomicEgress, vec![go_on(), Course::end(End::EgressBlocked(port))]),
        };
        let not_routed = || Course::end(End::Unsupported(port)).after(vec![Note::AtomicsNotRouted(port)]);
        match express.atomic_routing {
            Some(true) => egress(),
            Some(false) => not_routed(),
            None => Course::unread(port, Unread::AtomicRouting, vec![egress(), not_routed()]),
        }
    }

    /// More payload than the receiver takes (PCIe 6.0 §2.2.2).
    fn is_malformed(&self, receiver: FunctionId, tlp: &Tlp) -> bool {
        let most = payload::in_force(self.topology, receiver).max_payload;
        tlp.payload().zip(most).is_some_and(|(payload, most)| payload > most)
    }

    pub(super) fn assumed_controls(&self, at: FunctionId) -> Vec<Note> {
        if controls::others_are_assumed(&self.info(at).registers.acs) {
            vec![Note::Assumed(at, Assumption::OtherAcsBits)]
        } else {
            Vec::new()
        }
    }
}
