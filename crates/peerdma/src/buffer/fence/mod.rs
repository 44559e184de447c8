//! Fences and the reservation: what devices may still be doing with a buffer.
//!
//! A [`Timeline`] is a queue that finishes in the order in which it begins; a [`Fence`] is one piece of work on it.
//! A buffer's [`Reservation`] says which fences stand for what [`Usage`], and so who waits for whom. Several
//! fences are waited for as a [`FenceSet`], and put in one order by a [`Chain`].
//!
//! A fence *retires* when the device is done with the memory. One that failed has retired too, and tells; one
//! whose timeline was dropped has not, and nobody will say that it has ([`FenceState::Abandoned`]).
//!
//! # The order of locks
//! 1. **Reservations** ([`ReservationLock`]): one, or several by [`lock_all`], never one after another.
//! 2. **The slot** of a second stage ([`SecondStage`]), one at a time.
//! 3. The sequence check of the fault is made with both held, and nothing else is.
//!    A buffer is mapped before the fault takes either, and a mapping is given back after both.
//! 4. A timeline's own lock, which is held for a moment and never around anything of a caller.
//!
//! [`SecondStage::fault`], [`Fault::serve`] and [`SecondStage::invalidate`] are the only ways to take 2.
//!
//! Not here: devices, interrupts and time. Whoever hears of completions calls [`Timeline::retire_to`].

#[cfg(any(feature = "std", peerdma_shuttle, peerdma_loom))]
mod fault;
#[cfg(any(feature = "std", peerdma_shuttle, peerdma_loom))]
mod lock;
mod reservation;
mod set;
mod state;
#[cfg(test)]
mod tests;
mod timeline;
mod usage;
#[cfg(any(feature = "std", peerdma_shuttle, peerdma_loom))]
mod wait;

#[cfg(any(feature = "std", peerdma_shuttle, peerdma_loom))]
pub use fault::{Fault, SecondStage, Served};
#[cfg(any(feature = "std", peerdma_shuttle, peerdma_loom))]
pub use lock::{Held, LockedTwice, ReservationLock, lock_all};
pub use reservation::{Added, Demotion, NoSlot, Reservation, ReserveError};
pub use set::{Chain, FenceSet};
pub use state::{FailedFence, Failure, FenceName, FenceState, Sequence};
pub use timeline::{Fence, NotIssued, Signal, Timeline};
pub use usage::Usage;
#[cfg(any(feature = "std", peerdma_shuttle, peerdma_loom))]
pub use wait::{NotRetired, Retired};
