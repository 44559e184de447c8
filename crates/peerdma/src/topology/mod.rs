//! The tree of functions of one machine, immutable once built.
//!
//! Inputs describe functions one by one ([`FunctionInfo`]); the [`Builder`] finds
//! out how they hang together, and reports contradictions ([`Contradiction`])
//! instead of choosing a side: what is contradicted becomes unknown.
//!
//! Three relations are kept apart, as Linux keeps them apart: the bridge that a
//! function sits below, the physical function of a virtual one, and the host
//! bridge at the top. [`Topology::upstream`] is Linux's `pci_upstream_bridge`.

mod build;
mod contradiction;
mod function;
mod host;
mod machine;
mod printable;

pub use build::Builder;
pub use contradiction::Contradiction;
pub use function::{Bar, FunctionInfo, IommuGroup, Origin, Position, ReservedRegion};
pub use host::{HostBridgeFacts, HostWindow, PeerForwarding};
pub use machine::{Cpu, CpuVendor, IommuMode, KernelVersion, Machine, MemoryRegion, NotACpu, NotAKernelVersion};

use crate::pcie::PciAddr;
use alloc::vec::Vec;

/// Names a function of one [`Topology`]; ordered as the addresses are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct FunctionId(u32);

impl FunctionId {
    /// Position among the topology's functions in ascending order of addresses.
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The function at this position.
    pub(crate) const fn at_index(index: usize) -> Self {
        Self(index as u32)
    }
}

/// Names a host bridge of one [`Topology`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct HostBridgeId(u32);

/// What lies above a function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parent {
    /// The function sits on a root bus.
    Root(HostBridgeId),
    /// The function sits right below this bridge.
    Bridge(FunctionId),
    /// The input does not tell. `enclosing` is the innermost bridge known to have
    /// the function's bus below it, through bridges that were not listed.
    Unknown {
        /// That bridge, if any.
        enclosing: Option<FunctionId>,
    },
}

/// One function in its place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Function {
    info: FunctionInfo,
    parent: Parent,
    physical: Option<FunctionId>,
}

impl Function {
    /// What the input says about it.
    pub fn info(&self) -> &FunctionInfo {
        &self.info
    }

    /// Address.
    pub fn address(&self) -> PciAddr {
        self.info.address
    }

    /// What lies above it.
    pub fn parent(&self) -> Parent {
        self.parent
    }

    /// Its physical function, if it is a virtual one.
    pub fn physical(&self) -> Option<FunctionId> {
        self.physical
    }
}

/// A host bridge: the top of one hierarchy, with the root bus below it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostBridge {
    domain: u32,
    bus: u8,
    first: Option<FunctionId>,
    facts: HostBridgeFacts,
}

impl HostBridge {
    /// Domain of its root bus.
    pub fn domain(&self) -> u32 {
        self.domain
    }

    /// Number of its root bus.
    pub fn bus(&self) -> u8 {
        self.bus
    }

    /// The function that stands for it in Linux's whitelist: the first on the root
    /// bus. Linux takes the order of discovery, which sysfs does not show; this is
    /// the lowest device and function number. `None` if none was listed.
    pub fn first_device(&self) -> Option<FunctionId> {
        self.first
    }

    /// What the input says about it beside its devices.
    pub fn facts(&self) -> &HostBridgeFacts {
        &self.facts
    }
}

/// The functions of one machine and how they hang together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Topology {
    functions: Vec<Function>,
    host_bridges: Vec<HostBridge>,
    groups: Vec<IommuGroup>,
    machine: Machine,
    contradictions: Vec<Contradiction>,
}

impl Topology {
    /// All functions, in ascending order of addresses.
    pub fn functions(&self) -> impl ExactSizeIterator<Item = (FunctionId, &Function)> {
        self.functions.iter().enumerate().map(|(index, function)| (FunctionId(index as u32), function))
    }

    /// The function with this ID.
    ///
    /// # Panics
    /// If the ID is another topology's and past this one's end.
    pub fn function(&self, id: FunctionId) -> &Function {
        &self.functions[id.index()]
    }

    /// The function at an address.
    pub fn at(&self, address: PciAddr) -> Option<FunctionId> {
        let found = self.functions.binary_search_by_key(&address, Function::address);
        found.ok().map(|index| FunctionId(index as u32))
    }

    /// All host bridges, in ascending order of domain and root bus.
    pub fn host_bridges(&self) -> impl ExactSizeIterator<Item = (HostBridgeId, &HostBridge)> {
        self.host_bridges.iter().enumerate().map(|(index, bridge)| (HostBridgeId(index as u32), bridge))
    }

    /// The host bridge with this ID.
    ///
    /// # Panics
    /// If the ID is another topology's and past this one's end.
    pub fn host_bridge(&self, id: HostBridgeId) -> &HostBridge {
        &self.host_bridges[id.0 as usize]
    }

    /// The IOMMU groups the input tells of.
    pub fn groups(&self) -> &[IommuGroup] {
        &self.groups
    }

    /// The machine around the functions.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// What the parts of the input said against each other.
    pub fn contradictions(&self) -> &[Contradiction] {
        &self.contradictions
    }

    /// What Linux's `pci_upstream_bridge` walks to: a virtual function is first
    /// replaced by its physical one.
    pub fn upstream(&self, id: FunctionId) -> Parent {
        self.function(self.placed_as(id)).parent
    }

    /// The function whose place decides: a virtual one's physical one, else itself.
    pub(crate) fn placed_as(&self, id: FunctionId) -> FunctionId {
        self.function(id).physical.unwrap_or(id)
    }

    /// A builder that holds what this topology holds, every known place stated, for
    /// building another that differs in a few things.
    ///
    /// Contradictions stay with this topology: what they made unknown is unknown in
    /// the builder already.
    pub fn to_builder(&self) -> Builder {
        let mut builder = Builder::new();
        for (id, function) in self.functions() {
            let mut info = function.info().clone();
            info.physfn = function.physical().map(|physical| self.function(physical).address());
            info.position = match self.function(self.placed_as(id)).parent() {
                Parent::Root(host) => Position::RootBus { bus: self.host_bridge(host).bus() },
                Parent::Bridge(bridge) => Position::Below(self.function(bridge).address()),
                Parent::Unknown { .. } => Position::ByBusNumber,
            };
            builder.function(info);
        }
        for host in &self.host_bridges {
            builder.host_bridge(host.domain, host.bus, host.facts.clone());
        }
        for group in &self.groups {
            builder.group(group.clone());
        }
        *builder.machine() = self.machine.clone();
        builder
    }

    /// This topology with `function` right below `bridge`, and its virtual functions with it.
    /// Addresses stay, so bus numbers no longer tell the order: [`to_builder`](Self::to_builder)
    /// would call the new place a contradiction.
    pub(crate) fn moved(mut self, function: FunctionId, bridge: FunctionId) -> Self {
        for index in 0..self.functions.len() {
            let entry = &mut self.functions[index];
            if index == function.index() || entry.physical == Some(function) {
                entry.parent = Parent::Bridge(bridge);
            }
        }
        for (index, host) in self.host_bridges.iter_mut().enumerate() {
            let on_root_bus = |entry: &Function| {
                entry.parent == Parent::Root(HostBridgeId(index as u32))
                    && entry.physical.is_none()
                    && entry.address().bus() == host.bus
            };
            host.first = self.functions.iter().position(on_root_bus).map(FunctionId::at_index);
        }
        self
    }

    /// Replaces facts about the machine, for callers who know better than the input.
    #[must_use]
    pub fn with_machine(self, machine: Machine) -> Self {
        Self { machine, ..self }
    }
}
