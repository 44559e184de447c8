//! A part of a pool that one mapping uses.

use super::Place;
use crate::addr::Bytes;
use crate::dma::owner::Owner;

/// A part of a pool that one mapping uses, until it is given back.
///
/// What holding one tells you: its granules belong to nobody else. It cannot be copied, so it
/// is given back once; one that is dropped instead stays taken for as long as its pool lives.
#[derive(PartialEq, Eq, Debug)]
#[must_use = "a slot that is dropped stays taken; give it back to its pool"]
pub struct Slot {
    owner: Owner,
    offset: Bytes,
    len: Bytes,
    /// Where its first granule starts.
    start: u64,
    /// How many cells of the pool it holds, 1 to 64.
    cells: u32,
}

impl Slot {
    /// `cells` cells from `start`, with data of `len` bytes `head` bytes in; the sum fits, as the
    /// pool's area does.
    pub(super) fn new(owner: Owner, start: u64, head: Bytes, len: Bytes, cells: u32) -> Self {
        Self { owner, offset: Bytes::new(start + head.as_u64()), len, start, cells }
    }

    /// Whose memory it is: the owner of the pool's area.
    #[inline]
    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// Where its first byte of data is, counted from the owner's start.
    #[inline]
    pub fn offset(&self) -> Bytes {
        self.offset
    }

    /// How many bytes of data it holds, at least one.
    #[inline]
    pub fn len(&self) -> Bytes {
        self.len
    }

    /// Always false; a slot holds at least one byte.
    pub fn is_empty(&self) -> bool {
        false
    }

    pub(super) fn start(&self) -> u64 {
        self.start
    }

    pub(super) fn cells(&self) -> u32 {
        self.cells
    }

    pub(super) fn place(&self) -> Place {
        (self.owner, self.offset)
    }
}
