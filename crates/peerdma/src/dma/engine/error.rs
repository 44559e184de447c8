//! Why a step of a mapping was refused; one enum for each step.

use crate::access::MemAttrs;
use crate::addr::{AddrRange, Bytes, Granule, Iova};
use crate::dma::bounce::{MemoryError, PoolError};
use crate::dma::error::{MapError, UnmapError};
use crate::dma::initiator::SegmentLimit;
use crate::dma::owner::{Owner, ResolveError};
use crate::dma::reach::Refusal;
use crate::iova::Exhausted;
use crate::topology::IommuMode;
use alloc::boxed::Box;
use alloc::string::String;

/// Why no context was made; found out before anything is mapped.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContextError {
    /// A translated initiator needs a space in which IOVAs are chosen, an untranslated one a space that dictates.
    #[error("{initiator} is in IOMMU mode {mode}, and the address space is made for another; use one of that mode")]
    ModeMismatch {
        /// The initiator.
        initiator: String,
        /// Its mode.
        mode: IommuMode,
    },
    /// The space unmaps one mapping at a time, and a mapping of many ranges is unmapped in one call.
    #[error("the address space of {initiator} unmaps one range at a time; use one that unmaps several")]
    OneAtATime {
        /// The initiator.
        initiator: String,
    },
    /// No segment can be as the initiator's list of segments wants it.
    #[error("the list of segments of {initiator} takes {limit}; correct the limit or leave it out")]
    Segments {
        /// The initiator.
        initiator: String,
        /// What none can keep.
        limit: SegmentLimit,
    },
    /// The space cannot express what the initiator needs for every mapping.
    #[error("{initiator} needs its memory mapped as {attrs}, which its address space cannot express")]
    AttrsNotTaken {
        /// The initiator.
        initiator: String,
        /// What is missing.
        attrs: MemAttrs,
    },
}

/// Why nothing was reserved.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReserveError {
    /// No bytes were asked for.
    #[error("a reservation of no bytes; reserve what will be linked")]
    Empty,
    /// The length does not fit into 64 bits with its granules.
    #[error("{len} rounded up to granules pass the end of the address space")]
    TooLong {
        /// The length.
        len: Bytes,
    },
    /// No gap is large enough; release something, or reserve in pieces.
    #[error("no IOVAs for {initiator}: {exhausted}")]
    Exhausted {
        /// The initiator.
        initiator: String,
        /// What was wanted, and the largest gap.
        exhausted: Exhausted,
    },
}

/// Why a range was not linked; what was linked before it still is.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The initiator does not reach the owner, or not in this direction.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The owner's bytes cannot be named to the address space.
    #[error(transparent)]
    Unresolvable(#[from] ResolveError),
    /// Only the first range may start inside a granule, and only the last may end inside one.
    #[error(
        "{owner} at offset {offset:#x} starts {head:#x} bytes into a granule of {granule}, {linked} after the start of \
         the mapping; only its first range may start, and only its last may end, inside a granule",
        offset = offset.as_u64(), head = head.as_u64()
    )]
    Unaligned {
        /// The owner.
        owner: Owner,
        /// Offset of the range.
        offset: Bytes,
        /// How far into a granule it starts, or the mapping so far ends.
        head: Bytes,
        /// Smallest unit.
        granule: Granule,
        /// Bytes linked before.
        linked: Bytes,
    },
    /// The reservation is too short; what is left of it is in the error.
    #[error("{len} of {owner} do not fit into the {left} left of the reservation; reserve more")]
    OutOfRoom {
        /// The owner.
        owner: Owner,
        /// Length of the range.
        len: Bytes,
        /// Bytes left.
        left: Bytes,
    },
    /// All that is linked together would have more bytes than 64 bits count; map the rest for itself.
    #[error("{len} of {owner} after the {linked} that are linked pass 2^64 bytes; map them for themselves")]
    TooLong {
        /// The owner.
        owner: Owner,
        /// Length of the range.
        len: Bytes,
        /// Bytes linked before.
        linked: Bytes,
    },
    /// Nothing translates on the way there, so there is nothing to hold the attribute.
    #[error("{owner} at offset {offset:#x} cannot be given to {initiator} as {attrs}, since no table is on the way; leave the attribute out", offset = offset.as_u64())]
    AttrsNotTaken {
        /// The initiator.
        initiator: String,
        /// The owner.
        owner: Owner,
        /// Offset of the range.
        offset: Bytes,
        /// What is not held.
        attrs: MemAttrs,
    },
    /// The initiator cannot form the address, and nothing may be copied for it.
    #[error(
        "{address:#x} of {owner} is above {highest:#x}, the highest address of {initiator}; use memory below it, or a \
         pool to copy through", address = address, highest = highest
    )]
    AboveMask {
        /// The initiator.
        initiator: String,
        /// The owner.
        owner: Owner,
        /// Last address of the range.
        address: AddressNumber,
        /// Highest address that the initiator can form.
        highest: AddressNumber,
    },
    /// No window of the host bridge shows the memory to its devices.
    #[error("no window of the host bridge shows {owner} at offset {offset:#x} to {initiator}; use memory that one shows", offset = offset.as_u64())]
    NotShown {
        /// The initiator.
        initiator: String,
        /// The owner.
        owner: Owner,
        /// Offset of the range.
        offset: Bytes,
    },
    /// The range would have to be copied, and is device memory, which never is.
    #[error("{owner} at offset {offset:#x} is device memory and would have to be copied for {initiator} ({why}); {next}", offset = offset.as_u64(), next = why.next())]
    MmioNeverBounces {
        /// The initiator.
        initiator: String,
        /// The owner.
        owner: Owner,
        /// Offset of the range.
        offset: Bytes,
        /// Why it would have to be copied.
        why: WhyBounce,
    },
    /// The range would have to be copied, and this initiator asked for that never to happen.
    #[error("{owner} at offset {offset:#x} would have to be copied for {initiator} ({why}), which asked for no copies; {next}", offset = offset.as_u64(), next = why.next())]
    NoBounce {
        /// The initiator.
        initiator: String,
        /// The owner.
        owner: Owner,
        /// Offset of the range.
        offset: Bytes,
        /// Why it would have to be copied.
        why: WhyBounce,
    },
    /// The range would have to be copied, and the context has no pool.
    #[error("{owner} at offset {offset:#x} has to be copied for {initiator} ({why}); give the context a pool, or {next}", offset = offset.as_u64(), next = why.next())]
    NoPool {
        /// The initiator.
        initiator: String,
        /// The owner.
        owner: Owner,
        /// Offset of the range.
        offset: Bytes,
        /// Why it has to be copied.
        why: WhyBounce,
    },
    /// The initiator is not coherent, and its memory is kept for too long for anybody to flush caches.
    #[error("{initiator} is not coherent, and asked for memory that is never synchronised; map {owner} for each use")]
    NotCoherent {
        /// The initiator.
        initiator: String,
        /// The owner.
        owner: Owner,
    },
    /// The pool of copies gave none.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The address space refused.
    #[error(transparent)]
    Space(#[from] MapError),
    /// A later part of the range failed, and an earlier part could not be unmapped again.
    #[error("{cause}; and {still_mapped} stays mapped ({error}) until the mapping is unlinked")]
    Stuck {
        /// What failed first.
        cause: Box<LinkError>,
        /// What stays mapped.
        still_mapped: AddrRange<Iova>,
        /// Why.
        error: UnmapError,
    },
}

/// A number on a bus, of whatever kind, in an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AddressNumber(pub(crate) u64);

impl core::fmt::Display for AddressNumber {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl core::fmt::LowerHex for AddressNumber {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::LowerHex::fmt(&self.0, f)
    }
}

/// Why a range has to be copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum WhyBounce {
    /// It shares a granule with other bytes, which an untrusted initiator must not see.
    SharesGranule,
    /// It lies above the initiator's highest address.
    AboveMask,
    /// No window of the host bridge shows it.
    NotShown,
    /// Everything is copied for this initiator.
    Forced,
    /// The initiator's interface is not accepted by the confidential guest, whose memory is private.
    NotAccepted,
}

impl WhyBounce {
    /// What to do instead.
    const fn next(self) -> &'static str {
        match self {
            Self::SharesGranule => "map whole granules",
            Self::AboveMask => "use memory below the mask",
            Self::NotShown => "use memory that a window shows",
            Self::Forced => "do not force copies",
            Self::NotAccepted => "bring its interface to RUN",
        }
    }
}

impl core::fmt::Display for WhyBounce {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::SharesGranule => "it shares a granule with other bytes, and the initiator is not trusted",
            Self::AboveMask => "it lies above the initiator's mask",
            Self::NotShown => "no window of the host bridge shows it",
            Self::Forced => "copies are forced",
            Self::NotAccepted => "the guest's memory is private, and it has not accepted the initiator's interface",
        })
    }
}

/// Why a list was not linked; nothing of it is, and what was linked before it still is.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("range {index} of the list, {len} of {owner} from offset {offset:#x}: {cause}", offset = offset.as_u64())]
pub struct LinkManyError {
    /// Which range, counted from 0.
    pub index: usize,
    /// Its owner.
    pub owner: Owner,
    /// Its offset.
    pub offset: Bytes,
    /// Its length.
    pub len: Bytes,
    /// What failed.
    #[source]
    pub cause: LinkError,
}

/// Why a mapping did not become visible; it is unmapped.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// Nothing was linked.
    #[error("nothing was linked; link before sync")]
    Empty,
    /// The initiator's list holds fewer segments.
    #[error(
        "the mapping has {segments} segments and {initiator} takes {most}; map less, or memory that is more contiguous"
    )]
    TooManySegments {
        /// The initiator.
        initiator: String,
        /// How many there are.
        segments: usize,
        /// How many fit.
        most: usize,
    },
}

/// Why a list was not mapped; nothing of it is.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MapRangesError {
    /// An owner is not reached.
    #[error(transparent)]
    Refused(Refusal),
    /// The range is no device memory.
    #[error("{owner} is no device's memory; map it with map or map_one")]
    NotPeer {
        /// The owner.
        owner: Owner,
    },
    /// The list was said to be of one kind and is not.
    #[error(
        "the list is not of one kind: {owner}, {at} after its start, is reached otherwise or has other attributes; use map"
    )]
    NotUniform {
        /// The first owner that differs.
        owner: Owner,
        /// Where its run starts in the list.
        at: Bytes,
    },
    /// No IOVAs.
    #[error(transparent)]
    Reserve(#[from] ReserveError),
    /// The one range failed.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A range failed.
    #[error(transparent)]
    LinkMany(#[from] LinkManyError),
    /// It could not become visible.
    #[error(transparent)]
    Sync(#[from] SyncError),
}

/// Why a page was not pointed elsewhere; it leads where it led.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RelinkError {
    /// The range is not one that the mapping maps through IOVAs in whole granules.
    #[error("{len} at {at:#x} of the mapping are not whole granules that are mapped by IOVA without a copy; relink whole granules", at = at.as_u64())]
    NotWhole {
        /// Start in the mapping.
        at: Bytes,
        /// Length.
        len: Bytes,
    },
    /// The new range is of another kind than its neighbours, and the initiator takes no more segments.
    #[error(
        "with another kind of memory in the middle the mapping has {segments} segments and {initiator} takes {most}; relink to the same kind"
    )]
    TooManySegments {
        /// The initiator.
        initiator: String,
        /// How many there would be.
        segments: usize,
        /// How many fit.
        most: usize,
    },
    /// The new range cannot go there.
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// Why a mapping was not unmapped, or not wholly.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnlinkError {
    /// The space refused; all of the range has to be taken as mapped, and its IOVAs are not used again.
    #[error("{still_mapped} stays mapped: {error}")]
    Space {
        /// The range.
        still_mapped: AddrRange<Iova>,
        /// Why.
        error: UnmapError,
    },
    /// Less came out than was mapped: somebody else unmapped a part. Nothing is mapped there now.
    #[error("{unmapped} came out of {iova} and {mapped} were mapped; somebody else unmaps in this address space")]
    Short {
        /// The range.
        iova: AddrRange<Iova>,
        /// How much was mapped.
        mapped: Bytes,
        /// How much came out.
        unmapped: Bytes,
    },
    /// A copy could not be written back, the first of several; the others are.
    #[error("unmapped, but a copy was not written back: {0}")]
    Memory(MemoryError),
}
