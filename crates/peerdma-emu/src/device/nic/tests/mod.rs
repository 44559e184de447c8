mod any;
mod lent;
mod on_demand;
mod refused;
mod registering;

use super::*;
use crate::device::{FlatDevice, Mmio, Shared};
use crate::memory::{Memory, Striped};
use peerdma::addr::{BusAddr, Bytes, Granule, Iova};
use peerdma::dma::DeviceAddress;
use peerdma::dma::consumer::rdma::RegionAddr;
use std::sync::Arc;

const RAM: Bytes = Bytes::new(64 << 20);

/// Two adapters on one network and over one memory.
struct Bench {
    ram: Arc<dyn Memory>,
    nics: [FlatDevice<Nic>; 2],
}

/// One adapter's registers; time passes for both.
struct Side<'b> {
    bench: &'b Bench,
    which: usize,
}

impl Mmio for Side<'_> {
    fn load(&self, bar: u8, offset: Bytes, len: u8) -> u64 {
        self.bench.nics[self.which].load(bar, offset, len)
    }

    fn store(&self, bar: u8, offset: Bytes, value: u64, len: u8) {
        self.bench.nics[self.which].store(bar, offset, value, len);
    }

    fn pause(&self) -> bool {
        let moved = self.bench.nics.each_ref().map(|nic| nic.pause());
        moved[0] || moved[1]
    }
}

impl Bench {
    fn new() -> Self {
        let ram: Arc<dyn Memory> = Arc::new(Striped::new(RAM));
        let network = Network::new();
        let nic = |port| {
            let staging = Arc::new(Striped::new(Bytes::new(4 << 20)));
            FlatDevice::new(Nic::new(&network, port, staging, 8).unwrap(), ram.clone())
        };
        Self { nics: [nic(1), nic(2)], ram }
    }

    fn sides(&self) -> [Side<'_>; 2] {
        [0, 1].map(|which| Side { bench: self, which })
    }

    fn shared(&self, at: u64, len: u64) -> Shared {
        Shared::new(self.ram.clone(), Bytes::new(at), Bytes::new(len), BusAddr::new(at)).unwrap()
    }

    fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.ram.read(Bytes::new(at), &mut bytes).unwrap();
        bytes
    }

    fn fill(&self, at: u64, len: usize, seed: u8) -> Vec<u8> {
        let bytes: Vec<u8> = (0..len).map(|at| seed.wrapping_add((at * 7 + at / 251) as u8)).collect();
        self.ram.write(Bytes::new(at), &bytes).unwrap();
        bytes
    }
}

/// An adapter with a queue pair, and a region of 16 MiB whose addresses are those of memory.
struct End<'b> {
    /// Lets both adapters go on.
    time: &'b Side<'b>,
    driver: Driver<'b>,
    domain: Domain,
    pair: QueuePair<'b>,
    base: u64,
    key: Key,
}

impl<'b> End<'b> {
    /// Everything of the adapter `which` is in a half of memory.
    fn new(bench: &'b Bench, side: &'b Side<'b>, rights: Rights) -> Self {
        let base = side.which as u64 * 0x200_0000;
        let driver = Driver::new(side, bench.shared(base, 0x10_0000));
        let domain = driver.allocate_domain().unwrap();
        let pair = driver.create_pair(domain, Queues::new(bench.shared(base + 0x10_0000, 0x2000))).unwrap();
        let key = region(&driver, domain, rights, base + 0x100_0000, 0x100_0000).unwrap();
        Self { time: side, driver, domain, pair, base: base + 0x100_0000, key }
    }

    fn at(&self, at: u64) -> RegionAddr {
        RegionAddr::new(self.base + at)
    }

    fn source(&self, at: u64, len: u64) -> Source {
        Source { at: self.at(at), key: self.key, len: Bytes::new(len) }
    }

    fn post(&mut self, id: u64, local: Source, operation: Operation) {
        self.pair.post(&WorkRequest { id, local, operation, quiet: false }).unwrap();
    }
}

fn region(driver: &Driver<'_>, domain: Domain, rights: Rights, at: u64, len: u64) -> Result<Key, Error> {
    let page = Granule::new(Bytes::new(0x1000)).unwrap();
    let pages = (at >> 12..(at + len).div_ceil(0x1000)).map(|page| DeviceAddress::Iova(Iova::new(page << 12)));
    driver.register_pages(domain, rights, (RegionAddr::new(at), Bytes::new(len)), page, pages)
}

fn connected<'b>(bench: &'b Bench, sides: &'b [Side<'b>; 2], rights: Rights) -> [End<'b>; 2] {
    let ends = [End::new(bench, &sides[0], rights), End::new(bench, &sides[1], rights)];
    ends[0].driver.connect(&ends[0].pair, 2, ends[1].pair.number()).unwrap();
    ends[1].driver.connect(&ends[1].pair, 1, ends[0].pair.number()).unwrap();
    ends
}

fn done(id: u64, len: u64) -> Completed {
    let len = Bytes::new(len);
    Completed { id, status: Status::Success, receive: false, len, immediate: None, failure: None }
}

#[test]
fn a_write_arrives_in_the_memory_of_the_other_side() {
    let bench = Bench::new();
    let sides = bench.sides();
    let [mut a, b] = connected(&bench, &sides, Rights::ALL);
    let len = 10 * 1024 * 1024 + 77;
    let data = bench.fill(a.base + 3, len, 5);
    a.post(9, a.source(3, len as u64), Operation::Write { to: b.at(0x1_0001), key: b.key, immediate: None });
    assert_eq!(a.pair.wait(), Ok(done(9, len as u64)));
    assert!(bench.bytes(b.base + 0x1_0001, len) == data);
}

#[test]
fn a_read_brings_the_memory_of_the_other_side() {
    let bench = Bench::new();
    let sides = bench.sides();
    let [mut a, b] = connected(&bench, &sides, Rights::ALL);
    let len = 5 * 1024 * 1024 + 1;
    let data = bench.fill(b.base + 0xfff, len, 5);
    a.post(9, a.source(1, len as u64), Operation::Read { from: b.at(0xfff), key: b.key });
    assert_eq!(a.pair.wait(), Ok(done(9, len as u64)));
    assert!(bench.bytes(a.base + 1, len) == data);
}

#[test]
fn a_send_comes_into_the_next_receive_with_its_immediate() {
    let bench = Bench::new();
    let sides = bench.sides();
    let [mut a, mut b] = connected(&bench, &sides, Rights::LOCAL_WRITE);
    let data = bench.fill(a.base, 0x3000, 5);
    b.pair.post_receive(1, b.source(0x8000, 0x4000)).unwrap();
    b.pair.post_receive(2, b.source(0x1_8000, 0x4000)).unwrap();
    a.post(9, a.source(0, 0x3000), Operation::Send { immediate: None });
    a.post(10, a.source(0, 0), Operation::Send { immediate: Some(77) });
    assert_eq!((a.pair.wait(), a.pair.wait()), (Ok(done(9, 0x3000)), Ok(done(10, 0))));
    let first = b.pair.wait().unwrap();
    assert_eq!((first.id, first.receive, first.len, first.immediate), (1, true, Bytes::new(0x3000), None));
    let second = b.pair.wait().unwrap();
    assert_eq!((second.id, second.len, second.immediate), (2, Bytes::ZERO, Some(77)));
    assert!(bench.bytes(b.base + 0x8000, 0x3000) == data);
}

#[test]
fn a_send_waits_for_a_receive_that_is_posted_later() {
    let bench = Bench::new();
    let sides = bench.sides();
    let [mut a, mut b] = connected(&bench, &sides, Rights::LOCAL_WRITE);
    let len = 6 << 20;
    let data = bench.fill(a.base, len, 5);
    a.post(9, a.source(0, len as u64), Operation::Send { immediate: None });
    assert_eq!(a.pair.wait(), Err(Error::Stalled));
    b.pair.post_receive(1, b.source(0x8000, len as u64)).unwrap();
    assert_eq!(a.pair.wait(), Ok(done(9, len as u64)));
    assert_eq!(b.pair.wait().map(|completed| completed.id), Ok(1));
    assert!(bench.bytes(b.base + 0x8000, len) == data);
}

#[test]
fn a_write_with_immediate_tells_the_other_side() {
    let bench = Bench::new();
    let sides = bench.sides();
    let [mut a, mut b] = connected(&bench, &sides, Rights::ALL);
    let data = bench.fill(a.base, 0x1000, 5);
    b.pair.post_receive(1, b.source(0, 0)).unwrap();
    a.post(9, a.source(0, 0x1000), Operation::Write { to: b.at(0x2000), key: b.key, immediate: Some(5) });
    let told = b.pair.wait().unwrap();
    assert_eq!((told.id, told.len, told.immediate), (1, Bytes::new(0x1000), Some(5)));
    assert!(bench.bytes(b.base + 0x2000, 0x1000) == data);
}

#[test]
fn atomics_change_the_memory_of_the_other_side_and_bring_what_stood_there() {
    let bench = Bench::new();
    let sides = bench.sides();
    let [mut a, b] = connected(&bench, &sides, Rights::ALL);
    bench.ram.write(Bytes::new(b.base + 8), &40_u64.to_le_bytes()).unwrap();
    a.post(1, a.source(0, 8), Operation::FetchAdd { at: b.at(8), key: b.key, value: 2 });
    a.post(2, a.source(8, 8), Operation::CompareSwap { at: b.at(8), key: b.key, expected: 42, new: 7 });
    a.post(3, a.source(16, 8), Operation::CompareSwap { at: b.at(8), key: b.key, expected: 42, new: 8 });
    for id in 1..=3 {
        assert_eq!(a.pair.wait(), Ok(done(id, 8)));
    }
    let number = |at| u64::from_le_bytes(bench.bytes(at, 8).try_into().unwrap());
    assert_eq!([number(a.base), number(a.base + 8), number(a.base + 16), number(b.base + 8)], [40, 42, 7, 7]);
}

#[test]
fn somebody_elses_write_to_the_doorbell_sends_what_was_prepared() {
    let bench = Bench::new();
    let sides = bench.sides();
    let [mut a, b] = connected(&bench, &sides, Rights::ALL);
    let data = bench.fill(a.base, 64, 5);
    let operation = Operation::Write { to: b.at(0), key: b.key, immediate: None };
    a.pair.prepare(&WorkRequest { id: 1, local: a.source(0, 64), operation, quiet: false }).unwrap();
    assert_eq!(a.pair.wait(), Err(Error::Stalled));
    bench.nics[0].store(0, a.pair.doorbell(), a.pair.tail(), 4);
    assert_eq!(a.pair.wait(), Ok(done(1, 64)));
    assert_eq!(bench.bytes(b.base, 64), data);
}

#[test]
fn silent_sends_complete_with_the_next_one_that_is_not() {
    let bench = Bench::new();
    let sides = bench.sides();
    let [mut a, b] = connected(&bench, &sides, Rights::ALL);
    for round in 0..20 {
        for id in 0..8 {
            let operation = Operation::Write { to: b.at(0), key: b.key, immediate: None };
            a.pair.post(&WorkRequest { id, local: a.source(0, 8), operation, quiet: id != 7 }).unwrap();
        }
        assert_eq!(a.pair.wait(), Ok(done(7, 8)), "{round}");
    }
}

#[test]
fn both_sides_send_at_once_and_nothing_is_stuck() {
    let bench = Bench::new();
    let sides = bench.sides();
    let [mut a, mut b] = connected(&bench, &sides, Rights::ALL);
    let (len, half) = (7 << 20, 0x80_0000);
    let (there, back) = (bench.fill(a.base, len, 1), bench.fill(b.base, len, 9));
    a.post(1, a.source(0, len as u64), Operation::Write { to: b.at(half), key: b.key, immediate: None });
    b.post(1, b.source(0, len as u64), Operation::Write { to: a.at(half), key: a.key, immediate: None });
    assert_eq!((a.pair.wait(), b.pair.wait()), (Ok(done(1, len as u64)), Ok(done(1, len as u64))));
    assert!(bench.bytes(b.base + half, len) == there && bench.bytes(a.base + half, len) == back);
}
