//! The mapping engine through its public API: what a device is handed, and what is left of a failure.
//!
//! - [`address`]: which address a peer's range gets (the table of Linux 7.2's answers).
//! - [`link`]: what may follow what in one mapping. [`copies`]: when memory is copied.
//! - [`pool`]: pools in pieces, and what a copy is not copied for. [`private`]: confidential guests.
//! - [`mixed`]: lists of several kinds. [`bounds`]: ends of owners, spaces and reservations.
//! - [`rollback`]: failures at every step leak nothing. [`stuck`]: what cannot be unmapped.
//! - [`beside`]: a watch over drivers, and doorbells. [`segments`]: what a device's list accepts.
//! - [`relink`]: one page pointed elsewhere. [`attach`]: what is refused before any of it.

#![cfg(test)]

#[path = "../tree/mod.rs"]
#[expect(dead_code, reason = "other tests build machines that this one has no use for")]
mod tree;

mod address;
mod attach;
mod beside;
mod bounds;
mod copies;
mod link;
mod mixed;
mod pool;
mod private;
mod relink;
mod rollback;
mod segments;
mod stuck;

use core::cell::RefCell;
use peerdma::access::MemAttrs;
use peerdma::addr::{AddrRange, BusAddr, Bytes, Granule, PhysAddr};
use peerdma::chunk::Chunk;
use peerdma::dma::{Owner, Owners, Peers, SoftIommu, Source};
use peerdma::iopt::{FrameArena, VtdOptions, VtdSecondStage};
use peerdma::iova::{Allocator, IovaRanges};
use peerdma::pcie::Fact;
use peerdma::pcie::acs::AcsBits;
use peerdma::pcie::express::PortType;
use peerdma::topology::{
    Bar, Builder, FunctionId, FunctionInfo, HostBridgeFacts, HostWindow, IommuMode, Machine, PeerForwarding, Topology,
};
use tree::{Tree, at};

pub(crate) type Soft<'a> = SoftIommu<VtdSecondStage, &'a FrameArena>;

/// A host bridge that Linux lists, a switch with two functions, and a function at another root port.
///
/// 03:00.0 and 04:00.0 meet in the switch, 05:00.0 is reached through the host bridge.
pub(crate) struct Machinery {
    pub(crate) topology: Topology,
}

/// BARs of 1 MiB: below the switch, and across the root ports. The bus sees them `OFFSET` lower.
pub(crate) const NEAR: u64 = 0x40_9100_0000;
pub(crate) const FAR: u64 = 0x40_9200_0000;
pub(crate) const BAR: u64 = 1 << 20;

impl Machinery {
    /// Windows of the host bridge at `offset`: a bus address is the CPU's less that.
    pub(crate) fn new(host: &str, mode: IommuMode, redirecting: bool, offset: u64) -> Self {
        Self::with(host, mode, redirecting, offset, None)
    }

    /// Its initiator is bound to VFIO.
    pub(crate) fn under_vfio(offset: u64) -> Self {
        Self::with(LISTED, IommuMode::Translated, false, offset, Some("vfio-pci"))
    }

    fn with(host: &str, mode: IommuMode, redirecting: bool, offset: u64, driver: Option<&str>) -> Self {
        let mut tree = Tree::switch("intel:6", host).port("00:02.0", 5, 5).device("05:00.0");
        for (address, cpu) in [("04:00.0", NEAR), ("05:00.0", FAR)] {
            tree = tree.edit(address, |info| give_bar(info, cpu, offset));
        }
        for (address, port_type) in [
            ("01:00.0", PortType::UpstreamPort),
            ("02:00.0", PortType::DownstreamPort),
            ("02:01.0", PortType::DownstreamPort),
        ] {
            tree = tree.edit(address, |info| info.registers.port_type = Fact::Known(Some(port_type)));
        }
        // The root port turns requests round where it is told to forward upstream.
        tree = tree.acs("00:01.0", AcsBits::UF);
        if redirecting {
            tree = tree.acs("02:00.0", AcsBits::RR);
        }
        tree = tree.edit("03:00.0", |info| info.driver = driver.map(String::from));
        let topology = tree.topology();
        let mut builder: Builder = topology.to_builder();
        let cpu = AddrRange::new(PhysAddr::new(0x40_9000_0000), Bytes::new(0x1000_0000)).unwrap();
        let windows = vec![HostWindow::new(cpu, BusAddr::new(cpu.start().as_u64() - offset)).unwrap()];
        let peer = Some(PeerForwarding::Forwards);
        builder.host_bridge(0, 0, HostBridgeFacts { windows, peer, ..HostBridgeFacts::default() });
        let topology = builder.build();
        let machine = Machine { iommu: Some(mode), ..topology.machine().clone() };
        Self { topology: topology.with_machine(machine) }
    }

    pub(crate) fn initiator(&self) -> FunctionId {
        at(&self.topology, "03:00.0")
    }

    pub(crate) fn near(&self) -> Owner {
        Owner::Bar { function: at(&self.topology, "04:00.0"), bar: 0 }
    }

    pub(crate) fn far(&self) -> Owner {
        Owner::Bar { function: at(&self.topology, "05:00.0"), bar: 0 }
    }

    pub(crate) fn peers(&self) -> Peers<'_> {
        Peers::of(&self.topology)
    }

    /// Where the BARs are physically.
    pub(crate) fn owners<F: Clone>(&self) -> Owners<F> {
        let mut owners = Owners::new();
        for (owner, cpu) in [(self.near(), NEAR), (self.far(), FAR)] {
            owners.add(owner, Bytes::ZERO, Bytes::new(BAR), Source::Physical(PhysAddr::new(cpu)));
        }
        owners
    }
}

fn give_bar(info: &mut FunctionInfo, cpu: u64, offset: u64) {
    let size = Bytes::new(BAR);
    let bus = Some(BusAddr::new(cpu - offset));
    let cpu = AddrRange::new(PhysAddr::new(cpu), size);
    info.bars = vec![Bar { index: 0, cpu, bus, size: Some(size), prefetchable: false }];
}

/// A list in Linux's table of host bridges.
pub(crate) const LISTED: &str = "8086:2030";
/// One that is not.
pub(crate) const UNLISTED: &str = "1022:1480";

pub(crate) fn frames() -> FrameArena {
    FrameArena::new(PhysAddr::new(0x80_0000_0000), 4096)
}

pub(crate) fn soft(frames: &FrameArena) -> Soft<'_> {
    SoftIommu::new(VtdSecondStage::new(VtdOptions::default()).unwrap(), frames).unwrap()
}

pub(crate) fn depot(usable: &IovaRanges) -> RefCell<Allocator> {
    RefCell::new(Allocator::new(Granule::PAGE_4K, usable).unwrap())
}

pub(crate) fn chunk(owner: Owner, offset: u64, len: u64) -> Chunk<Owner> {
    Chunk::new(owner, Bytes::new(offset), Bytes::new(len), MemAttrs::empty()).unwrap()
}

pub(crate) fn ram(offset: u64, len: u64) -> Chunk<Owner> {
    chunk(Owner::Ram, offset, len)
}
