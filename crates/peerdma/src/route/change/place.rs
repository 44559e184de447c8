//! Plugging functions in elsewhere.

use super::ChangeError;
use crate::pcie::decode::BridgeWindows;
use crate::route::{Gate, Reason};
use crate::topology::{Builder, FunctionId, Parent, Topology};
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

/// Whether `function` can be plugged in right below `below`.
pub(super) fn check(topology: &Topology, function: FunctionId, below: FunctionId) -> Result<(), ChangeError> {
    let address = |id: FunctionId| topology.function(id).address();
    let (moving, port) = (address(function), address(below));
    if let Some(physical) = topology.function(function).physical() {
        return Err(ChangeError::Virtual { function: moving, physical: address(physical) });
    }
    if !topology.function(below).info().is_bridge() {
        return Err(ChangeError::NotABridge { function: moving, below: port });
    }
    if below == function || bridges_above(topology, below).any(|bridge| bridge == function) {
        return Err(ChangeError::BelowItself { function: moving, below: port });
    }
    let mut there = topology.functions().filter(|&(id, other)| {
        id != function && other.parent() == Parent::Bridge(below) && other.address().devfn() == moving.devfn()
    });
    match there.next() {
        Some((_, occupant)) => {
            Err(ChangeError::Occupied { function: moving, below: port, occupant: occupant.address() })
        }
        None => Ok(()),
    }
}

/// The windows and bus numbers of all ports above `function` no longer hold: what is below
/// them differs.
pub(super) fn forget_windows(topology: &Topology, builder: &mut Builder, function: FunctionId) {
    for bridge in bridges_above(topology, function) {
        forget_own_windows(topology, builder, bridge);
    }
}

/// The windows and bus numbers of one port.
pub(super) fn forget_own_windows(topology: &Topology, builder: &mut Builder, bridge: FunctionId) {
    if let Some(info) = builder.function_mut(topology.function(bridge).address()) {
        info.registers.windows = BridgeWindows::default();
        // A boot would number them anew; until then the tree says who is below whom.
        info.registers.buses = None;
    }
}

/// What a reader has to know about the addresses.
pub(super) fn tell(topology: &Topology, function: FunctionId, below: FunctionId, assumed: &mut Vec<Reason>) {
    let (moving, port) = (topology.function(function).address(), topology.function(below).address());
    assumed.push(Reason {
        gate: Gate::Assumed,
        object: moving.to_string(),
        evidence: format!(
            "below {port} a boot would give it another bus number and other BAR addresses; it keeps them here, and the \
             ports above the old and the new place are taken to have bus numbers and windows that contain what is below \
             them"
        ),
        fix: None,
    });
}

fn bridges_above(topology: &Topology, function: FunctionId) -> impl Iterator<Item = FunctionId> + '_ {
    let above = |id: FunctionId| match topology.upstream(id) {
        Parent::Bridge(bridge) => Some(bridge),
        Parent::Root(_) | Parent::Unknown { .. } => None,
    };
    core::iter::successors(above(function), move |&bridge| above(bridge))
}
