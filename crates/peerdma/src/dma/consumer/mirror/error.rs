//! Why a page is not in, or not out.

use crate::addr::{AddrRange, Bytes, Granule, Iova};
use crate::dma::error::{MapError, UnmapError};
use crate::dma::owner::{Owner, ResolveError};
use crate::dma::reach::Refusal;
use crate::dma::span::DeviceAddress;
use alloc::string::String;

/// Why there is no mirror.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MirrorError {
    /// Nobody flushes caches page by page (`hmm_dma_map_alloc`: EOPNOTSUPP).
    #[error(
        "accesses of {initiator} are not snooped, and a mirror's pages are never synchronised; map for each transfer instead"
    )]
    NotCoherent {
        /// The initiator.
        initiator: String,
    },
    /// The window is not made of whole pages, or of more than this machine counts.
    #[error("the window {window} is not made of whole pages of {page}")]
    NotWholePages {
        /// The IOVAs that were given.
        window: AddrRange<Iova>,
        /// The size of a page.
        page: Granule,
    },
    /// The initiator cannot form all of the window's addresses.
    #[error("{initiator} cannot form all addresses of the window {window}; reserve it below its mask")]
    AboveMask {
        /// The initiator.
        initiator: String,
        /// The IOVAs that were given.
        window: AddrRange<Iova>,
    },
}

/// Why a page was not put in.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FaultError {
    /// The window has no such page.
    #[error("there is no page {index} in a window of {count} pages")]
    NoSuchPage {
        /// Index that was asked for.
        index: usize,
        /// Number of pages.
        count: usize,
    },
    /// The chunk is not one whole page.
    #[error("{chunk} at offset {offset:#x} are not one page of {page}", offset = offset.as_u64())]
    NotOnePage {
        /// Its length.
        chunk: Bytes,
        /// Where in its owner it begins.
        offset: Bytes,
        /// The size of a page.
        page: Granule,
    },
    /// The page shows other bytes; invalidate it first.
    #[error("page {index} still shows {owner} at offset {offset:#x}; invalidate it first", offset = offset.as_u64())]
    Shown {
        /// The page.
        index: usize,
        /// Whose memory it shows.
        owner: Owner,
        /// Where in the owner.
        offset: Bytes,
    },
    /// The owner is not reached.
    #[error(transparent)]
    Refused(Refusal),
    /// The owner's bytes cannot be named to the address space.
    #[error(transparent)]
    NoSource(ResolveError),
    /// The page does not lie in one piece.
    #[error("the page of {owner} at offset {offset:#x} is in pieces, the first of {first}; use smaller pages", offset = offset.as_u64())]
    InPieces {
        /// The owner.
        owner: Owner,
        /// Where the page begins.
        offset: Bytes,
        /// Length of the first piece.
        first: Bytes,
    },
    /// No window of the host bridge shows the memory.
    #[error("no window of the host bridge shows {owner} at offset {offset:#x} to devices", offset = offset.as_u64())]
    NotShown {
        /// The owner.
        owner: Owner,
        /// Where the page begins.
        offset: Bytes,
    },
    /// The initiator cannot form the address.
    #[error("{address} is above the initiator's mask, and a mirror copies nothing")]
    AboveMask {
        /// The address of the page.
        address: DeviceAddress,
    },
    /// The page lies past the end of all bus addresses.
    #[error("{owner} has no bus address at offset {offset:#x}", offset = offset.as_u64())]
    Wraps {
        /// The owner.
        owner: Owner,
        /// Where the page begins.
        offset: Bytes,
    },
    /// The address space refused the page.
    #[error(transparent)]
    Map(MapError),
    /// The page could not be taken out to be widened; it is as it was.
    #[error(transparent)]
    Unmap(UnmapError),
    /// The page was taken out to be widened and not taken in again; it is out.
    #[error("the page is out, since the address space did not take it back with more permissions: {0}")]
    Widen(MapError),
}

/// Why pages were not taken out.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidateError {
    /// The window has no such pages.
    #[error("pages {first} up to {end} are not all in a window of {count} pages")]
    NoSuchPages {
        /// First page that was asked for.
        first: usize,
        /// Last page that was asked for, exclusive.
        end: usize,
        /// Number of pages.
        count: usize,
    },
    /// The address space did not unmap a page.
    #[error("pages {first} up to {end} are still as they were: {error}")]
    Unmap {
        /// First page that was not taken out.
        first: usize,
        /// Last page that was asked for, exclusive.
        end: usize,
        /// The address space's answer.
        error: UnmapError,
    },
}
