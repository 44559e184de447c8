//! Rules that single TLPs meet, each at a machine with two host bridges.
//!
//! ```text
//! host 0, segment 0, 9000_0000-BFFF_FFFF
//!   RP0 00:01.0 buses 01-0F  9000_0000-93FF_FFFF > USP 01:00.0
//!     DSP0 02:00.0 pn 1 bus 03  9000_0000 16M > A 03:00.0  9000_0000 1M
//!     DSP1 02:01.0 pn 2 bus 04  9100_0000 16M > B 04:00.0  9100_0000 1M
//!     DSP2 02:02.0 pn 3 bus 05-07  9200_0000 16M > BR 05:00.0, a bridge to PCI, bus 06-07  9200_0000 8M
//!       P 06:01.0  9200_0000 1M   Q 06:02.0  9210_0000 1M
//!       PB 06:03.0, a bridge of PCI, bus 07  9220_0000 1M > R 07:01.0  9220_0000 1M
//!   RP1 00:02.0 bus 10  A000_0000 16M > C 10:00.0  A000_0000 1M
//!   I 00:03.0, integrated  B000_0000 1M
//! host 1, segment 1, the same bus addresses at CPU addresses 50_9000_0000 on
//!   RP2 1:00:01.0 bus 01  9000_0000 16M > X 1:01:00.0  9000_0000 1M
//! memory below 8000_0000
//! ```

mod bridges;
mod ports;
mod root;

use super::{Above, Arrival, Completion, CompletionArrival, Egress, Ending, Fabric, Host, HostId, HostWindow};
use super::{Node, NodeId, Root, Tree};
use crate::config::{AcsDescription, BarDescription, Buses, Description, ExpressDescription, Header, Space};
use crate::iommu::Iommu;
use crate::platform::PeerForwarding;
use crate::wire::{AddressType, Attributes, Head, Kind, Requester};
use peerdma::addr::{AddrRange, Address, BusAddr, Bytes, PhysAddr};
use peerdma::pcie::PciAddr;
use peerdma::pcie::express::{AtomicSizes, PortType};
use std::sync::Arc;

const MIB: u64 = 1 << 20;

/// The machine before it is put together, for a test to change.
struct Plan {
    parts: Vec<(&'static str, &'static str, Option<&'static str>, Description)>,
    hosts: Vec<Host>,
    iommu: Option<Arc<Iommu>>,
}

/// The machine.
struct Net {
    fabric: Fabric,
    names: Vec<&'static str>,
}

fn range<A: Address>(start: A, len: u64) -> AddrRange<A> {
    AddrRange::new(start, Bytes::new(len)).expect("ranges of these tests end below the top")
}

fn bar(start: u64) -> BarDescription {
    let (address, size) = (BusAddr::new(start), Bytes::new(MIB));
    BarDescription { index: 0, address, size, prefetchable: false, is_64_bit: false, resizable: Vec::new() }
}

fn express(port_type: PortType) -> ExpressDescription {
    ExpressDescription {
        max_payload: Bytes::new(256),
        max_read_request: Bytes::new(4096),
        atomic_routing: true,
        atomic_requester: true,
        atomic_completer: AtomicSizes::ALL,
        ..ExpressDescription::reset(port_type)
    }
}

fn bridge(port_type: PortType, number: u8, buses: [u8; 3], window: (u64, u64)) -> Description {
    let [primary, secondary, subordinate] = buses;
    let capability = if port_type == PortType::UpstreamPort { None } else { Some(0x00ff) };
    Description {
        buses: Some(Buses { primary, secondary, subordinate }),
        memory_window: Some(range(BusAddr::new(window.0), window.1)),
        express: Some(ExpressDescription { port_number: number, ..express(port_type) }),
        acs: capability.map(|capability| AcsDescription { capability, ..AcsDescription::default() }),
        ..Description::express(port_type)
    }
}

fn endpoint(port_type: PortType, start: u64) -> Description {
    Description { bars: vec![bar(start)], express: Some(express(port_type)), ..Description::express(port_type) }
}

fn conventional(start: u64) -> Description {
    Description { bars: vec![bar(start)], memory_enabled: true, bus_master: true, ..Description::default() }
}

impl Plan {
    fn new() -> Self {
        use PortType::{DownstreamPort, Endpoint, PciExpressToPci, RootComplexIntegrated, RootPort, UpstreamPort};
        let switch = (0x9000_0000, 64 * MIB);
        let mut to_pci = bridge(PciExpressToPci, 0, [5, 6, 7], (0x9200_0000, 8 * MIB));
        to_pci.acs = None;
        let of_pci = Description {
            header: Header::Bridge,
            express: None,
            acs: None,
            ..bridge(PciExpressToPci, 0, [6, 7, 7], (0x9220_0000, MIB))
        };
        let parts = vec![
            ("RP0", "00:01.0", None, bridge(RootPort, 1, [0, 1, 0xf], switch)),
            ("USP", "01:00.0", Some("RP0"), bridge(UpstreamPort, 0, [1, 2, 0xf], switch)),
            ("DSP0", "02:00.0", Some("USP"), bridge(DownstreamPort, 1, [2, 3, 3], (0x9000_0000, 16 * MIB))),
            ("A", "03:00.0", Some("DSP0"), endpoint(Endpoint, 0x9000_0000)),
            ("DSP1", "02:01.0", Some("USP"), bridge(DownstreamPort, 2, [2, 4, 4], (0x9100_0000, 16 * MIB))),
            ("B", "04:00.0", Some("DSP1"), endpoint(Endpoint, 0x9100_0000)),
            ("DSP2", "02:02.0", Some("USP"), bridge(DownstreamPort, 3, [2, 5, 7], (0x9200_0000, 16 * MIB))),
            ("BR", "05:00.0", Some("DSP2"), to_pci),
            ("P", "06:01.0", Some("BR"), conventional(0x9200_0000)),
            ("Q", "06:02.0", Some("BR"), conventional(0x9210_0000)),
            ("PB", "06:03.0", Some("BR"), of_pci),
            ("R", "07:01.0", Some("PB"), conventional(0x9220_0000)),
            ("RP1", "00:02.0", None, bridge(RootPort, 2, [0, 0x10, 0x10], (0xa000_0000, 16 * MIB))),
            ("C", "10:00.0", Some("RP1"), endpoint(Endpoint, 0xa000_0000)),
            ("I", "00:03.0", None, endpoint(RootComplexIntegrated, 0xb000_0000)),
            ("RP2", "1:00:01.0", None, bridge(RootPort, 1, [0, 1, 1], (0x9000_0000, 16 * MIB))),
            ("X", "1:01:00.0", Some("RP2"), endpoint(Endpoint, 0x9000_0000)),
        ];
        let host = |segment, cpu| Host {
            segment,
            root_bus: 0,
            windows: vec![HostWindow {
                cpu: range(PhysAddr::new(cpu), 0x3000_0000),
                bus: range(BusAddr::new(0x9000_0000), 0x3000_0000),
            }],
            peer: PeerForwarding::Forwards,
            interrupts: Some(range(BusAddr::new(0xfee0_0000), MIB)),
            replaces_requester: false,
            between_ports: false,
            splits: false,
        };
        Self { parts, hosts: vec![host(0, 0x9000_0000), host(1, 0x50_9000_0000)], iommu: None }
    }

    fn part(&mut self, name: &str) -> &mut Description {
        &mut self.parts.iter_mut().find(|part| part.0 == name).expect("a name of the machine").3
    }

    /// Sets bits of a port's ACS control register.
    fn control(&mut self, name: &str, bits: u16) {
        self.part(name).acs.as_mut().expect("a port with access control").control |= bits;
    }

    fn payload(&mut self, names: &[&str], payload: u64) {
        for name in names {
            self.part(name).express.as_mut().expect("not on PCI").max_payload = Bytes::new(payload);
        }
    }

    fn build(self) -> Net {
        let mut tree = Tree::new(self.hosts.len());
        let mut names: Vec<&'static str> = Vec::new();
        for (name, address, above, description) in self.parts {
            let address: PciAddr = address.parse().expect("addresses of these tests are addresses");
            let above = match above {
                None => Above::Root(HostId::new(address.domain() as usize)),
                Some(port) => Above::Port(NodeId::new(names.iter().position(|other| *other == port).expect("above"))),
            };
            let config = Arc::new(Space::new(&description));
            tree.add(Node { address, config, above, peers_inside: false, group: None }).expect("its port is there");
            names.push(name);
        }
        let memory = vec![range(PhysAddr::new(0), 0x8000_0000)];
        Net { fabric: Fabric::new(tree, Root::new(self.hosts, memory, self.iommu)), names }
    }
}

impl Net {
    fn node(&self, name: &str) -> NodeId {
        NodeId::new(self.names.iter().position(|other| *other == name).expect("a name of the machine"))
    }

    fn head(&self, kind: Kind, from: &str, address: u64, len: u64) -> Head {
        let requester = Requester::plain(self.fabric.tree().node(self.node(from)).address);
        let (at, attributes) = (AddressType::Untranslated, Attributes::default());
        Head { kind, requester, at, attributes, address: BusAddr::new(address), len: Bytes::new(len) }
    }

    /// The way of a request, or of its first piece: each egress, the head as it arrived, and the end.
    fn send(&self, from: &str, head: Head) -> (Vec<Egress>, Head, Arrival) {
        self.follow(self.fabric.leave(self.node(from), head), head)
    }

    fn follow(&self, first: Arrival, head: Head) -> (Vec<Egress>, Head, Arrival) {
        let (mut arrival, mut head, mut hops) = (first, head, Vec::new());
        while let Arrival::Forward { egress, head: next, cut, .. } = arrival {
            head = next.at(next.address, cut.map_or(next.len, |cut| cut.min(next.len)));
            hops.push(egress);
            assert!(hops.len() < 64, "a circle");
            arrival = self.fabric.arrive(egress, head);
        }
        (hops, head, arrival)
    }

    /// The end of a write of four bytes, in words.
    fn write(&self, from: &str, address: u64) -> String {
        self.end(self.send(from, self.head(Kind::Write, from, address, 4)).2)
    }

    fn read(&self, from: &str, address: u64) -> String {
        self.end(self.send(from, self.head(Kind::Read, from, address, 4)).2)
    }

    fn end(&self, arrival: Arrival) -> String {
        let name = |node: NodeId| self.names[node.index()];
        match arrival {
            Arrival::Function { node, .. } => name(node).into(),
            Arrival::Memory { at, .. } => format!("memory {at}"),
            Arrival::End(ending) => self.ending(ending),
            Arrival::AllOnes { .. } => "ones".into(),
            other => format!("{other:?}"),
        }
    }

    fn ending(&self, ending: Ending) -> String {
        let name = |node: NodeId| self.names[node.index()];
        match ending {
            Ending::Violation(node) => format!("violation at {}", name(node)),
            Ending::Unsupported(node) => format!("unsupported at {}", name(node)),
            Ending::Undefined(node) => format!("undefined at {}", name(node)),
            Ending::Malformed(node) => format!("malformed at {}", name(node)),
            Ending::Unexpected(node) => format!("unexpected at {}", name(node)),
            Ending::LinkDown(node) => format!("link down at {}", name(node)),
            Ending::NotForwarded(_) => "not forwarded".into(),
            Ending::UndefinedRoot(_) => "undefined".into(),
            Ending::Nowhere(_) => "nowhere".into(),
            other => format!("{other:?}"),
        }
    }

    /// Where a completion of a function ends.
    fn complete(&self, from: &str, requester: &str, len: u64) -> String {
        let requester = requester.parse().expect("an address");
        let completion = Completion { requester, relaxed: false, id_ordered: false, len: Bytes::new(len) };
        let mut arrival = self.fabric.leave_completion(self.node(from), &completion);
        for _ in 0..64 {
            match arrival {
                CompletionArrival::Forward(egress) => arrival = self.fabric.arrive_completion(egress, &completion),
                CompletionArrival::Function(node) => return self.names[node.index()].into(),
                CompletionArrival::Root(host) => return format!("root {}", host.index()),
                CompletionArrival::End(ending) => return self.ending(ending),
            }
        }
        "a circle".into()
    }
}
