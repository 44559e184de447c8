//! What is refused, and what the refusal says.

use super::*;
use crate::pin::{ChargeError, Counter, Holder, Outside, Precision};

#[test]
fn a_limit_of_64_kib_leaves_14_of_16_pages_beside_a_ring() {
    let mut ledger = ledger(Some(64 << 10));
    let ring = ring(&mut ledger);
    assert!(matches!(ledger.check(NIC, &on_ring(ring, 0, 15 * PAGE)), Err(ChargeError::OverLimit(_))));
    ledger.charge(NIC, on_ring(ring, 0, 14 * PAGE)).unwrap();
    assert!(ledger.charge(NIC, on_ring(ring, 0, 1)).is_err());
}

#[test]
fn at_a_limit_of_zero_no_ring_opens_and_mlock_is_forbidden() {
    let mut ledger = ledger(Some(0));
    let refused = ledger.open_ring(NIC, RingShape::new(1)).unwrap_err().to_string();
    assert!(refused.starts_with("ring of 8 KiB for nic refused: this user has at least 0 bytes of"), "{refused}");
    for via in [Via::Mlock, Via::Rdma] {
        let refused = ledger.charge(NIC, Request::new(via, bytes(0, 1))).unwrap_err();
        assert!(matches!(refused, ChargeError::Forbidden { .. }), "{refused}");
        assert!(refused.to_string().contains("EPERM"), "{refused}");
    }
    // What charges nothing needs no limit.
    ledger.charge(NIC, Request::new(Via::Udmabuf, bytes(0, MIB))).unwrap();
}

#[test]
fn counters_have_the_whole_limit_each_and_backends_of_one_counter_share_it() {
    let mut ledger = ledger(Some(MIB));
    let mib = |via| Request::new(via, bytes(0, MIB));
    ledger.charge(NIC, mib(Via::Mlock)).unwrap();
    ledger.charge(NIC, mib(Via::Iommufd { file: scope(0) })).unwrap();
    for via in [Via::Type1 { container: scope(0) }, Via::IommufdProcess { file: scope(0) }] {
        assert!(ledger.check(NIC, &mib(via)).is_err(), "{via:?} shares mm->locked_vm with mlock");
    }
    assert!(ledger.open_ring(NIC, RingShape::new(1)).is_err(), "rings share user->locked_vm with iommufd");
    // RDMA asks the counter that iommufd raised without asking it.
    assert!(ledger.check(NIC, &mib(Via::Rdma)).is_err());
}

#[test]
fn what_raises_a_counter_without_asking_it_is_not_held_to_it() {
    let mut ledger = ledger(Some(MIB));
    ledger.charge(NIC, Request::new(Via::Rdma, bytes(0, MIB))).unwrap();
    ledger.charge(NIC, Request::new(Via::Iommufd { file: scope(0) }, bytes(0, MIB))).unwrap();
    assert_eq!(ledger.reading(Counter::MmPinned).charged, Bytes::new(2 * MIB));
}

#[test]
fn who_has_the_capability_is_charged_and_not_refused() {
    let mut ledger = ledger(Some(0));
    ledger.bypass(true);
    let ring = ring(&mut ledger);
    ledger.charge(NIC, on_ring(ring, 0, MIB)).unwrap();
    ledger.charge(NIC, Request::new(Via::Mlock, bytes(0, MIB))).unwrap();
    assert_eq!(ledger.reading(Counter::MmPinned).charged, Bytes::new(MIB));
}

#[test]
fn what_adds_nothing_passes_a_limit_that_was_lowered() {
    let mut ledger = ledger(None);
    let request = Request::new(Via::Mlock, bytes(0, MIB));
    ledger.charge(NIC, request).unwrap();
    ledger.limit(Some(Bytes::new(PAGE)));
    ledger.charge(NIC, request).unwrap();
    assert!(ledger.charge(NIC, Request::new(Via::Mlock, bytes(MIB, 1))).is_err());
}

#[test]
fn the_refusal_names_limit_use_need_owner_and_who_else_holds() {
    let mut ledger = ledger(Some(64 * MIB));
    let ring = ring(&mut ledger);
    ledger.charge(POOL, on_ring(ring, 0, 8 * MIB)).unwrap();
    let holder = |pid, command: &str, mib| Holder { pid, command: command.into(), held: Bytes::new(mib * MIB) };
    let holders = vec![holder(4711, "qemu", 30), holder(4712, "spdk", 10), holder(5, "a", 4), holder(6, "b", 4)];
    ledger.observe(Counter::UserLocked, Outside { held: Bytes::new(48 * MIB), precision: Precision::About, holders });
    let refused = ledger.charge(NIC, on_ring(ring, 64 * MIB, 16 * MIB)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "pin of 16 MiB by io_uring for nic refused: this user has about 57352 KiB of RLIMIT_MEMLOCK 64 MiB in \
         user->locked_vm, 8200 KiB of it here and about 48 MiB in other processes: 30 MiB by process 4711 (qemu), 10 MiB \
         by process 4712 (spdk), 4 MiB by process 5 (a) and 1 more; raise the limit to 73736 KiB (peerdma memlock \
         prints how), or release 8200 KiB"
    );
    let ChargeError::OverLimit(shortage) = refused else { panic!("{refused}") };
    assert_eq!(shortage.needed_limit(), Bytes::new((8 + 48 + 16) * MIB + 2 * PAGE));
    // With that limit it is taken.
    ledger.limit(Some(shortage.needed_limit()));
    ledger.charge(NIC, on_ring(ring, 64 * MIB, 16 * MIB)).unwrap();
}

#[test]
fn an_owner_is_held_to_its_number_and_size_whatever_the_kernel_permits() {
    let mut ledger = ledger(None);
    ledger.describe_owner(NIC, "nic", OwnerLimits { pins: Some(2), size: Some(Bytes::new(3 * PAGE)) });
    let rdma = |len| Request::new(Via::Rdma, bytes(0, len));
    let first = ledger.charge(NIC, rdma(PAGE)).unwrap();
    let large = ledger.charge(NIC, rdma(2 * PAGE + 1)).unwrap_err();
    assert_eq!(
        large.to_string(),
        "pin of 12 KiB for nic refused: its pins hold 4 KiB of 12 KiB that it may hold; release some, or raise its limit"
    );
    ledger.charge(NIC, rdma(PAGE)).unwrap();
    let many = ledger.charge(NIC, rdma(1)).unwrap_err();
    assert_eq!(
        many.to_string(),
        "pin of 4 KiB for nic refused: it has 2 pins and may have 2; release one, or raise its limit"
    );
    // Another owner has its own, and what is released counts no more.
    ledger.charge(POOL, rdma(MIB)).unwrap();
    ledger.release(first).unwrap();
    ledger.charge(NIC, rdma(2 * PAGE)).unwrap();
    assert_eq!(ledger.owned(NIC), Some((2, Bytes::new(3 * PAGE))));
}

#[test]
fn strangers_are_named_and_charge_nothing() {
    let mut ledger = ledger(None);
    let unknown = OwnerId::new(9);
    let refused = ledger.charge(unknown, Request::new(Via::Rdma, bytes(0, 1))).unwrap_err();
    assert_eq!(refused, ChargeError::NoOwner { owner: unknown });
    let ring = RingHandle::planned(3);
    let refused = ledger.charge(NIC, on_ring(ring, 0, 1)).unwrap_err();
    assert_eq!(refused, ChargeError::NoRing { ring });
    let refused = ledger.open_ring(NIC, RingShape::new(0)).unwrap_err();
    assert!(refused.to_string().contains("1 to 32768"), "{refused}");
    assert!(Counter::ALL.iter().all(|counter| ledger.reading(*counter).held == Bytes::ZERO));
}

#[test]
fn sums_past_64_bits_are_refused_and_change_nothing() {
    let mut ledger = ledger(None);
    // Half of all addresses, three times.
    let half = Request::new(Via::Rdma, bytes(0, 1 << 63));
    let first = ledger.charge(NIC, half).unwrap();
    assert_eq!(ledger.charge(NIC, half), Err(ChargeError::Overflow));
    assert_eq!(ledger.owned(NIC), Some((1, Bytes::new(1 << 63))));
    ledger.release(first).unwrap();
    ledger.charge(NIC, half).unwrap();
    let whole = Request::new(Via::Mlock, bytes(0, u64::MAX));
    assert_eq!(ledger.charge(NIC, whole), Err(ChargeError::Overflow));
}
