//! What VFIO type1 does with a mapping of another device's BAR.
//!
//! It maps it, asks nobody, and takes it back only when told: neither a reset of the device
//! behind the BAR, nor unmapping it from the process, nor closing the device ends the
//! initiator's access (Linux 7.3 `drivers/vfio/vfio_iommu_type1.c`). Claims about data need
//! a translating IOMMU, or what is not mapped would be reached all the same.

mod inputs;
mod library;

use super::answer::{refused, taken};
use super::asked::Asked;
use super::bench::{self, Bench, ELSEWHERE, Fate, HERE, PAGE, Space, USED, expect};
use super::claim::{Claim, Stop, equal};
use super::worker::Worker;
use peerdma::addr::{AddrRange, Bytes, Iova, ProcVa};
use peerdma::dma::{Errno, IoSpace, MapError, MemAttrs, Permit, Prot, Source, SourceKind};
use peerdma::pcie::PciAddr;
use peerdma_linux::raw::{self, Mapped};
use peerdma_linux::tree::Tree;
use peerdma_linux::type1::Type1Space;
use peerdma_linux::type1::settings::Settings;
use peerdma_linux::vfio::place::Place;
use peerdma_linux::vfio::{Command, Nodes, VfioDevice};
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;

/// A container, asked without the library's checks.
pub(super) struct Container {
    container: OwnedFd,
    /// The same container: opens devices of its groups.
    space: Type1Space,
}

impl Container {
    /// Opens the groups of `devices` in one container.
    pub(super) fn open(devices: &[PciAddr]) -> Result<Self, Stop> {
        let nodes = Nodes::live();
        let mut numbers = BTreeSet::new();
        for device in devices {
            numbers.insert(Place::read(nodes.tree(), *device)?.ready_group()?);
        }
        let groups = numbers.into_iter().map(|number| open(&format!("/dev/vfio/{number}")));
        let groups = groups.collect::<Result<Vec<OwnedFd>, Stop>>()?;
        let container = open("/dev/vfio/vfio")?;
        let space = Type1Space::from_fds(container.try_clone()?, groups)?;
        Ok(Self { container, space })
    }
}

pub(super) fn open(path: &str) -> Result<OwnedFd, Stop> {
    let file = OpenOptions::new().read(true).write(true).open(path);
    file.map(OwnedFd::from).map_err(|error| Stop::Broken(format!("{path}: {error}")))
}

impl Space for Container {
    fn map_memory(&self, prot: Prot, from: ProcVa, iova: Iova, len: Bytes) -> Result<(), Errno> {
        raw::type1_map(&self.container, prot, from, iova, len)
    }

    fn unmap(&self, iova: Iova, len: Bytes) -> Result<Bytes, Errno> {
        raw::type1_unmap(&self.container, iova, len)
    }

    fn unmap_all(&self) -> Result<Bytes, Errno> {
        raw::type1_unmap_all(&self.container)
    }

    fn device(&self, address: PciAddr) -> Result<VfioDevice, Stop> {
        Ok(self.space.device(address)?)
    }
}

type Tried = Bench<Container>;

pub(super) fn run(asked: &Asked, worker: &mut Worker<'_>) {
    let (edu, target, shared) = (asked.edu, asked.target, asked.shared);
    worker.claims(move || set_up(edu, target), Bench::clear, claims(shared));
}

fn set_up(edu: Option<PciAddr>, target: Option<PciAddr>) -> Result<Tried, Stop> {
    let (Some(edu), Some(target)) = (edu, target) else {
        return Err(Stop::broken("name an engine and a target with --edu and --target"));
    };
    let container = Container::open(&[edu, target])?;
    let initiator = container.device(edu)?;
    Bench::new(container, initiator, target)
}

fn claims(shared: Option<PciAddr>) -> Vec<Claim<Tried>> {
    let mut claims = vec![
        Claim::new("a write of one device arrives in the BAR of another", write_arrives),
        Claim::new("a read of one device gets what is in the BAR of another", read_arrives),
        Claim::new("a mapping of the middle of a BAR reaches the middle", middle),
        Claim::new("the library maps a BAR with a permit, and refuses one without whatever it is called", permitted),
        Claim::new("the module tells whether it puts pages together, and how many mappings it takes", settings),
        Claim::new("after an unmapping the write does not arrive, and the IOMMU logs a fault", unmapped),
        Claim::new("a mapping without write access stops the write and not the read", read_only),
        Claim::new("a reset of the target leaves the mapping as it is", reset),
        Claim::new("memory space off at the target stops the write, and only for as long", memory_off),
        Claim::new("the mapping outlives the process's own mapping of the BAR", munmapped),
        Claim::new("the mapping outlives closing the target, and reaches it when it is opened again", closed),
    ];
    claims.push(Claim::new(
        "memory of the kernel's peer-to-peer pool is refused with EFAULT",
        move |bench: &mut Tried| pool(bench, shared),
    ));
    claims.extend(inputs::maps());
    claims.extend(inputs::unmaps());
    claims.extend(library::claims());
    claims
}

fn map_bar(bench: &Tried, prot: Prot) -> Result<(), Stop> {
    taken("mapping a BAR", bench.space.map_memory(prot, bench.bar_address()?, HERE, USED))
}

fn write_arrives(bench: &mut Tried) -> Result<(), Stop> {
    map_bar(bench, Prot::ReadWrite)?;
    expect("a write", Fate::Arrived, bench.write(HERE, Bytes::ZERO)?)
}

fn read_arrives(bench: &mut Tried) -> Result<(), Stop> {
    map_bar(bench, Prot::ReadWrite)?;
    expect("a read", Fate::Arrived, bench.read(HERE, Bytes::ZERO)?)
}

fn middle(bench: &mut Tried) -> Result<(), Stop> {
    let second =
        bench.bar_address()?.checked_add(PAGE).ok_or_else(|| Stop::broken("the BAR lies at the end of memory"))?;
    taken("mapping the second page", bench.space.map_memory(Prot::ReadWrite, second, ELSEWHERE, PAGE))?;
    expect("a write", Fate::Arrived, bench.write(ELSEWHERE, PAGE)?)
}

fn permitted(bench: &mut Tried) -> Result<(), Stop> {
    let source = Source::Process(bench.bar_address()?);
    let iova = AddrRange::new(HERE, USED).ok_or_else(|| Stop::broken("the place wraps"))?;
    let space = &mut bench.space.space;
    for attrs in [MemAttrs::MMIO, MemAttrs::empty()] {
        let unasked = space.map(iova, &source, Prot::ReadWrite, attrs);
        equal("mapping it without a permit", &Err(MapError::Unasked { iova }), &unasked)?;
    }
    space.map_peer(iova, &source, Prot::ReadWrite, MemAttrs::MMIO, &Permit::vouched(Prot::ReadWrite))?;
    let written = bench.write(HERE, Bytes::ZERO);
    equal("bytes unmapped", &USED, &bench.space.space.unmap(iova)?)?;
    expect("a write", Fate::Arrived, written?)
}

fn settings(_: &mut Tried) -> Result<(), Stop> {
    let read = Settings::read(&Tree::live());
    equal("huge pages and the limit of mappings", &(Some(true), Some(65535)), &(read.huge_pages, read.entry_limit))
}

fn unmapped(bench: &mut Tried) -> Result<(), Stop> {
    map_bar(bench, Prot::ReadWrite)?;
    expect("a write before", Fate::Arrived, bench.write(HERE, Bytes::ZERO)?)?;
    let bytes = taken("unmapping", bench.space.unmap(HERE, USED))?;
    equal("bytes unmapped", &USED, &bytes)?;
    bench.expect_fault("a write after", HERE)
}

fn read_only(bench: &mut Tried) -> Result<(), Stop> {
    map_bar(bench, Prot::Read)?;
    expect("a write", Fate::Lost, bench.write(HERE, Bytes::ZERO)?)?;
    expect("a read", Fate::Arrived, bench.read(HERE, Bytes::ZERO)?)
}

fn reset(bench: &mut Tried) -> Result<(), Stop> {
    map_bar(bench, Prot::ReadWrite)?;
    bench.device()?.reset()?;
    bench.device()?.set_command(Command::MEMORY)?;
    expect("a write after the reset", Fate::Arrived, bench.write(HERE, Bytes::ZERO)?)?;
    refused(
        "mapping there again",
        Errno::EEXIST,
        bench.space.map_memory(Prot::ReadWrite, bench.bar_address()?, HERE, USED),
    )
}

fn memory_off(bench: &mut Tried) -> Result<(), Stop> {
    map_bar(bench, Prot::ReadWrite)?;
    let (before, lost, sent) = (bench.pattern(USED), bench.pattern(PAGE), bench.pattern(PAGE));
    bench.fill_target(&before)?;
    // The CPU's own accesses would end this process until memory space is on again.
    bench.device()?.clear_command(Command::MEMORY)?;
    bench.send(&lost, HERE)?;
    bench.device()?.set_command(Command::MEMORY)?;
    expect("a write meanwhile", Fate::Lost, bench.fate_in_target(&before, &lost, Bytes::ZERO)?)?;
    bench.send(&sent, HERE)?;
    expect("a write afterwards", Fate::Arrived, bench.fate_in_target(&before, &sent, Bytes::ZERO)?)
}

fn munmapped(bench: &mut Tried) -> Result<(), Stop> {
    map_bar(bench, Prot::ReadWrite)?;
    bench.remap_bar()?;
    expect("a write", Fate::Arrived, bench.write(HERE, Bytes::ZERO)?)
}

fn closed(bench: &mut Tried) -> Result<(), Stop> {
    map_bar(bench, Prot::ReadWrite)?;
    bench.close_target();
    bench.open_target()?;
    expect("a write", Fate::Arrived, bench.write(HERE, Bytes::ZERO)?)
}

fn pool(bench: &mut Tried, shared: Option<PciAddr>) -> Result<(), Stop> {
    let shared = shared.ok_or_else(|| Stop::DoesNotApply("no --shared controller offers such memory".into()))?;
    let path = format!("/sys/bus/pci/devices/{shared}/p2pmem/allocate");
    let file = OpenOptions::new().read(true).write(true).open(&path);
    let file: File = file.map_err(|error| Stop::Broken(format!("{path}: {error}")))?;
    let memory = taken("mapping from the pool", Mapped::of_file(&file, PAGE))?;
    let seen = bench.space.map_memory(Prot::ReadWrite, memory.address(), HERE, PAGE);
    refused("mapping it for a device", Errno::EFAULT, seen)?;
    let here = AddrRange::new(HERE, PAGE).ok_or_else(|| Stop::broken("the place wraps"))?;
    let ours = library::maps(bench, here, memory.address());
    let named = MapError::SourceRefused { kind: SourceKind::Process, errno: Errno::EFAULT };
    equal("mapping it by the library", &Err(named), &ours)
}

/// A place in this process where nothing is mapped: the first page, which Linux keeps empty.
const NOWHERE: ProcVa = ProcVa::new(bench::PAGE.as_u64());
