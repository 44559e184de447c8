//! Traffic by several devices over several buffers while everything happens to their memory, from a seed.

use super::device::Exposed;
use super::driver::{Broken, Driver, Style, Tally};
use super::exporter::{Deeds, Exporter};
use super::field::{Field, Home};
use super::witness::{PIECE, Violation, Witness};
use super::workers::DmaWorker;
use crate::device::{dma, gpu};
use crate::host::{Kernel, SeatError, wire_address};
use crate::machine::{BuildError, Builder};
use crate::memory::{Memory, Striped};
use crate::platform::Platform;
use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::{Bytes, PhysAddr};
use peerdma::buffer::terms::{Declaration, OfferError};
use peerdma::buffer::{Enforcement, Lifetime};
use peerdma::chunk::Chunk;
use peerdma::dma::{ContextError, MapRangesError, Owner, Peers};
use std::sync::{Arc, Mutex, PoisonError};

/// Why a run could not begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SoakError {
    /// The platform lacks something.
    #[error("the platform lacks {what}; `shared-switch` has everything that a soak needs")]
    Lacks {
        /// What.
        what: String,
    },
    /// The machine was not built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A driver has no place.
    #[error(transparent)]
    Seat(#[from] SeatError),
    /// A driver has no context.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// Memory cannot be exported.
    #[error(transparent)]
    Offer(#[from] OfferError),
    /// A driver's own memory was not mapped.
    #[error(transparent)]
    Map(#[from] MapRangesError),
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Steps of drivers, of the exporter and of the machine.
    pub operations: u64,
    /// Words that witnesses judged.
    pub judged: u64,
    /// What the drivers have to tell, in the order of their names.
    pub drivers: Vec<(String, Tally)>,
    /// What the exporter has to tell.
    pub deeds: Deeds,
    /// What the witnesses saw that must not be; the first of it.
    pub violations: Vec<Violation>,
    /// What a driver met that must not be.
    pub broken: Option<Broken>,
    /// Who still held on when everybody had been told to stop, long after.
    pub stuck: Vec<String>,
}

impl Outcome {
    /// Whether every rule held.
    pub fn is_good(&self) -> bool {
        self.violations.is_empty() && self.broken.is_none() && self.stuck.is_empty()
    }
}

/// Bytes of a buffer.
const LEN: Bytes = Bytes::new(4 * PIECE.as_u64());
/// Fields in each GPU's memory, and in RAM.
const FIELDS: u64 = 4;
/// Buffers.
const BUFFERS: usize = 4;
/// Looks that a driver and the exporter have to come to rest at the end.
const LAST: u32 = 2_000_000;

/// Runs `operations` steps on a platform, in an order that follows from the seed.
///
/// # Errors
/// [`SoakError`] where the platform cannot have such a run. Rules that did not hold are no error: see [`Outcome`].
pub fn run(platform: &Platform, seed: u64, operations: u64) -> Result<Outcome, SoakError> {
    let lacks = |what: &str| SoakError::Lacks { what: what.to_string() };
    let vram: Vec<Arc<Witness>> = ["gpu0", "gpu1"]
        .map(|name| {
            let len = platform.function_named(name).and_then(|function| function.memory);
            Arc::new(Witness::new(name, Arc::new(Striped::new(len.unwrap_or(Bytes::new(64 << 20))))))
        })
        .into();
    let ram: Mutex<Vec<(PhysAddr, Arc<Witness>)>> = Mutex::default();
    let watch = |range: peerdma::addr::AddrRange<PhysAddr>, memory: Arc<dyn Memory>| {
        let witness = Arc::new(Witness::new("RAM", memory));
        ram.lock().unwrap_or_else(PoisonError::into_inner).push((range.start(), witness.clone()));
        witness as Arc<dyn Memory>
    };
    let mut builder = Builder::new(platform).seed(seed).ram_behind(watch);
    for (name, witness) in ["gpu0", "gpu1"].into_iter().zip(&vram) {
        builder = builder.device(name, Box::new(gpu::Gpu::new(witness.clone(), 1)));
    }
    let kernel = Kernel::boot(Arc::new(builder.build()?), platform);
    let machine = kernel.machine().clone();
    let ram = ram.lock().unwrap_or_else(PoisonError::into_inner).clone();

    let (mut fields, mut gpus) = (Vec::new(), Vec::new());
    for (index, (name, witness)) in ["gpu0", "gpu1"].into_iter().zip(&vram).enumerate() {
        let node = machine.named(name).ok_or_else(|| lacks(name))?;
        let function = kernel.function(node).ok_or_else(|| lacks(name))?;
        let home = Home::Vram { gpu: index, function, bar: gpu::VRAM_BAR };
        fields.extend((0..FIELDS).map(|at| Field::vram(home, witness, Bytes::new(at * LEN.as_u64()), LEN)));
        gpus.push(Exposed::new(&machine, node));
    }
    for _ in 0..FIELDS {
        let place = kernel.allocate_aligned(LEN, Bytes::new(PIECE.as_u64())).map_err(|_| lacks("RAM"))?;
        let start = place.range().start();
        let (base, witness) = ram.iter().rev().find(|(base, _)| *base <= start).ok_or_else(|| lacks("RAM"))?;
        fields.push(Field::ram(witness, start, Bytes::new(start.as_u64() - base.as_u64()), LEN));
    }
    let mut random = fastrand::Rng::with_seed(seed);
    fastrand::Rng::shuffle(&mut random, &mut fields);
    let mut exporter = Exporter::new(fields, BUFFERS, gpus)?;

    let (owners, peers) = (kernel.owners(), Peers::of(kernel.topology()));
    let engines = ["dma0", "dma1"];
    let mut seats = Vec::new();
    for name in engines {
        seats.push(kernel.seat(machine.named(name).ok_or_else(|| lacks(name))?)?);
    }
    let mut desks = Vec::new();
    for seat in &seats {
        desks.push(seat.context(&owners, &peers)?);
    }
    let (mut drivers, mut scratches) = (Vec::new(), Vec::new());
    let quarter = Bytes::new(LEN.as_u64() / 4);
    for (number, ((name, seat), desk)) in engines.iter().zip(&seats).zip(&desks).enumerate() {
        let scratch = kernel.allocate(Bytes::new(4096)).map_err(|_| lacks("RAM"))?;
        let at = Bytes::new(scratch.range().start().as_u64());
        let chunk = Chunk::new(Owner::Ram, at, Bytes::new(4096), MemAttrs::empty()).ok_or_else(|| lacks("RAM"))?;
        let mapping = desk.map_one(chunk, Prot::ReadWrite)?;
        let address = mapping.spans().next().map(|span| wire_address(&span)).ok_or_else(|| lacks("RAM"))?;
        scratches.push(mapping);
        let worker = DmaWorker::new(desk, dma::Driver::new(seat), address);
        let (lifetime, style) = match number % 2 {
            0 => (Lifetime::Movable, Style::Fences),
            _ => (Lifetime::Revocable, Style::WritesOn),
        };
        let part = (Bytes::new(number as u64 * quarter.as_u64()), quarter);
        let declaration = Declaration::of_device(seat.initiator().clone(), Prot::ReadWrite)
            .taking(lifetime)
            .taking_peer_memory()
            .enforced(Enforcement::Cooperative);
        drivers.push((name, Driver::new((name, number as u16), declaration, style, part, Box::new(worker))));
    }

    let mut done = 0;
    let mut broken = None;
    while done < operations && broken.is_none() {
        done += 1;
        match random.u8(..8) {
            0 => exporter.step(&machine, &mut random, true),
            1..=2 => {
                let number = random.usize(..drivers.len());
                if let Some((_, driver)) = drivers.get_mut(number) {
                    broken = driver.step(&mut random, &exporter, &peers).err();
                }
            }
            _ => drop(machine.step()),
        }
    }
    // Everybody stops, and everything that is under way has to come to its end.
    let mut left = LAST;
    while broken.is_none() && left > 0 && !exporter.is_at_rest() {
        left -= 1;
        exporter.step(&machine, &mut random, false);
        let number = random.usize(..drivers.len());
        if let Some((_, driver)) = drivers.get_mut(number) {
            broken = driver.step(&mut random, &exporter, &peers).err();
        }
        machine.step();
    }
    let witnesses = || vram.iter().chain(ram.iter().map(|(_, witness)| witness));
    Ok(Outcome {
        seed,
        operations: done,
        judged: witnesses().map(|witness| witness.judged()).sum(),
        drivers: drivers.iter().map(|(name, driver)| (name.to_string(), driver.tally)).collect(),
        deeds: exporter.tally.clone(),
        violations: witnesses().flat_map(|witness| witness.found()).collect(),
        broken,
        stuck: exporter.held(),
    })
}
