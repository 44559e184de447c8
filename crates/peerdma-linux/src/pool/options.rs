//! How a pool is made.

use crate::pin::Pinner;
use peerdma::addr::{Bytes, Granule};
use peerdma::pool::{Area, Reach};

/// What keeps a pool's memory in its place.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Stay {
    /// A long-term pin; huge pages where the kernel has them at hand.
    Pinned(Pinner),
    /// Pages of the hugetlb pool, and a pin: they do not move when memory is taken offline either.
    PinnedHugetlb(Pinner),
    /// Pages of the hugetlb pool, without a pin: nothing is charged, and the administrator must have put pages aside.
    ///
    /// Compaction, NUMA balancing and swapping leave them alone; taking memory offline and `migrate_pages` by a
    /// privileged process move them.
    Hugetlb,
}

/// Which pages a pool is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Pages {
    /// Pages of the hugetlb pool, of this size.
    Hugetlb {
        /// Each of them.
        each: Bytes,
    },
    /// Ordinary memory, of which so much lay in huge pages when it was made.
    Ordinary {
        /// In huge pages; the rest is in base pages.
        huge: Bytes,
    },
}

/// How a [`Pool`](super::Pool) is made.
#[derive(Clone, Debug)]
pub struct Options {
    pub(super) stay: Stay,
    pub(super) granule: Granule,
    pub(super) devices: Vec<Reach>,
    pub(super) huge: bool,
}

impl Options {
    /// A pool that is kept in its place so, of blocks that are multiples of a cache line, anywhere.
    pub fn new(stay: Stay) -> Self {
        Self { stay, granule: Area::LINE, devices: Vec::new(), huge: true }
    }

    /// Blocks that are multiples of `granule`: pages for a large pool of large blocks, which costs less bookkeeping.
    #[must_use]
    pub fn granule(mut self, granule: Granule) -> Self {
        self.granule = granule;
        self
    }

    /// A pool that this device reaches too.
    #[must_use]
    pub fn device(mut self, reach: Reach) -> Self {
        self.devices.push(reach);
        self
    }

    /// Whether to ask for huge pages where ordinary memory is used; it is asked unless this says no.
    #[must_use]
    pub fn huge_pages(mut self, ask: bool) -> Self {
        self.huge = ask;
        self
    }

    pub(super) fn is_hugetlb(&self) -> bool {
        matches!(self.stay, Stay::Hugetlb | Stay::PinnedHugetlb(_))
    }
}
