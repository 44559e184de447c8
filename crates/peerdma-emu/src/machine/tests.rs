//! Machines put together by hand: a root port, a switch with three ports, a device below each.

use super::*;
use crate::config::{AcsDescription, BarDescription, Buses, Description, Space};
use crate::device::{Bus, How, Layout, Progress, Registers};
use crate::fabric::{Above, Host, HostId, HostWindow, Node, Root, Tree};
use crate::memory::Striped;
use crate::platform::PeerForwarding;
use crate::wire::{Atomic, Failure, Operand};
use peerdma::pcie::express::PortType;
use peerdma::pcie::{DevFn, PciAddr};

mod drain;
mod faults;
mod hands;
mod interface;
mod pages;
mod refusals;
mod registers;
mod scale;
mod schedules;
mod services;

/// Memory behind BAR0, doorbells behind BAR2, and no engine to speak of.
struct Plain {
    memory: Arc<Striped>,
    registers: Arc<Registers>,
}

impl Device for Plain {
    fn layout(&self) -> Layout {
        Layout::new().memory(0, Bytes::ZERO, self.memory.clone()).registers(2, Bytes::ZERO, &self.registers)
    }

    fn step(&mut self, bus: &mut dyn Bus) -> Progress {
        while bus.next_write().is_some() {}
        Progress::Idle
    }

    fn reset(&mut self) {}
}

const BAR: u64 = 0x9000_0000;
const STEP: u64 = 0x0100_0000;

struct Bench {
    machine: Machine,
    ram: Arc<Striped>,
    memories: Vec<Arc<Striped>>,
    registers: Vec<Arc<Registers>>,
    /// Devices, and the ports above them.
    devices: Vec<NodeId>,
    ports: Vec<NodeId>,
    root: NodeId,
}

fn range(start: u64, len: u64) -> AddrRange<BusAddr> {
    AddrRange::new(BusAddr::new(start), Bytes::new(len)).unwrap()
}

fn bar(index: u8, address: u64, size: u64) -> BarDescription {
    let (address, size) = (BusAddr::new(address), Bytes::new(size));
    BarDescription { index, address, size, prefetchable: false, is_64_bit: false, resizable: Vec::new() }
}

fn bench(delivery: Delivery, seed: u64) -> Bench {
    bench_with(delivery, seed, None, |_| {})
}

/// The machine with an IOMMU, and with devices that are described otherwise.
fn bench_with(
    delivery: Delivery,
    seed: u64,
    iommu: Option<Arc<crate::iommu::Iommu>>,
    describe: impl Fn(&mut Description),
) -> Bench {
    let mut tree = Tree::new(1);
    let acs = || Some(AcsDescription { capability: 0x7f, ..AcsDescription::default() });
    let mut add = |bus: u8, device: u8, above: Above, description: Description| {
        let address = PciAddr::new(0, bus, DevFn::from_parts(device, 0).unwrap());
        let config = Arc::new(Space::new(&description));
        tree.add(Node { address, config, above, peers_inside: false, group: None }).unwrap()
    };
    let port = |kind, primary, secondary, subordinate, start, len| Description {
        buses: Some(Buses { primary, secondary, subordinate }),
        memory_window: Some(range(start, len)),
        acs: acs().filter(|_| kind != PortType::UpstreamPort),
        ..Description::express(kind)
    };
    let root = add(0, 1, Above::Root(HostId::new(0)), port(PortType::RootPort, 0, 1, 5, BAR, 4 * STEP));
    let upstream = add(1, 0, Above::Port(root), port(PortType::UpstreamPort, 1, 2, 5, BAR, 4 * STEP));
    let mut ports = Vec::new();
    let mut devices = Vec::new();
    for index in 0..3_u8 {
        let start = BAR + u64::from(index) * STEP;
        let below = port(PortType::DownstreamPort, 2, 3 + index, 3 + index, start, STEP);
        let above = add(2, index, Above::Port(upstream), below);
        let mut function = Description {
            bars: vec![bar(0, start, STEP / 2), bar(2, start + STEP / 2, 0x1000)],
            message_interrupts: 1,
            ..Description::express(PortType::Endpoint)
        };
        describe(&mut function);
        ports.push(above);
        devices.push(add(3 + index, 0, Above::Port(above), function));
    }
    let window = HostWindow {
        cpu: AddrRange::new(PhysAddr::new(BAR), Bytes::new(0x1000_0000)).unwrap(),
        bus: range(BAR, 0x1000_0000),
    };
    let host = Host {
        segment: 0,
        root_bus: 0,
        windows: vec![window],
        peer: PeerForwarding::Forwards,
        interrupts: Some(range(0xfee0_0000, 0x10_0000)),
        replaces_requester: false,
        between_ports: false,
        splits: true,
    };
    let ram_range = AddrRange::new(PhysAddr::new(0), Bytes::new(1 << 30)).unwrap();
    let ram = Arc::new(Striped::new(ram_range.len()));
    let memories: Vec<_> = devices.iter().map(|_| Arc::new(Striped::new(Bytes::new(STEP / 2)))).collect();
    let registers: Vec<_> = devices.iter().map(|_| Arc::new(Registers::new(Bytes::new(0x1000)))).collect();
    let nothing = || Part { name: None, device: None, mask_bits: 64, tdi: None };
    let mut parts: Vec<Part> = tree.ids().map(|_| nothing()).collect();
    for (index, node) in devices.iter().enumerate() {
        let device = Plain { memory: memories[index].clone(), registers: registers[index].clone() };
        parts[node.index()] =
            Part { name: Some(format!("dev{index}")), device: Some(Box::new(device)), mask_bits: 64, tdi: None };
    }
    let stretch = Stretch { range: ram_range, memory: ram.clone() };
    let fabric = Fabric::new(tree, Root::new(vec![host], vec![ram_range], iommu));
    let machine = Machine::new(fabric, parts, vec![stretch], delivery, seed);
    Bench { machine, ram, memories, registers, devices, ports, root }
}

impl Bench {
    fn port(&self, device: usize) -> bus::Port<'_> {
        bus::Port { machine: &self.machine, node: self.devices[device] }
    }

    fn at(device: u64, offset: u64) -> BusAddr {
        BusAddr::new(BAR + device * STEP + offset)
    }

    fn holds(&self, device: usize, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memories[device].read(Bytes::new(offset), &mut bytes).unwrap();
        bytes
    }

    /// Writes the buses that lie below a port.
    fn set_buses(&self, port: NodeId, primary: u8, secondary: u8, subordinate: u8) {
        let buses = u32::from_le_bytes([primary, secondary, subordinate, 0]);
        self.machine.cpu().config_write(port, 0x18, crate::config::Width::Four, buses);
    }

    /// Clears a bit of a function's command register: 1 memory space, 2 bus master.
    fn disable(&self, node: NodeId, bit: u32) {
        let command = self.machine.cpu().config_read(node, 4, crate::config::Width::Two);
        self.machine.cpu().config_write(node, 4, crate::config::Width::Two, command & !(1 << bit));
    }

    /// Sets bits of a port's ACS control register.
    fn set_acs(&self, port: NodeId, control: u16) {
        let config = self.machine.fabric().tree().config(port);
        let at = (0x100..0x1000_u16)
            .step_by(4)
            .find(|&at| config.read(at, crate::config::Width::Four) & 0xffff == 0xd)
            .unwrap();
        self.machine.cpu().config_write(port, at + 6, crate::config::Width::Two, control.into());
    }
}

#[test]
fn a_write_waits_until_the_machine_goes_on() {
    let bench = bench(Delivery::Queued, 1);
    bench.port(0).write(How::default(), Bench::at(1, 0x10), b"hello").unwrap();
    assert_eq!(bench.holds(1, 0x10, 5), [0; 5]);
    assert!(bench.machine.settle(1000));
    assert_eq!(bench.holds(1, 0x10, 5), b"hello");
}

#[test]
fn delivered_at_once_it_does_not() {
    let bench = bench(Delivery::AtOnce, 1);
    bench.port(0).write(How::default(), Bench::at(1, 0x10), b"hello").unwrap();
    assert_eq!(bench.holds(1, 0x10, 5), b"hello");
}

#[test]
fn a_read_pushes_what_was_written_to_the_same_place_before() {
    for seed in 0..50 {
        let bench = bench(Delivery::Queued, seed);
        let mut port = bench.port(0);
        port.write(How::default(), Bench::at(1, 0), &[7; 600]).unwrap();
        let mut bytes = [0; 600];
        port.read(How::default(), Bench::at(1, 0), &mut bytes).unwrap();
        assert_eq!(bytes, [7; 600]);
    }
}

#[test]
fn a_doorbell_at_a_peer_may_overtake_its_payload_in_memory_and_not_after_it_was_read_back() {
    let overtakes = |seed, read_back: bool| {
        let bench = bench(Delivery::Queued, seed);
        let mut port = bench.port(0);
        port.write(How::default(), BusAddr::new(0x1000), &[1; 64]).unwrap();
        if read_back {
            port.read(How::default(), BusAddr::new(0x1000), &mut [0; 4]).unwrap();
        }
        port.write(How::default(), Bench::at(1, STEP / 2), &1_u32.to_le_bytes()).unwrap();
        // Until the doorbell has been heard; stepping the device would take the write from it.
        while !bench.registers[1].has_writes() {
            assert!(bench.machine.step());
        }
        let mut bytes = [0; 64];
        bench.ram.read(Bytes::new(0x1000), &mut bytes).unwrap();
        bytes != [1; 64]
    };
    assert!((0..50).any(|seed| overtakes(seed, false)));
    assert!(!(0..50).any(|seed| overtakes(seed, true)));
}

#[test]
fn long_transfers_are_the_bytes_of_short_ones() {
    let bench = bench(Delivery::Queued, 3);
    let bytes: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    bench.port(0).write(How::default(), Bench::at(1, 0x123), &bytes).unwrap();
    bench.machine.settle(100_000);
    assert_eq!(bench.holds(1, 0x123, bytes.len()), bytes);
    let mut back = vec![0; bytes.len()];
    bench.port(2).read(How::default(), Bench::at(1, 0x123), &mut back).unwrap();
    assert_eq!(back, bytes);
    bench.port(2).copy(How::default(), Bench::at(1, 0x123), BusAddr::new(0x7_0001), Bytes::new(300_000)).unwrap();
    bench.machine.settle(100_000);
    let mut ram = vec![0; bytes.len()];
    bench.ram.read(Bytes::new(0x7_0001), &mut ram).unwrap();
    assert_eq!(ram, bytes);
}

#[test]
fn a_stroke_goes_behind_what_waits_on_its_way() {
    let bench = bench(Delivery::Queued, 5);
    let mut port = bench.port(0);
    port.write(How::default(), Bench::at(1, 0), &[1; 100]).unwrap();
    port.write(How::default(), Bench::at(1, 0), &[2; 100_000]).unwrap();
    bench.machine.settle(10_000);
    assert_eq!(bench.holds(1, 0, 100_000), vec![2; 100_000]);
}

#[test]
fn a_course_ends_with_the_registers_that_it_was_found_by() {
    for delivery in [Delivery::Queued, Delivery::AtOnce] {
        let bench = bench(delivery, 1);
        let mut port = bench.port(0);
        port.write(How::default(), Bench::at(1, 0), &[1; 10_000]).unwrap();
        bench.machine.settle(1000);
        // Redirected, and turned back at the root port, which has no rule for it.
        bench.set_acs(bench.ports[0], 0x04);
        port.write(How::default(), Bench::at(1, 0), &[2; 10_000]).unwrap();
        bench.machine.settle(1000);
        assert_eq!(bench.holds(1, 0, 10_000), vec![1; 10_000]);
        assert!(bench.machine.counts().contains_key(&Ending::Undefined(bench.root)));
        bench.set_acs(bench.root, 0x10);
        port.write(How::default(), Bench::at(1, 0), &[3; 10_000]).unwrap();
        bench.machine.settle(1000);
        assert_eq!(bench.holds(1, 0, 10_000), vec![3; 10_000]);
    }
}

#[test]
fn what_nobody_has_is_an_unsupported_request() {
    let bench = bench(Delivery::Queued, 1);
    let hole = BusAddr::new(BAR + 3 * STEP);
    assert_eq!(bench.port(0).read(How::default(), hole, &mut [0; 4]), Err(Failure::UnsupportedRequest));
    assert_eq!(bench.port(0).read(How::default(), hole, &mut [0; 9000]), Err(Failure::UnsupportedRequest));
    assert_eq!(bench.port(0).write(How::default(), hole, &[0; 9000]), Ok(()));
    assert!(bench.machine.settle(100));
    assert!(bench.machine.counts()[&Ending::Unsupported(bench.ports[0])] >= 3);
}

#[test]
fn a_device_that_was_pulled_out_answers_nothing_and_its_writes_end() {
    let bench = bench(Delivery::Queued, 1);
    bench.port(0).write(How::default(), Bench::at(1, 0), &[1; 8]).unwrap();
    bench.machine.set_present(bench.devices[1], false);
    bench.machine.settle(100);
    assert_eq!(bench.holds(1, 0, 8), [0; 8]);
    assert!(bench.machine.counts().contains_key(&Ending::LinkDown(bench.ports[1])));
    let mut bytes = [0; 4];
    bench.machine.cpu().load(PhysAddr::new(BAR + STEP), &mut bytes);
    assert_eq!(bytes, [0xff; 4]);
}

/// A device that was pulled out went on writing to memory.
#[test]
fn a_device_that_was_pulled_out_sends_nothing() {
    let bench = bench(Delivery::Queued, 1);
    bench.machine.set_present(bench.devices[0], false);
    let written = bench.port(0).write(How::default(), Bench::at(1, 0), &[1; 8]);
    assert_eq!(written, Err(Failure::NotSent));
    bench.machine.set_present(bench.devices[0], true);
    assert_eq!(bench.port(0).write(How::default(), Bench::at(1, 0), &[1; 8]), Ok(()));
}

/// Threads shared the queues, so that a write could be in another thread's hands when its sender, told
/// that it had arrived, rang a doorbell or gave the memory back.
#[test]
fn a_write_at_once_has_arrived_when_its_call_returns() {
    let bench = bench(Delivery::AtOnce, 1);
    std::thread::scope(|scope| {
        for device in 0..3_usize {
            let bench = &bench;
            scope.spawn(move || {
                let own = Striped::new(Bytes::new(8));
                let mut port = bench.port(device);
                let offset = 0x1000 * device as u64;
                for round in 0..1000_u64 {
                    own.write(Bytes::ZERO, &round.to_le_bytes()).unwrap();
                    let at = Bench::at((device as u64 + 1) % 3, offset);
                    port.send(How::default(), (&own, Bytes::ZERO), at, Bytes::new(8)).unwrap();
                    assert_eq!(bench.holds((device + 1) % 3, offset, 8), round.to_le_bytes());
                }
            });
        }
    });
}

/// All strokes ended in nothing where packets are interrupts.
#[test]
fn an_interrupt_that_is_written_as_data_comes_however_writes_arrive() {
    for delivery in [Delivery::Queued, Delivery::AtOnce] {
        let bench = bench(delivery, 1);
        bench.port(0).write(How::default(), BusAddr::new(0xfee0_1000), &[7, 0, 0, 0]).unwrap();
        bench.machine.settle(100);
        let expected = Interrupt { from: Some(bench.devices[0]), at: BusAddr::new(0xfee0_1000), data: 7 };
        assert_eq!(bench.machine.take_interrupts(), [expected]);
    }
}

#[test]
fn an_atomic_that_the_function_may_not_send_is_not_sent() {
    let bench = bench(Delivery::Queued, 1);
    let add = Atomic::FetchAdd(Operand::Double(5));
    assert_eq!(bench.port(0).atomic(How::default(), BusAddr::new(0x100), add), Err(Failure::NotSent));
}

#[test]
fn a_write_to_the_interrupt_window_is_an_interrupt_however_it_is_delivered() {
    for delivery in [Delivery::Queued, Delivery::AtOnce] {
        let bench = bench(delivery, 1);
        bench.port(0).write(How::default(), BusAddr::new(0xfee0_1000), &0x41_u32.to_le_bytes()).unwrap();
        assert!(bench.machine.settle(100));
        let expected = Interrupt { from: Some(bench.devices[0]), at: BusAddr::new(0xfee0_1000), data: 0x41 };
        assert_eq!(bench.machine.take_interrupts(), [expected]);
    }
}

#[test]
fn processors_and_devices_see_the_same_bytes() {
    let bench = bench(Delivery::Queued, 1);
    let cpu = bench.machine.cpu();
    cpu.store(PhysAddr::new(BAR + STEP + 0x20), &[9; 200]);
    let mut bytes = [0; 200];
    cpu.load(PhysAddr::new(BAR + STEP + 0x20), &mut bytes);
    assert_eq!(bytes, [9; 200]);
    cpu.store(PhysAddr::new(0x3ff0), &[8; 100]);
    bench.port(2).read(How::default(), BusAddr::new(0x3ff0), &mut bytes[..100]).unwrap();
    assert_eq!(bytes[..100], [8; 100]);
}

#[test]
fn the_same_seed_is_the_same_run() {
    let run = |seed| {
        let bench = bench(Delivery::Queued, seed);
        bench.machine.log().keep(true);
        for device in 0..3 {
            bench.port(device).write(How::default(), Bench::at(1, 0x100), &[device as u8; 1000]).unwrap();
            bench.port(device).write(How::default(), BusAddr::new(0x100), &[device as u8; 1000]).unwrap();
        }
        assert!(bench.machine.settle(10_000));
        bench.machine.log().take()
    };
    assert_eq!(run(4), run(4));
    assert_ne!(run(4), run(5));
}

#[test]
fn devices_in_threads_ring_each_other_without_waiting() {
    let bench = bench(Delivery::AtOnce, 1);
    bench.machine.with_threads(|| {
        std::thread::scope(|scope| {
            for device in 0..3_u64 {
                let bench = &bench;
                scope.spawn(move || {
                    let mut port = bench.port(device as usize);
                    for round in 0..2000_u64 {
                        let peer = (device + 1 + round % 2) % 3;
                        port.write(How::default(), Bench::at(peer, STEP / 2 + 8 * device), &round.to_le_bytes())
                            .unwrap();
                        port.write(How::default(), Bench::at(peer, 0x1000 * device), &[device as u8; 5000]).unwrap();
                    }
                });
            }
        });
    });
    assert!(bench.registers.iter().all(|registers| registers.get(Bytes::ZERO) <= 1999));
}
