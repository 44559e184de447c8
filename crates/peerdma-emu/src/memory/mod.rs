//! Memory of a machine: RAM, device memory, media, and page tables that devices may overwrite.
//!
//! Everything that a request can end in as bytes is a [`Memory`]. Accesses of devices are
//! single-copy atomic per aligned 8 bytes and no more.
//!
//! - [`Striped`]: the ordinary kind, in stripes of 64 KiB each behind a lock of its own,
//!   which take memory when they are first written.
//! - [`copy`]: from one memory to another without a buffer between, where both are striped; beside it
//!   [`fill`], [`visit`] for readers that want no copy, and [`difference`].
//! - [`Mirror`]: an aperture whose writes stay in a private copy (NVIDIA/nccl#2335).
//! - [`LentRam`]: RAM whose frames stand for pages of processes outside of the machine ([`ProcessMemory`]).
//! - [`Frames`]: page tables as bytes, so that a stray write damages them as it would.
//!
//! # Lock order
//! The frames of a [`LentRam`] and the switch of a [`Mirror`] come first, then what lies behind it. Stripes come last, at most two at
//! a time, by the number of their memory and then by their place in it. Under the lock of a stripe
//! nothing is called but the reader that was handed to [`visit`].

mod copy;
mod frames;
mod lent;
mod mirror;
mod outside;
mod process;
mod radix;
mod striped;

pub use copy::{copy, difference, fill, visit};
pub use frames::Frames;
pub use lent::LentRam;
pub use mirror::Mirror;
pub use outside::Outside;
pub use process::{Gone, ProcessMemory, ProcessRange};
pub use striped::Striped;

use crate::wire::Atomic;
use peerdma::addr::Bytes;
use std::fmt;

/// Bytes that requests end in.
///
/// # Concurrency
/// Any number of threads; each call returns without waiting for more than other calls. An aligned
/// access of 8 bytes or less is single-copy atomic, a longer one is not.
pub trait Memory: Send + Sync + fmt::Debug {
    /// How many bytes there are; does not change.
    fn len(&self) -> Bytes;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == Bytes::ZERO
    }

    /// Reads bytes from `at` on; those never written are zeros.
    ///
    /// # Errors
    /// [`Outside`], and nothing was read, where not all of them are there.
    fn read(&self, at: Bytes, into: &mut [u8]) -> Result<(), Outside>;

    /// Writes bytes from `at` on.
    ///
    /// # Errors
    /// [`Outside`], and nothing was written, where not all of them are there.
    fn write(&self, at: Bytes, from: &[u8]) -> Result<(), Outside>;

    /// Reads, changes and writes an operand in one; the value that stood there before.
    ///
    /// # Errors
    /// [`Outside`] where the operand is not there as a whole, or `at` is not a multiple of its length.
    fn atomic(&self, at: Bytes, atomic: Atomic) -> Result<u64, Outside>;

    /// The stripes that these very bytes lie in at these very offsets, for transfers without a
    /// buffer; `None` of every other kind of memory.
    fn as_striped(&self) -> Option<&Striped> {
        None
    }
}
