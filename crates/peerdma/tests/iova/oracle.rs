//! A slow allocator of pages: every free stretch and every range in a list.

use peerdma::addr::{AddrRange, Bytes, Granule, Iova};
use peerdma::iova::Want;

/// What is free and what is taken, page by page in all but the writing.
pub(crate) struct Oracle {
    shift: u32,
    /// Free stretches, first and last page, sorted, never touching.
    pub(crate) free: Vec<(u64, u64)>,
    /// Allocated ranges: first and last page, and pages of guard on each side.
    pub(crate) taken: Vec<(u64, u64, u64)>,
}

impl Oracle {
    pub(crate) fn new(granule: Granule, free: &[(u64, u64)]) -> Self {
        Self { shift: granule.bytes().as_u64().trailing_zeros(), free: free.to_vec(), taken: Vec::new() }
    }

    /// The pages of a range that is made of whole ones.
    pub(crate) fn pages(&self, range: &AddrRange<Iova>) -> (u64, u64) {
        let (start, last) = (range.start().as_u64(), range.last().as_u64());
        assert_eq!(start >> self.shift << self.shift, start, "{range} starts inside a granule");
        assert_eq!(range.len().as_u64() >> self.shift << self.shift, range.len().as_u64(), "{range} ends inside one");
        (start >> self.shift, last >> self.shift)
    }

    pub(crate) fn range(&self, first: u64, last: u64) -> AddrRange<Iova> {
        AddrRange::new(Iova::new(first << self.shift), Bytes::new((last - first + 1) << self.shift)).unwrap()
    }

    pub(crate) fn is_free(&self, first: u64, last: u64) -> bool {
        self.free.iter().any(|&(low, high)| low <= first && last <= high)
    }

    /// Takes pages out of the free ones, whichever of them are.
    pub(crate) fn remove(&mut self, first: u64, last: u64) {
        let cut = |&(low, high): &(u64, u64)| {
            let below = (low < first).then(|| (low, high.min(first - 1)));
            let above = (high > last).then(|| (low.max(last + 1), high));
            below.into_iter().chain(above)
        };
        self.free = self.free.iter().flat_map(cut).collect();
    }

    pub(crate) fn insert(&mut self, first: u64, last: u64) {
        self.free.push((first, last));
        self.free.sort_unstable();
        let mut joined: Vec<(u64, u64)> = Vec::new();
        for &(low, high) in &self.free {
            match joined.last_mut() {
                Some(before) if before.1 + 1 == low => before.1 = high,
                _ => joined.push((low, high)),
            }
        }
        self.free = joined;
    }

    pub(crate) fn take(&mut self, first: u64, last: u64, guard: u64) {
        self.remove(first - guard, last + guard);
        self.taken.push((first, last, guard));
    }

    pub(crate) fn give_back(&mut self, nth: usize) -> (u64, u64) {
        let (first, last, guard) = self.taken.swap_remove(nth);
        self.insert(first - guard, last + guard);
        (first, last)
    }

    pub(crate) fn wanted_pages(&self, want: &Want) -> u64 {
        want.len().as_u64().div_ceil(1 << self.shift).max(1)
    }

    pub(crate) fn guard_pages(&self, want: &Want) -> u64 {
        want.guard().as_u64().div_ceil(1 << self.shift)
    }

    /// Pages that the start of a range has to be a multiple of.
    pub(crate) fn align_pages(&self, want: &Want) -> u64 {
        let natural = self.wanted_pages(want).next_power_of_two();
        want.align().map_or(natural, |align| (align.bytes().as_u64() >> self.shift).max(1))
    }

    /// Whether any place would do, asked of each free stretch.
    pub(crate) fn has_room(&self, want: &Want) -> bool {
        let (pages, guard, align) = (self.wanted_pages(want), self.guard_pages(want), self.align_pages(want));
        self.free.iter().any(|&(low, high)| {
            let first = (low + guard).div_ceil(align) * align;
            let last = first + pages - 1;
            last + guard <= high && (last << self.shift) + ((1 << self.shift) - 1) <= want.limit().as_u64()
        })
    }

    /// The largest free stretch up to `limit`, in pages.
    pub(crate) fn largest_gap(&self, limit: Iova) -> u64 {
        let end = (u128::from(limit.as_u64()) + 1) >> self.shift;
        let below = |&(low, high): &(u64, u64)| (u128::from(high) + 1).min(end).saturating_sub(low.into()) as u64;
        self.free.iter().map(below).max().unwrap_or(0)
    }

    pub(crate) fn free_pages(&self) -> u64 {
        self.free.iter().map(|(low, high)| high - low + 1).sum()
    }
}
