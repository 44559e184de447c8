//! Which slots a machine has, and where: checked here before the kernel is asked.

use super::error::{SlotError, Unaligned};
use super::slot::SlotId;
use peerdma::access::Prot;
use peerdma::addr::{AddrRange, Bytes, Granule, GuestPhys};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Most pages of a slot (Linux 7.2 `KVM_MEM_MAX_NR_PAGES`).
pub(super) const MOST_PAGES: u64 = (1 << 31) - 1;

/// Whether a slot's memory may go.
#[derive(Clone, Debug)]
pub(super) enum Standing {
    /// It stays as long as the slot.
    Stays,
    /// The kernel may take it, and says nothing: a BAR.
    Silent,
    /// It comes and goes, and whether it is there is known.
    Known(Arc<AtomicBool>),
}

/// Slots and what is taken besides.
#[derive(Debug)]
pub(super) struct Layout {
    /// Numbers that may be used.
    numbers: RangeInclusive<u16>,
    /// Ranges that are somebody else's.
    reserved: Vec<AddrRange<GuestPhys>>,
    slots: BTreeMap<u16, Placed>,
}

/// A slot.
#[derive(Debug)]
struct Placed {
    range: AddrRange<GuestPhys>,
    standing: Standing,
    prot: Prot,
}

impl Layout {
    pub(super) fn new(numbers: RangeInclusive<u16>) -> Self {
        Self { numbers, reserved: Vec::new(), slots: BTreeMap::new() }
    }

    /// Says that a range is not to be used.
    pub(super) fn reserve(&mut self, range: AddrRange<GuestPhys>) {
        self.reserved.push(range);
    }

    /// Takes a number and a range for a slot.
    pub(super) fn place(
        &mut self,
        range: AddrRange<GuestPhys>,
        standing: Standing,
        prot: Prot,
    ) -> Result<SlotId, SlotError> {
        self.free(range, None)?;
        let number = self.numbers.clone().find(|number| !self.slots.contains_key(number));
        let number = number.ok_or(SlotError::Full { slots: self.numbers.clone().count() as u32 })?;
        self.slots.insert(number, Placed { range, standing, prot });
        Ok(SlotId::new(number))
    }

    /// Where a slot would be after a move; nothing is changed.
    pub(super) fn free(&self, asked: AddrRange<GuestPhys>, but: Option<SlotId>) -> Result<(), SlotError> {
        let others = self.slots.iter().filter(|(number, _)| but.is_none_or(|id| id.number() != **number));
        let others = others.map(|(number, placed)| (placed.range, Some(SlotId::new(*number))));
        let reserved = self.reserved.iter().map(|range| (*range, None));
        match others.chain(reserved).find(|(other, _)| overlap(*other, asked)) {
            Some((other, slot)) => Err(SlotError::Overlaps { asked, other, slot }),
            None => Ok(()),
        }
    }

    pub(super) fn moved(&mut self, id: SlotId, to: AddrRange<GuestPhys>) {
        if let Some(placed) = self.slots.get_mut(&id.number()) {
            placed.range = to;
        }
    }

    pub(super) fn remove(&mut self, id: SlotId) {
        self.slots.remove(&id.number());
    }

    /// The slot that an address of the guest's is in.
    pub(super) fn slot_at(&self, at: GuestPhys) -> Option<SlotId> {
        self.placed_at(at).map(|(id, _)| id)
    }

    /// The slot in which an access of the guest's would have found memory that permits it.
    pub(super) fn slot_for(&self, at: GuestPhys, prot: Prot) -> Option<SlotId> {
        self.placed_at(at).filter(|(_, placed)| prot.within(placed.prot) == Some(prot)).map(|(id, _)| id)
    }

    fn placed_at(&self, at: GuestPhys) -> Option<(SlotId, &Placed)> {
        let byte = AddrRange::new(at, Bytes::new(1))?;
        let found = self.slots.iter().find(|(_, placed)| placed.range.contains_range(&byte));
        found.map(|(number, placed)| (SlotId::new(*number), placed))
    }

    /// Slots whose memory is known to be out of reach, or else those of which nobody would say so.
    pub(super) fn suspects(&self) -> Vec<SlotId> {
        let of = |which: fn(&Standing) -> bool| -> Vec<SlotId> {
            let slots = self.slots.iter().filter(|(_, placed)| which(&placed.standing));
            slots.map(|(number, _)| SlotId::new(*number)).collect()
        };
        let known = of(|standing| matches!(standing, Standing::Known(there) if !there.load(Ordering::Acquire)));
        if known.is_empty() { of(|standing| matches!(standing, Standing::Silent)) } else { known }
    }
}

fn overlap(one: AddrRange<GuestPhys>, other: AddrRange<GuestPhys>) -> bool {
    one.start() <= other.last() && other.start() <= one.last()
}

/// The range that a slot takes, if a slot can be like that.
pub(super) fn checked(
    at: GuestPhys,
    from: Bytes,
    len: Bytes,
    page: Granule,
) -> Result<AddrRange<GuestPhys>, SlotError> {
    if len == Bytes::ZERO {
        return Err(SlotError::Empty);
    }
    let wrong = match () {
        () if !page.aligns(at) => Some(Unaligned::Guest(at)),
        () if !page.divides(from) => Some(Unaligned::Memory(from)),
        () if !page.divides(len) => Some(Unaligned::Length(len)),
        () => None,
    };
    if let Some(what) = wrong {
        return Err(SlotError::NotPages { what, page: page.bytes() });
    }
    let most = Bytes::new(MOST_PAGES * page.bytes().as_u64());
    if len > most {
        return Err(SlotError::TooLong { len, most });
    }
    // The kernel adds without looking at the last byte alone, so a slot cannot end at the very last address.
    at.checked_add(len).and_then(|_| AddrRange::new(at, len)).ok_or(SlotError::PastEnd { at, len })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAGE: Granule = Granule::PAGE_4K;

    fn range(start: u64, len: u64) -> AddrRange<GuestPhys> {
        AddrRange::new(GuestPhys::new(start), Bytes::new(len)).unwrap()
    }

    #[test]
    fn what_is_no_slot_is_refused_by_name() {
        let check = |at, from, len| checked(GuestPhys::new(at), Bytes::new(from), Bytes::new(len), PAGE).unwrap_err();
        assert_eq!(check(0, 0, 0), SlotError::Empty);
        let not = |what| SlotError::NotPages { what, page: PAGE.bytes() };
        assert_eq!(check(1, 0, 0x1000), not(Unaligned::Guest(GuestPhys::new(1))));
        assert_eq!(check(0, 0x800, 0x1000), not(Unaligned::Memory(Bytes::new(0x800))));
        assert_eq!(check(0, 0, 0x1001), not(Unaligned::Length(Bytes::new(0x1001))));
        assert!(matches!(check(0, 0, 1 << 43), SlotError::TooLong { .. }));
        assert!(matches!(check(u64::MAX - 0xfff, 0, 0x1000), SlotError::PastEnd { .. }));
        assert_eq!(checked(GuestPhys::new(0x1000), Bytes::ZERO, Bytes::new(0x1000), PAGE), Ok(range(0x1000, 0x1000)));
    }

    #[test]
    fn an_overlap_names_what_is_in_the_way() {
        let mut layout = Layout::new(0..=3);
        let first = layout.place(range(0x1000, 0x2000), Standing::Stays, Prot::ReadWrite).unwrap();
        layout.reserve(range(0x8000, 0x1000));
        let asked = range(0x2000, 0x1000);
        let error = layout.place(asked, Standing::Stays, Prot::ReadWrite).unwrap_err();
        assert_eq!(error, SlotError::Overlaps { asked, other: range(0x1000, 0x2000), slot: Some(first) });
        assert_eq!(
            error.to_string(),
            "0x2000-0x2fff is in the way of 0x1000-0x2fff (slot 0); choose another place, or take that away first"
        );
        let error = layout.place(range(0x7000, 0x2000), Standing::Stays, Prot::ReadWrite).unwrap_err();
        assert!(matches!(error, SlotError::Overlaps { slot: None, .. }) && error.to_string().contains("(reserved)"));
        assert!(layout.free(range(0x2000, 0x2000), Some(first)).is_ok(), "a slot is not in its own way");
        layout.remove(first);
        assert!(layout.place(asked, Standing::Stays, Prot::ReadWrite).is_ok());
    }

    #[test]
    fn a_store_finds_no_memory_in_a_slot_for_reading_and_a_load_does() {
        let mut layout = Layout::new(0..=1);
        let slot = layout.place(range(0x1000, 0x1000), Standing::Stays, Prot::Read).unwrap();
        let at = |offset: u64| GuestPhys::new(0x1000 + offset);
        assert_eq!(layout.slot_for(at(0xfff), Prot::Read), Some(slot));
        assert_eq!(layout.slot_for(at(0xfff), Prot::Write), None);
        assert_eq!((layout.slot_for(at(0x1000), Prot::Read), layout.slot_at(at(0))), (None, Some(slot)));
    }

    #[test]
    fn numbers_are_those_that_may_be_used_and_come_back() {
        let mut layout = Layout::new(5..=6);
        let one = layout.place(range(0, 0x1000), Standing::Stays, Prot::ReadWrite).unwrap();
        let two = layout.place(range(0x1000, 0x1000), Standing::Stays, Prot::ReadWrite).unwrap();
        assert_eq!((one.number(), two.number()), (5, 6));
        let full = layout.place(range(0x2000, 0x1000), Standing::Stays, Prot::ReadWrite).unwrap_err();
        assert_eq!(full, SlotError::Full { slots: 2 });
        layout.remove(one);
        assert_eq!(layout.place(range(0x2000, 0x1000), Standing::Stays, Prot::ReadWrite).unwrap(), one);
    }

    #[test]
    fn what_is_known_to_be_away_is_suspected_before_what_nobody_tells_of() {
        let mut layout = Layout::new(0..=9);
        let there = Arc::new(AtomicBool::new(true));
        layout.place(range(0, 0x1000), Standing::Stays, Prot::ReadWrite).unwrap();
        assert!(layout.suspects().is_empty());
        let bar = layout.place(range(0x1000, 0x1000), Standing::Silent, Prot::ReadWrite).unwrap();
        let known = layout.place(range(0x2000, 0x1000), Standing::Known(there.clone()), Prot::ReadWrite).unwrap();
        assert_eq!(layout.suspects(), [bar]);
        there.store(false, Ordering::Release);
        assert_eq!(layout.suspects(), [known]);
        assert_eq!(layout.slot_at(GuestPhys::new(0x1fff)), Some(bar));
        assert_eq!(layout.slot_at(GuestPhys::new(0x3000)), None);
    }

    proptest! {
        /// A bit for each page is the slow model.
        #[test]
        fn no_two_slots_share_a_page(asked in prop::collection::vec((0..30u64, 1..6u64, any::<bool>()), 0..40)) {
            let mut layout = Layout::new(0..=200);
            let (mut taken, mut live) = ([false; 40], Vec::new());
            for (at, pages, drop_one) in asked {
                if drop_one && !live.is_empty() {
                    let (id, at, pages): (SlotId, u64, u64) = live.swap_remove(0);
                    layout.remove(id);
                    (at..at + pages).for_each(|page| taken[page as usize] = false);
                }
                let free = (at..at + pages).all(|page| !taken[page as usize]);
                match layout.place(range(at << 12, pages << 12), Standing::Stays, Prot::ReadWrite) {
                    Ok(id) => {
                        prop_assert!(free);
                        (at..at + pages).for_each(|page| taken[page as usize] = true);
                        live.push((id, at, pages));
                    }
                    Err(error) => prop_assert!(!free, "{}", error),
                }
            }
        }
    }
}
