//! The ground that TLPs travel over: which kind of bus lies below a bridge, and who
//! claims an address or an ID there.

use super::course::{Assumption, Note};
use super::tlp::{Number, Tlp};
use crate::addr::{AddrRange, BusAddr, Bytes};
use crate::pcie::express::{Express, PortType};
use crate::pcie::{Fact, PciAddr};
use crate::topology::{FunctionId, FunctionInfo, HostBridgeId, Parent, Topology};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;

/// What a bridge is to a TLP that passes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    /// Root port: a link below, the root complex above.
    Root,
    /// Upstream port of a switch: the switch's internal bus below.
    Upstream,
    /// Downstream port of a switch: a link below, the internal bus above.
    Downstream,
    /// A conventional PCI or PCI-X bus below.
    Conventional,
    /// Not told.
    Untold,
}

/// What no register tells, and whether enables that change from minute to minute count.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    /// Memory Space Enable and Bus Master Enable count as they were read.
    pub(super) enables_count: bool,
    /// Functions that reach their device's others inside it; unknown as a whole where
    /// nobody states it.
    pub(super) inside: Option<BTreeSet<FunctionId>>,
    /// Whether root ports reach each other by a path of their own.
    pub(super) between_root_ports: Fact<bool>,
    /// ARI function groups, where egress vectors count by them.
    pub(super) groups: BTreeMap<FunctionId, u32>,
}

/// A topology, read from above.
#[derive(Clone, Debug)]
pub(super) struct Ground<'t> {
    pub(super) topology: &'t Topology,
    pub(super) terms: Terms,
    /// By function: what lies right below it.
    below: Vec<Vec<FunctionId>>,
    /// By host bridge, in their order: what lies on its root bus.
    roots: BTreeMap<HostBridgeId, Vec<FunctionId>>,
}

impl<'t> Ground<'t> {
    pub(super) fn new(topology: &'t Topology, terms: Terms) -> Self {
        let mut below = vec![Vec::new(); topology.functions().len()];
        let mut roots: BTreeMap<HostBridgeId, Vec<FunctionId>> = BTreeMap::new();
        for (id, _) in topology.functions() {
            match topology.upstream(id) {
                Parent::Bridge(bridge) => below[bridge.index()].push(id),
                Parent::Root(host) => roots.entry(host).or_default().push(id),
                Parent::Unknown { .. } => {}
            }
        }
        Self { topology, terms, below, roots }
    }

    pub(super) fn info(&self, id: FunctionId) -> &'t FunctionInfo {
        self.topology.function(id).info()
    }

    /// The Express capability.
    pub(super) fn express(&self, id: FunctionId) -> &'t Express {
        &self.info(id).registers.express
    }

    pub(super) fn below(&self, bridge: FunctionId) -> &[FunctionId] {
        &self.below[bridge.index()]
    }

    pub(super) fn on_root_bus(&self, host: HostBridgeId) -> &[FunctionId] {
        self.roots.get(&host).map_or(&[], Vec::as_slice)
    }

    /// What a bridge is, by its port type where that fits its place. What sits on a
    /// switch's internal bus is a downstream port, whatever is known of it.
    pub(super) fn role(&self, bridge: FunctionId) -> Role {
        let above = self.topology.upstream(bridge);
        let on_internal_bus = || matches!(above, Parent::Bridge(above) if self.role(above) == Role::Upstream);
        match self.info(bridge).registers.port_type {
            Fact::Known(Some(PortType::RootPort)) if matches!(above, Parent::Root(_)) => Role::Root,
            Fact::Known(Some(PortType::UpstreamPort)) => Role::Upstream,
            Fact::Known(Some(PortType::DownstreamPort)) => Role::Downstream,
            Fact::Known(Some(PortType::PciExpressToPci) | None) => Role::Conventional,
            _ if self.info(bridge).is_bridge() && on_internal_bus() => Role::Downstream,
            _ => Role::Untold,
        }
    }

    /// Whether `function` hangs below `bridge`, at any depth.
    pub(super) fn is_below(&self, function: FunctionId, bridge: FunctionId) -> bool {
        let mut at = function;
        while let Parent::Bridge(above) = self.topology.upstream(at) {
            if above == bridge {
                return true;
            }
            at = above;
        }
        false
    }

    /// The bridge by which a function on conventional PCI reaches PCI Express.
    pub(super) fn bridge_to_pci(&self, function: FunctionId) -> Option<FunctionId> {
        let mut at = function;
        while let Parent::Bridge(above) = self.topology.upstream(at) {
            if self.info(above).registers.port_type == Fact::Known(Some(PortType::PciExpressToPci)) {
                return Some(above);
            }
            at = above;
        }
        None
    }

    /// Whether memory decoding is on, as far as that counts.
    pub(super) fn memory_on(&self, id: FunctionId, notes: &mut Vec<Note>) -> bool {
        // A virtual function's enable is in its physical one's SR-IOV capability.
        let off = self.topology.function(id).physical().is_none()
            && self.info(id).registers.command.is_some_and(|command| !command.memory);
        if off && !self.terms.enables_count {
            notes.push(Note::Assumed(id, Assumption::Memory));
        }
        !off || !self.terms.enables_count
    }

    /// Whether bus mastering is on, as far as that counts.
    pub(super) fn bus_master_on(&self, id: FunctionId, notes: &mut Vec<Note>) -> bool {
        let off = self.info(id).registers.command.is_some_and(|command| !command.bus_master);
        if off && !self.terms.enables_count {
            notes.push(Note::Assumed(id, Assumption::BusMaster));
        }
        !off || !self.terms.enables_count
    }

    /// Whether a bridge's windows hold the number (PCIe 6.0 §7.5.1.3.8 and .9).
    pub(super) fn windows_hold(&self, bridge: FunctionId, number: &Number, notes: &mut Vec<Note>) -> bool {
        let windows = &self.info(bridge).registers.windows;
        // Of a target's range all must fit; any byte of another number may be taken.
        if let Some(range) = number.range {
            let hit = |window: AddrRange<BusAddr>| match number.target {
                Some(_) => window.contains_range(&range),
                None => range.start() <= window.last() && window.start() <= range.last(),
            };
            if windows.open().any(hit) {
                return true;
            }
            if windows.all_read() {
                return false;
            }
        }
        if number.target.is_none() && number.range.is_some() {
            notes.push(Note::Assumed(bridge, Assumption::OtherNumbers));
        }
        let Some(target) = number.target.filter(|&target| self.is_below(target, bridge)) else { return false };
        notes.push(match number.range {
            Some(_) => Note::Assumed(bridge, Assumption::Windows),
            None => Note::Assumed(target, Assumption::BarAddress),
        });
        true
    }

    /// Whether a BAR of this very function holds the number.
    pub(super) fn bars_hold(&self, function: FunctionId, number: &Number) -> bool {
        if number.target == Some(function) {
            return true;
        }
        let Some(range) = number.range else { return false };
        self.info(function).bars.iter().any(|bar| {
            let size = bar.size.or(bar.cpu.map(|cpu| cpu.len())).unwrap_or(Bytes::new(1));
            bar.bus.and_then(|bus| AddrRange::new(bus, size)).is_some_and(|bar| bar.contains_range(&range))
        })
    }

    /// Whether a bridge has the bus of this ID below it.
    pub(super) fn buses_hold(&self, bridge: FunctionId, to: PciAddr, holder: Option<FunctionId>) -> bool {
        match self.info(bridge).registers.buses {
            Some(buses) => {
                self.info(bridge).address.domain() == to.domain()
                    && (buses.secondary..=buses.subordinate).contains(&to.bus())
            }
            None => holder.is_some_and(|holder| self.is_below(holder, bridge)),
        }
    }

    /// Whether a TLP that travels down is taken by this function, for itself or for
    /// what is below it.
    pub(super) fn takes(&self, function: FunctionId, tlp: &Tlp, notes: &mut Vec<Note>) -> bool {
        let is_bridge = self.info(function).is_bridge();
        match tlp {
            Tlp::Request { number, .. } => {
                self.bars_hold(function, number)
                    || is_bridge && self.windows_hold(function, number, notes) && self.memory_on(function, notes)
            }
            Tlp::Completion { to, holder, .. } => {
                self.info(function).address == *to || is_bridge && self.buses_hold(function, *to, *holder)
            }
        }
    }

    /// Whether the requester's bus is below the port, for Source Validation.
    pub(super) fn source_is_below(&self, port: FunctionId, requester: PciAddr) -> bool {
        self.info(port).registers.buses.is_none() || self.buses_hold(port, requester, None)
    }
}
