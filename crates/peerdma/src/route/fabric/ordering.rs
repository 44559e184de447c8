//! Which of two TLPs of one function arrives first (PCIe 6.0 §2.4.1).
//!
//! Order exists only along one path to one end: two TLPs that left by different ways
//! are not ordered, however early the first one left.

use super::journey::{Ending, Outcome};
use crate::pcie::PciAddr;

/// The three kinds of TLP that ordering rules know.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Flow {
    /// Memory writes and messages.
    Posted,
    /// Reads and AtomicOps.
    NonPosted,
    /// Completions.
    Completion,
}

/// A TLP that was sent, as ordering rules see it. All are of one traffic class.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sent {
    /// What it is.
    pub flow: Flow,
    /// What became of it.
    pub outcome: Outcome,
    /// Relaxed Ordering.
    pub relaxed: bool,
    /// ID-Based Ordering.
    pub id_based: bool,
    /// The requester's ID; for a completion the completer's.
    pub by: PciAddr,
}

/// Whether the second of two TLPs stays behind the first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Order {
    /// The second does not arrive before the first.
    Ordered,
    /// Either may arrive first.
    Free,
}

/// Whether `second`, sent after `first`, stays behind it.
pub fn ordered(first: &Sent, second: &Sent) -> Order {
    // Other ends, or other ways to one end.
    if !first.takes_the_way_of(second) || first.flow != Flow::Posted {
        return Order::Free;
    }
    // Nothing passes a posted request, but for these two attributes of the passer; a
    // request without data has no use for Relaxed Ordering.
    let by_relaxed = second.relaxed && second.flow != Flow::NonPosted;
    let by_id = second.id_based && first.by != second.by;
    if by_relaxed || by_id { Order::Free } else { Order::Ordered }
}

/// Whether the completion of `read` proves that `write`, sent before it, has reached
/// where it was going: memory then shows it, a device has taken it in.
pub fn proves(read: &Sent, write: &Sent) -> bool {
    read.flow == Flow::NonPosted && !write.relaxed && ordered(write, read) == Order::Ordered
}

impl Sent {
    fn takes_the_way_of(&self, other: &Self) -> bool {
        let arrives = |ending| matches!(ending, Ending::Function(_) | Ending::Memory | Ending::Interrupt);
        let (mine, theirs) = (self.outcome, other.outcome);
        mine.end == theirs.end && mine.through_root == theirs.through_root && arrives(mine.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(flow: Flow, through_root: bool) -> Sent {
        let outcome = Outcome { through_root, translated: None, end: Ending::Memory };
        Sent { flow, outcome, relaxed: false, id_based: false, by: "03:00.0".parse().unwrap() }
    }

    #[test]
    fn nothing_passes_a_write_on_its_way_without_an_attribute_that_lets_it() {
        let write = sent(Flow::Posted, true);
        for flow in [Flow::Posted, Flow::NonPosted, Flow::Completion] {
            let plain = sent(flow, true);
            assert_eq!(ordered(&write, &plain), Order::Ordered);
            let relaxed = Sent { relaxed: true, ..plain };
            assert_eq!(ordered(&write, &relaxed) == Order::Free, flow != Flow::NonPosted, "{flow:?}");
            let of_another = Sent { id_based: true, by: "04:00.0".parse().unwrap(), ..plain };
            assert_eq!(ordered(&write, &of_another), Order::Free);
            assert_eq!(ordered(&write, &Sent { id_based: true, ..plain }), Order::Ordered, "IDO of the same requester");
        }
    }

    #[test]
    fn two_ways_to_one_end_order_nothing_and_prove_nothing() {
        let (across, up) = (sent(Flow::Posted, false), sent(Flow::NonPosted, true));
        assert_eq!(ordered(&across, &up), Order::Free);
        assert!(!proves(&up, &across) && proves(&up, &sent(Flow::Posted, true)));
    }

    #[test]
    fn writes_must_be_able_to_pass_reads_and_completions() {
        for flow in [Flow::NonPosted, Flow::Completion] {
            assert_eq!(ordered(&sent(flow, true), &sent(Flow::Posted, true)), Order::Free);
        }
    }
}
