//! The range of a pool, what of it is free, and whose the rest is.

use super::class;
use super::error::{AreaError, Full, PutError, Rejected, TooManyOwners};
use super::owner::{Names, Owner};
use super::report::{Live, Report};
use super::tags::{Code, Tags};
use crate::addr::{AddrRange, Bytes, Granule, Iova, ProcVa};
use crate::iova::{Allocator, Arena, Depot, IovaRanges, Want};
use crate::sync::Lock;
use alloc::string::ToString;

/// A part of a pool that is somebody's.
///
/// Having one proves that nobody else has a byte of it. It is worth nothing once dropped, but the pool does not
/// know: put it back, or its part is lost until the pool goes, as a [`Report`] will say.
#[derive(PartialEq, Eq, Debug)]
#[must_use = "a block that is not put back is lost to its pool"]
pub struct Block {
    range: AddrRange<ProcVa>,
    wanted: Bytes,
    owner: Owner,
}

impl Block {
    /// Address of the first byte, for the CPU.
    pub fn address(&self) -> ProcVa {
        self.range.start()
    }

    /// Address of the first byte, for devices: the same number.
    pub fn iova(&self) -> Iova {
        Iova::new(self.range.start().as_u64())
    }

    /// How many bytes were asked for.
    pub fn len(&self) -> Bytes {
        self.wanted
    }

    /// Whether none were asked for; there is memory behind it all the same.
    pub fn is_empty(&self) -> bool {
        self.wanted == Bytes::ZERO
    }

    /// All of the pool that is its owner's by it.
    pub fn range(&self) -> AddrRange<ProcVa> {
        self.range
    }

    /// Who took it.
    pub fn owner(&self) -> Owner {
        self.owner
    }
}

/// Whoever has the lock has the allocator.
#[derive(Debug)]
pub(super) struct Free(Lock<Allocator>);

impl Depot for Free {
    fn with<T>(&self, f: impl FnOnce(&mut Allocator) -> T) -> T {
        self.0.with(f)
    }
}

/// A range of memory that is handed out in blocks.
///
/// There is to be one for a range: blocks are told apart by their addresses.
///
/// # Concurrency
/// Any number of threads; each call takes a lock for as long as the allocator looks. A [`Cache`](super::Cache) to a thread
/// does without, mostly.
///
/// ```
/// use peerdma::addr::{AddrRange, Bytes, Granule, ProcVa};
/// use peerdma::pool::Area;
///
/// let range = AddrRange::new(ProcVa::new(0x7000_0000_0000), Bytes::new(1 << 20)).unwrap();
/// let area = Area::new(range, Area::LINE)?;
/// let rx = area.owner("rx ring")?;
/// let block = area.take(Bytes::new(100), rx)?;
/// assert_eq!(block.iova().as_u64(), block.address().as_u64());
/// assert_eq!(block.range().len(), Bytes::new(128));
/// assert_eq!(area.report().shares()[0].owner, "rx ring");
/// area.put(block).map_err(|rejected| rejected.error)?;
/// assert!(area.report().live().is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Area {
    range: AddrRange<ProcVa>,
    granule: Granule,
    free: Free,
    tags: Tags,
    names: Lock<Names>,
}

impl Area {
    /// A cache line: no two blocks share one, so that a device's write never meets the CPU's in the same line.
    pub const LINE: Granule = match Granule::new(Bytes::new(64)) {
        Some(granule) => granule,
        None => Granule::PAGE_4K,
    };

    /// An area of `range`, with blocks that are multiples of `granule`, all free.
    ///
    /// Costs two bytes for each granule, beside two bits for those partly used.
    ///
    /// # Errors
    /// [`AreaError`]; see there what to change.
    pub fn new(range: AddrRange<ProcVa>, granule: Granule) -> Result<Self, AreaError> {
        let (start, len) = (range.start().as_u64(), range.len().as_u64());
        if !granule.aligns(range.start()) || !granule.divides(range.len()) {
            return Err(AreaError::Unaligned { range, granule });
        }
        let granules = usize::try_from(len / granule.bytes().as_u64());
        let granules = granules.map_err(|_| AreaError::TooLong { range, granule })?;
        let usable = IovaRanges::from_inclusive([(Iova::new(start), Iova::new(range.last().as_u64()))])?;
        let free = Free(Lock::new(Allocator::new(granule, &usable)?));
        Ok(Self { range, granule, free, tags: Tags::new(granules), names: Lock::new(Names::default()) })
    }

    /// What it is made of.
    pub fn range(&self) -> AddrRange<ProcVa> {
        self.range
    }

    /// What blocks are multiples of.
    pub fn granule(&self) -> Granule {
        self.granule
    }

    /// The owner of that name; the same for the same name.
    ///
    /// # Errors
    /// [`TooManyOwners`]; let some share a name.
    pub fn owner(&self, name: &str) -> Result<Owner, TooManyOwners> {
        self.names.with(|names| names.owner(name))
    }

    /// Takes a block of `len` bytes or more, aligned to its length rounded up to a power of two.
    ///
    /// So a block crosses no boundary of that size. No bytes at all take a granule.
    ///
    /// # Errors
    /// [`Full`], and nothing changed.
    pub fn take(&self, len: Bytes, owner: Owner) -> Result<Block, Full> {
        self.take_through(len, owner, |free, want| free.with(|free| free.allocate(want)))
    }

    /// As [`take`](Self::take), with a way to the allocator, which a cache has of its own.
    #[inline]
    pub(super) fn take_through(
        &self,
        len: Bytes,
        owner: Owner,
        allocate: impl FnOnce(&Free, &Want) -> Result<AddrRange<Iova>, crate::iova::Exhausted>,
    ) -> Result<Block, Full> {
        let unit = self.granule.bytes().as_u64();
        let fitting = class::fitting(len.as_u64().div_ceil(unit));
        let length = fitting.and_then(|(granules, code)| Some((granules.checked_mul(unit)?, code)));
        let Some((bytes, code)) = length else {
            // More than any range has: only its own error is left to be found.
            return Err(self.full(len));
        };
        let want = Want::new(Bytes::new(bytes));
        let taken = allocate(&self.free, &want).map_err(|exhausted| {
            let free = self.free.with(|free| free.free_bytes());
            Full::new(len, free, &exhausted)
        })?;
        let range = AddrRange::new(ProcVa::new(taken.start().as_u64()), taken.len());
        let Some(range) = range else { return Err(self.full(len)) };
        self.tags.set(self.index(range.start()), owner, code);
        Ok(Block { range, wanted: len, owner })
    }

    #[cold]
    fn full(&self, wanted: Bytes) -> Full {
        self.free.with(|free| {
            let largest = free.largest_gap(Iova::new(u64::MAX));
            Full { wanted, free: free.free_bytes(), largest }
        })
    }

    /// Takes a block back.
    ///
    /// No device may use it any more: who takes it next is not told that one does.
    ///
    /// # Errors
    /// [`Rejected`] with the block, where it is another pool's.
    pub fn put(&self, block: Block) -> Result<(), Rejected> {
        self.put_through(block, |free, range| free.with(|free| free.free(range)))
    }

    /// As [`put`](Self::put), with a way to the allocator, which a cache has of its own.
    #[inline]
    pub(super) fn put_through(
        &self,
        block: Block,
        free: impl FnOnce(&Free, AddrRange<Iova>) -> Result<(), crate::iova::FreeError>,
    ) -> Result<(), Rejected> {
        let reject = |block: Block| {
            let error = PutError { range: block.range, pool: self.range };
            Err(Rejected { block, error })
        };
        // By its addresses, since memory is cut into blocks by one area only.
        let numbers = AddrRange::new(Iova::new(block.range.start().as_u64()), block.range.len());
        let Some(numbers) = numbers.filter(|_| self.range.contains_range(&block.range)) else { return reject(block) };
        // Before it is free, since whoever takes it next says whose it is.
        self.tags.clear(self.index(block.range.start()));
        // The allocator knows it, unless somebody has two areas of one range.
        free(&self.free, numbers).or_else(|_| reject(block))
    }

    /// Gives back what a cache keeps.
    pub(super) fn drain(&self, arena: &mut Arena) {
        // Only blocks of this area are in its caches.
        let _ = arena.drain(&self.free);
    }

    /// What is whose.
    ///
    /// Looks at every granule, and takes no lock meanwhile.
    pub fn report(&self) -> Report {
        let free = self.free.with(|free| free.free_bytes());
        let unit = self.granule.bytes().as_u64();
        let said = self.tags.said().filter_map(|(at, owner, code)| Some((self.at(at, code, unit)?, owner)));
        let live = said.map(|(range, owner)| {
            let owner = self.names.with(|names| names.of(owner).to_string());
            Live { range, owner }
        });
        Report { size: self.range.len(), free, live: live.collect() }
    }

    fn at(&self, index: usize, code: Code, unit: u64) -> Option<AddrRange<ProcVa>> {
        let offset = (index as u64).checked_mul(unit)?;
        self.range.slice(Bytes::new(offset), Bytes::new(class::granules(code).checked_mul(unit)?))
    }

    fn index(&self, at: ProcVa) -> usize {
        // Within the range, whose granules are counted in a usize.
        ((at.as_u64() - self.range.start().as_u64()) / self.granule.bytes().as_u64()) as usize
    }
}
