//! The two halves of one barrier: cheap where accesses begin, dear where memory is taken away.

use crate::sync::atomic::{Ordering, fence};
use thiserror::Error;

/// Orders a store before a later load, on two sides that need not pay alike.
///
/// A user of memory stores "I am inside" and then loads "is it closed?"; a revoker stores "closed" and
/// then loads "is anybody inside?". A processor lets a load overtake an earlier store to another place,
/// so that without a barrier on both sides each may miss the other's store. Uses are frequent and
/// revocations rare, so the revoker's side may make up for what the user's leaves out.
///
/// # What an implementation promises
/// Of a thread that stores, calls [`light`](Self::light) and loads, and one that stores, calls
/// [`heavy`](Self::heavy) with success and loads what the other stored: at least one of the two
/// loads sees the other's store. Without that promise a [`Gate`](super::Gate) says that nobody is inside
/// while somebody is.
pub trait HeavyFence {
    /// The half of whoever uses memory, at every use.
    fn light(&self);

    /// The half of whoever takes memory away.
    ///
    /// # Errors
    /// If whoever carries it out refuses. Then nothing is known of the users' stores, and
    /// [`Closing`](super::Closing) takes all slots for occupied until it succeeds.
    fn heavy(&self) -> Result<(), BarrierRefused>;
}

/// The barrier of the language's memory model on both sides: dear for users, and it works everywhere.
///
/// ```
/// use peerdma::buffer::guard::{HeavyFence, Portable};
///
/// assert!(Portable.heavy().is_ok());
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Portable;

impl HeavyFence for Portable {
    #[inline]
    fn light(&self) {
        fence(Ordering::SeqCst);
    }

    #[inline]
    fn heavy(&self) -> Result<(), BarrierRefused> {
        fence(Ordering::SeqCst);
        Ok(())
    }
}

/// Nothing is known of who is inside, because the barrier was not carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("the barrier on all threads was refused (error number {code}), so nobody can be said to be outside; try again")]
pub struct BarrierRefused {
    /// What the operating system answered.
    pub code: i32,
}
