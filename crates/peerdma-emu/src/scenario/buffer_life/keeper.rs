//! Who owns the buffer: it moves the bytes, and resets the GPU that they lie in.

use super::super::error::ScenarioError;
use super::super::stage::{CHANNEL_MEMORY, Desk, Mapped, Ram, Stage, first};
use super::Deed;
use super::stream::Stream;
use crate::device::gpu::{self, Place as At};
use crate::host::{Buffer as Memory, Seat};
use crate::sharing::device::Exposed;
use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::{BusAddr, Bytes};
use peerdma::buffer::life::{Answers, Disturbance, Still};
use peerdma::buffer::pins::RegionId;
use peerdma::buffer::shared::{Buffer, Disturbing};
use peerdma::buffer::terms::{Moves, Offer, Place, Stays};
use peerdma::chunk::{Chunk, Chunks};
use peerdma::dma::Owner;
use std::collections::VecDeque;

/// What lies where the buffer no longer is; nobody may change it.
const ABANDONED: u64 = 0x6465_6e6f_646e_6162;

/// A place that the buffer can be in.
struct Spot {
    name: String,
    place: Place,
    chunk: Chunk<Owner>,
    /// Which of the two GPUs, for VRAM.
    gpu: Option<usize>,
    /// Whether what lies there is [`ABANDONED`].
    left: bool,
}

/// A GPU of the exporter's.
struct Engine<'c, 'a, 'm> {
    seat: &'m Seat<'m>,
    queue: Ram<'c, 'a>,
    driver: gpu::Driver<'m>,
    /// RAM that the buffer can be in, for this GPU, and the other's VRAM.
    ram: Mapped<'c, 'a>,
    across: Mapped<'c, 'a>,
    /// Where it shows what is in its VRAM.
    window: Ram<'c, 'a>,
    exposed: Exposed,
}

/// What is to happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Planned {
    Moves { to: usize },
    Resets,
}

/// The exporter.
pub(super) struct Keeper<'c, 'a, 'm> {
    stage: &'m Stage,
    buffer: Buffer,
    memory: Memory,
    spots: [Spot; 3],
    /// Where the buffer is.
    at: usize,
    engines: [Engine<'c, 'a, 'm>; 2],
    /// What is to happen, each with the batch that must have been sent by then.
    plan: VecDeque<(u64, Planned)>,
    waiting: Option<(Planned, Disturbing, Deed)>,
    pub(super) deeds: Vec<Deed>,
    /// Whether nothing came to where the buffer no longer was.
    pub(super) left_alone: bool,
}

/// Indices of the spots.
const NEAR: usize = 0;
const FAR: usize = 1;
const RAM: usize = 2;

impl<'c, 'a, 'm> Keeper<'c, 'a, 'm> {
    /// An exporter of `len` bytes in the first GPU's memory, which go to the other GPU, to RAM and back
    /// while `batches` go through them.
    pub(super) fn new(
        stage: &'m Stage,
        gpus: [(&str, &'c Desk<'a>, &'m Seat<'m>); 2],
        len: Bytes,
        batches: u64,
    ) -> Result<Self, ScenarioError> {
        let memory = stage.kernel.allocate_aligned(len, Bytes::new(2 << 20))?;
        let in_ram = Bytes::new(memory.range().start().as_u64());
        let ram = chunk((Owner::Ram, MemAttrs::empty()), in_ram, len)?;
        let vram = |index: usize| -> Result<Spot, ScenarioError> {
            let (name, _, seat) = gpus[index];
            let owner = Owner::Bar { function: seat.function(), bar: stage.vram(name)? };
            let chunk = chunk((owner, MemAttrs::MMIO), Bytes::ZERO, len)?;
            let place = Place::Device(RegionId::new(index as u32));
            Ok(Spot { name: format!("VRAM of {name}"), place, chunk, gpu: Some(index), left: false })
        };
        let spots =
            [vram(0)?, vram(1)?, Spot { name: "RAM".into(), place: Place::Ram, chunk: ram, gpu: None, left: false }];
        let engine = |index: usize| -> Result<Engine<'c, 'a, 'm>, ScenarioError> {
            let (name, desk, seat) = gpus[index];
            let queue = stage.ram(desk, CHANNEL_MEMORY)?;
            let driver = stage.gpu(seat, 0, &queue, None)?;
            let across = desk.map_p2p(spots[1 - index].chunk, Prot::ReadWrite)?;
            let (ram, window) = (desk.map_one(ram, Prot::ReadWrite)?, stage.ram(desk, len)?);
            let (registers, _) = stage.bar_at(name, gpu::REGISTERS_BAR)?;
            let exposed = Exposed::new(stage.machine(), seat.node(), registers.start());
            Ok(Engine { seat, queue, driver, ram, across, window, exposed })
        };
        let engines = [engine(0)?, engine(1)?];
        // A reset loses what is in VRAM; and where nobody has promised to stay, the bytes can be moved.
        let stays = Stays { moves: Moves::UnlessPinned, revoked: true };
        let offer = Offer::new(whole(spots[NEAR].chunk)?, stays, spots[NEAR].place)?.to_peers();
        let offer = spots.iter().fold(offer, |offer, spot| offer.or_at(spot.place, spot.chunk.owner()));
        let buffer = Buffer::new("buffer 1", offer, Answers::YES);
        let deeds = [
            Planned::Moves { to: FAR },
            Planned::Resets,
            Planned::Moves { to: RAM },
            Planned::Moves { to: NEAR },
            Planned::Resets,
        ];
        let parts = deeds.len() as u64 + 1;
        let plan = deeds.into_iter().enumerate().map(|(index, deed)| ((index as u64 + 1) * batches / parts, deed));
        let plan = plan.collect();
        let (waiting, deeds) = (None, Vec::new());
        Ok(Self { stage, buffer, memory, spots, at: NEAR, engines, plan, waiting, deeds, left_alone: true })
    }

    pub(super) fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// Whether everything has happened.
    pub(super) fn is_done(&self) -> bool {
        self.plan.is_empty() && self.waiting.is_none()
    }

    /// Begins what is due while somebody is at the buffer, or goes on as soon as nobody is.
    pub(super) fn step(&mut self, stream: &mut Stream) -> Result<(), ScenarioError> {
        let Some((planned, disturbing, mut deed)) = self.waiting.take() else {
            return match self.plan.front() {
                Some(&(after, planned)) if stream.sent() >= after && stream.is_busy() => {
                    self.plan.pop_front();
                    self.begin(planned)
                }
                _ => Ok(()),
            };
        };
        deed.looks += 1;
        match disturbing.try_proceed() {
            Err(disturbing) => {
                if deed.held.is_empty() {
                    deed.held = holding(&disturbing);
                }
                self.waiting = Some((planned, disturbing, deed));
            }
            Ok(disturbed) => {
                match planned {
                    Planned::Moves { to } => {
                        let (ranges, place) = (whole(self.spots[to].chunk)?, self.spots[to].place);
                        let peers = self.stage.peers();
                        // Asked before a byte is copied, and again when it is recorded.
                        self.buffer.could_move(&ranges, place, &peers).map_err(ScenarioError::NotMoved)?;
                        self.move_to(to)?;
                        disturbed.moved(ranges, place, &peers).map_err(|not| ScenarioError::NotMoved(not.why))?;
                    }
                    Planned::Resets => {
                        self.reset()?;
                        deed.again = stream.lost();
                        disturbed.done();
                    }
                }
                self.deeds.push(deed);
            }
        }
        Ok(())
    }

    fn begin(&mut self, planned: Planned) -> Result<(), ScenarioError> {
        let (what, to) = match planned {
            Planned::Moves { to } => (Disturbance::Move, Some(self.spots[to].name.clone())),
            Planned::Resets => (Disturbance::FunctionReset, None),
        };
        let disturbing = self.buffer.begin(what)?;
        let deed = Deed { what, at: self.spots[self.at].name.clone(), to, held: Vec::new(), looks: 0, again: 0 };
        self.waiting = Some((planned, disturbing, deed));
        Ok(())
    }

    /// Nobody has mapped the buffer: its bytes go to another spot, and something else lies where they were.
    fn move_to(&mut self, to: usize) -> Result<(), ScenarioError> {
        let from = std::mem::replace(&mut self.at, to);
        self.look(to)?;
        let (vram, len) = (At::Vram(Bytes::ZERO), self.memory.range().len());
        match (self.spots[from].gpu, self.spots[to].gpu) {
            (Some(gpu), to) => {
                let engine = &mut self.engines[gpu];
                let into = if to.is_some() { first(&engine.across) } else { first(&engine.ram) };
                engine.driver.copy(vram, At::Bus(into), len)?;
            }
            (None, Some(gpu)) => {
                let engine = &mut self.engines[gpu];
                let out = first(&engine.ram);
                engine.driver.copy(At::Bus(out), vram, len)?;
            }
            // There is one spot in RAM.
            (None, None) => {}
        }
        // The engine is done when its writes are sent.
        self.stage.settle()?;
        self.abandon(from)
    }

    /// Resets the GPU that the buffer lies in. What was in its memory is gone.
    fn reset(&mut self) -> Result<(), ScenarioError> {
        let Some(gpu) = self.spots[self.at].gpu else { return Ok(()) };
        let (machine, engine) = (self.stage.machine(), &mut self.engines[gpu]);
        engine.exposed.begin(machine, Disturbance::FunctionReset);
        self.stage.settle()?;
        engine.exposed.end(machine, Disturbance::FunctionReset);
        engine.queue.put(&vec![0; CHANNEL_MEMORY.as_u64() as usize])?;
        engine.driver = self.stage.gpu(engine.seat, 0, &engine.queue, None)?;
        self.abandon(self.at)?;
        // The buffer is still there, and is filled again.
        self.spots[self.at].left = false;
        Ok(())
    }

    /// Puts something else where the buffer was.
    fn abandon(&mut self, spot: usize) -> Result<(), ScenarioError> {
        let len = self.memory.range().len();
        match self.spots[spot].gpu {
            Some(gpu) => self.engines[gpu].driver.fill(At::Vram(Bytes::ZERO), len, ABANDONED)?,
            None => {
                let (memory, at) = self.memory.memory();
                memory.write(at, &abandoned(len))?;
            }
        }
        self.stage.settle()?;
        self.spots[spot].left = true;
        Ok(())
    }

    /// Looks whether anything came to a spot since the buffer left it.
    fn look(&mut self, spot: usize) -> Result<(), ScenarioError> {
        if !std::mem::replace(&mut self.spots[spot].left, false) {
            return Ok(());
        }
        let len = self.memory.range().len();
        let bytes = match self.spots[spot].gpu {
            Some(gpu) => {
                let engine = &mut self.engines[gpu];
                let into: BusAddr = engine.window.at();
                engine.driver.copy(At::Vram(Bytes::ZERO), At::Bus(into), len)?;
                self.stage.settle()?;
                engine.window.bytes()?
            }
            None => super::super::stage::bytes_of(&self.memory)?,
        };
        self.left_alone &= bytes == abandoned(len);
        Ok(())
    }

    /// Looks at every place that the buffer has left.
    pub(super) fn look_everywhere(&mut self) -> Result<(), ScenarioError> {
        (0..self.spots.len()).try_for_each(|spot| self.look(spot))
    }
}

/// Who holds on and by what, once everybody has heard.
fn holding(disturbing: &Disturbing) -> Vec<String> {
    let held = disturbing.held();
    if held.iter().any(|held| matches!(held.what, Still::ToNote(_))) {
        return Vec::new();
    }
    let words = held.iter().flat_map(|held| match &held.holder {
        Some(holder) => vec![format!("{holder} {}", held.what)],
        None => held.fences.iter().map(ToString::to_string).collect(),
    });
    words.collect()
}

fn abandoned(len: Bytes) -> Vec<u8> {
    ABANDONED.to_le_bytes().into_iter().cycle().take(len.as_u64() as usize).collect()
}

fn chunk((owner, attrs): (Owner, MemAttrs), at: Bytes, len: Bytes) -> Result<Chunk<Owner>, ScenarioError> {
    Chunk::new(owner, at, len, attrs).ok_or_else(|| super::super::stage::not_there("memory for a buffer"))
}

fn whole(chunk: Chunk<Owner>) -> Result<Chunks<Owner>, ScenarioError> {
    Chunks::collect_from([chunk]).map_err(|_| super::super::stage::not_there("room for one range"))
}
