//! The host-bridge gate: who is asked where requests go up to the root.
//!
//! Linux 7.2 `cpu_supports_p2pdma`, `host_bridge_whitelist`,
//! `__host_bridge_whitelist`, `pci_host_bridge_dev`.

use super::possible::Possible;
use super::whitelist::{Table, TableChoice};
use crate::pcie::Fact;
use crate::pcie::express::PortType;
use crate::topology::{FunctionId, HostBridge, HostBridgeId, Topology};

/// What stands for a host bridge in the whitelist (`pci_host_bridge_dev`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Representative {
    /// The first device of the root bus: it is 00.0, or a root port.
    Device(FunctionId),
    /// The first device is neither, so Linux compares nothing and the answer is no.
    Nobody(FunctionId),
    /// Whether the first device is a root port was not read.
    PortTypeUnread(FunctionId),
    /// No device of the root bus was listed.
    NotListed,
}

/// What the gate says for one pair.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GateAnswer {
    /// Whether the CPU alone opens it.
    pub cpu_opens: Fact<bool>,
    /// Whether the whitelist opens it.
    pub listed: Fact<bool>,
    /// The initiator's host bridge, where known.
    pub client: Option<HostBridgeId>,
    /// The target's host bridge, where known.
    pub provider: Option<HostBridgeId>,
    /// Whether traffic is let through.
    pub opens: Fact<bool>,
}

pub(super) fn fact(possible: Possible) -> Fact<bool> {
    match (possible.may(Possible::YES), possible.may(Possible::NO)) {
        (true, false) => Fact::Known(true),
        (false, true) => Fact::Known(false),
        _ => Fact::Unknown,
    }
}

/// The device that stands for a host bridge.
pub fn representative(topology: &Topology, host: &HostBridge) -> Representative {
    let Some(first) = host.first_device() else { return Representative::NotListed };
    let function = topology.function(first);
    if function.address().devfn().as_u8() == 0 {
        return Representative::Device(first);
    }
    match function.info().registers.port_type {
        Fact::Known(Some(PortType::RootPort)) => Representative::Device(first),
        Fact::Known(_) => Representative::Nobody(first),
        Fact::Unknown => Representative::PortTypeUnread(first),
    }
}

/// Whether one host bridge passes under one table.
pub(super) fn host_passes(topology: &Topology, table: Table, host: HostBridgeId, same: bool) -> Possible {
    let by_id = |first: FunctionId| {
        let info = topology.function(first).info();
        let by_vendor = |vendor| match table.lists_of_vendor(vendor, same) {
            Fact::Known(answer) => Possible::of(answer),
            Fact::Unknown => Possible::YES_OR_NO,
        };
        match (info.candidate_ids(), info.vendors_by_name.as_slice()) {
            ([], []) => Possible::YES_OR_NO,
            ([], vendors) => vendors.iter().fold(Possible::NONE, |all, &vendor| all.or(by_vendor(vendor))),
            (ids, _) => ids.iter().fold(Possible::NONE, |all, &id| all.or(Possible::of(table.lists(id, same)))),
        }
    };
    match representative(topology, topology.host_bridge(host)) {
        Representative::Device(first) => by_id(first),
        Representative::Nobody(_) => Possible::NO,
        Representative::PortTypeUnread(first) => by_id(first).or(Possible::NO),
        Representative::NotListed => Possible::YES_OR_NO,
    }
}

/// Whether both host bridges pass under one table; an unknown one is another, or the
/// same where that may be.
fn pair_passes(
    topology: &Topology,
    table: Table,
    provider: Option<HostBridgeId>,
    client: Option<HostBridgeId>,
    may_share: bool,
) -> Possible {
    match (provider, client) {
        (Some(a), Some(b)) if a == b => host_passes(topology, table, a, true),
        (Some(a), Some(b)) => host_passes(topology, table, a, false).and(host_passes(topology, table, b, false)),
        (Some(one), None) | (None, Some(one)) => {
            let other = host_passes(topology, table, one, false).and(Possible::YES_OR_NO);
            if may_share { host_passes(topology, table, one, true).or(other) } else { other }
        }
        (None, None) => Possible::YES_OR_NO,
    }
}

/// Asks the gate. `may_share` tells whether a host bridge that is not known may be
/// the other function's.
pub(in crate::route) fn ask(
    topology: &Topology,
    tables: TableChoice,
    provider: Option<HostBridgeId>,
    client: Option<HostBridgeId>,
    may_share: bool,
) -> GateAnswer {
    let cpu_opens: Fact<bool> = topology.machine().cpu.as_ref().map(|cpu| cpu.is_zen_or_newer()).into();
    // One table holds for both bridges, so the alternatives are whole tables.
    let listed = match tables {
        TableChoice::OlderThanOldest(_) => Possible::YES_OR_NO,
        _ => tables
            .candidates()
            .fold(Possible::NONE, |all, table| all.or(pair_passes(topology, table, provider, client, may_share))),
    };
    let listed = fact(listed);
    let opens = match (cpu_opens, listed) {
        (Fact::Known(true), _) | (_, Fact::Known(true)) => Fact::Known(true),
        (Fact::Known(false), Fact::Known(false)) => Fact::Known(false),
        _ => Fact::Unknown,
    };
    GateAnswer { cpu_opens, listed, client, provider, opens }
}
