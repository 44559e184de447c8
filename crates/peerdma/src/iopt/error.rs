//! Why a table was not made, a range not mapped, a leaf not split or replaced.
//!
//! Numbers are Linux's where it has one ([`MapFaultKind::linux_errno`]); ours say which of the
//! causes of a number it was.

use super::format::Family;
use crate::addr::{Bytes, Iova, PhysAddr};

/// Why a table could not be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// The memory gave no frames for the root.
    #[error("no memory for a root of {frames} frames in a row")]
    NoMemory {
        /// How many, aligned to as many.
        frames: usize,
    },
    /// The memory allocated frames that it does not know, or that are not aligned to their number.
    #[error("the memory allocated a root at {at} that is not made of aligned table frames of its own")]
    BadFrame {
        /// What it allocated.
        at: PhysAddr,
    },
}

/// A range was not mapped; nothing of it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("cannot map {at}: {kind} ({mapped_before} before it were unmapped again)")]
pub struct MapFault {
    /// What was wrong.
    pub kind: MapFaultKind,
    /// Where: the first IOVA that could not be mapped.
    pub at: Iova,
    /// How much of the range was mapped when it failed, and was unmapped again.
    pub mapped_before: Bytes,
}

/// What was wrong with a range that was to be mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MapFaultKind {
    /// IOVA, physical address or length is no multiple of the smallest page.
    #[error("IOVA, physical address and length must be multiples of the smallest page")]
    Misaligned,
    /// The IOVA is not translated by the table, or the range crosses from one half to the other.
    #[error("the table does not translate that IOVA; see the shape of its format")]
    IovaOutOfRange,
    /// The physical range ends beyond what the format or the options hold.
    #[error("the physical range does not fit the output width of the table")]
    PhysOutOfRange,
    /// The table takes no read-only mappings.
    #[error("the table takes no read-only mappings; map it writeable")]
    ReadOnlyRefused,
    /// Something is mapped there, and mapping never replaces.
    #[error("something is mapped there; unmap it first")]
    AlreadyMapped,
    /// There is no frame for another table, or none that an entry can point to.
    #[error("no memory for another table")]
    NoMemory,
    /// An entry on the way is damaged: nothing the format allows, or a table that the memory does not know.
    #[error("an entry on the way is damaged")]
    BadEntry,
}

impl MapFaultKind {
    /// The name of the error that Linux returns for it.
    pub const fn linux_errno(self, family: Family) -> &'static str {
        match (self, family) {
            (Self::Misaligned, Family::GenericPt) => "ENXIO",
            (Self::Misaligned, Family::IoPgtable) | (Self::ReadOnlyRefused, _) => "EINVAL",
            (Self::IovaOutOfRange | Self::PhysOutOfRange, _) => "ERANGE",
            (Self::AlreadyMapped, Family::GenericPt) => "EADDRINUSE",
            (Self::AlreadyMapped, Family::IoPgtable) => "EEXIST",
            (Self::NoMemory, _) => "ENOMEM",
            (Self::BadEntry, _) => "EINVAL",
        }
    }
}

/// Why a leaf was not split; nothing has changed for any device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SplitError {
    /// The place is no multiple of the smallest page.
    #[error("cannot split at {at}: leaves end at multiples of {page}")]
    Misaligned {
        /// Where.
        at: Iova,
        /// The smallest page.
        page: Bytes,
    },
    /// The table does not translate the place.
    #[error("cannot split at {at}: the table does not translate that IOVA")]
    IovaOutOfRange {
        /// Where.
        at: Iova,
    },
    /// The table has no smaller page to split into.
    #[error("cannot split at {at}: the page sizes of the table do not reach below {page}")]
    NoSmallerPage {
        /// Where.
        at: Iova,
        /// Size of the leaf around it.
        page: Bytes,
    },
    /// There is no frame for another table.
    #[error("cannot split at {at}: no memory for another table")]
    NoMemory {
        /// Where.
        at: Iova,
    },
    /// An entry on the way is damaged.
    #[error("cannot split at {at}: an entry on the way is damaged")]
    BadEntry {
        /// Where.
        at: Iova,
    },
}

/// Why leaves were not replaced; all are as before.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplaceError {
    /// IOVA, physical address or length is no multiple of the smallest page.
    #[error("cannot replace at {at}: IOVA, physical address and length must be multiples of the smallest page")]
    Misaligned {
        /// Start of the range.
        at: Iova,
    },
    /// Not translated by the table, or beyond its output width.
    #[error("cannot replace at {at}: outside of what the table translates or puts out")]
    OutOfRange {
        /// Start of the range.
        at: Iova,
    },
    /// Nothing is mapped there.
    #[error("cannot replace at {at}: nothing is mapped there; map it")]
    NotMapped {
        /// The first page that is not.
        at: Iova,
    },
    /// A leaf reaches beyond the range.
    #[error("cannot replace at {at}: a leaf of {page} reaches beyond the range; split it there first")]
    Crosses {
        /// Where in the range that leaf is met.
        at: Iova,
        /// Its size.
        page: Bytes,
    },
    /// The new physical address does not fit the leaf's page size.
    #[error("cannot replace at {at}: {to} is no multiple of the {page} of the leaf there; split it first")]
    SourceMisaligned {
        /// Where.
        at: Iova,
        /// The physical address.
        to: PhysAddr,
        /// Size of the leaf.
        page: Bytes,
    },
    /// The table takes no read-only mappings.
    #[error("cannot replace at {at}: the table takes no read-only mappings")]
    ReadOnlyRefused {
        /// Start of the range.
        at: Iova,
    },
    /// An entry on the way is damaged.
    #[error("cannot replace at {at}: an entry on the way is damaged")]
    BadEntry {
        /// Where.
        at: Iova,
    },
}

/// Why there is no answer which pages are dirty.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirtyFault {
    /// Devices leave no mark in entries of this format.
    #[error("devices leave no mark in entries of this format")]
    NotTracked,
    /// The table does not translate that range.
    #[error("the table does not translate {at}")]
    IovaOutOfRange {
        /// Start of the range.
        at: Iova,
    },
    /// An entry on the way is damaged; what was reported before it stands.
    #[error("an entry on the way to {at} is damaged")]
    BadEntry {
        /// Where.
        at: Iova,
    },
}

impl DirtyFault {
    /// The name of the error that Linux returns for it.
    pub const fn linux_errno(self, family: Family) -> &'static str {
        match (self, family) {
            (Self::NotTracked, Family::GenericPt) => "EOPNOTSUPP",
            (Self::NotTracked, Family::IoPgtable) | (Self::BadEntry { .. }, _) => "EINVAL",
            (Self::IovaOutOfRange { .. }, Family::GenericPt) => "ERANGE",
            (Self::IovaOutOfRange { .. }, Family::IoPgtable) => "EINVAL",
        }
    }
}
