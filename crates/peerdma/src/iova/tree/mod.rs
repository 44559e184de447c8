//! Which pages are free, allocated or barred: two bits a page, in a tree of 64 children a node.
//!
//! A node knows of each child, for each order, whether it has a free aligned block of
//! 2^order pages. So a block is found by one walk down, taking or freeing pages writes
//! their bits and the few words of their leaf, and goes up only as far as the largest
//! block changes. A buddy allocator's lists say the same, but there splitting and merging
//! is work for each order; here blocks are not kept, they are seen in the bits, so that
//! any length can be taken exactly and what is freed is as if it had never been taken.
//!
//! Children that are one allocated range, or free, or barred throughout, have no node: a
//! fresh tree over 2^48 bytes is a handful, and 1 GiB of pages in use costs 64 leaves.
//!
//! Pages are numbered from 0; the tree knows neither bytes nor who wants them.

mod change;
mod inner;
mod leaf;
mod look;
mod state;
mod word;

use alloc::vec::Vec;
use inner::{Inner, NONE};
use leaf::{LEAF_ORDER, Leaf, WHOLE};
pub(super) use state::{Is, State};
use word::{blocks, highest, span};

/// Order of a root's children over all 2^64 pages; 16 of them are reached.
const HIGHEST: u32 = 60;

/// Two bits a page; see the module.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    /// The root is the first.
    inners: Vec<Inner>,
    leaves: Vec<Leaf>,
    spare_inners: Vec<u32>,
    spare_leaves: Vec<u32>,
    /// Order of the root's children: [`LEAF_ORDER`], and 6 more for each further height of inner nodes.
    order: u32,
    /// First page of the leaf that became free throughout last; it keeps its node, since the
    /// next page wanted is often the one freed last.
    idle: Option<u64>,
}

/// Where a free block is.
#[derive(Clone, Copy)]
struct Place {
    page: u64,
    /// The leaf that holds it, or [`NONE`].
    leaf: u32,
}

/// The child, of 2^`order` pages, that holds `page`.
#[inline(always)]
const fn child_of(page: u64, order: u32) -> u32 {
    (page >> (order & 63)) as u32 & 63
}

impl Tree {
    /// A tree over the pages up to `last`, inclusive, all barred.
    pub(super) fn new(last: u64) -> Self {
        let mut order = LEAF_ORDER;
        while order < HIGHEST && last >> order > 63 {
            order += 6;
        }
        Self {
            inners: alloc::vec![Inner::new(State::Barred, order, NONE)],
            leaves: Vec::new(),
            spare_inners: Vec::new(),
            spare_leaves: Vec::new(),
            order,
            idle: None,
        }
    }

    /// The last page that the tree can tell of.
    #[inline(always)]
    pub(super) const fn last(&self) -> u64 {
        // 64 children, or as many as 64 bits reach.
        u64::MAX >> 58u32.saturating_sub(self.order)
    }

    /// Nodes in memory: inner ones and leaves, spare ones not counted.
    #[cfg(test)]
    pub(super) fn nodes(&self) -> (usize, usize) {
        (self.inners.len() - self.spare_inners.len(), self.leaves.len() - self.spare_leaves.len())
    }

    /// Takes the first `pages` of the highest free block of 2^`order` pages, at least as many, up to page `limit`.
    ///
    /// Gives the first page. No page between the block taken and the limit is part of such a block.
    #[inline]
    pub(super) fn take(&mut self, pages: u64, order: u32, limit: u64) -> Option<u64> {
        let place = if limit >= self.last() { self.highest_block(order)? } else { self.highest_below(order, limit)? };
        if place.leaf == NONE {
            self.put(place.page, place.page + (pages - 1), State::Head);
            return Some(place.page);
        }
        let first = in_leaf(place.page);
        self.put_in_leaf(place.leaf, first, first + (pages - 1) as u32, State::Head, place.page);
        Some(place.page)
    }

    /// Frees pages `first` to `last`, inclusive, if they are one allocated range; else nothing changes.
    #[inline]
    pub(super) fn release(&mut self, first: u64, last: u64) -> bool {
        if last > self.last() {
            return false;
        }
        let leaf = self.leaf_of(first);
        if leaf == NONE || first >> LEAF_ORDER != last >> LEAF_ORDER {
            return self.release_across(first, last);
        }
        let (low, high) = (in_leaf(first), in_leaf(last));
        if !self.leaves[leaf as usize].is_run(low, high) || (high == LAST_OF_LEAF && self.continues_after(last)) {
            return false;
        }
        if self.put_in_leaf(leaf, low, high, State::Free, first) == WHOLE {
            self.grow_idle(first & !u64::from(LAST_OF_LEAF));
        }
        true
    }

    /// The node of the leaf that holds `page`, which is in the tree; [`NONE`] if it has none.
    #[inline(always)]
    fn leaf_of(&self, page: u64) -> u32 {
        let (mut node, mut order) = (0, self.order);
        loop {
            node = self.inners[node as usize].child(child_of(page, order));
            if node == NONE || order == LEAF_ORDER {
                return node;
            }
            order -= 6;
        }
    }

    /// Puts pages of one leaf into a state and carries the leaf's new rank, which it gives, up as far as it changes anything.
    ///
    /// `page` is one of those pages, counted in the whole tree.
    #[inline(always)]
    fn put_in_leaf(&mut self, leaf: u32, first: u32, last: u32, state: State, page: u64) -> u8 {
        let node = &mut self.leaves[leaf as usize];
        node.put(first, last, state);
        let of_leaf = node.rank();
        let (mut rank, mut above, mut order) = (of_leaf, node.parent, LEAF_ORDER);
        while above != NONE {
            let inner = &mut self.inners[above as usize];
            if !inner.settle(child_of(page, order), rank, order) {
                break;
            }
            (rank, above) = (inner.rank(), inner.parent);
            order += 6;
        }
        of_leaf
    }

    #[inline(always)]
    fn highest_block(&self, order: u32) -> Option<Place> {
        if order >= u32::from(self.inners[0].rank()) {
            return None;
        }
        Some(self.descend(order, 0, self.order, 0))
    }

    /// The highest free block of `order` below an inner node that has one; the node starts at page `base` and its
    /// children have 2^`size` pages.
    #[inline(always)]
    fn descend(&self, order: u32, mut node: u32, mut size: u32, mut base: u64) -> Place {
        while order <= size {
            let inner = &self.inners[node as usize];
            let c = highest(inner.room(order));
            base |= u64::from(c) << (size & 63);
            node = inner.child(c);
            if node == NONE {
                return Place { page: base + ((1 << (size & 63)) - (1 << (order & 63))), leaf: NONE };
            }
            if size == LEAF_ORDER {
                let page = base | u64::from(self.leaves[node as usize].highest_block(order));
                return Place { page, leaf: node };
            }
            size -= 6;
        }
        let first = highest(blocks(self.inners[node as usize].room(size), order - size));
        Place { page: base | u64::from(first) << (size & 63), leaf: NONE }
    }

    /// The highest free block of `order` that ends at page `limit` or below; the tree reaches further.
    fn highest_below(&self, order: u32, limit: u64) -> Option<Place> {
        if order >= u32::from(self.inners[0].rank()) {
            return None;
        }
        // The highest page that the block may start at.
        let start = (limit + 1).checked_sub(1 << order)?;
        // The deepest child seen that has a block and lies below the way to that page: node, place, base, size.
        let mut below = None;
        let (mut node, mut size, mut base) = (0, self.order, 0);
        loop {
            let inner = &self.inners[node as usize];
            let edge = child_of(start, size);
            if order > size {
                let firsts = blocks(inner.room(size), order - size) & span(0, edge);
                if firsts != 0 {
                    return Some(Place { page: base | u64::from(highest(firsts)) << size, leaf: NONE });
                }
                break;
            }
            let room = inner.room(order) & span(0, edge);
            let lower = room & !(1 << edge);
            if lower != 0 {
                below = Some((node, highest(lower), base, size));
            }
            if room == lower {
                break;
            }
            base |= u64::from(edge) << size;
            node = inner.child(edge);
            if node == NONE {
                // In a free child every aligned block is free.
                return Some(Place { page: start & !((1 << order) - 1), leaf: NONE });
            }
            if size == LEAF_ORDER {
                let first = self.leaves[node as usize].highest_block_from(order, in_leaf(start));
                match first {
                    Some(first) => return Some(Place { page: base | u64::from(first), leaf: node }),
                    None => break,
                }
            }
            size -= 6;
        }
        let (node, c, base, size) = below?;
        let base = base | u64::from(c) << size;
        match self.inners[node as usize].child(c) {
            NONE => Some(Place { page: base + ((1 << size) - (1 << order)), leaf: NONE }),
            leaf if size == LEAF_ORDER => {
                let page = base | u64::from(self.leaves[leaf as usize].highest_block(order));
                Some(Place { page, leaf })
            }
            inner => Some(self.descend(order, inner, size - 6, base)),
        }
    }
}

/// Children that page numbers reach, of a node whose children have 2^`size` pages.
const fn children(size: u32) -> u32 {
    if size == HIGHEST { 16 } else { 64 }
}

/// The last page of a leaf, counted in the leaf.
const LAST_OF_LEAF: u32 = (1 << LEAF_ORDER) - 1;

/// The place of a page in its leaf.
#[inline(always)]
const fn in_leaf(page: u64) -> u32 {
    page as u32 & LAST_OF_LEAF
}

#[cfg(test)]
mod tests;
