//! What moves bytes: the engine of one device, driven by its own driver.

use super::nic::Loop;
use super::session::{RamRange, Session};
use crate::exit::Failure;
use peerdma::addr::{AddrRange, BusAddr, Bytes};
use peerdma::dma::{Prot, Span};
use peerdma_emu::device::channel::Queue;
use peerdma_emu::device::nvme::{Form, QueueMemory};
use peerdma_emu::device::{accel, dma, gpu, nvme};
use peerdma_emu::platform::Model;
use std::error::Error;

/// Which way bytes go, as the device sees it that moves them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// From itself to others: it writes.
    Push,
    /// From others to itself: it reads.
    Pull,
}

impl Way {
    /// What the engine has to be allowed at the other's memory.
    pub(crate) const fn prot(self) -> Prot {
        match self {
            Self::Push => Prot::Write,
            Self::Pull => Prot::Read,
        }
    }

    /// The same as a word.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Push => "write",
            Self::Pull => "read",
        }
    }
}

/// What an engine's driver says went wrong.
pub(crate) type EngineError = Box<dyn Error + Send + Sync>;

/// Memory for the queues of one engine.
const QUEUES: Bytes = Bytes::new(0x2_0000);
/// A block of the media that the commands put into drives.
const BLOCK: u64 = 512;

/// The engine of one device.
pub(super) enum Engine<'c> {
    Gpu(gpu::Driver<'c>),
    Nvme(nvme::Driver<'c>, u16),
    Dma(dma::Driver<'c>),
    Accel(accel::Driver<'c>),
    Nic(Box<Loop<'c>>),
}

/// What an engine is called.
pub(crate) const fn word(model: Model) -> &'static str {
    match model {
        Model::Gpu => "gpu copy engine",
        Model::Nvme => "nvme command",
        Model::Dma => "dma engine",
        Model::Accel => "accelerator",
        Model::Nic => "rdma write, looped back",
        Model::Plain => "none",
    }
}

impl<'c> Engine<'c> {
    /// Starts the engine of a device.
    pub(super) fn open(model: Model, session: &mut Session<'c>) -> Result<Option<Self>, Failure> {
        let seat = session.seat();
        let failed = |error: EngineError| Failure::Device {
            what: format!("cannot start {}", session_name(seat)),
            source: Some(error),
        };
        let shared = match model {
            Model::Plain => return Ok(None),
            Model::Dma => return Ok(Some(Self::Dma(dma::Driver::new(seat)))),
            Model::Gpu | Model::Nvme | Model::Accel | Model::Nic => session.ram(QUEUES)?,
        };
        let part =
            |at: u64, len: u64| shared.slice(Bytes::new(at), Bytes::new(len)).map_err(|error| failed(error.into()));
        Ok(Some(match model {
            Model::Gpu => Self::Gpu(
                gpu::Driver::open(seat, 0, Queue::new(part(0, 0x1_0000)?)).map_err(|error| failed(error.into()))?,
            ),
            Model::Accel => {
                let driver = accel::Driver::open(seat, 0, Queue::new(part(0, 0x1_0000)?));
                Self::Accel(driver.map_err(|error| failed(error.into()))?)
            }
            Model::Nvme => {
                let queue = |at: u64| -> Result<QueueMemory, Failure> {
                    Ok(QueueMemory { submission: part(at, 0x1000)?, completion: part(at + 0x1000, 0x1000)? })
                };
                let driver = nvme::Driver::bring_up(seat, queue(0)?, part(0x4000, 0x1_0000)?);
                let mut driver = driver.map_err(|error| failed(error.into()))?;
                let number = driver.create_io_queue(queue(0x2000)?, None).map_err(|error| failed(error.into()))?;
                Self::Nvme(driver, number)
            }
            Model::Nic => Self::Nic(Box::new(Loop::open(session, &part(0, 0x1_0000)?).map_err(failed)?)),
            Model::Dma | Model::Plain => return Ok(None),
        }))
    }

    /// Moves `len` bytes between `own`, counted in the device's own bytes, and `at`, counted in the spans.
    ///
    /// `stage` is the RAM that an engine without memory of its own takes for its own.
    pub(super) fn carry(
        &mut self,
        way: Way,
        own: Bytes,
        stage: Option<&RamRange>,
        peer: &[Span],
        at: Bytes,
        len: Bytes,
    ) -> Result<(), EngineError> {
        let ranges = part(peer, at, len);
        match self {
            Self::Nvme(driver, queue) => {
                let whole = |range: &AddrRange<BusAddr>| range.start().as_u64().is_multiple_of(4096);
                let form = if ranges.iter().all(whole) { Form::Prps } else { Form::Sgl };
                let first = own.as_u64() / BLOCK;
                match way {
                    // The drive writes memory when blocks are read.
                    Way::Push => driver.read(*queue, first, &ranges, form)?,
                    Way::Pull => driver.write(*queue, first, &ranges, form)?,
                }
            }
            Self::Gpu(driver) => each(own, &ranges, |own, range| {
                let (own, other) = (gpu::Place::Vram(own), gpu::Place::Bus(range.start()));
                let (from, to) = if way == Way::Push { (own, other) } else { (other, own) };
                Ok(driver.copy(from, to, range.len())?)
            })?,
            Self::Dma(driver) => each(staged(stage, own), &ranges, |own, range| {
                let (from, to) = ends(way, own, range);
                Ok(driver.copy(from, to, range.len())?)
            })?,
            Self::Accel(driver) => each(staged(stage, own), &ranges, |own, range| {
                let (from, to) = ends(way, own, range);
                driver.run(accel::Operation::Copy { from, to, len: range.len() })?;
                Ok(())
            })?,
            Self::Nic(nic) => nic.carry(way, stage.ok_or("no memory to work on")?, own, peer, at, len)?,
        }
        Ok(())
    }
}

fn session_name(seat: &peerdma_emu::host::Seat<'_>) -> String {
    let machine = seat.machine();
    machine.name(seat.node()).map_or_else(|| "the engine".to_string(), str::to_string)
}

/// Where the engine finds a byte of the RAM that it works on, as a count that others go on from.
fn staged(stage: Option<&RamRange>, own: Bytes) -> Bytes {
    Bytes::new(stage.map_or(0, |stage| stage.device().as_u64()) + own.as_u64())
}

/// Source and destination of bytes in RAM that the engine works on and of a range of another's.
fn ends(way: Way, own: Bytes, range: &AddrRange<BusAddr>) -> (BusAddr, BusAddr) {
    let own = BusAddr::new(own.as_u64());
    if way == Way::Push { (own, range.start()) } else { (range.start(), own) }
}

/// Range by range, with where its bytes are among the device's own.
fn each(
    own: Bytes,
    ranges: &[AddrRange<BusAddr>],
    mut does: impl FnMut(Bytes, &AddrRange<BusAddr>) -> Result<(), EngineError>,
) -> Result<(), EngineError> {
    let mut at = own.as_u64();
    for range in ranges {
        does(Bytes::new(at), range)?;
        at += range.len().as_u64();
    }
    Ok(())
}

/// The ranges of a part of what spans cover.
fn part(spans: &[Span], at: Bytes, len: Bytes) -> Vec<AddrRange<BusAddr>> {
    let (first, end) = (at.as_u64(), at.as_u64() + len.as_u64());
    let overlap = |span: &Span| {
        let (start, stop) = (span.at.as_u64(), span.at.as_u64() + span.len.as_u64());
        let (from, to) = (first.max(start), end.min(stop));
        let len = to.checked_sub(from).filter(|len| *len > 0)?;
        AddrRange::new(BusAddr::new(span.address.as_u64() + (from - start)), Bytes::new(len))
    };
    spans.iter().filter_map(overlap).collect()
}
