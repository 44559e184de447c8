//! How a TLP leaves a device: to the port above, unless a neighbour takes it.
//!
//! Neighbours are the other functions of the device on a link, everything on a
//! conventional bus, and one device's functions on a root bus.

use super::controls::{self, Filling};
use super::course::{Assumption, Choice, Course, End, Note};
use super::ground::{Ground, Role};
use super::rules::{self, Step};
use super::tlp::Tlp;
use crate::pcie::Fact;
use crate::topology::{FunctionId, HostBridgeId, Parent};
use alloc::vec;
use alloc::vec::Vec;

impl Ground<'_> {
    /// A TLP that leaves a function upwards: an endpoint's own, or what a switch or
    /// bridge passes on.
    pub(super) fn leave(&self, function: FunctionId, tlp: &Tlp) -> Course {
        match self.topology.upstream(function) {
            Parent::Unknown { .. } => Course::end(End::Unplaced(function)),
            Parent::Root(host) => self.leave_on_root_bus(function, host, tlp),
            Parent::Bridge(above) => match self.role(above) {
                Role::Root | Role::Downstream | Role::Untold => self.leave_on_link(function, above, tlp),
                Role::Conventional => self.leave_on_conventional_bus(function, above, tlp),
                Role::Upstream => Course::end(End::Undefined(function)).after(vec![Note::OnInternalBus(function)]),
            },
        }
    }

    /// On a link the only neighbours are functions of the same device.
    fn leave_on_link(&self, function: FunctionId, above: FunctionId, tlp: &Tlp) -> Course {
        let mut notes = Vec::new();
        let sibling =
            self.below(above).iter().copied().find(|&other| other != function && self.takes(other, tlp, &mut notes));
        let course = match sibling {
            None => self.enter_from_below(above, tlp),
            Some(_) if self.role(above) == Role::Untold && self.is_no_link(above) => Course::end(End::Untyped(above)),
            Some(sibling) => self.between_functions(function, sibling, tlp, &|| self.enter_from_below(above, tlp)),
        };
        course.after(notes)
    }

    /// Only device 0 sits on a link, but for ARI, whose functions are no bridges.
    fn is_no_link(&self, above: FunctionId) -> bool {
        let device = |id: &FunctionId| self.info(*id).address.devfn().device();
        self.below(above).iter().any(|id| device(id) != 0 && self.info(*id).is_bridge())
    }

    /// Functions on a root bus are part of the root complex; one device's functions
    /// have controls between them (PCIe 6.0 §6.12.1.2).
    fn leave_on_root_bus(&self, function: FunctionId, host: HostBridgeId, tlp: &Tlp) -> Course {
        let to_root = || Course::end(End::Root { from: function, host });
        let mut notes = Vec::new();
        let device = |id: FunctionId| self.info(id).address.devfn().device();
        let sibling = self.on_root_bus(host).iter().copied().find(|&other| {
            other != function
                && device(other) == device(function)
                && !self.info(other).is_bridge()
                && self.takes(other, tlp, &mut notes)
        });
        match sibling {
            Some(sibling) => self.controlled(function, sibling, tlp, &|step| match step {
                Step::Violation => Course::end(End::Violation(function)),
                _ => to_root(),
            }),
            None => to_root(),
        }
        .after(notes)
    }

    /// A conventional bus is shared: whoever claims a request takes it, unseen by the
    /// bridge above, which forwards up only what is not for its own side.
    fn leave_on_conventional_bus(&self, function: FunctionId, above: FunctionId, tlp: &Tlp) -> Course {
        let mut notes = Vec::new();
        let taker =
            self.below(above).iter().copied().find(|&other| other != function && self.takes(other, tlp, &mut notes));
        if let Some(taker) = taker {
            notes.push(Note::SharedBus(above));
            return self.descend(taker, tlp).after(notes);
        }
        let own = match tlp {
            Tlp::Request { number, .. } => self.windows_hold(above, number, &mut notes),
            Tlp::Completion { to, holder, .. } => self.buses_hold(above, *to, *holder),
        };
        let course = match tlp {
            Tlp::Request { .. } if own || tlp.is_atomic() => Course::end(End::Unsupported(above)),
            Tlp::Completion { .. } if own => Course::end(End::Adrift(above)),
            _ => self.leave(above, tlp),
        };
        course.after(notes)
    }

    /// A TLP of one function for a sibling in its device. `out` is its way on the link.
    fn between_functions(
        &self,
        function: FunctionId,
        sibling: FunctionId,
        tlp: &Tlp,
        out: &dyn Fn() -> Course,
    ) -> Course {
        self.controlled(function, sibling, tlp, &|step| match step {
            Step::Across => {
                let inside = || self.descend(sibling, tlp);
                match &self.terms.inside {
                    Some(stated) if stated.contains(&function) => inside(),
                    Some(_) => out(),
                    None => Course::open(function, Choice::InsideDevice, vec![inside(), out()]),
                }
            }
            Step::Violation => Course::end(End::Violation(function)),
            _ => out(),
        })
    }

    /// What a function's own controls say of a TLP for a sibling.
    fn controlled(
        &self,
        function: FunctionId,
        sibling: FunctionId,
        tlp: &Tlp,
        go_on: &dyn Fn(Step) -> Course,
    ) -> Course {
        let acs = &self.info(function).registers.acs;
        let fillings = controls::fillings_of_function(acs, Some(Fact::Known(self.function_number(sibling))));
        let mut notes = self.assumed_controls(function);
        if !self.terms.enables_count && fillings.iter().any(|filling| filling.bit) {
            notes.push(Note::Assumed(function, Assumption::FunctionGroups));
        }
        let step = |filling: &Filling| match tlp {
            Tlp::Request { at, .. } => rules::peer(filling.controls, *at, filling.bit),
            Tlp::Completion { relaxed, .. } => rules::completion_to_peer(filling.controls, *relaxed),
        };
        self.by_filling(function, &fillings, &step, &|step, _| go_on(step)).after(notes)
    }

    /// What an egress vector counts a sibling function by: its function number (of eight
    /// bits with ARI), or its group.
    fn function_number(&self, function: FunctionId) -> u32 {
        if let Some(&group) = self.terms.groups.get(&function) {
            return group;
        }
        let address = self.info(function).address;
        match self.topology.upstream(function) {
            Parent::Bridge(above) => {
                let first = self.info(above).registers.buses.map_or(address.bus(), |buses| buses.secondary);
                u32::from(address.bus().saturating_sub(first)) << 8 | u32::from(address.devfn().as_u8())
            }
            _ => u32::from(address.devfn().function()),
        }
    }
}
