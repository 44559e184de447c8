//! Writing stretches of any length, and giving up nodes that tell no more than their parent.

use super::{Inner, Is, LAST_OF_LEAF, LEAF_ORDER, Leaf, NONE, State, Tree, WHOLE, child_of, children, in_leaf};

/// A stretch of pages that is to be written.
#[derive(Clone, Copy)]
struct Stretch {
    first: u64,
    last: u64,
    /// What the first becomes; the others become what follows.
    state: State,
}

impl Stretch {
    /// What a piece of it that starts at `page` starts with.
    fn state_from(&self, page: u64) -> State {
        if page == self.first { self.state } else { self.state.after() }
    }
}

impl Tree {
    /// Puts page `first` into `state` and those up to `last`, inclusive, into what follows it.
    pub(in crate::iova) fn put(&mut self, first: u64, last: u64, state: State) {
        self.put_below(0, self.order, 0, Stretch { first, last, state });
    }

    /// The part of `put` below one inner node, which starts at page `base` and has children of 2^`size` pages.
    fn put_below(&mut self, node: u32, size: u32, base: u64, stretch: Stretch) {
        let highest = children(size) - 1;
        let end = |c: u32| base | u64::from(c) << size | ((1 << size) - 1);
        let low = if stretch.first > base { child_of(stretch.first, size) } else { 0 };
        let high = if stretch.last < end(highest) { child_of(stretch.last, size) } else { highest };
        for c in low..=high {
            let (first, last) = (base | u64::from(c) << size, end(c));
            let piece = stretch.state_from(first.max(stretch.first));
            let rank = if stretch.first <= first && last <= stretch.last {
                self.drop_below(self.inners[node as usize].child(c), size);
                self.inners[node as usize].close(c, piece);
                if piece == State::Free { size as u8 + 1 } else { 0 }
            } else {
                self.put_within(node, size, c, first, last, stretch)
            };
            self.inners[node as usize].settle(c, rank, size);
        }
    }

    /// The part of `put` in a child that it covers partly; gives the child's rank.
    fn put_within(&mut self, node: u32, size: u32, c: u32, first: u64, last: u64, stretch: Stretch) -> u8 {
        let child = self.open(node, size, c);
        let (rank, bare) = if size == LEAF_ORDER {
            let (from, to) = (first.max(stretch.first), last.min(stretch.last));
            let leaf = &mut self.leaves[child as usize];
            leaf.put(in_leaf(from), in_leaf(to), stretch.state_from(from));
            (leaf.rank(), leaf.rank() == WHOLE)
        } else {
            self.put_below(child, size - 6, first, stretch);
            let inner = &self.inners[child as usize];
            (inner.rank(), inner.is_bare())
        };
        if bare {
            self.drop_below(child, size);
            self.inners[node as usize].close(c, State::Free);
        }
        rank
    }

    /// The node of child `c`, made from what its parent says where there is none.
    fn open(&mut self, node: u32, size: u32, c: u32) -> u32 {
        let inner = &self.inners[node as usize];
        if inner.child(c) != NONE {
            return inner.child(c);
        }
        let state = inner.uniform(c);
        let child = if size == LEAF_ORDER {
            place(&mut self.leaves, &mut self.spare_leaves, Leaf::new(state, node))
        } else {
            let made = Inner::new(state, size - 6, node);
            place(&mut self.inners, &mut self.spare_inners, made)
        };
        self.inners[node as usize].open(c, child);
        child
    }

    /// Gives up a child of 2^`size` pages, if it is a node, and all below it.
    fn drop_below(&mut self, child: u32, size: u32) {
        if child == NONE {
            return;
        }
        if size == LEAF_ORDER {
            self.spare_leaves.push(child);
            return;
        }
        for c in 0..64 {
            self.drop_below(self.inners[child as usize].child(c), size - 6);
        }
        self.spare_inners.push(child);
    }

    /// Remembers the leaf from page `base`, free throughout, as idle, and gives up the one that was.
    ///
    /// So pages that come and go at one place cost no node each time, and no more than one leaf stays for nothing.
    pub(super) fn grow_idle(&mut self, base: u64) {
        if self.idle == Some(base) {
            return;
        }
        let before = self.idle.replace(base);
        let is_free = |base| match self.leaf_of(base) {
            NONE => false,
            leaf => self.leaves[leaf as usize].rank() == WHOLE,
        };
        if let Some(before) = before.filter(|&base| is_free(base)) {
            self.put(before, before | u64::from(LAST_OF_LEAF), State::Free);
        }
    }

    /// [`release`](Self::release) for a range that no leaf holds alone.
    #[cold]
    pub(super) fn release_across(&mut self, first: u64, last: u64) -> bool {
        if self.run_from(first) != Some(last) {
            return false;
        }
        self.put(first, last, State::Free);
        true
    }

    /// The last page of the allocated range that starts at `first`; `None` if none does.
    pub(in crate::iova) fn run_from(&self, first: u64) -> Option<u64> {
        if first > self.last() || self.state(first) != State::Head {
            return None;
        }
        let after = first.checked_add(1).and_then(|page| self.next(page, Is::NotRest));
        Some(after.map_or(self.last(), |page| page - 1))
    }
}

/// Puts a node where a spare one was, or at the end; gives its place.
fn place<T>(nodes: &mut alloc::vec::Vec<T>, spare: &mut alloc::vec::Vec<u32>, node: T) -> u32 {
    if let Some(at) = spare.pop() {
        nodes[at as usize] = node;
        return at;
    }
    nodes.push(node);
    (nodes.len() - 1) as u32
}
