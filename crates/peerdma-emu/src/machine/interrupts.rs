//! Interrupt messages that wait for a processor.
//!
//! A message sets a bit of an interrupt controller, and one that is set already stays set: how
//! often it was sent meanwhile nobody can tell (PCIe 6.0 §6.1.4 leaves it to software to look for
//! all its work at one interrupt). So as many wait as there are different ones, and no more than
//! a controller has room for.

use super::Interrupt;
use std::collections::{HashSet, VecDeque};

/// Different messages that wait at most: 256 vectors of 256 processors.
const MOST: usize = 1 << 16;

/// Messages in the order in which each first came since it was last taken.
#[derive(Debug, Default)]
pub(super) struct Interrupts {
    order: VecDeque<Interrupt>,
    waiting: HashSet<Interrupt>,
    lost: u64,
}

impl Interrupts {
    pub(super) fn put(&mut self, interrupt: Interrupt) {
        if self.waiting.contains(&interrupt) {
            return;
        }
        if self.order.len() == MOST {
            self.lost += 1;
            return;
        }
        self.waiting.insert(interrupt);
        self.order.push_back(interrupt);
    }

    /// All that wait, earliest first.
    pub(super) fn take(&mut self) -> Vec<Interrupt> {
        self.waiting.clear();
        self.order.drain(..).collect()
    }

    /// How many found no room.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use peerdma::addr::BusAddr;

    fn interrupt(data: u32) -> Interrupt {
        Interrupt { from: None, at: BusAddr::new(0xfee0_0000), data }
    }

    #[test]
    fn a_message_waits_once_until_it_is_taken() {
        let mut interrupts = Interrupts::default();
        for _ in 0..1000 {
            interrupts.put(interrupt(1));
            interrupts.put(interrupt(2));
        }
        assert_eq!(interrupts.take(), [interrupt(1), interrupt(2)]);
        interrupts.put(interrupt(2));
        assert_eq!(interrupts.take(), [interrupt(2)]);
        assert_eq!((interrupts.take(), interrupts.lost()), (Vec::new(), 0));
    }

    #[test]
    fn different_messages_without_end_are_lost_and_counted() {
        let mut interrupts = Interrupts::default();
        for data in 0..MOST as u32 + 10 {
            interrupts.put(interrupt(data));
        }
        interrupts.put(interrupt(3));
        assert_eq!((interrupts.lost(), interrupts.take().len()), (10, MOST));
    }
}
