//! A pinner and a ledger together, on the kernel that runs.

use super::skip;
use crate::held::of_this_process;
use crate::memory::{Pages, page_size};
use crate::pin::{Booked, Options, PinError, Pinner};
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

/// As the kernel has it for this process, whatever else is pinned in it: `VmPin` rises by what the ledger charges.
#[test]
fn a_refused_pin_leaves_nothing_charged() {
    let Some((ledger, pinner)) = pinner(1 << 20) else { return };
    let unmapped = {
        let pages = Pages::zeroed(page_size()).unwrap();
        pages.address()
    };
    // Somebody may map there meanwhile; then it is pinned, and let go at once.
    drop(pinner.pin_foreign(unmapped, page_size()));
    assert_eq!(ledger.reading(Counter::MmPinned).charged, Bytes::ZERO);
}
