//! The host-bridge gate of every pair of host bridges, in 256 bytes.
//!
//! What a host bridge is to *another* depends on nothing but whether it passes under each
//! table that may hold, since one table holds for both. So host bridges fall into
//! classes, and the gate is asked once for each pair of classes, not of host bridges: a
//! machine may have thousands of those.

use crate::route::kernel_view::possible::Possible;
use crate::route::kernel_view::{KernelView, MapType, gate};
use crate::topology::HostBridgeId;
use alloc::collections::BTreeMap;

/// Two bits for each of the two tables that may hold at most.
const CLASSES: usize = 16;

/// One host bridge, as the gate sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Host {
    /// Its place among all host bridges.
    pub(super) number: u32,
    /// What it is to others.
    pub(super) class: u8,
    /// The gate's answer for requests that come down from it again.
    pub(super) own: MapType,
}

impl Host {
    /// The class of no host bridge: one passes under a table, or it does not, or may.
    pub(super) const NO_CLASS: u8 = 0;

    /// The number of no host bridge, since there are fewer of them than functions.
    pub(super) const NO_NUMBER: u32 = u32::MAX;
}

/// All host bridges, as the gate sees them; needed while an index is made.
pub(super) struct Hosts {
    hosts: BTreeMap<HostBridgeId, Host>,
    /// What the gate says of pairs of different ones.
    pub(super) gates: Gates,
}

impl Hosts {
    pub(super) fn of(view: &KernelView<'_>) -> Self {
        let ask = |provider, client| {
            if view.is_configured_out() {
                return MapType::NotSupported;
            }
            // Both are known, so none "may be" the other's.
            let answer = gate::ask(view.topology, view.tables, Some(provider), Some(client), false);
            MapType::through_root(answer.opens)
        };
        let mut hosts = BTreeMap::new();
        // The first two of each class: a class has to be asked about with another of its own.
        let mut members = [[None; 2]; CLASSES];
        for (number, (id, _)) in (0..).zip(view.topology.host_bridges()) {
            let class = class(view, id);
            let [first, second] = &mut members[usize::from(class)];
            match first {
                None => *first = Some(id),
                Some(_) => *second = second.or(Some(id)),
            }
            hosts.insert(id, Host { number, class, own: ask(id, id) });
        }
        let mut gates = [None; CLASSES * CLASSES];
        for (a, &[provider, another]) in members.iter().enumerate() {
            for (b, &[client, _]) in members.iter().enumerate() {
                let client = if a == b { another } else { client };
                if let (Some(provider), Some(client)) = (provider, client) {
                    gates[a << 4 | b] = Some(ask(provider, client));
                }
            }
        }
        Self { hosts, gates: Gates(gates) }
    }

    /// What the gate thinks of a host bridge of the view's topology.
    pub(super) fn of_host(&self, host: HostBridgeId) -> Host {
        self.hosts[&host]
    }
}

/// The gate's answer for each pair of classes; `None` where no two host bridges are of them.
#[derive(Clone, Debug)]
pub(super) struct Gates([Option<MapType>; CLASSES * CLASSES]);

impl Gates {
    /// Where the answers for providers of a class begin.
    pub(super) const fn row(provider_class: u8) -> u8 {
        provider_class << 4
    }

    /// The answer for requests that go up to one host bridge, whose answers begin at
    /// `provider_row`, and down from another.
    #[inline]
    pub(super) fn answer(&self, provider_row: u8, client_class: u8) -> Option<MapType> {
        self.0[usize::from(provider_row | client_class)]
    }
}

/// Whether a host bridge passes under each table that may hold, beside a different one.
/// Never [`Host::NO_CLASS`], since some answer is always possible.
fn class(view: &KernelView<'_>, host: HostBridgeId) -> u8 {
    let mut tables = view.tables.candidates();
    let mut passes = |none| tables.next().map_or(none, |table| gate::host_passes(view.topology, table, host, false));
    let (first, second) = (passes(Possible::YES_OR_NO), passes(Possible::NONE));
    assert!(tables.next().is_none(), "a kernel lies between two tables at most");
    first.bits() | second.bits() << 2
}
