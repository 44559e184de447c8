//! Two adapters of one machine, and memory of both sockets.

use crate::bench::{Queue, Ram, WAYS, bar_chunk, pattern, platform, ram, ram_chunk, run, servers, window};
use peerdma::access::Prot;
use peerdma::addr::Bytes;
use peerdma::chunk::Chunks;
use peerdma::dma::Peers;
use peerdma::dma::consumer::rdma::{PageSizes, Region, RegionAddr};
use peerdma_emu::device::nic::{
    Domain, Driver, Key, Operation, QueuePair, Queues, Rights, Source, Status, WorkRequest,
};
use peerdma_emu::host::{Kernel, Seat};
use peerdma_emu::platform::Platform;

/// An adapter with a domain, a queue pair and a buffer.
struct Side<'c, 'a, 's> {
    driver: Driver<'s>,
    domain: Domain,
    pair: QueuePair<'s>,
    buffer: Ram<'c, 'a>,
    key: Key,
    base: RegionAddr,
    _held: [Ram<'c, 'a>; 2],
}

const LEN: usize = 0x14_0000;

impl<'c, 'a, 's> Side<'c, 'a, 's> {
    fn new(kernel: &Kernel, seat: &'s Seat<'_>, queue: &'c Queue<'a>) -> Self {
        let lists = ram(kernel, queue, 0x2_0000);
        let rings = ram(kernel, queue, Queues::bytes(4, 4).as_u64());
        let buffer = ram(kernel, queue, LEN as u64);
        let driver = Driver::new(seat, lists.shared.clone());
        let domain = driver.allocate_domain().unwrap();
        let pair = driver.create_pair(domain, Queues::new(rings.shared.clone())).unwrap();
        let base = RegionAddr::new(0x7000_0000);
        let pages = (buffer.shared.device().as_u64()..).step_by(0x1000).take(LEN >> 12);
        let pages =
            pages.map(|at| peerdma::dma::DeviceAddress::Bus { address: peerdma::addr::BusAddr::new(at), bridge: None });
        let granule = peerdma::addr::Granule::PAGE_4K;
        let key = driver.register_pages(domain, Rights::ALL, (base, Bytes::new(LEN as u64)), granule, pages).unwrap();
        Self { driver, domain, pair, buffer, key, base, _held: [lists, rings] }
    }

    fn source(&self, at: u64, len: u64) -> Source {
        Source { at: RegionAddr::new(self.base.as_u64() + at), key: self.key, len: Bytes::new(len) }
    }
}

fn connect(one: &Side<'_, '_, '_>, other: &Side<'_, '_, '_>) {
    one.driver.connect(&one.pair, other.driver.port(), other.pair.number()).unwrap();
    other.driver.connect(&other.pair, one.driver.port(), one.pair.number()).unwrap();
}

fn request(id: u64, local: Source, operation: Operation) -> WorkRequest {
    WorkRequest { id, local, operation, quiet: false }
}

#[test]
fn adapters_send_write_read_and_change_across_sockets() {
    for (kind, platform) in servers() {
        for way in WAYS {
            run(
                &platform,
                way,
                |builder| builder,
                |kernel| {
                    let node = |name| kernel.machine().named(name).unwrap();
                    let (first, second) = (kernel.seat(node("nic0")).unwrap(), kernel.seat(node("nic1")).unwrap());
                    let (owners, peers) = (kernel.owners(), Peers::of(kernel.topology()));
                    let (one, two) =
                        (first.context(&owners, &peers).unwrap(), second.context(&owners, &peers).unwrap());
                    let mut here = Side::new(kernel, &first, &one);
                    let mut there = Side::new(kernel, &second, &two);
                    connect(&here, &there);
                    let what = format!("{kind} {way:?}");

                    let bytes = pattern(1, LEN);
                    here.buffer.fill(&bytes);
                    there.pair.post_receive(70, there.source(0, LEN as u64)).unwrap();
                    let all = here.source(0, LEN as u64);
                    here.pair.post(&request(1, all, Operation::Send { immediate: Some(9) })).unwrap();
                    let received = there.pair.wait().unwrap();
                    assert_eq!(
                        (received.id, received.status, received.immediate),
                        (70, Status::Success, Some(9)),
                        "{what}"
                    );
                    // The completion of a receive says that the data is there.
                    assert!(there.buffer.bytes(LEN) == bytes, "{what}");
                    assert_eq!(here.pair.wait().unwrap().status, Status::Success, "{what}");

                    let bytes = pattern(2, 0x12_3456);
                    there.buffer.fill(&bytes);
                    let (from, key) = (there.base, there.key);
                    let local = here.source(0x1_0000, 0x12_3456);
                    here.pair.post(&request(2, local, Operation::Read { from, key })).unwrap();
                    assert_eq!(here.pair.wait().unwrap().status, Status::Success, "{what}");
                    assert!(here.buffer.bytes(LEN)[0x1_0000..][..0x12_3456] == bytes[..], "{what}");

                    let to = RegionAddr::new(there.base.as_u64() + 0x333);
                    let write = Operation::Write { to, key, immediate: None };
                    here.pair.post(&request(3, here.source(0x1_0000, 0x10_0001), write)).unwrap();
                    assert_eq!(here.pair.wait().unwrap().status, Status::Success, "{what}");
                    // An acknowledgement says that the other adapter has sent it on, no more.
                    kernel.machine().settle(1_000_000);
                    assert!(there.buffer.bytes(LEN)[0x333..][..0x10_0001] == bytes[..0x10_0001], "{what}");

                    there.buffer.fill(&41_u64.to_le_bytes());
                    let at = there.base;
                    here.pair.post(&request(4, here.source(8, 8), Operation::FetchAdd { at, key, value: 1 })).unwrap();
                    let done = here.pair.wait().unwrap();
                    assert_eq!((done.status, done.failure), (Status::Success, None), "{what}");
                    let swap = Operation::CompareSwap { at, key, expected: 42, new: 7 };
                    here.pair.post(&request(5, here.source(16, 8), swap)).unwrap();
                    assert_eq!(here.pair.wait().unwrap().status, Status::Success, "{what}");
                    let found = here.buffer.bytes(24);
                    assert_eq!((found[8], found[16], there.buffer.bytes(1)[0]), (41, 42, 7), "{what}");

                    // A key that is gone, and what follows it.
                    there.driver.deregister(there.key).unwrap();
                    here.pair.post(&request(6, here.source(0, 8), write)).unwrap();
                    here.pair.post(&request(7, here.source(0, 8), write)).unwrap();
                    let ends = [here.pair.wait().unwrap(), here.pair.wait().unwrap()].map(|end| (end.id, end.status));
                    assert_eq!(ends, [(6, Status::RemoteAccess), (7, Status::Flushed)], "{what}");
                    assert!(there.driver.is_in_error(&there.pair).unwrap());
                },
            );
        }
    }
}

#[test]
fn one_region_lies_in_ram_and_in_a_peer_on_both_sides_of_a_page() {
    let platforms = servers();
    for (kind, platform) in platforms {
        for way in WAYS {
            run(
                &platform,
                way,
                |builder| builder,
                |kernel| {
                    let node = |name| kernel.machine().named(name).unwrap();
                    let (first, second) = (kernel.seat(node("nic0")).unwrap(), kernel.seat(node("nic1")).unwrap());
                    let (owners, peers) = (kernel.owners(), Peers::of(kernel.topology()));
                    let (one, two) =
                        (first.context(&owners, &peers).unwrap(), second.context(&owners, &peers).unwrap());
                    let mut here = Side::new(kernel, &first, &one);
                    let there = Side::new(kernel, &second, &two);
                    connect(&here, &there);

                    let low = kernel.allocate(Bytes::new(0x3000)).unwrap();
                    let high = kernel.allocate(Bytes::new(0x5000)).unwrap();
                    let parts = [ram_chunk(&low), bar_chunk(kernel, "gpu1", 2, 0x8000, 0x4000), ram_chunk(&high)];
                    let list = Chunks::collect_from(parts).unwrap();
                    let mapping = two.map(list.view(), Prot::ReadWrite).unwrap();
                    let base = RegionAddr::new(0x1_0000_0000);
                    let region = Region::new(mapping.spans(), base, PageSizes::ALL, Prot::ReadWrite).unwrap();
                    let key = there.driver.register(there.domain, Rights::ALL, &region).unwrap();

                    let bytes = pattern(4, 0xc000);
                    here.buffer.fill(&bytes);
                    let write = Operation::Write { to: base, key, immediate: None };
                    here.pair.post(&request(1, here.source(0, 0xc000), write)).unwrap();
                    let done = here.pair.wait().unwrap();
                    assert_eq!((done.status, done.failure), (Status::Success, None), "{kind} {way:?}");
                    kernel.machine().settle(1_000_000);
                    let mut found = vec![0; 0xc000];
                    let (memory, at) = low.memory();
                    memory.read(at, &mut found[..0x3000]).unwrap();
                    found[0x3000..0x7000].copy_from_slice(&window(kernel, "gpu1", 2).bytes(0x8000, 0x4000));
                    let (memory, at) = high.memory();
                    memory.read(at, &mut found[0x7000..]).unwrap();
                    assert!(found == bytes, "{kind} {way:?}");

                    let local = here.source(0x10_0000, 0xc000);
                    here.pair.post(&request(2, local, Operation::Read { from: base, key })).unwrap();
                    assert_eq!(here.pair.wait().unwrap().status, Status::Success, "{kind} {way:?}");
                    assert!(here.buffer.bytes(LEN)[0x10_0000..][..0xc000] == bytes[..], "{kind} {way:?}");
                },
            );
        }
    }
}

/// The adapters reach each other by the network where the fabric does not lead from one to the other.
#[test]
fn adapters_of_an_arm_machine_send_to_each_other() {
    let platform =
        platform("arm-slots", &[("model = \"nvme\"", "model = \"nic\""), ("size = \"16KiB\"", "size = \"8MiB\"")]);
    for way in WAYS {
        run(
            &platform,
            way,
            |builder| builder,
            |kernel| {
                let node = |name| kernel.machine().named(name).unwrap();
                let (first, second) = (kernel.seat(node("nic0")).unwrap(), kernel.seat(node("nvme0")).unwrap());
                let (owners, peers) = (kernel.owners(), Peers::of(kernel.topology()));
                let (one, two) = (first.context(&owners, &peers).unwrap(), second.context(&owners, &peers).unwrap());
                let mut here = Side::new(kernel, &first, &one);
                let mut there = Side::new(kernel, &second, &two);
                connect(&here, &there);
                let bytes = pattern(1, LEN);
                here.buffer.fill(&bytes);
                there.pair.post_receive(1, there.source(0, LEN as u64)).unwrap();
                here.pair.post(&request(2, here.source(0, LEN as u64), Operation::Send { immediate: None })).unwrap();
                assert_eq!(there.pair.wait().unwrap().status, Status::Success, "{way:?}");
                assert!(there.buffer.bytes(LEN) == bytes, "{way:?}");
            },
        );
    }
}

#[test]
fn the_first_machine_has_two_adapters() {
    let platform = Platform::built_in("two-socket").unwrap();
    run(
        &platform,
        crate::bench::Way::AtOnce,
        |builder| builder,
        |kernel| {
            let port = |name| {
                let seat = kernel.seat(kernel.machine().named(name).unwrap()).unwrap();
                let lists = kernel.allocate(Bytes::new(8)).unwrap().shared(peerdma::addr::BusAddr::new(0));
                Driver::new(&seat, lists).port()
            };
            assert_ne!(port("nic0"), port("nic1"));
        },
    );
}
