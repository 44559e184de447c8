//! The lock of a buffer's reservation, and several of them at once.

use super::timeline::Signal;
use crate::sync::Lock;
use crate::sync::blocking::{Mutex, MutexGuard};
use alloc::sync::Weak;
use alloc::vec::Vec;
use core::fmt;
use core::ops::{Deref, DerefMut};
use thiserror::Error;

/// A buffer's lock: its reservation, and whatever changes only with it.
///
/// Nobody takes one while holding another. Who needs several takes them by [`lock_all`]: two importers
/// that took the same two one after the other would wait for each other for good.
///
/// ```
/// use peerdma::buffer::fence::{Reservation, ReservationLock};
///
/// let buffer = ReservationLock::new(Reservation::new());
/// buffer.lock().reserve(1)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Default)]
pub struct ReservationLock<T> {
    value: Mutex<T>,
    /// Who found it taken and does not wait for it.
    turned_away: TurnedAway,
}

type TurnedAway = Lock<Option<Weak<dyn Signal>>>;

impl<T> ReservationLock<T> {
    /// Puts a value behind a lock of its own.
    pub fn new(value: T) -> Self {
        Self { value: Mutex::new(value), turned_away: Lock::new(None) }
    }

    /// Takes the lock; blocks while another thread has it.
    pub fn lock(&self) -> Held<'_, T> {
        self.held(self.value.lock())
    }

    /// Takes the lock if no thread has it, or has `signal` told by whoever gives it up; never blocks.
    ///
    /// One signal at a time, which is not kept alive: the buffer's own.
    pub(in crate::buffer) fn try_lock_or_tell(&self, signal: &Weak<dyn Signal>) -> Option<Held<'_, T>> {
        if let Some(guard) = self.value.try_lock() {
            return Some(self.held(guard));
        }
        self.turned_away.with(|turned_away| *turned_away = Some(signal.clone()));
        // Whoever had it may have looked for signals just before. Who has it now has yet to look.
        self.value.try_lock().map(|guard| self.held(guard))
    }

    const fn held<'lock>(&'lock self, guard: MutexGuard<'lock, T>) -> Held<'lock, T> {
        Held { guard, _gives_up: GivesUp(&self.turned_away) }
    }
}

impl<T> fmt::Debug for ReservationLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReservationLock")
    }
}

/// Proof that a buffer's lock is held, and the way to what it guards.
#[must_use = "the lock is given up when this is dropped"]
pub struct Held<'lock, T> {
    // Fields are dropped in this order.
    guard: MutexGuard<'lock, T>,
    _gives_up: GivesUp<'lock>,
}

/// Tells who was turned away, once the lock is free.
struct GivesUp<'lock>(&'lock TurnedAway);

impl Drop for GivesUp<'_> {
    fn drop(&mut self) {
        if let Some(signal) = self.0.with(Option::take).and_then(|signal| signal.upgrade()) {
            signal.settled();
        }
    }
}

impl<T> Deref for Held<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for Held<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

impl<T: fmt::Debug> fmt::Debug for Held<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Held").field(&**self).finish()
    }
}

/// Takes the locks of several buffers, which nobody can do the other way round meanwhile.
///
/// Blocks. They are taken in the order of their addresses, which is the same for all who ask, and answered in the
/// caller's order. Rejected: tickets by which the younger of two gives up what it holds and
/// begins again (wait/wound, as Linux 7.2 `ww_mutex`). That is for those who find out one by one which buffers they need; here
/// all are known beforehand, and nobody has to begin again.
///
/// # Errors
/// [`LockedTwice`] if one buffer is among them twice; none is locked.
///
/// ```
/// use peerdma::buffer::fence::{ReservationLock, lock_all};
///
/// let (source, target) = (ReservationLock::new("source"), ReservationLock::new("target"));
/// let held = lock_all(&[&target, &source])?;
/// assert_eq!((*held[0], *held[1]), ("target", "source"));
/// assert!(lock_all(&[&source, &source]).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn lock_all<'lock, T>(locks: &[&'lock ReservationLock<T>]) -> Result<Vec<Held<'lock, T>>, LockedTwice> {
    let mut order: Vec<usize> = (0..locks.len()).collect();
    // Stable: the first mention comes before the second.
    order.sort_by_key(|&nth| core::ptr::from_ref(locks[nth]));
    if let Some(pair) = order.windows(2).find(|pair| core::ptr::eq(locks[pair[0]], locks[pair[1]])) {
        return Err(LockedTwice { first: pair[0], second: pair[1] });
    }
    let mut held: Vec<(usize, Held<'lock, T>)> = order.into_iter().map(|nth| (nth, locks[nth].lock())).collect();
    held.sort_by_key(|(nth, _)| *nth);
    Ok(held.into_iter().map(|(_, held)| held).collect())
}

/// A buffer was named twice among those to be locked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("entries {first} and {second} of those to be locked are the same buffer; name each once")]
pub struct LockedTwice {
    /// Its first place in the list, counted from 0.
    pub first: usize,
    /// Its second.
    pub second: usize,
}
