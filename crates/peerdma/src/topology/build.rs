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
use super::printable;
use super::{
    Contradiction, Function, FunctionId, FunctionInfo, HostBridge, HostBridgeFacts, HostBridgeId, IommuGroup, Machine,
    Parent, Position, Topology,
};
use crate::pcie::acs::{Acs, AcsUnread};
use crate::pcie::decode::Registers;
use crate::pcie::{Fact, PciAddr};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

/// Collects functions and builds a [`Topology`].
#[derive(Clone, Debug, Default)]
pub struct Builder {
    functions: BTreeMap<PciAddr, FunctionInfo>,
    /// Those that were described in two places.
    displaced: BTreeSet<PciAddr>,
    groups: Vec<IommuGroup>,
    hosts: BTreeMap<(u32, u8), HostBridgeFacts>,
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
    pub fn function(&mut self, mut info: FunctionInfo) {
        printable::function(&mut info);
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
                    multifunction: old.multifunction.filter(|_| old.multifunction == new.multifunction),
                    buses: old.buses.filter(|_| old.buses == new.buses),
                    acs: Acs::Unknown(AcsUnread::Contradicted),
                    ..Registers::unread()
                };
                known.ids_by_name.clear();
                known.vendors_by_name.clear();
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

    /// What was added about the function of this address.
    pub(crate) fn function_mut(&mut self, address: PciAddr) -> Option<&mut FunctionInfo> {
        self.functions.get_mut(&address)
    }

    /// All functions that were added.
    pub(crate) fn functions_mut(&mut self) -> impl Iterator<Item = &mut FunctionInfo> {
        self.functions.values_mut()
    }

    /// The groups that were added.
    pub(crate) fn groups_mut(&mut self) -> &mut Vec<IommuGroup> {
        &mut self.groups
    }

    /// Adds an IOMMU group.
    pub fn group(&mut self, mut group: IommuGroup) {
        printable::group(&mut group);
        self.groups.push(group);
    }

    /// States facts about the host bridge above the root bus `bus` of `domain`.
    /// Without a function below it they are dropped.
    pub fn host_bridge(&mut self, domain: u32, bus: u8, facts: HostBridgeFacts) {
        self.hosts.insert((domain, bus), facts);
    }

    /// The facts about the machine.
    pub fn machine(&mut self) -> &mut Machine {
        &mut self.machine
    }

    /// Builds the tree.
    pub fn build(self) -> Topology {
        let Self { functions, displaced, mut groups, mut hosts, mut machine, mut contradictions } = self;
        printable::machine(&mut machine);
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
        let facts_of = |&(domain, bus): &(u32, u8)| HostBridge {
            domain,
            bus,
            first: None,
            facts: hosts.remove(&(domain, bus)).unwrap_or_default(),
        };
        let mut host_bridges: Vec<HostBridge> = roots.iter().map(facts_of).collect();
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
mod tests;
