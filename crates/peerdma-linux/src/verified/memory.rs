//! The two ends of a transfer: each as its owner's CPU sees it and as the initiator does.

use super::GUARD;
use super::delivery::{Damage, Side};
use crate::memory::{BeyondPages, Pages, page_size};
use crate::vfio::{AccessError, BarMapping};
use peerdma::addr::{AddrRange, Bytes, Iova};

/// Memory as the CPU reads and writes it, by offsets of its own.
pub trait CpuView {
    /// First offset and the one past the last that the CPU reaches.
    fn extent(&self) -> (Bytes, Bytes);

    /// Copies bytes out.
    ///
    /// # Errors
    /// [`CpuAccess`], with nothing read, if they are not all within the extent.
    fn read(&self, offset: Bytes, into: &mut [u8]) -> Result<(), CpuAccess>;

    /// Copies bytes in.
    ///
    /// # Errors
    /// [`CpuAccess`], with nothing written, if they are not all within the extent.
    fn write(&self, offset: Bytes, from: &[u8]) -> Result<(), CpuAccess>;
}

/// Why the CPU cannot reach what it was to read or write.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CpuAccess {
    /// Outside what is mapped of a BAR.
    #[error(transparent)]
    Bar(#[from] AccessError),
    /// Outside process memory.
    #[error(transparent)]
    Pages(#[from] BeyondPages),
    /// A sum of address and length is past 64 bits.
    #[error("the range's addresses run past 64 bits")]
    Wraps,
}

impl CpuView for BarMapping {
    fn extent(&self) -> (Bytes, Bytes) {
        (self.window().offset(), self.window().end())
    }

    fn read(&self, offset: Bytes, into: &mut [u8]) -> Result<(), CpuAccess> {
        Ok(BarMapping::read(self, offset, into)?)
    }

    fn write(&self, offset: Bytes, from: &[u8]) -> Result<(), CpuAccess> {
        Ok(BarMapping::write(self, offset, from)?)
    }
}

impl CpuView for Pages {
    fn extent(&self) -> (Bytes, Bytes) {
        (Bytes::ZERO, self.len())
    }

    fn read(&self, offset: Bytes, into: &mut [u8]) -> Result<(), CpuAccess> {
        Ok(Pages::read(self, offset, into)?)
    }

    fn write(&self, offset: Bytes, from: &[u8]) -> Result<(), CpuAccess> {
        Ok(Pages::write(self, offset, from)?)
    }
}

/// A range of the target's memory: where its CPU sees it, and where the initiator does.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    memory: &'a dyn CpuView,
    start: Bytes,
    iova: AddrRange<Iova>,
}

impl std::fmt::Debug for Target<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("start", &self.start).field("iova", &self.iova).finish_non_exhaustive()
    }
}

impl<'a> Target<'a> {
    /// The bytes from `start` of `memory`, which the initiator sees at `iova`; as long as
    /// `iova` is.
    ///
    /// # Errors
    /// [`CpuAccess`] if the CPU does not reach all of them.
    pub fn new(memory: &'a dyn CpuView, start: Bytes, iova: AddrRange<Iova>) -> Result<Self, CpuAccess> {
        let (first, end) = memory.extent();
        let own_end = start.checked_add(iova.len()).ok_or(CpuAccess::Wraps)?;
        if start < first || own_end > end {
            // The memory names what is out of reach.
            memory.read(start, &mut [0])?;
            memory.read(Bytes::new(own_end.as_u64() - 1), &mut [0])?;
        }
        Ok(Self { memory, start, iova })
    }

    /// Bytes in it.
    pub fn len(&self) -> Bytes {
        self.iova.len()
    }

    /// Always false; there is at least one byte.
    pub fn is_empty(&self) -> bool {
        false
    }

    pub(super) fn iova(&self) -> Iova {
        self.iova.start()
    }

    pub(super) fn iova_range(&self) -> AddrRange<Iova> {
        self.iova
    }

    fn place(&self, offset: Bytes) -> Result<Bytes, CpuAccess> {
        self.start.checked_add(offset).ok_or(CpuAccess::Wraps)
    }

    pub(super) fn fill(&self, offset: Bytes, bytes: &[u8]) -> Result<(), CpuAccess> {
        self.memory.write(self.place(offset)?, bytes)
    }

    pub(super) fn look(&self, offset: Bytes, len: usize) -> Result<Vec<u8>, CpuAccess> {
        let mut bytes = vec![0; len];
        self.memory.read(self.place(offset)?, &mut bytes)?;
        Ok(bytes)
    }

    /// What stands around a run of the target.
    pub(super) fn guards(&self, offset: Bytes, len: usize) -> Result<Guards, CpuAccess> {
        Guards::read(self.memory, self.place(offset)?, len)
    }
}

/// Process memory that the engine reads from and writes to, with room around it.
#[derive(Clone, Copy, Debug)]
pub struct Staging<'a> {
    pages: &'a Pages,
    iova: Iova,
}

impl<'a> Staging<'a> {
    /// How many bytes of pages it takes to stage `len` bytes.
    pub fn pages_for(len: Bytes) -> Bytes {
        Bytes::new(len.as_u64().saturating_add(2 * page_size().as_u64()))
    }

    /// Uses `pages`, all of which the engine sees from `iova` on. The first and the last
    /// page are room for what goes astray.
    ///
    /// # Errors
    /// [`CpuAccess::Pages`] with less than three pages.
    pub fn new(pages: &'a Pages, iova: Iova) -> Result<Self, CpuAccess> {
        iova.checked_add(pages.len()).ok_or(CpuAccess::Wraps)?;
        let page = page_size().as_u64();
        pages.read(Bytes::new(2 * page), &mut [0])?;
        Ok(Self { pages, iova })
    }

    /// Bytes that can be staged at once.
    pub(super) fn len(&self) -> Bytes {
        Bytes::new(self.pages.len().as_u64() - 2 * page_size().as_u64())
    }

    pub(super) fn iova(&self) -> Iova {
        // `new` checked that the end of the pages does not wrap.
        Iova::new(self.iova.as_u64() + page_size().as_u64())
    }

    pub(super) fn fill(&self, bytes: &[u8]) -> Result<(), CpuAccess> {
        Ok(self.pages.write(page_size(), bytes)?)
    }

    pub(super) fn look(&self, len: usize) -> Result<Vec<u8>, CpuAccess> {
        let mut bytes = vec![0; len];
        self.pages.read(page_size(), &mut bytes)?;
        Ok(bytes)
    }

    /// Gives the bytes around the first `len` new values, each other than the one before, and
    /// returns them: an engine that wrote past its end earlier is noticed when it does it again.
    pub(super) fn fresh_guards(&self, len: usize) -> Result<Guards, CpuAccess> {
        let old = self.guards(len)?;
        let flipped = |bytes: &[u8]| bytes.iter().map(|byte| !byte).collect::<Vec<u8>>();
        let start = Bytes::new(page_size().as_u64().saturating_sub(old.before.len() as u64));
        self.pages.write(start, &flipped(&old.before))?;
        self.pages.write(Bytes::new(page_size().as_u64() + len as u64), &flipped(&old.after))?;
        self.guards(len)
    }

    pub(super) fn guards(&self, len: usize) -> Result<Guards, CpuAccess> {
        Guards::read(self.pages, page_size(), len)
    }
}

/// The bytes on both sides of a destination, as far as there is room.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Guards {
    before: Vec<u8>,
    after: Vec<u8>,
}

impl Guards {
    /// What was read elsewhere: the bytes before a destination and those after it.
    pub(crate) fn of(before: Vec<u8>, after: Vec<u8>) -> Self {
        Self { before, after }
    }

    /// What stands around the `len` bytes from `start`.
    pub(crate) fn read(memory: &dyn CpuView, start: Bytes, len: usize) -> Result<Self, CpuAccess> {
        let (first, end) = memory.extent();
        let own_end = start.checked_add(Bytes::new(len as u64)).ok_or(CpuAccess::Wraps)?;
        let below = start.as_u64().saturating_sub(first.as_u64()).min(GUARD.as_u64());
        let above = end.as_u64().saturating_sub(own_end.as_u64()).min(GUARD.as_u64());
        let bytes = |at: Bytes, count: u64| {
            let mut bytes = vec![0; count as usize];
            memory.read(at, &mut bytes).map(|()| bytes)
        };
        Ok(Self { before: bytes(Bytes::new(start.as_u64() - below), below)?, after: bytes(own_end, above)? })
    }

    /// The changed byte nearest to the destination, if any; below it first.
    pub(crate) fn damage(&self, now: &Self) -> Option<Damage> {
        let damage = |side, (index, (was, is)): (usize, (&u8, &u8))| {
            (was != is).then(|| Damage { side, distance: Bytes::new(index as u64 + 1), was: *was, is: *is })
        };
        let mut before = self.before.iter().rev().zip(now.before.iter().rev()).enumerate();
        let mut after = self.after.iter().zip(&now.after).enumerate();
        before.find_map(|one| damage(Side::Before, one)).or_else(|| after.find_map(|one| damage(Side::After, one)))
    }
}

/// What a run of the target held, written back when dropped.
pub(super) struct PutBack<'a> {
    target: &'a Target<'a>,
    offset: Bytes,
    original: Vec<u8>,
    done: bool,
}

impl<'a> PutBack<'a> {
    pub(super) fn save(target: &'a Target<'a>, offset: Bytes, len: usize) -> Result<Self, CpuAccess> {
        Ok(Self { target, offset, original: target.look(offset, len)?, done: false })
    }

    /// What it held.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.original
    }

    /// Writes it back now, and says whether it reads as it did.
    pub(super) fn put_back(mut self) -> Result<bool, CpuAccess> {
        self.done = true;
        self.target.fill(self.offset, &self.original)?;
        Ok(self.target.look(self.offset, self.original.len())? == self.original)
    }
}

impl Drop for PutBack<'_> {
    fn drop(&mut self) {
        if !self.done {
            // An error is on its way out already; the range was within reach when it was read.
            let _ = self.target.fill(self.offset, &self.original);
        }
    }
}
