//! What the wrong kind of address does, and where doorbells end.

use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::{AddrRange, BusAddr, Bytes, Iova, PhysAddr};
use peerdma::dma::{IoSpace, Source};
use peerdma_emu::device::{Bus, How};
use peerdma_emu::fabric::{Ending, NodeId};
use peerdma_emu::host::Kernel;
use peerdma_emu::machine::{Builder, Event, Happened, Machine};
use peerdma_emu::platform::Platform;
use std::sync::Arc;

fn boot(platform: &Platform) -> (Arc<Machine>, Kernel) {
    let machine = Arc::new(Builder::new(platform).build().unwrap());
    let kernel = Kernel::boot(machine.clone(), platform);
    assert!(machine.settle(1_000_000));
    (machine, kernel)
}

fn bar(machine: &Machine, node: NodeId, index: u8) -> BusAddr {
    machine.fabric().tree().config(node).bar(index).unwrap().start()
}

/// Bytes of a BAR, as the CPU sees them.
fn shown(machine: &Machine, kernel: &Kernel, node: NodeId, index: u8) -> [u8; 8] {
    let info = kernel.topology().function(kernel.function(node).unwrap()).info();
    let cpu = info.bars.iter().find(|bar| bar.index == index).unwrap().cpu.unwrap();
    let mut bytes = [0; 8];
    machine.cpu().load(cpu.start(), &mut bytes);
    bytes
}

/// Intel compute-runtime#942: all ACS bits clear, translation on, and a driver that hands out IOVAs.
#[test]
fn an_iova_with_the_number_of_a_peers_bar_goes_to_the_peer_and_the_iommu_never_sees_it() {
    let platform = Platform::built_in("two-socket").unwrap();
    let (machine, kernel) = boot(&platform);
    let (gpu, drive) = (machine.named("gpu0").unwrap(), machine.named("nvme0").unwrap());
    let seat = kernel.seat(gpu).unwrap();
    let buffer = kernel.allocate(Bytes::new(0x1000)).unwrap();
    let number = bar(&machine, drive, 2).as_u64();
    let iova = AddrRange::new(Iova::new(number), Bytes::new(0x1000)).unwrap();
    seat.handle().map(iova, &Source::Physical(buffer.range().start()), Prot::ReadWrite, MemAttrs::empty()).unwrap();
    machine.port(gpu).write(How::default(), BusAddr::new(number), b"for RAM!").unwrap();
    assert!(machine.settle(1000));
    let mut ram = [0; 8];
    machine.cpu().load(buffer.range().start(), &mut ram);
    assert_eq!((ram, shown(&machine, &kernel, drive, 2)), ([0; 8], *b"for RAM!"));
}

/// open-gpu-kernel-modules#1324: raw BAR addresses under VT-d, every peer write dropped.
#[test]
fn a_bus_address_that_comes_up_to_a_translating_iommu_is_a_fault() {
    let platform = Platform::built_in("two-socket").unwrap();
    let (machine, kernel) = boot(&platform);
    let (gpu, far) = (machine.named("gpu0").unwrap(), machine.named("nvme2").unwrap());
    let _seat = kernel.seat(gpu).unwrap();
    machine.port(gpu).write(How::default(), bar(&machine, far, 2), b"anything").unwrap();
    assert!(machine.settle(1000));
    assert_eq!(shown(&machine, &kernel, far, 2), [0; 8]);
    assert!(machine.counts().keys().any(|ending| matches!(ending, Ending::Fault(..))));
    let fault = machine.fabric().root().iommu().unwrap().take_fault().unwrap();
    assert_eq!(fault.address, bar(&machine, far, 2));
}

const OFFSETS: &str = r#"
schema = 1
[cpu]
vendor = "amd"
family = 0x19
[iommu]
kind = "none"
[[ram]]
base = 0x0
size = "1GiB"
[[ram]]
base = 0x9000_0000
size = "256MiB"
[[host_bridge]]
name = "hb"
first_device = "1022:14a4"
windows = [{ cpu = 0x50_9000_0000, bus = 0x9000_0000, size = "256MiB", prefetch = false }]
peer = "forwards"
[[port]]
name = "rp"
parent = "hb"
kind = "root"
bdf = "00:01.0"
acs = { cap = 0x5f, ctl = 0x00 }
[[port]]
name = "up"
parent = "rp"
kind = "upstream"
bdf = "01:00.0"
[[port]]
name = "d0"
parent = "up"
kind = "downstream"
bdf = "02:00.0"
acs = { cap = 0x5f, ctl = 0x00 }
[[port]]
name = "d1"
parent = "up"
kind = "downstream"
bdf = "02:01.0"
acs = { cap = 0x5f, ctl = 0x00 }
[[function]]
name = "a"
parent = "d0"
bdf = "03:00.0"
model = "dma"
bars = [{ n = 0, size = "4KiB" }]
[[function]]
name = "b"
parent = "d1"
bdf = "04:00.0"
model = "plain"
bars = [{ n = 0, size = "1MiB" }]
"#;

#[test]
fn where_windows_are_at_an_offset_the_buses_number_arrives_inside_a_switch_and_the_cpus_does_not() {
    let platform = Platform::parse(OFFSETS, "offsets").unwrap();
    let (machine, kernel) = boot(&platform);
    let (a, b) = (machine.named("a").unwrap(), machine.named("b").unwrap());
    let number = bar(&machine, b, 0);
    let cpu = BusAddr::new(number.as_u64() + 0x50_0000_0000);
    machine.log().keep(true);
    let sent = |to: BusAddr, bytes: &[u8; 8]| {
        machine.port(a).write(How::default(), to, bytes).unwrap();
        assert!(machine.settle(1000));
        let went = |event: &Event| matches!(event.what, Happened::Went { .. });
        machine.log().take().iter().filter(|event| went(event)).count()
    };
    let direct = sent(number, b"direct!!");
    assert_eq!(shown(&machine, &kernel, b, 0), *b"direct!!");
    // The switch does not know the CPU's number, which goes up, and here through the root complex back down.
    assert!(sent(cpu, b"by root!") > direct);
}

/// A window's bus addresses may be numbers of RAM; what was meant for RAM then ends in a BAR.
#[test]
fn memory_whose_number_a_window_has_below_the_host_bridge_loses_its_writes_to_a_peer() {
    let platform = Platform::parse(OFFSETS, "offsets").unwrap();
    let (machine, kernel) = boot(&platform);
    let (a, b) = (machine.named("a").unwrap(), machine.named("b").unwrap());
    let number = bar(&machine, b, 0);
    machine.port(a).write(How::default(), number, b"for RAM!").unwrap();
    assert!(machine.settle(1000));
    let mut ram = [0; 8];
    machine.cpu().load(PhysAddr::new(number.as_u64()), &mut ram);
    assert_eq!((ram, shown(&machine, &kernel, b, 0)), ([0; 8], *b"for RAM!"));
}

#[test]
fn a_peer_rings_a_doorbell_without_the_cpu_and_the_device_hears_it() {
    let platform = Platform::built_in("two-socket").unwrap();
    let (machine, _kernel) = boot(&platform);
    let (gpu, nic) = (machine.named("gpu0").unwrap(), machine.named("nic0").unwrap());
    let bell = BusAddr::new(bar(&machine, nic, 0).as_u64() + 0x1000);
    machine.log().keep(true);
    machine.port(gpu).write(How::default(), bell, &7_u32.to_le_bytes()).unwrap();
    let heard = (0..1000).find_map(|_| match machine.port(nic).next_write() {
        None => {
            machine.step();
            None
        }
        written => written,
    });
    let written = heard.unwrap();
    assert_eq!((written.offset, written.value, written.len), (Bytes::new(0x1000), 7, 4));
    assert!(machine.take_interrupts().is_empty());
}
