//! Looking for pages in a state, up and down from one.

use super::state::{Is, State};
use super::word::{highest, span};
use super::{LEAF_ORDER, NONE, Tree, child_of, children, in_leaf};

impl Tree {
    /// What page `page` is; barred where the tree does not reach.
    pub(in crate::iova) fn state(&self, page: u64) -> State {
        if page > self.last() {
            return State::Barred;
        }
        let (mut node, mut size) = (0, self.order);
        loop {
            let inner = &self.inners[node as usize];
            let c = child_of(page, size);
            node = inner.child(c);
            if node == NONE {
                let state = inner.uniform(c);
                let is_first = page & ((1 << size) - 1) == 0;
                return if is_first { state } else { state.after() };
            }
            if size == LEAF_ORDER {
                let (open, mark) = self.leaves[node as usize].planes(word_of(page));
                return State::of(open >> (page & 63), mark >> (page & 63));
            }
            size -= 6;
        }
    }

    /// Whether what stands at page `last` goes on after it.
    pub(super) fn continues_after(&self, last: u64) -> bool {
        last < self.last() && self.state(last + 1) == State::Rest
    }

    /// The lowest page from `from` up that `is`; `None` if none of the tree is.
    pub(in crate::iova) fn next(&self, from: u64, is: Is) -> Option<u64> {
        if from > self.last() {
            return None;
        }
        self.next_below(0, self.order, 0, from, is)
    }

    fn next_below(&self, node: u32, size: u32, base: u64, from: u64, is: Is) -> Option<u64> {
        let inner = &self.inners[node as usize];
        let low = if from > base { child_of(from, size) } else { 0 };
        (low..children(size)).find_map(|c| {
            let first = base | u64::from(c) << size;
            let from = from.max(first);
            match inner.child(c) {
                NONE => {
                    let state = inner.uniform(c);
                    let last = first | ((1 << size) - 1);
                    let second = from.max(first + 1);
                    let at_first = (from == first && is.of(state)).then_some(first);
                    at_first.or_else(|| (second <= last && is.of(state.after())).then_some(second))
                }
                leaf if size == LEAF_ORDER => (word_of(from)..64).find_map(|word| {
                    let (open, mark) = self.leaves[leaf as usize].planes(word);
                    let start = if word == word_of(from) { from as u32 & 63 } else { 0 };
                    let pages = is.among(open, mark) & span(start, 63);
                    (pages != 0).then(|| first | u64::from(word << 6 | pages.trailing_zeros()))
                }),
                inner => self.next_below(inner, size - 6, first, from, is),
            }
        })
    }

    /// The highest page from `from` down that `is`; `None` if none is.
    pub(in crate::iova) fn previous(&self, from: u64, is: Is) -> Option<u64> {
        self.previous_below(0, self.order, 0, from.min(self.last()), is)
    }

    fn previous_below(&self, node: u32, size: u32, base: u64, from: u64, is: Is) -> Option<u64> {
        let inner = &self.inners[node as usize];
        let end = base | ((u64::from(children(size)) << size).wrapping_sub(1));
        let high = child_of(from.min(end), size);
        (0..=high).rev().find_map(|c| {
            let first = base | u64::from(c) << size;
            let from = from.min(first | ((1 << size) - 1));
            match inner.child(c) {
                NONE => {
                    let state = inner.uniform(c);
                    let above_first = (from > first && is.of(state.after())).then_some(from);
                    above_first.or_else(|| is.of(state).then_some(first))
                }
                leaf if size == LEAF_ORDER => (0..=word_of(from)).rev().find_map(|word| {
                    let (open, mark) = self.leaves[leaf as usize].planes(word);
                    let end = if word == word_of(from) { from as u32 & 63 } else { 63 };
                    let pages = is.among(open, mark) & span(0, end);
                    (pages != 0).then(|| first | u64::from(word << 6 | highest(pages)))
                }),
                inner => self.previous_below(inner, size - 6, first, from, is),
            }
        })
    }

    /// The highest stretch of free pages that ends at `limit` or below, cut off there, and holds a free block of
    /// 2^`order` pages up to there: its first and last page.
    ///
    /// Asked again with the page before its first as limit, it goes through all such stretches.
    pub(in crate::iova) fn gap(&self, order: u32, limit: u64) -> Option<(u64, u64)> {
        let limit = limit.min(self.last());
        let block = if limit == self.last() { self.highest_block(order)? } else { self.highest_below(order, limit)? };
        let first = self.previous(block.page, Is::NotFree).map_or(0, |page| page + 1);
        let last = self.next(block.page, Is::NotFree).map_or(limit, |page| (page - 1).min(limit));
        Some((first, last))
    }

    /// One more than the order of the largest free block, 0 for none.
    pub(in crate::iova) fn rank(&self) -> u32 {
        self.inners[0].rank().into()
    }
}

/// The word of its leaf that holds `page`.
const fn word_of(page: u64) -> u32 {
    in_leaf(page) >> 6
}
