//! A request that travels down: who on a bus claims it.
//!
//! Nothing on the way down is redirected or blocked by access control (PCIe 6.0 §6.12.1.1).

use super::Fabric;
use super::arrival::{Arrival, Egress, Ending};
use super::tree::NodeId;
use crate::wire::{Head, Kind};
use peerdma::addr::BusAddr;
use peerdma::pcie::express::PortType;

impl Fabric {
    /// Whether a function or port has an address in a BAR of its own.
    pub(super) fn claims_as_function(&self, node: NodeId, address: BusAddr) -> bool {
        let config = self.tree.config(node);
        config.memory_enabled() && config.bar_hit(address).is_some()
    }

    /// What becomes of a request on the bus below a port.
    pub(super) fn arrive_below(&self, port: NodeId, head: Head) -> Arrival {
        let mut on_bus = self.tree.below(port).peekable();
        let Some(&first) = on_bus.peek() else { return Arrival::End(Ending::LinkDown(port)) };
        let claims =
            |&node: &NodeId| self.claims_as_function(node, head.address) || self.window_is_open(node, head.address);
        // Nobody claims it: the device at the other end answers Unsupported Request.
        let Some(node) = on_bus.find(claims) else { return Arrival::End(Ending::Unsupported(first)) };
        if self.is_malformed(node, &head) {
            return Arrival::End(Ending::Malformed(node));
        }
        if self.claims_as_function(node, head.address) {
            return self.arrive_inside(node, head);
        }
        match self.tree.config(node).port_type() {
            Some(PortType::UpstreamPort) => self.down_in_switch(node, head),
            // A bridge to another bus.
            _ => Arrival::on(Egress::Down(node), head),
        }
    }

    /// A request that comes into a switch from above.
    fn down_in_switch(&self, upstream: NodeId, head: Head) -> Arrival {
        if head.kind == Kind::Atomic && !self.tree.config(upstream).atomic_routing() {
            return Arrival::End(Ending::Unsupported(upstream));
        }
        for port in self.tree.below(upstream) {
            if self.claims_as_function(port, head.address) {
                return self.arrive_inside(port, head);
            }
            if self.window_is_open(port, head.address) {
                return self.leave_by(port, Egress::Down(port), head);
            }
        }
        Arrival::End(Ending::Unsupported(upstream))
    }

    /// A request that has come to the function that has its address.
    pub(super) fn arrive_inside(&self, node: NodeId, head: Head) -> Arrival {
        let config = self.tree.config(node);
        match config.bar_hit(head.address).filter(|_| config.memory_enabled()) {
            // Who gives no translations answers a request for one as unsupported.
            Some(_) if head.at == crate::wire::AddressType::TranslationRequest => {
                Arrival::End(Ending::Unsupported(node))
            }
            Some(hit) if head.kind != Kind::Atomic || config.atomic_completes(head.len) => {
                Arrival::Function { node, bar: hit.index, offset: hit.offset, left: hit.left }
            }
            _ => Arrival::End(Ending::Unsupported(node)),
        }
    }
}
