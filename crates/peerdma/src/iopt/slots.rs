//! The loops over entries that follow each other, eight at a time.
//!
//! What a page costs is decided here: a load to see that nothing is there, a store; and the
//! same to take it away. Entries stay single-copy atomic; that they are looked at in groups
//! only saves branches.

use crate::sync::atomic::{AtomicU64, Ordering};

/// How many are looked at together.
const GROUP: usize = 8;

/// How many entries from the first on are empty.
#[inline]
pub(super) fn free_until_taken(slots: &[AtomicU64]) -> usize {
    let (groups, rest) = slots.as_chunks::<GROUP>();
    let mut free = 0;
    for group in groups {
        if group.iter().fold(0, |any, slot| any | slot.load(Ordering::Relaxed)) != 0 {
            return free + group.iter().take_while(|slot| slot.load(Ordering::Relaxed) == 0).count();
        }
        free += GROUP;
    }
    free + rest.iter().take_while(|slot| slot.load(Ordering::Relaxed) == 0).count()
}

/// Clears entries up to the first empty one; answers how many.
#[inline]
pub(super) fn clear_until_hole(slots: &[AtomicU64]) -> usize {
    let (groups, rest) = slots.as_chunks::<GROUP>();
    let mut cleared = 0;
    for group in groups {
        if group.iter().any(|slot| slot.load(Ordering::Relaxed) == 0) {
            return cleared + clear_singly(group);
        }
        for slot in group {
            slot.store(0, Ordering::Relaxed);
        }
        cleared += GROUP;
    }
    cleared + clear_singly(rest)
}

fn clear_singly(slots: &[AtomicU64]) -> usize {
    let present = slots.iter().take_while(|slot| slot.load(Ordering::Relaxed) != 0);
    present.map(|slot| slot.store(0, Ordering::Relaxed)).count()
}

/// Stores `entry`, and into each that follows `step` more.
#[inline]
pub(super) fn store_ascending(slots: &[AtomicU64], mut entry: u64, step: u64) {
    let (groups, rest) = slots.as_chunks::<GROUP>();
    for group in groups {
        for (n, slot) in group.iter().enumerate() {
            slot.store(entry.wrapping_add(step.wrapping_mul(n as u64)), Ordering::Relaxed);
        }
        entry = entry.wrapping_add(step.wrapping_mul(GROUP as u64));
    }
    for slot in rest {
        slot.store(entry, Ordering::Relaxed);
        entry = entry.wrapping_add(step);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn words(slots: &[AtomicU64]) -> Vec<u64> {
        slots.iter().map(|slot| slot.load(Ordering::Relaxed)).collect()
    }

    #[test]
    fn groups_and_what_is_left_over_are_one_run() {
        for len in 0..40_usize {
            let slots: Vec<AtomicU64> = (0..len).map(|_| AtomicU64::new(0)).collect();
            assert_eq!(free_until_taken(&slots), len);
            store_ascending(&slots, 7, 0x1000);
            assert_eq!(words(&slots), (0..len as u64).map(|n| 7 + 0x1000 * n).collect::<Vec<_>>());
            assert_eq!(free_until_taken(&slots), 0);
            assert_eq!(clear_until_hole(&slots), len);
            assert_eq!(words(&slots), Vec::from_iter((0..len).map(|_| 0)));
        }
    }

    #[test]
    fn a_run_ends_at_the_first_entry_that_differs_wherever_that_is() {
        for at in 0..20_usize {
            let slots: Vec<AtomicU64> = (0..20).map(|n| AtomicU64::new(u64::from(n != at))).collect();
            assert_eq!(clear_until_hole(&slots), at);
            assert_eq!(words(&slots).iter().sum::<u64>(), 19 - at as u64);
            assert_eq!(free_until_taken(&slots), if at == 19 { 20 } else { at + 1 });
        }
    }
}
