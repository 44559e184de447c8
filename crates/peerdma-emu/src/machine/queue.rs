//! Posted writes on their way, in a queue for each egress.
//!
//! What leaves by one egress leaves in order, but for what Relaxed Ordering and ID-based
//! ordering let pass (PCIe 6.0 §2.4.1). Nothing orders what left by different ones, and that is
//! where doorbells overtake payloads.

use crate::fabric::{Egress, NodeId};
use crate::faults::Stop;
use crate::wire::Head;
use std::collections::{BTreeMap, VecDeque};

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
#[derive(Debug, Default)]
pub(super) struct Queues {
    by_egress: BTreeMap<Egress, VecDeque<Posted>>,
}

impl Queues {
    pub(super) fn push(&mut self, egress: Egress, posted: Posted) {
        self.by_egress.entry(egress).or_default().push_back(posted);
    }

    /// One of an egress, by position; queues that are empty are not kept.
    pub(super) fn take(&mut self, egress: Egress, position: usize) -> Option<Posted> {
        let queue = self.by_egress.get_mut(&egress)?;
        let posted = queue.remove(position);
        if queue.is_empty() {
            self.by_egress.remove(&egress);
        }
        posted
    }

    /// Positions in an egress that may go next: the first, and whatever may pass all before it.
    pub(super) fn ready(&self, egress: Egress) -> Vec<usize> {
        let Some(queue) = self.by_egress.get(&egress) else { return Vec::new() };
        let may_pass = |later: &Posted, earlier: &Posted| {
            let (later, earlier) = (&later.head, &earlier.head);
            let other = (later.requester.id, later.requester.pasid) != (earlier.requester.id, earlier.requester.pasid);
            later.attributes.relaxed || later.attributes.id_ordered && other
        };
        let ready = queue
            .iter()
            .enumerate()
            .filter(|(position, later)| queue.iter().take(*position).all(|earlier| may_pass(later, earlier)));
        ready.map(|(position, _)| position).collect()
    }

    /// The number of a request that waits.
    pub(super) fn number(&self, egress: Egress, position: usize) -> Option<u64> {
        Some(self.by_egress.get(&egress)?.get(position)?.number)
    }

    /// Every egress that something waits for, in order.
    pub(super) fn egresses(&self) -> impl Iterator<Item = Egress> + use<'_> {
        self.by_egress.keys().copied()
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
        assert_eq!(ready(&[posted(1, strict), posted(2, strict)]), [0]);
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
}
