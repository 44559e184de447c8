//! What distinguishes one page-table format from another, as a description.
//!
//! A format is numbers and bit patterns; the walker, which is the same for all, is compiled
//! once per format. Heights count from the leaf tables (0) up, as x86 and AMD do; Arm counts
//! levels from the other end, which [`Format::level`] knows.

use super::entry::Entry;
use super::shape::Shape;
use crate::access::{MemAttrs, Prot};
use crate::addr::PhysAddr;
use core::fmt;

/// Whose answers a format gives where Linux's two builders differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Family {
    /// `drivers/iommu/generic_pt`: an unmap that ends inside a leaf takes the whole leaf; one
    /// that starts inside takes nothing; ranges are checked whole.
    GenericPt,
    /// `io-pgtable-arm` below `iommu_map` and `iommu_unmap`: a range is cut into batches of one
    /// page size, a part of a block is not unmapped, tables of the batch's size go whole.
    IoPgtable,
}

/// Whether [`Prot::Write`] alone keeps a device from reading.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum WriteOnlyIs {
    /// The device cannot read.
    Exact,
    /// The entry has no bit for it, and the device reads as well.
    MayRead,
}

/// A page-table format.
///
/// Implementations are pure: no method depends on anything but the arguments and the options
/// that the format was made with. Entries are 64 bits wide.
pub trait Format: Clone + fmt::Debug {
    /// Logarithm of the smallest page.
    const PAGE_SHIFT: u32;
    /// Number of IOVA bits that one table translates; a table has `1 << INDEX_BITS` entries.
    const INDEX_BITS: u32;
    /// Whose answers it gives.
    const FAMILY: Family;
    /// Bits that a leaf's rights have only where every table entry above has them too.
    const INHERITED: u64;
    /// Whether the entries of pages that follow each other differ by the size of the page.
    const LINEAR: bool;
    /// Whether the root is replaced by a higher one when an IOVA needs it.
    const GROWS: bool;
    /// Whether a root can be several tables side by side.
    const CONCATENATES: bool;
    /// Whether a page can be larger than what one entry covers, by repeating the entry.
    const REPLICATES: bool;

    /// Widths and page sizes.
    fn shape(&self) -> &Shape;

    /// How the format's own documentation numbers the tables of a height.
    fn level(&self, height: u8) -> u8 {
        height
    }

    /// Bits of a leaf with these rights; `None` if the format was told to refuse them.
    ///
    /// Attributes that it cannot express are left out, as Linux does; refusing them is for who
    /// calls, by [`expresses`](Self::expresses). Linux's `IOMMU_CACHE` is the absence of
    /// [`MemAttrs::NOT_SNOOPED`].
    fn leaf_bits(&self, prot: Prot, attrs: MemAttrs) -> Option<u64>;

    /// The leaf entry for a page of 2^`size_shift` bytes at `base` in a table of `height`.
    fn leaf_entry(&self, bits: u64, base: PhysAddr, height: u8, size_shift: u32) -> u64;

    /// The entry of a table of `height` that points to `table`.
    fn table_entry(&self, table: PhysAddr, height: u8) -> u64;

    /// What an entry of a table of `height` says.
    fn decode(&self, entry: u64, height: u8) -> Entry;

    /// Whether an entry of a table of `height` is a leaf that stands there alone; may hold for bad ones too.
    ///
    /// What [`decode`](Self::decode) says at length, for loops that unmap; asked of height 0 only
    /// where entries are replicated.
    #[inline]
    fn is_single(&self, entry: u64, height: u8) -> bool {
        matches!(self.decode(entry, height), Entry::Leaf { size_shift, .. } if size_shift == shift_of::<Self>(height))
    }

    /// Bits of a leaf entry without its address and page size, as [`leaf_bits`](Self::leaf_bits)
    /// made them, what the device wrote included.
    fn bits_of(&self, leaf: u64, height: u8) -> u64;

    /// What a leaf entry of a table of `height` permits; `None`: nothing.
    fn prot(&self, leaf: u64) -> Option<Prot>;

    /// The attributes that a leaf entry tells.
    fn attrs(&self, leaf: u64) -> MemAttrs;

    /// The attributes that entries can express, or that need no bit to be honoured.
    fn expresses(&self) -> MemAttrs;

    /// Whether a large page takes the place of a table in which pages are mapped, which are lost.
    ///
    /// Linux does so with Arm formats; refused otherwise.
    fn replaces_tables(&self) -> bool {
        false
    }

    /// What [`Prot::Write`] alone becomes.
    fn write_only(&self) -> WriteOnlyIs;

    /// Whether devices leave a mark in an entry when they write through it.
    ///
    /// False too where they could and were not told to.
    fn tracks_dirty(&self) -> bool;

    /// Whether a question for dirty pages has an answer at all.
    fn answers_dirty(&self) -> bool {
        self.tracks_dirty()
    }

    /// Whether a leaf entry carries the mark.
    fn is_dirty(&self, leaf: u64) -> bool;

    /// Bits to clear and bits to set in a dirty leaf entry to make it clean.
    fn clean(&self) -> (u64, u64);
}

/// Whether pages of this format's `height` can be mapped by one entry.
#[inline]
pub(super) const fn shift_of<F: Format>(height: u8) -> u32 {
    F::PAGE_SHIFT + F::INDEX_BITS * height as u32
}
