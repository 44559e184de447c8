//! A frame of leaf entries at hand: mapping the next page without looking for its table.
//!
//! Whoever maps page after page holds a [`Near`] beside the cursor and tries it first: it
//! knows which IOVAs the frame's entries translate, so that one comparison answers what a descent
//! would. Whatever is not a run of smallest pages inside it goes the long way.
//!
//! It is only believed while the page table has taken no table out since it was made, as a
//! [`Cursor`] is.

use super::cursor::Cursor;
use super::entry::Leaf;
use super::format::Format;
use super::memory::{Frame, TableMemory};
use super::slots::{clear_until_hole, free_until_taken};
use super::table::{FRAME_ENTRIES, PageTable};
use crate::addr::{AddrRange, Bytes, Iova, PhysAddr};
use crate::sync::atomic::{AtomicU64, Ordering};

/// A frame of leaf entries, and the IOVAs that it is at hand for.
#[derive(Clone, Copy, Debug)]
pub struct Near<'a> {
    frame: &'a Frame,
    generation: u64,
    first: u64,
    len: u64,
}

impl<F: Format, M: TableMemory> PageTable<F, M> {
    /// The frame of leaf entries around `iova` for those of its IOVAs that lie in `within`.
    ///
    /// `None` where the cursor remembers no leaf table there. Of use with this table only.
    pub fn near(&self, cursor: &Cursor, iova: Iova, within: AddrRange<Iova>) -> Option<Near<'_>> {
        let generation = self.generation();
        let at = iova.as_u64();
        let (frame, _) = self.entries(self.warm(cursor, at)?, Self::index(at, 0))?;
        let span = (FRAME_ENTRIES as u64) << F::PAGE_SHIFT;
        let first = (at & !(span - 1)).max(within.start().as_u64());
        let last = (at | (span - 1)).min(within.last().as_u64());
        // Whole pages, so that an aligned page that starts inside ends inside.
        let first = first.checked_next_multiple_of(Self::PAGE)?;
        let len = last.checked_sub(first)?.wrapping_add(1) & !(Self::PAGE - 1);
        Some(Near { frame, generation, first, len })
    }

    /// Maps a few smallest pages in the frame at hand; false, with nothing mapped: use [`map`](Self::map).
    #[inline]
    pub fn map_near(&self, near: &Near<'_>, iova: AddrRange<Iova>, to: PhysAddr, leaf: Leaf) -> bool {
        let (at, to) = (iova.start().as_u64(), to.as_u64());
        if iova.len().as_u64() != Self::PAGE {
            return self.map_near_run(near, iova, PhysAddr::new(to), leaf);
        }
        let offset = at.wrapping_sub(near.first);
        if offset >= near.len || (at | to) & (Self::PAGE - 1) != 0 || to >= leaf.last || self.is_over(near) {
            return false;
        }
        let slot = &near.frame[Self::place(at)];
        if slot.load(Ordering::Relaxed) != 0 {
            return false;
        }
        slot.store(self.format().leaf_entry(leaf.bits, PhysAddr::new(to), 0, F::PAGE_SHIFT), Ordering::Relaxed);
        true
    }

    #[inline(never)]
    fn map_near_run(&self, near: &Near<'_>, iova: AddrRange<Iova>, to: PhysAddr, leaf: Leaf) -> bool {
        let (len, to) = (iova.len().as_u64(), to.as_u64());
        // Shorter than the second smallest page, so that all are of the smallest size.
        let small = len < self.second_size && to & (Self::PAGE - 1) == 0;
        let fits = to < leaf.last && len - 1 <= leaf.last - to;
        let Some(slots) = self.slots_near(near, &iova).filter(|_| small && fits) else { return false };
        // Seen before anything is stored, so that no page is reachable that is not going to stay.
        if free_until_taken(slots) < slots.len() {
            return false;
        }
        self.store_pages(slots, to, 0, F::PAGE_SHIFT, leaf.bits);
        true
    }

    /// Unmaps smallest pages in the frame at hand up to the first hole; answers how many bytes.
    ///
    /// What is left of the range is for [`unmap_exactly`](Self::unmap_exactly). Nothing is unmapped of
    /// ranges that are not inside the frame, nor in formats that repeat entries. What was unmapped
    /// has to be invalidated.
    #[inline]
    pub fn unmap_near(&self, near: &Near<'_>, iova: AddrRange<Iova>) -> Bytes {
        if F::REPLICATES {
            return Bytes::ZERO;
        }
        match self.slots_near(near, &iova) {
            Some([slot]) if slot.load(Ordering::Relaxed) != 0 => {
                slot.store(0, Ordering::Relaxed);
                iova.len()
            }
            // A whole frame may be a whole table, which would be taken out.
            Some(slots) if slots.len() < FRAME_ENTRIES => Bytes::new((clear_until_hole(slots) as u64) << F::PAGE_SHIFT),
            _ => Bytes::ZERO,
        }
    }

    /// The entries of an aligned range inside the frame at hand.
    #[inline]
    fn slots_near<'a>(&self, near: &Near<'a>, iova: &AddrRange<Iova>) -> Option<&'a [AtomicU64]> {
        let (at, len) = (iova.start().as_u64(), iova.len().as_u64());
        // Below the frame the offset wraps, beyond all room that there is.
        let room = near.len.checked_sub(len)?;
        if at.wrapping_sub(near.first) > room || (at | len) & (Self::PAGE - 1) != 0 || self.is_over(near) {
            return None;
        }
        near.frame[Self::place(at)..].get(..(len >> F::PAGE_SHIFT) as usize)
    }

    /// Whether a table was taken out since.
    #[inline]
    fn is_over(&self, near: &Near<'_>) -> bool {
        self.generation() != near.generation
    }

    /// The entry of an IOVA in the frame of its leaf table.
    #[inline]
    const fn place(iova: u64) -> usize {
        (iova >> F::PAGE_SHIFT) as usize % FRAME_ENTRIES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{MemAttrs, Prot};
    use crate::iopt::{ArmOptions, ArmStage2, FrameArena, Gather, Pages64K, VtdOptions, VtdSecondStage};

    fn range(start: u64, len: u64) -> AddrRange<Iova> {
        AddrRange::new(Iova::new(start), Bytes::new(len)).unwrap()
    }

    fn all() -> AddrRange<Iova> {
        range(0, 1 << 47)
    }

    /// A table with one page mapped at `at`, and the frame around it.
    fn with_near<F: Format>(
        format: F,
        at: u64,
        within: AddrRange<Iova>,
        then: impl FnOnce(&PageTable<F, &FrameArena>, &Near<'_>, Leaf),
    ) {
        let arena = FrameArena::new(PhysAddr::new(1 << 40), 1024);
        let table = PageTable::new(format, &arena).unwrap();
        let (mut cursor, leaf) = (Cursor::new(), table.leaf(Prot::ReadWrite, MemAttrs::empty()));
        table.map(&mut cursor, range(at, 1 << F::PAGE_SHIFT), PhysAddr::new(0), leaf).unwrap();
        let near = table.near(&cursor, Iova::new(at), within).unwrap();
        then(&table, &near, leaf);
    }

    fn vtd() -> VtdSecondStage {
        VtdSecondStage::new(VtdOptions::default()).unwrap()
    }

    #[test]
    fn pages_beside_the_last_one_are_mapped_and_what_is_not_beside_is_left_alone() {
        with_near(vtd(), 0x20_5000, all(), |table, near, leaf| {
            let map = |at, len, to| table.map_near(near, range(at, len), PhysAddr::new(to), leaf);
            assert!(
                map(0x20_0000, 0x1000, 0x9000) && map(0x3f_f000, 0x1000, 0xa000) && map(0x20_6000, 0x1_0000, 0xb000)
            );
            for (at, len, to) in [
                (0x1f_f000, 0x1000, 0),
                (0x40_0000, 0x1000, 0),
                (0x3f_e000, 0x3000, 0),
                (0x1f_f000, 0x2000, 0),
                (0x20_5000, 0x1000, 0),
                (0x20_4000, 0x3000, 0),
                (0x30_0000, 0x1000, 1 << 52),
                (0x30_0000, 0x2000, (1 << 52) - 0x1000),
                (0x30_0000, 0x1000, 0x800),
                (0x30_0800, 0x1000, 0),
            ] {
                assert!(!map(at, len, to), "{at:#x} {len:#x} {to:#x}");
            }
            for (at, to) in [(0x20_0123, 0x9123), (0x3f_f000, 0xa000), (0x20_6000, 0xb000), (0x21_5fff, 0x1_afff)] {
                assert_eq!(table.walk(Iova::new(at)).map(|found| found.pa), Ok(PhysAddr::new(to)));
            }
            for empty in [0x1f_f000, 0x40_0000, 0x30_0000, 0x20_4000] {
                assert!(table.walk(Iova::new(empty)).is_err(), "{empty:#x}");
            }
        });
    }

    #[test]
    fn what_is_at_hand_ends_with_the_range_it_was_asked_for() {
        with_near(vtd(), 0x20_5000, range(0x20_4000, 0x3000), |table, near, leaf| {
            let map = |at| table.map_near(near, range(at, 0x1000), PhysAddr::new(0x9000), leaf);
            assert_eq!([0x20_3000, 0x20_4000, 0x20_6000, 0x20_7000].map(map), [false, true, true, false]);
        });
    }

    #[test]
    fn an_unmapping_stops_at_a_hole_and_at_the_end_of_the_frame() {
        with_near(vtd(), 0x20_5000, all(), |table, near, leaf| {
            assert!(table.map_near(near, range(0x20_0000, 0x3000), PhysAddr::new(0), leaf));
            let unmap = |at, len| table.unmap_near(near, range(at, len)).as_u64();
            assert_eq!(unmap(0x20_1000, 0x8000), 0x2000);
            assert_eq!((unmap(0x20_1000, 0x1000), unmap(0x20_0000, 0x1000)), (0, 0x1000));
            assert_eq!((unmap(0x20_0000, 0x20_0000), unmap(0x20_5000, 0x20_0000)), (0, 0));
            assert!(table.walk(Iova::new(0x20_5000)).is_ok());
        });
    }

    #[test]
    fn after_a_table_was_taken_out_nothing_is_at_hand() {
        with_near(vtd(), 0x20_5000, all(), |table, near, leaf| {
            table.unmap_exactly(&mut Cursor::new(), range(0, 1 << 30), &mut Gather::new()).unwrap();
            assert!(!table.map_near(near, range(0x20_5000, 0x1000), PhysAddr::new(0), leaf));
            assert!(!table.map_near(near, range(0x20_5000, 0x2000), PhysAddr::new(0), leaf));
            assert_eq!(table.unmap_near(near, range(0x20_5000, 0x1000)), Bytes::ZERO);
        });
    }

    #[test]
    fn a_table_of_several_frames_has_one_of_them_at_hand() {
        let page = 1 << 16;
        with_near(
            ArmStage2::<Pages64K>::new(ArmOptions::default()).unwrap(),
            600 * page,
            all(),
            |table, near, leaf| {
                let map = |n| table.map_near(near, range(n * page, page), PhysAddr::new(n * page), leaf);
                assert_eq!([511, 512, 1023, 1024].map(map), [false, true, true, false]);
                for n in [512, 1023] {
                    assert_eq!(table.walk(Iova::new(n * page)).map(|found| found.pa), Ok(PhysAddr::new(n * page)));
                }
            },
        );
    }
}
