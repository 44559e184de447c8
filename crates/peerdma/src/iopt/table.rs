//! A page table: its root, its frames, and the tables that wait to be given back.
//!
//! All of it works through `&self`: callers that own disjoint IOVAs need no lock between them,
//! though they share tables. A missing table is installed by compare-exchange, and who loses
//! gives its frame back; leaf entries are stored relaxed and whole (single-copy atomic),
//! because only the owner of an IOVA writes its entry, and devices are told afterwards.

use super::cursor::Cursor;
use super::entry::{Entry, Leaf};
use super::error::CreateError;
use super::format::{Format, shift_of};
use super::memory::{FRAME_SIZE, TableMemory};
use super::walk::reaches;
use crate::access::{MemAttrs, Prot};
use crate::addr::{Bytes, Iova, PhysAddr};
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use alloc::sync::Arc;

/// Entries in a frame.
pub(super) const FRAME_ENTRIES: usize = 512;

/// Where a table begins, and how high it is; what a context, device-table or stream-table entry is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Root {
    /// First frame.
    pub at: PhysAddr,
    /// How many tables it stands above a leaf table.
    pub height: u8,
    /// The same as the format's documentation numbers it.
    pub level: u8,
}

impl Root {
    /// The root of a table of this format at its height of creation.
    pub fn new<F: Format>(format: &F, at: PhysAddr) -> Self {
        Self::at_height(format, at, format.shape().height())
    }

    /// The root of a table that has grown.
    pub fn at_height<F: Format>(format: &F, at: PhysAddr, height: u8) -> Self {
        Self { at, height, level: format.level(height) }
    }
}

/// An I/O page table of a format, in frames of a memory.
///
/// ```
/// use peerdma::access::{MemAttrs, Prot};
/// use peerdma::addr::{AddrRange, Bytes, Iova, PhysAddr};
/// use peerdma::iopt::{Cursor, FrameArena, Gather, PageTable, VtdOptions, VtdSecondStage};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let arena = FrameArena::new(PhysAddr::new(0x10_0000), 64);
/// let table = PageTable::new(VtdSecondStage::new(VtdOptions::default())?, &arena)?;
/// let page = AddrRange::new(Iova::new(0x7_1234_5000), Bytes::new(0x1000)).unwrap();
/// let leaf = table.leaf(Prot::ReadWrite, MemAttrs::empty());
/// let mut cursor = Cursor::new();
/// table.map(&mut cursor, page, PhysAddr::new(0x3_abcd_e000), leaf)?;
///
/// let found = table.walk(Iova::new(0x7_1234_5123))?;
/// assert_eq!(found.pa, PhysAddr::new(0x3_abcd_e123));
/// assert_eq!(found.entry, 0x3_abcd_e003);
///
/// let mut gather = Gather::new();
/// assert_eq!(table.unmap(&mut cursor, page, &mut gather), page.len());
/// assert_eq!(gather.range(), Some(page));
/// # Ok(())
/// # }
/// ```
///
/// # Concurrency
/// `map`, `unmap`, `split`, `replace` and `read_dirty` may run at once on IOVAs that do not
/// overlap, `walk` beside all of them. Overlapping calls are the callers' fault: no frame is
/// given back twice, but one may be lost until the memory goes, and which mapping stands is open.
///
/// Dropping it gives all frames back at once; devices must have been detached before.
#[derive(Debug)]
pub struct PageTable<F: Format, M: TableMemory> {
    format: F,
    memory: M,
    /// Address of the root, its height in the low bits; changes only where the root grows.
    root: AtomicU64,
    /// Marks this table among others, for cursors.
    mark: Arc<()>,
    /// How often a table was taken out.
    pub(super) generation: AtomicU64,
    /// First table taken out, 0 for none.
    pub(super) dead: AtomicU64,
    pub(super) tables: AtomicUsize,
    /// Second smallest page size: a shorter run has pages of one size only.
    pub(super) second_size: u64,
}

impl<F: Format, M: TableMemory> PageTable<F, M> {
    /// Frames of a table that is no root.
    pub(super) const TABLE_FRAMES: usize = (1 << F::INDEX_BITS) / FRAME_ENTRIES;
    pub(super) const INDEX_MASK: u64 = (1 << F::INDEX_BITS) - 1;
    pub(super) const PAGE: u64 = 1 << F::PAGE_SHIFT;
    /// Logarithm of what a leaf table translates.
    pub(super) const LEAF_TABLE_SHIFT: u32 = F::PAGE_SHIFT + F::INDEX_BITS;
    /// Logarithm of what a table of leaf tables translates.
    const DIRECTORY_SHIFT: u32 = Self::LEAF_TABLE_SHIFT + F::INDEX_BITS;

    /// Makes an empty table: its root.
    ///
    /// # Errors
    /// [`CreateError`], if the memory gives no frames for it.
    pub fn new(format: F, memory: M) -> Result<Self, CreateError> {
        let frames = root_frames(&format);
        let at = memory.allocate(frames).ok_or(CreateError::NoMemory { frames })?;
        if !are_frames(&memory, at, frames) {
            memory.free(at, frames);
            return Err(CreateError::BadFrame { at });
        }
        let height = format.shape().height();
        let second_size = format.shape().page_sizes().above(F::PAGE_SHIFT).map_or(u64::MAX, |shift| 1 << shift);
        Ok(Self {
            format,
            memory,
            root: AtomicU64::new(at.as_u64() | u64::from(height)),
            mark: Arc::new(()),
            generation: AtomicU64::new(0),
            dead: AtomicU64::new(0),
            tables: AtomicUsize::new(1),
            second_size,
        })
    }

    /// The format.
    #[inline]
    pub fn format(&self) -> &F {
        &self.format
    }

    /// The memory that tables live in.
    #[inline]
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// Where the table begins now.
    ///
    /// Changes only with formats that grow at the top (AMD v1), and then at once; the old root
    /// stays part of the table, so that a device which still starts there finds what it found.
    #[inline]
    pub fn root(&self) -> Root {
        let word = self.root.load(Ordering::Acquire);
        let height = (word & 0xff) as u8;
        Root { at: PhysAddr::new(word & !0xff), height, level: self.format.level(height) }
    }

    /// Bits for a run of leaves, computed once.
    ///
    /// Attributes that the format cannot express are left out, as Linux does; whoever maps for
    /// somebody else compares with [`Format::expresses`] and [`Format::write_only`] before.
    pub fn leaf(&self, prot: Prot, attrs: MemAttrs) -> Leaf {
        match self.format.leaf_bits(prot, attrs) {
            Some(bits) => Leaf { bits, last: self.format.shape().last_output(), refused: false },
            None => Leaf { bits: 0, last: 0, refused: true },
        }
    }

    /// How many tables there are, the root (however many side by side) among them, dead ones not.
    pub fn tables(&self) -> usize {
        self.tables.load(Ordering::Relaxed)
    }

    /// How many bytes those tables take.
    pub fn table_bytes(&self) -> Bytes {
        let below = self.tables().saturating_sub(1).saturating_mul(Self::TABLE_FRAMES);
        let frames = root_frames(&self.format).saturating_add(below) as u64;
        Bytes::new(frames.saturating_mul(FRAME_SIZE.as_u64()))
    }

    /// The entry `index` of a table.
    #[inline]
    pub(super) fn slot(&self, table: PhysAddr, index: usize) -> Option<&AtomicU64> {
        self.entries(table, index).map(|(frame, index)| &frame[index])
    }

    /// The frame that holds entry `index` of a table, and the entry's place in it.
    #[inline]
    pub(super) fn entries(&self, table: PhysAddr, index: usize) -> Option<(&super::Frame, usize)> {
        let offset = (index / FRAME_ENTRIES) as u64 * FRAME_SIZE.as_u64();
        let frame = self.memory.frame(PhysAddr::new(table.as_u64().wrapping_add(offset)))?;
        Some((frame, index % FRAME_ENTRIES))
    }

    /// The entry of the root that translates an IOVA.
    #[inline]
    pub(super) fn root_index(&self, root: Root, iova: u64) -> usize {
        ((iova & self.format.shape().translated()) >> shift_of::<F>(root.height)) as usize
    }

    /// How many entries the root has.
    pub(super) fn root_entries(&self, root: Root) -> usize {
        let bits = u32::from(self.format.shape().input_bits()).saturating_sub(shift_of::<F>(root.height));
        1 << if F::GROWS { bits.min(F::INDEX_BITS) } else { bits }
    }

    /// The entry of a table below the root that translates an IOVA.
    #[inline]
    pub(super) fn index(iova: u64, height: u8) -> usize {
        ((iova >> shift_of::<F>(height)) & Self::INDEX_MASK) as usize
    }

    /// How often a table was taken out.
    #[inline]
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// A remembered leaf table.
    #[inline]
    pub(super) fn warm(&self, cursor: &Cursor, iova: u64) -> Option<PhysAddr> {
        cursor.leaf(&self.mark, self.generation.load(Ordering::Relaxed), iova >> Self::LEAF_TABLE_SHIFT)
    }

    /// The leaf table of an IOVA, remembered by the cursor; made where there is none if `MAKE`.
    ///
    /// `None`: there is none, a larger leaf is in its place, or it could not be made.
    #[inline(never)]
    pub(super) fn leaf_table<const MAKE: bool>(&self, cursor: &mut Cursor, iova: u64) -> Option<PhysAddr> {
        cursor.follow(&self.mark, self.generation.load(Ordering::Relaxed));
        let directory = match cursor.directory(iova >> Self::DIRECTORY_SHIFT) {
            Some(directory) => directory,
            None => self.table_below_root::<MAKE>(iova, 1)?,
        };
        // A root of that height may be several tables side by side, which an index of one does not reach.
        let root = self.root();
        if root.height <= 1 {
            return if root.height == 1 { self.table_below_root::<MAKE>(iova, 0) } else { None };
        }
        cursor.remember_directory(iova >> Self::DIRECTORY_SHIFT, directory);
        let table = self.step::<MAKE>(self.slot(directory, Self::index(iova, 1))?, 1)?;
        cursor.remember_leaf(iova >> Self::LEAF_TABLE_SHIFT, table);
        Some(table)
    }

    /// The table of `height` for an IOVA, from the root down; the root itself if it is no higher.
    #[inline(never)]
    fn table_below_root<const MAKE: bool>(&self, iova: u64, height: u8) -> Option<PhysAddr> {
        let root = self.root();
        if !self.format.shape().contains(Iova::new(iova)) || (F::GROWS && !reaches::<F>(root.height, iova)) {
            return None;
        }
        let (mut table, mut above, mut index) = (root.at, root.height, self.root_index(root, iova));
        while above > height {
            table = self.step::<MAKE>(self.slot(table, index)?, above)?;
            above -= 1;
            index = Self::index(iova, above);
        }
        Some(table)
    }

    /// The table that an entry of a table of `height` points to, put there if `MAKE` and it is empty.
    #[inline]
    fn step<const MAKE: bool>(&self, slot: &AtomicU64, height: u8) -> Option<PhysAddr> {
        let mut entry = slot.load(Ordering::Acquire);
        if MAKE && entry == 0 {
            entry = self.install(slot, height)?;
        }
        match self.format.decode(entry, height) {
            Entry::Table(next) => Some(next),
            Entry::Leaf { .. } | Entry::Empty | Entry::Bad => None,
        }
    }

    /// A new table, and the entry of a table of `height` that points to it.
    ///
    /// `None` too where no entry can point to what the memory gave: an address wider than the
    /// field, the encryption bit in it, less alignment than the table has. Written all the same, such an
    /// entry would lead to other memory.
    pub(super) fn new_table(&self, height: u8) -> Option<(PhysAddr, u64)> {
        let at = self.memory.allocate(Self::TABLE_FRAMES)?;
        let entry = self.format.table_entry(at, height);
        if self.format.decode(entry, height) == Entry::Table(at) && are_frames(&self.memory, at, Self::TABLE_FRAMES) {
            return Some((at, entry));
        }
        self.memory.free(at, Self::TABLE_FRAMES);
        None
    }

    /// The table that an empty entry is to point to: ours, or the one that somebody else put there first.
    pub(super) fn install(&self, slot: &AtomicU64, height: u8) -> Option<u64> {
        let (at, entry) = self.new_table(height)?;
        // Release: who finds the entry finds zeroed frames behind it.
        match slot.compare_exchange(0, entry, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => {
                self.tables.fetch_add(1, Ordering::Relaxed);
                Some(entry)
            }
            Err(theirs) => {
                self.memory.free(at, Self::TABLE_FRAMES);
                Some(theirs)
            }
        }
    }

    /// Counts a table that was put in the place of a leaf.
    pub(super) fn count_table(&self) {
        self.tables.fetch_add(1, Ordering::Relaxed);
    }

    /// Makes room above the root until it reaches `last` and can hold leaves of `height`; false: no memory.
    pub(super) fn grow(&self, last: u64, height: u8) -> bool {
        loop {
            let root = self.root();
            if root.height >= height && reaches::<F>(root.height, last) {
                return true;
            }
            if root.height >= self.format.shape().max_height() {
                return true;
            }
            let above = root.height + 1;
            // Nothing points to a root, so that only the old one has to fit an entry.
            let Some(at) = self.memory.allocate(Self::TABLE_FRAMES) else { return false };
            let below = self.format.table_entry(root.at, above);
            let fits = self.format.decode(below, above) == Entry::Table(root.at);
            let Some(slot) = self.slot(at, 0).filter(|_| fits) else {
                self.memory.free(at, Self::TABLE_FRAMES);
                return false;
            };
            slot.store(below, Ordering::Relaxed);
            let (old, new) = (root.at.as_u64() | u64::from(root.height), at.as_u64() | u64::from(above));
            if self.root.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                self.tables.fetch_add(1, Ordering::Relaxed);
            } else {
                self.memory.free(at, Self::TABLE_FRAMES);
            }
        }
    }

    /// Whether the table, with the root it has now, translates all from `first` to `last`.
    pub(super) fn reaches_range(&self, first: Iova, last: Iova) -> bool {
        let shape = self.format.shape();
        match crate::addr::AddrRange::from_inclusive(first, last) {
            Some(range) => {
                shape.contains_range(&range) && (!F::GROWS || reaches::<F>(self.root().height, last.as_u64()))
            }
            None => false,
        }
    }
}

/// Whether the memory has that many frames in a row from `at` on, aligned as a table of them is.
fn are_frames<M: TableMemory>(memory: &M, at: PhysAddr, frames: usize) -> bool {
    let len = Bytes::new((frames as u64).saturating_mul(FRAME_SIZE.as_u64()));
    let frame = |n: usize| memory.frame(PhysAddr::new(at.as_u64() + n as u64 * FRAME_SIZE.as_u64())).is_some();
    at.as_u64().is_multiple_of(len.as_u64()) && at.checked_add(len).is_some() && (0..frames).all(frame)
}

/// Frames of the root: all its entries, at least one frame.
pub(super) fn root_frames<F: Format>(format: &F) -> usize {
    let shape = format.shape();
    let bits = u32::from(shape.input_bits()).saturating_sub(shift_of::<F>(shape.height()));
    let bits = if F::GROWS { bits.min(F::INDEX_BITS) } else { bits };
    ((1_usize << bits.min(31)) / FRAME_ENTRIES).max(1)
}
