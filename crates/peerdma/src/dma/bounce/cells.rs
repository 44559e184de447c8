//! Which cells of a pool are free, as bits.
//!
//! Runs of up to 64 cells are taken by one compare-and-swap on one word and given back by one
//! atomic or, so neither waits for the other, and none takes anything from the heap. The
//! price is the longest run: one that crosses a word would need two words to change at once.
//! Linux has a longest slot for a like reason (128 slots of 2 KiB, `IO_TLB_SEGSIZE`).

use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use alloc::boxed::Box;
use core::ops::Range;

/// The longest run, in cells.
pub(super) const LONGEST: u32 = u64::BITS;

/// Free cells, numbered from zero.
#[derive(Debug)]
pub(super) struct Cells {
    /// Bit n of word w stands for cell 64 * w + n; set if it is free.
    words: Box<[AtomicU64]>,
    /// The word that had room last.
    hint: AtomicUsize,
}

impl Cells {
    /// The cells of this range are free; others do not exist.
    pub(super) fn new(cells: Range<usize>) -> Self {
        let word = |at: usize| {
            let bits = |end: usize| match end.saturating_sub(at * 64) {
                0 => 0,
                n @ 1..64 => (1 << n) - 1,
                _ => u64::MAX,
            };
            AtomicU64::new(bits(cells.end) & !bits(cells.start))
        };
        Self { words: (0..cells.end.div_ceil(64)).map(word).collect(), hint: AtomicUsize::new(0) }
    }

    /// Takes `count` cells (1 to 64) that start at a multiple of `align` (a power of two up to 64).
    #[inline]
    pub(super) fn take(&self, count: u32, align: u32) -> Option<usize> {
        let hint = self.hint.load(Ordering::Relaxed);
        match self.words.get(hint).and_then(|word| take_of(word, count, align)) {
            Some(bit) => Some(hint * 64 + bit as usize),
            None => self.take_elsewhere(hint, count, align),
        }
    }

    /// Looks at every word once, first at those behind the one that had room last.
    fn take_elsewhere(&self, hint: usize, count: u32, align: u32) -> Option<usize> {
        let words = || self.words.iter().enumerate();
        let found = |(at, word)| take_of(word, count, align).map(|bit| (at, bit));
        let (at, bit) = words().skip(hint).find_map(found).or_else(|| words().take(hint).find_map(found))?;
        self.hint.store(at, Ordering::Relaxed);
        Some(at * 64 + bit as usize)
    }

    /// Gives `count` cells back that one [`take`](Self::take) gave.
    #[inline]
    pub(super) fn give_back(&self, first: usize, count: u32) {
        let run = u64::MAX >> (64 - count);
        // What was written to the cells happens before they are taken again.
        self.words[first / 64].fetch_or(run << (first % 64), Ordering::Release);
    }

    /// How many cells are free.
    pub(super) fn left(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.load(Ordering::Relaxed).count_ones())).sum()
    }

    /// The longest run of multiples of `align` cells that could be taken.
    pub(super) fn largest(&self, align: u32) -> u32 {
        let of = |word: &AtomicU64| {
            let free = word.load(Ordering::Relaxed);
            let fits = |count: &u32| starts(free, *count) & multiples(align) != 0;
            (align..=LONGEST).rev().step_by(align as usize).find(fits).unwrap_or(0)
        };
        self.words.iter().map(of).max().unwrap_or(0)
    }
}

#[inline]
fn take_of(word: &AtomicU64, count: u32, align: u32) -> Option<u32> {
    let mut free = word.load(Ordering::Relaxed);
    loop {
        let found = starts(free, count) & multiples(align);
        if found == 0 {
            return None;
        }
        let bit = found.trailing_zeros();
        let run = (u64::MAX >> (64 - count)) << bit;
        match word.compare_exchange_weak(free, free & !run, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => return Some(bit),
            Err(now) => free = now,
        }
    }
}

/// The bits at which `count` set bits start.
#[inline]
const fn starts(free: u64, count: u32) -> u64 {
    let (mut starts, mut known) = (free, 1);
    while known < count {
        let step = if known < count - known { known } else { count - known };
        starts &= starts >> step;
        known += step;
    }
    starts
}

/// The bits at multiples of `align`, a power of two up to 64.
#[inline]
const fn multiples(align: u32) -> u64 {
    u64::MAX / (u64::MAX >> (64 - align))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_start_where_all_their_bits_are_set() {
        assert_eq!(starts(0b0111_0110, 1), 0b0111_0110);
        assert_eq!(starts(0b0111_0110, 2), 0b0011_0010);
        assert_eq!(starts(0b0111_0110, 3), 0b0001_0000);
        assert_eq!(starts(u64::MAX, 64), 1);
        assert_eq!(starts(u64::MAX - 1, 64), 0);
        for count in 1..=64 {
            assert_eq!(starts(u64::MAX, count), u64::MAX >> (count - 1), "{count}");
        }
    }

    #[test]
    fn multiples_of_an_alignment_are_its_bits() {
        assert_eq!(multiples(1), u64::MAX);
        assert_eq!(multiples(16), 0x0001_0001_0001_0001);
        assert_eq!(multiples(64), 1);
    }

    #[test]
    fn cells_outside_the_range_do_not_exist() {
        let cells = Cells::new(60..70);
        assert_eq!(cells.left(), 10);
        assert_eq!(cells.largest(1), 6, "a run lies in one word");
        assert_eq!(cells.take(6, 2), Some(64));
        assert_eq!(cells.take(4, 4), Some(60));
        assert_eq!((cells.left(), cells.take(1, 1)), (0, None));
        cells.give_back(64, 6);
        assert_eq!((cells.left(), cells.largest(4)), (6, 4));
    }

    #[test]
    fn the_search_comes_around_to_words_before_the_hint() {
        let cells = Cells::new(0..192);
        for at in [0, 64, 128] {
            assert_eq!(cells.take(64, 64), Some(at));
        }
        cells.give_back(0, 64);
        assert_eq!(cells.take(8, 8), Some(0));
    }
}
