//! Wires: which function hangs below which port. Who is addressed how is in registers.

use crate::config::Space;
use peerdma::pcie::express::PortType;
use peerdma::pcie::{DevFn, PciAddr};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Names a port or a function of one machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[repr(transparent)]
pub struct NodeId(u32);

impl NodeId {
    pub(crate) const fn new(index: usize) -> Self {
        Self(index as u32)
    }

    /// Position among the machine's ports and functions.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Names a host bridge of one machine, in the platform's order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[repr(transparent)]
pub struct HostId(u32);

impl HostId {
    pub(crate) const fn new(index: usize) -> Self {
        Self(index as u32)
    }

    /// Position among the machine's host bridges.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a node hangs below.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Above {
    /// The root bus of a host bridge.
    Root(HostId),
    /// The bus below a port.
    Port(NodeId),
}

/// A port or a function.
#[derive(Debug)]
pub struct Node {
    /// Its address, which is the requester ID of what it sends.
    pub address: PciAddr,
    /// Its registers.
    pub config: Arc<Space>,
    /// What it hangs below.
    pub above: Above,
    /// Whether functions of its device reach each other inside it (PCIe 6.0 §6.12.1.2 leaves that open).
    pub peers_inside: bool,
    /// Its ARI function group, by which egress vectors count where groups are in use.
    pub group: Option<u8>,
}

/// A node and what follows from where it stands.
#[derive(Debug)]
struct Wired {
    node: Node,
    host: HostId,
    /// Nodes on the bus right below.
    below: Vec<NodeId>,
    /// The first function of its device, whose link it shares.
    link: NodeId,
    present: AtomicBool,
}

/// All ports and functions of a machine.
#[derive(Debug, Default)]
pub struct Tree {
    nodes: Vec<Wired>,
    /// Nodes on each root bus, by host bridge.
    roots: Vec<Vec<NodeId>>,
    by_address: BTreeMap<PciAddr, NodeId>,
    /// Counts changes of wires and of registers.
    changes: Arc<AtomicU64>,
}

impl Tree {
    /// No nodes below so many host bridges.
    pub fn new(hosts: usize) -> Self {
        let (nodes, roots) = (Vec::new(), vec![Vec::new(); hosts]);
        Self { nodes, roots, by_address: BTreeMap::new(), changes: Arc::default() }
    }

    /// Adds a node below one that is there; `None` where that is not.
    pub fn add(&mut self, node: Node) -> Option<NodeId> {
        let id = NodeId::new(self.nodes.len());
        let host = match node.above {
            Above::Root(host) => host,
            Above::Port(port) => self.nodes.get(port.index())?.host,
        };
        let beside = match node.above {
            Above::Root(host) => self.roots.get_mut(host.index())?,
            Above::Port(port) => &mut self.nodes.get_mut(port.index())?.below,
        };
        beside.push(id);
        let beside = beside.clone();
        let first = match node.above {
            Above::Root(_) => None,
            Above::Port(port) => beside.into_iter().find(|&other| self.shares_link(port, &node, other)),
        };
        node.config.followed_by(&self.changes);
        // Of two nodes with one address the later is found.
        self.by_address.insert(node.address, id);
        self.nodes.push(Wired {
            node,
            host,
            below: Vec::new(),
            link: first.unwrap_or(id),
            present: AtomicBool::new(true),
        });
        Some(id)
    }

    /// Whether a node below `port` is a function of the same device as one that is there.
    ///
    /// A link leads to one device, whose functions may take all numbers of the bus (ARI). On a bus of
    /// conventional PCI device numbers tell; inside a switch every port is its own.
    fn shares_link(&self, port: NodeId, node: &Node, other: NodeId) -> bool {
        let device = |address: PciAddr| (address.bus(), address.devfn().device());
        match self.config(port).port_type() {
            Some(PortType::RootPort | PortType::DownstreamPort) => true,
            Some(PortType::UpstreamPort) => false,
            _ => self.nodes.get(other.index()).is_some_and(|other| device(other.node.address) == device(node.address)),
        }
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Every node.
    pub fn ids(&self) -> impl ExactSizeIterator<Item = NodeId> + use<> {
        (0..self.nodes.len()).map(NodeId::new)
    }

    /// The node of this ID.
    ///
    /// # Panics
    /// If the ID is another tree's and past this one's end.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()].node
    }

    /// Its registers.
    ///
    /// # Panics
    /// As [`node`](Self::node).
    pub fn config(&self, id: NodeId) -> &Space {
        &self.nodes[id.index()].node.config
    }

    /// The host bridge at the top.
    ///
    /// # Panics
    /// As [`node`](Self::node).
    pub fn host(&self, id: NodeId) -> HostId {
        self.nodes[id.index()].host
    }

    /// The function whose link a function shares.
    ///
    /// # Panics
    /// As [`node`](Self::node).
    pub fn link(&self, id: NodeId) -> NodeId {
        self.nodes[id.index()].link
    }

    /// What is connected right below a port.
    ///
    /// # Panics
    /// As [`node`](Self::node).
    pub fn below(&self, id: NodeId) -> impl Iterator<Item = NodeId> {
        self.nodes[id.index()].below.iter().copied().filter(|&id| self.is_present(id))
    }

    /// What is connected to a root bus.
    pub fn on_root_bus(&self, host: HostId) -> impl Iterator<Item = NodeId> {
        self.roots.get(host.index()).into_iter().flatten().copied().filter(|&id| self.is_present(id))
    }

    /// Functions of the same device, itself among them.
    pub fn device_of(&self, id: NodeId) -> impl Iterator<Item = NodeId> {
        let link = self.link(id);
        let beside = match self.node(id).above {
            Above::Root(_) => None,
            Above::Port(port) => Some(self.below(port)),
        };
        beside.into_iter().flatten().filter(move |&other| self.link(other) == link)
    }

    /// The requester ID that a root complex sees on what a node sends: its address, or that of the
    /// bus that it shares where a bridge to conventional PCI asks in the bus's name (PCI Express to PCI
    /// Bridge 1.0 §2.3). An IOMMU knows all functions of such a bus as one.
    ///
    /// # Panics
    /// As [`node`](Self::node).
    pub fn requester_at_root(&self, id: NodeId) -> PciAddr {
        let (mut at, mut requester) = (id, self.node(id).address);
        while let Above::Port(port) = self.node(at).above {
            let buses = self.config(port).buses_below();
            if let Some((secondary, _)) = buses.filter(|_| self.has_conventional_bus(port)) {
                requester = PciAddr::new(requester.domain(), secondary, DevFn::new(0));
            }
            at = port;
        }
        requester
    }

    /// Whether what lies right below a bridge is a bus of conventional PCI, and no link.
    ///
    /// # Panics
    /// As [`node`](Self::node).
    pub fn has_conventional_bus(&self, id: NodeId) -> bool {
        let config = self.config(id);
        let is_express =
            matches!(config.port_type(), Some(PortType::RootPort | PortType::UpstreamPort | PortType::DownstreamPort));
        config.buses_below().is_some() && !is_express
    }

    /// The node with this address.
    pub fn at(&self, address: PciAddr) -> Option<NodeId> {
        self.by_address.get(&address).copied()
    }

    /// Whether it and everything above it is still there.
    pub fn is_present(&self, id: NodeId) -> bool {
        let mut next = Some(id);
        while let Some(id) = next {
            if !self.nodes[id.index()].present.load(Ordering::Acquire) {
                return false;
            }
            next = match self.node(id).above {
                Above::Root(_) => None,
                Above::Port(port) => Some(port),
            };
        }
        true
    }

    /// Pulls a device out of its slot, or puts it back.
    ///
    /// # Panics
    /// As [`node`](Self::node).
    pub(crate) fn set_present(&self, id: NodeId, present: bool) {
        self.nodes[id.index()].present.store(present, Ordering::Release);
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// Raised after every change of a wire or of a register of any node, whoever made it: a way
    /// that was found in an earlier generation may be another now.
    pub(crate) fn generation(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }
}
