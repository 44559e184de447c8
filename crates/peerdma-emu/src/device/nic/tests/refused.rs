//! What ends with an error, and where.

use super::*;
use crate::device::Device;

/// Posts one send and gives what it completes with; the other side's memory must stay as it is.
fn refused(rights: Rights, send: impl FnOnce(&End<'_>, &End<'_>) -> (Source, Operation)) -> Status {
    let bench = Bench::new();
    let sides = bench.sides();
    let [mut a, b] = connected(&bench, &sides, rights);
    bench.fill(a.base, 0x1000, 5);
    let (local, operation) = send(&a, &b);
    a.post(1, local, operation);
    let status = a.pair.wait().unwrap().status;
    assert!(a.driver.is_in_error(&a.pair).unwrap());
    // What is posted now is flushed, in order.
    a.post(2, a.source(0, 8), Operation::Send { immediate: None });
    a.pair.post_receive(3, a.source(0, 8)).unwrap();
    let flushed = [a.pair.wait().unwrap(), a.pair.wait().unwrap()];
    assert_eq!(flushed.map(|completed| (completed.id, completed.status)), [(2, Status::Flushed), (3, Status::Flushed)]);
    assert!(bench.bytes(b.base, 0x10_0000).iter().all(|byte| *byte == 0));
    status
}

#[test]
fn what_rights_do_not_permit_is_refused_on_the_side_of_the_memory() {
    let write =
        |a: &End<'_>, b: &End<'_>| (a.source(0, 64), Operation::Write { to: b.at(0), key: b.key, immediate: None });
    assert_eq!(refused(Rights::REMOTE_READ | Rights::REMOTE_ATOMIC, write), Status::RemoteAccess);
    let read = |a: &End<'_>, b: &End<'_>| (a.source(0, 64), Operation::Read { from: b.at(0), key: b.key });
    assert_eq!(refused(Rights::LOCAL_WRITE | Rights::REMOTE_WRITE, read), Status::RemoteAccess);
    // Reading brings bytes into memory here, which needs a right too.
    assert_eq!(refused(Rights::REMOTE_READ, read), Status::LocalProtection);
    let add = |a: &End<'_>, b: &End<'_>| (a.source(0, 8), Operation::FetchAdd { at: b.at(0), key: b.key, value: 1 });
    assert_eq!(refused(Rights::LOCAL_WRITE | Rights::REMOTE_WRITE, add), Status::RemoteAccess);
}

#[test]
fn bounds_hold_to_the_byte_and_at_the_end_of_all_addresses() {
    let to = |at: u64, len: u64| {
        move |a: &End<'_>, b: &End<'_>| {
            (a.source(0, len), Operation::Write { to: b.at(at), key: b.key, immediate: None })
        }
    };
    for (at, len) in [(0xff_fff9, 8), (u64::MAX - 0x300_0000, 8), (u64::MAX, 1), (0x100_0000, 1)] {
        let wrapped = move |a: &End<'_>, b: &End<'_>| {
            let to = RegionAddr::new(b.base.wrapping_add(at));
            (a.source(0, len), Operation::Write { to, key: b.key, immediate: None })
        };
        assert_eq!(refused(Rights::ALL, wrapped), Status::RemoteAccess, "{at:#x}");
    }
    let local = |a: &End<'_>, _: &End<'_>| (a.source(0xff_ffff, 2), Operation::Send { immediate: None });
    assert_eq!(refused(Rights::ALL, local), Status::LocalProtection);
    assert_eq!(refused(Rights::ALL, to(0, 1 << 40)), Status::LocalLength);
}

#[test]
fn a_region_of_another_domain_is_as_good_as_none() {
    let bench = Bench::new();
    let sides = bench.sides();
    let [mut a, b] = connected(&bench, &sides, Rights::ALL);
    let other = b.driver.allocate_domain().unwrap();
    let key = region(&b.driver, other, Rights::ALL, b.base, 0x1000).unwrap();
    a.post(1, a.source(0, 8), Operation::Write { to: b.at(0), key, immediate: None });
    assert_eq!(a.pair.wait().unwrap().status, Status::RemoteAccess);
    assert_eq!(b.driver.free_domain(other), Err(Error::Refused(Refused::Busy)));
    b.driver.deregister(key).unwrap();
    b.driver.free_domain(other).unwrap();
    assert_eq!(b.driver.free_domain(b.domain), Err(Error::Refused(Refused::Busy)));
}

#[test]
fn the_key_of_a_region_that_is_gone_does_not_name_its_successor() {
    let bench = Bench::new();
    let sides = bench.sides();
    let [mut a, b] = connected(&bench, &sides, Rights::ALL);
    b.driver.deregister(b.key).unwrap();
    let successor = region(&b.driver, b.domain, Rights::ALL, b.base, 0x100_0000).unwrap();
    assert!(successor != b.key && successor.as_u32() >> 8 == b.key.as_u32() >> 8);
    assert_eq!(b.driver.deregister(b.key), Err(Error::Refused(Refused::Invalid)));
    a.post(1, a.source(0, 8), Operation::Write { to: b.at(0), key: b.key, immediate: None });
    assert_eq!(a.pair.wait().unwrap().status, Status::RemoteAccess);
}

#[test]
fn a_message_that_is_too_long_for_the_receive_fails_on_both_sides() {
    let bench = Bench::new();
    let sides = bench.sides();
    let [mut a, mut b] = connected(&bench, &sides, Rights::ALL);
    b.pair.post_receive(1, b.source(0, 0x1000)).unwrap();
    b.pair.post_receive(2, b.source(0, 0x1000)).unwrap();
    a.post(9, a.source(0, 0x1001), Operation::Send { immediate: None });
    assert_eq!(a.pair.wait().unwrap().status, Status::RemoteInvalid);
    let received = [b.pair.wait().unwrap(), b.pair.wait().unwrap()];
    let received = received.map(|completed| (completed.id, completed.status));
    assert_eq!(received, [(1, Status::LocalLength), (2, Status::Flushed)]);
}

#[test]
fn a_region_over_addresses_that_nothing_answers_at_fails_with_the_reason() {
    let bench = Bench::new();
    let sides = bench.sides();
    let [mut a, b] = connected(&bench, &sides, Rights::ALL);
    let nowhere = region(&a.driver, a.domain, Rights::ALL, 1 << 40, 0x1000).unwrap();
    let local = Source { at: RegionAddr::new(1 << 40), key: nowhere, len: Bytes::new(8) };
    a.post(1, local, Operation::Write { to: b.at(0), key: b.key, immediate: None });
    let failed = a.pair.wait().unwrap();
    assert_eq!(failed.status, Status::General);
    assert_eq!(failed.failure, Some(crate::wire::Failure::UnsupportedRequest));
}

#[test]
fn a_peer_that_was_reset_does_not_answer() {
    let bench = Bench::new();
    let sides = bench.sides();
    let [mut a, b] = connected(&bench, &sides, Rights::ALL);
    a.post(1, a.source(0, 8), Operation::Send { immediate: None });
    assert_eq!(a.pair.wait(), Err(Error::Stalled));
    bench.nics[1].with(|nic, _| nic.reset());
    assert_eq!(a.pair.wait().unwrap().status, Status::RetryExceeded);
    assert_eq!(b.driver.free_domain(b.domain), Err(Error::Refused(Refused::Invalid)));
}

#[test]
fn a_queue_pair_that_is_destroyed_leaves_nobody_waiting() {
    let bench = Bench::new();
    let sides = bench.sides();
    let [mut a, b] = connected(&bench, &sides, Rights::ALL);
    a.post(1, a.source(0, 8), Operation::Send { immediate: None });
    assert_eq!(a.pair.wait(), Err(Error::Stalled));
    b.driver.destroy_pair(b.pair).unwrap();
    assert_eq!(a.pair.wait().unwrap().status, Status::RetryExceeded);
}

#[test]
fn a_peer_at_no_port_does_not_answer() {
    let bench = Bench::new();
    let sides = bench.sides();
    let mut a = End::new(&bench, &sides[0], Rights::ALL);
    a.driver.connect(&a.pair, 77, PairNumber::new(0x1_0000)).unwrap();
    a.post(1, a.source(0, 8), Operation::Send { immediate: None });
    assert_eq!(a.pair.wait().unwrap().status, Status::RetryExceeded);
}

#[test]
fn a_port_is_taken_until_its_adapter_is_gone() {
    let network = Network::new();
    let nic = |port| Nic::new(&network, port, Arc::new(Striped::new(Bytes::new(0x1000))), 1);
    let first = nic(1).unwrap();
    assert_eq!(nic(1).err(), Some(PortTaken { port: 1 }));
    drop(first);
    assert!(nic(1).is_ok());
}
