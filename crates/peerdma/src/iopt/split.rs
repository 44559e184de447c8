//! Splitting a leaf, and replacing leaves one by one.
//!
//! Linux does neither: its unmap takes a whole leaf or nothing. Both are needed to take or
//! replace one page of a large mapping exactly. A split leaf translates as before, at every
//! moment: the smaller leaves are complete before one compare-exchange puts their table into
//! the place of the large one, and what a device marked meanwhile makes it start again.
//!
//! Who owns a part of a leaf may split it while who owns another part does: one of them
//! succeeds, and the other one goes on with what it finds then.

use super::cursor::Cursor;
use super::entry::{Entry, Leaf};
use super::error::{ReplaceError, SplitError};
use super::format::{Format, shift_of};
use super::memory::TableMemory;
use super::table::PageTable;
use crate::addr::{AddrRange, Bytes, Iova, PhysAddr};
use crate::sync::atomic::Ordering;

/// A leaf, and where its first entry is.
#[derive(Clone, Copy)]
struct Found {
    table: PhysAddr,
    height: u8,
    /// First of its entries.
    index: usize,
    base: PhysAddr,
    size_shift: u32,
}

/// Why there is no leaf.
enum Nothing {
    Hole,
    Bad,
}

impl<F: Format, M: TableMemory> PageTable<F, M> {
    /// Splits leaves until none reaches across `at`: one ends before it, and one starts there, or none.
    ///
    /// Each is replaced by the pages of the next table below, a page that stands in several
    /// entries first by pages of one entry each. Rights, attributes and marks are kept.
    /// Translations do not change, so nothing has to be invalidated; Arm walkers need FEAT_BBM
    /// level 2 for it.
    ///
    /// # Errors
    /// [`SplitError`]; whatever was split until then translates as before.
    pub fn split(&self, at: Iova) -> Result<(), SplitError> {
        if at.as_u64() & (Self::PAGE - 1) != 0 {
            return Err(SplitError::Misaligned { at, page: Bytes::new(Self::PAGE) });
        }
        if !self.format().shape().contains(at) {
            return Err(SplitError::IovaOutOfRange { at });
        }
        loop {
            let found = match self.find(at.as_u64()) {
                Ok(found) => found,
                Err(Nothing::Hole) => return Ok(()),
                Err(Nothing::Bad) => return Err(SplitError::BadEntry { at }),
            };
            let size = 1_u64 << found.size_shift;
            if at.as_u64() & (size - 1) == 0 {
                return Ok(());
            }
            let own_shift = shift_of::<F>(found.height);
            let replicated = found.size_shift > own_shift;
            let smaller = if replicated { own_shift } else { own_shift - F::INDEX_BITS };
            if !self.format().shape().page_sizes().contains(smaller) {
                return Err(SplitError::NoSmallerPage { at, page: Bytes::new(size) });
            }
            let bad = SplitError::BadEntry { at };
            if replicated {
                self.split_in_place(found).ok_or(bad)?;
            } else {
                self.split_into_table(found, at)?;
            }
        }
    }

    /// Replaces the leaves that translate `iova` by leaves of the same sizes to `to`, entry by entry.
    ///
    /// At every moment each page leads to the old place or to the new one. Devices use the old
    /// one until what they cached of `iova` is invalidated. A mark of a write is kept, since the
    /// page at that IOVA was written.
    ///
    /// # Errors
    /// [`ReplaceError`]; nothing has changed then. Where a leaf reaches beyond the range,
    /// [`split`](Self::split) it at the ends of the range first.
    pub fn replace(
        &self,
        cursor: &mut Cursor,
        iova: AddrRange<Iova>,
        to: PhysAddr,
        leaf: Leaf,
    ) -> Result<(), ReplaceError> {
        let at = iova.start();
        if (at.as_u64() | iova.len().as_u64() | to.as_u64()) & (Self::PAGE - 1) != 0 {
            return Err(ReplaceError::Misaligned { at });
        }
        let shape = self.format().shape();
        let fits = to.as_u64().checked_add(iova.len().as_u64() - 1).is_some_and(|last| last <= shape.last_output());
        if !fits || !shape.contains_range(&iova) {
            return Err(ReplaceError::OutOfRange { at });
        }
        if leaf.refused {
            return Err(ReplaceError::ReadOnlyRefused { at });
        }
        // Twice the same way: what is found good is replaced, since nobody else changes this range.
        self.each_leaf(cursor, iova, to, |_, _| Some(()))?;
        self.each_leaf(cursor, iova, to, |found, base| {
            let entry = self.format().leaf_entry(leaf.bits, base, found.height, found.size_shift);
            let (unset, set) = self.format().clean();
            for index in found.entries::<F>() {
                let slot = self.slot(found.table, index)?;
                if self.format().is_dirty(slot.swap(entry, Ordering::AcqRel))
                    && leaf_can_be_marked(self.format(), entry)
                {
                    slot.fetch_or(unset, Ordering::Relaxed);
                    if set != 0 {
                        slot.fetch_and(!set, Ordering::Relaxed);
                    }
                }
            }
            Some(())
        })
    }

    /// Visits the leaves of a range, with the address each is to get.
    fn each_leaf(
        &self,
        cursor: &Cursor,
        iova: AddrRange<Iova>,
        to: PhysAddr,
        mut visit: impl FnMut(Found, PhysAddr) -> Option<()>,
    ) -> Result<(), ReplaceError> {
        let (first, len) = (iova.start().as_u64(), iova.len().as_u64());
        let mut done = 0;
        while done < len {
            let at = Iova::new(first + done);
            let bad = ReplaceError::BadEntry { at };
            let found = match self.find_warm(cursor, at.as_u64()) {
                Ok(found) => found,
                Err(Nothing::Hole) => return Err(ReplaceError::NotMapped { at }),
                Err(Nothing::Bad) => return Err(bad),
            };
            let size = 1_u64 << found.size_shift;
            if at.as_u64() & (size - 1) != 0 || len - done < size {
                return Err(ReplaceError::Crosses { at, page: Bytes::new(size) });
            }
            let base = PhysAddr::new(to.as_u64() + done);
            if base.as_u64() & (size - 1) != 0 {
                return Err(ReplaceError::SourceMisaligned { at, to: base, page: Bytes::new(size) });
            }
            visit(found, base).ok_or(bad)?;
            done += size;
        }
        Ok(())
    }

    /// The leaf around an IOVA that the table translates.
    fn find(&self, iova: u64) -> Result<Found, Nothing> {
        let root = self.root();
        if F::GROWS && !super::walk::reaches::<F>(root.height, iova) {
            return Err(Nothing::Hole);
        }
        self.find_below(root.at, root.height, self.root_index(root, iova), iova)
    }

    fn find_warm(&self, cursor: &Cursor, iova: u64) -> Result<Found, Nothing> {
        match self.warm(cursor, iova) {
            Some(table) => self.find_below(table, 0, Self::index(iova, 0), iova),
            None => self.find(iova),
        }
    }

    fn find_below(&self, mut table: PhysAddr, mut height: u8, mut index: usize, iova: u64) -> Result<Found, Nothing> {
        loop {
            let entry = self.slot(table, index).ok_or(Nothing::Bad)?.load(Ordering::Acquire);
            match self.format().decode(entry, height) {
                Entry::Table(next) if height > 0 => {
                    (table, height) = (next, height - 1);
                    index = Self::index(iova, height);
                }
                Entry::Leaf { base, size_shift } => {
                    let entries = 1_usize << (size_shift - shift_of::<F>(height));
                    return Ok(Found { table, height, index: index & !(entries - 1), base, size_shift });
                }
                Entry::Empty => return Err(Nothing::Hole),
                Entry::Table(_) | Entry::Bad => return Err(Nothing::Bad),
            }
        }
    }

    /// Turns a page that stands in several entries into pages of one entry each; `None`: a frame is gone.
    ///
    /// Entries that say something else by now are another owner's, who was faster.
    fn split_in_place(&self, found: Found) -> Option<()> {
        let format = self.format();
        let own_shift = shift_of::<F>(found.height);
        let mut dirty = false;
        let page = |n: usize| PhysAddr::new(found.base.as_u64() + ((n as u64) << own_shift));
        for (n, index) in found.entries::<F>().enumerate() {
            let whole = Entry::Leaf { base: found.base, size_shift: found.size_shift };
            let before = self.change(found, index, whole, |entry| {
                format.leaf_entry(format.bits_of(entry, found.height), page(n), found.height, own_shift)
            })?;
            dirty |= format.is_dirty(before);
        }
        // A device marks any one of the entries for a write anywhere in the page.
        if dirty {
            let (unset, set) = format.clean();
            for (n, index) in found.entries::<F>().enumerate() {
                let single = Entry::Leaf { base: page(n), size_shift: own_shift };
                self.change(found, index, single, |entry| (entry | unset) & !set)?;
            }
        }
        Some(())
    }

    /// Changes an entry while it says `expected`; the entry before, or what stands there instead.
    fn change(&self, found: Found, index: usize, expected: Entry, change: impl Fn(u64) -> u64) -> Option<u64> {
        let slot = self.slot(found.table, index)?;
        let mut entry = slot.load(Ordering::Relaxed);
        while self.format().decode(entry, found.height) == expected {
            match slot.compare_exchange_weak(entry, change(entry), Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => entry = now,
            }
        }
        Some(entry)
    }

    /// Puts a table of the next smaller pages in the place of a leaf, unless something else is there by now.
    fn split_into_table(&self, found: Found, at: Iova) -> Result<(), SplitError> {
        let bad = SplitError::BadEntry { at };
        let format = self.format();
        let below = found.height.checked_sub(1).ok_or(bad)?;
        let slot = self.slot(found.table, found.index).ok_or(bad)?;
        let (child, table) = self.new_table(found.height).ok_or(SplitError::NoMemory { at })?;
        let leaf = Entry::Leaf { base: found.base, size_shift: found.size_shift };
        let mut entry = slot.load(Ordering::Acquire);
        while format.decode(entry, found.height) == leaf {
            let bits = format.bits_of(entry, found.height);
            for index in 0..1_usize << F::INDEX_BITS {
                let Some(slot) = self.slot(child, index) else { break };
                let base = PhysAddr::new(found.base.as_u64() + ((index as u64) << shift_of::<F>(below)));
                slot.store(format.leaf_entry(bits, base, below, shift_of::<F>(below)), Ordering::Relaxed);
            }
            match slot.compare_exchange(entry, table, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    self.count_table();
                    return Ok(());
                }
                Err(now) => entry = now,
            }
        }
        self.memory().free(child, Self::TABLE_FRAMES);
        Ok(())
    }
}

/// Whether a mark on an entry means a write: an entry that can be written, in a format with marks.
fn leaf_can_be_marked<F: Format>(format: &F, leaf: u64) -> bool {
    format.tracks_dirty() && format.prot(leaf).is_some_and(crate::access::Prot::writes)
}

impl Found {
    /// All its entries.
    fn entries<F: Format>(&self) -> core::ops::Range<usize> {
        self.index..self.index + (1 << (self.size_shift - shift_of::<F>(self.height)))
    }
}
