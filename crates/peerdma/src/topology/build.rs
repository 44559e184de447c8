//! From a list of functions to a tree.
//!
//! Inputs with paths (sysfs, captures, platform files) say where a function
//! hangs. `lspci` text does not; there bus numbers decide:
//!
//! 1. the bridge whose secondary bus it is;
//! 2. else, if some physical function's SR-IOV offset and stride yield it, it is
//!    that one's virtual function;
//! 3. else, if it lies inside a bridge's range, or a listed bridge did not show its
//!    bus numbers and could be the one, the parent is unknown;
//! 4. else its bus is a root bus.

use super::{
    Function, FunctionId, FunctionInfo, HostBridge, HostBridgeId, IommuGroup, Machine, Parent, Position, Topology,
};
use crate::pcie::acs::{Acs, AcsUnread};
use crate::pcie::{Fact, PciAddr};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::fmt;

/// Two parts of an input that cannot both be true.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Contradiction {
    /// A function is described more than once, differently.
    DescribedTwice(PciAddr),
    /// Several bridges claim the same secondary bus.
    BusClaimedTwice {
        /// One of them.
        first: PciAddr,
        /// Another.
        second: PciAddr,
        /// The bus.
        bus: u8,
    },
    /// A function is said to hang below a bridge that is not there.
    BridgeMissing {
        /// The function.
        function: PciAddr,
        /// The bridge.
        bridge: PciAddr,
    },
    /// A function hangs below itself.
    HangsBelowItself(PciAddr),
    /// A virtual function's physical function is not there or is virtual itself.
    PhysicalFunctionMissing {
        /// The virtual function.
        function: PciAddr,
        /// What it names as its physical function.
        physical: PciAddr,
    },
    /// A bridge's secondary bus is not above the bus it sits on.
    SecondaryNotBelow {
        /// The bridge.
        bridge: PciAddr,
        /// Its secondary bus.
        bus: u8,
    },
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DescribedTwice(address) => write!(f, "{address} is described twice, differently"),
            Self::BusClaimedTwice { first, second, bus } => {
                write!(f, "{first} and {second} both have bus {bus:02x} as their secondary bus")
            }
            Self::BridgeMissing { function, bridge } => {
                write!(f, "{function} is said to hang below {bridge}, which is not in the input")
            }
            Self::HangsBelowItself(address) => write!(f, "{address} is said to hang below itself"),
            Self::PhysicalFunctionMissing { function, physical } => {
                write!(f, "{function} names {physical} as its physical function, which cannot be one")
            }
            Self::SecondaryNotBelow { bridge, bus } => {
                write!(f, "{bridge} has bus {bus:02x} as its secondary bus, which is not above the bus it sits on")
            }
        }
    }
}

/// Collects functions and builds a [`Topology`].
#[derive(Clone, Debug, Default)]
pub struct Builder {
    functions: BTreeMap<PciAddr, FunctionInfo>,
    groups: Vec<IommuGroup>,
    machine: Machine,
    contradictions: Vec<Contradiction>,
}

impl Builder {
    /// An empty machine.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a function. One that was added before, and differs, is a contradiction:
    /// its registers and its place become unknown.
    pub fn function(&mut self, info: FunctionInfo) {
        let address = info.address;
        if let Some(known) = self.functions.get_mut(&address) {
            if *known != info {
                known.registers.acs = Acs::Unknown(AcsUnread::Contradicted);
                known.registers.port_type = Fact::Unknown;
                known.registers.id = None;
                known.ids_by_name.clear();
                self.contradictions.push(Contradiction::DescribedTwice(address));
            }
            return;
        }
        self.functions.insert(address, info);
    }

    /// Whether a function of this address was added.
    pub fn holds(&self, address: PciAddr) -> bool {
        self.functions.contains_key(&address)
    }

    /// Adds an IOMMU group.
    pub fn group(&mut self, group: IommuGroup) {
        self.groups.push(group);
    }

    /// The facts about the machine.
    pub fn machine(&mut self) -> &mut Machine {
        &mut self.machine
    }

    /// Builds the tree.
    pub fn build(self) -> Topology {
        let Self { functions, mut groups, machine, mut contradictions } = self;
        let mut addresses: Vec<PciAddr> = functions.keys().copied().collect();
        addresses.sort_unstable();
        let buses = BusMap::new(&functions, &addresses, &mut contradictions);
        let find = |address: PciAddr| addresses.binary_search(&address).ok().map(|index| FunctionId(index as u32));

        let mut places: Vec<Place> = Vec::with_capacity(addresses.len());
        for info in functions.values() {
            places.push(buses.place(info, &find, &mut contradictions));
        }
        check_physical(&addresses, &mut places, &mut contradictions);
        inherit(&functions, &mut places);
        break_cycles(&addresses, &mut places, &mut contradictions);

        let mut roots: BTreeSet<(u32, u8)> = BTreeSet::new();
        for (info, place) in functions.values().zip(&places) {
            if let Above::Root(bus) = place.above {
                roots.insert((info.address.domain(), bus));
            }
        }
        let roots: Vec<(u32, u8)> = roots.into_iter().collect();
        let mut host_bridges: Vec<HostBridge> =
            roots.iter().map(|&(domain, bus)| HostBridge { domain, bus, first: None }).collect();
        let functions: Vec<Function> = functions
            .into_values()
            .zip(&places)
            .enumerate()
            .map(|(index, (info, place))| {
                let parent = match place.above {
                    Above::Bridge(id) => Parent::Bridge(id),
                    Above::Unknown(enclosing) => Parent::Unknown { enclosing },
                    Above::Root(bus) => {
                        // Every root was collected from these very places.
                        let root = roots.partition_point(|&root| root < (info.address.domain(), bus));
                        let on_root_bus = info.address.bus() == bus && place.physical.is_none();
                        if on_root_bus && host_bridges[root].first.is_none() {
                            host_bridges[root].first = Some(FunctionId(index as u32));
                        }
                        Parent::Root(HostBridgeId(root as u32))
                    }
                };
                Function { info, parent, physical: place.physical }
            })
            .collect();
        groups.sort_by_key(|group| group.id);
        Topology { functions, host_bridges, groups, machine, contradictions }
    }
}

#[derive(Clone, Copy)]
enum Above {
    Root(u8),
    Bridge(FunctionId),
    Unknown(Option<FunctionId>),
}

struct Place {
    above: Above,
    physical: Option<FunctionId>,
}

struct Bridge {
    id: FunctionId,
    secondary: u8,
    subordinate: u8,
}

impl Bridge {
    fn has_below(&self, bus: u8) -> bool {
        (self.secondary..=self.subordinate).contains(&bus)
    }
}

/// Bus numbers of all bridges, by domain.
struct BusMap {
    bridges: BTreeMap<u32, Vec<Bridge>>,
    /// Buses with a bridge whose own bus numbers were not read.
    mute: BTreeMap<u32, BTreeSet<u8>>,
    /// Virtual functions that the physical ones' registers yield.
    virtuals: BTreeMap<PciAddr, FunctionId>,
}

impl BusMap {
    fn new(
        functions: &BTreeMap<PciAddr, FunctionInfo>,
        addresses: &[PciAddr],
        contradictions: &mut Vec<Contradiction>,
    ) -> Self {
        let mut map = Self { bridges: BTreeMap::new(), mute: BTreeMap::new(), virtuals: BTreeMap::new() };
        for (index, (&address, info)) in functions.iter().enumerate() {
            let id = FunctionId(index as u32);
            if let Fact::Known(Some(sriov)) = info.registers.sriov {
                for offset in sriov.vf_offsets() {
                    if offset != 0
                        && let Some(vf) = address.routing_id_plus(offset)
                    {
                        map.virtuals.entry(vf).or_insert(id);
                    }
                }
            }
            if !info.is_bridge() {
                continue;
            }
            match info.registers.buses {
                // Not configured: nothing is below it.
                Some(buses) if buses.secondary == 0 => {}
                Some(buses) if buses.secondary <= address.bus() => {
                    contradictions.push(Contradiction::SecondaryNotBelow { bridge: address, bus: buses.secondary });
                }
                Some(buses) => {
                    let bridges = map.bridges.entry(address.domain()).or_default();
                    if let Some(other) = bridges.iter().find(|other| other.secondary == buses.secondary) {
                        let first = addresses[other.id.index()];
                        contradictions.push(Contradiction::BusClaimedTwice {
                            first,
                            second: address,
                            bus: buses.secondary,
                        });
                    }
                    bridges.push(Bridge { id, secondary: buses.secondary, subordinate: buses.subordinate });
                }
                None => {
                    map.mute.entry(address.domain()).or_default().insert(address.bus());
                }
            }
        }
        map
    }

    fn place(
        &self,
        info: &FunctionInfo,
        find: &impl Fn(PciAddr) -> Option<FunctionId>,
        contradictions: &mut Vec<Contradiction>,
    ) -> Place {
        let address = info.address;
        let physical = match info.physfn {
            None => None,
            Some(physical) => {
                let found = find(physical).filter(|_| physical != address);
                if found.is_none() {
                    contradictions.push(Contradiction::PhysicalFunctionMissing { function: address, physical });
                }
                found
            }
        };
        match info.position {
            Position::RootBus { bus } => Place { above: Above::Root(bus), physical },
            Position::Below(bridge) => match find(bridge) {
                Some(id) => Place { above: Above::Bridge(id), physical },
                None => {
                    contradictions.push(Contradiction::BridgeMissing { function: address, bridge });
                    Place { above: Above::Unknown(None), physical }
                }
            },
            Position::ByBusNumber => {
                let physical = physical.or_else(|| self.virtuals.get(&address).copied());
                // A virtual function hangs where its physical one does; `inherit` follows.
                let above = physical.map_or_else(|| self.above_by_number(address), |_| Above::Unknown(None));
                Place { above, physical }
            }
        }
    }

    fn above_by_number(&self, address: PciAddr) -> Above {
        let (domain, bus) = (address.domain(), address.bus());
        let bridges = self.bridges.get(&domain).map_or(&[][..], Vec::as_slice);
        let mut claiming = bridges.iter().filter(|bridge| bridge.secondary == bus);
        match (claiming.next(), claiming.next()) {
            (Some(bridge), None) => return Above::Bridge(bridge.id),
            (Some(_), Some(_)) => return Above::Unknown(None),
            (None, _) => {}
        }
        // The innermost range is the one that starts last.
        let enclosing = bridges.iter().filter(|bridge| bridge.has_below(bus)).max_by_key(|bridge| bridge.secondary);
        if let Some(bridge) = enclosing {
            return Above::Unknown(Some(bridge.id));
        }
        // A bridge that did not show its numbers may lead here: one on a lower bus that
        // is not itself inside a range which this bus lies outside of.
        let may_lead_here = |&from: &u8| from < bus && !bridges.iter().any(|bridge| bridge.has_below(from));
        let mute = self.mute.get(&domain).is_some_and(|buses| buses.iter().any(may_lead_here));
        if mute { Above::Unknown(None) } else { Above::Root(bus) }
    }
}

/// A physical function is not virtual itself.
fn check_physical(addresses: &[PciAddr], places: &mut [Place], contradictions: &mut Vec<Contradiction>) {
    for index in 0..places.len() {
        let Some(physical) = places[index].physical else { continue };
        if places[physical.index()].physical.is_some() {
            contradictions.push(Contradiction::PhysicalFunctionMissing {
                function: addresses[index],
                physical: addresses[physical.index()],
            });
            places[index].physical = None;
            places[index].above = Above::Unknown(None);
        }
    }
}

/// Puts virtual functions without a path of their own where their physical ones are.
fn inherit(functions: &BTreeMap<PciAddr, FunctionInfo>, places: &mut [Place]) {
    for (index, info) in functions.values().enumerate() {
        if let (Position::ByBusNumber, Some(physical)) = (info.position, places[index].physical) {
            places[index].above = places[physical.index()].above;
        }
    }
}

/// Cuts every chain of bridges that comes back to itself.
fn break_cycles(addresses: &[PciAddr], places: &mut [Place], contradictions: &mut Vec<Contradiction>) {
    // 0 not visited, 1 on the current walk, 2 known to end.
    let mut state = alloc::vec![0u8; places.len()];
    for start in 0..places.len() {
        let mut walk = Vec::new();
        let mut at = start;
        while state[at] == 0 {
            state[at] = 1;
            walk.push(at);
            let above = match places[at].physical {
                Some(physical) => Some(physical),
                None => match places[at].above {
                    Above::Bridge(bridge) => Some(bridge),
                    Above::Unknown(enclosing) => enclosing,
                    Above::Root(_) => None,
                },
            };
            match above {
                Some(above) => at = above.index(),
                None => break,
            }
        }
        if state[at] == 1 && walk.last() != Some(&at)
            || matches!(places[at].above, Above::Bridge(id) if id.index() == at)
        {
            contradictions.push(Contradiction::HangsBelowItself(addresses[at]));
            places[at].above = Above::Unknown(None);
            places[at].physical = None;
        }
        for visited in walk {
            state[visited] = 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pcie::ClassCode;
    use crate::pcie::decode::{BridgeBuses, HeaderType};
    use crate::pcie::virt::SrIov;

    fn address(text: &str) -> PciAddr {
        text.parse().unwrap()
    }

    fn listed(text: &str) -> FunctionInfo {
        let mut info = FunctionInfo::new(address(text), Position::ByBusNumber);
        info.registers.header = Some(HeaderType::Device);
        info
    }

    fn bridge(text: &str, buses: Option<(u8, u8)>) -> FunctionInfo {
        let mut info = listed(text);
        info.registers.header = Some(HeaderType::Bridge);
        info.registers.class = Some(ClassCode::new(0x060400));
        info.registers.buses =
            buses.map(|(secondary, subordinate)| BridgeBuses { primary: info.address.bus(), secondary, subordinate });
        info
    }

    fn build(functions: impl IntoIterator<Item = FunctionInfo>) -> Topology {
        let mut builder = Builder::new();
        for info in functions {
            builder.function(info);
        }
        builder.build()
    }

    fn parent(topology: &Topology, text: &str) -> Parent {
        topology.upstream(topology.at(address(text)).unwrap())
    }

    #[test]
    fn without_paths_the_bridge_with_that_secondary_bus_is_the_parent() {
        let topology =
            build([bridge("00:01.0", Some((1, 3))), listed("01:00.0"), listed("03:00.0"), listed("80:00.0")]);
        let port = topology.at(address("00:01.0")).unwrap();
        assert_eq!(parent(&topology, "01:00.0"), Parent::Bridge(port));
        assert_eq!(parent(&topology, "03:00.0"), Parent::Unknown { enclosing: Some(port) });
        assert!(matches!(parent(&topology, "80:00.0"), Parent::Root(_)));
        assert_eq!(topology.host_bridges().len(), 2);
    }

    #[test]
    fn a_function_on_a_bus_of_its_own_is_the_vf_that_a_pf_yields() {
        let mut pf = listed("01:00.0");
        pf.registers.sriov =
            Fact::Known(Some(SrIov { enabled: true, num_vfs: 2, total_vfs: 8, first_offset: 0x100, stride: 2 }));
        let functions =
            || [bridge("00:01.0", Some((1, 3))), pf.clone(), listed("02:00.0"), listed("02:00.2"), listed("02:00.4")];
        let topology = build(functions());
        let port = topology.at(address("00:01.0")).unwrap();
        for vf in ["02:00.0", "02:00.2"] {
            assert_eq!(parent(&topology, vf), Parent::Bridge(port));
        }
        assert_eq!(parent(&topology, "02:00.4"), Parent::Unknown { enclosing: Some(port) }, "past the VF count");
    }

    #[test]
    fn a_bridge_that_hides_its_numbers_makes_higher_buses_unknown() {
        let topology = build([bridge("00:01.0", None), listed("00:02.0"), listed("01:00.0")]);
        assert_eq!(parent(&topology, "01:00.0"), Parent::Unknown { enclosing: None });
        assert!(matches!(parent(&topology, "00:02.0"), Parent::Root(_)));
    }

    #[test]
    fn a_bus_claimed_twice_belongs_to_nobody_and_is_reported() {
        let topology = build([bridge("00:01.0", Some((1, 1))), bridge("00:02.0", Some((1, 1))), listed("01:00.0")]);
        assert_eq!(parent(&topology, "01:00.0"), Parent::Unknown { enclosing: None });
        assert!(matches!(topology.contradictions(), [Contradiction::BusClaimedTwice { bus: 1, .. }]));
    }

    #[test]
    fn bridges_in_a_ring_are_cut_open_and_reported() {
        let mut functions = [bridge("00:01.0", None), bridge("00:02.0", None), bridge("00:03.0", None)];
        functions[0].position = Position::Below(address("00:02.0"));
        functions[1].position = Position::Below(address("00:01.0"));
        functions[2].position = Position::Below(address("00:03.0"));
        let topology = build(functions);
        assert_eq!(topology.contradictions().len(), 2);
        for (id, _) in topology.functions() {
            let mut at = id;
            for _ in 0..4 {
                match topology.upstream(at) {
                    Parent::Bridge(above) => at = above,
                    _ => break,
                }
            }
            assert!(!matches!(topology.upstream(at), Parent::Bridge(_)));
        }
    }

    #[test]
    fn a_function_described_twice_differently_loses_its_registers() {
        let mut other = listed("00:02.0");
        other.registers.class = Some(ClassCode::new(0x020000));
        let topology = build([listed("00:02.0"), other, listed("00:03.0"), listed("00:03.0")]);
        assert_eq!(topology.contradictions(), [Contradiction::DescribedTwice(address("00:02.0"))]);
    }

    #[test]
    fn the_first_device_is_the_lowest_on_the_root_bus_itself() {
        let topology = build([listed("00:1f.0"), listed("00:02.0")]);
        let (_, host) = topology.host_bridges().next().unwrap();
        assert_eq!(host.first_device(), topology.at(address("00:02.0")));
    }
}
