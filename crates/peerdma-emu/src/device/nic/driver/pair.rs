//! A queue pair as its driver has it: rings in memory, doorbells, completions.

use super::super::command::{NO_VECTOR, number};
use super::super::work::{PairNumber, Source, Status, WorkRequest, encode_receive};
use super::super::{doorbell, register};
use super::{Domain, Driver, Error};
use crate::device::channel::{COMMAND, COMPLETION, Command, Completion, failure, until};
use crate::device::driver::{Mmio, Shared};
use crate::wire::Failure;
use peerdma::addr::Bytes;
use std::collections::VecDeque;

/// What a queue pair is made with.
#[derive(Clone, Debug)]
pub struct Queues {
    /// Memory for its rings, [`bytes`](Self::bytes) of it, at a multiple of 64.
    pub memory: Shared,
    /// Sends that can be posted, as a power of two, 0 to 11.
    pub sends_log2: u8,
    /// Receives that can be posted, as a power of two, 0 to 11.
    pub receives_log2: u8,
    /// The interrupt of each completion; none to look at the memory alone.
    pub vector: Option<u16>,
}

impl Queues {
    /// Sixteen sends and sixteen receives, without interrupt.
    pub fn new(memory: Shared) -> Self {
        Self { memory, sends_log2: 4, receives_log2: 4, vector: None }
    }

    /// Bytes of memory for rings of these sizes.
    pub const fn bytes(sends_log2: u8, receives_log2: u8) -> Bytes {
        let (sends, receives) = (Self::most(sends_log2), Self::most(receives_log2));
        let completions = Self::completions_log2(sends, receives);
        Bytes::new((COMMAND << sends) + (COMMAND << receives) + (COMPLETION << completions))
    }

    const fn most(log2: u8) -> u8 {
        if log2 < 11 { log2 } else { 11 }
    }

    /// As many completions as there can be: none is ever lost for want of room.
    const fn completions_log2(sends_log2: u8, receives_log2: u8) -> u8 {
        1 + if sends_log2 > receives_log2 { sends_log2 } else { receives_log2 }
    }
}

/// What became of something that was posted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Completed {
    /// Its poster's number.
    pub id: u64,
    /// What became of it.
    pub status: Status,
    /// Whether it was a receive.
    pub receive: bool,
    /// How many bytes were sent or came.
    pub len: Bytes,
    /// What came with it.
    pub immediate: Option<u32>,
    /// The failure of the adapter's request, where that was the reason.
    pub failure: Option<Failure>,
}

/// One of a queue pair's rings.
#[derive(Debug)]
struct Ring {
    at: Bytes,
    slots: u32,
    /// Entries posted, or consumed, so far.
    posted: u64,
}

impl Ring {
    /// Where the next entry is.
    fn next(&self, entry: u64) -> Bytes {
        Bytes::new(self.at.as_u64() + entry * (self.posted & (u64::from(self.slots) - 1)))
    }
}

/// A queue pair.
pub struct QueuePair<'m> {
    mmio: &'m dyn Mmio,
    number: PairNumber,
    rings: Shared,
    sends: Ring,
    receives: Ring,
    completions: Ring,
    /// Sends that have not completed, with whether they complete silently.
    sending: VecDeque<(u64, bool)>,
    receiving: u32,
}

impl<'m> Driver<'m> {
    /// Makes a queue pair, which is to be connected next.
    ///
    /// # Errors
    /// [`Error::Memory`] where the rings do not fit; [`Refused::Exhausted`](super::Refused::Exhausted) where there are too many.
    pub fn create_pair(&self, domain: Domain, queues: Queues) -> Result<QueuePair<'m>, Error> {
        let Queues { memory, sends_log2, receives_log2, vector } = queues;
        let rings = memory.slice(Bytes::ZERO, Queues::bytes(sends_log2, receives_log2))?;
        let (sends_log2, receives_log2) = (sends_log2.min(11), receives_log2.min(11));
        let completions_log2 = Queues::completions_log2(sends_log2, receives_log2);
        let receives = Bytes::new(COMMAND << sends_log2);
        let completions = Bytes::new(receives.as_u64() + (COMMAND << receives_log2));
        // Completions of an earlier life of the memory would pass for ours.
        rings.write(completions, &vec![0; (COMPLETION << completions_log2) as usize])?;
        let logs = u64::from(sends_log2) | u64::from(receives_log2) << 8 | u64::from(completions_log2) << 16;
        let first = u64::from(domain.0) | vector.map_or(NO_VECTOR, u64::from) << 32;
        let address = |at| rings.device_at(at).as_u64();
        let arguments = [first, address(Bytes::ZERO), address(receives), address(completions), logs];
        let number = PairNumber::new(self.command(number::CREATE_PAIR, &arguments)? as u32);
        let sends = Ring { at: Bytes::ZERO, slots: 1 << sends_log2, posted: 0 };
        let receives = Ring { at: receives, slots: 1 << receives_log2, posted: 0 };
        let completions = Ring { at: completions, slots: 1 << completions_log2, posted: 0 };
        let mmio = self.mmio;
        Ok(QueuePair { mmio, number, rings, sends, receives, completions, sending: VecDeque::new(), receiving: 0 })
    }
}

impl QueuePair<'_> {
    /// Its number, for the other side.
    pub fn number(&self) -> PairNumber {
        self.number
    }

    /// Where its doorbell for sends is in BAR0.
    pub fn doorbell(&self) -> Bytes {
        doorbell(self.number)
    }

    /// What to write there, as 4 bytes, for all sends posted so far.
    pub fn tail(&self) -> u64 {
        self.sends.posted & u64::from(u32::MAX)
    }

    /// Posts a send.
    ///
    /// # Errors
    /// [`Error::Full`].
    pub fn post(&mut self, work: &WorkRequest) -> Result<(), Error> {
        self.prepare(work)?;
        self.mmio.store(0, self.doorbell(), self.tail(), 4);
        Ok(())
    }

    /// Posts a send for somebody else to ring for it: whoever writes [`tail`](Self::tail) to
    /// [`doorbell`](Self::doorbell).
    ///
    /// # Errors
    /// [`Error::Full`].
    pub fn prepare(&mut self, work: &WorkRequest) -> Result<(), Error> {
        if self.sending.len() >= self.sends.slots as usize {
            return Err(Error::Full { slots: self.sends.slots });
        }
        self.put(work.encode(), self.sends.next(COMMAND))?;
        self.sends.posted += 1;
        self.sending.push_back((work.id, work.quiet));
        Ok(())
    }

    /// Posts a receive.
    ///
    /// # Errors
    /// [`Error::Full`].
    pub fn post_receive(&mut self, id: u64, into: Source) -> Result<(), Error> {
        if self.receiving >= self.receives.slots {
            return Err(Error::Full { slots: self.receives.slots });
        }
        self.put(encode_receive(id, into), self.receives.next(COMMAND))?;
        self.receives.posted += 1;
        self.receiving += 1;
        let bell = Bytes::new(self.doorbell().as_u64() + register::RECEIVES);
        self.mmio.store(0, bell, self.receives.posted & u64::from(u32::MAX), 4);
        Ok(())
    }

    fn put(&self, slot: Command, at: Bytes) -> Result<(), Error> {
        Ok(self.rings.write(at, &slot.0)?)
    }

    /// The next completion, if there is one.
    pub fn poll(&mut self) -> Option<Completed> {
        let mut slot = [0; COMPLETION as usize];
        self.rings.read(self.completions.next(COMPLETION), &mut slot).ok()?;
        let Completion { value, tag, status, detail } = Completion::decode(slot, self.completions.posted + 1)?;
        self.completions.posted += 1;
        let bell = Bytes::new(self.doorbell().as_u64() + register::CONSUMED);
        self.mmio.store(0, bell, self.completions.posted & u64::from(u32::MAX), 4);
        let (side, status) = (status >> 16, Status::of(status as u16));
        if side == 0 {
            // Sends complete in order, so that those before it that are silent are done.
            while self.sending.front().is_some_and(|(id, quiet)| *quiet && *id != tag) {
                self.sending.pop_front();
            }
            self.sending.pop_front();
        } else {
            self.receiving = self.receiving.saturating_sub(1);
        }
        Some(Completed {
            id: tag,
            status,
            receive: side != 0,
            len: Bytes::new(value),
            immediate: (side == 2).then_some(detail),
            failure: if status == Status::Success { None } else { failure(detail) },
        })
    }

    /// Waits for the next completion.
    ///
    /// # Errors
    /// [`Error::Stalled`] where none comes although nothing moves any more.
    pub fn wait(&mut self) -> Result<Completed, Error> {
        let mmio = self.mmio;
        until(mmio, || self.poll()).ok_or(Error::Stalled)
    }

    /// Waits for the next completion, and meanwhile has `serve` do what it may depend on: serving page
    /// faults here or on the other side. It says whether there was anything to do.
    ///
    /// # Errors
    /// [`Error::Stalled`] where none comes although nothing moves any more; what `serve` fails with.
    pub fn wait_beside(&mut self, mut serve: impl FnMut() -> Result<bool, Error>) -> Result<Completed, Error> {
        loop {
            let moves = self.mmio.pause();
            // In this order: what waits for a page has asked for it before nothing moves.
            let served = serve()?;
            match self.poll() {
                Some(completed) => return Ok(completed),
                None if moves || served => {}
                None => return Err(Error::Stalled),
            }
        }
    }
}
