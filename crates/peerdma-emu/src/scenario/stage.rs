//! What every story needs: a machine that is booted, memory that is mapped, drivers that are open.

use super::error::ScenarioError;
use crate::device::channel::Queue;
use crate::device::nvme::QueueMemory;
use crate::device::{Mmio, Shared, gpu, nvme};
use crate::host::{Buffer, Kernel, Seat, Space, wire_address};
use crate::machine::{Builder, Machine};
use crate::platform::Platform;
use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::{AddrRange, BusAddr, Bytes, PhysAddr};
use peerdma::chunk::Chunk;
use peerdma::dma::engine::{Context, Mapping};
use peerdma::dma::reach::Peers;
use peerdma::dma::{DeviceAddress, Owner, Owners};
use peerdma::iova::Allocator;
use std::cell::RefCell;
use std::convert::Infallible;
use std::sync::Arc;

/// What mappings are made from.
pub(super) type Desk<'a> = Context<'a, Space, RefCell<Allocator>>;
/// A mapping of one.
pub(super) type Mapped<'c, 'a> = Mapping<'c, 'a, Space, RefCell<Allocator>>;

/// Steps after which a machine that still moves is said to be restless.
const STEPS: u64 = 4_000_000;

/// A machine, its kernel, and what the kernel knows of its BARs.
pub(super) struct Stage {
    pub(super) kernel: Kernel,
    pub(super) owners: Owners<Infallible>,
}

impl Stage {
    /// Builds the machine of a platform, with whatever `change` puts into it, and boots it.
    pub(super) fn new(
        platform: &Platform,
        seed: u64,
        change: impl for<'p> FnOnce(Builder<'p>) -> Builder<'p>,
    ) -> Result<Self, ScenarioError> {
        let machine = change(Builder::new(platform).seed(seed)).build()?;
        let kernel = Kernel::boot(Arc::new(machine), platform);
        let owners = kernel.owners();
        Ok(Self { kernel, owners })
    }

    pub(super) fn machine(&self) -> &Machine {
        self.kernel.machine()
    }

    pub(super) fn peers(&self) -> Peers<'_> {
        Peers::of(self.kernel.topology())
    }

    /// The driver's place at the function of this name.
    pub(super) fn seat(&self, name: &str) -> Result<Seat<'_>, ScenarioError> {
        let node = self.machine().named(name).ok_or_else(|| not_there(name))?;
        Ok(self.kernel.seat(node)?)
    }

    /// RAM of the kernel's, mapped for one device.
    pub(super) fn ram<'c, 'a>(&self, desk: &'c Desk<'a>, len: Bytes) -> Result<Ram<'c, 'a>, ScenarioError> {
        // What is long is aligned so that large pages of the tables fit.
        let align = if len < LARGE_PAGE { Bytes::new(0x1000) } else { LARGE_PAGE };
        let buffer = self.kernel.allocate_aligned(len, align)?;
        let start = Bytes::new(buffer.range().start().as_u64());
        let chunk = Chunk::new(Owner::Ram, start, len, MemAttrs::empty()).ok_or_else(|| not_there("memory"))?;
        let mapping = desk.map_one(chunk, Prot::ReadWrite)?;
        Ok(Ram { buffer, mapping })
    }

    /// A part of a function's BAR, mapped for a device.
    pub(super) fn bar<'c, 'a>(
        &self,
        desk: &'c Desk<'a>,
        (name, bar): (&str, u8),
        (offset, len): (Bytes, Bytes),
        prot: Prot,
    ) -> Result<Mapped<'c, 'a>, ScenarioError> {
        let node = self.machine().named(name).ok_or_else(|| not_there(name))?;
        let function = self.kernel.function(node).ok_or_else(|| not_there(name))?;
        let chunk = Chunk::new(Owner::Bar { function, bar }, offset, len, MemAttrs::MMIO);
        Ok(desk.map_p2p(chunk.ok_or_else(|| not_there(name))?, prot)?)
    }

    /// Where a BAR is: as the CPU counts, and on the bus.
    pub(super) fn bar_at(&self, name: &str, bar: u8) -> Result<(AddrRange<PhysAddr>, BusAddr), ScenarioError> {
        let node = self.machine().named(name).ok_or_else(|| not_there(name))?;
        let function = self.kernel.function(node).ok_or_else(|| not_there(name))?;
        let bars = &self.kernel.topology().function(function).info().bars;
        let found = bars.iter().find(|found| found.index == bar).and_then(|bar| Some((bar.cpu?, bar.bus?)));
        found.ok_or_else(|| not_there(&format!("bar{bar} of {name}")))
    }

    /// The BAR that shows a GPU's memory: the largest beside the registers.
    pub(super) fn vram(&self, name: &str) -> Result<u8, ScenarioError> {
        let node = self.machine().named(name).ok_or_else(|| not_there(name))?;
        let function = self.kernel.function(node).ok_or_else(|| not_there(name))?;
        let bars = self.kernel.topology().function(function).info().bars.iter();
        let largest = bars.filter(|bar| bar.index != gpu::REGISTERS_BAR).max_by_key(|bar| bar.size);
        largest.map(|bar| bar.index).ok_or_else(|| not_there(&format!("VRAM of {name}")))
    }

    /// Lets the machine go on until nothing has anything to do.
    pub(super) fn settle(&self) -> Result<(), ScenarioError> {
        if self.machine().settle(STEPS) { Ok(()) } else { Err(ScenarioError::Restless) }
    }

    /// A GPU's copy engine, whose commands lie in `ram`.
    pub(super) fn gpu<'m>(
        &self,
        seat: &'m Seat<'_>,
        channel: u16,
        ram: &Ram<'_, '_>,
        vector: Option<u16>,
    ) -> Result<gpu::Driver<'m>, ScenarioError> {
        let queue = Queue { vector, ..Queue::new(ram.shared()) };
        Ok(gpu::Driver::open(seat, channel, queue)?)
    }

    /// A drive with one queue, everything of which lies in `ram`, [`DRIVE_MEMORY`] of it.
    pub(super) fn drive<'m>(
        &self,
        mmio: &'m dyn Mmio,
        ram: &Ram<'_, '_>,
    ) -> Result<(nvme::Driver<'m>, u16), ScenarioError> {
        let shared = ram.shared();
        let page = |first: u64, pages: u64| shared.slice(Bytes::new(first << 12), Bytes::new(pages << 12));
        let admin = QueueMemory { submission: page(0, 1)?, completion: page(1, 1)? };
        let mut drive = nvme::Driver::bring_up(mmio, admin, page(4, 12)?)?;
        let queue = drive.create_io_queue(QueueMemory { submission: page(2, 1)?, completion: page(3, 1)? }, None)?;
        Ok((drive, queue))
    }
}

/// A large page of every table that is used here.
const LARGE_PAGE: Bytes = Bytes::new(2 << 20);
/// Memory for a drive's queues and lists.
pub(super) const DRIVE_MEMORY: Bytes = Bytes::new(16 << 12);
/// Memory for a GPU's channel.
pub(super) const CHANNEL_MEMORY: Bytes = Bytes::new(0x1000);

/// RAM that a device and the CPU both see; unmapped when it goes.
pub(super) struct Ram<'c, 'a> {
    pub(super) buffer: Buffer,
    pub(super) mapping: Mapped<'c, 'a>,
}

impl Ram<'_, '_> {
    /// Where the device finds it. RAM in one piece is one span.
    pub(super) fn at(&self) -> BusAddr {
        first(&self.mapping)
    }

    pub(super) fn shared(&self) -> Shared {
        self.buffer.shared(self.at())
    }

    pub(super) fn bytes(&self) -> Result<Vec<u8>, ScenarioError> {
        bytes_of(&self.buffer)
    }

    pub(super) fn put(&self, bytes: &[u8]) -> Result<(), ScenarioError> {
        let (memory, at) = self.buffer.memory();
        Ok(memory.write(at, bytes)?)
    }
}

/// All bytes of a buffer, as the CPU sees them.
pub(super) fn bytes_of(buffer: &Buffer) -> Result<Vec<u8>, ScenarioError> {
    let mut bytes = vec![0; buffer.range().len().as_u64() as usize];
    let (memory, at) = buffer.memory();
    memory.read(at, &mut bytes)?;
    Ok(bytes)
}

/// The number for a mapping's first byte.
pub(super) fn first(mapping: &Mapped<'_, '_>) -> BusAddr {
    // A mapping holds a byte at least.
    mapping.spans().next().map_or(BusAddr::new(u64::MAX), |span| wire_address(&span))
}

/// The address of a mapping's first byte, with its kind.
pub(super) fn address(mapping: &Mapped<'_, '_>) -> Result<DeviceAddress, ScenarioError> {
    mapping.spans().next().map(|span| span.address).ok_or_else(|| not_there("a mapping's first byte"))
}

/// A mapping as ranges of numbers for the wire.
pub(super) fn ranges(mapping: &Mapped<'_, '_>) -> Vec<AddrRange<BusAddr>> {
    mapping.spans().filter_map(|span| AddrRange::new(wire_address(&span), span.len)).collect()
}

/// Bytes that repeat nowhere near.
pub(super) fn noise(len: Bytes, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len.as_u64() as usize];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

pub(super) fn not_there(what: &str) -> ScenarioError {
    ScenarioError::NotThere { what: what.to_string() }
}
