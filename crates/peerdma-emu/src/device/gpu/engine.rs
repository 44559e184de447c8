//! The device: channels, and a copy engine that serves them in turn.

use super::command::{Operation, Options, Place, Status, decode};
use super::residency::{PIECE, Residency, Whereabouts};
use super::transfer::{STEP, Stop, Transfer};
use super::{REGISTERS_BAR, VRAM_BAR};
use crate::device::bus::{Bus, How};
use crate::device::channel::{Channels, Completion, Event, failure_code};
use crate::device::{Device, Layout, Progress};
use crate::memory::{Memory, Outside};
use peerdma::addr::Bytes;
use std::sync::Arc;

/// A command that is being done.
#[derive(Clone, Copy, Debug)]
struct Work {
    operation: Operation,
    options: Options,
    tag: u64,
    /// Bytes moved, or looks taken, so far.
    done: u64,
}

/// What a piece of work came to.
enum Outcome {
    /// There is more to do; so much of it is done.
    More(u64),
    /// Done, with this result.
    Done(u64),
}

/// A GPU.
#[derive(Debug)]
pub struct Gpu {
    vram: Arc<dyn Memory>,
    shown: Arc<dyn Memory>,
    /// The BAR that shows it.
    vram_bar: u8,
    residency: Arc<Residency>,
    channels: Channels,
    work: Vec<Option<Work>>,
    /// The channel that is served next.
    turn: usize,
}

impl Gpu {
    /// A GPU with this memory and so many channels, 1 to [`MOST_CHANNELS`](crate::device::channel::MOST_CHANNELS).
    pub fn new(vram: Arc<dyn Memory>, channels: u16) -> Self {
        let channels = Channels::new(channels);
        let work = vec![None; usize::from(channels.count())];
        let residency = Arc::new(Residency::new(vram.len()));
        Self { shown: vram.clone(), vram_bar: VRAM_BAR, vram, residency, channels, work, turn: 0 }
    }

    /// The same, but with something else behind the BAR than the engine works with.
    #[must_use]
    pub fn showing(self, aperture: Arc<dyn Memory>) -> Self {
        Self { shown: aperture, ..self }
    }

    /// The same, with its memory behind another BAR than [`VRAM_BAR`]; not that of the registers.
    #[must_use]
    pub fn at_bar(self, bar: u8) -> Self {
        Self { vram_bar: bar, ..self }
    }

    /// Where the pieces of its memory are, for as long as anybody asks.
    pub fn residency(&self) -> Arc<Residency> {
        self.residency.clone()
    }

    /// Refuses a place in VRAM that is not there or that has moved away.
    fn check(&self, place: Place, len: u64) -> Result<(), Stop> {
        let Place::Vram(at) = place else { return Ok(()) };
        Outside::check(at, usize::try_from(len).unwrap_or(usize::MAX), self.vram.len())?;
        if self.residency.is_here(at, Bytes::new(len)) { Ok(()) } else { Err(Status::Moved.into()) }
    }

    /// Refuses whole pieces that are not, or that are not in VRAM at all.
    fn check_pieces(&self, at: Bytes, len: Bytes) -> Result<(), Stop> {
        Outside::check(at, usize::try_from(len.as_u64()).unwrap_or(usize::MAX), self.vram.len())?;
        let whole = |number: Bytes| number.as_u64().is_multiple_of(PIECE.as_u64());
        if whole(at) && whole(len) { Ok(()) } else { Err(Status::Invalid.into()) }
    }

    /// Does a piece of a channel's work.
    fn advance(&self, bus: &mut dyn Bus, channel: u16, work: &Work) -> Result<Outcome, Stop> {
        let mut how: How = self.channels.how(channel);
        how.pasid = work.options.pasid.or(how.pasid);
        how.attributes.relaxed = work.options.relaxed;
        let vram = self.vram.as_ref();
        let mut transfer = Transfer { bus, vram, how, translate: work.options.translate };
        let done = work.done;
        let more = |len: Bytes, moved: u64| match done.saturating_add(moved) {
            all if all >= len.as_u64() => Outcome::Done(len.as_u64()),
            all => Outcome::More(all),
        };
        // What is left of a length, as much as one step moves.
        let left = |len: Bytes| len.as_u64().saturating_sub(done).min(STEP);
        Ok(match work.operation {
            Operation::Copy { from, to, len } => {
                self.check(from, len.as_u64())?;
                self.check(to, len.as_u64())?;
                let moved = match left(len) {
                    0 => 0,
                    left => transfer.copy(from.plus(done), to.plus(done), left)?,
                };
                more(len, moved)
            }
            Operation::Fill { to, len, pattern } => {
                self.check(to, len.as_u64())?;
                let moved = match left(len) {
                    0 => 0,
                    left => transfer.fill(to.plus(done), left, done, pattern)?,
                };
                more(len, moved)
            }
            Operation::Release { to, value, wide, read_back } => {
                let len = Bytes::new(if wide { 8 } else { 4 });
                self.check(to, len.as_u64())?;
                if let Some(at) = read_back.filter(|_| done == 0) {
                    transfer.number(Place::Bus(at))?;
                }
                let bytes = value.to_le_bytes();
                let moved = transfer.write(to.plus(done), &bytes[done.min(7) as usize..len.as_u64() as usize])?;
                more(len, moved)
            }
            Operation::Acquire { at, value, looks } => {
                self.check(at, 8)?;
                match transfer.number(at)? {
                    found if found >= value => Outcome::Done(found),
                    _ if done.saturating_add(1) >= looks => return Err(Status::NotSeen.into()),
                    _ => Outcome::More(done + 1),
                }
            }
            Operation::Add { to, value } => Outcome::Done(transfer.add(to, value)?),
            Operation::Evict { from, to, len } => {
                self.check_pieces(from, len)?;
                let from = Place::Vram(from).plus(done);
                let left = left(len).min(PIECE.as_u64() - done % PIECE.as_u64());
                self.check(from, left)?;
                let moved = if left == 0 { 0 } else { transfer.copy(from, Place::Bus(to).plus(done), left)? };
                if let (Place::Vram(at), Place::Bus(to)) = (from, Place::Bus(to).plus(done))
                    && left != 0
                    && moved == PIECE.as_u64() - done % PIECE.as_u64()
                {
                    // The piece may have gone in parts, where a translation ended inside it.
                    let back = done % PIECE.as_u64();
                    let start = Bytes::new(at.as_u64() - back);
                    self.residency.set(start, Some(peerdma::addr::BusAddr::new(to.as_u64().wrapping_sub(back))));
                }
                more(len, moved)
            }
            Operation::Restore { to, len } => {
                self.check_pieces(to, len)?;
                let Place::Vram(at) = Place::Vram(to).plus(done) else { return Err(Status::Invalid.into()) };
                let left = left(len).min(PIECE.as_u64() - done % PIECE.as_u64());
                if left == 0 {
                    return Ok(more(len, 0));
                }
                let Whereabouts::Moved(from) = self.residency.at(at) else { return Err(Status::Moved.into()) };
                let moved = transfer.copy(Place::Bus(from), Place::Vram(at), left)?;
                if done.wrapping_add(moved).is_multiple_of(PIECE.as_u64()) {
                    self.residency.set(at, None);
                }
                more(len, moved)
            }
        })
    }

    /// Serves a channel; whether there was anything to do.
    fn serve(&mut self, bus: &mut dyn Bus, channel: u16) -> bool {
        let index = usize::from(channel);
        if self.work[index].is_none() {
            let Some(command) = self.channels.fetch(bus, channel) else { return false };
            let tag = command.double::<8>();
            match decode(&command) {
                Some((operation, options)) => self.work[index] = Some(Work { operation, options, tag, done: 0 }),
                None => {
                    let status = Status::Invalid.code();
                    self.channels.complete(bus, channel, Completion { tag, status, ..Completion::default() });
                    return true;
                }
            }
        }
        let Some(work) = self.work[index] else { return false };
        let (value, status, detail) = match self.advance(bus, channel, &work) {
            Ok(Outcome::More(done)) => {
                self.work[index] = Some(Work { done, ..work });
                return true;
            }
            Ok(Outcome::Done(value)) => (value, 0, 0),
            Err(stop) => (work.done, stop.status.code(), failure_code(stop.failure)),
        };
        self.work[index] = None;
        self.channels.complete(bus, channel, Completion { value, tag: work.tag, status, detail });
        true
    }
}

impl Device for Gpu {
    fn layout(&self) -> Layout {
        Layout::new().registers(REGISTERS_BAR, Bytes::ZERO, self.channels.registers()).memory(
            self.vram_bar,
            Bytes::ZERO,
            self.shown.clone(),
        )
    }

    fn step(&mut self, bus: &mut dyn Bus) -> Progress {
        let mut heard = false;
        // One register after another; somebody who writes all the time gets no more than this.
        for _ in 0..64 {
            match self.channels.hear(bus) {
                Some(Event::Renewed(channel)) => self.work[usize::from(channel)] = None,
                Some(Event::Other) => {}
                None => break,
            }
            heard = true;
        }
        let count = self.work.len();
        for _ in 0..count {
            let channel = self.turn;
            self.turn = (self.turn + 1) % count;
            if self.serve(bus, channel as u16) {
                return Progress::Working;
            }
        }
        if heard { Progress::Working } else { Progress::Idle }
    }

    fn reset(&mut self) {
        self.channels.reset();
        self.work.fill(None);
        self.residency.clear();
        self.turn = 0;
    }
}
