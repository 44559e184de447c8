//! Why IOVAs are not handed out, taken back or kept away: one error an operation.

use super::Want;
use crate::addr::{AddrRange, Bytes, Granule, Iova};
use alloc::string::{String, ToString};

/// A space without a single whole granule to hand out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "the usable IOVA ranges hold no whole granule of {granule} above the first, which is never handed out; \
     ask the space for its ranges once a device is attached"
)]
pub struct NothingUsable {
    /// What the space maps in multiples of.
    pub granule: Granule,
}

/// No gap takes what is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "no free IOVAs for {} {} up to {}{}; {}; free some, or raise the limit",
    want.len(), alignment(want), want.limit(), guards(want), gap(*largest_gap)
)]
pub struct Exhausted {
    /// What was asked for.
    pub want: Want,
    /// The largest range of free IOVAs up to the limit, whatever its alignment; `None` if nothing is free there.
    pub largest_gap: Option<AddrRange<Iova>>,
}

impl Exhausted {
    /// The length asked for.
    pub const fn wanted(&self) -> Bytes {
        self.want.len()
    }

    /// Last address that could be used, inclusive.
    pub const fn limit(&self) -> Iova {
        self.want.limit()
    }
}

/// Why a range cannot be claimed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// It starts or ends inside a granule.
    #[error("{range} is not made of whole granules of {granule}; widen it to them")]
    Unaligned {
        /// What was to be claimed.
        range: AddrRange<Iova>,
        /// What the space maps in multiples of.
        granule: Granule,
    },
    /// Somebody has part of it.
    #[error("{range} cannot be claimed: {allocated} is allocated; free that first, or choose another range")]
    Allocated {
        /// What was to be claimed.
        range: AddrRange<Iova>,
        /// The lowest allocated range in the way.
        allocated: AddrRange<Iova>,
    },
    /// Part of it is kept free beside a guarded range.
    #[error("{range} cannot be claimed: {at} is guard space of {of}; free that first, or choose another range")]
    Guard {
        /// What was to be claimed.
        range: AddrRange<Iova>,
        /// The first address in the way.
        at: Iova,
        /// The range it guards.
        of: AddrRange<Iova>,
    },
    /// Part of it cannot be used by anybody.
    #[error("{range} cannot be claimed: {at} is not usable or was excluded; choose a range of the usable ones")]
    Unusable {
        /// What was to be claimed.
        range: AddrRange<Iova>,
        /// The first address in the way.
        at: Iova,
    },
}

/// Why a range cannot be excluded; nothing has been.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExcludeError {
    /// Somebody has part of it, or keeps part of it free.
    #[error(
        "{range} cannot be excluded: {allocated} is allocated, with {guard} kept free on both sides; free that first"
    )]
    Allocated {
        /// What was to be excluded.
        range: AddrRange<Iova>,
        /// An allocated range in the way.
        allocated: AddrRange<Iova>,
        /// What is kept free on both sides of it.
        guard: Bytes,
    },
}

/// Why a range cannot be freed; nothing has been.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FreeError {
    /// Nothing is allocated at its start: it was freed before, or never handed out.
    #[error("{range} is not allocated: freed before, or never handed out; free what allocate or claim returned, once")]
    NotAllocated {
        /// What was to be freed.
        range: AddrRange<Iova>,
    },
    /// What is allocated there is another range.
    #[error("{range} was not allocated as such: what is allocated there is {allocated}; free all of that at once")]
    Differs {
        /// What was to be freed.
        range: AddrRange<Iova>,
        /// The allocated range that holds its start.
        allocated: AddrRange<Iova>,
    },
}

fn alignment(want: &Want) -> String {
    match want.align() {
        Some(align) => alloc::format!("aligned to {align}"),
        None => "naturally aligned".to_string(),
    }
}

fn guards(want: &Want) -> String {
    match want.guard() {
        Bytes::ZERO => String::new(),
        guard => alloc::format!(" with {guard} on both sides"),
    }
}

fn gap(largest: Option<AddrRange<Iova>>) -> String {
    match largest {
        Some(range) => alloc::format!("the largest gap there is {} at {}", range.len(), range.start()),
        None => "nothing is free there".to_string(),
    }
}
