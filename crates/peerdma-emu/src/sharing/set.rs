//! A machine with everything that shares: GPUs whose memory is exported, importers of every kind, and witnesses.

use super::device::Exposed;
use super::driver::{Driver, Style};
use super::exporter::Exporter;
use super::field::{Field, Home};
use super::guest::Guest;
use super::importer::Worker;
use super::membership::Membership;
use super::party::{Broken, Party};
use super::process::Process;
use super::soak::SoakError;
use super::tables::Tables;
use super::witness::{PIECE, Witness};
use super::workers::{Adapter, BlockWorker, Desk, DmaWorker, Lent, MirrorWorker, RegionWorker};
use crate::device::{dma, gpu};
use crate::host::{Kernel, Seat};
use crate::machine::{Builder, Machine};
use crate::memory::{Memory, Striped};
use crate::platform::Platform;
use peerdma::access::Prot;
use peerdma::addr::{AddrRange, Bytes, PhysAddr};
use peerdma::buffer::terms::Declaration;
use peerdma::buffer::{Enforcement, Lifetime};
use peerdma::dma::{Owners, Peers};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

/// A kind of importer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Kind {
    /// A DMA engine that gives its mapping up at once, with a fence for what runs.
    Fenced,
    /// A DMA engine that writes on when its mapping is gone.
    WritingOn,
    /// A DMA engine behind a table of pages that come and go one by one.
    Mirror,
    /// A DMA engine in an I/O address space whose owner maps at addresses of its own.
    Tables,
    /// A DMA engine that only reads, and cannot do without what it reads.
    Display,
    /// An RDMA adapter with a region that is registered with its pages.
    PinnedRegion,
    /// An RDMA adapter with a region whose pages come on demand.
    OnDemandRegion,
    /// A drive.
    Blocks,
    /// A guest that goes on running.
    Guest,
    /// A process, by its CPU.
    Process,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Fenced,
        Self::WritingOn,
        Self::Mirror,
        Self::Tables,
        Self::Display,
        Self::PinnedRegion,
        Self::OnDemandRegion,
        Self::Blocks,
        Self::Guest,
        Self::Process,
    ];

    /// The word used in text.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Fenced => "fenced",
            Self::WritingOn => "writing-on",
            Self::Mirror => "mirror",
            Self::Tables => "tables",
            Self::Display => "display",
            Self::PinnedRegion => "pinned-region",
            Self::OnDemandRegion => "on-demand-region",
            Self::Blocks => "blocks",
            Self::Guest => "guest",
            Self::Process => "process",
        }
    }

    /// The function that works for it; those that work by the processor have none.
    const fn device(self) -> Option<usize> {
        match self {
            Self::Fenced => Some(0),
            Self::WritingOn => Some(1),
            Self::Mirror => Some(2),
            Self::Tables => Some(3),
            Self::Display => Some(4),
            Self::PinnedRegion => Some(5),
            Self::OnDemandRegion => Some(6),
            Self::Blocks => Some(7),
            Self::Guest | Self::Process => None,
        }
    }

    /// The part of a buffer that it works on; only those that read share theirs.
    fn part(self) -> (Bytes, Bytes) {
        let number = Self::ALL.iter().filter(|other| **other < self && **other != Self::Display).count() as u64;
        let at = if self == Self::Display { 0 } else { number * PART.as_u64() };
        (Bytes::new(at), PART)
    }
}

/// The functions of the platform that work, as [`Kind::device`] counts them.
const DEVICES: [&str; 8] = ["dma0", "dma1", "dma2", "dma3", "dma4", "nic0", "nic1", "nvme0"];
const GPUS: [&str; 2] = ["gpu0", "gpu1"];
/// Bytes of a buffer, and the part of it that one importer works on.
const LEN: Bytes = Bytes::new(5 * PIECE.as_u64());
const PART: Bytes = Bytes::new(0x800);
/// Fields in each GPU's memory, and in RAM.
const FIELDS: u64 = 4;
/// Buffers.
const BUFFERS: usize = 6;

/// Everything, ready to take steps.
pub struct Set<'s> {
    /// The machine.
    pub machine: &'s Machine,
    /// Who owns the buffers.
    pub exporter: Exporter,
    /// The importers.
    pub parties: Vec<(Kind, Box<dyn Party + 's>)>,
    /// Who judges.
    pub witnesses: Vec<Arc<Witness>>,
    /// Jobs that failed because their memory had been pulled out.
    pub pulled: u64,
    /// Where every choice comes from.
    pub random: fastrand::Rng,
    peers: &'s Peers<'s>,
}

impl Set<'_> {
    /// The exporter takes a step, and begins something new where `more`.
    pub fn disturb(&mut self, more: bool) {
        self.exporter.step((self.machine, self.peers), &mut self.random, more);
    }

    /// Some importer takes a step.
    ///
    /// # Errors
    /// [`Broken`]: a rule was not kept.
    pub fn step_one(&mut self) -> Result<(), Broken> {
        let number = self.random.usize(..self.parties.len().max(1));
        let Some((_, party)) = self.parties.get_mut(number) else { return Ok(()) };
        match party.step(&mut self.random, &self.exporter, self.peers) {
            // Nobody can keep a job whole whose memory was pulled out.
            Err(_) if self.exporter.is_removed(party.member().number()) => {
                self.pulled += 1;
                Ok(())
            }
            outcome => outcome,
        }
    }
}

/// What holds up RAM's witnesses: where each begins as the CPU counts.
type Ram = Vec<(PhysAddr, Arc<Witness>)>;

/// Sets everything up on a platform, with importers of these kinds, and gives it to `body`.
///
/// # Errors
/// [`SoakError`] where the platform cannot have it.
pub fn with_set<R>(
    platform: &Platform,
    seed: u64,
    kinds: &[Kind],
    body: impl FnOnce(&mut Set<'_>) -> R,
) -> Result<R, SoakError> {
    let lacks = |what: &str| SoakError::Lacks { what: what.to_string() };
    let vram: Vec<Arc<Witness>> = GPUS
        .map(|name| {
            let len = platform.function_named(name).and_then(|function| function.memory);
            Arc::new(Witness::new(name, Arc::new(Striped::new(len.unwrap_or(Bytes::new(64 << 20))))))
        })
        .into();
    let ram: Mutex<Ram> = Mutex::default();
    let watch = |range: AddrRange<PhysAddr>, memory: Arc<dyn Memory>| {
        let witness = Arc::new(Witness::new("RAM", memory));
        ram.lock().unwrap_or_else(PoisonError::into_inner).push((range.start(), witness.clone()));
        witness as Arc<dyn Memory>
    };
    let mut builder = Builder::new(platform).seed(seed).ram_behind(watch);
    for (name, witness) in GPUS.into_iter().zip(&vram) {
        builder = builder.device(name, Box::new(gpu::Gpu::new(witness.clone(), 1)));
    }
    let kernel = Kernel::boot(Arc::new(builder.build()?), platform);
    let machine = kernel.machine().clone();
    let ram = ram.lock().unwrap_or_else(PoisonError::into_inner).clone();

    let mut random = fastrand::Rng::with_seed(seed);
    let mut fields = fields(&kernel, &vram, &ram)?;
    fastrand::Rng::shuffle(&mut random, &mut fields);
    let mut gpus = Vec::new();
    for name in GPUS {
        let node = machine.named(name).ok_or_else(|| lacks(name))?;
        let function = kernel.function(node).ok_or_else(|| lacks(name))?;
        let bars = &kernel.topology().function(function).info().bars;
        let registers = bars.iter().find(|bar| bar.index == gpu::REGISTERS_BAR).and_then(|bar| bar.cpu);
        gpus.push(Exposed::new(&machine, node, registers.ok_or_else(|| lacks("registers of a GPU"))?.start()));
    }
    for gpu in &gpus {
        machine.lend(gpu.node(), gpu.mischief().clone());
    }
    let exporter = Exporter::new(fields, BUFFERS, gpus)?;

    let (owners, peers) = (kernel.owners(), Peers::of(kernel.topology()));
    let mut seats = Vec::new();
    for name in DEVICES {
        seats.push(kernel.seat(machine.named(name).ok_or_else(|| lacks(name))?)?);
    }
    let mut desks = Vec::new();
    for seat in &seats {
        desks.push(seat.context(&owners, &peers)?);
    }
    let adapters = match kinds.iter().any(|kind| matches!(kind, Kind::PinnedRegion | Kind::OnDemandRegion)) {
        true => vec![Adapter::new(&kernel, &desks[5], &seats[5])?, Adapter::new(&kernel, &desks[6], &seats[6])?],
        false => Vec::new(),
    };
    let hall = Hall { kernel: &kernel, owners: &owners, seats: &seats, desks: &desks, adapters: &adapters };
    let mut parties = Vec::new();
    for kind in kinds {
        parties.push((*kind, hall.party(*kind)?));
    }
    let witnesses = vram.iter().cloned().chain(ram.iter().map(|(_, witness)| witness.clone())).collect();
    Ok(body(&mut Set { machine: &machine, exporter, parties, witnesses, pulled: 0, random, peers: &peers }))
}

/// Places for buffers, in each GPU and in RAM.
fn fields(kernel: &Kernel, vram: &[Arc<Witness>], ram: &Ram) -> Result<Vec<Field>, SoakError> {
    let lacks = |what: &str| SoakError::Lacks { what: what.to_string() };
    let mut fields = Vec::new();
    for (gpu, (name, witness)) in GPUS.into_iter().zip(vram).enumerate() {
        let node = kernel.machine().named(name).ok_or_else(|| lacks(name))?;
        let function = kernel.function(node).ok_or_else(|| lacks(name))?;
        let home = Home::Vram { gpu, function, bar: gpu::VRAM_BAR };
        fields.extend((0..FIELDS).map(|at| Field::vram(home, witness, Bytes::new(at * LEN.as_u64()), LEN)));
    }
    for _ in 0..FIELDS {
        let place = kernel.allocate_aligned(LEN, PIECE).map_err(|_| lacks("RAM"))?;
        let start = place.range().start();
        let (base, witness) = ram.iter().rev().find(|(base, _)| *base <= start).ok_or_else(|| lacks("RAM"))?;
        fields.push(Field::ram(witness, start, Bytes::new(start.as_u64() - base.as_u64()), LEN));
    }
    Ok(fields)
}

/// What importers are made from.
struct Hall<'s, 'a> {
    kernel: &'s Kernel,
    owners: &'s Owners<Infallible>,
    seats: &'s [Seat<'s>],
    desks: &'s [Desk<'a>],
    adapters: &'s [Adapter<'s, 'a, 's>],
}

impl<'s, 'a: 's> Hall<'s, 'a> {
    /// An importer, as its kind is.
    fn party(&self, kind: Kind) -> Result<Box<dyn Party + 's>, SoakError> {
        let Some(device) = kind.device() else { return Ok(self.by_processor(kind)) };
        let (desk, seat) = (&self.desks[device], &self.seats[device]);
        let declaration = match kind {
            Kind::Tables => Declaration::of_tables(kind.word(), Prot::ReadWrite),
            Kind::Display => Declaration::of_device(seat.initiator().clone(), Prot::Read),
            _ => Declaration::of_device(seat.initiator().clone(), Prot::ReadWrite),
        };
        let member = self.member(kind, declaration);
        let scratch = || Lent::new(self.kernel, desk, PIECE);
        let engine = || dma::Driver::new(seat);
        let lacks = || SoakError::Lacks { what: "two adapters".to_string() };
        let worker: Box<dyn Worker + 's> = match kind {
            Kind::Tables => {
                let parts = (engine(), scratch()?);
                return Ok(Box::new(Tables::new(member, self.owners, seat.handle(), parts, kind.part())));
            }
            Kind::Mirror => {
                let parts = (desk, seat.handle(), self.owners);
                let mirror = MirrorWorker::new(parts, engine(), scratch()?, LEN);
                Box::new(mirror.map_err(|why| SoakError::Device { why })?)
            }
            Kind::Display => Box::new(DmaWorker::reading(desk, engine(), scratch()?)),
            Kind::PinnedRegion | Kind::OnDemandRegion => match (self.adapters, kind) {
                ([first, second], Kind::PinnedRegion) => Box::new(RegionWorker::pinned(desk, first, second)?),
                ([first, second], _) => Box::new(RegionWorker::on_demand(desk, second, first, LEN)?),
                _ => return Err(lacks()),
            },
            Kind::Blocks => Box::new(BlockWorker::new(self.kernel, desk, seat)?),
            _ => Box::new(DmaWorker::new(desk, engine(), scratch()?)),
        };
        let style = match kind {
            // Not an on-demand region: its adapter reads from pages to push its writes when they are taken away
            // from it, which no fence stands for.
            Kind::Fenced | Kind::PinnedRegion | Kind::Blocks => Style::Fences,
            Kind::WritingOn | Kind::Mirror => Style::WritesOn,
            _ => Style::Unmaps,
        };
        Ok(Box::new(Driver::new(member, style, kind.part(), worker)))
    }

    fn by_processor(&self, kind: Kind) -> Box<dyn Party + 's> {
        let (machine, part) = (&**self.kernel.machine(), kind.part());
        if kind == Kind::Guest {
            let member = self.member(kind, Declaration::of_tables(kind.word(), Prot::ReadWrite));
            return Box::new(Guest::new(member, machine, self.owners, part));
        }
        let member = self.member(kind, Declaration::of_process(kind.word(), Prot::ReadWrite));
        Box::new(Process::new(member, machine, self.owners, part))
    }

    /// What an importer says of itself: how it lets go, and that it takes memory of other devices.
    fn member(&self, kind: Kind, declaration: Declaration) -> Membership {
        let (lifetime, enforcement) = match kind {
            Kind::Display => (Lifetime::Pinned, Enforcement::Cooperative),
            Kind::WritingOn | Kind::PinnedRegion => (Lifetime::Revocable, Enforcement::Cooperative),
            Kind::Tables | Kind::Guest => (Lifetime::Movable, Enforcement::Kernel),
            _ => (Lifetime::Movable, Enforcement::Cooperative),
        };
        let declaration = declaration.taking(lifetime).taking_peer_memory().enforced(enforcement);
        let mut member = Membership::new(kind.word(), kind as u16, declaration);
        // It has nothing to show while memory is away, so that only some buffers are for it.
        member.choosy = kind == Kind::Display;
        member
    }
}
