//! The lowest node: 4096 pages, two bits each, and where among them free blocks are.

use super::state::{State, free};
use super::word::{blocks, highest, rank, span};

/// Pages of a leaf as a power of two.
pub(super) const LEAF_ORDER: u32 = 12;

/// A leaf's rank when all its pages are free.
pub(super) const WHOLE: u8 = LEAF_ORDER as u8 + 1;

/// 4096 pages in words of 64.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    /// Bit w of `room[o]`: word w has a free block of order o or more (`o` up to 6).
    room: [u64; 8],
    open: [u64; 64],
    mark: [u64; 64],
    /// The inner node whose child this one is.
    pub(super) parent: u32,
}

/// Row r has ones for each order that a word of rank r has room for.
const ROOM_OF_RANK: [[u64; 8]; 8] = {
    let mut rows = [[0; 8]; 8];
    let mut rank = 0;
    while rank < 8 {
        let mut order = 0;
        while order < rank && order < 7 {
            rows[rank][order] = u64::MAX;
            order += 1;
        }
        rank += 1;
    }
    rows
};

impl Leaf {
    /// A leaf whose first page is in `state` and the others in what follows it.
    pub(super) fn new(state: State, parent: u32) -> Self {
        let (open, mark) = state.after().planes();
        let mut leaf = Self { room: [0; 8], open: [open; 64], mark: [mark; 64], parent };
        if state == State::Free {
            leaf.room = ROOM_OF_RANK[7];
        }
        if state == State::Head {
            leaf.mark[0] |= 1;
        }
        leaf
    }

    /// Both planes of word `word`.
    #[inline(always)]
    pub(super) const fn planes(&self, word: u32) -> (u64, u64) {
        (self.open[(word & 63) as usize], self.mark[(word & 63) as usize])
    }

    /// One more than the order of the largest free block, 0 for none.
    #[inline(always)]
    pub(super) fn rank(&self) -> u8 {
        if self.room[6] != 0 {
            return 6 + rank(self.room[6]);
        }
        let mut rank = 6;
        while rank > 0 && self.room[rank - 1] == 0 {
            rank -= 1;
        }
        rank as u8
    }

    /// The start of the highest free block of `order`; 0 if there is none, which the caller has excluded.
    #[inline(always)]
    pub(super) fn highest_block(&self, order: u32) -> u32 {
        if order >= 6 {
            return highest(blocks(self.room[6], order - 6)) << 6;
        }
        let word = highest(self.room[order as usize]);
        let (open, mark) = self.planes(word);
        (word << 6) + highest(blocks(free(open, mark), order))
    }

    /// The start of the highest free block of `order` (12 at most) that starts at page `start` or below.
    pub(super) fn highest_block_from(&self, order: u32, start: u32) -> Option<u32> {
        if order >= 6 {
            let words = blocks(self.room[6], order - 6) & span(0, start >> 6);
            return (words != 0).then(|| highest(words) << 6);
        }
        let word = start >> 6;
        let (open, mark) = self.planes(word);
        let inside = blocks(free(open, mark), order) & span(0, start & 63);
        if inside != 0 {
            return Some((word << 6) + highest(inside));
        }
        let words = self.room[order as usize] & !(u64::MAX << (word & 63));
        if words == 0 {
            return None;
        }
        let word = highest(words);
        let (open, mark) = self.planes(word);
        Some((word << 6) + highest(blocks(free(open, mark), order)))
    }

    /// Puts pages `first` to `last`, inclusive, into what follows `state`, and the first into `state` itself.
    #[inline(always)]
    pub(super) fn put(&mut self, first: u32, last: u32, state: State) {
        let (open, mark) = state.after().planes();
        let (low, high) = ((first >> 6) & 63, (last >> 6) & 63);
        let head = u64::from(state == State::Head) << (first & 63);
        if low == high {
            let pages = span(first & 63, last & 63);
            self.write(low, pages, open, mark, head);
            self.settle(low, self.word_rank(low), low, self.word_rank(low), 0, 0);
            return;
        }
        self.write(low, span(first & 63, 63), open, mark, head);
        for word in low + 1..high {
            self.open[(word & 63) as usize] = open;
            self.mark[(word & 63) as usize] = mark;
        }
        self.write(high, span(0, last & 63), open, mark, 0);
        let between = span(low, high) & !(1 << low) & !(1 << high);
        let (low_rank, high_rank) = (self.word_rank(low), self.word_rank(high));
        self.settle(low, low_rank, high, high_rank, between, free(open, mark));
    }

    #[inline(always)]
    fn write(&mut self, word: u32, pages: u64, open: u64, mark: u64, head: u64) {
        let word = (word & 63) as usize;
        self.open[word] = (self.open[word] & !pages) | (open & pages);
        self.mark[word] = (self.mark[word] & !pages) | (mark & pages) | head;
    }

    #[inline(always)]
    fn word_rank(&self, word: u32) -> usize {
        let (open, mark) = self.planes(word);
        usize::from(rank(free(open, mark)) & 7)
    }

    /// Notes the ranks of two words, and that those between are all `filled` with ones or zeros.
    #[inline(always)]
    fn settle(&mut self, low: u32, low_rank: usize, high: u32, high_rank: usize, between: u64, filled: u64) {
        let (low, high) = (1 << low, 1 << high);
        let kept = !(low | high | between);
        let ranks = ROOM_OF_RANK[low_rank].iter().zip(&ROOM_OF_RANK[high_rank]);
        for (words, (low_room, high_room)) in self.room.iter_mut().zip(ranks) {
            *words = (*words & kept) | (low_room & low) | (high_room & high) | (between & filled);
        }
    }

    /// Whether pages `first` to `last` are a head and rests, and what stands after them in this leaf is no rest.
    ///
    /// Says nothing of what stands after the leaf's last page.
    #[inline(always)]
    pub(super) fn is_run(&self, first: u32, last: u32) -> bool {
        let (low, high) = ((first >> 6) & 63, (last >> 6) & 63);
        let (open, mark) = self.planes(low);
        if low == high {
            let pages = span(first & 63, last & 63);
            let is_run = open & pages == 0 && mark & pages == 1 << (first & 63);
            return is_run && (last == (1 << LEAF_ORDER) - 1 || self.is_no_rest(last + 1));
        }
        let pages = span(first & 63, 63);
        let mut others = (open & pages) | ((mark & pages) ^ (1 << (first & 63)));
        for word in low + 1..high {
            let (open, mark) = self.planes(word);
            others |= open | mark;
        }
        let (open, mark) = self.planes(high);
        others |= (open | mark) & span(0, last & 63);
        others == 0 && (last == (1 << LEAF_ORDER) - 1 || self.is_no_rest(last + 1))
    }

    #[inline(always)]
    fn is_no_rest(&self, page: u32) -> bool {
        let (open, mark) = self.planes(page >> 6);
        (open | mark) >> (page & 63) & 1 != 0
    }
}
