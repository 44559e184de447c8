//! What threads wait with: the standard library's, or the model checker's.
//!
//! A thread that panicked with a lock held has said so, and what it guarded is as it was left;
//! so a poisoned lock is taken all the same.

#[cfg(not(peerdma_shuttle))]
extern crate std as hosted;

use core::time::Duration;
#[cfg(not(peerdma_shuttle))]
use hosted::sync as from;
#[cfg(peerdma_shuttle)]
use shuttle::sync as from;

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
