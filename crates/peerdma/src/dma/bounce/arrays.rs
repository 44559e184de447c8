//! Memory as arrays of bytes.

use super::{Memory, MemoryError, Place};
use crate::addr::Bytes;
use crate::dma::owner::Owner;
use crate::sync::Lock;
use alloc::vec::Vec;
use core::ops::Range;

/// Bytes of owners, as arrays.
///
/// For tests and benches, for programs that hold their memory in arrays (a guest's, a
/// simulation's), and as the example of a [`Memory`].
///
/// # Concurrency
/// One lock over all arrays. Threads that copy much are better served by a [`Memory`] of their own.
#[derive(Debug, Default)]
pub struct ByteArrays {
    held: Lock<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// Sorted by owner and offset; no two overlap.
    arrays: Vec<Array>,
    /// The array that was copied from last and the one that was copied to; copies through a pool
    /// go back and forth between two.
    recent: [usize; 2],
}

#[derive(Debug)]
struct Array {
    owner: Owner,
    offset: u64,
    bytes: Vec<u8>,
}

impl Array {
    /// Where bytes are in this array, if they all are.
    #[inline]
    fn part(&self, at: Place, len: u64) -> Option<Range<usize>> {
        let into = at.1.as_u64().checked_sub(self.offset).filter(|_| at.0 == self.owner)?;
        let end = into.checked_add(len).filter(|end| *end <= self.bytes.len() as u64)?;
        // Both lie in the array, whose length is a usize.
        Some(into as usize..end as usize)
    }
}

impl ByteArrays {
    /// No bytes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Holds `bytes` as those of an owner from an offset on.
    ///
    /// # Errors
    /// - [`MemoryError::Overlap`]: some of them are held already.
    /// - [`MemoryError::Outside`]: they end past the last possible offset.
    pub fn add(&self, at: Place, bytes: Vec<u8>) -> Result<(), MemoryError> {
        let (owner, offset) = at;
        let len = Bytes::new(bytes.len() as u64);
        let end = offset.checked_add(len).ok_or(MemoryError::Outside { owner, offset, len })?;
        self.held.with(|held| {
            let arrays = &mut held.arrays;
            let index = arrays.partition_point(|array| (array.owner, array.offset) < (owner, offset.as_u64()));
            let above = arrays.get(index).filter(|array| array.owner == owner);
            let below = index.checked_sub(1).map(|below| &arrays[below]).filter(|array| array.owner == owner);
            let hits_above = above.is_some_and(|array| array.offset < end.as_u64());
            let hits_below = below.is_some_and(|array| offset.as_u64() - array.offset < array.bytes.len() as u64);
            if hits_above || hits_below {
                return Err(MemoryError::Overlap { owner, offset, len });
            }
            arrays.insert(index, Array { owner, offset: offset.as_u64(), bytes });
            Ok(())
        })
    }

    /// Lets the array go that starts at this place, and returns it.
    pub fn remove(&self, at: Place) -> Option<Vec<u8>> {
        self.held.with(|held| {
            let arrays = &mut held.arrays;
            let index = arrays.iter().position(|array| (array.owner, array.offset) == (at.0, at.1.as_u64()))?;
            Some(arrays.remove(index).bytes)
        })
    }

    /// Copies bytes out.
    ///
    /// # Errors
    /// [`MemoryError::NoSuchOwner`] and [`MemoryError::Outside`]; nothing is copied then.
    pub fn read(&self, at: Place, into: &mut [u8]) -> Result<(), MemoryError> {
        self.held.with(|held| {
            let (index, part) = held.find(0, at, into.len() as u64)?;
            into.copy_from_slice(&held.arrays[index].bytes[part]);
            Ok(())
        })
    }

    /// Copies bytes in.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn write(&self, at: Place, from: &[u8]) -> Result<(), MemoryError> {
        self.held.with(|held| {
            let (index, part) = held.find(1, at, from.len() as u64)?;
            held.arrays[index].bytes[part].copy_from_slice(from);
            Ok(())
        })
    }
}

impl Memory for ByteArrays {
    #[inline]
    fn copy(&self, from: Place, to: Place, len: Bytes) -> Result<(), MemoryError> {
        self.held.with(|held| {
            let (source, read) = held.find(0, from, len.as_u64())?;
            let (target, written) = held.find(1, to, len.as_u64())?;
            match held.arrays.get_disjoint_mut([source, target]) {
                Ok([source, target]) => target.bytes[written].copy_from_slice(&source.bytes[read]),
                // Two parts of one array.
                Err(_) => held.arrays[source].bytes.copy_within(read, written.start),
            }
            Ok(())
        })
    }

    fn zero(&self, at: Place, len: Bytes) -> Result<(), MemoryError> {
        self.held.with(|held| {
            let (index, part) = held.find(1, at, len.as_u64())?;
            held.arrays[index].bytes[part].fill(0);
            Ok(())
        })
    }
}

impl Held {
    /// Which array holds these bytes, and where; `recent` is the array to look at first.
    #[inline]
    fn find(&mut self, recent: usize, at: Place, len: u64) -> Result<(usize, Range<usize>), MemoryError> {
        let index = self.recent[recent];
        match self.arrays.get(index).and_then(|array| array.part(at, len)) {
            Some(part) => Ok((index, part)),
            None => self.look_up(recent, at, len),
        }
    }

    fn look_up(&mut self, recent: usize, at: Place, len: u64) -> Result<(usize, Range<usize>), MemoryError> {
        let (owner, offset) = at;
        let after = self.arrays.partition_point(|array| (array.owner, array.offset) <= (owner, offset.as_u64()));
        if let Some((index, part)) =
            after.checked_sub(1).and_then(|index| Some((index, self.arrays[index].part(at, len)?)))
        {
            self.recent[recent] = index;
            return Ok((index, part));
        }
        match self.arrays.iter().any(|array| array.owner == owner) {
            true => Err(MemoryError::Outside { owner, offset, len: Bytes::new(len) }),
            false => Err(MemoryError::NoSuchOwner { owner }),
        }
    }
}
