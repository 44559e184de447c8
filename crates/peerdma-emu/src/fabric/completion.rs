//! The way of a completion, which is routed by the bus number of the requester (PCIe 6.0 §2.2.4.2).
//!
//! Of access control only Completion Redirect and, on a turn back, Upstream Forwarding have a say,
//! and Completion Redirect lets completions with Relaxed Ordering pass.

use super::Fabric;
use super::arrival::{Completion, CompletionArrival, Egress, Ending};
use super::tree::{Above, HostId, NodeId};
use super::upstream::acs;
use peerdma::addr::Bytes;
use peerdma::pcie::express::PortType;

impl Fabric {
    /// The most data that one completion of a function brings: its payload size, and of a device on
    /// conventional PCI, which has none, that of the bridge which makes completions of what it read.
    pub fn completion_payload(&self, from: NodeId) -> Option<Bytes> {
        let above = |&node: &NodeId| match self.tree.node(node).above {
            Above::Root(_) => None,
            Above::Port(port) => Some(port),
        };
        std::iter::successors(Some(from), above).find_map(|node| self.tree.config(node).max_payload())
    }

    /// Where a completion goes that a function sends.
    pub(super) fn completion_leaves(&self, from: NodeId, completion: &Completion) -> CompletionArrival {
        if self.tree.node(from).address == completion.requester {
            return CompletionArrival::Function(from);
        }
        if self.tree.node(from).peers_inside {
            let mut siblings = self.tree.device_of(from);
            let sibling = siblings.find(|&other| self.tree.node(other).address == completion.requester);
            if let Some(sibling) = sibling.filter(|_| !self.is_redirected(from, completion)) {
                return CompletionArrival::Forward(Egress::Into(sibling));
            }
        }
        // A switch port's own registers answer from within the switch.
        match (self.tree.config(from).port_type(), self.tree.node(from).above) {
            (Some(PortType::DownstreamPort), Above::Port(upstream)) => {
                self.completion_on_internal_bus(upstream, None, completion)
            }
            (Some(PortType::UpstreamPort), _) => self.completion_on_internal_bus(from, None, completion),
            (Some(PortType::RootPort), Above::Root(host)) => self.completion_in_root(host, completion),
            _ => CompletionArrival::Forward(Egress::Up(self.tree.link(from))),
        }
    }

    fn is_redirected(&self, at: NodeId, completion: &Completion) -> bool {
        self.control(at) & acs::COMPLETION_REDIRECT != 0 && !completion.relaxed
    }

    /// What becomes of a completion at the upper end of the link above `node`.
    pub(super) fn completion_above(&self, node: NodeId, completion: &Completion) -> CompletionArrival {
        let port = match self.tree.node(node).above {
            Above::Root(host) => return self.completion_in_root(host, completion),
            Above::Port(port) => port,
        };
        // On conventional PCI no packet arrives that could be too long.
        let on_link = self.tree.config(node).port_type().is_some();
        if on_link && self.tree.config(port).max_payload().is_some_and(|max| completion.len > max) {
            return CompletionArrival::End(Ending::Malformed(port));
        }
        match (self.tree.config(port).port_type(), self.tree.node(port).above) {
            (Some(PortType::DownstreamPort), Above::Port(upstream)) => {
                self.completion_on_internal_bus(upstream, Some(port), completion)
            }
            (Some(PortType::RootPort), Above::Root(host)) => {
                if self.is_below(port, completion) && self.control(port) & acs::UPSTREAM_FORWARDING == 0 {
                    return CompletionArrival::End(Ending::Undefined(port));
                }
                self.completion_in_root(host, completion)
            }
            (Some(PortType::UpstreamPort), _) => self.completion_on_internal_bus(port, None, completion),
            _ => self.completion_on_conventional_bus(port, completion),
        }
    }

    /// Whether the requester's bus is below a port.
    fn is_below(&self, port: NodeId, completion: &Completion) -> bool {
        let requester = completion.requester;
        requester.domain() == self.tree.node(port).address.domain() && self.buses_hold(port, requester.bus())
    }

    /// A completion within a switch; `from` is the downstream port that it came in by.
    fn completion_on_internal_bus(
        &self,
        upstream: NodeId,
        from: Option<NodeId>,
        completion: &Completion,
    ) -> CompletionArrival {
        let up = CompletionArrival::Forward(Egress::Up(self.tree.link(upstream)));
        if let Some(port) = from.filter(|&port| self.is_below(port, completion)) {
            return if self.control(port) & acs::UPSTREAM_FORWARDING != 0 {
                up
            } else {
                CompletionArrival::End(Ending::Undefined(port))
            };
        }
        match self.tree.below(upstream).find(|&port| self.is_below(port, completion)) {
            Some(_) if from.is_some_and(|port| self.is_redirected(port, completion)) => up,
            Some(port) => CompletionArrival::Forward(Egress::Down(port)),
            None => {
                let mut inside = self.tree.below(upstream);
                match inside.find(|&node| self.tree.node(node).address == completion.requester) {
                    Some(node) => CompletionArrival::Forward(Egress::Into(node)),
                    None => up,
                }
            }
        }
    }

    /// A completion from a device on a bus of conventional PCI: to a neighbour, or on by a bridge.
    fn completion_on_conventional_bus(&self, bridge: NodeId, completion: &Completion) -> CompletionArrival {
        let is_it = |node: NodeId| self.tree.node(node).address == completion.requester;
        let mut beside = self.tree.below(bridge);
        CompletionArrival::Forward(match beside.find(|&node| is_it(node) || self.is_below(node, completion)) {
            Some(node) if is_it(node) => Egress::Into(node),
            Some(node) => Egress::Down(node),
            None => Egress::Up(self.tree.link(bridge)),
        })
    }

    /// A completion that a root complex sends in answer to a request, or passes on.
    pub(super) fn completion_from_root(&self, host: HostId, completion: &Completion) -> CompletionArrival {
        self.completion_in_root(host, completion)
    }

    /// A completion in a root complex.
    fn completion_in_root(&self, host: HostId, completion: &Completion) -> CompletionArrival {
        let own = |&host: &HostId| self.root.host(host).requester() == completion.requester;
        if let Some(own) = self.root.hosts().find(own) {
            return CompletionArrival::Root(own);
        }
        for host in std::iter::once(host).chain(self.root.hosts().filter(|&other| other != host)) {
            for node in self.tree.on_root_bus(host) {
                if self.tree.node(node).address == completion.requester {
                    return CompletionArrival::Forward(Egress::Into(node));
                }
                if self.is_below(node, completion) {
                    return CompletionArrival::Forward(Egress::Down(node));
                }
            }
        }
        CompletionArrival::End(Ending::UndefinedRoot(host))
    }

    /// What becomes of a completion on the bus below a port.
    pub(super) fn completion_below(&self, port: NodeId, completion: &Completion) -> CompletionArrival {
        let mut on_bus = self.tree.below(port).peekable();
        let Some(&first) = on_bus.peek() else { return CompletionArrival::End(Ending::LinkDown(port)) };
        let takes =
            |&node: &NodeId| self.tree.node(node).address == completion.requester || self.is_below(node, completion);
        let Some(node) = on_bus.find(takes) else { return CompletionArrival::End(Ending::Unexpected(first)) };
        if self.tree.config(node).max_payload().is_some_and(|max| completion.len > max) {
            return CompletionArrival::End(Ending::Malformed(node));
        }
        if self.tree.node(node).address == completion.requester {
            return CompletionArrival::Function(node);
        }
        match self.tree.config(node).port_type() {
            Some(PortType::UpstreamPort) => {
                let mut ports = self.tree.below(node);
                match ports.find(|&port| self.is_below(port, completion)) {
                    Some(port) => CompletionArrival::Forward(Egress::Down(port)),
                    None => {
                        match self.tree.below(node).find(|&at| self.tree.node(at).address == completion.requester) {
                            Some(inside) => CompletionArrival::Forward(Egress::Into(inside)),
                            None => CompletionArrival::End(Ending::Unexpected(node)),
                        }
                    }
                }
            }
            // A bridge to conventional PCI asks in the name of its secondary bus, and remembers for whom.
            _ => CompletionArrival::Function(node),
        }
    }
}
