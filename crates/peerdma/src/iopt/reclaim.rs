//! Giving tables back, when nobody can be walking them any more.
//!
//! Tables taken out are queued and not freed, since an IOMMU may be walking them until its
//! caches are invalidated. The queue is threaded through the tables themselves: the first
//! entry of a dead table holds the address of the next, which no format takes for present.

use super::entry::Entry;
use super::format::Format;
use super::memory::TableMemory;
use super::table::{FRAME_ENTRIES, PageTable, root_frames};
use crate::addr::PhysAddr;
use crate::sync::atomic::{AtomicU64, Ordering};

/// The word of a caller that nobody can reach tables that were taken out.
///
/// That is: since the last unmapping through any reference to the page table, the IOTLB and
/// paging-structure caches of every device of the domain were invalidated, no walk that began
/// before is still going on, and no unmapping is under way.
#[derive(Debug)]
pub struct Quiesced(());

impl Quiesced {
    /// Gives the word.
    pub const fn promise() -> Self {
        Self(())
    }
}

impl<F: Format, M: TableMemory> PageTable<F, M> {
    /// Gives the frames of tables that were taken out back to the memory; answers how many tables.
    ///
    /// The exclusive reference proves that no walk through this value is going on. Devices are
    /// the caller's part: what was unmapped must be invalidated in all of them before.
    pub fn reclaim(&mut self) -> usize {
        self.free_dead()
    }

    /// The same for a table that several share.
    pub fn reclaim_quiesced(&self, _quiesced: Quiesced) -> usize {
        self.free_dead()
    }

    /// Gives back the frames of tables in which nothing is mapped any more; answers how many tables.
    ///
    /// Unmapping takes out only tables that lie in the range as a whole, so others are left
    /// empty, and a map that failed leaves those it made. Looks at every entry of the table.
    /// Devices must have been invalidated as for [`reclaim`](Self::reclaim), which this does
    /// as well, must not be walking the table, and are told the root of now if it has grown.
    pub fn prune(&mut self) -> usize {
        let root = self.root();
        let root_entries = root_frames(self.format()) * FRAME_ENTRIES;
        self.prune_below(root.at, root.height, root_entries);
        self.free_dead()
    }

    fn prune_below(&self, table: PhysAddr, height: u8, entries: usize) -> bool {
        let mut empty = true;
        for index in 0..entries {
            let Some(slot) = self.slot(table, index) else { return false };
            let entry = slot.load(Ordering::Acquire);
            match self.format().decode(entry, height) {
                Entry::Table(child) if height > 0 && self.prune_below(child, height - 1, 1 << F::INDEX_BITS) => {
                    slot.store(0, Ordering::Relaxed);
                    self.bury(child);
                }
                _ => empty &= entry == 0,
            }
        }
        empty
    }

    /// Queues a table, which no entry points to any more, and everything below it.
    pub(super) fn bury_all(&self, table: PhysAddr, height: u8) {
        if height > 0 {
            for index in 0..1 << F::INDEX_BITS {
                let Some(slot) = self.slot(table, index) else { break };
                if let Entry::Table(child) = self.format().decode(slot.load(Ordering::Acquire), height)
                    && self.take_out(slot, child, height)
                {
                    self.bury_all(child, height - 1);
                }
            }
        }
        self.bury(table);
    }

    /// Empties an entry of a table of `height` that points to `child`; false if it does no more.
    ///
    /// Only who emptied it queues the table: also of callers that overlap, which they must not,
    /// none frees a table that another one frees.
    pub(super) fn take_out(&self, slot: &AtomicU64, child: PhysAddr, height: u8) -> bool {
        let mut entry = slot.load(Ordering::Relaxed);
        // Again where a device marked the entry meanwhile.
        while self.format().decode(entry, height) == Entry::Table(child) {
            match slot.compare_exchange_weak(entry, 0, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => entry = now,
            }
        }
        false
    }

    /// Queues a table that no entry points to any more and that points to none.
    pub(super) fn bury(&self, table: PhysAddr) {
        // Cursors forget before the frame can become anything else.
        self.generation.fetch_add(1, Ordering::Release);
        let Some(link) = self.slot(table, 0) else { return };
        self.tables.fetch_sub(1, Ordering::Relaxed);
        let mut next = self.dead.load(Ordering::Relaxed);
        loop {
            link.store(next, Ordering::Relaxed);
            match self.dead.compare_exchange_weak(next, table.as_u64(), Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => next = now,
            }
        }
    }

    fn free_dead(&self) -> usize {
        let mut freed = 0;
        let mut table = self.dead.swap(0, Ordering::Acquire);
        while let Some(link) = (table != 0).then(|| self.slot(PhysAddr::new(table), 0)).flatten() {
            // Each link is followed once, so that this ends whatever somebody wrote into dead tables.
            let next = link.swap(0, Ordering::Relaxed);
            self.memory().free(PhysAddr::new(table), Self::TABLE_FRAMES);
            freed += 1;
            table = next;
        }
        freed
    }

    /// Whether nothing is mapped in a table and those below it.
    pub(super) fn is_empty(&self, table: PhysAddr, height: u8) -> bool {
        (0..1 << F::INDEX_BITS).all(|index| {
            let Some(slot) = self.slot(table, index) else { return false };
            let entry = slot.load(Ordering::Acquire);
            match self.format().decode(entry, height) {
                _ if entry == 0 => true,
                Entry::Table(child) if height > 0 => self.is_empty(child, height - 1),
                _ => false,
            }
        })
    }
}

impl<F: Format, M: TableMemory> Drop for PageTable<F, M> {
    fn drop(&mut self) {
        self.free_dead();
        let root = self.root();
        let frames = root_frames(self.format());
        if root.height > 0 {
            for index in 0..frames * FRAME_ENTRIES {
                let Some(slot) = self.slot(root.at, index) else { break };
                if let Entry::Table(child) = self.format().decode(slot.load(Ordering::Acquire), root.height)
                    && self.take_out(slot, child, root.height)
                {
                    self.bury_all(child, root.height - 1);
                }
            }
        }
        self.free_dead();
        self.memory().free(root.at, frames);
    }
}
