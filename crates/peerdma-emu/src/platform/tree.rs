//! Finds out how ports and functions hang together, and checks their addresses.
//!
//! Bus numbers grow strictly downwards. That is checked first, against parents as
//! named, and everything after it relies on it: no chain of parents comes back to
//! itself, and ascending order of bus numbers is an order in which parents come
//! before their children.

use super::error::{PlatformError, Source};
use super::model::{BusesBelow, HostBridge, HostBridgeId, Parent, PortId};
use super::problem::{Buses, TreeProblem};
use super::raw;
use super::words::PortKind;
use peerdma::pcie::PciAddr;
use std::collections::BTreeMap;
use std::ops::Range;
use toml::Spanned;

/// Where a port or function is.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) parent: Parent,
    pub(super) host: HostBridgeId,
    pub(super) address: PciAddr,
}

/// Places of everything, in the file's order.
pub(super) struct Tree {
    pub(super) ports: Vec<Place>,
    pub(super) functions: Vec<Place>,
    /// Buses below each port.
    pub(super) below: Vec<Option<BusesBelow>>,
    /// Number of each port.
    pub(super) numbers: Vec<u8>,
    /// Ports, every parent before its children.
    pub(super) parents_first: Vec<usize>,
}

/// What ports and functions have in common.
struct Node<'r> {
    name: &'r Spanned<String>,
    bdf: &'r Spanned<String>,
    parent: Parent,
    address: PciAddr,
    /// Whether the address was written with a domain.
    with_domain: bool,
}

struct Checker<'r> {
    source: Source<'r>,
    hosts: &'r [HostBridge],
    raw_ports: &'r [raw::Port],
}

impl Tree {
    pub(super) fn new(source: Source<'_>, file: &raw::File, hosts: &[HostBridge]) -> Result<Self, PlatformError> {
        let checker = Checker { source, hosts, raw_ports: &file.port };
        let parents = names(source, file)?;
        let mut nodes = Vec::with_capacity(file.port.len() + file.function.len());
        for port in file.port.iter() {
            let parent = checker.parent_of(&parents, &port.parent, Some(port.kind))?;
            nodes.push(checker.node(&port.name, &port.bdf, parent)?);
        }
        for function in file.function.iter() {
            let parent = checker.parent_of(&parents, &function.parent, None)?;
            nodes.push(checker.node(&function.name, &function.bdf, parent)?);
        }
        let port_count = file.port.len();
        checker.buses_grow(&nodes)?;
        let mut parents_first: Vec<usize> = (0..port_count).collect();
        parents_first.sort_by_key(|&port| (nodes[port].address.bus(), port));

        let places = checker.places(&nodes, &parents_first)?;
        checker.addresses_differ(&nodes, &places, file)?;
        let below = checker.buses_below(&nodes, &parents_first)?;
        checker.ranges_apart(&nodes, &below)?;
        let numbers = numbers(&nodes[..port_count]);
        let functions = places[port_count..].to_vec();
        let mut ports = places;
        ports.truncate(port_count);
        Ok(Self { ports, functions, below, numbers, parents_first })
    }
}

/// Names of everything that can be a parent, all names being checked.
fn names<'r>(source: Source<'_>, file: &'r raw::File) -> Result<BTreeMap<&'r str, Parent>, PlatformError> {
    let hosts = file.host_bridge.iter().enumerate();
    let hosts = hosts.map(|(index, host)| (&host.name, Some(Parent::HostBridge(HostBridgeId(index)))));
    let ports = file.port.iter().enumerate().map(|(index, port)| (&port.name, Some(Parent::Port(PortId(index)))));
    let functions = file.function.iter().map(|function| (&function.name, None));

    let (mut seen, mut parents) = (BTreeMap::<&str, Range<usize>>::new(), BTreeMap::new());
    for (name, parent) in hosts.chain(ports).chain(functions) {
        let text = name.get_ref().as_str();
        if !is_name(text) {
            return Err(source.error(&name.span(), TreeProblem::Name { name: text.to_string() }));
        }
        if let Some(first) = seen.insert(text, name.span()) {
            // Host bridges, ports and functions may be interleaved in the file.
            let (first, second) =
                if first.start < name.span().start { (first, name.span()) } else { (name.span(), first) };
            let problem = TreeProblem::NameTaken { name: text.to_string(), line: source.line(&first) };
            return Err(source.error(&second, problem));
        }
        if let Some(parent) = parent {
            parents.insert(text, parent);
        }
    }
    Ok(parents)
}

/// Names stand on command lines beside addresses, `gpu0/bar1`, so they hold neither `/` nor `:`.
fn is_name(text: &str) -> bool {
    text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}

impl Checker<'_> {
    fn error(&self, at: &Spanned<String>, problem: TreeProblem) -> PlatformError {
        self.source.error(&at.span(), problem)
    }

    /// Resolves a parent's name; `child` is the port's kind, or `None` for a function.
    fn parent_of(
        &self,
        parents: &BTreeMap<&str, Parent>,
        name: &Spanned<String>,
        child: Option<PortKind>,
    ) -> Result<Parent, PlatformError> {
        let Some(&parent) = parents.get(name.get_ref().as_str()) else {
            return Err(self.error(name, TreeProblem::NoSuchParent { parent: name.get_ref().clone() }));
        };
        let kind = match parent {
            Parent::HostBridge(_) => None,
            Parent::Port(port) => Some(self.raw_ports[port.0].kind),
        };
        use PortKind::{Downstream, PciePci, Root, Upstream};
        let (fits, wanted) = match child {
            Some(Root) => (kind.is_none(), "a host bridge"),
            Some(Upstream | PciePci) => (matches!(kind, Some(Root | Downstream)), "a root port or a downstream port"),
            Some(Downstream) => (kind == Some(Upstream), "an upstream port"),
            None => (
                matches!(kind, None | Some(Root | Downstream | PciePci)),
                "a host bridge, a root port, a downstream port or a PCIe-to-PCI bridge",
            ),
        };
        if fits {
            return Ok(parent);
        }
        let problem = TreeProblem::WrongParent {
            child: child.map_or("a function", TreeProblem::port_article),
            wanted,
            parent: name.get_ref().clone(),
            found: kind.map_or("a host bridge", TreeProblem::port_article),
        };
        Err(self.error(name, problem))
    }

    fn node<'n>(
        &self,
        name: &'n Spanned<String>,
        bdf: &'n Spanned<String>,
        parent: Parent,
    ) -> Result<Node<'n>, PlatformError> {
        let text = bdf.get_ref();
        let Ok(address) = text.parse() else {
            return Err(self.error(bdf, TreeProblem::NotAnAddress { text: text.clone() }));
        };
        let with_domain = text.bytes().filter(|&byte| byte == b':').count() > 1;
        Ok(Node { name, bdf, parent, address, with_domain })
    }

    fn buses_grow(&self, nodes: &[Node<'_>]) -> Result<(), PlatformError> {
        for node in nodes {
            let bus = node.address.bus();
            match node.parent {
                Parent::HostBridge(host) => {
                    let host = &self.hosts[host.0];
                    if bus != host.root_bus {
                        let host_bridge = host.name.clone();
                        return Err(
                            self.error(node.bdf, TreeProblem::NotOnRootBus { bus, root: host.root_bus, host_bridge })
                        );
                    }
                }
                Parent::Port(port) => {
                    let above = &nodes[port.0];
                    let parent_bus = above.address.bus();
                    if bus <= parent_bus {
                        let parent = above.name.get_ref().clone();
                        return Err(self.error(node.bdf, TreeProblem::NotBelow { bus, parent, parent_bus }));
                    }
                }
            }
        }
        Ok(())
    }

    /// Hands the host bridge and its segment down, ports first.
    fn places(&self, nodes: &[Node<'_>], parents_first: &[usize]) -> Result<Vec<Place>, PlatformError> {
        let mut hosts = vec![HostBridgeId(0); nodes.len()];
        for index in parents_first.iter().copied().chain(parents_first.len()..nodes.len()) {
            hosts[index] = match nodes[index].parent {
                Parent::HostBridge(host) => host,
                Parent::Port(port) => hosts[port.0],
            };
        }
        let places = nodes.iter().zip(hosts).map(|(node, id)| {
            let host = &self.hosts[id.0];
            let host_bridge = || host.name.clone();
            if node.with_domain && node.address.domain() != host.segment {
                let problem = TreeProblem::WrongSegment {
                    address: node.address,
                    segment: host.segment,
                    host_bridge: host_bridge(),
                };
                return Err(self.error(node.bdf, problem));
            }
            let address = PciAddr::new(host.segment, node.address.bus(), node.address.devfn());
            if !(host.root_bus..=host.last_bus).contains(&address.bus()) {
                let buses = Buses { first: host.root_bus, last: host.last_bus };
                return Err(
                    self.error(node.bdf, TreeProblem::OutsideBuses { address, buses, host_bridge: host_bridge() })
                );
            }
            Ok(Place { parent: node.parent, host: id, address })
        });
        places.collect()
    }

    fn addresses_differ(&self, nodes: &[Node<'_>], places: &[Place], file: &raw::File) -> Result<(), PlatformError> {
        let mut seen = BTreeMap::new();
        for (node, place) in nodes.iter().zip(places) {
            let address = place.address;
            let host = &self.hosts[place.host.0];
            if let Some(first) = &file.host_bridge[place.host.0].first_device
                && address.bus() == host.root_bus
                && address.devfn().as_u8() == 0
            {
                let (host_bridge, line) = (host.name.clone(), self.source.line(&first.span()));
                return Err(self.error(node.bdf, TreeProblem::FirstDeviceThere { address, host_bridge, line }));
            }
            let Some(other) = seen.insert(address, node) else { continue };
            let (first, second) =
                if other.bdf.span().start < node.bdf.span().start { (other, node) } else { (node, other) };
            let (other, line) = (first.name.get_ref().clone(), self.source.line(&first.bdf.span()));
            return Err(self.error(second.bdf, TreeProblem::AddressTaken { address, other, line }));
        }
        Ok(())
    }

    /// Takes the bus below a port from its children, and the last one from theirs.
    fn buses_below(
        &self,
        nodes: &[Node<'_>],
        parents_first: &[usize],
    ) -> Result<Vec<Option<BusesBelow>>, PlatformError> {
        let mut below: Vec<Option<BusesBelow>> = vec![None; parents_first.len()];
        let mut first_child: Vec<Option<&Node<'_>>> = vec![None; parents_first.len()];
        for node in nodes {
            let Parent::Port(port) = node.parent else { continue };
            let bus = node.address.bus();
            let Some(sibling) = first_child[port.0] else {
                first_child[port.0] = Some(node);
                below[port.0] = Some(BusesBelow { secondary: bus, subordinate: bus });
                continue;
            };
            if sibling.address.bus() != bus {
                let problem = TreeProblem::OtherBusThanSibling {
                    bus,
                    parent: nodes[port.0].name.get_ref().clone(),
                    sibling: sibling.name.get_ref().clone(),
                    sibling_bus: sibling.address.bus(),
                    line: self.source.line(&sibling.bdf.span()),
                };
                return Err(self.error(node.bdf, problem));
            }
        }
        for &port in parents_first.iter().rev() {
            let (Parent::Port(parent), Some(buses)) = (nodes[port].parent, below[port]) else { continue };
            if let Some(above) = &mut below[parent.0] {
                above.subordinate = above.subordinate.max(buses.subordinate);
            }
        }
        Ok(below)
    }

    /// Buses below the ports of one parent are apart; that nests all the others.
    fn ranges_apart(&self, nodes: &[Node<'_>], below: &[Option<BusesBelow>]) -> Result<(), PlatformError> {
        let mut siblings: Vec<(Parent, BusesBelow, usize)> =
            below.iter().enumerate().filter_map(|(port, buses)| Some((nodes[port].parent, (*buses)?, port))).collect();
        let order = |parent: Parent| match parent {
            Parent::HostBridge(host) => (0, host.0),
            Parent::Port(port) => (1, port.0),
        };
        siblings.sort_by_key(|&(parent, buses, port)| (order(parent), buses.secondary, port));
        for pair in siblings.windows(2) {
            let &[(parent, buses, port), (other_parent, other_buses, other_port)] = pair else { continue };
            if parent != other_parent || buses.subordinate < other_buses.secondary {
                continue;
            }
            let ends = |buses: BusesBelow| Buses { first: buses.secondary, last: buses.subordinate };
            let mut sides = [(port, ends(buses)), (other_port, ends(other_buses))];
            sides.sort_by_key(|&(port, _)| nodes[port].name.span().start);
            let [(first, first_buses), (second, second_buses)] = sides;
            let problem = TreeProblem::BusesCross {
                port: nodes[second].name.get_ref().clone(),
                buses: second_buses,
                other: nodes[first].name.get_ref().clone(),
                other_buses: first_buses,
                line: self.source.line(&nodes[first].name.span()),
            };
            return Err(self.error(nodes[second].name, problem));
        }
        Ok(())
    }
}

/// Port numbers, which a file does not state.
///
/// Switches commonly number their ports as the devices of the internal bus, so that
/// is taken; root ports that share a device would collide and are counted instead.
fn numbers(ports: &[Node<'_>]) -> Vec<u8> {
    let mut order: Vec<usize> = (0..ports.len()).collect();
    let key = |port: usize| match ports[port].parent {
        Parent::HostBridge(host) => (0, host.0),
        Parent::Port(parent) => (1, parent.0),
    };
    order.sort_by_key(|&port| (key(port), ports[port].address.devfn()));
    let mut numbers = vec![0; ports.len()];
    for siblings in order.chunk_by(|&a, &b| key(a) == key(b)) {
        let device = |port: usize| ports[port].address.devfn().device();
        let shared = siblings.windows(2).any(|pair| matches!(pair, &[a, b] if device(a) == device(b)));
        for (position, &port) in (0..=u8::MAX).zip(siblings) {
            numbers[port] = if shared { position } else { device(port) };
        }
    }
    numbers
}
