//! What an entry says, and what a run of entries has in common.

use crate::addr::PhysAddr;

/// What one entry of a table says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    /// Nothing is mapped there.
    Empty,
    /// The next table.
    Table(PhysAddr),
    /// A page of 2^`size_shift` bytes from `base` on.
    Leaf {
        /// First byte of the page, aligned to its size.
        base: PhysAddr,
        /// Logarithm of its size; larger than what one entry covers where entries are replicated.
        size_shift: u32,
    },
    /// Present, and nothing that the format allows there.
    Bad,
}

/// Everything of the leaf entries of a run that is the same: rights and attributes.
///
/// Made once per run by [`PageTable::leaf`](super::PageTable::leaf).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leaf {
    pub(super) bits: u64,
    /// Last address that can be put out; 0 with `refused`, below any page's last byte.
    pub(super) last: u64,
    /// Whether the table refuses the protection.
    pub(super) refused: bool,
}

impl Leaf {
    /// The bits that every leaf entry of the run has, without address and page size.
    pub const fn bits(self) -> u64 {
        self.bits
    }
}
