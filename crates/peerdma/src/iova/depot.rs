//! Who holds the allocator that several queues share.

use super::Allocator;
use core::cell::RefCell;

/// A shared [`Allocator`], used by one at a time.
pub trait Depot {
    /// Runs `f` on the allocator, alone.
    fn with<T>(&self, f: impl FnOnce(&mut Allocator) -> T) -> T;
}

/// One thread, several queues.
///
/// # Panics
/// If the allocator is borrowed while an arena turns to it, a bug of the caller.
impl Depot for RefCell<Allocator> {
    fn with<T>(&self, f: impl FnOnce(&mut Allocator) -> T) -> T {
        f(&mut self.borrow_mut())
    }
}

#[cfg(feature = "std")]
mod locked {
    extern crate std;

    use super::{Allocator, Depot};
    use std::sync::{Mutex, PoisonError};

    /// Several threads.
    ///
    /// A thread that panicked with the lock held was not inside the allocator unless that has a
    /// bug of its own, so a poisoned lock is taken all the same.
    impl Depot for Mutex<Allocator> {
        fn with<T>(&self, f: impl FnOnce(&mut Allocator) -> T) -> T {
            f(&mut self.lock().unwrap_or_else(PoisonError::into_inner))
        }
    }
}
