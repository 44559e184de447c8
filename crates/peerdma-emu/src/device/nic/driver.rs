//! The CPU's side of an adapter.

use super::command::{NO_VECTOR, Refused, number};
use super::region::{Key, Rights};
use super::work::{PairNumber, Source, Status, WorkRequest, encode_receive};
use super::{doorbell, register};
use crate::device::channel::{COMMAND, COMPLETION, Command, Completion, failure, until};
use crate::device::driver::{Mmio, Shared};
use crate::memory::Outside;
use crate::wire::Failure;
use peerdma::addr::{Bytes, Granule};
use peerdma::dma::consumer::rdma::{Region, RegionAddr};
use peerdma::dma::{DeviceAddress, Span};
use std::collections::VecDeque;

/// Why the adapter did not do what it was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It refused a command.
    #[error("{0}")]
    Refused(Refused),
    /// It does not answer, although nothing in the machine moves any more.
    #[error("the adapter does not answer, and nothing moves any more")]
    Stalled,
    /// Memory that it was to use is too small.
    #[error("memory for the adapter is too small: {0}")]
    Memory(#[from] Outside),
    /// As much is posted as there are slots; wait for a completion.
    #[error("all {slots} slots are in use")]
    Full {
        /// How many there are.
        slots: u32,
    },
}

/// A protection domain of an adapter.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Domain(u32);

/// An adapter.
pub struct Driver<'m> {
    mmio: &'m dyn Mmio,
    lists: Shared,
}

impl<'m> Driver<'m> {
    /// Takes an adapter over. `lists` is memory in which it is shown lists of pages, 8 bytes a page.
    pub fn new(mmio: &'m dyn Mmio, lists: Shared) -> Self {
        Self { mmio, lists }
    }

    /// The adapter's port in its network.
    pub fn port(&self) -> u16 {
        (self.mmio.load(0, register::CAPABILITY, 8) >> 32) as u16
    }

    fn command(&self, number: u64, arguments: &[u64]) -> Result<u64, Error> {
        for (at, argument) in (register::ARGUMENTS..).step_by(8).zip(arguments) {
            self.mmio.store(0, Bytes::new(at), *argument, 8);
        }
        let status = || self.mmio.load(0, register::STATUS, 8);
        let sequence = (status() >> 32).wrapping_add(1) & 0xffff_ffff;
        self.mmio.store(0, register::COMMAND, number | sequence << 32, 8);
        let done = until(self.mmio, || Some(status()).filter(|status| status >> 32 == sequence));
        match Refused::of(done.ok_or(Error::Stalled)? as u32) {
            None => Ok(self.mmio.load(0, register::RESULT, 8)),
            Some(refused) => Err(Error::Refused(refused)),
        }
    }

    /// Makes a protection domain.
    ///
    /// # Errors
    /// [`Error::Refused`] or [`Error::Stalled`], as of every command.
    pub fn allocate_domain(&self) -> Result<Domain, Error> {
        Ok(Domain(self.command(number::ALLOCATE_DOMAIN, &[])? as u32))
    }

    /// Gives a protection domain back.
    ///
    /// # Errors
    /// [`Refused::Busy`] while regions or queue pairs are in it.
    pub fn free_domain(&self, domain: Domain) -> Result<(), Error> {
        self.command(number::FREE_DOMAIN, &[u64::from(domain.0)]).map(drop)
    }

    /// Registers a region that was mapped for the adapter.
    ///
    /// # Errors
    /// As [`register_pages`](Self::register_pages).
    pub fn register<I: Iterator<Item = Span> + Clone>(
        &self,
        domain: Domain,
        rights: Rights,
        region: &Region<I>,
    ) -> Result<Key, Error> {
        self.register_pages(domain, rights, (region.base(), region.len()), region.page(), region.pages())
    }

    /// Registers a region of a base and a length, with the first address of each of its pages.
    ///
    /// # Errors
    /// [`Error::Memory`] where the list of pages is too long for the memory for lists;
    /// [`Refused::Invalid`] where base and length ask for more or fewer pages;
    /// [`Refused::Request`] where the adapter cannot read the list.
    pub fn register_pages(
        &self,
        domain: Domain,
        rights: Rights,
        (base, len): (RegionAddr, Bytes),
        page: Granule,
        pages: impl Iterator<Item = DeviceAddress>,
    ) -> Result<Key, Error> {
        let mut count = 0_u64;
        for address in pages {
            self.lists.write(Bytes::new(8 * count), &address.as_u64().to_le_bytes())?;
            count += 1;
        }
        let log2 = u64::from(page.bytes().as_u64().trailing_zeros());
        let first = u64::from(domain.0) | u64::from(rights.bits()) << 32;
        let arguments = [first, base.as_u64(), len.as_u64(), log2, self.lists.device().as_u64(), count];
        Ok(Key::new(self.command(number::REGISTER, &arguments)? as u32))
    }

    /// Removes a region. Work that still uses it fails.
    ///
    /// # Errors
    /// [`Refused::Invalid`] where the key names none.
    pub fn deregister(&self, key: Key) -> Result<(), Error> {
        self.command(number::DEREGISTER, &[u64::from(key.as_u32())]).map(drop)
    }

    /// Makes a queue pair, which is to be connected next.
    ///
    /// # Errors
    /// [`Error::Memory`] where the rings do not fit; [`Refused::Exhausted`] where there are too many.
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

    /// Connects a queue pair to one of another adapter, which has to be connected to it as well.
    ///
    /// # Errors
    /// [`Refused::Busy`] where it was connected before.
    pub fn connect(&self, pair: &QueuePair<'_>, port: u16, to: PairNumber) -> Result<(), Error> {
        let arguments = [u64::from(pair.number.as_u32()), u64::from(port), u64::from(to.as_u32())];
        self.command(number::CONNECT, &arguments).map(drop)
    }

    /// Ends a queue pair. What is posted to it never completes.
    ///
    /// # Errors
    /// As of every command.
    pub fn destroy_pair(&self, pair: QueuePair<'_>) -> Result<(), Error> {
        self.command(number::DESTROY_PAIR, &[u64::from(pair.number.as_u32())]).map(drop)
    }

    /// Whether a queue pair is in error.
    ///
    /// # Errors
    /// As of every command.
    pub fn is_in_error(&self, pair: &QueuePair<'_>) -> Result<bool, Error> {
        Ok(self.command(number::QUERY_PAIR, &[u64::from(pair.number.as_u32())])? == 2)
    }
}

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
}
