//! Who else does it: published crates, and what everybody writes first.

pub mod attachments;
pub mod first_fit;
pub mod iotlb;
pub mod multiarch;
pub mod vm_alloc;

/// An allocator of page numbers.
pub trait Allocates {
    /// Takes `pages` in a row; `None` if there is no room.
    fn take(&mut self, pages: u64) -> Option<u64>;

    /// Gives back what was taken.
    fn give(&mut self, start: u64, pages: u64);

    /// Takes exactly these, to build a state without the search for it; whether they were free.
    fn place(&mut self, start: u64, pages: u64) -> bool;
}

#[cfg(test)]
mod tests {
    use super::first_fit::FirstFit;
    use super::vm_alloc::VmAllocator;
    use super::*;
    use crate::draw::Draw;
    use crate::limits::walk::{FourLevels, Hits};

    /// Peers that are compared by how long they take have to give the same answers.
    #[test]
    fn both_first_fits_hand_out_the_same_pages() {
        let (mut ours, mut theirs) = (FirstFit::new(1, 4096), VmAllocator::new(1, 4096));
        let (mut live, mut draw) = (Vec::new(), Draw::new(1));
        for _ in 0..2_000 {
            let pages = draw.below(32) + 1;
            let taken = ours.take(pages);
            assert_eq!(taken, theirs.take(pages));
            live.extend(taken.map(|start| (start, pages)));
            if live.len() > 100 || taken.is_none() {
                let (start, pages) = live.swap_remove(draw.below(live.len() as u64) as usize);
                ours.give(start, pages);
                theirs.give(start, pages);
            }
        }
        assert!(ours.place(4000, 90) == theirs.place(4000, 90));
    }

    #[test]
    fn an_attachment_that_is_left_can_be_revoked() {
        let all = attachments::Attachments::new(2);
        all.access(1);
        all.revoke(1, 1);
        all.access(1);
    }

    #[test]
    fn what_is_placed_is_not_handed_out() {
        let mut first_fit = FirstFit::new(1, 100);
        assert!(first_fit.place(5, 10) && !first_fit.place(14, 2));
        assert_eq!((first_fit.take(4), first_fit.take(1), first_fit.take(86)), (Some(1), Some(15), None));
        first_fit.give(5, 10);
        assert_eq!(first_fit.take(10), Some(5));
    }

    #[test]
    fn all_who_translate_agree() {
        let pages: Vec<_> =
            (0..64).map(|page| (0x40_0000_0000 + (page << 12), 0x1_0000_0000 + (((page * 7) % 64) << 13))).collect();
        let (table, hits, mut walked) = (iotlb::filled(&pages), Hits::of(&pages), FourLevels::default());
        pages.iter().for_each(|&(iova, target)| walked.map(iova, target));
        for &(iova, target) in &pages {
            let at = iova + 0x7f8;
            let answers = [iotlb::translate(&table, at), hits.translate(at), walked.translate(at)];
            assert_eq!(answers, [target + 0x7f8; 3]);
        }
        assert_eq!([walked.translate(0x1000), hits.translate(0x1000), iotlb::translate(&table, 0x1000)], [0; 3]);
    }

    #[test]
    fn the_peer_for_tables_maps_what_it_is_told() {
        let mut table = multiarch::table();
        let (iova, target) = (0x40_0000_0000, 0x1_0020_0000);
        assert!(multiarch::map(&mut table.cursor(), iova, target, 0x40_0000, true));
        let found = table.query((iova as usize + 0x20_3008).into()).map(|found| found.0.as_usize());
        assert_eq!(found, Ok(target as usize + 0x20_3008));
        assert!(multiarch::unmap(&mut table.cursor(), iova, 0x40_0000));
        assert!(table.query((iova as usize).into()).is_err());
        assert!(multiarch::map_page(&mut table.cursor(), iova - 0x1000, target));
        assert!(multiarch::unmap_page(&mut table.cursor(), iova - 0x1000));
    }
}
