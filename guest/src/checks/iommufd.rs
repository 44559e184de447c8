//! What iommufd does with exported BARs and other files.
//!
//! It takes a BAR only as a dma-buf that VFIO exported from one range, maps it as device
//! memory, and follows it: what the exporter takes back is dead at once ([`revoke`]). Like
//! type1 it asks nobody whether the two devices may reach each other; the library does, and what it copies and
//! sets besides is in [`library`].

mod inputs;
mod library;
mod refused;
mod revoke;

use super::answer::{refused, taken};
use super::asked::Asked;
use super::bench::{Bench, ELSEWHERE, Fate, HERE, PAGE, Space, USED, expect, memory, used};
use super::claim::{Claim, Stop, equal};
use super::export;
use super::type1::open;
use super::worker::Worker;
use peerdma::addr::{Bytes, Iova, ProcVa};
use peerdma::dma::{Errno, Prot};
use peerdma::pcie::PciAddr;
use peerdma_linux::iommufd::IommufdSpace;
use peerdma_linux::raw::{self, ExportRequest, Ioas};
use peerdma_linux::vfio::{DeviceNode, Nodes, VfioDevice};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// An address space of an iommufd, asked without the library's checks.
pub(super) struct Unchecked {
    iommufd: OwnedFd,
    id: u32,
    /// The same iommufd: binds devices to it. Its own address space stays empty.
    binder: IommufdSpace,
}

impl Unchecked {
    pub(super) fn open() -> Result<Self, Stop> {
        let iommufd = open("/dev/iommu")?;
        let binder = IommufdSpace::from_fd(iommufd.try_clone()?)?;
        let id = taken("making an address space", Ioas::allocate(iommufd.as_fd()))?.id;
        Ok(Self { iommufd, id, binder })
    }

    fn ioas(&self) -> Ioas<'_> {
        Ioas { iommufd: self.iommufd.as_fd(), id: self.id }
    }
}

impl Space for Unchecked {
    fn map_memory(&self, prot: Prot, from: ProcVa, iova: Iova, len: Bytes) -> Result<(), Errno> {
        self.ioas().map(prot, from, iova, len)
    }

    fn unmap(&self, iova: Iova, len: Bytes) -> Result<Bytes, Errno> {
        self.ioas().unmap(iova, len)
    }

    fn unmap_all(&self) -> Result<Bytes, Errno> {
        self.ioas().unmap_all()
    }

    fn device(&self, address: PciAddr) -> Result<VfioDevice, Stop> {
        Ok(self.binder.bind(DeviceNode::open(&Nodes::live(), address)?)?)
    }
}

type Tried = Bench<Unchecked>;

pub(super) fn run(asked: &Asked, worker: &mut Worker<'_>) {
    let (edu, target) = (asked.edu, asked.target);
    worker.claims(move || set_up(edu, target), Bench::clear, claims());
}

fn set_up(edu: Option<PciAddr>, target: Option<PciAddr>) -> Result<Tried, Stop> {
    let (Some(edu), Some(target)) = (edu, target) else {
        return Err(Stop::broken("name an engine and a target with --edu and --target"));
    };
    let space = Unchecked::open()?;
    let initiator = space.device(edu)?;
    taken("giving the engine the address space", space.ioas().attach(&initiator))?;
    Bench::new(space, initiator, target)
}

fn claims() -> Vec<Claim<Tried>> {
    let mut claims = vec![
        Claim::new("a write of one device arrives in the exported BAR of another", write_arrives),
        Claim::new("a read of one device gets what is in the exported BAR of another", read_arrives),
        Claim::new("a mapping from inside a dma-buf on reaches what stands there", inside),
        Claim::new("a dma-buf of the middle of a BAR reaches the middle", middle),
        Claim::new("after an unmapping the write does not arrive, and the IOMMU logs a fault", unmapped),
        Claim::new("a mapping without write access stops the write and not the read", read_only),
        Claim::new("a dma-buf exported read-only is mapped for writing, and written", exported_read_only),
        Claim::new("closing the descriptor of a mapped dma-buf leaves the mapping", descriptor_closed),
        Claim::new("a process's mapping of a BAR is refused with EFAULT", bar_of_process),
        Claim::new("without a device, what cannot be pinned is taken and shows when one is attached", lazy),
    ];
    claims.extend(revoke::claims());
    claims.extend(inputs::claims());
    claims.extend(library::claims());
    claims.extend(refused::claims());
    claims
}

/// Exports the part of the target's memory that claims use.
fn exported(bench: &Tried) -> Result<Arc<OwnedFd>, Stop> {
    Ok(bench.device()?.export(used()?)?)
}

/// Maps all of an exported part at `iova`.
fn map(bench: &Tried, prot: Prot, file: &OwnedFd, iova: Iova) -> Result<(), Errno> {
    bench.space.ioas().map_file(prot, file, Bytes::ZERO, iova, USED)
}

/// Exports and maps at the usual place.
fn mapped(bench: &Tried, prot: Prot) -> Result<Arc<OwnedFd>, Stop> {
    let file = exported(bench)?;
    taken("mapping a dma-buf", map(bench, prot, &file, HERE))?;
    Ok(file)
}

fn write_arrives(bench: &mut Tried) -> Result<(), Stop> {
    mapped(bench, Prot::ReadWrite)?;
    expect("a write", Fate::Arrived, bench.write(HERE, Bytes::ZERO)?)
}

fn read_arrives(bench: &mut Tried) -> Result<(), Stop> {
    mapped(bench, Prot::ReadWrite)?;
    expect("a read", Fate::Arrived, bench.read(HERE, Bytes::ZERO)?)
}

fn inside(bench: &mut Tried) -> Result<(), Stop> {
    let file = exported(bench)?;
    let seen = bench.space.ioas().map_file(Prot::ReadWrite, &file, PAGE, ELSEWHERE, PAGE);
    taken("mapping from the second page on", seen)?;
    expect("a write", Fate::Arrived, bench.write(ELSEWHERE, PAGE)?)
}

fn middle(bench: &mut Tried) -> Result<(), Stop> {
    let two = Bytes::new(2 * PAGE.as_u64());
    let file = bench.device()?.export(memory(PAGE, two)?)?;
    let seen = bench.space.ioas().map_file(Prot::ReadWrite, &file, Bytes::ZERO, HERE, two);
    taken("mapping the middle", seen)?;
    expect("a write", Fate::Arrived, bench.write(HERE, PAGE)?)
}

fn unmapped(bench: &mut Tried) -> Result<(), Stop> {
    mapped(bench, Prot::ReadWrite)?;
    expect("a write before", Fate::Arrived, bench.write(HERE, Bytes::ZERO)?)?;
    equal("bytes unmapped", &USED, &taken("unmapping", bench.space.unmap(HERE, USED))?)?;
    bench.expect_fault("a write after", HERE)
}

fn read_only(bench: &mut Tried) -> Result<(), Stop> {
    mapped(bench, Prot::Read)?;
    expect("a write", Fate::Lost, bench.write(HERE, Bytes::ZERO)?)?;
    expect("a read", Fate::Arrived, bench.read(HERE, Bytes::ZERO)?)
}

fn exported_read_only(bench: &mut Tried) -> Result<(), Stop> {
    let asked = ExportRequest { open_flags: export::O_RDONLY, ..export::request(&[(0, USED.as_u64())]) };
    let file = taken("exporting read-only", raw::export(bench.device()?, &asked))?;
    let file = file.ok_or_else(|| Stop::broken("the export gave no descriptor"))?;
    taken("mapping it for writing", map(bench, Prot::ReadWrite, &file, HERE))?;
    expect("a write", Fate::Arrived, bench.write(HERE, Bytes::ZERO)?)
}

fn descriptor_closed(bench: &mut Tried) -> Result<(), Stop> {
    let file = mapped(bench, Prot::ReadWrite)?;
    drop(Arc::into_inner(file).ok_or_else(|| Stop::broken("the descriptor is still held elsewhere"))?);
    expect("a write", Fate::Arrived, bench.write(HERE, Bytes::ZERO)?)
}

fn bar_of_process(bench: &mut Tried) -> Result<(), Stop> {
    let seen = bench.space.map_memory(Prot::ReadWrite, bench.bar_address()?, HERE, USED);
    refused("mapping the process's mapping", Errno::EFAULT, seen)
}

fn lazy(bench: &mut Tried) -> Result<(), Stop> {
    let other = taken("making another address space", Ioas::allocate(bench.space.iommufd.as_fd()))?;
    taken("mapping a BAR's mapping there", other.map(Prot::ReadWrite, bench.bar_address()?, HERE, USED))?;
    let null = File::open("/dev/null")?;
    taken("mapping a file that is no memory there", other.map_file(Prot::Read, &null, Bytes::ZERO, ELSEWHERE, PAGE))?;
    // Nothing is attached, and nothing is unmapped: the first device to come is refused.
    refused("giving it to a device", Errno::EFAULT, other.attach(bench.device()?))?;
    taken("unmapping all of it", other.unmap_all()).map(drop)
}
