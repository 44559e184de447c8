//! What somebody wants of free IOVAs.

use crate::addr::{Bytes, Granule, Iova};

/// A length of IOVAs, and what has to hold for them.
///
/// ```
/// use peerdma::addr::{Bytes, Iova};
/// use peerdma::iova::Want;
///
/// // 20 KiB for a device that drives 32 address lines.
/// let want = Want::new(Bytes::new(20 << 10)).below(Iova::new(0xffff_ffff));
/// assert_eq!(want.limit(), Iova::new(0xffff_ffff));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Want {
    len: Bytes,
    limit: Iova,
    align: Option<Granule>,
    guard: Bytes,
}

impl Want {
    /// Wants `len` bytes anywhere, naturally aligned, with nothing kept free beside them.
    ///
    /// The length is rounded up to whole granules when allocated; no bytes at all take one,
    /// so that each range is somebody's own.
    #[inline]
    pub const fn new(len: Bytes) -> Self {
        Self { len, limit: Iova::new(u64::MAX), align: None, guard: Bytes::ZERO }
    }

    /// No address above `limit`, inclusive: the smaller of DMA mask and bus limit.
    #[inline]
    pub const fn below(mut self, limit: Iova) -> Self {
        self.limit = limit;
        self
    }

    /// A start that is a multiple of `align`, in place of the natural alignment.
    ///
    /// Natural is the length rounded up to a power of two, as `alloc_iova_fast` aligns: a
    /// range then crosses no boundary of that size. Less than the granule means the granule.
    #[inline]
    pub const fn aligned(mut self, align: Granule) -> Self {
        self.align = Some(align);
        self
    }

    /// At least `guard` bytes on both sides stay nobody's for as long as the range is allocated.
    ///
    /// They are taken out of the space, rounded up to whole granules, and may lie above the limit.
    #[inline]
    pub const fn guarded(mut self, guard: Bytes) -> Self {
        self.guard = guard;
        self
    }

    /// The length, as asked for.
    #[inline]
    pub const fn len(&self) -> Bytes {
        self.len
    }

    /// Whether no bytes are asked for, which one granule answers.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.len.as_u64() == 0
    }

    /// Last address that may be used, inclusive.
    #[inline]
    pub const fn limit(&self) -> Iova {
        self.limit
    }

    /// The alignment asked for; `None` for the natural one.
    #[inline]
    pub const fn align(&self) -> Option<Granule> {
        self.align
    }

    /// Bytes to be kept free on each side.
    #[inline]
    pub const fn guard(&self) -> Bytes {
        self.guard
    }
}
