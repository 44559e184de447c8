//! A node above the leaves: 64 children, and what each has room for.

use super::state::State;
use super::word::rank;

/// Stands for a child without a node, whose pages all are what the parent says.
pub(super) const NONE: u32 = u32::MAX;

/// Orders that children of the highest node possible may have, which covers 2^66 pages.
const ORDERS: usize = 61;

/// 64 children of equal size: leaves, or inner nodes of the next lower height.
#[derive(Clone, Debug)]
pub(super) struct Inner {
    /// Bit c of `room[o]`: child c has a free block of order o or more.
    room: [u64; ORDERS],
    /// One more than the order of the largest free block of each child, 0 for none.
    rank: [u8; 64],
    /// Where each child's node is, or [`NONE`].
    child: [u32; 64],
    /// Of children without a node, the two bits of their first page.
    open: u64,
    mark: u64,
    /// The rank of this node.
    own: u8,
    /// The node whose child this one is, or [`NONE`].
    pub(super) parent: u32,
}

impl Inner {
    /// A node whose first page is in `state` and the others in what follows it; its children have 2^`order` pages.
    pub(super) fn new(state: State, order: u32, parent: u32) -> Self {
        let (open, mark) = state.after().planes();
        let mut inner = Self { room: [0; ORDERS], rank: [0; 64], child: [NONE; 64], open, mark, own: 0, parent };
        if state == State::Free {
            inner.room[..=order as usize].fill(u64::MAX);
            inner.rank = [order as u8 + 1; 64];
            inner.own = order as u8 + 7;
        }
        if state == State::Head {
            inner.mark |= 1;
        }
        inner
    }

    /// Children with a free block of `order`, 60 at most.
    #[inline(always)]
    pub(super) fn room(&self, order: u32) -> u64 {
        self.room[order as usize]
    }

    /// One more than the order of the largest free block, 0 for none.
    #[inline(always)]
    pub(super) const fn rank(&self) -> u8 {
        self.own
    }

    /// Where the node of child `c` is, or [`NONE`].
    #[inline(always)]
    pub(super) const fn child(&self, c: u32) -> u32 {
        self.child[(c & 63) as usize]
    }

    /// What the first page of child `c` is, which has no node.
    pub(super) const fn uniform(&self, c: u32) -> State {
        State::of(self.open >> (c & 63), self.mark >> (c & 63))
    }

    /// Gives child `c` a node.
    pub(super) fn open(&mut self, c: u32, node: u32) {
        self.child[(c & 63) as usize] = node;
    }

    /// Takes the node of child `c` away: from now on its first page is in `state`, the others in what follows.
    pub(super) fn close(&mut self, c: u32, state: State) {
        let (open, mark) = state.planes();
        let bit = 1 << (c & 63);
        self.child[(c & 63) as usize] = NONE;
        self.open = (self.open & !bit) | (open & bit);
        self.mark = (self.mark & !bit) | (mark & bit);
    }

    /// Whether all pages are free and no child has a node.
    pub(super) fn is_bare(&self) -> bool {
        self.open == u64::MAX && self.mark == 0 && self.child.iter().all(|&child| child == NONE)
    }

    /// Notes the rank of child `c`, whose pages are 2^`order`; whether this node's rank is another now.
    #[inline(always)]
    pub(super) fn settle(&mut self, c: u32, new: u8, order: u32) -> bool {
        let old = core::mem::replace(&mut self.rank[(c & 63) as usize], new);
        if old == new {
            return false;
        }
        for words in &mut self.room[usize::from(old.min(new))..usize::from(old.max(new))] {
            *words ^= 1 << (c & 63);
        }
        let own = if self.room[order as usize] != 0 {
            order as u8 + rank(self.room[order as usize])
        } else {
            let mut own = self.own.max(new).min(order as u8);
            while own > 0 && self.room[usize::from(own) - 1] == 0 {
                own -= 1;
            }
            own
        };
        core::mem::replace(&mut self.own, own) != own
    }
}
