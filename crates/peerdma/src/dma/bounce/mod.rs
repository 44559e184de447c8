//! Copies that stand in for memory a device cannot be given as it is.
//!
//! Memory above the device's mask, the rest of a granule that a device nobody trusts must
//! not see, everything in a confidential guest: there the device gets a [`Slot`] of a pool
//! that it reaches, and bytes are copied before and after it works. Device memory is never
//! copied so; what was mapped of it would not be what the device sees.
//!
//! - [`Memory`]: who copies. This crate dereferences no address, so whoever owns memory does.
//! - [`Bouncer`]: what the mapping engine asks of a pool.
//! - [`BouncePool`]: the pool, over an area that every initiator it serves reaches.
//! - [`ByteArrays`]: memory as arrays of bytes, for tests and for programs that hold theirs in them.
//!
//! ```
//! use peerdma::addr::{Bytes, Granule};
//! use peerdma::dma::bounce::{BouncePool, Bouncer, ByteArrays};
//! use peerdma::dma::Owner;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let memory = ByteArrays::new();
//! memory.add((Owner::Ram, Bytes::new(0x10_0000)), vec![0xff; 0x8000])?; // the pool's area
//! memory.add((Owner::Process, Bytes::new(0x7000_0000)), b"payload".to_vec())?;
//! let pool = BouncePool::new(memory, (Owner::Ram, Bytes::new(0x10_0000)), Bytes::new(0x8000), Granule::PAGE_4K)?;
//!
//! let original = (Owner::Process, Bytes::new(0x7000_0000));
//! let slot = pool.take_filled(original, Bytes::new(7), Bytes::new(0x200), Granule::PAGE_4K)?;
//! let mut granule = [0xff; 0x1000];
//! pool.memory().read((slot.owner(), Bytes::new(slot.offset().as_u64() - 0x200)), &mut granule)?;
//! assert_eq!(&granule[0x200..0x207], b"payload");
//! assert!(granule[..0x200].iter().chain(&granule[0x207..]).all(|byte| *byte == 0), "nothing else to be seen");
//! pool.give_back(slot);
//! # Ok(())
//! # }
//! ```
//!
//! Not here: whether something has to be copied (the mapping engine decides, from mask,
//! granule, trust and [`confidential`](super::confidential)).

mod arrays;
mod cells;
mod error;
mod pool;
mod slot;
#[cfg(test)]
mod tests;

pub use arrays::ByteArrays;
pub use error::{AreaError, MemoryError, PoolError};
pub use pool::BouncePool;
pub use slot::Slot;

use super::owner::Owner;
use crate::addr::{Bytes, Granule};
use core::fmt;

/// Where bytes are: an owner, and an offset that counts from its start.
pub type Place = (Owner, Bytes);

/// Bytes of owners, copied by whoever owns them.
///
/// # Errors
/// Each method gives [`MemoryError`] if it cannot do all of what it was asked; it may have done
/// part of it.
pub trait Memory {
    /// Copies `len` bytes from one place to another; the two do not overlap.
    ///
    /// # Errors
    /// As above.
    fn copy(&self, from: Place, to: Place, len: Bytes) -> Result<(), MemoryError>;

    /// Fills `len` bytes with zeros.
    ///
    /// # Errors
    /// As above.
    fn zero(&self, at: Place, len: Bytes) -> Result<(), MemoryError>;
}

impl<M: Memory + ?Sized> Memory for &M {
    #[inline]
    fn copy(&self, from: Place, to: Place, len: Bytes) -> Result<(), MemoryError> {
        (**self).copy(from, to, len)
    }

    #[inline]
    fn zero(&self, at: Place, len: Bytes) -> Result<(), MemoryError> {
        (**self).zero(at, len)
    }
}

/// Who is to see the bytes after a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Towards {
    /// From the original to the slot, before the device works on it.
    Device,
    /// From the slot to the original, after the device has worked on it.
    Cpu,
}

/// What the mapping engine asks of a pool.
///
/// The engine copies in before a slot becomes visible to the device, whatever the device is
/// to do with it: a device that only writes may leave bytes out, and they must keep their
/// values when the slot is copied back (Linux 7.2 `swiotlb_tbl_map_single` does the same).
/// Before a slot is given back the device must no longer reach it.
pub trait Bouncer: fmt::Debug {
    /// The longest slot that starts `head` bytes into a granule; none if there can be none.
    fn longest(&self, head: Bytes, granule: Granule) -> Bytes;

    /// A slot for `len` bytes that starts `head` bytes into a granule, all zero.
    ///
    /// Whole granules belong to the slot, and the bytes beside it are zero too.
    ///
    /// # Errors
    /// [`PoolError`]; nothing is taken then.
    fn take(&self, len: Bytes, head: Bytes, granule: Granule) -> Result<Slot, PoolError>;

    /// A slot as of [`take`](Self::take) with a copy of the `len` bytes at `original` in it.
    ///
    /// Writes every byte of the slot's granules once, so that it costs what copying costs.
    ///
    /// # Errors
    /// [`PoolError`]; nothing is taken then.
    fn take_filled(&self, original: Place, len: Bytes, head: Bytes, granule: Granule) -> Result<Slot, PoolError>;

    /// Takes a slot back, which the device no longer reaches.
    fn give_back(&self, slot: Slot);

    /// Copies `len` bytes from `at`, counted from the slot's first byte, between it and what it
    /// stands in for; `original` is the place of the slot's first byte.
    ///
    /// # Errors
    /// [`MemoryError`].
    fn sync(&self, slot: &Slot, original: Place, at: Bytes, len: Bytes, towards: Towards) -> Result<(), MemoryError>;

    /// Copies all of what the slot stands in for into it.
    ///
    /// # Errors
    /// [`MemoryError`].
    fn copy_in(&self, slot: &Slot, original: Place) -> Result<(), MemoryError> {
        self.sync(slot, original, Bytes::ZERO, slot.len(), Towards::Device)
    }

    /// Copies all of the slot to what it stands in for.
    ///
    /// # Errors
    /// [`MemoryError`].
    fn copy_out(&self, slot: &Slot, original: Place) -> Result<(), MemoryError> {
        self.sync(slot, original, Bytes::ZERO, slot.len(), Towards::Cpu)
    }
}
