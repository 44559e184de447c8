//! From a list of functions to a tree.
//!
//! Inputs with paths (sysfs, captures, platform files) say where a function
//! hangs. `lspci` text does not; there bus numbers decide:
//!
//! 1. the bridge whose secondary bus it is;
//! 2. else, if some physical function's SR-IOV offset and stride yield it, it is
//!    that one's virtual function;
//! 3. else, if it lies inside a bridge's range, or a listed bridge did not show its
//!    bus numbers (or shows impossible ones) and could be the one, the parent is unknown;
//! 4. else its bus is a root bus.

use super::function::BusesBelow;
use super::{
    Function, FunctionId, FunctionInfo, HostBridge, HostBridgeId, IommuGroup, Machine, Parent, Position, Topology,
};
use crate::pcie::acs::{Acs, AcsUnread};
use crate::pcie::decode::Registers;
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
    /// A function is said to hang below a bridge that sits on no lower bus of its domain.
    NotAbove {
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
            Self::NotAbove { function, bridge } => {
                write!(f, "{function} is said to hang below {bridge}, which sits on no lower bus of its domain")
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
    /// Those that were described in two places.
    displaced: BTreeSet<PciAddr>,
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
    /// its registers become unknown, and its place if that differs.
    pub fn function(&mut self, info: FunctionInfo) {
        let address = info.address;
        if let Some(known) = self.functions.get_mut(&address) {
            if *known != info {
                if (known.position, known.physfn) != (info.position, info.physfn) {
                    self.displaced.insert(address);
                }
                // What both say about its being a bridge stays, for the sake of what is below it.
                let (old, new) = (&known.registers, &info.registers);
                known.registers = Registers {
                    class: old.class.filter(|_| old.class == new.class),
                    header: old.header.filter(|_| old.header == new.header),
                    buses: old.buses.filter(|_| old.buses == new.buses),
                    acs: Acs::Unknown(AcsUnread::Contradicted),
                    ..Registers::unread()
                };
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
        let Self { functions, displaced, mut groups, machine, mut contradictions } = self;
        let addresses: Vec<PciAddr> = functions.keys().copied().collect();
        let buses = BusMap::new(&functions, &addresses, &mut contradictions);
        let find = |address: PciAddr| addresses.binary_search(&address).ok().map(|index| FunctionId(index as u32));

        let mut places: Vec<Place> = Vec::with_capacity(addresses.len());
        for info in functions.values() {
            let nowhere = displaced.contains(&info.address);
            places.push(if nowhere { Place::NOWHERE } else { buses.place(info, &find, &mut contradictions) });
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

impl Place {
    const NOWHERE: Self = Self { above: Above::Unknown(None), physical: None };
}

/// The bridge, or bridges, with one secondary bus.
struct Claim {
    id: FunctionId,
    /// There are several, so who is above that bus is unknown.
    contested: bool,
    /// The highest bus that any of them has below it.
    subordinate: u8,
}

/// The buses of one domain.
#[derive(Default)]
struct Domain {
    /// By secondary bus.
    claims: BTreeMap<u8, Claim>,
    /// Buses with a bridge whose own bus numbers are not known.
    untold: BTreeSet<u8>,
}

impl Domain {
    /// The bridge with the innermost range that holds `bus`: the one that starts last.
    fn innermost(&self, bus: u8) -> Option<&Claim> {
        self.claims.range(..=bus).rev().map(|(_, claim)| claim).find(|claim| claim.subordinate >= bus)
    }

    fn above(&self, bus: u8) -> Above {
        match self.innermost(bus) {
            Some(claim) if claim.contested => Above::Unknown(None),
            Some(claim) if self.claims.contains_key(&bus) => Above::Bridge(claim.id),
            Some(claim) => Above::Unknown(Some(claim.id)),
            // A bridge that did not show its numbers may lead here: one on a lower bus that
            // is not itself inside a range, which this bus would then lie in too.
            None if self.untold.first().is_some_and(|&from| from < bus) => Above::Unknown(None),
            None => Above::Root(bus),
        }
    }
}

/// Bus numbers of all bridges, by domain.
struct BusMap {
    domains: BTreeMap<u32, Domain>,
    /// Virtual functions that the physical ones' registers yield.
    virtuals: BTreeMap<PciAddr, PciAddr>,
}

impl BusMap {
    fn new(
        functions: &BTreeMap<PciAddr, FunctionInfo>,
        addresses: &[PciAddr],
        contradictions: &mut Vec<Contradiction>,
    ) -> Self {
        let mut map = Self { domains: BTreeMap::new(), virtuals: listed_virtuals(functions, addresses) };
        for (index, (&address, info)) in functions.iter().enumerate() {
            let id = FunctionId(index as u32);
            match info.buses_below() {
                BusesBelow::None => {}
                BusesBelow::Untold => {
                    if let Some(buses) = info.registers.buses {
                        contradictions.push(Contradiction::SecondaryNotBelow { bridge: address, bus: buses.secondary });
                    }
                    map.domains.entry(address.domain()).or_default().untold.insert(address.bus());
                }
                BusesBelow::Range { secondary, subordinate } => {
                    let claims = &mut map.domains.entry(address.domain()).or_default().claims;
                    match claims.get_mut(&secondary) {
                        None => {
                            claims.insert(secondary, Claim { id, contested: false, subordinate });
                        }
                        Some(claim) => {
                            claim.contested = true;
                            claim.subordinate = claim.subordinate.max(subordinate);
                            let first = addresses[claim.id.index()];
                            contradictions.push(Contradiction::BusClaimedTwice {
                                first,
                                second: address,
                                bus: secondary,
                            });
                        }
                    }
                }
            }
        }
        for domain in map.domains.values_mut() {
            let mut untold = core::mem::take(&mut domain.untold);
            untold.retain(|&bus| domain.innermost(bus).is_none());
            domain.untold = untold;
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
                Some(id) if bridge.domain() == address.domain() && bridge.bus() < address.bus() => {
                    Place { above: Above::Bridge(id), physical }
                }
                Some(_) => {
                    contradictions.push(Contradiction::NotAbove { function: address, bridge });
                    Place { above: Above::Unknown(None), physical }
                }
                None => {
                    contradictions.push(Contradiction::BridgeMissing { function: address, bridge });
                    Place { above: Above::Unknown(None), physical }
                }
            },
            Position::ByBusNumber => {
                let physical = physical.or_else(|| find(self.physical_by_number(address)?));
                // A virtual function hangs where its physical one does: where that is listed
                // `inherit` follows, else its address tells.
                let placed_as = info.physfn.filter(|physical| physical.domain() == address.domain());
                let above = self.above_by_number(placed_as.unwrap_or(address));
                Place { above, physical }
            }
        }
    }

    /// The physical function that yields `address`, unless a bridge leads right there
    /// and not to the physical function.
    fn physical_by_number(&self, address: PciAddr) -> Option<PciAddr> {
        let physical = self.virtuals.get(&address).copied()?;
        let elsewhere = self
            .domains
            .get(&address.domain())
            .is_some_and(|domain| domain.claims.contains_key(&address.bus()) && physical.bus() != address.bus());
        (!elsewhere).then_some(physical)
    }

    fn above_by_number(&self, address: PciAddr) -> Above {
        self.domains.get(&address.domain()).map_or(Above::Root(address.bus()), |domain| domain.above(address.bus()))
    }
}

/// The listed functions that physical ones' registers yield, with the physical one.
/// A register can announce 65535, so what is looked at is bounded by what is listed.
fn listed_virtuals(functions: &BTreeMap<PciAddr, FunctionInfo>, addresses: &[PciAddr]) -> BTreeMap<PciAddr, PciAddr> {
    let mut virtuals = BTreeMap::new();
    let (mut domain, mut announced) = (0, 0u32);
    for (&physical, info) in functions {
        let Fact::Known(Some(sriov)) = info.registers.sriov else { continue };
        if domain != physical.domain() {
            (domain, announced) = (physical.domain(), 0);
        }
        announced = announced.saturating_add(u32::from(sriov.existing()));
        // A domain has 2^16 routing IDs: physical functions that announce more contradict each other.
        if announced > 1 << 16 {
            continue;
        }
        let after = addresses.partition_point(|&address| address <= physical);
        let end = addresses.partition_point(|address| address.domain() <= physical.domain());
        let listed = &addresses[after..end];
        let mut add = |vf: PciAddr| {
            virtuals.entry(vf).or_insert(physical);
        };
        if listed.len() < usize::from(sriov.existing()) {
            let distance = |vf: PciAddr| u32::from(vf.routing_id()) - u32::from(physical.routing_id());
            listed.iter().copied().filter(|&vf| sriov.yields(distance(vf))).for_each(&mut add);
        } else {
            let existing = sriov.vf_offsets().filter_map(|offset| physical.routing_id_plus(offset));
            existing.filter(|vf| listed.binary_search(vf).is_ok()).for_each(&mut add);
        }
    }
    virtuals
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
    use alloc::string::ToString;

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
    fn a_bridge_with_impossible_numbers_makes_higher_buses_unknown_too() {
        let topology = build([bridge("02:00.0", Some((1, 4))), listed("03:00.0")]);
        assert_eq!(parent(&topology, "03:00.0"), Parent::Unknown { enclosing: None });
        assert!(matches!(topology.contradictions(), [Contradiction::SecondaryNotBelow { bus: 1, .. }]));
    }

    #[test]
    fn a_vf_whose_pf_is_not_listed_hangs_where_the_pf_would() {
        let mut vf = listed("02:00.0");
        vf.physfn = Some(address("01:00.0"));
        let topology = build([bridge("00:01.0", Some((1, 2))), vf]);
        let port = topology.at(address("00:01.0")).unwrap();
        assert_eq!(parent(&topology, "02:00.0"), Parent::Bridge(port));
        assert!(matches!(topology.contradictions(), [Contradiction::PhysicalFunctionMissing { .. }]));
    }

    #[test]
    fn a_bridge_that_leads_to_a_bus_outweighs_a_pf_that_yields_a_function_there() {
        let mut pf = listed("01:00.0");
        pf.registers.sriov =
            Fact::Known(Some(SrIov { enabled: true, num_vfs: 1, total_vfs: 1, first_offset: 0x100, stride: 0 }));
        let topology = build([bridge("00:01.0", Some((1, 1))), pf, bridge("00:02.0", Some((2, 2))), listed("02:00.0")]);
        assert_eq!(parent(&topology, "02:00.0"), Parent::Bridge(topology.at(address("00:02.0")).unwrap()));
    }

    #[test]
    fn ten_thousand_hostile_functions_are_built_in_no_time() {
        let sriov = SrIov { enabled: true, num_vfs: u16::MAX, total_vfs: u16::MAX, first_offset: 1, stride: 1 };
        let functions = (0..10_000u32).map(|n| {
            let at = address("00:00.0").routing_id_plus(6 * n).unwrap();
            let mut info = bridge(&at.to_string(), Some((at.bus().saturating_add(1), 0xff)));
            info.registers.sriov = Fact::Known(Some(sriov));
            info
        });
        let topology = build(functions);
        assert_eq!(topology.functions().len(), 10_000);
    }

    #[test]
    fn what_lies_inside_a_range_claimed_twice_is_below_nobody_known() {
        let topology = build([bridge("00:01.0", Some((1, 3))), bridge("00:02.0", Some((1, 1))), listed("02:00.0")]);
        assert_eq!(parent(&topology, "02:00.0"), Parent::Unknown { enclosing: None });
    }

    #[test]
    fn a_bus_claimed_twice_belongs_to_nobody_and_is_reported() {
        let topology = build([bridge("00:01.0", Some((1, 1))), bridge("00:02.0", Some((1, 1))), listed("01:00.0")]);
        assert_eq!(parent(&topology, "01:00.0"), Parent::Unknown { enclosing: None });
        assert!(matches!(topology.contradictions(), [Contradiction::BusClaimedTwice { bus: 1, .. }]));
    }

    #[test]
    fn a_bridge_is_above_only_if_it_sits_on_a_lower_bus_of_the_domain() {
        for function in ["00:02.0", "0001:01:00.0"] {
            let mut below = listed(function);
            below.position = Position::Below(address("00:01.0"));
            let topology = build([below, bridge("00:01.0", None)]);
            assert_eq!(parent(&topology, function), Parent::Unknown { enclosing: None });
            let not_above = |contradiction: &Contradiction| matches!(contradiction, Contradiction::NotAbove { .. });
            assert!(topology.contradictions().iter().any(not_above));
        }
    }

    #[test]
    fn a_ring_through_a_virtual_function_is_cut_open_and_reported() {
        let (mut vf, mut pf) = (bridge("01:00.0", None), bridge("02:00.0", None));
        vf.physfn = Some(pf.address);
        pf.position = Position::Below(vf.address);
        let topology = build([vf, pf]);
        assert!(matches!(topology.contradictions(), [Contradiction::HangsBelowItself(_)]));
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
        let mut first = listed("00:02.0");
        first.registers.id = Some(crate::pcie::PciId { vendor: 0x10de, device: 0x2330 });
        let mut other = first.clone();
        other.registers.class = Some(ClassCode::new(0x020000));
        let topology = build([first, other, listed("00:03.0"), listed("00:03.0")]);
        assert_eq!(topology.contradictions(), [Contradiction::DescribedTwice(address("00:02.0"))]);
        let registers = &topology.function(topology.at(address("00:02.0")).unwrap()).info().registers;
        assert_eq!((registers.id, registers.header), (None, Some(HeaderType::Device)));
        assert_eq!(registers.acs, Acs::Unknown(AcsUnread::Contradicted));
        assert!(matches!(parent(&topology, "00:02.0"), Parent::Root(_)), "both put it in one place");
    }

    #[test]
    fn a_function_described_in_two_places_is_in_neither() {
        let mut other = listed("01:00.0");
        other.position = Position::RootBus { bus: 1 };
        let topology = build([bridge("00:01.0", Some((1, 1))), listed("01:00.0"), other]);
        assert_eq!(parent(&topology, "01:00.0"), Parent::Unknown { enclosing: None });
    }

    #[test]
    fn the_first_device_is_the_lowest_on_the_root_bus_itself() {
        let topology = build([listed("00:1f.0"), listed("00:02.0")]);
        let (_, host) = topology.host_bridges().next().unwrap();
        assert_eq!(host.first_device(), topology.at(address("00:02.0")));
    }
}
