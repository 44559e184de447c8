//! IOMMU groups, predicted from ACS as Linux forms them.
//!
//! Linux 7.2 `pci_device_group`, asked for every function in the order of discovery,
//! bridges before what is below them:
//!
//! 1. a function behind a bridge that speaks in its name (conventional PCI, PCI-X, or
//!    between those and PCIe) is in that bridge's group;
//! 2. a function below a port from which some port up to the root does not isolate is
//!    in that port's group;
//! 3. a function that does not isolate itself is with the other functions of its slot
//!    that do not;
//! 4. any other function has a group of its own.
//!
//! Rule 2 looks *up* from the port. So a switch without ACS below a root port with ACS
//! gives each of its downstream ports a group, each with what is below that port, although
//! requests cross inside the switch. Separate groups do not prove isolation.
//!
//! Groups are formed once, when the IOMMU driver first sees a function. Those of a
//! running machine stay as they were when ACS is changed afterwards; what is predicted
//! here is what a boot with these control words gives, on a machine with an IOMMU.
//!
//! Not considered, because no register tells: requester IDs that a broken device makes
//! up (`dma_alias_mask`) and firmware's own say in what an IOMMU covers. Functions in
//! domains past 16 bits (Intel VMD) speak in the name of a function elsewhere that no
//! input names, so their groups are unknown.

mod isolation;
mod merged;
mod quirks;
mod told;

pub use isolation::{isolates, isolates_up_to_root};
pub use merged::{Merged, merged};
pub use told::told;

use crate::pcie::Fact;
use crate::pcie::express::PortType;
use crate::topology::{FunctionId, Parent, Topology};
use alloc::vec::Vec;
use core::ops::Range;

/// Names a group of one [`Groups`]; not the kernel's number, which depends on the
/// order of discovery.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct GroupId(u32);

impl GroupId {
    /// Position among the groups, in the order in which they were formed.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Which functions share a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Groups {
    of: Vec<Fact<GroupId>>,
    members: Vec<Vec<FunctionId>>,
}

impl Groups {
    /// The group of a function; unknown where two ways of filling in what was not read
    /// give different ones.
    pub fn of(&self, function: FunctionId) -> Fact<GroupId> {
        self.of.get(function.index()).copied().unwrap_or_default()
    }

    /// The functions known to be in a group, in order of addresses. Functions whose own
    /// group is unknown may be in it too.
    pub fn members(&self, group: GroupId) -> &[FunctionId] {
        self.members.get(group.index()).map_or(&[], Vec::as_slice)
    }

    /// All groups, with the functions known to be in them.
    pub fn iter(&self) -> impl Iterator<Item = (GroupId, &[FunctionId])> {
        self.members.iter().enumerate().map(|(index, members)| (GroupId(index as u32), members.as_slice()))
    }

    /// Functions whose group is unknown.
    pub fn unknown(&self) -> impl Iterator<Item = FunctionId> + '_ {
        let ids = self.of.iter().enumerate().filter(|(_, group)| **group == Fact::Unknown);
        ids.map(|(index, _)| FunctionId::at_index(index))
    }

    /// Whether two functions share a group.
    pub fn share(&self, one: FunctionId, other: FunctionId) -> Fact<bool> {
        match (self.of(one), self.of(other)) {
            _ if one == other => Fact::Known(true),
            (Fact::Known(one), Fact::Known(other)) => Fact::Known(one == other),
            _ => Fact::Unknown,
        }
    }
}

/// Predicts the groups that Linux forms at boot with the ACS words of `topology`.
pub fn predict(topology: &Topology) -> Groups {
    let count = topology.functions().len();
    let mut groups = Groups { of: alloc::vec![Fact::Unknown; count], members: Vec::new() };
    let mut order: Vec<(usize, FunctionId)> =
        topology.functions().map(|(id, _)| (bridges_above(topology, id).count(), id)).collect();
    order.sort();
    for (_, function) in order {
        let joins = joins(topology, &groups, function);
        groups.of[function.index()] = match joins {
            Joins::Unknown => Fact::Unknown,
            Joins::GroupOf(other) => groups.of(other),
            Joins::Nobody => {
                groups.members.push(Vec::new());
                Fact::Known(GroupId(groups.members.len() as u32 - 1))
            }
        };
    }
    for (id, _) in topology.functions() {
        if let Fact::Known(group) = groups.of(id) {
            groups.members[group.index()].push(id);
        }
    }
    groups
}

/// Whose group a function gets.
enum Joins {
    GroupOf(FunctionId),
    Nobody,
    Unknown,
}

fn joins(topology: &Topology, groups: &Groups, function: FunctionId) -> Joins {
    // Behind VMD; PCI itself has 16 bits for the domain.
    if topology.function(function).address().domain() > 0xffff {
        return Joins::Unknown;
    }
    let Speaks { bridge, certain } = speaks_for(topology, function);
    if let (Some(bridge), true) = (bridge, certain) {
        return Joins::GroupOf(bridge);
    }
    match topology.upstream(function) {
        Parent::Unknown { .. } => Joins::Unknown,
        Parent::Bridge(port) => match isolates_up_to_root(topology, port) {
            // Right also where a bridge higher up might speak for it: it then does for the port.
            Fact::Known(false) => Joins::GroupOf(port),
            Fact::Known(true) if certain => in_its_slot(topology, groups, function),
            _ => Joins::Unknown,
        },
        Parent::Root(_) => in_its_slot(topology, groups, function),
    }
}

/// The bridge that speaks for a function.
struct Speaks {
    bridge: Option<FunctionId>,
    /// Whether every bridge below it is known not to.
    certain: bool,
}

/// `pci_for_each_dma_alias`: the nearest bridge above that is no PCIe port.
fn speaks_for(topology: &Topology, function: FunctionId) -> Speaks {
    let mut certain = true;
    for bridge in bridges_above(topology, function) {
        match topology.function(bridge).info().registers.port_type {
            Fact::Known(Some(PortType::RootPort | PortType::UpstreamPort | PortType::DownstreamPort)) => {}
            Fact::Known(_) => return Speaks { bridge: Some(bridge), certain },
            Fact::Unknown => certain = false,
        }
    }
    Speaks { bridge: None, certain }
}

/// `get_pci_function_alias_group`: the slot's other functions that do not isolate.
fn in_its_slot(topology: &Topology, groups: &Groups, function: FunctionId) -> Joins {
    if !isolation::is_multifunction(topology, function) {
        return Joins::Nobody;
    }
    let (mut joined, mut doubtful) = (None, false);
    for other in mates(topology, function) {
        match isolates(topology, other) {
            Fact::Known(true) => {}
            // Those before it have their groups already.
            Fact::Known(false) if other < function => joined = joined.or(Some(other)),
            Fact::Unknown if other < function => doubtful = true,
            Fact::Known(false) | Fact::Unknown => doubtful |= isolates(topology, function) == Fact::Unknown,
        }
    }
    match (isolates(topology, function), joined) {
        (Fact::Known(true), _) => Joins::Nobody,
        // Whatever the doubtful ones are, all that do not isolate end up in one group.
        (Fact::Known(false), Some(other)) if groups.of(other) != Fact::Unknown => Joins::GroupOf(other),
        (Fact::Unknown, None) | (Fact::Known(false), None) if !doubtful => Joins::Nobody,
        _ => Joins::Unknown,
    }
}

/// The other functions of the slot that are listed, virtual ones left out: to Linux they
/// are no part of a multifunction device.
fn mates(topology: &Topology, function: FunctionId) -> impl Iterator<Item = FunctionId> + '_ {
    let slot = slot(topology, function);
    let ids = slot.map(FunctionId::at_index);
    ids.filter(move |&id| {
        id != function
            && topology.function(id).physical().is_none()
            && topology.upstream(id) == topology.upstream(function)
    })
}

/// Functions of one slot stand side by side, since they are ordered by address.
fn slot(topology: &Topology, function: FunctionId) -> Range<usize> {
    let address = topology.function(function).address();
    let same = |index: usize| {
        let other = topology.function(FunctionId::at_index(index)).address();
        (other.domain(), other.bus(), other.devfn().device())
            == (address.domain(), address.bus(), address.devfn().device())
    };
    let (mut first, mut end) = (function.index(), function.index() + 1);
    while first > 0 && same(first - 1) {
        first -= 1;
    }
    while end < topology.functions().len() && same(end) {
        end += 1;
    }
    first..end
}

/// The bridges from right above `function` to the root, as far as known.
fn bridges_above(topology: &Topology, function: FunctionId) -> impl Iterator<Item = FunctionId> + '_ {
    let above = |id: FunctionId| match topology.upstream(id) {
        Parent::Bridge(bridge) => Some(bridge),
        Parent::Root(_) | Parent::Unknown { .. } => None,
    };
    core::iter::successors(above(function), move |&bridge| above(bridge))
}
