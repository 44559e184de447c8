//! What threads wait with: the standard library's, or the model checker's.
//!
//! A thread that panicked with a lock held has said so, and what it guarded is as it was left;
//! so a poisoned lock is taken all the same.

extern crate std as hosted;

use alloc::boxed::Box;
use core::any::Any;
use core::time::Duration;
use hosted::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use hosted::sync::TryLockError;
#[cfg(not(any(peerdma_shuttle, peerdma_loom)))]
use hosted::{sync as from, thread, time::Instant};
#[cfg(peerdma_loom)]
use loom::{sync as from, thread};
#[cfg(peerdma_shuttle)]
use shuttle::{sync as from, thread};

/// Exclusive access to a [`Mutex`]'s value, for as long as this lives.
pub(crate) type MutexGuard<'a, T> = from::MutexGuard<'a, T>;

/// One value, changed by one thread at a time; others block.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(from::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(from::Mutex::new(value))
    }

    /// Takes the lock; blocks while another thread has it.
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Takes the lock if no thread has it; never blocks.
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// What foreign code panicked with while others were still to be called; the first of it goes on when they were.
///
/// Rejected: to forget it. Whoever was called has failed, and the thread that called it is the only one that can say so.
#[derive(Default)]
pub(crate) struct Panic(Option<Box<dyn Any + Send>>);

impl Panic {
    /// Runs foreign code, which may panic and thereby keeps nobody else from being called.
    ///
    /// What it leaves half done is its own: nothing of the caller's is lent to it.
    pub(crate) fn catch(&mut self, foreign: impl FnOnce()) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(foreign)) {
            self.0.get_or_insert(panic);
        }
    }

    /// Goes on with it, unless this thread has one under way already: a second would end the process.
    pub(crate) fn go_on(self) {
        if let Some(panic) = self.0.filter(|_| !hosted::thread::panicking()) {
            resume_unwind(panic);
        }
    }
}

/// Where threads wait for a [`Mutex`]'s value to change.
#[derive(Debug, Default)]
pub(crate) struct Condvar(from::Condvar);

impl Condvar {
    pub(crate) fn new() -> Self {
        Self(from::Condvar::new())
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }

    /// Gives the lock up, waits, and takes it again; may wake without a cause.
    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.0.wait(guard).unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The same for at most `longest`; whether that long has passed.
    pub(crate) fn wait_at_most<'a, T>(&self, guard: MutexGuard<'a, T>, longest: Duration) -> (MutexGuard<'a, T>, bool) {
        let (guard, late) = self.0.wait_timeout(guard, longest).unwrap_or_else(|poisoned| poisoned.into_inner());
        (guard, late.timed_out())
    }
}

/// When a wait is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    /// `None`: never. A model has no clock, and none of its waits is over before what it waits for.
    #[cfg(not(any(peerdma_shuttle, peerdma_loom)))]
    at: Option<Instant>,
}

impl Deadline {
    #[cfg(not(any(peerdma_shuttle, peerdma_loom)))]
    pub(crate) fn after(longest: Duration) -> Self {
        Self { at: Instant::now().checked_add(longest) }
    }

    #[cfg(any(peerdma_shuttle, peerdma_loom))]
    pub(crate) fn after(_longest: Duration) -> Self {
        Self {}
    }

    /// How long there is yet; `None` once it is over.
    pub(crate) fn left(&self) -> Option<Duration> {
        #[cfg(not(any(peerdma_shuttle, peerdma_loom)))]
        if let Some(at) = self.at {
            return at.checked_duration_since(Instant::now()).filter(|left| !left.is_zero());
        }
        Some(Duration::MAX)
    }
}

/// A wait for what nobody announces: looks, with pauses between that grow.
#[derive(Debug)]
pub(crate) struct Waiting {
    deadline: Deadline,
    pauses: u32,
}

impl Waiting {
    /// Looks that follow each other at once: what is waited for mostly takes less than a system call.
    const SPINS: u32 = 100;
    /// Looks after which the processor is offered to others.
    const YIELDS: u32 = Self::SPINS + 20;
    /// Sleeps double from a microsecond to this power of two, about a millisecond.
    const LONGEST_LOG2: u32 = 10;

    pub(crate) fn at_most(longest: Duration) -> Self {
        Self { deadline: Deadline::after(longest), pauses: 0 }
    }

    /// Pauses before the next look; false if there is no time left for one.
    pub(crate) fn pause(&mut self) -> bool {
        let pauses = self.pauses;
        self.pauses = pauses.saturating_add(1);
        if cfg!(not(any(peerdma_shuttle, peerdma_loom))) && pauses < Self::SPINS {
            core::hint::spin_loop();
            return true;
        }
        let Some(left) = self.deadline.left() else { return false };
        #[cfg(not(any(peerdma_shuttle, peerdma_loom)))]
        if pauses >= Self::YIELDS {
            let sleep = Duration::from_micros(1 << (pauses - Self::YIELDS).min(Self::LONGEST_LOG2));
            thread::sleep(sleep.min(left));
            return true;
        }
        let _ = left;
        thread::yield_now();
        true
    }
}
