//! Guards of accesses in flight: memory is not taken away under whoever uses it.
//!
//! A [`Gate`] stands in front of a buffer, or of a group. Whoever maps asks it for the generation
//! that is open ([`Opening`]); each thread that uses the mapping has a [`Slot`] there, and goes in for
//! each access: one store to its own slot, one load of the gate's word. Whoever takes the memory away
//! ends the generation ([`Gate::close`]), waits until nobody is inside ([`Closing`], [`Drained`]), does what
//! it has to do, and may open the next one. A mapping of an earlier generation never gets in again.
//!
//! ```text
//! user       slot := generation   light    word == generation? in : out       slot := 0
//! revoker    word := closed       heavy    every slot == generation? wait      memory is free
//! ```
//!
//! The store must not be overtaken by the load, on either side. [`HeavyFence`] is that barrier: [`Portable`]
//! pays on both sides, `peerdma_linux::membarrier` lets the revoker pay for all. Rejected: a
//! reader-writer lock, a count of users or an `Arc` for each access, all of which write to a line that
//! all threads share; and epochs, which make the revoker wait for users of other buffers.
//!
//! Not here: what a *device* does with memory after the thread that told it has left, see
//! [`fence`](super::fence). And time, except in what blocks.

mod barrier;
mod closing;
mod gate;
mod slot;
#[cfg(test)]
mod tests;
#[cfg(any(feature = "std", peerdma_shuttle, peerdma_loom))]
mod wait;

pub use barrier::{BarrierRefused, HeavyFence, Portable};
pub use closing::{AlreadyOpened, Closing, Drained, Outstanding};
pub use gate::{Closed, Gate, GateState, Generation, Opening};
pub use slot::{Guard, OtherGate, Slot, SlotId};
#[cfg(any(feature = "std", peerdma_shuttle, peerdma_loom))]
pub use wait::StillInside;
