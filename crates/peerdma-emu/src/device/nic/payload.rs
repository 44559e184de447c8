//! Data on its way: lent where it lies, or staged in a slot.
//!
//! An adapter that sends data to one in the same machine *lends* it: the message says where the bytes
//! lie, and the adapter that takes it relays them to their destination in one go, with the
//! lender's reads and writes of its own ([`Bus::relay`]). Any other gets a copy, which waits in a
//! slot of the sender's staging memory. Either way a message with data holds a slot, so that how much is
//! on its way is bounded; and a loan that has to end before somebody took it (its region
//! is taken away) is turned into a staged copy by its lender.
//!
//! Bytes may be read later than they were lent: nobody may reuse what is being sent before its work
//! request completes (`ibv_post_send(3)`), and that is after they were taken.
//!
//! # Concurrency
//! Each slot has a lock of its own, which is held while bytes are relayed out of it. Whoever takes
//! bytes takes no other lock of an adapter meanwhile. A lender never waits for it within a step: it looks
//! again at the next one. Only a reset waits, for one piece at most.

use super::network::ring;
use super::region::Key;
use super::window::Window;
use crate::device::bus::{Agent, Bus, How, RelayError};
use crate::device::registers::Registers;
use crate::memory::Memory;
use crate::wire::Failure;
use peerdma::addr::{BusAddr, Bytes};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

/// Bytes that lie where they were.
#[derive(Debug)]
pub(super) struct Loan {
    /// Who reads them.
    pub(super) lender: Agent,
    pub(super) key: Key,
    /// First and last address in the region.
    pub(super) range: (u64, u64),
    /// How often pages of the region had been taken away before.
    pub(super) taken: u64,
    /// Where they are, in order.
    pub(super) pieces: Vec<(BusAddr, u64)>,
}

/// What a slot stands for.
#[derive(Debug)]
enum Content {
    /// The bytes in it.
    Staged,
    /// Bytes elsewhere.
    Lent(Loan),
    /// Bytes that could not be read any more.
    Failed(Failure),
}

/// Staging memory of an adapter, in slots.
#[derive(Debug)]
pub(super) struct Pool {
    memory: Arc<dyn Memory>,
    slot: u64,
    free: Mutex<Vec<u64>>,
    contents: Box<[Mutex<Content>]>,
    bell: Arc<Registers>,
}

/// The largest slot.
const LARGEST_SLOT: u64 = 1 << 20;
/// Most slots.
const MOST_SLOTS: u64 = 64;

/// What became of looking for a loan that is to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ended {
    /// There is none any more.
    None,
    /// One did, or is being taken now; there may be more.
    One,
}

impl Pool {
    /// Memory in slots of a quarter of it, at most 1 MiB each; whoever waits for one is rung.
    pub(super) fn new(memory: Arc<dyn Memory>, bell: Arc<Registers>) -> Arc<Self> {
        let len = memory.len().as_u64();
        let slot = (len / 4).min(LARGEST_SLOT);
        let slots = len.checked_div(slot).unwrap_or(0).min(MOST_SLOTS);
        let contents = (0..slots).map(|_| Mutex::new(Content::Staged)).collect();
        Arc::new(Self { memory, slot, free: Mutex::new((0..slots).collect()), contents, bell })
    }

    /// The most bytes that one slot holds; zero if there are none.
    pub(super) fn slot(&self) -> u64 {
        self.slot
    }

    /// A slot for up to [`slot`](Self::slot) bytes, if one is free.
    pub(super) fn take(self: &Arc<Self>, len: u64) -> Option<Payload> {
        let index = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
        Some(Payload { pool: self.clone(), index, len })
    }

    /// Stages one of the loans that `concerns` picks.
    pub(super) fn end_one(&self, bus: &mut dyn Bus, concerns: impl Fn(&Loan) -> bool) -> Ended {
        for (index, content) in (0..).zip(&self.contents) {
            let mut content = match content.try_lock() {
                Ok(content) => content,
                Err(TryLockError::Poisoned(content)) => content.into_inner(),
                // Its bytes are being taken.
                Err(TryLockError::WouldBlock) => return Ended::One,
            };
            if let Content::Lent(loan) = &*content
                && concerns(loan)
            {
                let staged = self.stage(bus, index, loan);
                *content = staged.map_or_else(Content::Failed, |()| Content::Staged);
                return Ended::One;
            }
        }
        Ended::None
    }

    fn stage(&self, bus: &mut dyn Bus, index: u64, loan: &Loan) -> Result<(), Failure> {
        let mut to = index * self.slot;
        for &(from, len) in &loan.pieces {
            bus.fetch(How::default(), from, (self.memory.as_ref(), Bytes::new(to)), Bytes::new(len))?;
            to += len;
        }
        Ok(())
    }

    /// Ends all loans of an adapter that sends no more requests.
    pub(super) fn forsake(&self) {
        for content in &self.contents {
            let mut content = content.lock().unwrap_or_else(PoisonError::into_inner);
            if let Content::Lent(_) = &*content {
                *content = Content::Failed(Failure::NotSent);
            }
        }
    }
}

/// Bytes on their way, until dropped.
#[derive(Debug)]
pub(super) struct Payload {
    pool: Arc<Pool>,
    index: u64,
    len: u64,
}

impl Payload {
    fn content(&self) -> MutexGuard<'_, Content> {
        self.pool.contents[self.index as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Fills it with the bytes of a window: lends them where there is a lender, else copies them.
    ///
    /// # Errors
    /// Of a copy: the failure of a request.
    pub(super) fn fill(&self, bus: &mut dyn Bus, from: Window<'_>, lender: Option<Agent>) -> Result<(), Failure> {
        let loan = lender.and_then(|lender| from.lend(lender));
        match loan {
            Some(loan) => *self.content() = Content::Lent(loan),
            None => from.fetch(bus, (self.pool.memory.as_ref(), Bytes::new(self.index * self.pool.slot)))?,
        }
        Ok(())
    }

    /// Writes it to a window of as many bytes.
    ///
    /// # Errors
    /// [`RelayError::Read`] where the bytes could not be had, [`RelayError::Write`] for the writes.
    pub(super) fn deposit(&self, bus: &mut dyn Bus, into: Window<'_>) -> Result<(), RelayError> {
        // Held throughout: what is being taken does not end meanwhile.
        let content = self.content();
        match &*content {
            Content::Staged => {
                let start = self.index * self.pool.slot;
                into.each(|how, to, done, run| {
                    let from = (self.pool.memory.as_ref(), Bytes::new(start + done));
                    bus.send(how, from, to, Bytes::new(run)).map_err(RelayError::Write)
                })
            }
            Content::Lent(loan) => {
                let mut pieces = loan.pieces.iter().copied();
                let (mut from, mut left) = (BusAddr::new(0), 0);
                into.each(|how, to, _, run| {
                    let mut done = 0;
                    while done < run {
                        if left == 0 {
                            // A loan is as long as its payload, and so is the window.
                            let next = pieces.next().filter(|(_, len)| *len != 0);
                            (from, left) = next.ok_or(RelayError::Read(Failure::NotSent))?;
                        }
                        let len = left.min(run - done);
                        bus.relay(loan.lender, (How::default(), from), (how, plus(to, done)), Bytes::new(len))?;
                        (from, left, done) = (plus(from, len), left - len, done + len);
                    }
                    Ok(())
                })
            }
            Content::Failed(failure) => Err(RelayError::Read(*failure)),
        }
    }
}

fn plus(at: BusAddr, by: u64) -> BusAddr {
    BusAddr::new(at.as_u64().wrapping_add(by))
}

impl Drop for Payload {
    fn drop(&mut self) {
        *self.content() = Content::Staged;
        let mut free = self.pool.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.push(self.index);
        let waited = free.len() == 1;
        drop(free);
        if waited {
            ring(&self.pool.bell);
        }
    }
}
