//! The allocator and its arenas, by page numbers as the peers.

use super::{Allocates, FIRST, SharedTurn, USUAL, WIDE, replacing_held};
use peerdma::addr::{AddrRange, Bytes, Granule, Iova};
use peerdma::iova::{Allocator, Arena, Depot, IovaRanges, Want};
use std::cell::RefCell;
use std::sync::{Arc, Mutex};

/// An allocator of 4 KiB pages from the first to `pages`.
fn space(pages: u64) -> Allocator {
    let usable = IovaRanges::from_inclusive([(Iova::new(FIRST << 12), Iova::new(((FIRST + pages) << 12) - 1))]);
    usable.ok().and_then(|usable| Allocator::new(Granule::PAGE_4K, &usable).ok()).unwrap_or_else(|| unreachable!())
}

fn want(pages: u64) -> Want {
    Want::new(Bytes::new(pages << 12))
}

fn range(start: u64, pages: u64) -> Option<AddrRange<Iova>> {
    AddrRange::new(Iova::new(start << 12), Bytes::new(pages << 12))
}

/// The allocator without an arena.
pub(super) struct Alone(Allocator);

impl Alone {
    pub(super) fn new(pages: u64) -> Self {
        Self(space(pages))
    }
}

impl Allocates for Alone {
    #[inline]
    fn take(&mut self, pages: u64) -> Option<u64> {
        Some(self.0.allocate(&want(pages)).ok()?.start().as_u64() >> 12)
    }

    #[inline]
    fn give(&mut self, start: u64, pages: u64) {
        let freed = range(start, pages).map(|range| self.0.free(range));
        assert!(matches!(freed, Some(Ok(()))), "page {start} was not allocated as {pages}");
    }

    fn place(&mut self, start: u64, pages: u64) -> bool {
        range(start, pages).is_some_and(|range| self.0.claim(range).is_ok())
    }
}

/// A queue's arena and the allocator behind it.
pub(super) struct Queue<D> {
    shared: D,
    arena: Arena,
}

impl Queue<RefCell<Allocator>> {
    /// An arena that keeps up to `most` bytes, in front of an allocator of its own.
    pub(super) fn new(pages: u64, most: u64) -> Self {
        Self { shared: RefCell::new(space(pages)), arena: Arena::keeping(Bytes::new(most)) }
    }
}

impl<D: Depot> Allocates for Queue<D> {
    #[inline(always)]
    fn take(&mut self, pages: u64) -> Option<u64> {
        Some(self.arena.allocate(&self.shared, &want(pages)).ok()?.start().as_u64() >> 12)
    }

    #[inline(always)]
    fn give(&mut self, start: u64, pages: u64) {
        let freed = range(start, pages).map(|range| self.arena.free(&self.shared, range));
        assert!(matches!(freed, Some(Ok(()))), "page {start} was not allocated as {pages}");
    }

    fn place(&mut self, start: u64, pages: u64) -> bool {
        range(start, pages).is_some_and(|range| self.shared.with(|allocator| allocator.claim(range).is_ok()))
    }
}

/// A shared allocator as an arena reaches it.
struct Shared(Arc<Mutex<Allocator>>);

impl Depot for Shared {
    fn with<T>(&self, f: impl FnOnce(&mut Allocator) -> T) -> T {
        self.0.with(f)
    }
}

/// Two queues of one space, each with what it holds.
pub(super) fn two_queues() -> [SharedTurn; 2] {
    let allocator = Arc::new(Mutex::new(space(WIDE)));
    [1, 2].map(|seed| {
        let shared = Shared(allocator.clone());
        replacing_held(Queue { shared, arena: Arena::keeping(Bytes::new(USUAL)) }, seed)
    })
}

/// A peer behind a lock.
pub(super) struct Locked<A>(pub(super) Arc<Mutex<A>>);

impl<A: Allocates> Allocates for Locked<A> {
    fn take(&mut self, pages: u64) -> Option<u64> {
        self.0.lock().ok()?.take(pages)
    }

    fn give(&mut self, start: u64, pages: u64) {
        if let Ok(mut allocator) = self.0.lock() {
            allocator.give(start, pages);
        }
    }

    fn place(&mut self, start: u64, pages: u64) -> bool {
        self.0.lock().is_ok_and(|mut allocator| allocator.place(start, pages))
    }
}
