//! Each backend's own rule.

use super::*;
use crate::pin::{Backend, Basis, Counted, Counter};

fn charged(ledger: &Ledger) -> [u64; 3] {
    Counter::ALL.map(|counter| ledger.reading(counter).charged.as_u64())
}

/// [`charged`] after one request of a page and its first byte again.
fn twice(via: impl Fn(&mut Ledger) -> Via) -> [u64; 3] {
    let mut ledger = ledger(None);
    let via = via(&mut ledger);
    for len in [PAGE, 1] {
        ledger.charge(NIC, Request::new(via, bytes(0x10_0000, len))).unwrap();
    }
    charged(&ledger).map(|bytes| bytes / PAGE)
}

#[test]
fn the_same_page_twice_is_charged_by_each_backend_in_its_own_way() {
    let ring = |ledger: &mut Ledger| Via::IoUring { ring: ring(ledger) };
    // mm->locked_vm, user->locked_vm, mm->pinned_vm
    assert_eq!(twice(|_| Via::Mlock), [1, 0, 0]);
    assert_eq!(twice(|_| Via::Type1 { container: scope(0) }), [2, 0, 0]);
    assert_eq!(twice(|_| Via::Iommufd { file: scope(0) }), [0, 1, 1]);
    assert_eq!(twice(|_| Via::IommufdProcess { file: scope(0) }), [1, 0, 1]);
    assert_eq!(twice(ring), [0, 2 + 2, 2]);
    assert_eq!(twice(|_| Via::Rdma), [0, 0, 2]);
    assert_eq!(twice(|_| Via::Udmabuf), [0, 0, 0]);
    assert_eq!(twice(|_| Via::DmaHeap), [0, 0, 0]);
}

#[test]
fn a_byte_costs_its_page_and_two_bytes_across_an_edge_cost_two() {
    let ledger = ledger(None);
    let cost = |start, len| ledger.check(NIC, &Request::new(Via::Rdma, bytes(start, len))).unwrap().charged;
    assert_eq!(cost(0, 1), Bytes::new(PAGE));
    assert_eq!(cost(PAGE - 1, 2), Bytes::new(2 * PAGE));
    assert_eq!(cost(u64::MAX, 1), Bytes::new(PAGE));
}

#[test]
fn only_a_ring_charges_compound_pages_whole() {
    let mut ledger = ledger(None);
    let ring = ring(&mut ledger);
    let cost = |via, start, len| {
        let request = Request::new(via, bytes(start, len)).in_compound_pages(huge());
        ledger.check(NIC, &request).unwrap().charged
    };
    assert_eq!(cost(Via::IoUring { ring }, 8 * MIB + 5, 1), Bytes::new(2 * MIB));
    assert_eq!(cost(Via::IoUring { ring }, 10 * MIB - 1, 2), Bytes::new(4 * MIB));
    for via in [Via::Mlock, Via::Type1 { container: scope(0) }, Via::Iommufd { file: scope(0) }, Via::Rdma] {
        assert_eq!(cost(via, 8 * MIB + 5, 1), Bytes::new(PAGE), "{via:?}");
    }
}

#[test]
fn a_huge_page_is_charged_once_to_a_ring_and_again_to_another() {
    let mut ledger = ledger(None);
    let rings = [ring(&mut ledger), ring(&mut ledger)];
    for ring in [rings[0], rings[0], rings[1]] {
        ledger.charge(NIC, on_ring(ring, 64 * MIB, PAGE).in_compound_pages(huge())).unwrap();
    }
    assert_eq!(charged(&ledger)[1], 2 * 2 * MIB + 2 * 2 * PAGE);
}

#[test]
fn what_shares_no_scope_is_charged_apart() {
    let mut ledger = ledger(None);
    for file in 0..3 {
        let via = Via::Iommufd { file: scope(file) };
        ledger.charge(NIC, Request::new(via, bytes(0, MIB))).unwrap();
    }
    assert_eq!(charged(&ledger), [0, 3 * MIB, 3 * MIB]);
}

#[test]
fn a_ring_is_charged_as_the_kernel_was_seen_to() {
    let charge = |shape: RingShape| shape.charge(Granule::PAGE_4K).map(|bytes| bytes.as_u64() / PAGE);
    // Linux 6.18: the least limit in pages with which io_uring_setup succeeds for a user.
    let seen = [(1, 2), (2, 2), (64, 2), (128, 4), (256, 7), (1000, 26), (4096, 101), (32768, 801)];
    for (entries, pages) in seen {
        assert_eq!(charge(RingShape::new(entries)), Some(pages), "{entries}");
    }
    assert_eq!(charge(RingShape::new(256).wide_submissions()), Some(11));
    assert_eq!(charge(RingShape::new(256).wide_completions()), Some(9));
    assert_eq!(charge(RingShape::new(256).no_submission_array()), Some(7));
    assert_eq!(charge(RingShape::new(64).completions(5000)), Some(34));
    for none in [0, 32769, u32::MAX] {
        assert_eq!(charge(RingShape::new(none)), None, "{none}");
    }
    assert_eq!(charge(RingShape::new(1).completions(u32::MAX)), None);
}

#[test]
fn rules_are_complete_and_say_where_they_come_from() {
    for backend in Backend::ALL {
        let rule = backend.rule();
        assert_eq!(rule.counter.is_none(), rule.counted == Counted::Never, "{backend}");
        assert_eq!(rule.counter.is_none(), rule.bypass.is_none(), "{backend}");
        assert!(rule.also.is_none() || rule.also != rule.counter, "{backend}");
        assert!(!rule.source.is_empty() && !rule.error.is_empty() && !rule.scope.is_empty(), "{backend}");
    }
    assert_eq!(Counter::UserLocked.basis(), Basis::User);
    let user: Vec<_> = Backend::ALL.into_iter().filter(|it| it.rule().counter == Some(Counter::UserLocked)).collect();
    assert_eq!(user, [Backend::Iommufd, Backend::IoUring]);
    assert!(!Backend::Mlock.pins() && Backend::IoUring.pins());
}
