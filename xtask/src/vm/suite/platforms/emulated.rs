//! A platform's emulated machine, whose engines are told to do what a guest's were told.
//!
//! Two ways, as in the guest. *Mapped*: the engine has an address space of its own, in which
//! memory and the BAR stand at the IOVAs that VFIO gave out. VFIO asks no rule before it maps, so
//! nothing asks here. *By bus address*: nothing is mapped, and the engine is given the numbers
//! in the BAR's register.

use super::outcome::{BESIDE, LEN, Landed, MARK, WORDS, judge};
use crate::failure::Failure;
use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::{AddrRange, BusAddr, Bytes, Iova, PhysAddr};
use peerdma::dma::{IoSpace, Source};
use peerdma::topology::Bar;
use peerdma_emu::device::dma::Driver;
use peerdma_emu::fabric::NodeId;
use peerdma_emu::host::{DomainSpace, Kernel, Seat, Space, SpaceOptions};
use peerdma_emu::iommu::DomainId;
use peerdma_emu::machine::Builder;
use peerdma_emu::platform::Platform;
use std::fmt::Display;
use std::sync::Arc;

/// A number that no address space has which the emulated kernel makes.
const OWN_DOMAIN: DomainId = DomainId::new(0x4000);

/// Steps after which a machine with one job is at rest.
const STEPS: u64 = 100_000;

/// A machine that has just been switched on, with a kernel on it.
pub(super) struct Emulated {
    pub(super) kernel: Kernel,
}

/// Where VFIO put a guest's mappings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Granted {
    /// The page of memory.
    pub(super) staging: Iova,
    /// The first page of the BAR.
    pub(super) target: Iova,
}

/// As `peerdma copy` places them where every IOVA is free.
pub(super) const USUAL: Granted = Granted { staging: Iova::new(0x10_0000), target: Iova::new(0x10_4000) };

impl Emulated {
    pub(super) fn new(platform: &Platform) -> Result<Self, Failure> {
        let machine = Builder::new(platform).build().map_err(|error| stopped(&error))?;
        Ok(Self { kernel: Kernel::boot(Arc::new(machine), platform) })
    }

    /// Has `engine` move a page of memory into the BAR and other bytes back, at these IOVAs; what came
    /// of the worse of both directions.
    pub(super) fn mapped(&self, engine: &str, memory: &str, granted: Granted) -> Result<Landed, Failure> {
        let (node, bar) = (self.named(engine)?, self.bar(memory)?);
        let seat = self.kernel.seat(node).map_err(|error| stopped(&error))?;
        let mut space = self.space(&seat)?;
        let address = self.kernel.machine().fabric().tree().node(node).address;
        space.attach(address);
        let buffer = self.kernel.allocate(LEN).map_err(|error| stopped(&error))?;
        let at = cpu_address(&bar)?;
        for (iova, to, attrs) in
            [(granted.staging, buffer.range().start(), MemAttrs::empty()), (granted.target, at, MemAttrs::MMIO)]
        {
            let iova = AddrRange::new(iova, LEN).ok_or_else(|| stopped(&"an IOVA at the end of all"))?;
            space.map(iova, &Source::Physical(to), Prot::ReadWrite, attrs).map_err(|error| stopped(&error))?;
        }
        let ram = buffer.range().start();
        let (staging, target) = ((granted.staging.as_u64(), ram), (granted.target.as_u64(), at));
        let words = LEN.as_u64() / 8;
        Ok(self.copy(&seat, staging, target, words, 1).max(self.copy(&seat, target, staging, words, 2)))
    }

    /// Has `engine` copy within the BAR by bus addresses, from its start to [`BESIDE`].
    pub(super) fn by_bus_address(&self, engine: &str, memory: &str) -> Result<Landed, Failure> {
        let bar = self.bar(memory)?;
        let seat = self.kernel.seat(self.named(engine)?).map_err(|error| stopped(&error))?;
        let cpu = cpu_address(&bar)?;
        let bus = bar.bus.ok_or_else(|| stopped(&"the BAR has no bus address"))?;
        let beside = (bus.as_u64() + BESIDE, PhysAddr::new(cpu.as_u64() + BESIDE));
        Ok(self.copy(&seat, (bus.as_u64(), cpu), beside, WORDS, 3))
    }

    /// One copy between two places, each by the engine's address and the CPU's.
    fn copy(&self, seat: &Seat<'_>, from: (u64, PhysAddr), to: (u64, PhysAddr), words: u64, seed: u64) -> Landed {
        let machine = self.kernel.machine();
        let sent: Vec<u8> =
            (0..words).flat_map(|word| (0xa5a5_0000_0000_0000 | seed << 32 | word).to_le_bytes()).collect();
        let mark: Vec<u8> = (0..words).flat_map(|_| MARK.to_le_bytes()).collect();
        machine.cpu().store(from.1, &sent);
        machine.cpu().store(to.1, &mark);
        machine.settle(STEPS);
        // An edu says nothing of failures either; the bytes tell.
        let _ = Driver::new(seat).copy(BusAddr::new(from.0), BusAddr::new(to.0), Bytes::new(sent.len() as u64));
        machine.settle(STEPS);
        let mut found = vec![0; sent.len()];
        machine.cpu().load(to.1, &mut found);
        judge(&found, &sent, &mark)
    }

    /// The space that the seat brought where the IOMMU translates, as VFIO makes one where it
    /// passes through otherwise.
    fn space(&self, seat: &Seat<'_>) -> Result<DomainSpace, Failure> {
        if let Space::Domain(space) = seat.handle() {
            return Ok(space);
        }
        let machine = self.kernel.machine();
        let iommu = machine.fabric().root().iommu().ok_or_else(|| stopped(&"there is no IOMMU"))?;
        let tables = machine.tables().ok_or_else(|| stopped(&"there is no room for page tables"))?;
        let options = SpaceOptions::default();
        DomainSpace::new(iommu.clone(), OWN_DOMAIN, tables.clone(), Arc::new(()), &options)
            .map_err(|error| stopped(&error))
    }

    fn named(&self, name: &str) -> Result<NodeId, Failure> {
        self.kernel.machine().named(name).ok_or_else(|| stopped(&format!("no function is called {name}")))
    }

    /// BAR 2 of a function, as a scan of its registers found it.
    fn bar(&self, name: &str) -> Result<Bar, Failure> {
        let function = self.kernel.function(self.named(name)?);
        let bars = function.map(|function| &self.kernel.topology().function(function).info().bars);
        let bar = bars.and_then(|bars| bars.iter().find(|bar| bar.index == 2)).cloned();
        bar.ok_or_else(|| stopped(&format!("{name} has no BAR 2")))
    }
}

fn cpu_address(bar: &Bar) -> Result<PhysAddr, Failure> {
    bar.cpu.map(|range| range.start()).ok_or_else(|| stopped(&"the CPU does not reach the BAR"))
}

fn stopped(why: &dyn Display) -> Failure {
    Failure::Stopped(format!("the emulated machine: {why}"))
}
