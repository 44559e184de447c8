//! Mapping a run: the largest page that fits, table after table.
//!
//! The page at every place is the largest of the table's sizes that divides IOVA and physical
//! address and is not longer than what is left, which is Linux's choice in both of its
//! builders. A stretch of equal pages in one table is one tight loop.

use super::cursor::Cursor;
use super::entry::{Entry, Leaf};
use super::error::{MapFault, MapFaultKind};
use super::format::{Family, Format, shift_of};
use super::gather::Gather;
use super::memory::TableMemory;
use super::slots::{free_until_taken, store_ascending};
use super::table::{FRAME_ENTRIES, PageTable};
use crate::addr::{AddrRange, Bytes, Iova, PhysAddr};
use crate::sync::atomic::{AtomicU64, Ordering};

/// A stretch of equal pages in one table.
struct Stretch {
    table: PhysAddr,
    height: u8,
    index: usize,
    /// How many pages.
    pages: u64,
    size_shift: u32,
    iova: u64,
    to: u64,
}

impl<F: Format, M: TableMemory> PageTable<F, M> {
    /// Maps all of `iova` to as many bytes from `to` on.
    ///
    /// Each place gets the largest page that fits. Where a large page meets a table in which
    /// nothing is mapped, the table makes room, and `cursor` says so
    /// ([`Cursor::take_replaced`]). Nothing that is mapped is ever replaced, but by a format that was
    /// told to ([`Format::replaces_tables`]).
    ///
    /// # Errors
    /// [`MapFault`]; nothing of the range is mapped then. Tables that were made stay, empty,
    /// until [`prune`](Self::prune).
    #[inline]
    pub fn map(&self, cursor: &mut Cursor, iova: AddrRange<Iova>, to: PhysAddr, leaf: Leaf) -> Result<(), MapFault> {
        let (at, len, to) = (iova.start().as_u64(), iova.len().as_u64(), to.as_u64());
        // One page in a known leaf table.
        if len == Self::PAGE
            && (at | to) & (Self::PAGE - 1) == 0
            && to < leaf.last
            && let Some(table) = self.warm(cursor, at)
            && self.store_page(table, at, to, leaf)
        {
            return Ok(());
        }
        self.map_short(cursor, iova, PhysAddr::new(to), leaf)
    }

    /// Maps one page, if nothing is mapped there.
    #[inline]
    fn store_page(&self, table: PhysAddr, at: u64, to: u64, leaf: Leaf) -> bool {
        let Some(slot) = self.slot(table, Self::index(at, 0)) else { return false };
        if slot.load(Ordering::Relaxed) != 0 {
            return false;
        }
        slot.store(self.format().leaf_entry(leaf.bits, PhysAddr::new(to), 0, F::PAGE_SHIFT), Ordering::Relaxed);
        true
    }

    /// Maps a run that is likely a few smallest pages of one leaf table.
    #[inline(never)]
    fn map_short(&self, cursor: &mut Cursor, iova: AddrRange<Iova>, to: PhysAddr, leaf: Leaf) -> Result<(), MapFault> {
        let (at, len, first) = (iova.start().as_u64(), iova.len().as_u64(), to.as_u64());
        // Shorter than the second smallest page, so that all are of the smallest size.
        let whole = Self::index(at, 0) as u64 + (len >> F::PAGE_SHIFT) <= 1 << F::INDEX_BITS;
        let fits = whole && first < leaf.last && len - 1 <= leaf.last - first;
        if (at | first | len) & (Self::PAGE - 1) == 0
            && len < self.second_size
            && fits
            && let Some(table) = self.warm(cursor, at).or_else(|| self.leaf_table::<true>(cursor, at))
        {
            let done = match len == Self::PAGE {
                true => self.store_page(table, at, first, leaf),
                false => self.fill_pages(table, at, first, len, leaf.bits),
            };
            if done {
                return Ok(());
            }
        }
        self.map_run(cursor, iova, to, leaf)
    }

    /// Maps a few smallest pages in one frame of a leaf table; false, with nothing mapped: for `map_run` to do.
    #[inline]
    fn fill_pages(&self, table: PhysAddr, at: u64, to: u64, len: u64, bits: u64) -> bool {
        let pages = (len >> F::PAGE_SHIFT) as usize;
        let Some((frame, start)) = self.entries(table, Self::index(at, 0)) else { return false };
        let Some(slots) = frame[start..].get(..pages) else { return false };
        // Seen before anything is stored, so that no page is reachable that is not going to stay.
        if free_until_taken(slots) < pages {
            return false;
        }
        self.store_pages(slots, to, 0, F::PAGE_SHIFT, bits);
        true
    }

    /// Stores leaf entries for pages that follow each other.
    #[inline]
    pub(super) fn store_pages(&self, slots: &[AtomicU64], to: u64, height: u8, size_shift: u32, bits: u64) {
        let step = 1_u64.wrapping_shl(size_shift);
        let entry = |to| self.format().leaf_entry(bits, PhysAddr::new(to), height, size_shift);
        if F::LINEAR {
            store_ascending(slots, entry(to), step);
        } else {
            let mut to = to;
            for slot in slots {
                slot.store(entry(to), Ordering::Relaxed);
                to = to.wrapping_add(step);
            }
        }
    }

    /// Maps a run of any length.
    #[inline(never)]
    fn map_run(&self, cursor: &mut Cursor, iova: AddrRange<Iova>, to: PhysAddr, leaf: Leaf) -> Result<(), MapFault> {
        let (first, len) = (iova.start().as_u64(), iova.len().as_u64());
        let mut done = 0;
        let result = self.check_map(&iova, to, leaf).and_then(|()| {
            while done < len {
                self.map_stretch(cursor, first + done, to.as_u64() + done, len - done, leaf.bits, &mut done)?;
            }
            Ok(())
        });
        result.map_err(|kind| {
            let fault = MapFault { kind, at: Iova::new(first + done), mapped_before: Bytes::new(done) };
            if let Some(mapped) = AddrRange::new(iova.start(), Bytes::new(done)) {
                let mut undone = Gather::new();
                self.unmap_run(&mapped, &mut undone);
                cursor.replaced().merge(&undone);
            }
            fault
        })
    }

    /// What can be refused before anything is looked at, in the order of Linux's checks.
    fn check_map(&self, iova: &AddrRange<Iova>, to: PhysAddr, leaf: Leaf) -> Result<(), MapFaultKind> {
        let shape = self.format().shape();
        let misaligned = (iova.start().as_u64() | iova.len().as_u64() | to.as_u64()) & (Self::PAGE - 1) != 0;
        // Linux looks at the start only; a run that ends beyond the output width is refused here too.
        let fits = to.as_u64().checked_add(iova.len().as_u64() - 1).is_some_and(|last| last <= shape.last_output());
        match F::FAMILY {
            Family::GenericPt if !fits => Err(MapFaultKind::PhysOutOfRange),
            Family::GenericPt if leaf.refused => Err(MapFaultKind::ReadOnlyRefused),
            Family::GenericPt if !shape.contains_range(iova) => Err(MapFaultKind::IovaOutOfRange),
            _ if misaligned => Err(MapFaultKind::Misaligned),
            Family::IoPgtable if !fits => Err(MapFaultKind::PhysOutOfRange),
            Family::IoPgtable if leaf.refused => Err(MapFaultKind::ReadOnlyRefused),
            _ if F::GROWS && !self.grow(iova.last().as_u64(), 0) => Err(MapFaultKind::NoMemory),
            _ => Ok(()),
        }
    }

    /// Maps pages of one size in one table; adds to `done` what is mapped even on failure.
    fn map_stretch(
        &self,
        cursor: &mut Cursor,
        iova: u64,
        to: u64,
        left: u64,
        bits: u64,
        done: &mut u64,
    ) -> Result<(), MapFaultKind> {
        if F::FAMILY == Family::IoPgtable && !self.format().shape().contains(Iova::new(iova)) {
            return Err(MapFaultKind::IovaOutOfRange);
        }
        let sizes = self.format().shape().page_sizes();
        let size_shift = sizes.best(iova | to, left).ok_or(MapFaultKind::Misaligned)?;
        let size = 1_u64 << size_shift;
        let height = ((size_shift - F::PAGE_SHIFT) / F::INDEX_BITS) as u8;
        let entries_shift = size_shift - shift_of::<F>(height);
        let (table, index, room) = self.table_for(cursor, iova, height)?;

        let mut pages = (room >> entries_shift).min(left >> size_shift);
        // A larger page fits from its next boundary on.
        if let Some(larger) = sizes.above(size_shift) {
            let within = (1_u64 << larger) - 1;
            if (iova ^ to) & within == 0 {
                let ahead = (iova & within).wrapping_neg() & within;
                if ahead != 0 && left - ahead.min(left) > within {
                    pages = pages.min(ahead >> size_shift);
                }
            }
        }
        let stretch = Stretch { table, height, index, pages, size_shift, iova, to };
        let (mapped, result) = self.fill(cursor, &stretch, bits);
        *done += mapped * size;
        result
    }

    /// The table of `height` for an IOVA, made where there is none; the entry in it, and how many follow.
    fn table_for(&self, cursor: &mut Cursor, iova: u64, height: u8) -> Result<(PhysAddr, usize, u64), MapFaultKind> {
        let index = Self::index(iova, height);
        let room = (1 << F::INDEX_BITS) - index as u64;
        if height == 0
            && self.root().height > 0
            && let Some(table) = self.warm(cursor, iova).or_else(|| self.leaf_table::<true>(cursor, iova))
        {
            return Ok((table, index, room));
        }
        // Again from the root: tables larger pages live in are few, and a fault is to be named.
        let mut root = self.root();
        if F::GROWS && root.height < height {
            if !self.grow(iova, height) {
                return Err(MapFaultKind::NoMemory);
            }
            root = self.root();
        }
        let (mut table, mut above, mut at) = (root.at, root.height, self.root_index(root, iova));
        if above <= height {
            return Ok((table, at, self.root_entries(root).saturating_sub(at) as u64));
        }
        while above > height {
            let slot = self.slot(table, at).ok_or(MapFaultKind::BadEntry)?;
            let mut entry = slot.load(Ordering::Acquire);
            if entry == 0 {
                entry = self.install(slot, above).ok_or(MapFaultKind::NoMemory)?;
            }
            match self.format().decode(entry, above) {
                Entry::Table(next) => table = next,
                Entry::Leaf { .. } => return Err(MapFaultKind::AlreadyMapped),
                Entry::Empty | Entry::Bad => return Err(MapFaultKind::BadEntry),
            }
            above -= 1;
            at = Self::index(iova, above);
        }
        Ok((table, index, room))
    }

    /// Writes the entries of a stretch; answers how many pages of it are mapped.
    fn fill(&self, cursor: &mut Cursor, stretch: &Stretch, bits: u64) -> (u64, Result<(), MapFaultKind>) {
        let per_page = 1_usize << (stretch.size_shift - shift_of::<F>(stretch.height));
        // io-pgtable-arm looks at the whole batch first and maps all of it or nothing.
        if F::FAMILY == Family::IoPgtable
            && let Err(kind) = self.clear_way(cursor, stretch, 0, stretch.pages as usize * per_page)
        {
            return (0, Err(kind));
        }
        let mut page = 0;
        while page < stretch.pages {
            let from = stretch.index + page as usize * per_page;
            let Some((frame, start)) = self.entries(stretch.table, from) else {
                return (page, Err(MapFaultKind::BadEntry));
            };
            let entries = (FRAME_ENTRIES - start).min((stretch.pages - page) as usize * per_page);
            let slots = &frame[start..start + entries];
            let free = if F::FAMILY == Family::IoPgtable { entries } else { free_until_taken(slots) };
            let to = stretch.to + (page << stretch.size_shift);
            if !F::REPLICATES || per_page == 1 {
                self.store_pages(&slots[..free], to, stretch.height, stretch.size_shift, bits);
            } else {
                for (n, slots) in slots[..free].chunks_exact(per_page).enumerate() {
                    let base = PhysAddr::new(to + ((n as u64) << stretch.size_shift));
                    let entry = self.format().leaf_entry(bits, base, stretch.height, stretch.size_shift);
                    slots.iter().for_each(|slot| slot.store(entry, Ordering::Relaxed));
                }
            }
            page += (free / per_page) as u64;
            if free < entries
                && let Err(kind) = self.clear_way(cursor, stretch, page as usize * per_page, per_page)
            {
                return (page, Err(kind));
            }
        }
        (page, Ok(()))
    }

    /// Makes sure that `count` entries of a stretch are empty; tables in which nothing is mapped go.
    #[inline]
    fn clear_way(&self, cursor: &mut Cursor, stretch: &Stretch, from: usize, count: usize) -> Result<(), MapFaultKind> {
        let mut index = stretch.index + from;
        let end = index + count;
        while index < end {
            let (frame, start) = self.entries(stretch.table, index).ok_or(MapFaultKind::BadEntry)?;
            let entries = (FRAME_ENTRIES - start).min(end - index);
            for (n, slot) in frame[start..start + entries].iter().enumerate() {
                let entry = slot.load(Ordering::Relaxed);
                if entry != 0 {
                    self.evict(cursor, stretch, slot, index + n - stretch.index)?;
                }
            }
            index += entries;
        }
        Ok(())
    }

    /// Takes an empty table out of an entry.
    #[cold]
    fn evict(
        &self,
        cursor: &mut Cursor,
        stretch: &Stretch,
        slot: &AtomicU64,
        offset: usize,
    ) -> Result<(), MapFaultKind> {
        let entry = slot.load(Ordering::Acquire);
        match self.format().decode(entry, stretch.height) {
            Entry::Table(child) if stretch.height > 0 => {
                if !self.format().replaces_tables() && !self.is_empty(child, stretch.height - 1) {
                    return Err(MapFaultKind::AlreadyMapped);
                }
                if !self.take_out(slot, child, stretch.height) {
                    return Err(MapFaultKind::AlreadyMapped);
                }
                self.bury_all(child, stretch.height - 1);
                let span = shift_of::<F>(stretch.height);
                cursor.replaced().add_table(stretch.iova.wrapping_add((offset as u64) << span), span);
                Ok(())
            }
            Entry::Leaf { .. } => Err(MapFaultKind::AlreadyMapped),
            Entry::Table(_) | Entry::Empty | Entry::Bad => Err(MapFaultKind::BadEntry),
        }
    }
}
