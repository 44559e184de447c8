//! Memory that stays where it is, at one address for the CPU and for devices, handed out in blocks.
//!
//! ```
//! use peerdma::addr::Bytes;
//! use peerdma_linux::pin::Pinner;
//! use peerdma_linux::pool::{Options, Pool, Stay};
//!
//! # if Pinner::new().is_err() { return Ok(()) }
//! let pool = Pool::new(Bytes::new(1 << 20), Options::new(Stay::Pinned(Pinner::new()?)))?;
//! let rx = pool.owner("rx ring")?;
//! let buffer = pool.take(Bytes::new(1500), rx)?;
//! buffer.write(Bytes::ZERO, b"payload")?;
//! assert_eq!(buffer.iova().as_u64(), buffer.address().as_u64());
//! drop(buffer);
//! assert!(pool.report().live().is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - [`Options`] and [`Stay`]: what holds the memory in its place, and which pages it is made of; `region` maps it.
//! - `gaps`: which addresses are free, for a pool that lies where [all its devices](Options::device) reach it.
//! - [`Buffer`] is a part that somebody has, [`Cache`] a thread's own stock.
//! - [`Attached`] is the pool in a device's address space, for as long as it lives.
//!
//! Who has what is [`peerdma::pool`]'s to say.
//!
//! # Two charges
//! An address space that pins what it maps (VFIO type1, iommufd) charges for it once more, by its own rule; see
//! [`peerdma::pin`] for what that comes to.

mod attached;
mod buffer;
mod error;
mod gaps;
mod options;
mod region;
#[cfg(test)]
mod tests;

pub use attached::Attached;
pub use buffer::{Buffer, Cache};
pub use error::{AttachError, BufferError, DetachError, NotAttached, PoolError};
pub use options::{Options, Pages, Stay};
pub use region::Region;

use crate::pin::Pin;
use peerdma::addr::{AddrRange, Bytes, ProcVa};
use peerdma::dma::IoSpace;
use peerdma::pool::{Area, Full, Owner, Reach, Report, TooManyOwners};
use std::sync::Arc;

/// What a pool is made of, in the order in which it goes: no block is left when the pin is let go, and no pin
/// when the memory is unmapped.
#[derive(Debug)]
struct Inner {
    area: Arc<Area>,
    /// What keeps the memory in its place; hugetlb pages need none.
    pin: Option<Pin>,
    region: Arc<Region>,
}

/// Memory that stays where it is, in blocks.
///
/// Copies share it. It goes with the last of them, of its buffers, its caches and its attachments.
///
/// # Concurrency
/// Any number of threads. Taking and putting back take a lock; a [`Cache`] to a thread does without, mostly.
///
/// # Fork
/// A child has no memory at the pool's addresses (`MADV_DONTFORK`): else the kernel would copy all pinned pages at each
/// fork. A child's accesses to buffers are refused ([`BufferError::Forked`]); what it drops stays the parent's, and what the child
/// has mapped at the pool's addresses stays the child's.
#[derive(Clone, Debug)]
pub struct Pool {
    inner: Arc<Inner>,
}

impl Pool {
    /// Makes a pool of `size` bytes, rounded up to whole pages of the kind it is made of.
    ///
    /// Blocks while memory is found and zeroed, about 0.1 s for each GiB.
    ///
    /// # Errors
    /// [`PoolError`]; nothing is mapped or pinned then.
    pub fn new(size: Bytes, options: Options) -> Result<Self, PoolError> {
        let region = Arc::new(Region::map(size, &options)?);
        let pin = match &options.stay {
            Stay::Pinned(pinner) | Stay::PinnedHugetlb(pinner) => Some(pinner.pin(Arc::clone(&region))?),
            Stay::Hugetlb => None,
        };
        let area = Arc::new(Area::new(region.range(), options.granule)?);
        Ok(Self { inner: Arc::new(Inner { area, pin, region }) })
    }

    /// Where it lies, for the CPU and in the same numbers for devices.
    pub fn range(&self) -> AddrRange<ProcVa> {
        self.inner.region.range()
    }

    /// The memory itself, for whoever maps or registers all of it; it stays mapped while that is held.
    pub fn region(&self) -> &Arc<Region> {
        &self.inner.region
    }

    /// Which pages it is made of.
    pub fn pages(&self) -> Pages {
        self.inner.region.pages()
    }

    /// What keeps it in its place; nothing where hugetlb pages do.
    pub fn pin(&self) -> Option<&Pin> {
        self.inner.pin.as_ref()
    }

    /// The owner of that name; the same for the same name.
    ///
    /// # Errors
    /// [`TooManyOwners`]; let some share a name.
    pub fn owner(&self, name: &str) -> Result<Owner, TooManyOwners> {
        self.inner.area.owner(name)
    }

    /// Takes a block of `len` bytes, aligned to its length rounded up to a power of two.
    ///
    /// It holds whatever its last owner left; a new pool holds zeros.
    ///
    /// # Errors
    /// [`Full`], and nothing changed.
    pub fn take(&self, len: Bytes, owner: Owner) -> Result<Buffer, Full> {
        let block = self.inner.area.take(len, owner)?;
        Ok(Buffer::new(Arc::clone(&self.inner), block))
    }

    /// A thread's own way to the pool.
    pub fn cache(&self) -> Cache {
        Cache::new(Arc::clone(&self.inner))
    }

    /// What of it is whose. What is in it when nobody should have anything was lost.
    pub fn report(&self) -> Report {
        self.inner.area.report()
    }

    /// Maps the whole pool into a device's address space, at its own address.
    ///
    /// `reach` is what the device reaches; of its reasons against the pool the first is told. Blocks while the space maps.
    ///
    /// # Errors
    /// [`AttachError`], with the space in it; nothing is mapped then. [A pool that is made for its
    /// devices](Options::device) lies where all of them reach it.
    pub fn attach<S: IoSpace>(&self, space: S, reach: &Reach) -> Result<Attached<S>, AttachError<S>> {
        Attached::new(Arc::clone(&self.inner), space, reach)
    }
}
