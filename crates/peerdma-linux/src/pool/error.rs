//! Why a pool is not made, and why a device does not get it.

use crate::memory::BeyondPages;
use crate::pin::PinError;
use peerdma::addr::Bytes;
use peerdma::dma::{MapError, UnmapError};
use peerdma::pool::{AreaError, NoPlace, Obstacle};
use std::io;

/// Why a pool is not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// No bytes, or more than an address space holds.
    #[error("a pool of {size} cannot be made; ask for a byte at least, and less than half of an address space")]
    Size {
        /// What was asked for.
        size: Bytes,
    },
    /// There is no address for it.
    #[error(transparent)]
    NoPlace(#[from] NoPlace),
    /// What the kernel maps into this process cannot be read.
    #[error("cannot read what this process has mapped")]
    Maps(#[source] io::Error),
    /// The kernel has no memory for it, or maps none there.
    #[error("cannot map {size} for a pool")]
    Map {
        /// How much.
        size: Bytes,
        /// Its answer.
        source: io::Error,
    },
    /// There are not as many pages in the hugetlb pool.
    #[error(
        "the kernel has {free} free hugetlb pages of {each}, and a pool of {size} takes {needed}; put more aside with \
         /proc/sys/vm/nr_hugepages, make the pool smaller, or take ordinary memory"
    )]
    TooFewHugePages {
        /// How much was asked for.
        size: Bytes,
        /// One page.
        each: Bytes,
        /// Free, and not promised to anybody.
        free: u64,
        /// What the pool takes.
        needed: u64,
    },
    /// The kernel has no hugetlb pages.
    #[error("this kernel has no hugetlb pages (CONFIG_HUGETLBFS); take ordinary memory")]
    NoHugetlb,
    /// It cannot be pinned.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// It cannot be cut into blocks.
    #[error(transparent)]
    Area(#[from] AreaError),
}

/// Why bytes of a buffer were not copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BufferError {
    /// The buffer does not have all of them.
    #[error(transparent)]
    Beyond(#[from] BeyondPages),
    /// The buffer is that of the parent of this process, which has no such memory.
    #[error("the buffer belongs to the process that this one was forked from; make a pool here")]
    Forked,
}

/// Why a device's address space does not get a pool; the space is handed back.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub struct AttachError<S> {
    /// The space, as it was.
    pub space: S,
    /// Why.
    pub why: NotAttached,
}

/// Why a pool is not mapped into an address space.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotAttached {
    /// The device does not reach the pool's addresses.
    #[error("{0}")]
    Unreachable(Obstacle),
    /// The space does not map it.
    #[error(transparent)]
    Map(#[from] MapError),
}

/// A pool could not be taken out of an address space. Its memory stays mapped and pinned for good, since a device may
/// still use it.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct DetachError<S> {
    /// The space, in which the pool still is.
    pub space: S,
    /// What the space said.
    pub error: UnmapError,
}
