//! Blocks that one thread keeps at hand.

use super::area::{Area, Block};
use super::error::{Full, Rejected};
use super::owner::Owner;
use crate::addr::Bytes;
use crate::iova::Arena;
use alloc::sync::Arc;

/// One thread's way to an [`Area`].
///
/// What is put back here is kept and handed out again without a lock, up to 512 granules a block and some megabytes in
/// all; the rest goes to the area. Blocks may be taken through one cache and put back through another. Dropped, it gives
/// back what it keeps.
///
/// ```
/// use peerdma::addr::{AddrRange, Bytes, ProcVa};
/// use peerdma::pool::{Area, Cache};
/// use std::sync::Arc;
///
/// let range = AddrRange::new(ProcVa::new(0x7000_0000_0000), Bytes::new(1 << 20)).unwrap();
/// let area = Arc::new(Area::new(range, Area::LINE)?);
/// let tx = area.owner("tx ring")?;
/// let mut cache = Cache::new(Arc::clone(&area));
/// let block = cache.take(Bytes::new(1500), tx)?;
/// let first = block.address();
/// cache.put(block).map_err(|rejected| rejected.error)?;
/// assert_eq!(cache.take(Bytes::new(1500), tx)?.address(), first, "the one put back last");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Cache {
    area: Arc<Area>,
    arena: Arena,
}

/// What a cache keeps of a pool, at most: a sixteenth, and no more than 8 MiB.
const MOST: u64 = 8 << 20;

impl Cache {
    /// A cache that keeps nothing yet.
    pub fn new(area: Arc<Area>) -> Self {
        let most = (area.range().len().as_u64() / 16).min(MOST);
        Self { area, arena: Arena::keeping(Bytes::new(most)) }
    }

    /// The area behind it.
    pub fn area(&self) -> &Arc<Area> {
        &self.area
    }

    /// Takes a block, as [`Area::take`] does.
    ///
    /// # Errors
    /// [`Full`], after all that was kept here went back to the area.
    #[inline]
    pub fn take(&mut self, len: Bytes, owner: Owner) -> Result<Block, Full> {
        let arena = &mut self.arena;
        self.area.take_through(len, owner, |free, want| arena.allocate(free, want))
    }

    /// Takes a block back, as [`Area::put`] does.
    ///
    /// # Errors
    /// [`Rejected`] with the block, where it is another pool's.
    #[inline]
    pub fn put(&mut self, block: Block) -> Result<(), Rejected> {
        let arena = &mut self.arena;
        self.area.put_through(block, |free, range| arena.free(free, range))
    }

    /// What it keeps.
    pub fn held(&self) -> Bytes {
        self.arena.held()
    }

    /// Gives back all that it keeps, for a thread that will rest.
    pub fn drain(&mut self) {
        self.area.drain(&mut self.arena);
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        self.drain();
    }
}
