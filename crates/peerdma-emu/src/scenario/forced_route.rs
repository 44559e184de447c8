//! A route that was refused and is taken nevertheless.
//!
//! Linux forwards requests between root ports only where it knows the host bridge to do so. On the
//! machine of this story it does not, and rightly: the root complex answers reads of a peer with all
//! ones and drops writes (reported of client processors in intel/compute-runtime#935). The drive is
//! to write VRAM onto its medium.

use super::error::ScenarioError;
use super::stage::{DRIVE_MEMORY, Stage, noise, not_there};
use crate::device::gpu::VRAM_BAR;
use crate::device::nvme::{BlockSize, Form, Media};
use crate::memory::{Memory, Striped};
use crate::platform::Platform;
use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::{AddrRange, BusAddr, Bytes, Iova};
use peerdma::dma::engine::MapRangesError;
use peerdma::dma::{IoSpace, Source};
use std::sync::Arc;

/// The machine: a drive and a GPU on root ports of their own.
const MACHINE: &str = include_str!("all-ones.toml");
/// Its functions.
const DRIVE: &str = "nvme0";
const GPU: &str = "gpu0";
/// How much is moved.
const LEN: Bytes = Bytes::new(0x1_0000);

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ForcedRoute {
    /// Who reads.
    pub initiator: String,
    /// Whose VRAM.
    pub target: String,
    /// Why the mapping engine gives no address; `None` if it gave one.
    pub refused: Option<MapRangesError>,
    /// What became of it by force, where that was asked for.
    pub forced: Option<Forced>,
}

/// What a transfer over a refused route came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Forced {
    /// The IOVA that was mapped to the BAR without asking.
    pub number: BusAddr,
    /// How many bytes were moved.
    pub len: Bytes,
    /// Whether the drive reported success.
    pub reported_done: bool,
    /// Bytes on the medium that are as in VRAM.
    pub right: u64,
    /// Bytes on the medium that are `0xff`.
    pub ones: u64,
}

impl ForcedRoute {
    /// The platform that the story plays on.
    ///
    /// # Errors
    /// None that a test of this crate would not have found.
    pub fn platform() -> Result<Platform, ScenarioError> {
        Ok(Platform::parse(MACHINE, "<all-ones>")?)
    }
}

/// Asks the engine for the way, and with `forced` takes it by a mapping made by hand.
///
/// # Errors
/// [`ScenarioError`] where a device refuses.
pub fn forced_route(seed: u64, forced: bool) -> Result<ForcedRoute, ScenarioError> {
    let platform = ForcedRoute::platform()?;
    let media = Arc::new(Striped::new(LEN));
    let in_drive = Media::new(media.clone(), BlockSize::Long);
    let stage = Stage::new(&platform, seed, |builder| builder.media(DRIVE, in_drive))?;
    let peers = stage.peers();
    let seat = stage.seat(DRIVE)?;
    let desk = seat.context(&stage.owners, &peers)?;
    let refused = match stage.bar(&desk, (GPU, VRAM_BAR), (Bytes::ZERO, LEN), Prot::Read) {
        Ok(_) => None,
        Err(ScenarioError::Map(error)) => Some(*error),
        Err(other) => return Err(other),
    };
    let mut answer = ForcedRoute { initiator: DRIVE.into(), target: GPU.into(), refused, forced: None };
    if !forced {
        return Ok(answer);
    }

    let data = noise(LEN, seed);
    let (bar, _) = stage.bar_at(GPU, VRAM_BAR)?;
    stage.machine().cpu().store(bar.start(), &data);
    stage.settle()?;
    // Where an IOVA allocator puts nothing: the BAR's own number, as an identity mapping would.
    let number = BusAddr::new(bar.start().as_u64());
    let range = AddrRange::new(number, LEN).ok_or_else(|| not_there("an IOVA"))?;
    let iova = AddrRange::new(Iova::new(number.as_u64()), LEN).ok_or_else(|| not_there("an IOVA"))?;
    seat.handle().map(iova, &Source::Physical(bar.start()), Prot::ReadWrite, MemAttrs::MMIO)?;
    let memory = stage.ram(&desk, DRIVE_MEMORY)?;
    let (mut drive, queue) = stage.drive(&seat, &memory)?;
    let reported_done = drive.write(queue, 0, &[range], Form::Prps).is_ok();
    let mut found = vec![0; data.len()];
    media.read(Bytes::ZERO, &mut found)?;
    let right = found.iter().zip(&data).filter(|(found, meant)| found == meant).count() as u64;
    let ones = found.iter().filter(|byte| **byte == 0xff).count() as u64;
    answer.forced = Some(Forced { number, len: LEN, reported_done, right, ones });
    Ok(answer)
}
