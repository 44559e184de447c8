//! Registered memory.

use super::endpoint::RemoteRange;
use crate::pin::Steady;
use crate::sys::verbs::{Registration, queue::Segment};
use peerdma::addr::{AddrRange, Bytes, Iova};
use peerdma::pin::Charge;
use rustix::io::Errno;
use std::fmt;
use std::mem;
use std::sync::Arc;

/// Memory that an adapter reaches, and peers to whom its key was given.
///
/// *What holding this tells you*: the memory stays mapped, and pinned where it is this process's.
///
/// Dropped, it is deregistered, and then the memory goes: no work that is still under way reaches it. If the adapter does
/// not let go of it, the memory and its charge are kept for good.
#[must_use = "memory is registered while the value lives"]
pub struct Region {
    raw: Registration,
    range: AddrRange<Iova>,
    memory: Option<Arc<dyn Steady>>,
    charge: Option<Charge>,
}

/// Bytes were asked for that the region does not have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{len} at offset {offset:#x} are no part of a region of {size}", offset = offset.as_u64())]
pub struct BeyondRegion {
    /// Where the part starts.
    pub offset: Bytes,
    /// How long it is.
    pub len: Bytes,
    /// How long the region is.
    pub size: Bytes,
}

impl Region {
    pub(super) fn new<M: Steady + 'static>(
        raw: Registration,
        range: AddrRange<Iova>,
        memory: Arc<M>,
        charge: Option<Charge>,
    ) -> Self {
        Self { raw, range, memory: Some(memory), charge }
    }

    /// Of memory that its exporter keeps.
    pub(super) fn of_exporter(raw: Registration, range: AddrRange<Iova>) -> Self {
        Self { raw, range, memory: None, charge: None }
    }

    /// Which addresses, as the adapter sees them; of memory of this process its own.
    pub fn range(&self) -> AddrRange<Iova> {
        self.range
    }

    /// All of it, with its key, for a peer. Whoever has it may do what the region was registered for.
    pub fn remote(&self) -> RemoteRange {
        RemoteRange::new(self.range, self.raw.keys().1)
    }

    /// A part, for work of this side's.
    ///
    /// # Errors
    /// [`BeyondRegion`], also for no bytes.
    pub fn part(&self, offset: Bytes, len: Bytes) -> Result<Part<'_>, BeyondRegion> {
        let range = self.range.slice(offset, len).ok_or(BeyondRegion { offset, len, size: self.range.len() })?;
        Ok(Part { region: self, range })
    }

    /// Deregisters it. Blocks until no device reaches it any more.
    ///
    /// # Errors
    /// What the library answers; memory and charge are kept for good then.
    pub fn deregister(mut self) -> Result<(), Errno> {
        self.close()
    }

    fn close(&mut self) -> Result<(), Errno> {
        let closed = self.raw.close();
        if closed.is_err() {
            mem::forget((self.memory.take(), self.charge.take()));
        }
        closed
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // What the adapter would not let go of is kept, and there is nobody to tell.
        let _ = self.close();
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Region {}", self.range)
    }
}

/// A part of a region, to post work with.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    region: &'a Region,
    range: AddrRange<Iova>,
}

impl Part<'_> {
    /// How many bytes.
    pub fn len(&self) -> Bytes {
        self.range.len()
    }

    /// Always false; there is at least one byte.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// As the adapter is told; `None` where it is longer than one piece of work may be.
    pub(super) fn segment(&self) -> Option<Segment> {
        let length = u32::try_from(self.range.len().as_u64()).ok()?;
        Some(Segment { address: self.range.start().as_u64(), length, key: self.region.raw.keys().0 })
    }
}
