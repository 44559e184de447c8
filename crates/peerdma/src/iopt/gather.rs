//! What a device's IOTLB must forget, collected over several unmappings.
//!
//! As Linux's `iommu_iotlb_gather`: one inclusive range that grows over every leaf removed,
//! gaps included, since one invalidation of a range costs less than two.

use crate::addr::{AddrRange, Bytes, Iova};

/// What must be invalidated before what was unmapped may be used for anything else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gather {
    /// First and last byte; reversed while empty.
    first: u64,
    last: u64,
    removed: u64,
    /// One bit per page size that was removed.
    sizes: u64,
    tables: bool,
}

impl Default for Gather {
    fn default() -> Self {
        Self::new()
    }
}

impl Gather {
    /// Nothing to invalidate yet.
    pub const fn new() -> Self {
        Self { first: u64::MAX, last: 0, removed: 0, sizes: 0, tables: false }
    }

    /// The range to invalidate, gaps included; `None`: nothing.
    ///
    /// Of all 2^64 addresses the last byte is left out, which only a range type needs.
    pub fn range(&self) -> Option<AddrRange<Iova>> {
        if self.is_empty() {
            return None;
        }
        let (first, last) = (Iova::new(self.first), Iova::new(self.last));
        AddrRange::from_inclusive(first, last)
            .or_else(|| AddrRange::from_inclusive(first, Iova::new(self.last.saturating_sub(1))))
    }

    /// How many bytes of leaves were removed.
    pub const fn removed(&self) -> Bytes {
        Bytes::new(self.removed)
    }

    /// The smallest page size removed, the stride of an invalidation by range; `None`: no leaf was removed.
    pub const fn page_size(&self) -> Option<Bytes> {
        if self.sizes == 0 { None } else { Some(Bytes::new(self.sizes & self.sizes.wrapping_neg())) }
    }

    /// Whether leaves of several page sizes were removed, which Linux's Arm drivers invalidate apart.
    pub const fn mixes_page_sizes(&self) -> bool {
        self.sizes & self.sizes.wrapping_sub(1) != 0
    }

    /// Whether tables were taken out, so that caches of table entries must be invalidated too.
    pub const fn tables_freed(&self) -> bool {
        self.tables
    }

    /// Whether there is nothing to invalidate.
    pub const fn is_empty(&self) -> bool {
        self.first > self.last
    }

    /// Adds everything that `other` collected.
    pub fn merge(&mut self, other: &Self) {
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        self.removed = self.removed.saturating_add(other.removed);
        self.sizes |= other.sizes;
        self.tables |= other.tables;
    }

    /// Adds `len` bytes from `first` on, removed as pages of these sizes (a bitmap).
    #[inline]
    pub(super) fn add_leaves(&mut self, first: u64, len: u64, sizes: u64) {
        self.first = self.first.min(first);
        self.last = self.last.max(first.wrapping_add(len).wrapping_sub(1));
        self.removed = self.removed.wrapping_add(len);
        self.sizes |= sizes;
    }

    /// Adds a table that translated 2^`span_shift` bytes from `first` on.
    pub(super) fn add_table(&mut self, first: u64, span_shift: u32) {
        let span = 1_u64.checked_shl(span_shift).unwrap_or(0).wrapping_sub(1);
        self.first = self.first.min(first);
        self.last = self.last.max(first.saturating_add(span));
        self.tables = true;
    }
}
