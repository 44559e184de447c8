//! One range of memory and whose it is.

use crate::access::MemAttrs;
use crate::addr::Bytes;

/// One range of memory: an owner and `offset..offset + len` in it.
///
/// What holding one tells you: it is not empty, and its end, exclusive, fits in 64 bits.
/// It does not tell whether the owner is that long.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Chunk<O> {
    owner: O,
    offset: Bytes,
    len: Bytes,
    attrs: MemAttrs,
}

impl<O: Copy> Chunk<O> {
    /// The range of `len` bytes from `offset`, which counts from the owner's start.
    ///
    /// `None` if it is empty or its end, exclusive, is not below 2^64.
    #[inline]
    pub fn new(owner: O, offset: Bytes, len: Bytes, attrs: MemAttrs) -> Option<Self> {
        if len == Bytes::ZERO || offset.checked_add(len).is_none() {
            return None;
        }
        Some(Self { owner, offset, len, attrs })
    }

    /// For the parts of what was a chunk already.
    #[inline]
    pub(super) fn part(owner: O, offset: Bytes, len: Bytes, attrs: MemAttrs) -> Self {
        Self { owner, offset, len, attrs }
    }

    /// Whose memory it is.
    #[inline]
    pub fn owner(&self) -> O {
        self.owner
    }

    /// Where it begins, counted from the owner's start.
    #[inline]
    pub fn offset(&self) -> Bytes {
        self.offset
    }

    /// Its length, at least one byte.
    #[inline]
    pub fn len(&self) -> Bytes {
        self.len
    }

    /// Always false; a chunk holds at least one byte.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// What sort of memory it is.
    #[inline]
    pub fn attrs(&self) -> MemAttrs {
        self.attrs
    }

    /// The `len` bytes of this chunk from `offset`, which counts from the chunk's start.
    ///
    /// `None` if that is empty or any of it lies outside.
    pub fn slice(&self, offset: Bytes, len: Bytes) -> Option<Self> {
        if offset.checked_add(len)? > self.len {
            return None;
        }
        Self::new(self.owner, self.offset.checked_add(offset)?, len, self.attrs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(offset: u64, len: u64) -> Option<Chunk<u8>> {
        Chunk::new(7, Bytes::new(offset), Bytes::new(len), MemAttrs::MMIO)
    }

    #[test]
    fn a_chunk_that_is_empty_or_wraps_cannot_be_made() {
        assert_eq!(chunk(0x1000, 0), None);
        assert_eq!(chunk(u64::MAX, 1), None, "its end would be 2^64");
        assert_eq!(chunk(2, u64::MAX - 1), None);
        assert!(chunk(u64::MAX - 1, 1).is_some() && chunk(0, u64::MAX).is_some());
    }

    #[test]
    fn a_slice_of_a_chunk_keeps_owner_and_attributes_and_stays_inside() {
        let whole = chunk(0x1800, 0x1000).unwrap();
        assert_eq!(whole.slice(Bytes::new(0x10), Bytes::new(0xff0)), chunk(0x1810, 0xff0));
        for (offset, len) in [(0x10, 0xff1), (0x1000, 1), (0, 0), (u64::MAX, 2)] {
            assert_eq!(whole.slice(Bytes::new(offset), Bytes::new(len)), None, "{offset:#x}+{len:#x}");
        }
    }
}
