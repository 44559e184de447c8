//! Unmapping a range: each family's own answer to holes and to parts of a leaf.
//!
//! `generic_pt` goes over the range once: it stops at a hole, takes nothing from a leaf that
//! the range starts inside of, and the whole of one that it ends inside of. `io-pgtable-arm`
//! is asked batch by batch of one page size: it stops at a hole and at a leaf that is larger
//! than the batch's pages, and a table of the batch's size goes with everything in it.

use super::cursor::Cursor;
use super::entry::Entry;
use super::format::{Family, Format, shift_of};
use super::gather::Gather;
use super::memory::{Frame, TableMemory};
use super::slots::clear_until_hole;
use super::table::{FRAME_ENTRIES, PageTable};
use crate::addr::{AddrRange, Bytes, Iova, PhysAddr};
use crate::sync::atomic::{AtomicU64, Ordering};
use core::ops::Range;

impl<F: Format, M: TableMemory> PageTable<F, M> {
    /// Unmaps `iova` and answers how many bytes that were, as Linux does for the format.
    ///
    /// The answer is the length of the range where exactly that is mapped. It is less where a
    /// hole stopped it, 0 with nothing done where a leaf begins before the range or anything is
    /// misaligned, and more where a leaf of a `generic_pt` format reaches beyond the range: the
    /// whole leaf goes. With Arm formats the leaf stays. [`split`](Self::split) first, where a
    /// part is meant.
    ///
    /// `gather` collects what must be invalidated before memory or IOVAs are used otherwise.
    /// Tables that lay in the range as a whole are taken out, and freed by
    /// [`reclaim`](Self::reclaim) afterwards.
    #[inline]
    pub fn unmap(&self, cursor: &mut Cursor, iova: AddrRange<Iova>, gather: &mut Gather) -> Bytes {
        let (at, len) = (iova.start().as_u64(), iova.len().as_u64());
        if (at | len) & (Self::PAGE - 1) != 0 {
            return Bytes::ZERO;
        }
        // One page in a known leaf table.
        if len == Self::PAGE
            && !F::REPLICATES
            && let Some(table) = self.warm(cursor, at)
        {
            return self.clear_page(table, at, gather);
        }
        self.unmap_short(cursor, iova, gather)
    }

    /// Unmaps one page of a leaf table whose pages stand in one entry each.
    #[inline]
    fn clear_page(&self, table: PhysAddr, at: u64, gather: &mut Gather) -> Bytes {
        match self.slot(table, Self::index(at, 0)) {
            Some(slot) if slot.load(Ordering::Relaxed) != 0 => {
                slot.store(0, Ordering::Relaxed);
                gather.add_leaves(at, Self::PAGE, Self::PAGE);
                Bytes::new(Self::PAGE)
            }
            _ => Bytes::ZERO,
        }
    }

    /// Unmaps a range that is likely a part of one leaf table.
    #[inline(never)]
    fn unmap_short(&self, cursor: &mut Cursor, iova: AddrRange<Iova>, gather: &mut Gather) -> Bytes {
        let (at, len) = (iova.start().as_u64(), iova.len().as_u64());
        let index = Self::index(at, 0);
        if len < 1 << Self::LEAF_TABLE_SHIFT
            && (index as u64) + (len >> F::PAGE_SHIFT) <= 1 << F::INDEX_BITS
            && let Some(table) = self.warm(cursor, at).or_else(|| self.leaf_table::<false>(cursor, at))
        {
            if len == Self::PAGE && !F::REPLICATES {
                return self.clear_page(table, at, gather);
            }
            return Bytes::new(self.clear_leaves(table, 0, index, at, iova.last().as_u64(), gather));
        }
        Bytes::new(self.unmap_run(&iova, gather))
    }

    /// Unmaps a range of any length, aligned to pages.
    #[inline(never)]
    pub(super) fn unmap_run(&self, iova: &AddrRange<Iova>, gather: &mut Gather) -> u64 {
        match F::FAMILY {
            Family::GenericPt => self.unmap_walking(iova, gather),
            Family::IoPgtable => self.unmap_batches(iova, gather),
        }
    }

    /// Clears leaves of one table from `at` on, up to `last`, the first hole, table or part of a leaf.
    ///
    /// Answers how many bytes that were, which is more than asked for where the last leaf ends
    /// beyond `last`.
    #[inline]
    fn clear_leaves(&self, table: PhysAddr, height: u8, index: usize, at: u64, last: u64, gather: &mut Gather) -> u64 {
        let shift = shift_of::<F>(height);
        let wanted = (last - at).wrapping_shr(shift) as usize + 1;
        let (mut entries, mut removed, mut sizes) = (0, 0_u64, 0_u64);
        while entries < wanted {
            let Some((frame, start)) = self.entries(table, index + entries) else { break };
            let end = FRAME_ENTRIES.min(start + wanted - entries);
            if F::REPLICATES {
                let cleared = self.clear_replicated(frame, height, start..end, at.wrapping_add(removed), &mut sizes);
                let pages = cleared.wrapping_shr(shift) as usize;
                (entries, removed) = (entries + pages, removed + cleared);
                if pages < end - start {
                    break;
                }
            } else {
                let slots = &frame[start..end];
                let gone = if height == 0 { clear_until_hole(slots) } else { self.clear_blocks(slots, height) };
                entries += gone;
                removed += (gone as u64).wrapping_shl(shift);
                sizes = 1_u64.wrapping_shl(shift);
                if gone < slots.len() {
                    break;
                }
            }
        }
        if removed != 0 {
            gather.add_leaves(at, removed, sizes);
        }
        removed
    }

    /// Clears entries up to the first that is no leaf; answers how many.
    #[inline]
    fn clear_blocks(&self, slots: &[AtomicU64], height: u8) -> usize {
        for (n, slot) in slots.iter().enumerate() {
            if !self.format().is_single(slot.load(Ordering::Relaxed), height) {
                return n;
            }
            slot.store(0, Ordering::Relaxed);
        }
        slots.len()
    }

    /// Clears pages that may stand in several entries, up to the first that is no leaf or begins before; answers
    /// how many bytes.
    #[inline]
    fn clear_replicated(&self, frame: &Frame, height: u8, range: Range<usize>, at: u64, sizes: &mut u64) -> u64 {
        let shift = shift_of::<F>(height);
        let (mut index, mut removed) = (range.start, 0_u64);
        while index < range.end {
            let entry = frame[index].load(Ordering::Relaxed);
            if self.format().is_single(entry, height) {
                frame[index].store(0, Ordering::Relaxed);
                index += 1;
                removed = removed.wrapping_add(1_u64.wrapping_shl(shift));
                *sizes |= 1_u64.wrapping_shl(shift);
                continue;
            }
            let Entry::Leaf { size_shift, .. } = self.format().decode(entry, height) else { break };
            let size = 1_u64.wrapping_shl(size_shift);
            if at.wrapping_add(removed) & (size - 1) != 0 {
                break;
            }
            let end = index + (1_usize << (size_shift - shift));
            frame.get(index..end).unwrap_or(&[]).iter().for_each(|slot| slot.store(0, Ordering::Relaxed));
            index = end;
            removed = removed.wrapping_add(size);
            *sizes |= size;
        }
        removed
    }

    fn unmap_walking(&self, iova: &AddrRange<Iova>, gather: &mut Gather) -> u64 {
        let (first, last) = (iova.start(), iova.last());
        if !self.reaches_range(first, last) {
            return 0;
        }
        let root = self.root();
        let index = self.root_index(root, first.as_u64());
        let mut removed = 0;
        self.clear_below(root.at, root.height, index, first.as_u64(), last.as_u64(), &mut removed, gather);
        removed
    }

    /// Clears what is mapped from `at` to `last` in one table; false: a hole or a part of a leaf stopped it.
    #[expect(clippy::too_many_arguments, reason = "the state of a descent, without a frame of its own per level")]
    fn clear_below(
        &self,
        table: PhysAddr,
        height: u8,
        mut index: usize,
        mut at: u64,
        last: u64,
        removed: &mut u64,
        gather: &mut Gather,
    ) -> bool {
        let shift = shift_of::<F>(height);
        let span = (1_u64 << shift) - 1;
        loop {
            // A leaf that the range starts inside of stays, and ends it.
            if at & span == 0 {
                let leaves = self.clear_leaves(table, height, index, at, last, gather);
                *removed += leaves;
                if leaves > last - at {
                    return true;
                }
                at += leaves;
                index += (leaves >> shift) as usize;
            }
            let Some(slot) = self.slot(table, index).filter(|_| height > 0) else { return false };
            let Entry::Table(child) = self.format().decode(slot.load(Ordering::Acquire), height) else { return false };
            let end = at | span;
            let first = Self::index(at, height - 1);
            if !self.clear_below(child, height - 1, first, at, last.min(end), removed, gather) {
                return false;
            }
            if at & span == 0 && end <= last && self.take_out(slot, child, height) {
                gather.add_table(at, shift);
                self.bury(child);
            }
            if end >= last {
                return true;
            }
            at = end + 1;
            index += 1;
        }
    }

    fn unmap_batches(&self, iova: &AddrRange<Iova>, gather: &mut Gather) -> u64 {
        let (first, len) = (iova.start().as_u64(), iova.len().as_u64());
        let sizes = self.format().shape().page_sizes();
        let mut removed = 0;
        while removed < len {
            let (at, left) = (first + removed, len - removed);
            let Some(size_shift) = sizes.best(at, left) else { break };
            let mut count = left >> size_shift;
            if let Some(larger) = sizes.above(size_shift) {
                let within = (1_u64 << larger) - 1;
                let ahead = (at & within).wrapping_neg() & within;
                if ahead != 0 && left - ahead.min(left) > within {
                    count = ahead >> size_shift;
                }
            }
            let batch = self.unmap_batch(at, size_shift, count, gather);
            if batch == 0 {
                break;
            }
            removed += batch;
        }
        removed
    }

    /// Clears up to `count` entries of 2^`size_shift` bytes in one table; answers how many bytes.
    fn unmap_batch(&self, at: u64, size_shift: u32, count: u64, gather: &mut Gather) -> u64 {
        if !self.format().shape().contains(Iova::new(at)) {
            return 0;
        }
        let root = self.root();
        let (mut table, mut height, mut index) = (root.at, root.height, self.root_index(root, at));
        let mut room = self.root_entries(root).saturating_sub(index);
        while shift_of::<F>(height) > size_shift {
            let Some(slot) = self.slot(table, index) else { return 0 };
            let Entry::Table(next) = self.format().decode(slot.load(Ordering::Acquire), height) else { return 0 };
            (table, height) = (next, height - 1);
            index = Self::index(at, height);
            room = (1 << F::INDEX_BITS) - index;
        }
        let count = room.min(usize::try_from(count).unwrap_or(usize::MAX));
        let last = at + (((count as u64) << size_shift) - 1);
        let mut removed = 0;
        while removed <= last - at {
            let index = index + (removed >> size_shift) as usize;
            let leaves = self.clear_leaves(table, height, index, at + removed, last, gather);
            removed += leaves;
            if removed > last - at {
                break;
            }
            let Some(slot) = self.slot(table, index + (leaves >> size_shift) as usize).filter(|_| height > 0) else {
                break;
            };
            let Entry::Table(child) = self.format().decode(slot.load(Ordering::Acquire), height) else { break };
            if !self.take_out(slot, child, height) {
                break;
            }
            gather.add_leaves(at + removed, 1 << size_shift, Self::PAGE);
            gather.add_table(at + removed, size_shift);
            self.bury_all(child, height - 1);
            removed += 1 << size_shift;
        }
        removed
    }
}
