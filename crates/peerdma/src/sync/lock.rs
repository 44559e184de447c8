//! A lock for what is changed as a whole, and rarely.
//!
//! With the feature `std` it is a mutex. Without, there are no threads that this crate could
//! wait for, and whatever holds a lock does not leave its thread.

#[cfg(all(feature = "std", not(any(peerdma_shuttle, peerdma_loom))))]
extern crate std as hosted;

#[cfg(all(feature = "std", not(any(peerdma_shuttle, peerdma_loom))))]
use hosted::sync::Mutex as Inner;
#[cfg(peerdma_loom)]
use loom::sync::Mutex as Inner;
#[cfg(peerdma_shuttle)]
use shuttle::sync::Mutex as Inner;

#[cfg(not(any(feature = "std", peerdma_shuttle, peerdma_loom)))]
use core::cell::RefCell as Inner;

/// One value, changed by one at a time.
///
/// # Panics
/// Without the feature `std`, if it is taken while it is held.
#[derive(Debug, Default)]
pub(crate) struct Lock<T>(Inner<T>);

impl<T> Lock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Inner::new(value))
    }

    /// Runs `f` on the value, alone.
    #[cfg(any(feature = "std", peerdma_shuttle, peerdma_loom))]
    #[inline]
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        // Whoever panicked with the lock held has said so; the value is as it was left.
        f(&mut self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    /// Runs `f` on the value, alone.
    #[cfg(not(any(feature = "std", peerdma_shuttle, peerdma_loom)))]
    #[inline]
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        f(&mut self.0.borrow_mut())
    }
}
