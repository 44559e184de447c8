//! What a kernel does on the machine: finds its devices, gives out RAM, attaches address spaces.

use super::seat::{Seat, SeatError, Space};
use super::space::{DeviceCaches, DomainSpace, For, SpaceError, SpaceOptions};
use crate::config::Width;
use crate::device::Shared;
use crate::discover::{self, ConfigAccess};
use crate::fabric::NodeId;
use crate::iommu::{Cached, DomainId};
use crate::machine::Machine;
use crate::platform::{Location, Platform};
use crate::wire::Pasid;
use peerdma::addr::{AddrRange, BusAddr, Bytes, Iova, PhysAddr};
use peerdma::dma::spaces::DirectSpace;
use peerdma::dma::{Initiator, Owner, Owners, Source, Windows};
use peerdma::pcie::PciAddr;
use peerdma::topology::{FunctionId, IommuMode, Topology};
use std::convert::Infallible;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// RAM is given out in pages.
const PAGE: u64 = 4096;
/// What is as long as this begins at a multiple of it.
const LARGE_PAGE: u64 = 2 << 20;
/// The first MiB is not given out, as firmware keeps parts of it on every machine.
const LOW: u64 = 1 << 20;

/// RAM that was given out; it is not taken back before the machine ends, but for what stands for pages of processes.
#[derive(Clone, Debug)]
pub struct Buffer {
    range: AddrRange<PhysAddr>,
    memory: Arc<dyn crate::memory::Memory>,
    offset: Bytes,
}

impl Buffer {
    /// Where the CPU sees it.
    pub fn range(&self) -> AddrRange<PhysAddr> {
        self.range
    }

    /// The same memory, with the address that a device has for it.
    pub fn shared(&self, device: BusAddr) -> Shared {
        // The allocator gave out bytes that the memory has.
        Shared::inside(self.memory.clone(), self.offset, self.range.len(), device)
    }

    /// The memory that it is a part of, and where in it.
    pub fn memory(&self) -> (&dyn crate::memory::Memory, Bytes) {
        (&*self.memory, self.offset)
    }
}

/// RAM that is left, lowest first, in pieces that do not touch; clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Left(Arc<Mutex<Vec<AddrRange<PhysAddr>>>>);

impl Left {
    /// Takes back what was given out in whole pages, and what nobody reaches any more.
    pub(super) fn give_back(&self, range: AddrRange<PhysAddr>) {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = free.partition_point(|piece| piece.start() < range.start());
        let touch = |low: &AddrRange<PhysAddr>, high: &AddrRange<PhysAddr>| {
            low.last().as_u64().checked_add(1) == Some(high.start().as_u64())
        };
        let (mut first, mut last) = (range.start(), range.last());
        let (mut from, mut to) = (at, at);
        if let Some(below) = at.checked_sub(1).and_then(|below| free.get(below)).filter(|below| touch(below, &range)) {
            (first, from) = (below.start(), at - 1);
        }
        if let Some(above) = free.get(at).filter(|above| touch(&range, above)) {
            (last, to) = (above.last(), at + 1);
        }
        free.splice(from..to, AddrRange::from_inclusive(first, last));
    }
}

/// No RAM is left for what was asked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{stated}: no {len} of RAM are left in one piece, {longest} are the most; enlarge this [[ram]] for what runs on \
     the machine"
)]
pub struct NoRoom {
    /// How much was asked for.
    pub len: Bytes,
    /// The longest piece that is left.
    pub longest: Bytes,
    /// Where the platform states its longest stretch of RAM.
    pub stated: Location,
}

/// A kernel on a machine.
///
/// ```
/// use peerdma::addr::Bytes;
/// use peerdma_emu::host::Kernel;
/// use peerdma_emu::machine::Builder;
/// use peerdma_emu::platform::Platform;
/// use std::sync::Arc;
///
/// let platform = Platform::built_in("two-socket").unwrap();
/// let machine = Arc::new(Builder::new(&platform).build()?);
/// let kernel = Kernel::boot(machine.clone(), &platform);
/// let buffer = kernel.allocate(Bytes::new(0x10_0000))?;
/// assert_eq!(buffer.range().len(), Bytes::new(0x10_0000));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Kernel {
    machine: Arc<Machine>,
    topology: Topology,
    modes: Vec<(PciAddr, IommuMode)>,
    left: Left,
    /// Where the platform states its RAM.
    ram_stated: Location,
    next_domain: AtomicU32,
}

impl Kernel {
    /// Finds the functions of the machine by their registers and enables their interrupts.
    ///
    /// `platform` is the one that the machine was built from; it stands for firmware tables. If it
    /// states no IOMMU the machine has none, and the topology says so.
    pub fn boot(machine: Arc<Machine>, platform: &Platform) -> Self {
        let mut topology = discover::discover(&Access { machine: &machine }, platform);
        let mut told = topology.machine().clone();
        if told.iommu.is_none() {
            // A file may leave it open; a machine that runs has an IOMMU or none.
            told.iommu = Some(platform.iommu().map_or(IommuMode::None, |iommu| iommu.mode));
            topology = topology.with_machine(told);
        }
        let mode = platform.iommu().map_or(IommuMode::None, |iommu| iommu.mode);
        let modes = platform
            .functions()
            .iter()
            .map(|function| (function.address, function.iommu_mode.unwrap_or(mode)))
            .collect();
        let kernel = Self {
            left: Left(Arc::new(Mutex::new(free(&machine, platform)))),
            ram_stated: platform.ram_stated(),
            machine,
            topology,
            modes,
            next_domain: AtomicU32::new(1),
        };
        kernel.enable_interrupts(platform);
        kernel
    }

    /// The machine.
    pub fn machine(&self) -> &Arc<Machine> {
        &self.machine
    }

    /// What was found; the resolver's questions are asked of this.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// A node as the topology names it.
    pub fn function(&self, node: NodeId) -> Option<FunctionId> {
        self.topology.at(self.machine.fabric().tree().node(node).address)
    }

    /// How requests of a node are treated; `None` for what is no function of the platform.
    pub fn mode(&self, node: NodeId) -> Option<IommuMode> {
        let address = self.machine.fabric().tree().node(node).address;
        self.modes.iter().find(|(other, _)| *other == address).map(|&(_, mode)| mode)
    }

    /// Gives out RAM in one piece, in whole pages; large pieces so that large pages can map them.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub fn allocate(&self, len: Bytes) -> Result<Buffer, NoRoom> {
        let align = if len.as_u64() < LARGE_PAGE { PAGE } else { LARGE_PAGE };
        self.allocate_aligned(len, Bytes::new(align))
    }

    /// Gives out RAM in one piece that starts at a multiple of `align`, a power of two.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub fn allocate_aligned(&self, len: Bytes, align: Bytes) -> Result<Buffer, NoRoom> {
        let mut free = self.left.0.lock().unwrap_or_else(PoisonError::into_inner);
        self.take(&mut free, len, align).ok_or_else(|| NoRoom {
            len,
            longest: free.iter().map(AddrRange::len).max().unwrap_or(Bytes::ZERO),
            stated: self.ram_stated.clone(),
        })
    }

    /// Where RAM goes that is given back.
    pub(super) fn left(&self) -> Left {
        self.left.clone()
    }

    /// Takes RAM from what is free; `None`, with nothing taken, if no piece is long enough.
    fn take(&self, free: &mut Vec<AddrRange<PhysAddr>>, len: Bytes, align: Bytes) -> Option<Buffer> {
        let whole = len.as_u64().max(1).div_ceil(PAGE).checked_mul(PAGE)?;
        let align = align.as_u64().max(PAGE).checked_next_power_of_two()?;
        let fits = |range: &AddrRange<PhysAddr>| {
            let start = range.start().as_u64().checked_next_multiple_of(align)?;
            let last = start.checked_add(whole - 1)?;
            (last <= range.last().as_u64()).then_some((start, last))
        };
        let found = free.iter().enumerate().find_map(|(index, range)| Some((index, fits(range)?)));
        let (index, (start, last)) = found?;
        let range = AddrRange::new(PhysAddr::new(start), Bytes::new(len.as_u64().max(1)))?;
        let inside = |stretch: &&crate::machine::Stretch| stretch.range.contains_range(&range);
        let stretch = self.machine.memory().iter().find(inside)?;
        let rest = free.remove(index);
        // What lies before and after stays free.
        let parts = [(rest.start().as_u64(), start.checked_sub(1)), (last.wrapping_add(1), Some(rest.last().as_u64()))];
        let parts = parts
            .into_iter()
            .filter_map(|(first, last)| AddrRange::from_inclusive(PhysAddr::new(first), PhysAddr::new(last?)));
        free.splice(index..index, parts);
        let offset = Bytes::new(start - stretch.range.start().as_u64());
        Some(Buffer { range, memory: stretch.memory.clone(), offset })
    }

    /// Where each BAR of the machine is, for mapping.
    pub fn owners(&self) -> Owners<Infallible> {
        let mut owners = Owners::new();
        for (function, info) in self.topology.functions() {
            for bar in &info.info().bars {
                if let (Some(cpu), Some(len)) = (bar.cpu, bar.size) {
                    let owner = Owner::Bar { function, bar: bar.index };
                    owners.add(owner, Bytes::ZERO, len, Source::Physical(cpu.start()));
                }
            }
        }
        owners
    }

    /// A driver's place: a function with the address space that its requests meet.
    ///
    /// Under a translating IOMMU that is a new space, which takes the place of the one before.
    ///
    /// # Errors
    /// [`SeatError`].
    pub fn seat(&self, node: NodeId) -> Result<Seat<'_>, SeatError> {
        let function = self.function(node).ok_or(SeatError::NotFound)?;
        let mode = self.mode(node).ok_or(SeatError::NotFound)?;
        let mut initiator = Initiator::of(&self.topology, function).ok_or(SeatError::NotFound)?;
        if let Some(interface) = self.machine.tdi(node) {
            initiator = initiator.with_interface(super::seat::interface(interface));
        }
        let space = match mode {
            IommuMode::Translated => {
                let space = self.space(For::Device)?;
                space.attach(self.machine.fabric().tree().requester_at_root(node));
                Space::Domain(space)
            }
            IommuMode::Identity | IommuMode::None => {
                Space::Direct(DirectSpace::new(Windows::one_to_one(), Iova::new(initiator.highest())))
            }
        };
        Seat::new(self, node, function, initiator, space)
    }

    /// An address space of a process on a function, under a PASID.
    ///
    /// # Errors
    /// [`SeatError`]; with [`SeatError::NoPasid`] for a function without PASIDs, or where nothing
    /// translates.
    pub fn process_space(&self, node: NodeId, pasid: Pasid) -> Result<DomainSpace, SeatError> {
        let config = self.machine.fabric().tree().config(node);
        if !config.pasid_width().is_some_and(|bits| pasid.fits(bits)) || self.machine.fabric().root().iommu().is_none()
        {
            return Err(SeatError::NoPasid { pasid });
        }
        let space = self.space(For::Process)?;
        space.bind(self.machine.fabric().tree().node(node).address, pasid);
        Ok(space)
    }

    fn space(&self, whose: For) -> Result<DomainSpace, SpaceError> {
        let iommu = self.machine.fabric().root().iommu().ok_or(SpaceError::NoIommu)?;
        let tables = self.machine.tables().ok_or(SpaceError::NoIommu)?;
        let id = DomainId::new(self.next_domain.fetch_add(1, Ordering::Relaxed));
        let caches = Arc::new(Caches { machine: self.machine.clone() });
        let options = SpaceOptions { whose, ..SpaceOptions::default() };
        DomainSpace::new(iommu.clone(), id, tables.clone(), caches, &options)
    }

    /// Points the messages of every function at its own number: vectors count by function.
    fn enable_interrupts(&self, platform: &Platform) {
        let cpu = self.machine.cpu();
        for function in platform.functions() {
            let Some(node) = self.machine.fabric().tree().at(function.address) else { continue };
            let host = self.machine.fabric().root().host(self.machine.fabric().tree().host(node));
            let Some(interrupts) = host.interrupts else { continue };
            let read = |at| cpu.config_read(node, at, Width::Two) as u16;
            let Some(at) = capability(read, MESSAGES) else { continue };
            let address = interrupts.start().as_u64();
            cpu.config_write(node, at + 4, Width::Four, address as u32);
            cpu.config_write(node, at + 8, Width::Four, (address >> 32) as u32);
            cpu.config_write(node, at + 12, Width::Two, (node.index() as u32) << 5 & 0xffff);
            // As many messages as it can send, and on (PCIe 6.0 §7.7.1.2).
            let control = u32::from(read(at + 2));
            let granted = control & !0x70 | (control & 0xe) << 3 | 1;
            cpu.config_write(node, at + 2, Width::Two, granted);
        }
    }
}

/// Capability ID of message signalled interrupts.
const MESSAGES: u8 = 0x05;

/// Where a capability of the first 256 bytes is (PCIe 6.0 §7.5.1.1.11).
fn capability(read: impl Fn(u16) -> u16, wanted: u8) -> Option<u16> {
    let mut at = read(0x34) & 0xfc;
    // A list of more entries than there is room for goes in a circle.
    for _ in 0..48 {
        if at < 0x40 {
            return None;
        }
        let word = read(at);
        if word as u8 == wanted {
            return Some(at);
        }
        at = word >> 8 & 0xfc;
    }
    None
}

/// RAM without the first MiB, page tables and what lies under windows.
fn free(machine: &Machine, platform: &Platform) -> Vec<AddrRange<PhysAddr>> {
    let low = AddrRange::new(PhysAddr::new(0), Bytes::new(LOW));
    let taken: Vec<_> = machine.tables().map(|tables| tables.range()).into_iter().chain(low).collect();
    platform.ram_outside(&taken).into_iter().flatten().collect()
}

/// Configuration requests of the processor.
struct Access<'m> {
    machine: &'m Machine,
}

impl ConfigAccess for Access<'_> {
    fn read(&self, address: PciAddr, offset: u16, width: Width) -> u32 {
        match self.machine.fabric().tree().at(address) {
            Some(node) => self.machine.cpu().config_read(node, offset, width),
            None => width.ones(),
        }
    }

    fn write(&self, address: PciAddr, offset: u16, width: Width, value: u32) {
        if let Some(node) = self.machine.fabric().tree().at(address) {
            self.machine.cpu().config_write(node, offset, width, value);
        }
    }
}

/// Translations that devices of the machine remember.
struct Caches {
    machine: Arc<Machine>,
}

impl DeviceCaches for Caches {
    fn invalidate(&self, cached: Cached, range: AddrRange<Iova>) {
        let Some(node) = self.machine.fabric().tree().at(cached.requester) else { return };
        let (first, last) = (BusAddr::new(range.start().as_u64()), BusAddr::new(range.last().as_u64()));
        if let Some(range) = AddrRange::from_inclusive(first, last) {
            self.machine.invalidate(node, Some(cached.pasid), range);
        }
    }

    fn drain(&self) {
        self.machine.drain();
    }
}
