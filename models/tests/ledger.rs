//! Threads that pin at once, against one limit.

#![cfg(peerdma_shuttle)]
#![expect(clippy::unwrap_used, reason = "helpers of models")]

use peerdma::addr::{AddrRange, Bytes, Granule, ProcVa};
use peerdma::pin::{Counter, Ledger, OwnerId, OwnerLimits, Request, RingShape, SharedLedger, Via};
use peerdma_models::orders;
use shuttle::sync::atomic::{AtomicU64, Ordering};
use shuttle::thread;
use std::sync::Arc;

const PAGE: u64 = 4096;
const POOL: OwnerId = OwnerId::new(0);

fn ledger(pages: u64) -> SharedLedger {
    let mut ledger = Ledger::new(Granule::PAGE_4K);
    ledger.limit(Some(Bytes::new(pages * PAGE)));
    ledger.describe_owner(POOL, "pool", OwnerLimits::NONE);
    SharedLedger::new(ledger)
}

fn pages(thread: u64, count: u64) -> AddrRange<ProcVa> {
    AddrRange::new(ProcVa::new(thread << 30), Bytes::new(count * PAGE)).unwrap()
}

/// What the kernel has pinned: never more than the limit, or it would have answered ENOMEM.
struct Kernel {
    pinned: AtomicU64,
    limit: u64,
}

impl Kernel {
    fn pin(&self, count: u64) {
        let before = self.pinned.fetch_add(count, Ordering::SeqCst);
        assert!(before + count <= self.limit, "{before} and {count} more pass the limit of {}", self.limit);
    }

    fn unpin(&self, count: u64) {
        self.pinned.fetch_sub(count, Ordering::SeqCst);
    }
}

#[test]
fn eight_threads_that_charge_before_they_pin_never_pass_the_limit() {
    orders::some(2000, || {
        let (ledger, kernel) = (ledger(5), Arc::new(Kernel { pinned: AtomicU64::new(0), limit: 5 }));
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                let (ledger, kernel) = (ledger.clone(), Arc::clone(&kernel));
                thread::spawn(move || {
                    let count = thread % 3 + 1;
                    let request = Request::new(Via::Rdma, pages(thread, count));
                    // A charge goes after what it stands for.
                    if let Ok(_charge) = ledger.charge(POOL, request) {
                        kernel.pin(count);
                        kernel.unpin(count);
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(ledger.reading(Counter::MmPinned).held, Bytes::ZERO);
    });
}

/// The slot that paid may go while another comes: what is held is never less than what is charged, and nothing stays behind.
#[test]
fn a_huge_page_that_threads_pin_and_unpin_at_once_is_given_back_whole() {
    orders::some(2000, || {
        let ledger = ledger(2 + 512);
        let ring = ledger.open_ring(POOL, RingShape::new(1)).unwrap();
        let huge = Granule::new(Bytes::new(512 * PAGE)).unwrap();
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let ledger = ledger.clone();
                thread::spawn(move || {
                    let request = Request::new(Via::IoUring { ring }, pages(1, 1)).in_compound_pages(huge);
                    // There is room for the page once, and that is all it takes for any number of slots.
                    let charge = ledger.charge(POOL, request).unwrap();
                    let reading = ledger.reading(Counter::UserLocked);
                    assert!(reading.charged <= reading.held);
                    assert_eq!(reading.held, Bytes::new(514 * PAGE));
                    drop(charge);
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        ledger.close_ring(ring).unwrap();
        assert_eq!(ledger.reading(Counter::UserLocked).held, Bytes::ZERO);
    });
}
