//! Whatever the machine, a transfer in strokes does what its packets would do one by one.

use super::*;
use crate::config::{AcsDescription, BarDescription, Buses, Description, Space};
use crate::device::{Bus, How, Layout, Progress, Registers};
use crate::fabric::{Above, Host, HostId, HostWindow, Node, Root, Tree};
use crate::memory::Striped;
use crate::platform::PeerForwarding;
use crate::wire::{Attributes, Failure};
use peerdma::pcie::express::PortType;
use peerdma::pcie::{DevFn, PciAddr};
use proptest::prelude::*;

/// Two memories with a gap between them and registers behind, so that one BAR has many edges.
struct Patchwork {
    near: Arc<Striped>,
    far: Arc<Striped>,
    registers: Arc<Registers>,
}

impl Device for Patchwork {
    fn layout(&self) -> Layout {
        Layout::new()
            .memory(0, Bytes::ZERO, self.near.clone())
            .registers(0, Bytes::new(0x1808), &self.registers)
            .memory(0, Bytes::new(0x2ff0), self.far.clone())
    }

    fn step(&mut self, bus: &mut dyn Bus) -> Progress {
        while bus.next_write().is_some() {}
        Progress::Idle
    }

    fn reset(&mut self) {}
}

/// What differs from machine to machine.
#[derive(Clone, Debug)]
struct Shape {
    /// Payload size of root port, upstream port, downstream ports and functions, as powers of two.
    payloads: Vec<u32>,
    /// Access control of root port and downstream ports.
    controls: Vec<u16>,
    /// Where in its device's MiB each function's BAR lies, in units of its size.
    places: Vec<u64>,
    peers_inside: bool,
    peer: PeerForwarding,
    replaces_requester: bool,
    splits: bool,
    between_ports: bool,
    /// Bytes by which the host's window lies higher for the CPU, in pages.
    offset: u64,
}

#[derive(Clone, Debug)]
struct Transfer {
    from: usize,
    write: bool,
    at: u64,
    len: usize,
    relaxed: bool,
}

const BAR: u64 = 0x9000_0000;
const MIB: u64 = 1 << 20;
const BAR_SIZE: u64 = 0x4000;

struct Bench {
    machine: Machine,
    ram: Arc<Striped>,
    memories: Vec<(Arc<Striped>, Arc<Striped>)>,
    registers: Vec<Arc<Registers>>,
    functions: Vec<NodeId>,
}

fn range(start: u64, len: u64) -> AddrRange<BusAddr> {
    AddrRange::new(BusAddr::new(start), Bytes::new(len)).unwrap()
}

/// A switch with two functions of one device below its first port, one function each below two more, and
/// a function below a root port of its own.
fn build(shape: &Shape, delivery: Delivery) -> Bench {
    let mut tree = Tree::new(1);
    let mut payloads = shape.payloads.iter();
    let mut controls = shape.controls.iter();
    let mut add = |bus: u8, device: u8, function: u8, above: Above, mut description: Description| {
        let address = PciAddr::new(0, bus, DevFn::from_parts(device, function).unwrap());
        if let Some(express) = &mut description.express {
            express.max_payload_supported = Bytes::new(4096);
            express.max_payload = Bytes::new(128 << payloads.next().unwrap());
            express.max_read_request = Bytes::new(512);
        }
        let config = Arc::new(Space::new(&description));
        tree.add(Node { address, config, above, peers_inside: shape.peers_inside, group: None }).unwrap()
    };
    let mut port = |kind, primary, secondary, subordinate, start, len| Description {
        buses: Some(Buses { primary, secondary, subordinate }),
        memory_window: Some(range(start, len)),
        acs: (kind != PortType::UpstreamPort).then(|| {
            let control = *controls.next().unwrap();
            AcsDescription { capability: 0x7f, control, ..AcsDescription::default() }
        }),
        ..Description::express(kind)
    };
    let root = add(0, 1, 0, Above::Root(HostId::new(0)), port(PortType::RootPort, 0, 1, 5, BAR, 4 * MIB));
    let upstream = add(1, 0, 0, Above::Port(root), port(PortType::UpstreamPort, 1, 2, 5, BAR, 4 * MIB));
    let other = add(0, 2, 0, Above::Root(HostId::new(0)), port(PortType::RootPort, 0, 6, 6, BAR + 4 * MIB, MIB));
    let ports: Vec<NodeId> = (0..3_u8)
        .map(|index| {
            let start = BAR + u64::from(index) * MIB;
            add(2, index, 0, Above::Port(upstream), port(PortType::DownstreamPort, 2, 3 + index, 3 + index, start, MIB))
        })
        .collect();
    let seats = [(3, 0, ports[0], 0), (3, 1, ports[0], 0), (4, 0, ports[1], 1), (5, 0, ports[2], 2), (6, 0, other, 4)];
    let functions: Vec<NodeId> = seats
        .into_iter()
        .zip(&shape.places)
        .map(|((bus, function, above, mib), place)| {
            let address = BusAddr::new(BAR + mib * MIB + place * BAR_SIZE);
            let bar = BarDescription {
                index: 0,
                address,
                size: Bytes::new(BAR_SIZE),
                prefetchable: false,
                is_64_bit: false,
                resizable: Vec::new(),
            };
            let description = Description { bars: vec![bar], ..Description::express(PortType::Endpoint) };
            add(bus, 0, function, Above::Port(above), description)
        })
        .collect();
    let window = HostWindow {
        cpu: AddrRange::new(PhysAddr::new(BAR + shape.offset * 4096), Bytes::new(5 * MIB)).unwrap(),
        bus: range(BAR, 5 * MIB),
    };
    let host = Host {
        segment: 0,
        root_bus: 0,
        windows: vec![window],
        peer: shape.peer,
        interrupts: Some(range(0xfee0_0000, 0x10_0000)),
        replaces_requester: shape.replaces_requester,
        between_ports: shape.between_ports,
        splits: shape.splits,
    };
    // It ends within the block in which the windows begin, and goes on behind them.
    let ranges = [
        AddrRange::new(PhysAddr::new(BAR - 0x1_0000), Bytes::new(0x1_1800)).unwrap(),
        AddrRange::new(PhysAddr::new(BAR + 5 * MIB), Bytes::new(0x1_0000)).unwrap(),
    ];
    let ram = Arc::new(Striped::new(Bytes::new(0x1_2000)));
    let stretches = ranges.iter().map(|range| Stretch { range: *range, memory: ram.clone() }).collect();
    let memory = |len: u64| Arc::new(Striped::new(Bytes::new(len)));
    let memories: Vec<_> = functions.iter().map(|_| (memory(0x1804), memory(0x1010))).collect();
    let registers: Vec<_> = functions.iter().map(|_| Arc::new(Registers::new(Bytes::new(0x100)))).collect();
    let mut parts: Vec<Part> =
        tree.ids().map(|_| Part { name: None, device: None, mask_bits: 64, tdi: None }).collect();
    for (index, node) in functions.iter().enumerate() {
        let (near, far) = memories[index].clone();
        parts[node.index()].device = Some(Box::new(Patchwork { near, far, registers: registers[index].clone() }));
    }
    let fabric = Fabric::new(tree, Root::new(vec![host], ranges.to_vec(), None));
    let machine = Machine::new(fabric, parts, stretches, delivery, 1);
    Bench { machine, ram, memories, registers, functions }
}

/// Everything that transfers leave behind.
#[derive(PartialEq, Eq, Debug)]
struct Left {
    answers: Vec<Result<Vec<u8>, Failure>>,
    bytes: Vec<Vec<u8>>,
    registers: Vec<Vec<u64>>,
    interrupts: Vec<Interrupt>,
    counts: Counts,
}

impl Bench {
    fn run(&self, transfers: &[Transfer], packets: bool) -> Left {
        let answers = transfers.iter().enumerate().map(|(turn, transfer)| self.send(turn, transfer, packets)).collect();
        let read = |memory: &Striped| {
            let mut bytes = vec![0; memory.len().as_u64() as usize];
            memory.read(Bytes::ZERO, &mut bytes).unwrap();
            bytes
        };
        let mut bytes: Vec<Vec<u8>> = self.memories.iter().flat_map(|(near, far)| [read(near), read(far)]).collect();
        bytes.push(read(&self.ram));
        // Relaxed ones pass each other.
        let mut interrupts = self.machine.take_interrupts();
        interrupts.sort_by_key(|interrupt| (interrupt.at, interrupt.data));
        let words = |registers: &Registers| (0..0x20).map(|word| registers.get(Bytes::new(word * 8))).collect();
        Left {
            answers,
            bytes,
            registers: self.registers.iter().map(|registers| words(registers)).collect(),
            interrupts,
            counts: self.machine.counts(),
        }
    }

    fn send(&self, turn: usize, transfer: &Transfer, packets: bool) -> Result<Vec<u8>, Failure> {
        let mut port = self.machine.port(self.functions[transfer.from]);
        let attributes = Attributes { relaxed: transfer.relaxed, ..Attributes::default() };
        let how = How { attributes, ..How::default() };
        let at = BusAddr::new(transfer.at);
        let mut bytes: Vec<u8> = (0..transfer.len).map(|at| (turn * 37 + at * 7 + at / 251) as u8).collect();
        let len = Bytes::new(bytes.len() as u64);
        let answer = match (transfer.write, packets) {
            _ if packets && transfer.at.checked_add(transfer.len as u64 - 1).is_none() => Err(Failure::NotSent),
            // What is not longer than a page, and crosses none, goes in packets.
            (true, true) => pages(transfer).try_for_each(|(at, part)| port.write(how, at, &bytes[part])),
            (false, true) => pages(transfer).try_for_each(|(at, part)| port.read(how, at, &mut bytes[part])),
            (true, false) => port.write(how, at, &bytes),
            (false, false) => {
                let own = Striped::new(len);
                let fetched = port.fetch(how, at, (&own, Bytes::ZERO), len);
                own.read(Bytes::ZERO, &mut bytes).unwrap();
                fetched
            }
        };
        assert!(self.machine.settle(100_000));
        answer.map(|()| bytes)
    }
}

/// The parts of a transfer that lie in one page each.
fn pages(transfer: &Transfer) -> impl Iterator<Item = (BusAddr, std::ops::Range<usize>)> {
    let (start, len) = (transfer.at, transfer.len);
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = start.wrapping_add(done as u64);
        let part = (len - done).min(4096 - (at % 4096) as usize);
        done += part;
        (part > 0).then(|| (BusAddr::new(at), done - part..done))
    })
}

/// Long reads were lost where a root complex cut the completions of short ones, which it passed on.
#[test]
fn completions_that_a_root_complex_cuts_come_in_strokes_too() {
    let mut payloads = vec![1; 11];
    // The root port that stands alone and the function below it send what the switch does not take.
    (payloads[2], payloads[10]) = (2, 2);
    let shape = Shape {
        payloads,
        controls: vec![0; 5],
        places: vec![0, 1, 0, 0, 0],
        peers_inside: false,
        peer: PeerForwarding::Forwards,
        replaces_requester: false,
        splits: true,
        between_ports: false,
        offset: 0,
    };
    let read = Transfer { from: 0, write: false, at: BAR + 4 * MIB, len: 0x1800, relaxed: false };
    for packets in [true, false] {
        let left = build(&shape, Delivery::Queued).run(std::slice::from_ref(&read), packets);
        assert_eq!((left.answers, left.counts), (vec![Ok(vec![0; 0x1800])], Counts::new()), "in packets: {packets}");
    }
}

fn shapes() -> impl Strategy<Value = Shape> {
    let control = prop_oneof![Just(0_u16), Just(0x04), Just(0x10), Just(0x14), Just(0x1d), Just(0x7f), 0..0x80_u16];
    let peer = prop_oneof![
        4 => Just(PeerForwarding::Forwards),
        1 => Just(PeerForwarding::WritesOnly),
        1 => Just(PeerForwarding::AllOnes),
        1 => Just(PeerForwarding::None),
    ];
    (
        prop::collection::vec(0..3_u32, 16),
        prop::collection::vec(control, 8),
        prop::collection::vec(0..64_u64, 5),
        any::<(bool, bool, bool, bool)>(),
        peer,
        prop_oneof![Just(0), 0..600_u64],
    )
        .prop_map(
            |(
                payloads,
                controls,
                mut places,
                (peers_inside, replaces_requester, splits, between_ports),
                peer,
                offset,
            )| {
                // Two functions of one device lie beside each other at times.
                if places[1] == places[0] {
                    places[1] += 1;
                }
                Shape {
                    payloads,
                    controls,
                    places,
                    peers_inside,
                    peer,
                    replaces_requester,
                    splits,
                    between_ports,
                    offset,
                }
            },
        )
}

fn transfers(shape: &Shape) -> impl Strategy<Value = Vec<Transfer>> + use<> {
    let device = |index: usize| BAR + [0, 0, 1, 2, 4][index] * MIB + shape.places[index] * BAR_SIZE;
    let mut edges: Vec<u64> =
        (0..5).flat_map(|index| [0, 0x1804, 0x1908, 0x2ff0, 0x4000].map(|at| device(index) + at)).collect();
    edges.extend((0..=5).map(|mib| BAR + mib * MIB));
    edges.extend((0..=5).map(|mib| BAR + mib * MIB + shape.offset * 4096));
    edges.extend([
        BAR - 0x1_0000,
        BAR + 0x1800,
        BAR + 5 * MIB + 0x1_0000,
        0xfee0_0000,
        0xfef0_0000,
        u64::MAX - 9000,
        0,
    ]);
    let at = (prop::sample::select(edges), prop_oneof![-9000..9000_i64, Just(0), -200..200_i64, Just(-4096)])
        .prop_map(|(edge, off)| edge.saturating_add_signed(off));
    let len = prop_oneof![1..20_usize, 100..600_usize, 3000..20_000_usize];
    let one = (0..5_usize, prop::bool::weighted(0.7), at, len, any::<bool>())
        .prop_map(|(from, write, at, len, relaxed)| Transfer { from, write, at, len, relaxed });
    prop::collection::vec(one, 1..8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// The same bytes at the same places, the same answers, and each loss counted as often.
    #[test]
    fn strokes_do_what_their_packets_would_have_done(
        (shape, list) in shapes().prop_flat_map(|shape| { let list = transfers(&shape); (Just(shape), list) })
    ) {
        let packets = build(&shape, Delivery::Queued).run(&list, true);
        for delivery in [Delivery::Queued, Delivery::AtOnce] {
            let strokes = build(&shape, delivery).run(&list, false);
            prop_assert_eq!(&packets.answers, &strokes.answers);
            prop_assert_eq!(&packets.counts, &strokes.counts);
            prop_assert_eq!(&packets.interrupts, &strokes.interrupts);
            prop_assert_eq!(&packets.registers, &strokes.registers);
            prop_assert!(packets.bytes == strokes.bytes, "bytes differ");
        }
    }
}
