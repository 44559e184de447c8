//! An allocator that only counts up.

use crate::peers::Allocates;

/// The next page, up to an end.
pub struct Bump {
    next: u64,
    end: u64,
}

impl Bump {
    /// Counts from `start` through `pages`.
    pub fn new(start: u64, pages: u64) -> Self {
        Self { next: start, end: start + pages }
    }
}

impl Allocates for Bump {
    #[inline]
    fn take(&mut self, pages: u64) -> Option<u64> {
        let start = self.next;
        let end = start.wrapping_add(pages);
        if end > self.end {
            return None;
        }
        self.next = end;
        Some(start)
    }

    #[inline]
    fn give(&mut self, _start: u64, _pages: u64) {}

    fn place(&mut self, _start: u64, _pages: u64) -> bool {
        true
    }
}
