//! A doorbell that arrives before its payload, and the read that keeps it from that.
//!
//! A DMA engine, which stands in the slot of the drive, writes a payload to RAM and then the doorbell of
//! the second GPU, whose prepared command copies the payload into its VRAM. The two writes go
//! different ways from the root complex on, and posted writes keep their order along one way only
//! (PCIe 6.0 §2.4.1). Which comes first is decided anew by each seed.
//!
//! A GPU would not show it as a sender: it reads its next command between the two, from RAM, and that
//! read pushes the payload ahead of it, as the advice would have it.

use super::cast::Cast;
use super::error::ScenarioError;
use super::stage::{CHANNEL_MEMORY, Stage, first, noise, not_there};
use crate::device::channel::DOORBELL_PAGE;
use crate::device::dma::{self, DmaEngine};
use crate::device::gpu::{self, Operation, Place, REGISTERS_BAR};
use crate::platform::Platform;
use crate::wire::Operand;
use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::Bytes;
use peerdma::chunk::Chunk;
use peerdma::dma::Owner;
use peerdma::dma::publish::{Publish, Sender, Step};

/// How often a doorbell overtook its payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Overtaken {
    /// In whose slot the engine stands that wrote the payload and rang.
    pub sender: String,
    /// Whose doorbell it was.
    pub bell: String,
    /// What the mapping engine says is to happen before the doorbell.
    pub advice: Publish,
    /// How many runs there were of each kind, with seeds that follow each other.
    pub runs: u64,
    /// How many runs without the advice had the old payload copied.
    pub without: u64,
    /// The first seed of those.
    pub seed: Option<u64>,
    /// How many with it did.
    pub with: u64,
}

/// The payload, which goes in one packet. A longer one would be late in nearly every run.
const PAYLOAD: Bytes = Bytes::new(64);

/// Lets a doorbell race against its payload in `runs` runs, without the advice and with it.
///
/// # Errors
/// [`ScenarioError`] where a device or the mapping engine refuses.
pub fn overtaken(platform: &Platform, cast: &Cast, seed: u64, runs: u64) -> Result<Overtaken, ScenarioError> {
    let (sender, bell) = (cast.drive.clone(), cast.gpus[1].clone());
    let mut answer = Overtaken { sender, bell, advice: Publish::nothing(), runs, without: 0, seed: None, with: 0 };
    for seed in (0..runs).map(|run| seed.wrapping_add(run)) {
        let (advice, came_late) = race(platform, cast, seed, false)?;
        answer.advice = advice;
        if came_late {
            answer.without += 1;
            answer.seed = answer.seed.or(Some(seed));
        }
        answer.with += u64::from(race(platform, cast, seed, true)?.1);
    }
    Ok(answer)
}

/// One run: the advice, and whether the payload was not there when the doorbell was heard.
fn race(platform: &Platform, cast: &Cast, seed: u64, heeded: bool) -> Result<(Publish, bool), ScenarioError> {
    let stage = Stage::new(platform, seed, |builder| builder.device(&cast.drive, Box::new(DmaEngine::new())))?;
    let (peers, owners, far) = (stage.peers(), &stage.owners, &cast.gpus[1]);
    let (near_seat, far_seat) = (stage.seat(&cast.drive)?, stage.seat(far)?);
    let (near_desk, far_desk) = (near_seat.context(owners, &peers)?, far_seat.context(owners, &peers)?);
    let queue = stage.ram(&far_desk, CHANNEL_MEMORY)?;
    let mut gpu = stage.gpu(&far_seat, 0, &queue, None)?;

    // RAM that the engine writes and the GPU reads.
    let (source, payload) = (stage.ram(&near_desk, PAYLOAD)?, stage.ram(&near_desk, PAYLOAD)?);
    let range = payload.buffer.range();
    let chunk = Chunk::new(Owner::Ram, Bytes::new(range.start().as_u64()), range.len(), MemAttrs::empty());
    let seen = far_desk.map_one(chunk.ok_or_else(|| not_there("memory"))?, Prot::Read)?;
    let page = (gpu.doorbell(), DOORBELL_PAGE);
    let bell = stage.bar(&near_desk, (far, REGISTERS_BAR), page, Prot::Write)?;
    let advice = payload.mapping.publish(&bell, Sender::device());
    let data = noise(PAYLOAD, seed);
    source.put(&data)?;

    let copy = Operation::Copy { from: Place::Bus(first(&seen)), to: Place::Vram(Bytes::ZERO), len: PAYLOAD };
    let waits = gpu.prepare(copy, gpu::Options::default())?;
    let options = dma::Options { read_back: heeded && advice.contains(Step::FlushByRead), ..Default::default() };
    let engine = dma::Driver::new(&near_seat).with(options);
    let value = Operand::Word(gpu.tail() as u32);
    engine.copy_then_ring(source.at(), payload.at(), PAYLOAD, first(&bell), value)?;
    gpu.wait(waits)?;
    stage.settle()?;

    let (vram, _) = stage.bar_at(far, stage.vram(far)?)?;
    let mut copied = vec![0; data.len()];
    stage.machine().cpu().load(vram.start(), &mut copied);
    Ok((advice, copied != data))
}
