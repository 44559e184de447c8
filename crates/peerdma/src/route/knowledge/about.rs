//! Which entries concern a pair.

use super::{End, Entry, Key, listed_by_linux, observed};
use crate::pcie::PciId;
use crate::topology::{Cpu, FunctionId, HostBridgeId, Machine, Parent, Topology};
use alloc::vec::Vec;

/// What is known about the root complexes above a pair, the CPU, the switches on the
/// way, the drivers at its ends and the machine's name: first what people reported, then
/// what Linux lists.
///
/// A fact that the input does not tell (an ID, a driver, the CPU's model) matches nothing.
pub fn about(topology: &Topology, initiator: FunctionId, target: FunctionId) -> Vec<Entry> {
    let (up_here, host_here) = way_up(topology, initiator);
    let (up_there, host_there) = way_up(topology, target);
    // Above the first common bridge no request of the pair passes a switch.
    let common = up_here.iter().copied().find(|bridge| up_there.contains(bridge));
    let upto = |bridges: &[FunctionId]| -> Vec<PciId> {
        let end = bridges.iter().position(|&bridge| Some(bridge) == common).map_or(bridges.len(), |at| at + 1);
        bridges[..end].iter().filter_map(|&bridge| topology.function(bridge).info().registers.id).collect()
    };
    let switches = [upto(&up_here), upto(&up_there)].concat();
    let root_complexes: Vec<PciId> =
        [host_here, host_there].into_iter().flatten().filter_map(|host| root_complex_id(topology, host)).collect();
    let driver = |end| match end {
        End::Initiator => topology.function(initiator).info().driver.as_deref(),
        End::Target => topology.function(target).info().driver.as_deref(),
    };
    let concerns = |key: &Key| match key {
        Key::RootComplex(ids) => root_complexes.iter().any(|&id| ids.contains(id)),
        Key::Switch(ids) => switches.iter().any(|&id| ids.contains(id)),
        Key::Driver { name, end } => driver(*end) == Some(*name),
        Key::Cpu { .. } => is_cpu(key, topology.machine().cpu.as_ref()),
        Key::PlatformName(_) => is_named(key, topology.machine()),
    };
    observed().iter().cloned().chain(listed_by_linux()).filter(|entry| concerns(&entry.key)).collect()
}

/// The bridges above a function, from the nearest up, and the host bridge at the top.
fn way_up(topology: &Topology, function: FunctionId) -> (Vec<FunctionId>, Option<HostBridgeId>) {
    let (mut bridges, mut at) = (Vec::new(), function);
    loop {
        match topology.upstream(at) {
            Parent::Bridge(bridge) => {
                bridges.push(bridge);
                at = bridge;
            }
            Parent::Root(host) => return (bridges, Some(host)),
            Parent::Unknown { .. } => return (bridges, None),
        }
    }
}

/// The ID of what stands for a host bridge. One that only a name in words suggests is not
/// certain enough to be found by.
fn root_complex_id(topology: &Topology, host: HostBridgeId) -> Option<PciId> {
    let first = topology.host_bridge(host).first_device()?;
    topology.function(first).info().registers.id
}

/// What people reported about this root complex.
pub(in crate::route) fn of_root_complex(
    topology: &Topology,
    host: HostBridgeId,
) -> impl Iterator<Item = &'static Entry> + use<> {
    let id = root_complex_id(topology, host);
    observed().iter().filter(move |entry| match &entry.key {
        Key::RootComplex(ids) => id.is_some_and(|id| ids.contains(id)),
        _ => false,
    })
}

/// What people reported about machines with this CPU.
pub(in crate::route) fn of_cpu(topology: &Topology) -> impl Iterator<Item = &'static Entry> {
    let cpu = topology.machine().cpu.as_ref();
    observed().iter().filter(move |entry| is_cpu(&entry.key, cpu))
}

/// What people reported about machines called so.
pub(in crate::route) fn of_platform(topology: &Topology) -> impl Iterator<Item = &'static Entry> {
    let machine = topology.machine();
    observed().iter().filter(move |entry| is_named(&entry.key, machine))
}

fn is_cpu(key: &Key, cpu: Option<&Cpu>) -> bool {
    let (Key::Cpu { vendor, families, models }, Some(cpu)) = (key, cpu) else { return false };
    let of_model = models.is_empty() || cpu.model.is_some_and(|model| models.contains(&model));
    cpu.vendor == *vendor && families.contains(&cpu.family) && of_model
}

fn is_named(key: &Key, machine: &Machine) -> bool {
    let (Key::PlatformName(words), Some(name)) = (key, &machine.name) else { return false };
    name.to_ascii_lowercase().contains(&words.to_ascii_lowercase())
}
