//! Page requests of contexts in the same process, without a lock and without a system call.
//!
//! Each context has a seat, in which it asks for one page at a time and looks for the answer. Whoever serves looks at
//! one word for all seats. A server that has nothing to do may go to sleep: it says so, looks once more, and from then on
//! whoever asks is told to wake it ([`Ring`]).
//!
//! ```text
//! context   seat := asked     pending |= seat     asleep? then wake
//! server    asleep := true    pending? then stay awake, else sleep
//! ```
//!
//! Both orders are sequentially consistent, so that one of the two sees the other (`models/tests/mirror.rs`). What
//! waking is, is the caller's: an eventfd in `peerdma_linux::mirror`. Rejected: a ring of requests, which needs room for those
//! that come while it is full, and in which contexts write to one line.

use super::request::{Answer, Token, Wanted};
use crate::access::Access;
use crate::addr::ProcVa;
use crate::sync::atomic::{AtomicU64, Ordering};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use thiserror::Error;

/// Seats of a queue at most: one bit of a word each.
pub const MOST_SEATS: u32 = u64::BITS;

/// What a seat's word says, in its lowest bits; the rest counts requests, so that an answer to an earlier one is none.
mod word {
    pub(super) const IDLE: u64 = 0;
    pub(super) const ASKED: u64 = 1;
    pub(super) const TAKEN: u64 = 2;
    pub(super) const SUCCESS: u64 = 3;
    pub(super) const INVALID: u64 = 4;
    pub(super) const FAILURE: u64 = 5;
    pub(super) const STATE: u64 = 7;
    pub(super) const WRITES: u64 = 8;
    pub(super) const SHIFT: u32 = 8;
    /// Numbers of requests; a token holds one beside the seat's.
    pub(super) const NUMBERS: u64 = (1 << 50) - 1;
}

/// On cache lines of its own: the context spins on it.
#[derive(Debug)]
#[repr(align(128))]
struct Seat {
    word: AtomicU64,
    at: AtomicU64,
}

#[repr(align(128))]
struct Apart(AtomicU64);

struct Inner {
    seats: Vec<Seat>,
    /// Seats that asked since somebody looked.
    pending: Apart,
    /// 1 while the server sleeps or is about to.
    asleep: Apart,
    /// Seats that belong to a context.
    claimed: AtomicU64,
}

/// Where contexts ask, and whoever serves them looks; clones are handles of the same.
///
/// Any number of contexts, each in its own thread, and one server that sleeps; others may [`serve`](Queue::serve) beside it.
///
/// ```
/// use peerdma::access::Access;
/// use peerdma::addr::ProcVa;
/// use peerdma::mirror::{Answer, Queue, Wanted};
///
/// let queue = Queue::new(4);
/// let mut context = queue.seat().expect("four are free");
/// let wanted = Wanted { at: ProcVa::new(0x1000), access: Access::Read };
/// let _nobody_sleeps = context.ask(wanted)?;
/// assert_eq!(context.answer(), None);
/// queue.serve(|token, asked| {
///     assert_eq!(asked, wanted);
///     queue.respond(token, Answer::Success);
/// });
/// assert_eq!(context.answer(), Some(Answer::Success));
/// # Ok::<(), peerdma::mirror::AskError>(())
/// ```
#[derive(Clone)]
pub struct Queue {
    inner: Arc<Inner>,
}

/// Whether whoever serves has to be woken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "whoever serves may sleep"]
pub enum Ring {
    /// It looks by itself.
    Awake,
    /// It sleeps, or is about to, and this is the one caller who is told to wake it.
    Wake,
}

/// A request was not made, because the one before has no answer yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("this context has asked for a page and has no answer yet; look for that first")]
pub struct AskError;

impl Queue {
    /// A queue for so many contexts, 1 to [`MOST_SEATS`].
    pub fn new(seats: u32) -> Self {
        let seats = seats.clamp(1, MOST_SEATS);
        let seat = || Seat { word: AtomicU64::new(word::IDLE), at: AtomicU64::new(0) };
        let seats: Vec<Seat> = (0..seats).map(|_| seat()).collect();
        // Seats that are not there are taken.
        let claimed = AtomicU64::new(u64::MAX.checked_shl(seats.len() as u32).unwrap_or(0));
        let (pending, asleep) = (Apart(AtomicU64::new(0)), Apart(AtomicU64::new(0)));
        Self { inner: Arc::new(Inner { seats, pending, asleep, claimed }) }
    }

    /// A seat for one context; `None` while all are taken. It is free again when dropped.
    pub fn seat(&self) -> Option<Asking> {
        let mut claimed = self.inner.claimed.load(Ordering::Acquire);
        loop {
            let index = claimed.trailing_ones();
            if index == u64::BITS {
                return None;
            }
            let with = claimed | 1 << index;
            match self.inner.claimed.compare_exchange(claimed, with, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(Asking { inner: Arc::clone(&self.inner), index, asked: false }),
                Err(now) => claimed = now,
            }
        }
    }

    /// Hands every request that waits to `serve`, once; how many there were.
    ///
    /// The token is what to [`respond`](Self::respond) with, now or later.
    pub fn serve(&self, mut serve: impl FnMut(Token, Wanted)) -> usize {
        // Looked at before it is written to, so that polling keeps the line shared.
        if self.inner.pending.0.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        let mut pending = self.inner.pending.0.swap(0, Ordering::SeqCst);
        let mut served = 0;
        while pending != 0 {
            let index = pending.trailing_zeros();
            pending &= pending - 1;
            let Some(seat) = self.inner.seats.get(index as usize) else { continue };
            let asked = seat.word.load(Ordering::Acquire);
            let taken = asked & !word::STATE | word::TAKEN;
            // A seat that was given up, or taken by an earlier look.
            if asked & word::STATE != word::ASKED
                || seat.word.compare_exchange(asked, taken, Ordering::AcqRel, Ordering::Acquire).is_err()
            {
                continue;
            }
            let access = if asked & word::WRITES == 0 { Access::Read } else { Access::Write };
            let at = ProcVa::new(seat.at.load(Ordering::Relaxed));
            served += 1;
            let number = asked >> word::SHIFT & word::NUMBERS;
            serve(Token(number << 6 | u64::from(index)), Wanted { at, access });
        }
        served
    }

    /// Tells a context what its request came to; `false` if it does not wait for that any more.
    pub fn respond(&self, token: Token, answer: Answer) -> bool {
        let Some(seat) = self.inner.seats.get((token.0 & 63) as usize) else { return false };
        let taken = seat.word.load(Ordering::Acquire);
        if taken & word::STATE != word::TAKEN || taken >> word::SHIFT & word::NUMBERS != token.0 >> 6 {
            return false;
        }
        let state = match answer {
            Answer::Success => word::SUCCESS,
            Answer::Invalid => word::INVALID,
            Answer::Failure => word::FAILURE,
        };
        let answered = taken & !word::STATE | state;
        seat.word.compare_exchange(taken, answered, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Says that whoever serves is about to sleep; `false` if there is something to serve instead.
    ///
    /// After `true` somebody who asks is told to wake it. It calls [`awake`](Self::awake) when it looks again by itself.
    #[must_use = "a server that sleeps with requests waiting may sleep for good"]
    pub fn fall_asleep(&self) -> bool {
        self.inner.asleep.0.store(1, Ordering::SeqCst);
        if self.inner.pending.0.load(Ordering::SeqCst) == 0 {
            return true;
        }
        self.awake();
        false
    }

    /// Says that whoever serves looks by itself again.
    pub fn awake(&self) {
        self.inner.asleep.0.store(0, Ordering::SeqCst);
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pending = self.inner.pending.0.load(Ordering::Relaxed);
        f.debug_struct("Queue").field("seats", &self.inner.seats.len()).field("pending", &pending).finish()
    }
}

/// A context's seat.
pub struct Asking {
    inner: Arc<Inner>,
    index: u32,
    asked: bool,
}

impl Asking {
    fn seat(&self) -> Option<&Seat> {
        self.inner.seats.get(self.index as usize)
    }

    /// Asks for a page. Never blocks.
    ///
    /// # Errors
    /// [`AskError`] while the request before has no answer.
    pub fn ask(&mut self, wanted: Wanted) -> Result<Ring, AskError> {
        if self.asked {
            return Err(AskError);
        }
        let Some(seat) = self.seat() else { return Err(AskError) };
        let number = (seat.word.load(Ordering::Relaxed) >> word::SHIFT).wrapping_add(1) & word::NUMBERS;
        let writes = if wanted.access == Access::Write { word::WRITES } else { 0 };
        seat.at.store(wanted.at.as_u64(), Ordering::Relaxed);
        // Release: whoever sees that it asked sees for what.
        seat.word.store(number << word::SHIFT | writes | word::ASKED, Ordering::Release);
        self.asked = true;
        self.inner.pending.0.fetch_or(1 << self.index, Ordering::SeqCst);
        let asleep = self.inner.asleep.0.load(Ordering::SeqCst) == 1;
        // Of several who ask one is enough.
        let wake = asleep && self.inner.asleep.0.swap(0, Ordering::SeqCst) == 1;
        Ok(if wake { Ring::Wake } else { Ring::Awake })
    }

    /// What the request came to, once; `None` until there is an answer. Never blocks.
    pub fn answer(&mut self) -> Option<Answer> {
        let seat = self.seat().filter(|_| self.asked)?;
        // Acquire: what was brought is seen after the answer.
        let word = seat.word.load(Ordering::Acquire);
        let answer = match word & word::STATE {
            word::SUCCESS => Answer::Success,
            word::INVALID => Answer::Invalid,
            word::FAILURE => Answer::Failure,
            _ => return None,
        };
        seat.word.store(word & !word::STATE | word::IDLE, Ordering::Relaxed);
        self.asked = false;
        Some(answer)
    }

    /// Whether a request has no answer that was looked at.
    pub const fn is_waiting(&self) -> bool {
        self.asked
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if let Some(seat) = self.seat() {
            // The number stays, so that an answer under way is one to nobody.
            let number = seat.word.load(Ordering::Acquire) >> word::SHIFT;
            seat.word.store((number.wrapping_add(1) & word::NUMBERS) << word::SHIFT, Ordering::Release);
        }
        self.inner.claimed.fetch_and(!(1 << self.index), Ordering::AcqRel);
    }
}

impl fmt::Debug for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asking").field("seat", &self.index).field("waiting", &self.asked).finish()
    }
}
