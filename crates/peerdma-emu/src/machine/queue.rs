//! Posted writes on their way, in a queue for each egress.
//!
//! What leaves by one egress leaves in order, but for what Relaxed Ordering and ID-based
//! ordering let pass (PCIe 6.0 §2.4.1). Nothing orders what left by different ones, and that is
//! where doorbells overtake payloads.

use crate::fabric::{Egress, NodeId};
use crate::faults::Stop;
use crate::wire::Head;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A write on its way.
#[derive(Clone, Debug)]
pub(super) struct Posted {
    /// Number of the request, for the log.
    pub(super) number: u64,
    /// The function that sent it; a CPU's comes from none.
    pub(super) from: Option<NodeId>,
    /// As it is now.
    pub(super) head: Head,
    /// Its bytes.
    pub(super) data: Box<[u8]>,
    /// Where it has been, while faults are armed.
    pub(super) way: Vec<Stop>,
}

/// Every write that is on its way.
///
/// Which queues hold something is known at any time, so that a choice among them takes the same
/// time whether a few do or thousands. Their order follows from what happened alone.
#[derive(Debug, Default)]
pub(super) struct Queues {
    /// Also those that are empty now, which keep their room.
    by_egress: BTreeMap<Egress, Queue>,
    /// Those that hold something.
    busy: Vec<Egress>,
    /// Those of which a write has been taken that is nowhere else yet, with the number of the taking.
    hands: Vec<(Egress, u64)>,
    /// How often a write was taken.
    takings: u64,
}

/// What waits for one egress.
#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Posted>,
    /// How many of them may pass others at all.
    passing: usize,
    /// Where it stands among those that hold something.
    place: usize,
}

impl Posted {
    fn may_pass(&self) -> bool {
        self.head.attributes.relaxed || self.head.attributes.id_ordered
    }
}

impl Queues {
    pub(super) fn push(&mut self, egress: Egress, posted: Posted) {
        let queue = self.by_egress.entry(egress).or_default();
        if queue.waiting.is_empty() {
            queue.place = self.busy.len();
            self.busy.push(egress);
        }
        queue.passing += usize::from(posted.may_pass());
        queue.waiting.push_back(posted);
    }

    /// One of an egress, by position, into the caller's hand, and the number of the taking.
    ///
    /// To be asked only where [`in_hand`](Self::in_hand) says no: two writes in two hands would be put down in any
    /// order.
    pub(super) fn take(&mut self, egress: Egress, position: usize) -> Option<(Posted, u64)> {
        let posted = self.remove(egress, position)?;
        self.takings += 1;
        self.hands.push((egress, self.takings));
        Some((posted, self.takings))
    }

    /// Says that what was taken is somewhere else now.
    pub(super) fn put_down(&mut self, taking: u64) {
        self.hands.retain(|(_, other)| *other != taking);
    }

    /// Whether somebody has a write of this egress in hand.
    pub(super) fn in_hand(&self, egress: Egress) -> bool {
        self.hands.iter().any(|(other, _)| *other == egress)
    }

    /// Whether what was taken up to this taking is still in a hand.
    pub(super) fn hands_up_to(&self, taking: u64) -> bool {
        self.hands.iter().any(|(_, other)| *other <= taking)
    }

    /// The number of the last taking.
    pub(super) const fn takings(&self) -> u64 {
        self.takings
    }

    fn remove(&mut self, egress: Egress, position: usize) -> Option<Posted> {
        let queue = self.by_egress.get_mut(&egress)?;
        let posted = queue.waiting.remove(position)?;
        queue.passing -= usize::from(posted.may_pass());
        if queue.waiting.is_empty() {
            let place = queue.place;
            self.busy.swap_remove(place);
            // The last of the list stands there now, if it was another.
            if let Some(moved) = self.busy.get(place).and_then(|moved| self.by_egress.get_mut(moved)) {
                moved.place = place;
            }
        }
        Some(posted)
    }

    /// Positions in an egress that may go next: the first, and whatever may pass all before it.
    /// Empty where that is the first alone.
    pub(super) fn ready(&self, egress: Egress) -> Vec<usize> {
        let Some(queue) = self.by_egress.get(&egress).filter(|queue| queue.passing > 0) else { return Vec::new() };
        let mut before = BTreeSet::new();
        let ready = queue.waiting.iter().enumerate().filter(|(position, posted)| {
            let Head { requester, attributes, .. } = &posted.head;
            let others = before.insert((requester.id, requester.pasid));
            *position == 0 || attributes.relaxed || attributes.id_ordered && others
        });
        ready.map(|(position, _)| position).collect()
    }

    /// The number of a request that waits.
    pub(super) fn number(&self, egress: Egress, position: usize) -> Option<u64> {
        Some(self.by_egress.get(&egress)?.waiting.get(position)?.number)
    }

    /// How many egresses something waits for.
    pub(super) fn busy(&self) -> usize {
        self.busy.len()
    }

    /// One of them, by a number below [`busy`](Self::busy).
    pub(super) fn egress(&self, index: usize) -> Option<Egress> {
        self.busy.get(index).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{AddressType, Attributes, Kind, Requester};
    use peerdma::addr::{BusAddr, Bytes};
    use peerdma::pcie::{DevFn, PciAddr};

    fn posted(bus: u8, attributes: Attributes) -> Posted {
        let requester = Requester::plain(PciAddr::new(0, bus, DevFn::new(0)));
        let (address, len) = (BusAddr::new(0x1000), Bytes::new(4));
        let head = Head { kind: Kind::Write, requester, at: AddressType::Untranslated, attributes, address, len };
        Posted { number: 0, from: None, head, data: Box::new([0; 4]), way: Vec::new() }
    }

    fn ready(list: &[Posted]) -> Vec<usize> {
        let mut queues = Queues::default();
        let egress = Egress::Up(NodeId::new(0));
        list.iter().for_each(|posted| queues.push(egress, posted.clone()));
        queues.ready(egress)
    }

    #[test]
    fn a_write_passes_no_write_before_it() {
        let strict = Attributes::default();
        assert_eq!(ready(&[posted(1, strict), posted(2, strict)]), [0; 0], "the first alone");
    }

    #[test]
    fn a_relaxed_write_passes_and_is_not_passed_by_strict_ones() {
        let (strict, relaxed) = (Attributes::default(), Attributes { relaxed: true, ..Attributes::default() });
        assert_eq!(ready(&[posted(1, strict), posted(1, relaxed), posted(1, strict)]), [0, 1]);
    }

    #[test]
    fn id_ordering_passes_what_others_sent() {
        let (strict, ordered) = (Attributes::default(), Attributes { id_ordered: true, ..Attributes::default() });
        assert_eq!(ready(&[posted(1, strict), posted(2, ordered), posted(1, ordered)]), [0, 1]);
    }

    /// Writes come and go in every order, and what is said to hold something does.
    #[test]
    fn queues_that_hold_something_are_known_and_each_is_in_order() {
        let egresses: Vec<Egress> = (0..6).map(|index| Egress::Up(NodeId::new(index))).collect();
        let (mut queues, mut model) = (Queues::default(), vec![VecDeque::new(); 6]);
        let mut random = fastrand::Rng::with_seed(5);
        for number in 0..3000 {
            let index = random.usize(..6);
            if random.u8(..5) < 2 {
                queues.push(egresses[index], Posted { number, ..posted(1, Attributes::default()) });
                model[index].push_back(number);
            } else {
                let taken = queues.take(egresses[index], 0);
                assert_eq!(queues.in_hand(egresses[index]), taken.is_some());
                let taken = taken.map(|(posted, taking)| {
                    assert!(queues.hands_up_to(taking));
                    queues.put_down(taking);
                    assert!(!queues.hands_up_to(taking));
                    posted.number
                });
                assert_eq!(taken, model[index].pop_front());
            }
            let mut busy: Vec<Egress> = (0..queues.busy()).filter_map(|index| queues.egress(index)).collect();
            busy.sort_unstable();
            let full = egresses.iter().zip(&model).filter(|(_, model)| !model.is_empty());
            assert_eq!(busy, full.map(|(egress, _)| *egress).collect::<Vec<_>>());
        }
    }
}
