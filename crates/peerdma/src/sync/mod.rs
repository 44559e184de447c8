//! Atomics and locks, in one place, so that a model checker can stand in for them.

#[cfg(any(feature = "std", peerdma_shuttle, peerdma_loom))]
#[allow(dead_code, reason = "not every build waits in every way")]
pub(crate) mod blocking;
mod every;
mod lock;

pub(crate) use every::for_every;
pub(crate) use lock::Lock;

#[cfg(not(any(peerdma_shuttle, peerdma_loom)))]
pub use core::sync::atomic;
#[cfg(peerdma_loom)]
pub use loom::sync::atomic;
#[cfg(peerdma_shuttle)]
pub use shuttle::sync::atomic;
