//! Bytes that were lent and not taken yet, because only one of the adapters went on.

use super::super::super::Device;
use super::on_demand::{BASE, paged, pages};
use super::*;
use peerdma::access::Prot;

/// Lets the first adapter go on, and not the second.
fn alone(bench: &Bench) {
    while bench.nics[0].pause() {}
}

#[test]
fn parts_behind_one_that_found_no_page_are_sent_again_with_it() {
    let bench = Bench::new();
    let sides = bench.sides();
    let [mut a, mut b] = paged(&bench, &sides, 4);
    let len = 0x48_0000;
    let data = bench.fill(a.end.base, len, 5);
    let to = RegionAddr::new(BASE);
    a.post(1, a.end.source(0, len as u64), Operation::Write { to, key: b.key, immediate: None });
    // As many parts as there are slots are on their way.
    alone(&bench);
    assert_eq!(a.wait(&mut b), Ok(done(1, len as u64)));
    assert!(bench.bytes(b.place, len) == data);
}

#[test]
fn an_invalidation_is_done_without_the_other_adapter_and_what_was_lent_stays_as_it_was() {
    let bench = Bench::new();
    let sides = bench.sides();
    let [mut a, b] = paged(&bench, &sides, 4);
    let data = bench.fill(a.place, 0x2000, 5);
    a.post(1, a.source(0, 0x2000), Operation::Write { to: b.end.at(0), key: b.end.key, immediate: None });
    // Only one of them is let go on: until it has lent what it sends.
    let (one, place) = (Driver::new(&bench.nics[0], bench.shared(0x1f0_0000, 0x1000)), a.place);
    alone(&bench);
    assert_eq!(a.faults.serve(&one, |fault| pages(fault, place, Prot::Read)), Ok(1));
    alone(&bench);
    let taken = one.invalidate(a.key, RegionAddr::new(BASE + 0x1800), Bytes::new(1)).unwrap();
    one.await_invalidation(taken).unwrap();
    bench.fill(a.place, 0x2000, 99);
    assert_eq!(a.end.pair.wait(), Ok(done(1, 0x2000)));
    assert!(bench.bytes(b.end.base, 0x2000) == data);
}

#[test]
fn a_region_is_deregistered_once_nothing_of_it_is_read_any_more() {
    let bench = Bench::new();
    let sides = bench.sides();
    let [mut a, b] = connected(&bench, &sides, Rights::ALL);
    let data = bench.fill(a.base, 0x2000, 5);
    a.post(1, a.source(0, 0x2000), Operation::Write { to: b.at(0), key: b.key, immediate: None });
    alone(&bench);
    let one = Driver::new(&bench.nics[0], bench.shared(0x1f0_0000, 0x1000));
    one.deregister(a.key).unwrap();
    bench.fill(a.base, 0x2000, 99);
    assert_eq!(a.pair.wait(), Ok(done(1, 0x2000)));
    assert!(bench.bytes(b.base, 0x2000) == data);
}

#[test]
fn an_adapter_that_is_reset_lends_nothing_more() {
    let bench = Bench::new();
    let sides = bench.sides();
    let [mut a, mut b] = connected(&bench, &sides, Rights::ALL);
    b.pair.post_receive(4, b.source(0x1000, 0x1000)).unwrap();
    bench.fill(a.base, 0x1000, 5);
    a.post(1, a.source(0, 0x1000), Operation::Send { immediate: None });
    alone(&bench);
    bench.nics[0].with(|nic, _| nic.reset());
    assert_eq!(b.pair.wait(), Err(Error::Stalled));
    assert!(bench.bytes(b.base, 0x10_0000).iter().all(|byte| *byte == 0));
}
