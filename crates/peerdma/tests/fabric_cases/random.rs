//! Random machines: unknown exactly where two ways of filling in differ.

use peerdma::addr::{AddrRange, BusAddr, Bytes};
use peerdma::pcie::acs::{Acs, AcsAbsent, AcsBits, AcsRegisters, AcsUnread};
use peerdma::pcie::decode::{BridgeBuses, BridgeWindows, HeaderType};
use peerdma::pcie::express::PortType;
use peerdma::pcie::{DevFn, Fact, PciAddr};
use peerdma::route::Target;
use peerdma::route::fabric::{At, FabricView, Fate, Handed, Kind};
use peerdma::topology::{Bar, Builder, FunctionInfo, HostBridgeFacts, PeerForwarding, Position};
use proptest::prelude::*;

/// A function of a random machine; its place is one of the ports before it.
#[derive(Clone, Debug)]
struct Node {
    above: Option<usize>,
    kind: PortType,
    function: u8,
    acs: Option<u16>,
}

/// Root ports, switches below them or below switches, and functions at the ends.
fn nodes() -> impl Strategy<Value = Vec<Node>> {
    let control =
        || prop_oneof![1 => Just(None), 3 => (0u16..0x80).prop_map(Some), 2 => Just(Some(0)), 2 => Just(Some(0x1d))];
    prop::collection::vec((any::<prop::sample::Index>(), 0u8..4, control(), control(), control()), 3..7).prop_map(
        |rolls| {
            let mut nodes: Vec<Node> = Vec::new();
            let mut links: Vec<usize> = Vec::new();
            for root in 0..2 {
                links.push(nodes.len());
                nodes.push(Node {
                    above: None,
                    kind: PortType::RootPort,
                    function: 0,
                    acs: [rolls[0].2, rolls[1].2][root],
                });
            }
            for (place, shape, one, two, three) in rolls {
                let link = links[place.index(links.len())];
                let taken = nodes.iter().any(|node| node.above == Some(link));
                if shape < 2 && !taken {
                    let upstream = nodes.len();
                    nodes.push(Node { above: Some(link), kind: PortType::UpstreamPort, function: 0, acs: Some(0) });
                    for acs in [one, two] {
                        links.push(nodes.len());
                        nodes.push(Node { above: Some(upstream), kind: PortType::DownstreamPort, function: 0, acs });
                    }
                } else if nodes.iter().all(|node| node.above != Some(link) || node.kind == PortType::Endpoint) {
                    let function = nodes.iter().filter(|node| node.above == Some(link)).count() as u8;
                    nodes.push(Node { above: Some(link), kind: PortType::Endpoint, function, acs: three });
                }
            }
            // Every link ends in something.
            let bare: Vec<usize> =
                links.into_iter().filter(|&link| nodes.iter().all(|node| node.above != Some(link))).collect();
            nodes.extend(bare.into_iter().map(|link| Node {
                above: Some(link),
                kind: PortType::Endpoint,
                function: 0,
                acs: Some(0),
            }));
            nodes
        },
    )
}

/// How the unread words of a machine are filled in, in the order of its nodes: control and vector.
type Filling<'f> = Option<&'f [(AcsBits, u32)]>;

fn build(nodes: &[Node], filling: Filling<'_>, peer: Option<PeerForwarding>) -> peerdma::topology::Topology {
    let is_below = |mut node: usize, above: usize| loop {
        match nodes[node].above {
            Some(next) if next == above => return true,
            Some(next) => node = next,
            None => return false,
        }
    };
    // Buses are numbered in the order of the nodes' walk, so that every port has a range.
    let mut bus_of = vec![0u8; nodes.len()];
    let mut ranges = vec![(0u8, 0u8); nodes.len()];
    let mut next = 1;
    fn number(nodes: &[Node], at: usize, next: &mut u8, bus_of: &mut [u8], ranges: &mut [(u8, u8)]) {
        if nodes[at].kind == PortType::Endpoint {
            return;
        }
        let secondary = *next;
        *next += 1;
        for below in (0..nodes.len()).filter(|&node| nodes[node].above == Some(at)) {
            bus_of[below] = secondary;
            number(nodes, below, next, bus_of, ranges);
        }
        ranges[at] = (secondary, *next - 1);
    }
    for root in (0..nodes.len()).filter(|&node| nodes[node].above.is_none()) {
        number(nodes, root, &mut next, &mut bus_of, &mut ranges);
    }
    // Addresses follow the same walk: the BAR of a function is at its bus and function.
    let bar = |node: usize| (u64::from(bus_of[node]) << 24) + (u64::from(nodes[node].function) << 20);
    let address = |node: usize| {
        let siblings = (0..node).filter(|&other| nodes[other].above == nodes[node].above).count();
        let device = if nodes[node].kind == PortType::Endpoint { 0 } else { siblings };
        let device = if nodes[node].above.is_none() { device + 1 } else { device };
        format!("{:02x}:{device:02x}.{}", bus_of[node], nodes[node].function).parse().unwrap()
    };
    let mut filled = filling.into_iter().flatten();
    let mut builder = Builder::new();
    for (index, node) in nodes.iter().enumerate() {
        let position = node.above.map_or(Position::RootBus { bus: 0 }, |above| Position::Below(address(above)));
        let mut info = FunctionInfo::new(address(index), position);
        info.registers.port_type = Fact::Known(Some(node.kind));
        info.registers.express.port_number = Some(index as u8);
        let is_endpoint = node.kind == PortType::Endpoint;
        info.registers.header = Some(if is_endpoint { HeaderType::Device } else { HeaderType::Bridge });
        let all = AcsBits::from_bits_retain(0x7f);
        info.registers.acs = match node.acs {
            Some(0) => Acs::Absent(AcsAbsent::WholeListRead),
            // Half of the vectors have a bit set for every egress.
            Some(word) => {
                let vector = if word & 1 == 0 { 0 } else { u32::MAX };
                Acs::Present(AcsRegisters::standard(None, all, AcsBits::from_bits_retain(word), vec![vector; 8]))
            }
            None => match filling {
                None => Acs::Unknown(AcsUnread::NeverSeen),
                Some(_) => {
                    let (control, vector) = filled.next().copied().unwrap();
                    Acs::Present(AcsRegisters::standard(None, all, control, vec![vector; 8]))
                }
            },
        };
        if is_endpoint {
            info.bars = vec![Bar {
                index: 0,
                cpu: None,
                bus: Some(BusAddr::new(bar(index))),
                size: Some(Bytes::new(0x10_0000)),
                prefetchable: false,
            }];
        } else {
            let (secondary, subordinate) = ranges[index];
            info.registers.buses = Some(BridgeBuses { primary: bus_of[index], secondary, subordinate });
            let ends = (0..nodes.len()).any(|node| nodes[node].kind == PortType::Endpoint && is_below(node, index));
            let (first, last) = (u64::from(secondary) << 24, (u64::from(subordinate) << 24) + 0xff_ffff);
            let window = AddrRange::from_inclusive(BusAddr::new(first), BusAddr::new(last)).filter(|_| ends);
            info.registers.windows = BridgeWindows { memory: Fact::Known(window), prefetchable: Fact::Known(None) };
        }
        builder.function(info);
    }
    builder.host_bridge(0, 0, HostBridgeFacts { peer, ..HostBridgeFacts::default() });
    builder.machine().cpu = "intel:6".parse().ok();
    builder.build()
}

/// All ways of filling in one word, of a root port without egress control, which is
/// taken to be off where it was not read.
fn words(root_port: bool) -> Vec<(AcsBits, u32)> {
    let bits = [AcsBits::RR, AcsBits::CR, AcsBits::EC];
    let mut all = Vec::new();
    for n in 0..8usize {
        let control: AcsBits =
            bits.iter().enumerate().filter(|(bit, _)| n & 1 << bit != 0).map(|(_, bits)| *bits).collect();
        if control.contains(AcsBits::EC) {
            if !root_port {
                all.extend([(control, 0), (control, u32::MAX)]);
            }
        } else {
            all.push((control, 0));
        }
    }
    all
}

const KNOWN: [PeerForwarding; 3] = [PeerForwarding::Forwards, PeerForwarding::WritesOnly, PeerForwarding::Nothing];

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn a_fate_is_unknown_exactly_when_two_ways_of_filling_in_differ(
        mut nodes in nodes(),
        peer in prop_oneof![Just(None), prop::sample::select(KNOWN.to_vec()).prop_map(Some)],
        pair in any::<(prop::sample::Index, prop::sample::Index)>(),
        kind in prop::sample::select(vec![Kind::Write, Kind::Read]),
        handed in prop::sample::select(vec![Handed::Bus, Handed::CpuPhysical, Handed::Iova, Handed::Translated]),
    ) {
        // Two unread words at most, so that all ways can be tried.
        let unread: Vec<usize> = (0..nodes.len()).filter(|&node| nodes[node].acs.is_none()).collect();
        for &node in unread.iter().skip(2) {
            nodes[node].acs = Some(0);
        }
        let unread = &unread[..unread.len().min(2)];
        let ends: Vec<usize> = (0..nodes.len()).filter(|&node| nodes[node].kind == PortType::Endpoint).collect();
        let from = pair.0.index(ends.len());
        let to = (from + 1 + pair.1.index(ends.len() - 1)) % ends.len();
        let fate = |filling: Filling<'_>, peer| {
            let topology = build(&nodes, filling, peer);
            let order: Vec<_> = (topology.functions())
                .filter(|(_, function)| !function.info().is_bridge())
                .map(|(id, _)| id)
                .collect();
            let target = Target::largest_bar(&topology, order[to]);
            FabricView::new(&topology).pass(order[from], &target, kind, handed).fate
        };
        let choices: Vec<Vec<(AcsBits, u32)>> =
            unread.iter().map(|&node| words(nodes[node].kind == PortType::RootPort)).collect();
        let peers = match peer {
            Some(_) => vec![peer],
            None => KNOWN.iter().copied().map(Some).collect(),
        };
        let one = [(AcsBits::empty(), 0)];
        let (first, second) = (choices.first().map_or(&one[..], Vec::as_slice), choices.get(1).map_or(&one[..], Vec::as_slice));
        let mut seen: Vec<Fate> = Vec::new();
        for &peer in &peers {
            for &one in first {
                for &other in second {
                    let filling = [one, other];
                    let fate = fate(Some(&filling[..unread.len()]), peer);
                    prop_assert_ne!(fate, Fate::Unknown, "everything is filled in");
                    if !seen.contains(&fate) {
                        seen.push(fate);
                    }
                }
            }
        }
        let expected = if seen.len() == 1 { seen[0] } else { Fate::Unknown };
        prop_assert_eq!(fate(None, peer), expected, "filled in: {:?}", seen);
    }
}

proptest! {
    /// Whatever an input says, however impossible, there is an answer.
    #[test]
    fn no_description_makes_the_view_panic(
        functions in prop::collection::vec((any::<[u8; 6]>(), any::<[u16; 6]>(), any::<u64>()), 1..7),
    ) {
        let mut builder = Builder::new();
        for ([bus, devfn, kind, secondary, subordinate, flags], [control, capability, base, limit, vector, physical], bar) in functions {
            let address = PciAddr::new(0, bus % 6, DevFn::new(devfn & 0x0b));
            let mut info = FunctionInfo::new(address, Position::ByBusNumber);
            info.registers.port_type = match kind % 12 {
                11 => Fact::Unknown,
                10 => Fact::Known(None),
                other => Fact::Known(Some(PortType::from_field(other))),
            };
            let is_bridge = flags & 1 != 0;
            info.registers.header = (flags & 2 == 0).then_some(if is_bridge { HeaderType::Bridge } else { HeaderType::Device });
            if is_bridge {
                info.registers.buses = Some(BridgeBuses { primary: bus, secondary: secondary % 7, subordinate: subordinate % 9 });
            }
            info.registers.express.port_number = (flags & 4 != 0).then_some(devfn);
            let mut registers = AcsRegisters::standard(
                None,
                AcsBits::from_bits_retain(capability),
                AcsBits::from_bits_retain(control),
                vec![u32::from(vector); usize::from(flags >> 5)],
            );
            if flags & 8 != 0 {
                registers.control = Fact::Unknown;
            }
            info.registers.acs = if flags & 16 != 0 { Acs::Present(registers) } else { Acs::Unknown(AcsUnread::NeverSeen) };
            let first = u64::from(base) << 40;
            let window = AddrRange::from_inclusive(BusAddr::new(first), BusAddr::new(u64::from(limit) << 40 | 0xf_ffff));
            info.registers.windows = BridgeWindows { memory: Fact::Known(window), prefetchable: Fact::Unknown };
            info.bars = vec![Bar { index: 0, cpu: None, bus: Some(BusAddr::new(bar)), size: Some(Bytes::new(u64::from(limit))), prefetchable: false }];
            info.physfn = (physical & 3 == 0).then(|| PciAddr::new(0, (physical >> 8) as u8 % 6, DevFn::new(0)));
            builder.function(info);
        }
        let topology = builder.build();
        let view = FabricView::new(&topology);
        for (from, _) in topology.functions() {
            for (to, _) in topology.functions() {
                let target = Target::largest_bar(&topology, to);
                for handed in [Handed::Bus, Handed::CpuPhysical, Handed::Iova, Handed::Translated] {
                    for kind in [Kind::Write, Kind::Read, Kind::Atomic] {
                        let passage = view.pass(from, &target, kind, handed);
                        // Nothing but an arrival goes without a reason.
                        let reasons = view.explain(from, &target, kind, handed).reasons;
                        prop_assert!(passage.fate == Fate::Arrives || !reasons.is_empty(), "{passage:?}");
                    }
                }
            }
            for at in [At::Untranslated, At::TranslationRequest, At::Translated] {
                for (first, last) in [(0, u64::MAX - 1), (1 << 40, u64::MAX)] {
                    let asked = AddrRange::from_inclusive(BusAddr::new(first), BusAddr::new(last)).unwrap();
                    let stretches = view.follow(from, at, asked);
                    prop_assert_eq!(stretches.first().map(|one| one.range.start()), Some(asked.start()));
                    prop_assert_eq!(stretches.last().map(|one| one.range.last()), Some(asked.last()));
                    for two in stretches.windows(2) {
                        prop_assert_eq!(two[0].range.last().checked_add(Bytes::new(1)), Some(two[1].range.start()));
                        prop_assert_ne!(&two[0].led, &two[1].led);
                    }
                    // A byte alone fares as the stretch that it is part of.
                    for stretch in &stretches {
                        for byte in [stretch.range.start(), stretch.range.last()] {
                            let alone = view.follow(from, at, AddrRange::new(byte, Bytes::new(1)).unwrap());
                            prop_assert_eq!(&alone[0].led, &stretch.led, "{}", byte);
                        }
                    }
                }
            }
        }
    }
}
