//! One ledger on several threads.

use super::*;
use crate::pin::{Counter, SharedLedger};

#[test]
fn a_charge_is_released_when_it_is_dropped_and_only_once() {
    let shared = SharedLedger::new(ledger(Some(PAGE)));
    let request = Request::new(Via::Rdma, bytes(0, 1));
    let charge = shared.charge(NIC, request).unwrap();
    assert!(shared.charge(NIC, request).is_err());
    shared.with(|ledger| ledger.release(charge.pin())).unwrap();
    let second = shared.charge(POOL, request).unwrap();
    drop(charge);
    assert_eq!(shared.reading(Counter::MmPinned).charged, Bytes::new(PAGE), "the second's charge stands");
    drop(second);
    assert_eq!(shared.reading(Counter::MmPinned).charged, Bytes::ZERO);
}

/// Orders of fewer threads are tried one by one in `models/tests/ledger.rs`.
#[cfg(feature = "std")]
#[test]
fn eight_threads_never_pass_the_limit_together() {
    use std::sync::atomic::{AtomicU64, Ordering};
    let shared = SharedLedger::new(ledger(Some(5 * PAGE)));
    let (held, most) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|threads| {
        for thread in 0..8_u64 {
            let (shared, held, most) = (&shared, &held, &most);
            threads.spawn(move || {
                for round in 0..500 {
                    let pages = (thread + round) % 3 + 1;
                    let request = Request::new(Via::Rdma, bytes(thread << 30, pages * PAGE));
                    if let Ok(charge) = shared.charge(NIC, request) {
                        let now = held.fetch_add(pages, Ordering::SeqCst) + pages;
                        most.fetch_max(now, Ordering::SeqCst);
                        held.fetch_sub(pages, Ordering::SeqCst);
                        drop(charge);
                    }
                }
            });
        }
    });
    assert!((1..=5).contains(&most.load(Ordering::SeqCst)), "{most:?}");
    assert_eq!(shared.reading(Counter::MmPinned).charged, Bytes::ZERO);
}
