//! Messages for the root complex, which go up whatever address they carry (PCIe 6.0 §2.2.8).
//!
//! Of access control only Source Validation looks at them: it is about every request that a port gets
//! from below, while Translation Blocking and redirection are about addresses (§6.12.1.1). Bus
//! Master Enable stops memory and I/O requests and nothing else (§7.5.1.1.3).

use super::Fabric;
use super::arrival::{Arrival, Egress, Ending};
use super::tree::{Above, NodeId};
use super::upstream::acs;
use crate::wire::Head;
use peerdma::pcie::express::PortType;

impl Fabric {
    /// What becomes of a page request at the upper end of the link above `node`.
    pub(super) fn message_above(&self, node: NodeId, head: Head) -> Arrival {
        let port = match self.tree.node(node).above {
            Above::Root(host) => return Arrival::PageRequest { host },
            Above::Port(port) => port,
        };
        match self.tree.config(port).port_type() {
            Some(PortType::RootPort | PortType::DownstreamPort) => {
                if self.control(port) & acs::SOURCE_VALIDATION != 0 && !self.is_from_below(port, &head) {
                    return Arrival::End(Ending::Violation(port));
                }
            }
            Some(PortType::UpstreamPort) => {}
            // Conventional PCI has no messages.
            _ => return Arrival::End(Ending::Unsupported(port)),
        }
        match self.tree.node(port).above {
            Above::Root(host) => Arrival::PageRequest { host },
            Above::Port(upstream) if self.tree.config(port).port_type() == Some(PortType::DownstreamPort) => {
                Arrival::on(Egress::Up(self.tree.link(upstream)), head)
            }
            Above::Port(_) => Arrival::on(Egress::Up(self.tree.link(port)), head),
        }
    }
}
