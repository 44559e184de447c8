//! What is given back when a pin is released, and what is not.

use super::*;
use crate::pin::{Counter, ReleaseError};

#[test]
fn a_slot_that_paid_for_a_huge_page_takes_the_charge_with_it() {
    let mut ledger = ledger(None);
    let ring = ring(&mut ledger);
    let of = |start| on_ring(ring, start, PAGE).in_compound_pages(huge());
    let payer = ledger.charge(NIC, of(2 * MIB)).unwrap();
    let second = ledger.charge(NIC, of(2 * MIB + PAGE)).unwrap();
    assert!(ledger.reading(Counter::MmPinned).is_exact());
    ledger.release(payer).unwrap();
    let reading = ledger.reading(Counter::MmPinned);
    assert_eq!((reading.charged, reading.held), (Bytes::ZERO, Bytes::new(2 * MIB)));
    // A third finds the page pinned, and is not charged either: the kernel looks for the page, not for who paid.
    let third = ledger.charge(NIC, of(2 * MIB)).unwrap();
    assert_eq!(ledger.reading(Counter::MmPinned).charged, Bytes::ZERO);
    ledger.release(second).unwrap();
    assert!(!ledger.reading(Counter::MmPinned).is_exact());
    ledger.release(third).unwrap();
    let reading = ledger.reading(Counter::MmPinned);
    assert!(reading.is_exact() && reading.held == Bytes::ZERO);
}

#[test]
fn what_is_counted_once_is_given_back_by_the_last() {
    let mut ledger = ledger(None);
    let request = Request::new(Via::Iommufd { file: scope(0) }, bytes(0, MIB));
    let first = ledger.charge(NIC, request).unwrap();
    let copy = ledger.charge(NIC, request).unwrap();
    ledger.release(first).unwrap();
    assert_eq!(ledger.reading(Counter::UserLocked).charged, Bytes::new(MIB));
    ledger.release(copy).unwrap();
    assert_eq!(ledger.reading(Counter::UserLocked).charged, Bytes::ZERO);
}

#[test]
fn a_released_handle_stays_stale_when_its_place_is_taken_again() {
    let mut ledger = ledger(None);
    let request = Request::new(Via::Rdma, bytes(0, 1));
    let first = ledger.charge(NIC, request).unwrap();
    ledger.release(first).unwrap();
    let second = ledger.charge(NIC, request).unwrap();
    assert_ne!(first, second);
    assert_eq!(ledger.release(first), Err(ReleaseError::Stale { pin: first }));
    assert_eq!(ledger.reading(Counter::MmPinned).charged, Bytes::new(PAGE));
    ledger.release(second).unwrap();
}

#[test]
fn a_ring_goes_after_its_pins_and_its_handle_stays_stale() {
    let mut ledger = ledger(None);
    let ring = ring(&mut ledger);
    let pin = ledger.charge(NIC, on_ring(ring, 0, 1)).unwrap();
    assert_eq!(ledger.close_ring(ring), Err(ReleaseError::RingInUse { ring, pins: 1 }));
    ledger.release(pin).unwrap();
    ledger.close_ring(ring).unwrap();
    assert_eq!(ledger.reading(Counter::UserLocked).charged, Bytes::ZERO);
    assert_eq!(ledger.close_ring(ring), Err(ReleaseError::StaleRing { ring }));
    let next = super::ring(&mut ledger);
    assert_ne!(ring, next);
    assert!(ledger.charge(NIC, on_ring(ring, 0, 1)).is_err());
}
