//! Bytes from one place of a machine to another, with the addresses that a mapping gave.

use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::{BusAddr, Bytes, PhysAddr};
use peerdma::chunk::Chunk;
use peerdma::dma::{Owner, Peers};
use peerdma_emu::device::gpu;
use peerdma_emu::host::{Kernel, wire_address};
use peerdma_emu::machine::{Builder, Delivery};
use peerdma_emu::platform::Platform;
use std::sync::Arc;

#[test]
fn every_built_in_platform_runs() {
    for (name, _) in Platform::built_in_names() {
        let platform = Platform::built_in(name).unwrap();
        let machine = Arc::new(Builder::new(&platform).build().unwrap());
        let kernel = Kernel::boot(machine.clone(), &platform);
        assert_eq!(kernel.topology().functions().count(), platform.topology().functions().count());
        assert!(machine.settle(100_000));
    }
}

/// A GPU copies its memory to a peer's BAR at the address that the mapping engine gives.
fn gpu_to_peer(platform: &Platform, delivery: Delivery, from: &str, to: (&str, u8)) -> Vec<u8> {
    let machine = Arc::new(Builder::new(platform).delivery(delivery).build().unwrap());
    let kernel = Kernel::boot(machine.clone(), platform);
    let seat = kernel.seat(machine.named(from).unwrap()).unwrap();
    let target = machine.named(to.0).unwrap();
    let owners = kernel.owners();
    let peers = Peers::of(kernel.topology());
    let context = seat.context(&owners, &peers).unwrap();
    let owner = Owner::Bar { function: kernel.function(target).unwrap(), bar: to.1 };
    let len = Bytes::new(0x2_0000);
    let chunk = Chunk::new(owner, Bytes::new(0x1000), len, MemAttrs::MMIO).unwrap();
    let mapping = context.map_p2p(chunk, Prot::ReadWrite).unwrap();
    let at = wire_address(&mapping.spans().next().unwrap());

    let queue = kernel.allocate(Bytes::new(0x1_0000)).unwrap();
    let ram =
        Chunk::new(Owner::Ram, Bytes::new(queue.range().start().as_u64()), queue.range().len(), MemAttrs::empty());
    let queue_mapping = context.map_one(ram.unwrap(), Prot::ReadWrite).unwrap();
    let shared = queue.shared(wire_address(&queue_mapping.spans().next().unwrap()));
    let mut driver = gpu::Driver::open(&seat, 0, peerdma_emu::device::channel::Queue::new(shared)).unwrap();
    driver.fill(gpu::Place::Vram(Bytes::ZERO), len, 0x1122_3344_5566_7788).unwrap();
    driver.copy(gpu::Place::Vram(Bytes::ZERO), gpu::Place::Bus(at), len).unwrap();
    machine.settle(100_000);

    let info = kernel.topology().function(kernel.function(target).unwrap()).info();
    let bar = info.bars.iter().find(|bar| bar.index == to.1).unwrap().cpu.unwrap();
    let mut bytes = vec![0; len.as_u64() as usize];
    machine.cpu().load(PhysAddr::new(bar.start().as_u64() + 0x1000), &mut bytes);
    let _ = BusAddr::new(0);
    bytes
}

#[test]
fn a_gpu_fills_a_drives_memory_below_its_switch_and_across_sockets() {
    let platform = Platform::built_in("two-socket").unwrap();
    for delivery in [Delivery::Queued, Delivery::AtOnce] {
        for to in ["nvme0", "nvme2"] {
            let bytes = gpu_to_peer(&platform, delivery, "gpu0", (to, 2));
            assert!(bytes.chunks(8).all(|chunk| chunk == 0x1122_3344_5566_7788_u64.to_le_bytes()), "{to} {delivery:?}");
        }
    }
}
