//! Why nothing could be copied, or no slot be had.

use crate::addr::{Bytes, Granule};
use crate::dma::owner::Owner;

/// Why bytes of an owner were not copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// Nobody here holds the owner's bytes.
    #[error("nobody here holds bytes of {owner}; add them before they are copied")]
    NoSuchOwner {
        /// The owner.
        owner: Owner,
    },
    /// The owner has not all of these bytes, or not in one piece.
    #[error("{owner} has no {len} in one piece from offset {offset:#x}", offset = offset.as_u64())]
    Outside {
        /// The owner.
        owner: Owner,
        /// The first byte that was asked for.
        offset: Bytes,
        /// How many were.
        len: Bytes,
    },
    /// These bytes are held already.
    #[error("{owner} has bytes in {offset:#x} and {len} from there already; remove them first", offset = offset.as_u64())]
    Overlap {
        /// The owner.
        owner: Owner,
        /// The first byte that was to be added.
        offset: Bytes,
        /// How many were.
        len: Bytes,
    },
    /// Device memory stands for itself; a copy of it is something else.
    #[error("{owner} is device memory, which is never copied for a device; map it as it is")]
    DeviceMemory {
        /// The owner.
        owner: Owner,
    },
    /// A part of a slot that it does not have.
    #[error("{len} from byte {at} are not in a slot of {slot}", at = at.as_u64())]
    OutsideSlot {
        /// Where the part starts, counted from the slot's first byte.
        at: Bytes,
        /// Its length.
        len: Bytes,
        /// The slot's length.
        slot: Bytes,
    },
    /// The owner's keeper failed.
    #[error("bytes of {owner} cannot be accessed (errno {errno})")]
    Inaccessible {
        /// The owner.
        owner: Owner,
        /// The error number, positive.
        errno: i32,
    },
}

/// Why a pool gives no slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// A slot of no bytes.
    #[error("a slot of no bytes was asked for; leave out ranges that are empty")]
    Empty,
    /// The data was to start past the end of its first granule.
    #[error("data cannot start {head} into a granule of {granule}; take the remainder")]
    Head {
        /// Where in the granule it was to start.
        head: Bytes,
        /// The granule.
        granule: Granule,
    },
    /// The granule is larger than the largest slot.
    #[error("a granule of {granule} is larger than the longest slot, {longest}; give the pool larger cells")]
    Granule {
        /// The granule.
        granule: Granule,
        /// The longest slot.
        longest: Bytes,
    },
    /// More than the longest slot holds.
    #[error("{len} from byte {head} of a granule exceed the longest slot, {longest}; copy in parts, or give the pool larger cells", head = head.as_u64())]
    TooLong {
        /// What was asked for.
        len: Bytes,
        /// Where in its granule it was to start.
        head: Bytes,
        /// The longest slot, its head included.
        longest: Bytes,
    },
    /// Not enough is free in one piece.
    #[error(
        "no {wanted} in one piece: the largest free piece has {largest}, in all {left} are left; give slots back or add memory to the pool"
    )]
    Exhausted {
        /// What was looked for, in whole granules.
        wanted: Bytes,
        /// The largest piece that could be had with this granule.
        largest: Bytes,
        /// All that is free, in cells.
        left: Bytes,
    },
    /// The slot's memory could not be written, or the original not be read.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// Why an area is no pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AreaError {
    /// No whole cell lies in it.
    #[error("no whole cell of {cell} lies in {len} from offset {offset:#x}; give a larger area", offset = offset.as_u64())]
    TooSmall {
        /// Where the area starts.
        offset: Bytes,
        /// Its length.
        len: Bytes,
        /// The pool's cell.
        cell: Granule,
    },
    /// It ends past the owner's last possible byte, or has more cells than a pool takes.
    #[error("{len} from offset {offset:#x} are more than {most} cells of {cell}; give larger cells or a smaller area", offset = offset.as_u64())]
    TooLarge {
        /// Where the area starts.
        offset: Bytes,
        /// Its length.
        len: Bytes,
        /// The pool's cell.
        cell: Granule,
        /// The most cells that a pool takes.
        most: u64,
    },
    /// Cells of this size are too large for slots of them to fit in an address space.
    #[error("cells of {cell} are too large; a page is a good size")]
    Cell {
        /// The pool's cell.
        cell: Granule,
    },
    /// Device memory is no memory to copy to.
    #[error("{owner} is device memory; a pool needs memory")]
    DeviceMemory {
        /// The owner.
        owner: Owner,
    },
}
