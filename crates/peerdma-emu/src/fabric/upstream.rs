//! A request that comes up to a port, and what the port does with it.
//!
//! Access control acts here and nowhere else outside of devices (PCIe 6.0 §6.12): at the port
//! by which a request enters on its way up, never at the port by which it leaves, and never
//! on what travels down.

use super::Fabric;
use super::arrival::{Arrival, Egress, Ending};
use super::tree::{Above, NodeId};
use crate::wire::{AddressType, BOUNDARY, Head, Kind};
use peerdma::addr::BusAddr;
use peerdma::pcie::express::PortType;
use peerdma::pcie::{DevFn, PciAddr};

/// Bits of the ACS control register (PCIe 6.0 §7.7.11.3).
pub(super) mod acs {
    pub(in crate::fabric) const SOURCE_VALIDATION: u16 = 1 << 0;
    pub(in crate::fabric) const TRANSLATION_BLOCKING: u16 = 1 << 1;
    pub(in crate::fabric) const REQUEST_REDIRECT: u16 = 1 << 2;
    pub(in crate::fabric) const COMPLETION_REDIRECT: u16 = 1 << 3;
    pub(in crate::fabric) const UPSTREAM_FORWARDING: u16 = 1 << 4;
    pub(in crate::fabric) const EGRESS_CONTROL: u16 = 1 << 5;
    pub(in crate::fabric) const DIRECT_TRANSLATED: u16 = 1 << 6;
    pub(in crate::fabric) const DOWNSTREAM_TARGET: u32 = 8;
    pub(in crate::fabric) const UPSTREAM_TARGET: u32 = 10;
    pub(in crate::fabric) const UNCLAIMED_REDIRECT: u16 = 1 << 12;
    /// In the capability register: the fields above bit 7 of the control register exist.
    pub(in crate::fabric) const ENHANCED: u16 = 1 << 7;
}

/// What access control makes of a request for a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Peer {
    Across,
    Up,
    Violation,
}

impl Fabric {
    /// The bits of a node's ACS control register; without the capability all are zero.
    pub(super) fn control(&self, node: NodeId) -> u16 {
        self.tree.config(node).acs().map_or(0, |acs| acs.control)
    }

    /// What the table of Request Redirect against Egress Control gives (PCIe 6.0 §6.12.3).
    ///
    /// `vector` is the egress vector's bit of the target.
    pub(super) fn peer(&self, node: NodeId, at: AddressType, vector: bool) -> Peer {
        let control = self.control(node);
        let set = |bit| control & bit != 0;
        // Translation Blocking comes before it: a port has ended such a request, and functions have none.
        if at == AddressType::Translated && set(acs::DIRECT_TRANSLATED) {
            return Peer::Across;
        }
        match (set(acs::EGRESS_CONTROL), set(acs::REQUEST_REDIRECT), vector) {
            (false, false, _) | (true, _, false) => Peer::Across,
            (false, true, _) | (true, true, true) => Peer::Up,
            (true, false, true) => Peer::Violation,
        }
    }

    /// What becomes of a request at the upper end of the link above `node`.
    pub(super) fn arrive_above(&self, node: NodeId, head: Head) -> Arrival {
        match self.tree.node(node).above {
            Above::Root(host) => self.enter_root(host, None, head),
            Above::Port(port) => match self.tree.config(port).port_type() {
                Some(PortType::RootPort | PortType::DownstreamPort) => self.enter_port(port, head),
                // A function on the bus inside a switch, beside its downstream ports.
                Some(PortType::UpstreamPort) => self.on_internal_bus(port, node, head),
                _ => self.on_conventional_bus(port, node, head),
            },
        }
    }

    /// A request that comes to a root port or downstream port from its link.
    fn enter_port(&self, port: NodeId, head: Head) -> Arrival {
        let config = self.tree.config(port);
        if self.is_malformed(port, &head) {
            return Arrival::End(Ending::Malformed(port));
        }
        let control = self.control(port);
        let set = |bit| control & bit != 0;
        if set(acs::SOURCE_VALIDATION) && !self.is_from_below(port, &head) {
            return Arrival::End(Ending::Violation(port));
        }
        if set(acs::TRANSLATION_BLOCKING) && head.at != AddressType::Untranslated {
            return Arrival::End(Ending::Violation(port));
        }
        // Bus Master Enable of a port is about requests from below (PCIe 6.0 §7.5.1.1.3).
        if !config.bus_master() || head.kind == Kind::Atomic && !config.atomic_routing() {
            return Arrival::End(Ending::Unsupported(port));
        }
        match self.tree.node(port).above {
            Above::Root(_) => self.at_root_port(port, head),
            Above::Port(above) => self.at_downstream_port(port, above, head),
        }
    }

    /// Whether the receiver `node` takes a request for malformed.
    pub(super) fn is_malformed(&self, node: NodeId, head: &Head) -> bool {
        let crosses = head.address.as_u64() % BOUNDARY.as_u64() + head.len.as_u64() > BOUNDARY.as_u64();
        let too_long =
            head.kind == Kind::Write && self.tree.config(node).max_payload().is_some_and(|max| head.len > max);
        let unaligned = head.kind == Kind::Atomic && !head.address.as_u64().is_multiple_of(head.len.as_u64().max(1));
        crosses || too_long || unaligned
    }

    /// ACS Source Validation looks at the bus number alone.
    pub(super) fn is_from_below(&self, port: NodeId, head: &Head) -> bool {
        let requester = head.requester.id;
        requester.domain() == self.tree.node(port).address.domain() && self.buses_hold(port, requester.bus())
    }

    /// Whether a bus is below a port, by its registers.
    pub(super) fn buses_hold(&self, port: NodeId, bus: u8) -> bool {
        self.tree.config(port).buses_below().is_some_and(|(first, last)| (first..=last).contains(&bus))
    }

    /// Whether a port passes an address down.
    pub(super) fn window_is_open(&self, port: NodeId, address: BusAddr) -> bool {
        let config = self.tree.config(port);
        config.memory_enabled() && config.window_claims(address)
    }

    /// A request within a switch that came in by `port`.
    fn at_downstream_port(&self, port: NodeId, upstream: NodeId, head: Head) -> Arrival {
        if let Some(target) = self.port_registers(upstream, head.address) {
            return self.for_port_registers(port, upstream, target, head);
        }
        let address = head.address;
        if self.tree.config(port).window_claims(address) {
            return self.turned_back(port, upstream, head);
        }
        let beside = self.tree.below(upstream).find(|&other| other != port && self.window_is_open(other, address));
        if let Some(other) = beside {
            let number = self.tree.config(other).port_number();
            return match self.peer(port, head.at, self.tree.config(port).egress_bit(number)) {
                Peer::Across => self.leave_by(other, Egress::Down(other), head),
                Peer::Up => self.leave_switch(upstream, head),
                Peer::Violation => Arrival::End(Ending::Violation(port)),
            };
        }
        let inside = self.tree.below(upstream).find(|&other| self.claims_as_function(other, address));
        if let Some(function) = inside {
            return match self.peer(port, head.at, false) {
                Peer::Across => Arrival::on(Egress::Into(function), head),
                Peer::Up => self.leave_switch(upstream, head),
                Peer::Violation => Arrival::End(Ending::Violation(port)),
            };
        }
        if self.tree.config(upstream).window_claims(address) {
            // A hole: within the switch's window and in nobody's (§6.12.1.1, Unclaimed Request Redirect).
            return if self.control(port) & acs::UNCLAIMED_REDIRECT != 0 {
                self.leave_switch(upstream, head)
            } else {
                Arrival::End(Ending::Unsupported(port))
            };
        }
        self.leave_switch(upstream, head)
    }

    /// A request for something below the very port that it came up to.
    fn turned_back(&self, port: NodeId, upstream: NodeId, head: Head) -> Arrival {
        if self.control(port) & acs::UPSTREAM_FORWARDING != 0 {
            self.leave_switch(upstream, head)
        } else {
            Arrival::End(Ending::Undefined(port))
        }
    }

    /// The port of a switch whose own registers or memory have an address.
    fn port_registers(&self, upstream: NodeId, address: BusAddr) -> Option<NodeId> {
        let ports = self.tree.below(upstream).filter(|&port| self.tree.config(port).buses_below().is_some());
        std::iter::once(upstream).chain(ports).find(|&port| self.claims_as_function(port, address))
    }

    /// Whether the fields above bit 7 of a port's ACS control register exist.
    fn is_enhanced(&self, port: NodeId) -> bool {
        self.tree.config(port).acs().is_some_and(|acs| acs.capability & acs::ENHANCED != 0)
    }

    /// A request for a switch port's own memory (§7.7.11.3, Memory Target Access Control).
    fn for_port_registers(&self, port: NodeId, upstream: NodeId, target: NodeId, head: Head) -> Arrival {
        let taken = Arrival::on(Egress::Into(target), head);
        if !self.is_enhanced(port) {
            // Not specified without the enhanced capability; ports answer for themselves.
            return taken;
        }
        let field = if target == upstream { acs::UPSTREAM_TARGET } else { acs::DOWNSTREAM_TARGET };
        match self.control(port) >> field & 0b11 {
            0b00 => taken,
            0b01 => Arrival::End(Ending::Violation(port)),
            0b10 => self.leave_switch(upstream, head),
            _ => Arrival::End(Ending::Undefined(port)),
        }
    }

    /// Out of a switch by its upstream port.
    pub(super) fn leave_switch(&self, upstream: NodeId, head: Head) -> Arrival {
        if !self.tree.config(upstream).bus_master() {
            return Arrival::End(Ending::Unsupported(upstream));
        }
        self.leave_by(upstream, Egress::Up(self.tree.link(upstream)), head)
    }

    /// Out by a port, whose AtomicOp Egress Blocking counts (PCIe 6.0 §6.15.2).
    pub(super) fn leave_by(&self, port: NodeId, egress: Egress, head: Head) -> Arrival {
        let config = self.tree.config(port);
        if head.kind == Kind::Atomic {
            if config.atomic_egress_blocked() {
                return Arrival::End(Ending::EgressBlocked(port));
            }
            if !config.atomic_routing() {
                return Arrival::End(Ending::Unsupported(port));
            }
        }
        Arrival::on(egress, head)
    }

    /// A request at a root port: across to another where the root complex has such a path, else inside.
    fn at_root_port(&self, port: NodeId, head: Head) -> Arrival {
        let host = self.tree.host(port);
        let address = head.address;
        if self.is_enhanced(port) && self.claims_as_function(port, address) {
            // Which root ports' memory this covers is the root complex's choice, but for the ingress port's.
            match self.control(port) >> acs::DOWNSTREAM_TARGET & 0b11 {
                0b01 => return Arrival::End(Ending::Violation(port)),
                0b11 => return Arrival::End(Ending::Undefined(port)),
                _ => {}
            }
        }
        if self.tree.config(port).window_claims(address) && self.control(port) & acs::UPSTREAM_FORWARDING == 0 {
            // The root complex gets it if it decides before the port does, which is where the
            // address of an untranslated request means something; see `root`.
            return Arrival::End(Ending::Undefined(port));
        }
        if self.root.host(host).between_ports {
            let beside =
                self.tree.on_root_bus(host).find(|&other| other != port && self.window_is_open(other, address));
            if let Some(other) = beside {
                let number = self.tree.config(other).port_number();
                match self.peer(port, head.at, self.tree.config(port).egress_bit(number)) {
                    Peer::Across => return self.leave_by(other, Egress::Down(other), head),
                    Peer::Violation => return Arrival::End(Ending::Violation(port)),
                    // Redirected Request Validation is the root complex's own business.
                    Peer::Up => {}
                }
            }
        }
        self.enter_root(host, Some(port), head)
    }

    /// A request of a function on the bus inside a switch.
    fn on_internal_bus(&self, upstream: NodeId, from: NodeId, head: Head) -> Arrival {
        let address = head.address;
        if let Some(target) = self.port_registers(upstream, address) {
            return Arrival::on(Egress::Into(target), head);
        }
        let mut beside = self.tree.below(upstream).filter(|&other| other != from);
        match beside.find(|&other| self.window_is_open(other, address) || self.claims_as_function(other, address)) {
            Some(other) if self.claims_as_function(other, address) => Arrival::on(Egress::Into(other), head),
            Some(other) => self.leave_by(other, Egress::Down(other), head),
            None => self.leave_switch(upstream, head),
        }
    }

    /// A request of a device on a bus of conventional PCI: all others there see it, and the bridge
    /// takes what is outside its windows. A bridge to PCI Express sends it on in its own name, in
    /// packets of its own payload size (PCI Express to PCI Bridge 1.0 §2.2.2, §3.3).
    fn on_conventional_bus(&self, bridge: NodeId, from: NodeId, head: Head) -> Arrival {
        let address = head.address;
        let mut beside = self.tree.below(bridge).filter(|&other| other != from);
        match beside.find(|&other| self.claims_as_function(other, address) || self.window_is_open(other, address)) {
            Some(other) if self.claims_as_function(other, address) => return Arrival::on(Egress::Into(other), head),
            Some(other) => return Arrival::on(Egress::Down(other), head),
            None => {}
        }
        let config = self.tree.config(bridge);
        if config.window_claims(address) || !config.bus_master() {
            return Arrival::End(Ending::Unsupported(bridge));
        }
        let egress = Egress::Up(self.tree.link(bridge));
        // Requests on conventional PCI carry no ID. It is kept up to the bridge that puts in its own,
        // since that is how an answer finds back through bridges that only wait for it.
        if config.port_type().is_none() {
            return Arrival::on(egress, head);
        }
        let own = self.tree.node(bridge).address;
        let bus = config.buses_below().map_or(own.bus(), |(secondary, _)| secondary);
        let mut head = Head { at: AddressType::Untranslated, ..head };
        head.requester.id = PciAddr::new(own.domain(), bus, DevFn::new(0));
        let cut = config.max_payload().filter(|&max| head.kind == Kind::Write && head.len > max);
        Arrival::Forward { egress, head, cut, holds: None }
    }
}
