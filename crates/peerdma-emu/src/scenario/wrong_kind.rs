//! An address of the wrong kind, under an IOMMU that translates.
//!
//! A number says nothing of its kind. A BAR's bus address that goes up to the root complex is looked
//! up in the initiator's page tables like any other number; an IOVA that lies in a window of a switch on
//! the way never gets that far. Devices report success in every case, since writes are posted.
//!
//! The mapping engine gives each range the kind that its route needs, and keeps IOVAs out of the
//! windows of host bridges. What it prevents is shown by numbers that did not come from it.

use super::cast::Cast;
use super::error::ScenarioError;
use super::stage::{CHANNEL_MEMORY, DRIVE_MEMORY, Stage, address, bytes_of, first, noise, not_there};
use crate::device::gpu::Place;
use crate::device::nvme::{BlockSize, Form, Media};
use crate::host::Seat;
use crate::memory::{Memory, Striped};
use crate::platform::Platform;
use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::{AddrRange, BusAddr, Bytes, Iova, PhysAddr};
use peerdma::dma::{DeviceAddress, IoSpace, Source};
use std::sync::Arc;

/// What the engine gave, and what other numbers came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WrongKind {
    /// Who writes.
    pub initiator: String,
    /// Into whose VRAM.
    pub target: String,
    /// The address that the mapping engine gave.
    pub given: DeviceAddress,
    /// Whether the bytes arrived at it.
    pub arrived: bool,
    /// What other numbers did, where that was asked for.
    pub mistakes: Vec<Mistake>,
}

/// Where bytes of a mistake came to lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Landed {
    /// Nowhere; so many faults were recorded.
    Nowhere {
        /// Records of the IOMMU.
        faults: u64,
    },
    /// In memory that belongs to somebody else.
    Elsewhere,
    /// Where they were meant to.
    Right,
}

/// A write to a number that the engine did not give.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mistake {
    /// Who wrote.
    pub initiator: String,
    /// What the number was.
    pub what: &'static str,
    /// The number.
    pub number: BusAddr,
    /// Whose memory the bytes were meant for.
    pub meant: String,
    /// Whose memory was overwritten, if any was.
    pub overwritten: Option<String>,
    /// Whether the device reported success.
    pub reported_done: bool,
    /// Where the bytes are.
    pub landed: Landed,
}

/// How much is written: a page of the tables after another.
const LEN: Bytes = Bytes::new(0x1_0000);

/// Writes to a peer by the address that the engine gives, and with `happening` by others.
///
/// # Errors
/// [`ScenarioError`] where a device or the mapping engine refuses.
pub fn wrong_kind(platform: &Platform, cast: &Cast, seed: u64, happening: bool) -> Result<WrongKind, ScenarioError> {
    let (given, arrived) = as_given(platform, cast, seed)?;
    let mistakes = match happening {
        true => vec![
            raw_bus_address(platform, cast, seed, false)?,
            raw_bus_address(platform, cast, seed, true)?,
            iova_in_a_window(platform, cast, seed)?,
        ],
        false => Vec::new(),
    };
    let [initiator, target] = cast.gpus.clone();
    Ok(WrongKind { initiator, target, given, arrived, mistakes })
}

/// What the CPU sees in a GPU's VRAM from its start on.
fn vram(stage: &Stage, gpu: &str) -> Result<Vec<u8>, ScenarioError> {
    stage.settle()?;
    let mut bytes = vec![0; LEN.as_u64() as usize];
    stage.machine().cpu().load(stage.bar_at(gpu, stage.vram(gpu)?)?.0.start(), &mut bytes);
    Ok(bytes)
}

/// The pattern that is written.
fn pattern(seed: u64) -> (u64, Vec<u8>) {
    let word = u64::from_le_bytes(noise(Bytes::new(8), seed).try_into().unwrap_or([0x5a; 8]));
    (word, word.to_le_bytes().into_iter().cycle().take(LEN.as_u64() as usize).collect())
}

fn as_given(platform: &Platform, cast: &Cast, seed: u64) -> Result<(DeviceAddress, bool), ScenarioError> {
    let stage = Stage::new(platform, seed, |builder| builder)?;
    let (peers, [initiator, target]) = (stage.peers(), &cast.gpus);
    let seat = stage.seat(initiator)?;
    let desk = seat.context(&stage.owners, &peers)?;
    let queue = stage.ram(&desk, CHANNEL_MEMORY)?;
    let mapping = stage.bar(&desk, (target, stage.vram(target)?), (Bytes::ZERO, LEN), Prot::Write)?;
    let (word, bytes) = pattern(seed);
    stage.gpu(&seat, 0, &queue, None)?.fill(Place::Bus(first(&mapping)), LEN, word)?;
    Ok((address(&mapping)?, vram(&stage, target)? == bytes))
}

/// Maps memory at an IOVA that no allocator chose.
fn map_by_hand(seat: &Seat<'_>, at: BusAddr, to: PhysAddr) -> Result<(), ScenarioError> {
    let iova = AddrRange::new(Iova::new(at.as_u64()), LEN).ok_or_else(|| not_there("an IOVA"))?;
    Ok(seat.handle().map(iova, &Source::Physical(to), Prot::ReadWrite, MemAttrs::empty())?)
}

/// The BAR's own bus address, though the way leads through the IOMMU; with `mapped`, while a buffer of
/// somebody else has that number.
fn raw_bus_address(platform: &Platform, cast: &Cast, seed: u64, mapped: bool) -> Result<Mistake, ScenarioError> {
    let stage = Stage::new(platform, seed, |builder| builder)?;
    let (peers, [initiator, target]) = (stage.peers(), &cast.gpus);
    let seat = stage.seat(initiator)?;
    let desk = seat.context(&stage.owners, &peers)?;
    let queue = stage.ram(&desk, CHANNEL_MEMORY)?;
    let mut gpu = stage.gpu(&seat, 0, &queue, None)?;
    let (_, number) = stage.bar_at(target, stage.vram(target)?)?;
    let victim = stage.kernel.allocate(LEN)?;
    if mapped {
        map_by_hand(&seat, number, victim.range().start())?;
    }
    let (word, bytes) = pattern(seed);
    let reported_done = gpu.fill(Place::Bus(number), LEN, word).is_ok();
    let arrived = vram(&stage, target)? == bytes;
    let overwritten = bytes_of(&victim)? == bytes;
    let faults = stage.machine().fabric().root().iommu().map_or(0, |iommu| {
        let faults = iommu.faults();
        faults.records.len() as u64 + faults.lost
    });
    Ok(Mistake {
        initiator: initiator.clone(),
        what: match mapped {
            false => "a BAR's bus address, where an IOVA is needed",
            true => "the same, while somebody's buffer has that number as its IOVA",
        },
        number,
        meant: target.clone(),
        overwritten: overwritten.then(|| "a buffer in RAM".to_string()),
        reported_done,
        landed: landed(arrived, overwritten, faults),
    })
}

fn landed(arrived: bool, overwritten: bool, faults: u64) -> Landed {
    match (arrived, overwritten) {
        (true, _) => Landed::Right,
        (false, true) => Landed::Elsewhere,
        (false, false) => Landed::Nowhere { faults },
    }
}

/// An IOVA for RAM that lies where a switch finds a peer's BAR.
fn iova_in_a_window(platform: &Platform, cast: &Cast, seed: u64) -> Result<Mistake, ScenarioError> {
    let (_, bytes) = pattern(seed);
    let media = Arc::new(Striped::new(LEN));
    media.write(Bytes::ZERO, &bytes)?;
    let media = Media::new(media, BlockSize::Long);
    let stage = Stage::new(platform, seed, |builder| builder.media(&cast.drive, media))?;
    let (peers, [peer, _]) = (stage.peers(), &cast.gpus);
    let seat = stage.seat(&cast.drive)?;
    let desk = seat.context(&stage.owners, &peers)?;
    let memory = stage.ram(&desk, DRIVE_MEMORY)?;
    let (mut drive, queue) = stage.drive(&seat, &memory)?;
    let (_, number) = stage.bar_at(peer, stage.vram(peer)?)?;
    let meant = stage.kernel.allocate(LEN)?;
    map_by_hand(&seat, number, meant.range().start())?;
    let into = AddrRange::new(number, LEN).ok_or_else(|| not_there("an IOVA"))?;
    let reported_done = drive.read(queue, 0, &[into], Form::Prps).is_ok();
    let overwritten = vram(&stage, peer)? == bytes;
    let arrived = bytes_of(&meant)? == bytes;
    Ok(Mistake {
        initiator: cast.drive.clone(),
        what: "an IOVA for RAM, in a window of the switch above",
        number,
        meant: "a buffer in RAM".to_string(),
        overwritten: overwritten.then(|| format!("VRAM of {peer}")),
        reported_done,
        landed: landed(arrived, overwritten, 0),
    })
}
