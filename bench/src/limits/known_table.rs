//! Stores into leaf tables that somebody has found already.

use super::walk::Frame;
use std::sync::atomic::{AtomicU64, Ordering};

/// Readable and writable, in every format that has it.
const BITS: u64 = 3;

/// Leaf tables in a row.
pub struct KnownTables {
    tables: Vec<Frame>,
}

impl KnownTables {
    /// As many tables, all empty.
    pub fn new(tables: usize) -> Self {
        Self { tables: (0..tables).map(|_| std::array::from_fn(|_| AtomicU64::new(0))).collect() }
    }

    /// Maps all entries to one contiguous range, each `step` bytes further.
    #[inline]
    pub fn fill(&self, target: u64, step: u64) {
        let mut next = target | BITS;
        for table in &self.tables {
            for entry in table {
                entry.store(next, Ordering::Relaxed);
                next = next.wrapping_add(step);
            }
        }
    }

    /// Unmaps all entries.
    #[inline]
    pub fn clear(&self) {
        for table in &self.tables {
            for entry in table {
                entry.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Maps ranges of so many pages, at least one, one behind the other in the first table, whose end is
    /// followed by its start.
    #[inline]
    pub fn map(&self, first: u64, ranges: &[(u64, u64)]) {
        let Some(table) = self.tables.first() else { return };
        let mut at = first as usize;
        for &(target, pages) in ranges {
            let mut page = 0;
            loop {
                table[at % 512].store(target.wrapping_add(page << 12) | BITS, Ordering::Relaxed);
                (at, page) = (at.wrapping_add(1), page + 1);
                if page >= pages {
                    break;
                }
            }
        }
    }

    /// Unmaps so many pages of the first table.
    #[inline]
    pub fn unmap(&self, first: u64, pages: u64) {
        let Some(table) = self.tables.first() else { return };
        for page in 0..pages {
            table[first.wrapping_add(page) as usize % 512].store(0, Ordering::Relaxed);
        }
    }

    /// Unmaps so many pages of the first table from its start.
    #[inline]
    pub fn unmap_first(&self, pages: u64) {
        let Some(entries) = self.tables.first().and_then(|table| table.get(..pages as usize)) else { return };
        for entry in entries {
            entry.store(0, Ordering::Relaxed);
        }
    }

    /// Stores one entry.
    #[inline]
    pub fn set(&self, at: usize, entry: u64) {
        if let Some(table) = self.tables.get(at / 512) {
            table[at % 512].store(entry, Ordering::Relaxed);
        }
    }

    /// Maps one page.
    #[inline]
    pub fn map_page(&self, at: usize, target: u64) {
        self.set(at, target | BITS);
    }
}
