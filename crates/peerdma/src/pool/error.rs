//! Why a pool is not made, has nothing to give, or does not take something back: one error an operation.

use super::area::Block;
use super::owner::Owner;
use super::place::Obstacle;
use crate::addr::{AddrRange, Bytes, Granule, ProcVa};
use crate::iova::{Exhausted, NothingUsable, RangesError};
use alloc::string::String;

/// Why a range cannot be cut into blocks.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AreaError {
    /// It starts or ends inside a granule.
    #[error("{range} is not made of whole granules of {granule}; widen it, or take a smaller granule")]
    Unaligned {
        /// The range.
        range: AddrRange<ProcVa>,
        /// What blocks are multiples of.
        granule: Granule,
    },
    /// It holds more granules than this program can count.
    #[error("{range} has more than {} granules of {granule}; take a larger granule", usize::MAX)]
    TooLong {
        /// The range.
        range: AddrRange<ProcVa>,
        /// What blocks are multiples of.
        granule: Granule,
    },
    /// Nothing of it can be handed out.
    #[error(transparent)]
    NothingUsable(#[from] NothingUsable),
    /// It is no range that an allocator takes.
    #[error(transparent)]
    Ranges(#[from] RangesError),
}

/// There is no room in a pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "the pool has no {wanted} in one piece; {} are free, the largest piece has {}; put blocks back, drain the caches of \
     threads that rest, or make a larger pool", *free, *largest
)]
pub struct Full {
    /// What was asked for.
    pub wanted: Bytes,
    /// What is free in all, without what caches keep.
    pub free: Bytes,
    /// The longest piece of it.
    pub largest: Bytes,
}

impl Full {
    pub(super) fn new(wanted: Bytes, free: Bytes, exhausted: &Exhausted) -> Self {
        Self { wanted, free, largest: exhausted.largest_gap.map_or(Bytes::ZERO, |gap| gap.len()) }
    }
}

/// A block is not taken back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{range} is a block of another pool, which has {pool}; put it back there")]
pub struct PutError {
    /// The block's range.
    pub range: AddrRange<ProcVa>,
    /// What this pool is made of.
    pub pool: AddrRange<ProcVa>,
}

/// A block that was not taken back, and why.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Rejected {
    /// The block, still its owner's.
    pub block: Block,
    /// Why.
    pub error: PutError,
}

/// A pool tells no more owners apart.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{name} would be one owner more than the {} that a pool tells apart; let some share a name", Owner::MOST)]
pub struct TooManyOwners {
    /// Who was to be added.
    pub name: String,
}

/// A pool can lie nowhere so that all its devices reach it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no address for a pool of {len}: {obstacle}")]
pub struct NoPlace {
    /// How long the pool is to be.
    pub len: Bytes,
    /// What leaves no room.
    pub obstacle: Obstacle,
}
