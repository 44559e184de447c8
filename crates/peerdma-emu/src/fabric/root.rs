//! The root complex: the IOMMU, memory, interrupts, and the way out to another device.
//!
//! Passing requests from one device to another is optional (PCIe 6.0 §1.3.1), and so are
//! splitting them and asking in one's own name; none of it is in a register, so a
//! [`Host`] states it.

use super::Fabric;
use super::arrival::{Arrival, Egress, Ending};
use super::tree::{HostId, NodeId};
use crate::iommu::{FaultReason, Iommu};
use crate::platform::PeerForwarding;
use crate::wire::{AddressType, Head, Kind};
use peerdma::access::Access;
use peerdma::addr::{AddrRange, BusAddr, Bytes, PhysAddr};
use peerdma::pcie::{DevFn, PciAddr};
use std::sync::Arc;

/// Addresses that a host bridge passes down, of the same length on both sides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostWindow {
    /// As the CPU addresses it.
    pub cpu: AddrRange<PhysAddr>,
    /// As it is addressed below the host bridge.
    pub bus: AddrRange<BusAddr>,
}

impl HostWindow {
    /// The bus address of a CPU address in it.
    fn to_bus(self, at: PhysAddr) -> Option<BusAddr> {
        let offset = at.as_u64().checked_sub(self.cpu.start().as_u64())?;
        (offset < self.cpu.len().as_u64()).then(|| BusAddr::new(self.bus.start().as_u64() + offset))
    }
}

/// What a root complex does below one host bridge.
#[derive(Clone, Debug)]
pub struct Host {
    /// Segment of its buses.
    pub segment: u32,
    /// Its root bus.
    pub root_bus: u8,
    /// What it passes down.
    pub windows: Vec<HostWindow>,
    /// What it does with requests of one device for another.
    pub peer: PeerForwarding,
    /// Writes to here are interrupts; none where interrupts are writes like others.
    pub interrupts: Option<AddrRange<BusAddr>>,
    /// Whether it asks in its own name when it passes a request on.
    pub replaces_requester: bool,
    /// Whether its root ports pass requests to each other by address before the IOMMU sees them.
    pub between_ports: bool,
    /// Whether it cuts writes that are too long for the way down; otherwise it passes them as they are.
    pub splits: bool,
}

impl Host {
    /// Where the host bridge asks from when it asks in its own name.
    pub const fn requester(&self) -> PciAddr {
        PciAddr::new(self.segment, self.root_bus, DevFn::new(0))
    }
}

/// All root complexes of a machine, its memory map and its IOMMU.
#[derive(Debug)]
pub struct Root {
    hosts: Vec<Host>,
    memory: Vec<AddrRange<PhysAddr>>,
    iommu: Option<Arc<Iommu>>,
}

impl Root {
    /// Root complexes with this memory; without an IOMMU addresses are the CPU's.
    pub fn new(hosts: Vec<Host>, memory: Vec<AddrRange<PhysAddr>>, iommu: Option<Arc<Iommu>>) -> Self {
        Self { hosts, memory, iommu }
    }

    /// The host bridge of this ID.
    ///
    /// # Panics
    /// If the ID is another machine's and past this one's end.
    pub fn host(&self, id: HostId) -> &Host {
        &self.hosts[id.index()]
    }

    /// Every host bridge.
    pub fn hosts(&self) -> impl ExactSizeIterator<Item = HostId> + use<> {
        (0..self.hosts.len()).map(HostId::new)
    }

    /// The IOMMU.
    pub fn iommu(&self) -> Option<&Arc<Iommu>> {
        self.iommu.as_ref()
    }

    /// Whether there is memory at an address, and not a window over it.
    fn is_memory(&self, at: PhysAddr) -> bool {
        self.memory.iter().any(|range| (range.start()..=range.last()).contains(&at))
    }

    /// The host bridge that passes a CPU address down, and the address below it.
    pub fn window_at(&self, at: PhysAddr) -> Option<(HostId, BusAddr)> {
        let in_host = |host: &Host| host.windows.iter().find_map(|window| window.to_bus(at));
        self.hosts.iter().enumerate().find_map(|(index, host)| Some((HostId::new(index), in_host(host)?)))
    }
}

/// What becomes of a request of one device for another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Passage {
    On,
    Ones,
    Never,
    Unknown,
}

/// What two root complexes on the way make of a request: what the worse of them does.
fn passage(first: PeerForwarding, second: PeerForwarding, kind: Kind) -> Passage {
    let one = |peer| match (peer, kind) {
        (PeerForwarding::Forwards, _) | (PeerForwarding::WritesOnly, Kind::Write) => Passage::On,
        (PeerForwarding::AllOnes, Kind::Read) => Passage::Ones,
        (PeerForwarding::Unknown, _) => Passage::Unknown,
        (PeerForwarding::None | PeerForwarding::WritesOnly | PeerForwarding::AllOnes, _) => Passage::Never,
    };
    match (one(first), one(second)) {
        (Passage::Never, _) | (_, Passage::Never) => Passage::Never,
        (Passage::Unknown, _) | (_, Passage::Unknown) => Passage::Unknown,
        (Passage::Ones, _) | (_, Passage::Ones) => Passage::Ones,
        (Passage::On, Passage::On) => Passage::On,
    }
}

impl Fabric {
    /// A request that has come into the root complex, by a root port or from an integrated function.
    pub(super) fn enter_root(&self, host: HostId, by: Option<NodeId>, head: Head) -> Arrival {
        let here = self.root.host(host);
        let is_interrupt = |range: &AddrRange<BusAddr>| (range.start()..=range.last()).contains(&head.address);
        if head.at == AddressType::Untranslated
            && head.kind == Kind::Write
            && here.interrupts.as_ref().is_some_and(is_interrupt)
        {
            return Arrival::on(Egress::Memory(host), head);
        }
        if head.at == AddressType::TranslationRequest {
            return Arrival::Translation { host };
        }
        let (at, holds) = match self.translated(&head) {
            Ok(translated) => translated,
            Err(reason) => return Arrival::End(Ending::Fault(host, reason)),
        };
        let onward = match self.root.window_at(at) {
            Some((target, address)) => self.pass_on(host, by, target, head, address),
            None if self.root.is_memory(at) => {
                Arrival::on(Egress::Memory(host), Head { address: BusAddr::new(at.as_u64()), ..head })
            }
            None => Arrival::End(Ending::Nowhere(host)),
        };
        match onward {
            Arrival::Forward { egress, head, cut, .. } => Arrival::Forward { egress, head, cut, holds },
            ended => ended,
        }
    }

    /// The CPU address of a request, and the addresses around for which the same was said.
    fn translated(&self, head: &Head) -> Result<(PhysAddr, Option<AddrRange<BusAddr>>), FaultReason> {
        let as_it_is = PhysAddr::new(head.address.as_u64());
        let Some(iommu) = &self.root.iommu else { return Ok((as_it_is, None)) };
        let access = match head.kind {
            Kind::Write => Access::Write,
            Kind::Read | Kind::Atomic | Kind::PageRequest => Access::Read,
        };
        if head.at == AddressType::Translated {
            // The IOMMU believes whom it gave translations to (VT-d 4.1 §4.2.4), and walks nothing.
            if iommu.trusts(head.requester.id) {
                return Ok((as_it_is, None));
            }
            iommu.refuse_translated(&head.requester, head.address, access);
            return Err(FaultReason::NotTrusted);
        }
        let output = iommu.translate(&head.requester, head.address, access)?;
        if head.kind == Kind::Atomic {
            iommu.translate(&head.requester, head.address, Access::Write)?;
        }
        Ok((output.to, Some(output.holds)))
    }

    /// A request for something below a host bridge, which `target` and `address` say.
    fn pass_on(&self, host: HostId, by: Option<NodeId>, target: HostId, head: Head, address: BusAddr) -> Arrival {
        let (here, there) = (self.root.host(host), self.root.host(target));
        // An integrated function is no peer behind a port, and its requests come from the same complex.
        let onward = self
            .tree
            .on_root_bus(target)
            .find(|&node| self.claims_as_function(node, address) || self.window_is_open(node, address));
        match passage(here.peer, there.peer, head.kind) {
            Passage::On => {}
            Passage::Ones => return Arrival::AllOnes { host },
            Passage::Never => return Arrival::End(Ending::NotForwarded(host)),
            Passage::Unknown => return Arrival::End(Ending::UndefinedRoot(host)),
        }
        let Some(node) = onward else { return Arrival::End(Ending::Nowhere(target)) };
        let mut head = Head { at: AddressType::Untranslated, address, ..head };
        if there.replaces_requester {
            head.requester.id = there.requester();
        }
        if self.claims_as_function(node, address) {
            return Arrival::on(Egress::Into(node), head);
        }
        // Between root ports AtomicOps need the routing bit in both (§6.15.3).
        let routes = by.is_none_or(|by| self.tree.config(by).atomic_routing());
        if head.kind == Kind::Atomic && !routes {
            return Arrival::End(Ending::Unsupported(node));
        }
        let limit = self.tree.config(node).max_payload().filter(|&max| head.kind == Kind::Write && head.len > max);
        match self.leave_by(node, Egress::Down(node), head) {
            Arrival::Forward { egress, head, holds, .. } => match limit {
                Some(_) if !there.splits => Arrival::End(Ending::NotForwarded(host)),
                cut => Arrival::Forward { egress, head, cut, holds },
            },
            ended => ended,
        }
    }

    /// What becomes of a request at the end of the way into memory.
    pub(super) fn arrive_in_memory(&self, host: HostId, head: Head) -> Arrival {
        let is_interrupt = |range: &AddrRange<BusAddr>| {
            (range.start()..=range.last()).contains(&head.address) && head.kind == Kind::Write
        };
        if self.root.host(host).interrupts.as_ref().is_some_and(is_interrupt) {
            return Arrival::Interrupt { host, at: head.address };
        }
        Arrival::Memory { host, at: PhysAddr::new(head.address.as_u64()) }
    }

    /// A request of a CPU for something below a host bridge, which asks for it; `None` where no window
    /// holds the address.
    pub fn cpu_request(&self, at: PhysAddr, kind: Kind, len: Bytes) -> Option<(HostId, Head)> {
        let (host, address) = self.root.window_at(at)?;
        let requester = crate::wire::Requester::plain(self.root.host(host).requester());
        let (at, attributes) = (AddressType::Untranslated, Default::default());
        Some((host, Head { kind, requester, at, attributes, address, len }))
    }

    /// Where a request goes that a CPU sends down from a host bridge.
    pub fn leave_cpu(&self, host: HostId, head: Head) -> Arrival {
        let address = head.address;
        let node = self
            .tree
            .on_root_bus(host)
            .find(|&node| self.claims_as_function(node, address) || self.window_is_open(node, address));
        match node {
            None => Arrival::End(Ending::Nowhere(host)),
            Some(node) if self.claims_as_function(node, address) => Arrival::on(Egress::Into(node), head),
            Some(node) => Arrival::on(Egress::Down(node), head),
        }
    }
}
