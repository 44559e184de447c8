//! Requests between functions of one device.
//!
//! Whether a device has a way inside is its own business (PCIe 6.0 §6.12.1.2). Where it has
//! one, the sender's access control decides as a port's would, counting functions or function
//! groups instead of ports; what may not go inside goes out on the link.

use super::Fabric;
use super::arrival::{Arrival, Egress, Ending};
use super::tree::{Above, NodeId};
use super::upstream::Peer;
use crate::wire::Head;

impl Fabric {
    /// Where a request goes that a function sends.
    pub(super) fn leave_function(&self, from: NodeId, head: Head) -> Arrival {
        let out = Arrival::on(Egress::Up(self.tree.link(from)), head);
        if !self.tree.node(from).peers_inside {
            return out;
        }
        let siblings = self.siblings(from);
        let Some(sibling) = siblings.into_iter().find(|&other| self.claims_as_function(other, head.address)) else {
            return out;
        };
        let node = self.tree.node(sibling);
        // On a root bus a device is told by its number. Below a link the number is 0, or with ARI a part of
        // the function's (§6.13).
        let is_integrated = matches!(node.above, Above::Root(_));
        let own = node.address.devfn();
        let number = node.group.unwrap_or(if is_integrated { own.function() } else { own.as_u8() });
        match self.peer(from, head.at, self.tree.config(from).egress_bit(number)) {
            // Inside a root complex the way is the root complex's own.
            Peer::Across if is_integrated => out,
            Peer::Across => Arrival::on(Egress::Into(sibling), head),
            Peer::Up => out,
            Peer::Violation => Arrival::End(Ending::Violation(from)),
        }
    }

    /// Other functions of the same device; on a root bus those of the same number that are no ports.
    fn siblings(&self, from: NodeId) -> Vec<NodeId> {
        match self.tree.node(from).above {
            Above::Port(_) => self.tree.device_of(from).filter(|&other| other != from).collect(),
            Above::Root(host) => {
                let device = |id: NodeId| self.tree.node(id).address.devfn().device();
                let integrated = |&other: &NodeId| self.tree.config(other).buses_below().is_none();
                let beside =
                    self.tree.on_root_bus(host).filter(|&other| other != from && device(other) == device(from));
                beside.filter(integrated).collect()
            }
        }
    }
}
