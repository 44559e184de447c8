//! A pool in the address space of a device.

use super::Inner;
use super::error::{AttachError, DetachError, NotAttached};
use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::{AddrRange, Iova};
use peerdma::dma::{IoSpace, Source, UnmapError};
use peerdma::pool::Reach;
use std::mem;
use std::sync::Arc;

/// A pool that a device reaches, at the CPU's addresses.
///
/// *What holding this tells you*: the space maps all of the pool, and the pool's memory stays mapped and pinned.
///
/// Dropped, it takes the pool out of the space; the device must have stopped by then. If the space does not let go of
/// it, the memory is kept for good.
#[derive(Debug)]
pub struct Attached<S: IoSpace> {
    /// There until it is taken out.
    space: Option<S>,
    iova: AddrRange<Iova>,
    pool: Arc<Inner>,
}

impl<S: IoSpace> Attached<S> {
    pub(super) fn new(pool: Arc<Inner>, mut space: S, reach: &Reach) -> Result<Self, AttachError<S>> {
        let range = pool.region.range();
        if let Some(obstacle) = reach.obstacle(&range) {
            return Err(AttachError { space, why: NotAttached::Unreachable(obstacle) });
        }
        let Some(iova) = AddrRange::new(Iova::new(range.start().as_u64()), range.len()) else {
            unreachable!("a range of one kind of address is one of another")
        };
        match space.map(iova, &Source::Process(range.start()), Prot::ReadWrite, MemAttrs::empty()) {
            Ok(()) => Ok(Self { space: Some(space), iova, pool }),
            Err(error) => Err(AttachError { space, why: error.into() }),
        }
    }

    /// What the device is told: the pool's own addresses.
    pub fn iova(&self) -> AddrRange<Iova> {
        self.iova
    }

    /// Takes the pool out of the space, and hands that back. Blocks while the space unmaps.
    ///
    /// # Errors
    /// [`DetachError`]: the pool's memory is kept for good, since the device may still use it.
    pub fn detach(mut self) -> Result<S, DetachError<S>> {
        let Some(mut space) = self.space.take() else { unreachable!("only this call and drop take it") };
        match self.unmap(&mut space) {
            Ok(()) => Ok(space),
            Err(error) => Err(DetachError { space, error }),
        }
    }

    fn unmap(&self, space: &mut S) -> Result<(), UnmapError> {
        let unmapped = space.unmap(self.iova).map(|_| ());
        if unmapped.is_err() {
            mem::forget(Arc::clone(&self.pool));
        }
        unmapped
    }
}

impl<S: IoSpace> Drop for Attached<S> {
    fn drop(&mut self) {
        if let Some(mut space) = self.space.take() {
            // What it would not let go of is kept, and there is nobody to tell.
            let _ = self.unmap(&mut space);
        }
    }
}
