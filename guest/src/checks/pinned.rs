//! What a pin of memory that belongs to devices is refused with, and what huge pages of the pool are charged.
//!
//! Ordinary memory is tried by `cargo test` on any machine; this takes devices, and settings that tests leave alone.

use super::asked::Asked;
use super::bench::{PAGE, used};
use super::claim::{Claim, Stop, equal};
use super::worker::Worker;
use peerdma::addr::{AddrRange, Bytes, ProcVa};
use peerdma::pcie::PciAddr;
use peerdma_linux::dma_buf::{Heap, MemfdRange, Udmabuf};
use peerdma_linux::held::Held;
use peerdma_linux::memory::{Backing, Pages};
use peerdma_linux::p2pmem::P2pMemory;
use peerdma_linux::pin::{PinError, Pinner, Refusal};
use peerdma_linux::type1::Type1Space;
use peerdma_linux::vfio::{Nodes, VfioDevice};
use rustix::fs::{SealFlags, fcntl_add_seals};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A pinner, a device whose BAR is mapped, and a drive that offers its memory.
struct Tried {
    pinner: Pinner,
    device: VfioDevice,
    drive: PathBuf,
    _space: Type1Space,
}

pub(super) fn run(asked: &Asked, worker: &mut Worker<'_>) {
    let (target, shared) = (asked.target, asked.shared);
    worker.claims(move || set_up(target, shared), |_| Ok(()), claims());
}

fn set_up(target: Option<PciAddr>, shared: Option<PciAddr>) -> Result<Tried, Stop> {
    let target = target.ok_or_else(|| Stop::broken("name a target with --target"))?;
    let shared = shared.ok_or_else(|| Stop::broken("name a drive with memory with --shared"))?;
    let space = Type1Space::open(&Nodes::live(), &[target])?;
    let device = space.device(target)?;
    let drive = Path::new("/sys/bus/pci/devices").join(shared.to_string()).join("p2pmem/allocate");
    Ok(Tried { pinner: Pinner::new()?, device, drive, _space: space })
}

fn claims() -> Vec<Claim<Tried>> {
    vec![
        Claim::new("a pin of a BAR that VFIO mapped is refused as device memory", |tried: &mut Tried| {
            let mapping = tried.device.map(used()?)?;
            let range = mapping.process_range(mapping.window()).ok_or_else(|| Stop::broken("the BAR is not mapped"))?;
            tried.is_device_memory(range)
        }),
        Claim::new(
            "a pin of a drive's memory that its driver offers is refused as peer memory",
            |tried: &mut Tried| {
                let memory = P2pMemory::allocate(&tried.drive, PAGE)?;
                let range = memory.process_range().ok_or_else(|| Stop::broken("the memory is not mapped"))?;
                match tried.refusal(range)? {
                    Refusal::PeerMemory { .. } => Ok(()),
                    other => Err(Stop::Broken(format!("refused as {other:?}"))),
                }
            },
        ),
        Claim::new(
            "a pin of a mapped udmabuf is refused, and one of the memfd behind it taken",
            |tried: &mut Tried| {
                let pages = Arc::new(Pages::backed(Backing::Memfd, PAGE)?);
                let file = pages.file().ok_or_else(|| Stop::broken("pages of a memfd have no file"))?;
                fcntl_add_seals(file, SealFlags::SHRINK)?;
                let made = Udmabuf::open()?.create(&[MemfdRange { file, offset: Bytes::ZERO, len: pages.len() }])?;
                let mapping = made.map()?;
                tried.is_device_memory(mapping.process_range().ok_or_else(|| Stop::broken("it is not mapped"))?)?;
                drop(tried.pinner.pin(Arc::clone(&pages))?);
                Ok(())
            },
        ),
        Claim::new("a pin of a mapped buffer of a heap is refused as device memory", |tried: &mut Tried| {
            let mapping = Heap::open("system")?.allocate(PAGE, PAGE)?.map()?;
            tried.is_device_memory(mapping.process_range().ok_or_else(|| Stop::broken("it is not mapped"))?)
        }),
        Claim::new("a slice of a huge page of the pool is charged whole, and once a ring", |_: &mut Tried| {
            huge_pages()
        }),
    ]
}

impl Tried {
    fn refusal(&self, range: AddrRange<ProcVa>) -> Result<Refusal, Stop> {
        match self.pinner.pin_foreign(range.start(), range.len()) {
            Ok(_) => Err(Stop::Broken(format!("{range} was pinned"))),
            Err(PinError::Refused { why, .. }) => Ok(why),
            Err(other) => Err(other.into()),
        }
    }

    fn is_device_memory(&self, range: AddrRange<ProcVa>) -> Result<(), Stop> {
        match self.refusal(range)? {
            Refusal::DeviceMemory { .. } => Ok(()),
            other => Err(Stop::Broken(format!("refused as {other:?}"))),
        }
    }
}

/// Two slices of one huge page on one ring, and one on another.
fn huge_pages() -> Result<(), Stop> {
    const HUGE: Bytes = Bytes::new(2 << 20);
    std::fs::write("/proc/sys/vm/nr_hugepages", "2")?;
    // With the capability nothing is charged, and a ring keeps what it was made with.
    let all = capabilities(None)?;
    let effective = all.effective - CapabilitySet::IPC_LOCK;
    set_capabilities(None, CapabilitySets { effective, ..all })?;
    let rings = (Pinner::new(), Pinner::new());
    set_capabilities(None, all)?;
    let (own, other) = (rings.0?, rings.1?);
    let before = pinned()?;
    let memory = Arc::new(Pages::backed(Backing::Huge(HUGE), HUGE)?);
    let slice = |pinner: &Pinner, at: u64| pinner.pin_part(Arc::clone(&memory), Bytes::new(at), PAGE);
    let first = slice(&own, 0)?;
    equal("after the first slice", &HUGE.as_u64(), &(pinned()? - before))?;
    let second = slice(&own, 0x8000)?;
    equal("after the second on the same ring", &HUGE.as_u64(), &(pinned()? - before))?;
    let third = slice(&other, 0x8000)?;
    equal("after the third on another ring", &(2 * HUGE.as_u64()), &(pinned()? - before))?;
    drop((first, second, third));
    equal("when all are gone", &before, &pinned()?)
}

/// What this process has pinned, by the kernel's counter.
fn pinned() -> Result<u64, Stop> {
    let held = Held::read(Path::new("/proc"))?;
    let own = held.processes.iter().find(|process| process.pid == std::process::id());
    own.map(|own| own.pinned.as_u64()).ok_or_else(|| Stop::broken("this process is not in /proc"))
}
