//! What everybody writes first: free ranges in a `BTreeMap`, the lowest that is long enough.

use super::Allocates;
use std::collections::BTreeMap;

/// Free ranges, by start: their lengths in pages.
pub struct FirstFit {
    free: BTreeMap<u64, u64>,
}

impl FirstFit {
    /// All of `start..start + pages` free.
    pub fn new(start: u64, pages: u64) -> Self {
        Self { free: BTreeMap::from([(start, pages)]) }
    }
}

impl Allocates for FirstFit {
    fn take(&mut self, pages: u64) -> Option<u64> {
        let (&start, &len) = self.free.iter().find(|&(_, &len)| len >= pages)?;
        self.free.remove(&start);
        if len > pages {
            self.free.insert(start + pages, len - pages);
        }
        Some(start)
    }

    fn give(&mut self, mut start: u64, mut pages: u64) {
        if let Some((&below, &len)) = self.free.range(..start).next_back()
            && below + len == start
        {
            self.free.remove(&below);
            (start, pages) = (below, len + pages);
        }
        if let Some(len) = self.free.remove(&(start + pages)) {
            pages += len;
        }
        self.free.insert(start, pages);
    }

    fn place(&mut self, start: u64, pages: u64) -> bool {
        let Some((&below, &len)) = self.free.range(..=start).next_back() else { return false };
        if below + len < start + pages {
            return false;
        }
        self.free.remove(&below);
        if below < start {
            self.free.insert(below, start - below);
        }
        if below + len > start + pages {
            self.free.insert(start + pages, below + len - start - pages);
        }
        true
    }
}
