//! Two adapters of one machine, and memory of both sockets.

use crate::bench::{
    Adapter, WAYS, Way, bar_chunk, everywhere, pattern, platform, ram_chunk, run, seated, servers, window,
};
use peerdma::access::Prot;
use peerdma::addr::{BusAddr, Bytes};
use peerdma::chunk::Chunks;
use peerdma::dma::consumer::rdma::{PageSizes, Region, RegionAddr};
use peerdma_emu::device::nic::{Driver, Network, Nic, Operation, Rights, Status};
use peerdma_emu::host::Kernel;
use peerdma_emu::machine::Builder;
use peerdma_emu::memory::{Memory, Striped};
use peerdma_emu::platform::Platform;
use std::sync::Arc;

const LEN: usize = Adapter::LEN;

#[test]
fn adapters_send_write_read_and_change_across_sockets() {
    everywhere(&servers(), |kernel, what| {
        seated(kernel, ["nic0", "nic1"], |seats, queues| {
            let [mut here, mut there] = Adapter::both(kernel, seats, queues);
            let bytes = pattern(1, LEN);
            here.buffer.fill(&bytes);
            there.pair.post_receive(70, there.source(0, LEN as u64)).unwrap();
            here.post(1, here.source(0, LEN as u64), Operation::Send { immediate: Some(9) });
            let received = there.pair.wait().unwrap();
            assert_eq!((received.id, received.status, received.immediate), (70, Status::Success, Some(9)), "{what}");
            // The completion of a receive says that the data is there.
            assert!(there.buffer.bytes(LEN) == bytes, "{what}");
            assert_eq!(here.pair.wait().unwrap().status, Status::Success, "{what}");

            let bytes = pattern(2, 0x12_3456);
            there.buffer.fill(&bytes);
            let (from, key) = (there.base, there.key);
            let read = here.run(2, here.source(0x1_0000, 0x12_3456), Operation::Read { from, key });
            assert_eq!(read, Status::Success, "{what}");
            assert!(here.buffer.bytes(LEN)[0x1_0000..][..0x12_3456] == bytes[..], "{what}");

            let to = RegionAddr::new(there.base.as_u64() + 0x333);
            let write = Operation::Write { to, key, immediate: None };
            assert_eq!(here.run(3, here.source(0x1_0000, 0x10_0001), write), Status::Success, "{what}");
            // An acknowledgement says that the other adapter has sent it on, no more.
            kernel.machine().settle(1_000_000);
            assert!(there.buffer.bytes(LEN)[0x333..][..0x10_0001] == bytes[..0x10_0001], "{what}");

            there.buffer.fill(&41_u64.to_le_bytes());
            let at = there.base;
            let add = here.run(4, here.source(8, 8), Operation::FetchAdd { at, key, value: 1 });
            assert_eq!(add, Status::Success, "{what}");
            let swap = Operation::CompareSwap { at, key, expected: 42, new: 7 };
            assert_eq!(here.run(5, here.source(16, 8), swap), Status::Success, "{what}");
            let found = here.buffer.bytes(24);
            assert_eq!((found[8], found[16], there.buffer.bytes(1)[0]), (41, 42, 7), "{what}");

            // A key that is gone, and what follows it.
            there.driver.deregister(there.key).unwrap();
            here.post(6, here.source(0, 8), write);
            here.post(7, here.source(0, 8), write);
            let ends = [here.pair.wait().unwrap(), here.pair.wait().unwrap()].map(|end| (end.id, end.status));
            assert_eq!(ends, [(6, Status::RemoteAccess), (7, Status::Flushed)], "{what}");
            assert!(there.driver.is_in_error(&there.pair).unwrap());
        });
    });
}

#[test]
fn one_region_lies_in_ram_and_in_a_peer_on_both_sides_of_a_page() {
    everywhere(&servers(), |kernel, what| {
        seated(kernel, ["nic0", "nic1"], |seats, queues| {
            let [mut here, there] = Adapter::both(kernel, seats, queues);
            let low = kernel.allocate(Bytes::new(0x3000)).unwrap();
            let high = kernel.allocate(Bytes::new(0x5000)).unwrap();
            let parts = [ram_chunk(&low), bar_chunk(kernel, "gpu1", 2, 0x8000, 0x4000), ram_chunk(&high)];
            let list = Chunks::collect_from(parts).unwrap();
            let mapping = queues[1].map(list.view(), Prot::ReadWrite).unwrap();
            let base = RegionAddr::new(0x1_0000_0000);
            let region = Region::new(mapping.spans(), base, PageSizes::ALL, Prot::ReadWrite).unwrap();
            let key = there.driver.register(there.domain, Rights::ALL, &region).unwrap();

            let bytes = pattern(4, 0xc000);
            here.buffer.fill(&bytes);
            let write = Operation::Write { to: base, key, immediate: None };
            assert_eq!(here.run(1, here.source(0, 0xc000), write), Status::Success, "{what}");
            kernel.machine().settle(1_000_000);
            let mut found = vec![0; 0xc000];
            let (memory, at) = low.memory();
            memory.read(at, &mut found[..0x3000]).unwrap();
            found[0x3000..0x7000].copy_from_slice(&window(kernel, "gpu1", 2).bytes(0x8000, 0x4000));
            let (memory, at) = high.memory();
            memory.read(at, &mut found[0x7000..]).unwrap();
            assert!(found == bytes, "{what}");

            let read = here.run(2, here.source(0x10_0000, 0xc000), Operation::Read { from: base, key });
            assert_eq!(read, Status::Success, "{what}");
            assert!(here.buffer.bytes(LEN)[0x10_0000..][..0xc000] == bytes[..], "{what}");
        });
    });
}

/// The adapters reach each other by the network where the fabric does not lead from one to the other.
#[test]
fn adapters_of_an_arm_machine_send_to_each_other() {
    let changes = [("model = \"nvme\"", "model = \"nic\""), ("size = \"16KiB\"", "size = \"8MiB\"")];
    everywhere(&[("smmu", platform("arm-slots", &changes))], |kernel, what| {
        seated(kernel, ["nic0", "nvme0"], |seats, queues| {
            let [mut here, mut there] = Adapter::both(kernel, seats, queues);
            let bytes = pattern(1, LEN);
            here.buffer.fill(&bytes);
            there.pair.post_receive(1, there.source(0, LEN as u64)).unwrap();
            here.post(2, here.source(0, LEN as u64), Operation::Send { immediate: None });
            assert_eq!(there.pair.wait().unwrap().status, Status::Success, "{what}");
            assert!(there.buffer.bytes(LEN) == bytes, "{what}");
        });
    });
}

/// Whether anything was ever written to a memory.
fn is_touched(memory: &Striped) -> bool {
    let mut bytes = vec![0; memory.len().as_u64() as usize];
    memory.read(Bytes::ZERO, &mut bytes).unwrap();
    bytes.iter().any(|byte| *byte != 0)
}

#[test]
fn bytes_between_adapters_of_one_machine_never_lie_in_staging_memory() {
    let platform = Platform::built_in("two-socket").unwrap();
    for way in WAYS {
        let network = Network::new();
        let staging = [1, 2].map(|_| Arc::new(Striped::new(Bytes::new(0x4_0000))));
        let nic = |port: u16| Nic::new(&network, port, staging[usize::from(port) - 1].clone(), 4).unwrap();
        let carry = |kernel: &Kernel| {
            seated(kernel, ["nic0", "nic1"], |seats, queues| {
                let [mut here, there] = Adapter::both(kernel, seats, queues);
                let bytes = pattern(1, LEN);
                here.buffer.fill(&bytes);
                let write = Operation::Write { to: there.base, key: there.key, immediate: None };
                assert_eq!(here.run(1, here.source(0, LEN as u64), write), Status::Success, "{way:?}");
                kernel.machine().settle(1_000_000);
                assert!(there.buffer.bytes(LEN) == bytes, "{way:?}");
                let read = Operation::Read { from: RegionAddr::new(there.base.as_u64() + 9), key: there.key };
                assert_eq!(here.run(2, here.source(0, 0x10_0000), read), Status::Success, "{way:?}");
                assert!(here.buffer.bytes(0x10_0000) == bytes[9..][..0x10_0000], "{way:?}");
            });
        };
        run(&platform, way, |builder| builder.device("nic0", Box::new(nic(1))).device("nic1", Box::new(nic(2))), carry);
        assert!(!is_touched(&staging[0]) && !is_touched(&staging[1]), "{way:?}");
    }
}

/// What one of them lends the other cannot read, so that it is staged.
#[test]
fn adapters_of_two_machines_send_to_each_other() {
    let platform = Platform::built_in("two-socket").unwrap();
    let network = Network::new();
    let staging = [1, 2].map(|_| Arc::new(Striped::new(Bytes::new(4 << 20))));
    let kernel = |port: u16| {
        let nic = Nic::new(&network, port, staging[usize::from(port) - 1].clone(), 4).unwrap();
        let machine = Builder::new(&platform).seed(u64::from(port)).device("nic0", Box::new(nic)).build().unwrap();
        Kernel::boot(Arc::new(machine), &platform)
    };
    let kernels = [kernel(1), kernel(2)];
    seated(&kernels[0], ["nic0"], |first, one| {
        seated(&kernels[1], ["nic0"], |second, two| {
            let mut here = Adapter::new(&kernels[0], &first[0], &one[0]);
            let there = Adapter::new(&kernels[1], &second[0], &two[0]);
            Adapter::connect(&here, &there);
            let bytes = pattern(1, LEN);
            here.buffer.fill(&bytes);
            let write = Operation::Write { to: there.base, key: there.key, immediate: None };
            here.post(1, here.source(0, LEN as u64), write);
            let other = || Ok(kernels[1].machine().pause());
            assert_eq!(here.pair.wait_beside(other).unwrap().status, Status::Success);
            kernels[1].machine().settle(1_000_000);
            assert!(there.buffer.bytes(LEN) == bytes);
            let read = Operation::Read { from: RegionAddr::new(there.base.as_u64() + 5), key: there.key };
            here.post(2, here.source(0, 0x10_0000), read);
            assert_eq!(here.pair.wait_beside(other).unwrap().status, Status::Success);
            assert!(here.buffer.bytes(0x10_0000) == bytes[5..][..0x10_0000]);
            assert!(is_touched(&staging[0]) && is_touched(&staging[1]));
        });
    });
}

#[test]
fn the_first_machine_has_two_adapters() {
    let platform = Platform::built_in("two-socket").unwrap();
    run(
        &platform,
        Way::AtOnce,
        |builder| builder,
        |kernel| {
            let port = |name| {
                let seat = kernel.seat(kernel.machine().named(name).unwrap()).unwrap();
                let lists = kernel.allocate(Bytes::new(8)).unwrap().shared(BusAddr::new(0));
                Driver::new(&seat, lists).port()
            };
            assert_ne!(port("nic0"), port("nic1"));
        },
    );
}
