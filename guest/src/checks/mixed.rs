//! One mapping of everything: memory, a BAR below the same switch, one across root ports, a doorbell.
//!
//! The mapping engine links five pages of four kinds of owner into one reservation of a real
//! space, and an `edu` moves bytes through every one of them. What arrived is not asked of the
//! engine: each page is compared by its owner, on either side of a write and of a read. The
//! doorbell is a register of another edu, which answers with the complement of what was
//! written to it; that is the only way it is looked at.

use super::asked::Asked;
use super::bench::{MEMORY_BAR, PAGE, pattern};
use super::claim::{Claim, Stop, equal};
use super::worker::Worker;
use peerdma::addr::{Bytes, Iova, ProcVa};
use peerdma::chunk::{Chunk, Chunks};
use peerdma::dma::aperture::iovas_for;
use peerdma::dma::{
    Behind, Context, DeviceAddress, Initiator, IoSpace, MemAttrs, Mmio, Owner, Owners, Peers, Prot, Source, Span,
    Windows,
};
use peerdma::pcie::PciAddr;
use peerdma::topology::{FunctionId, Topology};
use peerdma_linux::edu::Edu;
use peerdma_linux::engine::Engine;
use peerdma_linux::iommufd::IommufdSpace;
use peerdma_linux::memory::Pages;
use peerdma_linux::pci_names::PciNames;
use peerdma_linux::tree::Tree;
use peerdma_linux::type1::Type1Space;
use peerdma_linux::vfio::{BarIndex, BarMapping, BarRange, Command, DeviceNode, Nodes, VfioDevice};
use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// The register of edu that reads as the complement of what was written.
const LIVENESS: Bytes = Bytes::new(4);

/// Bits of address that an edu forms.
const EDU_BITS: u8 = 28;

/// The functions that take part.
#[derive(Clone, Copy)]
struct Cast {
    engine: PciAddr,
    /// Below the engine's switch.
    near: PciAddr,
    /// At another root port.
    far: PciAddr,
    /// Another edu.
    bell: PciAddr,
}

impl Cast {
    fn of(asked: &Asked) -> Result<Self, Stop> {
        let named = |address: Option<PciAddr>, option: &str| {
            address.ok_or_else(|| Stop::Broken(format!("name a function with {option}")))
        };
        Ok(Self {
            engine: named(asked.edu, "--edu")?,
            near: named(asked.target, "--target")?,
            far: named(asked.far, "--far")?,
            bell: named(asked.bell, "--bell")?,
        })
    }
}

/// A target: its BAR in the CPU's reach, and the forms in which spaces take it.
struct Target {
    owner: Owner,
    bar: BarMapping,
    /// Keeps its memory space on.
    device: VfioDevice,
}

/// Everything that is opened, in the order in which it goes.
struct Stage<S> {
    space: S,
    engine: Edu,
    topology: Topology,
    owners: Owners<Arc<OwnedFd>>,
    memory: Pages,
    near: Target,
    far: Target,
    bell: Target,
}

pub(super) fn type1(asked: &Asked, worker: &mut Worker<'_>) {
    run(worker, asked, |cast| {
        let space = Type1Space::open(&Nodes::live(), &[cast.engine, cast.near, cast.far, cast.bell])?;
        let devices = [cast.engine, cast.near, cast.far, cast.bell].map(|address| space.device(address));
        Ok((space, devices.into_iter().collect::<Result<Vec<_>, _>>()?))
    });
}

pub(super) fn iommufd(asked: &Asked, worker: &mut Worker<'_>) {
    run(worker, asked, |cast| {
        let nodes = Nodes::live();
        let mut space = IommufdSpace::open(&nodes)?;
        let mut devices = Vec::new();
        for address in [cast.engine, cast.near, cast.far, cast.bell] {
            devices.push(space.bind(DeviceNode::open(&nodes, address)?)?);
        }
        space.attach(&devices[0])?;
        Ok((space, devices))
    });
}

fn run<S: IoSpace<File = Arc<OwnedFd>> + 'static>(
    worker: &mut Worker<'_>,
    asked: &Asked,
    open: impl FnOnce(Cast) -> Result<(S, Vec<VfioDevice>), Stop>,
) {
    let cast = Cast::of(asked);
    worker.claims(
        || {
            let cast = cast?;
            let (space, devices) = open(cast)?;
            Stage::new(space, devices, cast)
        },
        |_| Ok(()),
        claims(),
    );
}

fn claims<S: IoSpace<File = Arc<OwnedFd>> + 'static>() -> Vec<Claim<Stage<S>>> {
    vec![
        Claim::new(
            "one list of memory, both BARs and a doorbell is one mapping, and every byte of it arrives",
            Stage::every_byte,
        ),
        Claim::new("its reservation is used again after it was unmapped", Stage::again),
    ]
}

impl<S: IoSpace<File = Arc<OwnedFd>>> Stage<S> {
    fn new(space: S, devices: Vec<VfioDevice>, cast: Cast) -> Result<Self, Stop> {
        let snapshot = peerdma_linux::sysfs::read(&Tree::live());
        let origin = peerdma::topology::Origin::Sysfs;
        let topology = peerdma_linux::assemble::builder(&snapshot, origin, &PciNames::built_in())?.build();
        let mut owners = Owners::new();
        let mut devices = devices.into_iter();
        let mut next = || devices.next().ok_or_else(|| Stop::broken("a device was not opened"));
        let engine = Edu::new(next()?)?;
        let mmio = |owners: &mut Owners<Arc<OwnedFd>>, device, address, bar, len| {
            Target::new(&space, &topology, owners, device, address, bar, len)
        };
        let four = Bytes::new(4 * PAGE.as_u64());
        let near = mmio(&mut owners, next()?, cast.near, MEMORY_BAR, four)?;
        let far = mmio(&mut owners, next()?, cast.far, MEMORY_BAR, four)?;
        let bell = mmio(&mut owners, next()?, cast.bell, 0, PAGE)?;
        let memory = Pages::zeroed(four)?;
        Ok(Self { space, engine, topology, owners, memory, near, far, bell })
    }

    /// Two pages of memory that do not lie side by side, a page of each BAR, the doorbell.
    fn list(&self) -> Result<Chunks<Owner>, Stop> {
        let page = |owner, offset: u64| Chunk::new(owner, Bytes::new(offset), PAGE, MemAttrs::empty());
        let memory = self.memory.address().as_u64();
        let mut list = Chunks::new();
        for chunk in [
            page(Owner::Process, memory),
            page(self.near.owner, PAGE.as_u64()),
            page(self.far.owner, 2 * PAGE.as_u64()),
            page(Owner::Process, memory + 2 * PAGE.as_u64()),
            page(self.bell.owner, 0),
        ] {
            list.push(chunk.ok_or_else(|| Stop::broken("a page that wraps"))?)?;
        }
        Ok(list)
    }

    /// Maps the list so many times, moves bytes through all of it, and unmaps it.
    fn play(&mut self, times: usize) -> Result<(), Stop> {
        let list = self.list()?;
        let space = &mut self.space;
        let function = self.engine.device().address();
        let at = self.topology.at(function).ok_or_else(|| Stop::broken("the engine is not in sysfs"))?;
        let peers = Peers::of(&self.topology);
        let free = iovas_for(space.abilities(), &self.topology, &[at], &Windows::one_to_one())?;
        let depot = RefCell::new(free);
        let initiator =
            Initiator::of(&self.topology, at).ok_or_else(|| Stop::broken("the engine's mode is not told"))?;
        let context = Context::new(initiator.with_mask_bits(EDU_BITS), space, &self.owners, &peers, &depot)?;
        let mut reservation = context.reserve_for(list.view())?;
        for _ in 0..times {
            let mut staged = reservation.stage();
            for chunk in list.iter() {
                staged.link(chunk, Prot::ReadWrite)?;
            }
            let mapping = staged.sync()?;
            let spans: Vec<Span> = mapping.spans().collect();
            let mut played = Played {
                engine: &mut self.engine,
                memory: &self.memory,
                near: &self.near,
                far: &self.far,
                bell: &self.bell,
                seed: 0,
            };
            played.every_byte(&spans)?;
            let before = played.near.page(1)?;
            reservation = mapping.unlink()?;
            // What the IOMMU stops changes nothing.
            played.engine.store(iova_of(&spans, 1)?, PAGE)?;
            equal("the BAR after it was unmapped", &(before == played.near.page(1)?), &true)?;
        }
        reservation.release();
        equal("IOVAs that could not be unmapped", &0, &context.lost().len())
    }

    fn every_byte(&mut self) -> Result<(), Stop> {
        self.play(1)
    }

    fn again(&mut self) -> Result<(), Stop> {
        self.play(2)
    }
}

impl Target {
    fn new<S: IoSpace<File = Arc<OwnedFd>>>(
        space: &S,
        topology: &Topology,
        owners: &mut Owners<Arc<OwnedFd>>,
        device: VfioDevice,
        address: PciAddr,
        bar: u8,
        len: Bytes,
    ) -> Result<Self, Stop> {
        device.set_command(Command::MEMORY)?;
        let range = BarIndex::new(bar).and_then(|bar| BarRange::new(bar, Bytes::ZERO, len));
        let range = range.ok_or_else(|| Stop::broken("a range that does not exist"))?;
        let mapped = device.map(range)?;
        let function: FunctionId = topology.at(address).ok_or_else(|| Stop::broken("a target is not in sysfs"))?;
        let owner = Owner::Bar { function, bar };
        // Type1 takes the BAR as this process maps it, iommufd as the file it is exported as.
        let sources = space.abilities().sources;
        if sources.file.is_some_and(|mmio| mmio != Mmio::Refused) {
            owners.add(owner, Bytes::ZERO, len, Source::File { file: device.export(range)?, offset: Bytes::ZERO });
        } else {
            let at: ProcVa =
                mapped.process_range(range).ok_or_else(|| Stop::broken("the mapping lacks its range"))?.start();
            owners.add(owner, Bytes::ZERO, len, Source::Process(at));
        }
        Ok(Self { owner, bar: mapped, device })
    }

    /// All that is mapped for the CPU, of which page `n` is the device's.
    fn page(&self, n: u64) -> Result<Vec<u8>, Stop> {
        let mut bytes = vec![0; PAGE.as_u64() as usize];
        self.bar.read(Bytes::new(n * PAGE.as_u64()), &mut bytes)?;
        Ok(bytes)
    }
}

/// Where span number `n` of the list's pages starts for the device.
fn iova_of(spans: &[Span], n: u64) -> Result<Iova, Stop> {
    let at = n * PAGE.as_u64();
    let span = spans.iter().find(|span| (span.at.as_u64()..span.at.as_u64() + span.len.as_u64()).contains(&at));
    match span.map(|span| (span.address, span.at)) {
        Some((DeviceAddress::Iova(start), first)) => Ok(Iova::new(start.as_u64() + at - first.as_u64())),
        other => Err(Stop::Broken(format!("page {n} of the mapping should have an IOVA: {other:?}"))),
    }
}

/// The engine and the owners, while a mapping exists.
struct Played<'a> {
    engine: &'a mut Edu,
    memory: &'a Pages,
    near: &'a Target,
    far: &'a Target,
    bell: &'a Target,
    seed: u64,
}

impl Played<'_> {
    fn every_byte(&mut self, spans: &[Span]) -> Result<(), Stop> {
        let kinds: Vec<Behind> = spans.iter().map(|span| span.behind).collect();
        let expected = [Behind::Memory, Behind::Mmio, Behind::Mmio, Behind::Memory, Behind::Mmio];
        equal("what lies behind the spans", &expected.to_vec(), &kinds)?;
        let (near, far) = (self.near, self.far);
        self.there_and_back(spans, 1, near, 1)?;
        self.there_and_back(spans, 2, far, 2)?;
        self.ring(iova_of(spans, 0)?, iova_of(spans, 4)?)
    }

    /// Memory to the BAR's page and back to the other page of memory, with new bytes each way.
    fn there_and_back(&mut self, spans: &[Span], nth: u64, target: &Target, page: u64) -> Result<(), Stop> {
        let (from, to, back) = (iova_of(spans, 0)?, iova_of(spans, nth)?, iova_of(spans, 3)?);
        let beside = [target.page(page - 1)?, target.page(page + 1)?];
        let sent = self.fresh();
        self.memory.write(Bytes::ZERO, &sent)?;
        target.bar.write(Bytes::new(page * PAGE.as_u64()), &self.fresh())?;
        self.engine.fetch(from, PAGE)?;
        self.engine.store(to, PAGE)?;
        equal("a write of the engine, in the BAR", &(target.page(page)? == sent), &true)?;
        equal("the pages beside it", &(beside == [target.page(page - 1)?, target.page(page + 1)?]), &true)?;

        let held = self.fresh();
        target.bar.write(Bytes::new(page * PAGE.as_u64()), &held)?;
        let other = self.fresh();
        self.memory.write(Bytes::new(2 * PAGE.as_u64()), &other)?;
        self.engine.fetch(to, PAGE)?;
        self.engine.store(back, PAGE)?;
        let mut seen = vec![0; PAGE.as_u64() as usize];
        self.memory.read(Bytes::new(2 * PAGE.as_u64()), &mut seen)?;
        equal("a read of the engine, in memory", &(seen == held), &true)
    }

    /// The engine writes a word to the other device's register, which then reads as its complement.
    fn ring(&mut self, from: Iova, bell: Iova) -> Result<(), Stop> {
        for word in [0x5a5a_0001_u32, 0x1234_5678] {
            self.memory.write(Bytes::ZERO, &word.to_le_bytes())?;
            self.engine.fetch(from, Bytes::new(4))?;
            let register = bell.checked_add(LIVENESS).ok_or_else(|| Stop::broken("the doorbell wraps"))?;
            self.engine.store(register, Bytes::new(4))?;
            equal("what the doorbell answers", &!word, &self.bell.bar.load_u32(LIVENESS)?)?;
        }
        equal(
            "the doorbell's device",
            &true,
            &self.bell.device.bar(BarIndex::new(0).ok_or_else(|| Stop::broken("no BAR"))?).is_some(),
        )
    }

    fn fresh(&mut self) -> Vec<u8> {
        self.seed += 1;
        pattern(0x4d00 + self.seed, PAGE.as_u64() as usize)
    }
}
