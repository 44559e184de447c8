//! What the IOMMU remembers of its walks.
//!
//! An answer is tagged by its domain and holds for the whole page that it came from. It stays
//! until it is invalidated, or until so many others came after it that there is no more room.
//! Both depend on nothing but the order of requests, so that a run can be repeated.

use super::domain::DomainId;
use super::walk::Leaf;
use std::collections::{BTreeMap, VecDeque};

/// How many answers there is room for.
const ROOM: usize = 4096;

/// Domain, logarithm of the page's size, number of the page.
type Key = (DomainId, u32, u64);

/// Remembered answers.
#[derive(Debug, Default)]
pub(super) struct Iotlb {
    answers: BTreeMap<Key, Leaf>,
    /// Oldest first.
    order: VecDeque<Key>,
    /// Page sizes that were ever remembered, bit n for 2^n bytes.
    sizes: u64,
    /// How often something was invalidated.
    epoch: u64,
}

impl Iotlb {
    /// What is remembered of an address; smallest page first, as a stale large one may lie around it.
    pub(super) fn find(&self, domain: DomainId, at: u64, wanted: impl Fn(&Leaf) -> bool) -> Option<Leaf> {
        let mut sizes = self.sizes;
        while sizes != 0 {
            let shift = sizes.trailing_zeros();
            sizes &= sizes - 1;
            if let Some(leaf) = self.answers.get(&(domain, shift, at >> shift)).filter(|leaf| wanted(leaf)) {
                return Some(*leaf);
            }
        }
        None
    }

    /// To be read before a walk, and given to [`fill`](Self::fill) after it.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Remembers an answer, unless something was invalidated since `epoch` was read: the walk may
    /// have met an entry that was removed before the invalidation.
    pub(super) fn fill(&mut self, domain: DomainId, at: u64, leaf: Leaf, epoch: u64) {
        if epoch != self.epoch {
            return;
        }
        let key = (domain, leaf.shift, at >> leaf.shift);
        if self.answers.insert(key, leaf).is_some() {
            return;
        }
        self.sizes |= 1 << leaf.shift;
        self.order.push_back(key);
        if self.order.len() > ROOM
            && let Some(oldest) = self.order.pop_front()
        {
            self.answers.remove(&oldest);
        }
    }

    /// Forgets every answer of a domain that holds for any of `first..=last`.
    pub(super) fn invalidate(&mut self, domain: DomainId, first: u64, last: u64) {
        self.epoch += 1;
        let Self { answers, order, .. } = self;
        order.retain(|key| {
            let (of, shift, page) = *key;
            let hit = of == domain && first >> shift <= page && page <= last >> shift;
            if hit {
                answers.remove(key);
            }
            !hit
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: DomainId = DomainId::new(1);
    const B: DomainId = DomainId::new(2);

    fn leaf(shift: u32) -> Leaf {
        Leaf { shift, base: 0x8000_0000, read: true, write: true, user: true }
    }

    fn knows(tlb: &Iotlb, domain: DomainId, at: u64) -> bool {
        tlb.find(domain, at, |_| true).is_some()
    }

    #[test]
    fn an_invalidation_takes_the_pages_it_touches_in_its_domain_and_no_others() {
        let mut tlb = Iotlb::default();
        for domain in [A, B] {
            tlb.fill(domain, 0x1000, leaf(12), 0);
            tlb.fill(domain, 0x2000, leaf(12), 0);
            tlb.fill(domain, 0x20_0000, leaf(21), 0);
        }
        tlb.invalidate(A, 0x1fff, 0x1fff);
        assert!(!knows(&tlb, A, 0x1000) && knows(&tlb, A, 0x2000) && knows(&tlb, B, 0x1000));
        tlb.invalidate(A, 0x3f_f000, 0x3f_ffff);
        assert!(!knows(&tlb, A, 0x20_0000) && knows(&tlb, B, 0x3f_ffff));
        tlb.invalidate(B, 0, u64::MAX);
        assert!(!knows(&tlb, B, 0x2000) && knows(&tlb, A, 0x2000));
    }

    #[test]
    fn an_answer_from_before_an_invalidation_is_not_remembered() {
        let mut tlb = Iotlb::default();
        let before = tlb.epoch();
        tlb.invalidate(B, 0, 0xfff);
        tlb.fill(A, 0x1000, leaf(12), before);
        assert!(!knows(&tlb, A, 0x1000));
    }

    #[test]
    fn the_oldest_answer_makes_room() {
        let mut tlb = Iotlb::default();
        for page in 0..=ROOM as u64 {
            tlb.fill(A, page << 12, leaf(12), 0);
        }
        assert!(!knows(&tlb, A, 0) && knows(&tlb, A, 0x1000));
        assert_eq!((tlb.answers.len(), tlb.order.len()), (ROOM, ROOM));
    }
}
