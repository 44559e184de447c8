//! A drive fills a GPU, NICs carry it to another GPU, and it comes back, peer to peer all the way.
//!
//! Forth: the drive reads its blocks into the VRAM of the first GPU; the GPU's engine copies them
//! within VRAM; the first NIC reads them there, and the second writes them into the VRAM of the other
//! GPU. Back: the other GPU's engine marks what it has, the NICs carry it to the first GPU, and
//! the drive fetches it from there onto other blocks. Last the first GPU writes to the second
//! without a NIC between, and the drive to RAM.
//!
//! What has come into VRAM is compared after the GPU's own engine has brought it to RAM: what a
//! BAR shows to the one who wrote through it proves nothing.

use super::cast::Cast;
use super::end::End;
use super::error::ScenarioError;
use super::stage::{CHANNEL_MEMORY, DRIVE_MEMORY, Desk, Mapped, Ram, Stage, address, first, noise, ranges};
use crate::device::gpu::{self, Place};
use crate::device::nvme::{BlockSize, Form, Media};
use crate::host::Seat;
use crate::memory::{Memory, Striped};
use crate::platform::Platform;
use peerdma::access::Prot;
use peerdma::addr::Bytes;
use peerdma::dma::DeviceAddress;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What an initiator did to its target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moves {
    /// It wrote.
    Writes,
    /// It read.
    Reads,
}

/// Bytes that one device moved to or from another's memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leg {
    /// Who sent the requests.
    pub initiator: String,
    /// Whose memory they were for; `None` for the machine's.
    pub target: Option<String>,
    /// What the initiator did.
    pub moves: Moves,
    /// The first address, as the mapping engine gave it.
    pub address: DeviceAddress,
    /// How many bytes.
    pub len: Bytes,
    /// Whether every byte is where it should be.
    pub verified: bool,
    /// How long the transfer took when it was done once more, commands and completions included; of
    /// two NICs from memory to memory.
    pub took: Duration,
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pipeline {
    /// In the order in which bytes moved.
    pub legs: Vec<Leg>,
    /// Whether what came back to the drive is what it sent, with the mark of the other GPU.
    pub came_back: bool,
}

impl Pipeline {
    /// Whether every byte of every leg arrived.
    pub fn verified(&self) -> bool {
        self.came_back && self.legs.iter().all(|leg| leg.verified)
    }
}

/// What the second GPU writes over the head of what it got.
const MARK: u64 = 0x6b63_6162_656d_6f63;
/// How much of it.
const MARKED: Bytes = Bytes::new(4096);

/// A GPU, and how its own engine shows what is in VRAM.
struct Engine<'c, 'a, 'm> {
    driver: gpu::Driver<'m>,
    window: Ram<'c, 'a>,
    _queue: Ram<'c, 'a>,
}

impl<'c, 'a, 'm> Engine<'c, 'a, 'm> {
    fn new(stage: &Stage, desk: &'c Desk<'a>, seat: &'m Seat<'_>, len: Bytes) -> Result<Self, ScenarioError> {
        let queue = stage.ram(desk, CHANNEL_MEMORY)?;
        let driver = stage.gpu(seat, 0, &queue, None)?;
        Ok(Self { driver, window: stage.ram(desk, len)?, _queue: queue })
    }

    fn copy(&mut self, from: Bytes, to: Bytes, len: Bytes) -> Result<(), ScenarioError> {
        Ok(self.driver.copy(Place::Vram(from), Place::Vram(to), len)?)
    }

    /// Whether VRAM holds these bytes.
    fn holds(&mut self, stage: &Stage, at: Bytes, bytes: &[u8]) -> Result<bool, ScenarioError> {
        // What was written to VRAM just now may be under way still.
        stage.settle()?;
        let len = Bytes::new(bytes.len() as u64);
        self.driver.copy(Place::Vram(at), Place::Bus(self.window.at()), len)?;
        stage.settle()?;
        Ok(self.window.bytes()? == bytes)
    }
}

/// How long something took the second time; the first brings the memory that the machine is made of.
fn timed(mut does: impl FnMut() -> Result<(), ScenarioError>) -> Result<Duration, ScenarioError> {
    does()?;
    let begun = Instant::now();
    does()?;
    Ok(begun.elapsed())
}

fn leg(
    (initiator, moves, target): (&str, Moves, Option<&str>),
    mapping: &Mapped<'_, '_>,
    took: Duration,
) -> Result<Leg, ScenarioError> {
    let (initiator, target) = (initiator.to_string(), target.map(str::to_string));
    Ok(Leg { initiator, target, moves, address: address(mapping)?, len: mapping.len(), verified: false, took })
}

/// Moves `len` bytes, rounded up to blocks of 4 KiB, from a drive to a GPU to another GPU and back.
///
/// # Errors
/// [`ScenarioError`] where a device or the mapping engine refuses; bytes that went astray are no
/// error, and [`Leg::verified`] tells of them.
pub fn pipeline(platform: &Platform, cast: &Cast, len: Bytes, seed: u64) -> Result<Pipeline, ScenarioError> {
    let block = BlockSize::Long.bytes().as_u64();
    let len = Bytes::new(len.as_u64().max(1).div_ceil(block).saturating_mul(block));
    let (twice, blocks) = (Bytes::new(2 * len.as_u64()), len.as_u64() / block);
    let data = noise(len, seed);
    let marked: Vec<u8> = MARK.to_le_bytes().into_iter().cycle().take(MARKED.as_u64() as usize).collect();
    let marked = [&marked, &data[marked.len()..]].concat();
    let media = Arc::new(Striped::new(twice));
    media.write(Bytes::ZERO, &data)?;
    let in_drive = Media::new(media.clone(), BlockSize::Long);
    let stage = Stage::new(platform, seed, |builder| builder.media(&cast.drive, in_drive))?;

    let (peers, owners) = (stage.peers(), &stage.owners);
    let ([gpu0, gpu1], [nic0, nic1]) = (&cast.gpus, &cast.nics);
    let drive_seat = stage.seat(&cast.drive)?;
    let gpu_seats = [stage.seat(gpu0)?, stage.seat(gpu1)?];
    let nic_seats = [stage.seat(nic0)?, stage.seat(nic1)?];
    let drive_desk = drive_seat.context(owners, &peers)?;
    let gpu_desks = [gpu_seats[0].context(owners, &peers)?, gpu_seats[1].context(owners, &peers)?];
    let nic_desks = [nic_seats[0].context(owners, &peers)?, nic_seats[1].context(owners, &peers)?];

    let drive_memory = stage.ram(&drive_desk, DRIVE_MEMORY)?;
    let (mut drive, queue) = stage.drive(&drive_seat, &drive_memory)?;
    let mut first_gpu = Engine::new(&stage, &gpu_desks[0], &gpu_seats[0], len)?;
    let mut other_gpu = Engine::new(&stage, &gpu_desks[1], &gpu_seats[1], len)?;
    let mut sender = End::new(&stage, &nic_desks[0], &nic_seats[0])?;
    let mut receiver = End::new(&stage, &nic_desks[1], &nic_seats[1])?;
    sender.connect(&receiver)?;
    let vram = |desk, name: &str, at| stage.bar(desk, (name, stage.vram(name)?), (at, len), Prot::ReadWrite);

    let mut legs = Vec::new();
    // Forth.
    let landing = vram(&drive_desk, gpu0, Bytes::ZERO)?;
    let took = timed(|| Ok(drive.read(queue, 0, &ranges(&landing), Form::Sgl)?))?;
    let mut there = leg((&cast.drive, Moves::Writes, Some(gpu0)), &landing, took)?;
    there.verified = first_gpu.holds(&stage, Bytes::ZERO, &data)?;
    legs.push(there);
    first_gpu.copy(Bytes::ZERO, len, len)?;

    let (out, into) = (vram(&nic_desks[0], gpu0, len)?, vram(&nic_desks[1], gpu1, Bytes::ZERO)?);
    let (from, to) = (sender.register(&out)?, receiver.register(&into)?);
    let took = timed(|| {
        sender.pair.post(&End::write(1, from, to, len))?;
        sender.done()
    })?;
    let arrived = other_gpu.holds(&stage, Bytes::ZERO, &data)?;
    for (who, moves, whose, mapping) in [(nic0, Moves::Reads, gpu0, &out), (nic1, Moves::Writes, gpu1, &into)] {
        legs.push(Leg { verified: arrived, ..leg((who, moves, Some(whose)), mapping, took)? });
    }

    // Back, with a mark.
    other_gpu.copy(Bytes::ZERO, len, len)?;
    other_gpu.driver.fill(Place::Vram(len), MARKED, MARK)?;
    let (out, into) = (vram(&nic_desks[1], gpu1, len)?, vram(&nic_desks[0], gpu0, twice)?);
    let (from, to) = (receiver.register(&out)?, sender.register(&into)?);
    let took = timed(|| {
        receiver.pair.post(&End::write(2, from, to, len))?;
        receiver.done()
    })?;
    let arrived = first_gpu.holds(&stage, twice, &marked)?;
    for (who, moves, whose, mapping) in [(nic1, Moves::Reads, gpu1, &out), (nic0, Moves::Writes, gpu0, &into)] {
        legs.push(Leg { verified: arrived, ..leg((who, moves, Some(whose)), mapping, took)? });
    }
    let source = vram(&drive_desk, gpu0, twice)?;
    let took = timed(|| Ok(drive.write(queue, blocks, &ranges(&source), Form::Sgl)?))?;
    let mut found = vec![0; data.len()];
    media.read(len, &mut found)?;
    let came_back = found == marked;
    legs.push(Leg { verified: came_back, ..leg((&cast.drive, Moves::Reads, Some(gpu0)), &source, took)? });

    // Without a NIC between, and without a peer.
    let across = vram(&gpu_desks[0], gpu1, twice)?;
    let (vram0, bus) = (Place::Vram(Bytes::ZERO), Place::Bus(first(&across)));
    let took = timed(|| Ok(first_gpu.driver.copy(vram0, bus, len)?))?;
    let verified = other_gpu.holds(&stage, twice, &data)?;
    legs.push(Leg { verified, ..leg((gpu0, Moves::Writes, Some(gpu1)), &across, took)? });
    let memory = stage.ram(&drive_desk, len)?;
    let took = timed(|| Ok(drive.read(queue, 0, &ranges(&memory.mapping), Form::Sgl)?))?;
    stage.settle()?;
    let verified = memory.bytes()? == data;
    legs.push(Leg { verified, ..leg((&cast.drive, Moves::Writes, None), &memory.mapping, took)? });
    Ok(Pipeline { legs, came_back })
}
