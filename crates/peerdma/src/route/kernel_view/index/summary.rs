//! One function's way up in 32 bytes.
//!
//! Levels count from the root down: 1 is on the root bus, the function itself is on
//! level [`Summary::depth`]. The path holds one byte for each level, the number of the
//! bridge there among its siblings, lowest byte first. Only functions with others below
//! them have a number: a bus can hold far more virtual functions than a byte can tell
//! apart, but two functions with nothing below them never meet at either of them, unless
//! they are one and the same.

use super::hosts::{Gates, Host, Hosts};
use crate::pcie::Fact;
use crate::route::kernel_view::chain::{Chain, Step};
use crate::route::kernel_view::{KernelView, MapType};
use crate::topology::{FunctionId, HostBridgeId, Parent, Topology};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// Bridges that a path can hold.
pub(super) const LEVELS: usize = 16;

/// All that a pair's answer needs to know of one function's way up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Summary {
    /// Numbers of the bridges from the root down, the function's own included if others
    /// are below it; zeros after the last.
    path: [u64; 2],
    /// The host bridge at the top, as [`Hosts`] numbers them.
    pub(super) host: u32,
    /// Numbers in `path`.
    bridges: u8,
    /// Steps of the way up, the function itself included.
    pub(super) depth: u8,
    /// Level of the lowest step that redirects for sure; 0 for none.
    pub(super) redirects: u8,
    /// Level of the lowest step whose ACS was not read; 0 for none.
    pub(super) unread: u8,
    /// The host bridge's class, for requests that come down from it.
    pub(super) host_class: u8,
    /// Where the answers for its class begin, for requests that come up to it.
    pub(super) host_row: u8,
    /// The answer for requests that go up to the root and down from the same host bridge;
    /// `None` where the way up does not fit, or is not known to the end.
    pub(super) gate_of_own_host: Option<MapType>,
}

const _: () = assert!(size_of::<Summary>() == 32, "two summaries in a cache line");

impl Summary {
    /// Whatever it is compared with, there is no answer.
    const NONE: Self = Self {
        path: [0; 2],
        host: Host::NO_NUMBER,
        bridges: 0,
        depth: 0,
        redirects: 0,
        unread: 0,
        host_class: Host::NO_CLASS,
        host_row: Gates::row(Host::NO_CLASS),
        gate_of_own_host: None,
    };

    pub(super) fn of(view: &KernelView<'_>, chain: &Chain, siblings: &Siblings, hosts: &Hosts) -> Self {
        Self::fitting(view, chain, siblings, hosts).unwrap_or(Self::NONE)
    }

    pub(super) fn fits(&self) -> bool {
        self.gate_of_own_host.is_some()
    }

    fn fitting(view: &KernelView<'_>, chain: &Chain, siblings: &Siblings, hosts: &Hosts) -> Option<Self> {
        let host = hosts.of_host(chain.host?);
        if chain.steps.iter().any(|step| step.hidden_above) {
            return None;
        }
        let (mut path, mut bridges) = ([0; LEVELS], 0);
        for step in chain.steps.iter().rev() {
            match siblings.numbers[step.function.index()] {
                // Only the function itself can be without others below it.
                Number::NothingBelow => {}
                Number::Of(number) => {
                    *path.get_mut(bridges)? = number;
                    bridges += 1;
                }
                Number::TooMany => return None,
            }
        }
        let path = u128::from_le_bytes(path);
        let depth = chain.steps.len();
        let lowest = |fact: Fact<bool>| {
            let says = |step: &Step| view.redirects[step.function.index()] == fact;
            chain.steps.iter().position(says).map_or(0, |above_it| (depth - above_it) as u8)
        };
        Some(Self {
            path: [path as u64, (path >> 64) as u64],
            host: host.number,
            bridges: bridges as u8,
            depth: depth as u8,
            // Without CONFIG_PCI_P2PDMA everything is refused, as if it redirected to a closed gate.
            redirects: if view.is_configured_out() { u8::MAX } else { lowest(Fact::Known(true)) },
            unread: lowest(Fact::Unknown),
            host_class: host.class,
            host_row: Gates::row(host.class),
            gate_of_own_host: Some(host.own),
        })
    }

    /// Levels that lie on both ways up to one host bridge: the level of the common
    /// function, 0 if there is none.
    #[inline]
    pub(super) fn levels_shared_with(&self, other: &Self, same_function: bool) -> u32 {
        // A path that ends differs from one that goes on, since no number is 0.
        let differ = self.path[0] ^ other.path[0];
        if differ != 0 {
            return differ.trailing_zeros() / 8;
        }
        let differ = self.path[1] ^ other.path[1];
        if differ != 0 {
            return 8 + differ.trailing_zeros() / 8;
        }
        u32::from(if same_function { self.depth } else { self.bridges })
    }
}

/// A function's number among those with the same bridge or root bus above them.
#[derive(Clone, Copy)]
enum Number {
    /// None, since no function is below it.
    NothingBelow,
    /// 1 and up.
    Of(u8),
    /// Past what a byte can tell apart.
    TooMany,
}

/// The numbers of all functions.
pub(super) struct Siblings {
    numbers: Vec<Number>,
}

impl Siblings {
    pub(super) fn number(topology: &Topology) -> Self {
        let mut numbers = alloc::vec![Number::NothingBelow; topology.functions().len()];
        let upstream = |(id, _)| topology.upstream(id);
        let mut bridges: Vec<FunctionId> = (topology.functions().map(upstream))
            .filter_map(|parent| if let Parent::Bridge(bridge) = parent { Some(bridge) } else { None })
            .collect();
        bridges.sort_unstable();
        bridges.dedup();
        let mut below: BTreeMap<Above, usize> = BTreeMap::new();
        for bridge in bridges {
            let above = match topology.upstream(bridge) {
                Parent::Root(host) => Above::Root(host),
                Parent::Bridge(bridge) => Above::Bridge(bridge),
                // Ways up with an unknown parent are walked, whatever the number.
                Parent::Unknown { .. } => continue,
            };
            let count = below.entry(above).or_insert(0);
            *count += 1;
            numbers[bridge.index()] = u8::try_from(*count).map_or(Number::TooMany, Number::Of);
        }
        Self { numbers }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Above {
    Root(HostBridgeId),
    Bridge(FunctionId),
}
