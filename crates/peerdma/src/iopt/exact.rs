//! Unmapping exactly what is mapped in a range, and nothing else, whatever the format.
//!
//! Linux's answers ([`unmap`](PageTable::unmap)) stop at holes and take whole leaves or none. Who
//! promises less surprise (an address space with an exact `unmap`) splits leaves that the
//! range cuts, and goes on behind holes. The bytes are counted entry by entry, also where a
//! table goes as a whole.

use super::cursor::Cursor;
use super::entry::Entry;
use super::error::SplitError;
use super::format::{Format, shift_of};
use super::gather::Gather;
use super::memory::TableMemory;
use super::slots::clear_until_hole;
use super::table::{FRAME_ENTRIES, PageTable};
use crate::addr::{AddrRange, Bytes, Iova, PhysAddr};
use crate::sync::atomic::Ordering;

impl<F: Format, M: TableMemory> PageTable<F, M> {
    /// Unmaps what is mapped in `iova` and answers how many bytes that were.
    ///
    /// Leaves that reach out of the range are split and stay outside of it; holes are passed
    /// over. `gather` collects what must be invalidated, as for [`unmap`](Self::unmap), and
    /// tables that lay in the range as a whole are taken out alike.
    ///
    /// # Errors
    /// [`SplitError`], for a leaf at an end of the range; nothing is unmapped then.
    #[inline]
    pub fn unmap_exactly(
        &self,
        cursor: &mut Cursor,
        iova: AddrRange<Iova>,
        gather: &mut Gather,
    ) -> Result<Bytes, SplitError> {
        let (at, len) = (iova.start().as_u64(), iova.len().as_u64());
        let (index, pages) = (Self::index(at, 0), len >> F::PAGE_SHIFT);
        // Less than a whole table, inside a known one.
        let room = (1 << F::INDEX_BITS) - index as u64;
        if (at | len) & (Self::PAGE - 1) == 0
            && pages <= room
            && pages < 1 << F::INDEX_BITS
            && let Some(table) = self.warm(cursor, at).or_else(|| self.leaf_table::<false>(cursor, at))
        {
            let pages = pages as usize;
            if !F::REPLICATES || !(self.cuts(table, index) || self.cuts(table, index + pages)) {
                return Ok(Bytes::new(self.clear_present(table, index, pages, at, gather)));
            }
        }
        self.unmap_split(iova, gather)
    }

    /// The same for any range: splits at its ends, then clears all between them.
    #[inline(never)]
    fn unmap_split(&self, iova: AddrRange<Iova>, gather: &mut Gather) -> Result<Bytes, SplitError> {
        let (first, last) = (iova.start(), iova.last());
        if !self.format().shape().contains_range(&iova) {
            return Err(SplitError::IovaOutOfRange { at: first });
        }
        if iova.len().as_u64() & (Self::PAGE - 1) != 0 {
            return Err(SplitError::Misaligned { at: last, page: Bytes::new(Self::PAGE) });
        }
        self.split(first)?;
        match last.checked_add(Bytes::new(1)) {
            Some(end) if self.format().shape().contains(end) => self.split(end)?,
            _ => {}
        }
        let root = self.root();
        // A root that has not grown that far has nothing there.
        let last = if F::GROWS { last.as_u64().min(Self::reach(root.height)) } else { last.as_u64() };
        let removed = match first.as_u64() <= last {
            true => {
                let index = self.root_index(root, first.as_u64());
                self.clear_all(root.at, root.height, index, first.as_u64(), last, gather)
            }
            false => 0,
        };
        Ok(Bytes::new(removed))
    }

    /// The last IOVA below a root of this height.
    fn reach(height: u8) -> u64 {
        let bits = shift_of::<F>(height) + F::INDEX_BITS;
        if bits >= 64 { u64::MAX } else { (1 << bits) - 1 }
    }

    /// Clears every leaf from `at` to `last` below one table; answers how many bytes.
    ///
    /// No leaf reaches out of that range.
    fn clear_all(
        &self,
        table: PhysAddr,
        height: u8,
        mut index: usize,
        mut at: u64,
        last: u64,
        gather: &mut Gather,
    ) -> u64 {
        let shift = shift_of::<F>(height);
        let span = (1_u64 << shift) - 1;
        if height == 0 && !F::REPLICATES {
            let pages = ((last - at) >> F::PAGE_SHIFT) as usize + 1;
            return self.clear_present(table, index, pages, at, gather);
        }
        let mut removed = 0;
        loop {
            let end = at | span;
            let Some(slot) = self.slot(table, index) else { return removed };
            match self.format().decode(slot.load(Ordering::Acquire), height) {
                // A page that stands in several entries goes entry by entry, all of them being in the range.
                Entry::Leaf { size_shift, .. } => {
                    slot.store(0, Ordering::Relaxed);
                    gather.add_leaves(at, span + 1, 1_u64.wrapping_shl(size_shift));
                    removed += span + 1;
                }
                Entry::Table(child) if height > 0 => {
                    let first = Self::index(at, height - 1);
                    let whole = at & span == 0 && end <= last;
                    removed += self.clear_all(child, height - 1, first, at, last.min(end), gather);
                    if whole && self.take_out(slot, child, height) {
                        gather.add_table(at, shift);
                        self.bury(child);
                    }
                }
                Entry::Table(_) | Entry::Empty | Entry::Bad => {}
            }
            if end >= last {
                return removed;
            }
            at = end + 1;
            index += 1;
        }
    }

    /// Whether a page of several entries of a leaf table begins before entry `index` and holds it.
    fn cuts(&self, table: PhysAddr, index: usize) -> bool {
        let Some(slot) = (index < 1 << F::INDEX_BITS).then(|| self.slot(table, index)).flatten() else { return false };
        match self.format().decode(slot.load(Ordering::Relaxed), 0) {
            Entry::Leaf { size_shift, .. } => index as u64 & ((1 << (size_shift - F::PAGE_SHIFT)) - 1) != 0,
            Entry::Table(_) | Entry::Empty | Entry::Bad => false,
        }
    }

    /// Clears what is present among entries of one leaf table; answers how many bytes.
    #[inline]
    fn clear_present(&self, table: PhysAddr, index: usize, pages: usize, iova: u64, gather: &mut Gather) -> u64 {
        let mut done = 0;
        let mut removed = 0;
        while done < pages {
            let Some((frame, start)) = self.entries(table, index + done) else { break };
            let slots = &frame[start..FRAME_ENTRIES.min(start + pages - done)];
            let run = clear_until_hole(slots);
            if run != 0 {
                let len = (run as u64) << F::PAGE_SHIFT;
                gather.add_leaves(iova + ((done as u64) << F::PAGE_SHIFT), len, Self::PAGE);
                removed += len;
            }
            done += run;
            if run < slots.len() {
                done += slots[run..].iter().take_while(|slot| slot.load(Ordering::Relaxed) == 0).count();
            }
        }
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{MemAttrs, Prot};
    use crate::iopt::{AmdOptions, AmdV1, ArmOptions, ArmStage2, FrameArena, Pages4K, VtdOptions, VtdSecondStage};
    use alloc::vec::Vec;

    const PAGE: u64 = 0x1000;
    const LARGE: u64 = 0x20_0000;

    fn vtd() -> VtdSecondStage {
        VtdSecondStage::new(VtdOptions::default()).unwrap()
    }

    fn range(start: u64, len: u64) -> AddrRange<Iova> {
        AddrRange::new(Iova::new(start), Bytes::new(len)).unwrap()
    }

    /// A table with `mapped` leading to the same numbers, and what is left of it after an unmapping.
    fn left<F: Format>(format: F, mapped: &[(u64, u64)], unmapped: (u64, u64)) -> (u64, Vec<u64>) {
        let arena = FrameArena::new(PhysAddr::new(1 << 40), 64);
        let table = PageTable::new(format, &arena).unwrap();
        let (mut cursor, leaf) = (Cursor::new(), table.leaf(Prot::ReadWrite, MemAttrs::empty()));
        for (start, len) in mapped {
            table.map(&mut cursor, range(*start, *len), PhysAddr::new(*start), leaf).unwrap();
        }
        let out = table.unmap_exactly(&mut cursor, range(unmapped.0, unmapped.1), &mut Gather::new()).unwrap();
        let pages = mapped.iter().flat_map(|(start, len)| (*start..start + len).step_by(PAGE as usize));
        let left = pages.filter(|at| {
            let found = table.walk(Iova::new(*at));
            assert!(found.is_err() || found.is_ok_and(|found| found.pa.as_u64() == *at), "{at:#x} leads elsewhere");
            found.is_ok()
        });
        (out.as_u64(), left.map(|at| at / PAGE).collect())
    }

    fn exact<F: Format>(format: &F) {
        // The middle of a large page, with its neighbours of 64 KiB as Amd's repeated entries have them.
        let (out, rest) = left(format.clone(), &[(LARGE, LARGE)], (LARGE + 16 * PAGE, 0x1e_0000));
        assert_eq!(out, 0x1e_0000);
        assert_eq!(rest, (512..528).chain(1008..1024).collect::<Vec<_>>());
        // From the middle of one large page to the end of the next, and from a start to a middle.
        let (out, rest) = left(format.clone(), &[(LARGE, 2 * LARGE)], (LARGE + 3 * PAGE, 2 * LARGE - 3 * PAGE));
        assert_eq!((out, rest), (2 * LARGE - 3 * PAGE, [512, 513, 514].to_vec()));
        let (out, rest) = left(format.clone(), &[(LARGE, 2 * LARGE)], (LARGE, 2 * LARGE - PAGE));
        assert_eq!((out, rest), (2 * LARGE - PAGE, [1535].to_vec()));
        // A hole in a table that goes as a whole counts nothing.
        let (out, rest) = left(format.clone(), &[(LARGE, PAGE), (LARGE + 9 * PAGE, PAGE)], (0, 4 * LARGE));
        assert_eq!((out, rest.len()), (2 * PAGE, 0));
        // Holes of whole tables, and more below the root than it has grown to.
        let (out, rest) = left(format.clone(), &[(0, PAGE), (1 << 34, 16 * PAGE)], (0, (1 << 34) + 4 * PAGE));
        assert_eq!(out, 5 * PAGE);
        assert_eq!(rest, (4..16).map(|n| (1 << 22) + n).collect::<Vec<_>>());
        let (out, rest) = left(format.clone(), &[(PAGE, PAGE)], (0, 1 << 46));
        assert_eq!((out, rest.len()), (PAGE, 0));
    }

    #[test]
    fn what_is_mapped_in_the_range_goes_and_nothing_else_in_every_format() {
        exact(&vtd());
        exact(&AmdV1::new(AmdOptions::default()).unwrap());
        exact(&ArmStage2::<Pages4K>::new(ArmOptions::default()).unwrap());
    }

    #[test]
    fn a_page_that_cannot_be_split_stays_whole() {
        let arena = FrameArena::new(PhysAddr::new(1 << 40), 3);
        let table = PageTable::new(vtd(), &arena).unwrap();
        let (mut cursor, leaf) = (Cursor::new(), table.leaf(Prot::ReadWrite, MemAttrs::empty()));
        table.map(&mut cursor, range(0, 2 * LARGE), PhysAddr::new(0), leaf).unwrap();
        let answer = table.unmap_exactly(&mut cursor, range(0, LARGE + PAGE), &mut Gather::new());
        assert_eq!(answer, Err(SplitError::NoMemory { at: Iova::new(LARGE + PAGE) }));
        assert!(table.walk(Iova::new(0)).is_ok() && table.walk(Iova::new(2 * LARGE - 1)).is_ok());
        assert_eq!(table.unmap_exactly(&mut cursor, range(0, LARGE), &mut Gather::new()), Ok(Bytes::new(LARGE)));
    }
}
