//! Ranges that a process has registered.

use crate::access::Prot;
use crate::addr::{AddrRange, Bytes, ProcVa};
use core::fmt;
use thiserror::Error;

/// Names a registered range; none is given twice, so that a range that is gone stays gone.
///
/// What is left of a range that was cut keeps its name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct RangeId(pub(super) u64);

impl fmt::Display for RangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How a range's pages come into the device's table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Keeping {
    /// One by one, when the device asks, and they leave when something happens to them.
    Faulting,
    /// All at once, and they stay: somebody holds the pages in their place.
    ///
    /// A pin keeps pages and not addresses. Where memory is discarded, unmapped or moved all the same, the pinned pages are not
    /// what the process has at these addresses, so that this part of the range ends there.
    Pinned,
}

/// A range that was registered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Registered {
    /// Its name.
    pub id: RangeId,
    /// What is to be put into the device's table now: all of a pinned range, nothing of a faulting one.
    pub map: Option<(AddrRange<ProcVa>, Prot)>,
}

/// Why a range was not registered; nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// It does not begin and end with pages.
    #[error("{at} is not whole pages of {page}; register what begins and ends with one")]
    NotPages {
        /// What was to be registered.
        at: AddrRange<ProcVa>,
        /// The page size.
        page: Bytes,
    },
    /// A part of it is registered.
    #[error("{at} overlaps {other}, which is registered as range {id}; unregister that first")]
    Overlap {
        /// What was to be registered.
        at: AddrRange<ProcVa>,
        /// What is registered.
        other: AddrRange<ProcVa>,
        /// Its name.
        id: RangeId,
    },
    /// Something happens there just now.
    #[error("{at} meets an invalidation that is under way; register it when that has ended")]
    Busy {
        /// What was to be registered.
        at: AddrRange<ProcVa>,
    },
}

/// No range of this name is registered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("range {id} is not registered any more")]
pub struct UnknownRange {
    /// The name.
    pub id: RangeId,
}

/// One piece of a range, with what is true of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Piece {
    pub(super) id: RangeId,
    pub(super) prot: Option<Prot>,
    pub(super) keeping: Keeping,
}
