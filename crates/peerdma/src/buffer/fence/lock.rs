//! The lock of a buffer's reservation, and several of them at once.

use crate::sync::blocking::{Mutex, MutexGuard};
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
pub struct ReservationLock<T>(Mutex<T>);

impl<T> ReservationLock<T> {
    /// Puts a value behind a lock of its own.
    pub fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    /// Takes the lock; blocks while another thread has it.
    pub fn lock(&self) -> Held<'_, T> {
        Held(self.0.lock())
    }
}

impl<T> fmt::Debug for ReservationLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReservationLock")
    }
}

/// Proof that a buffer's lock is held, and the way to what it guards.
#[must_use = "the lock is given up when this is dropped"]
pub struct Held<'lock, T>(MutexGuard<'lock, T>);

impl<T> Deref for Held<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Held<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
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
