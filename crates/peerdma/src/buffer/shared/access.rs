//! What is done with a mapped buffer, by each way of access and within its bounds.
//!
//! All ways ask the same questions first, in one place: whether the attachment was settled for that way, whether the
//! mapping permits it, and whether all of it lies in the buffer. Linux leaves the last one to each importer: a
//! scatterlist says where memory is, and nothing says where the buffer ends.
//!
//! What an importer makes of a mapping must be gone before the mapping is. [`InUse`] keeps that order.

use super::Mapped;
use crate::access::Prot;
use crate::addr::{Bytes, Granule};
use crate::buffer::terms::Methods;
use crate::chunk::{Chunk, View};
use crate::dma::consumer::Stage2;
use crate::dma::consumer::stage2::{Access, Guest, GuestFrame, Stage2Error};
use crate::dma::{Context, Depot, IoSpace, MapRangesError, Mapping, Owner, Owners};
use core::fmt;
use core::ops::{Deref, DerefMut};

/// Bytes of a buffer: `at..at + len`, counted from its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Part {
    /// The first.
    pub at: Bytes,
    /// How many.
    pub len: Bytes,
}

impl Part {
    /// `len` bytes from `at`.
    pub const fn new(at: Bytes, len: Bytes) -> Self {
        Self { at, len }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from byte {:#x}", self.len, self.at.as_u64())
    }
}

/// Why a mapped buffer was not accessed so.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// It is no part of the buffer, or empty.
    #[error("the buffer has {buffer}, and {part} is no part of it; stay within the buffer")]
    Beyond {
        /// What was asked for.
        part: Part,
        /// The buffer's length.
        buffer: Bytes,
    },
    /// Terms are for another way of access.
    #[error("the terms are for {settled}, and this needs {needed}; attach for it")]
    Method {
        /// What is needed.
        needed: Methods,
        /// What was settled.
        settled: Methods,
    },
    /// The mapping is for less.
    #[error(
        "the mapping is for {permitted}, and this needs {needed}; attach for it, or map when it is permitted again"
    )]
    Permission {
        /// What is needed.
        needed: Prot,
        /// What the mapping permits.
        permitted: Prot,
    },
    /// It lies in more than one range, and is to be one page.
    #[error("{part} is in {ranges} ranges, and one page is in one; use smaller pages")]
    Scattered {
        /// What was asked for.
        part: Part,
        /// In how many ranges it is.
        ranges: usize,
    },
    /// The mapping engine refuses it.
    #[error(transparent)]
    Dma(#[from] MapRangesError),
    /// It has no place in a guest's tables.
    #[error(transparent)]
    Frames(#[from] Stage2Error),
}

impl Mapped {
    /// A part of the buffer, for whoever reaches it by `method` to do `needed` with it.
    fn part(&self, method: Methods, needed: Prot, part: Part) -> Result<View<'_, Owner>, AccessError> {
        let (settled, permitted) = (self.terms().methods(), self.prot());
        if !settled.contains(method) {
            return Err(AccessError::Method { needed: method, settled });
        }
        if needed.within(permitted) != Some(needed) {
            return Err(AccessError::Permission { needed, permitted });
        }
        let ranges = self.ranges();
        ranges.slice(part.at, part.len).ok_or(AccessError::Beyond { part, buffer: ranges.len() })
    }

    /// Maps a part for a device, with everything that the mapping permits.
    ///
    /// What it gives is to be gone before this is; see [`with`](Self::with).
    ///
    /// # Errors
    /// [`AccessError`]; nothing is mapped then.
    pub fn by_dma<'c, 'a, S: IoSpace, D: Depot>(
        &self,
        context: &'c Context<'a, S, D>,
        part: Part,
    ) -> Result<Mapping<'c, 'a, S, D>, AccessError> {
        let view = self.part(Methods::DMA, self.prot(), part)?;
        Ok(context.map(view, self.prot())?)
    }

    /// One page of the buffer, for a [`Mirror`](crate::dma::consumer::Mirror) to show to a device that faults.
    ///
    /// # Errors
    /// [`AccessError`]; [`AccessError::Scattered`] where a page of this size is no piece of memory.
    pub fn page(&self, at: Bytes, size: Granule) -> Result<Chunk<Owner>, AccessError> {
        let part = Part::new(at, size.bytes());
        let view = self.part(Methods::DMA, self.prot(), part)?;
        let mut ranges = view.iter();
        match (ranges.next(), ranges.count()) {
            (Some(page), 0) => Ok(page),
            (_, others) => Err(AccessError::Scattered { part, ranges: others + 1 }),
        }
    }

    /// Runs of physical pages of a part, for the second stage of a guest that sees it from `guest` on.
    ///
    /// # Errors
    /// [`AccessError`]; nothing is to be entered then. Tables cannot say that memory may only be written, so a mapping
    /// for writing alone is refused.
    pub fn by_frames<'m, F: Clone>(
        &'m self,
        owners: &'m Owners<F>,
        part: Part,
        guest: GuestFrame,
        whose: Guest,
    ) -> Result<Stage2<'m, F>, AccessError> {
        let access = if self.prot().writes() { Access::ReadWrite } else { Access::ReadOnly };
        let needed = if self.prot().writes() { Prot::ReadWrite } else { Prot::Read };
        let view = self.part(Methods::FRAMES, needed, part)?;
        Ok(Stage2::new(view, owners, guest, access, whose)?)
    }

    /// Lets the CPU do `needed` with a part, for as long as `access` runs.
    ///
    /// `access` gets the ranges, which the exporter's own mapping leads to: this crate follows no address.
    ///
    /// # Errors
    /// [`AccessError`]; `access` has not run then.
    pub fn by_cpu<R>(
        &self,
        needed: Prot,
        part: Part,
        access: impl FnOnce(View<'_, Owner>) -> R,
    ) -> Result<R, AccessError> {
        self.part(Methods::CPU, needed, part).map(access)
    }

    /// Keeps what was made of the mapping together with it, so that it goes first.
    pub fn with<T>(self, what: T) -> InUse<T> {
        InUse { what, mapped: self }
    }
}

/// What an importer made of a mapping, and the mapping: a device's addresses, a guest's entries, all of them at once.
///
/// # What holding this tells you
/// The buffer is not quiet. Dropping it takes down what was made first, and then says so.
#[must_use = "dropping it says that nothing reaches the memory any more"]
pub struct InUse<T> {
    // Fields are dropped in this order.
    what: T,
    mapped: Mapped,
}

impl<T> InUse<T> {
    /// The mapping of the buffer.
    pub fn mapped(&self) -> &Mapped {
        &self.mapped
    }

    /// Adds to what was made of the mapping.
    pub fn and<U>(self, more: U) -> InUse<(T, U)> {
        InUse { what: (self.what, more), mapped: self.mapped }
    }
}

impl<T> Deref for InUse<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.what
    }
}

impl<T> DerefMut for InUse<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.what
    }
}

impl<T> fmt::Debug for InUse<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, in use", self.mapped)
    }
}
