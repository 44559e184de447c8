//! Remembers where the last leaf tables are, so that link after link costs no descent.
//!
//! A leaf table translates one aligned stretch of IOVAs, so its address is found by the
//! IOVA's upper bits. Eight are remembered, and one table above them, whose stretch is so
//! large that most misses cost one step instead of a descent from the root.
//!
//! What is remembered is only believed while the page table has taken no table out since: it
//! counts that, and a cursor compares. This suffices without a lock, because whoever takes a
//! table out owns all IOVAs below it, and whoever maps there afterwards was given them later.

use super::gather::Gather;
use crate::addr::PhysAddr;
use alloc::sync::Arc;

const LEAVES: usize = 8;

/// One remembered table: the IOVA's bits above those that it translates, and where it is.
#[derive(Clone, Copy, Debug)]
struct Slot {
    prefix: u64,
    at: u64,
}

/// No IOVA has this prefix, since a table translates at least 2^20 bytes.
const NOWHERE: Slot = Slot { prefix: u64::MAX, at: 0 };

/// Remembers the last leaf tables of one user of one table.
///
/// Every user (a queue, a thread, a mapping under way) has its own. Used with another page
/// table it forgets the first and follows the second.
#[derive(Clone, Debug)]
pub struct Cursor {
    /// Which page table it follows; holding the mark keeps a later table from getting the same one.
    table: Option<Arc<()>>,
    generation: u64,
    leaves: [Slot; LEAVES],
    directory: Slot,
    replaced: Gather,
}

impl Default for Cursor {
    fn default() -> Self {
        Self::new()
    }
}

impl Cursor {
    /// Remembers nothing yet.
    pub const fn new() -> Self {
        Self { table: None, generation: 0, leaves: [NOWHERE; LEAVES], directory: NOWHERE, replaced: Gather::new() }
    }

    /// What calls of `map` with this cursor have taken out of the table, and forgets it.
    ///
    /// Empty but for two cases: a large page took the place of an empty table, or a map failed
    /// after some pages and was undone. Devices may hold either in their caches, so it is
    /// invalidated before the mapping is used.
    pub fn take_replaced(&mut self) -> Gather {
        core::mem::take(&mut self.replaced)
    }

    pub(super) fn replaced(&mut self) -> &mut Gather {
        &mut self.replaced
    }

    #[inline]
    fn follows(&self, table: &Arc<()>, generation: u64) -> bool {
        self.generation == generation && self.table.as_ref().is_some_and(|own| Arc::as_ptr(own) == Arc::as_ptr(table))
    }

    /// The leaf table of a prefix, if remembered.
    #[inline]
    pub(super) fn leaf(&self, table: &Arc<()>, generation: u64, prefix: u64) -> Option<PhysAddr> {
        let slot = &self.leaves[prefix as usize % LEAVES];
        (slot.prefix == prefix && self.follows(table, generation)).then_some(PhysAddr::new(slot.at))
    }

    /// Forgets what was remembered of another table, or before a table was taken out.
    ///
    /// To be called with the generation read before a descent, and before what that descent finds
    /// is remembered.
    #[inline]
    pub(super) fn follow(&mut self, table: &Arc<()>, generation: u64) {
        if !self.follows(table, generation) {
            self.forget(table, generation);
        }
    }

    #[cold]
    fn forget(&mut self, table: &Arc<()>, generation: u64) {
        if !self.table.as_ref().is_some_and(|own| Arc::ptr_eq(own, table)) {
            self.table = Some(Arc::clone(table));
        }
        self.generation = generation;
        self.leaves = [NOWHERE; LEAVES];
        self.directory = NOWHERE;
    }

    /// The table above the leaf tables, if remembered of the table that is followed.
    #[inline]
    pub(super) fn directory(&self, prefix: u64) -> Option<PhysAddr> {
        (self.directory.prefix == prefix).then_some(PhysAddr::new(self.directory.at))
    }

    /// Remembers a leaf table of the table that is followed.
    #[inline]
    pub(super) fn remember_leaf(&mut self, prefix: u64, at: PhysAddr) {
        self.leaves[prefix as usize % LEAVES] = Slot { prefix, at: at.as_u64() };
    }

    /// Remembers the table above leaf tables.
    #[inline]
    pub(super) fn remember_directory(&mut self, prefix: u64, at: PhysAddr) {
        self.directory = Slot { prefix, at: at.as_u64() };
    }
}
