//! A pinner and a ledger together, on the kernel that runs.

use super::skip;
use crate::held::of_this_process;
use crate::memory::{Pages, page_size};
use crate::pin::{Booked, Options, PinError, Pinner};
use crate::sys::disturb::Disturbed;
use peerdma::addr::Bytes;
use peerdma::pin::{Counter, OwnerId, OwnerLimits, SharedLedger};
use std::sync::Arc;

const POOL: OwnerId = OwnerId::new(0);

/// A ledger that is held to so many pages, whatever the process may.
fn pinner(pages: u64) -> Option<(SharedLedger, Pinner)> {
    let mut ledger = of_this_process();
    ledger.describe_owner(POOL, "pool", OwnerLimits::NONE);
    ledger.bypass(false);
    ledger.limit(Some(Bytes::new(pages * page_size().as_u64())));
    let ledger = SharedLedger::new(ledger);
    let admission = Booked::new(ledger.clone(), POOL);
    match Pinner::with(Options::default().admission(Arc::new(admission))) {
        Ok(pinner) => Some((ledger, pinner)),
        Err(error) => {
            skip("ledger-pins", &error.to_string());
            None
        }
    }
}

#[test]
fn the_ledger_says_no_before_the_kernel_and_what_is_unpinned_is_given_back() {
    let Some((ledger, pinner)) = pinner(2 + 4) else { return };
    let page = page_size().as_u64();
    let pages = Arc::new(Pages::zeroed(Bytes::new(3 * page)).unwrap());
    let first = pinner.pin(Arc::clone(&pages)).unwrap();
    let refused = pinner.pin(Arc::clone(&pages)).unwrap_err();
    assert!(matches!(refused, PinError::NotAdmitted { .. }), "{refused}");
    let text = refused.to_string();
    assert!(text.contains("by io_uring for pool refused") && text.contains("user->locked_vm"), "{text}");
    assert_eq!(ledger.reading(Counter::MmPinned).charged, Bytes::new(3 * page));
    drop(first);
    assert_eq!(ledger.reading(Counter::MmPinned).charged, Bytes::ZERO);
    let again = pinner.pin(Arc::clone(&pages)).unwrap();
    drop((again, pinner));
    assert_eq!(ledger.reading(Counter::UserLocked).held, Bytes::ZERO, "the ring too");
}

/// What the look beforehand lets pass, and the kernel refuses after it was charged: a mapping that goes on past its file.
#[test]
fn a_pin_that_the_kernel_refuses_leaves_nothing_charged() {
    let Some((ledger, pinner)) = pinner(1 << 20) else { return };
    let page = page_size().as_u64();
    let file = rustix::fs::memfd_create("cut", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&file, page).unwrap();
    let prot = rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE;
    let cut = Disturbed::of_file(std::os::fd::AsFd::as_fd(&file), Bytes::new(2 * page), false, prot).unwrap();
    let refused = pinner.pin_foreign(cut.range().start(), Bytes::new(2 * page)).unwrap_err();
    assert!(matches!(refused, PinError::Refused { .. }), "the kernel was asked: {refused}");
    assert_eq!(ledger.reading(Counter::MmPinned).charged, Bytes::ZERO);
    let pin = pinner.pin_foreign(cut.range().start(), Bytes::new(page)).unwrap();
    assert_eq!(ledger.reading(Counter::MmPinned).charged, Bytes::new(page), "what there is of it can be pinned");
    drop(pin);
    assert_eq!(ledger.reading(Counter::MmPinned).charged, Bytes::ZERO);
}

/// The second pinner's slots took the place of the first's, whose charges were lost while its pins lived.
#[test]
fn books_serve_one_pinner_and_refuse_another_by_name() {
    let Some((ledger, pinner)) = pinner(1 << 20) else { return };
    let booked = Arc::new(Booked::new(ledger.clone(), POOL));
    let options = || Options::default().admission(booked.clone());
    let first = Pinner::with(options()).unwrap();
    let pages = Arc::new(Pages::zeroed(page_size()).unwrap());
    let pin = first.pin(Arc::clone(&pages)).unwrap();
    let refused = Pinner::with(options()).unwrap_err();
    assert!(refused.to_string().contains("make a Booked for each"), "{refused}");
    assert_eq!(ledger.reading(Counter::MmPinned).charged, page_size(), "the first's charge stands");
    drop((pin, first, pinner));
    assert_eq!(ledger.reading(Counter::UserLocked).held, Bytes::ZERO);
    Pinner::with(options()).unwrap();
}
