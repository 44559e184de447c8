//! What Linux decides, repeated faithfully, omissions included.
//!
//! Linux 7.2 `drivers/pci/p2pdma.c`, `calc_map_type_and_dist`: walk up from the
//! *provider* (the target's owner) to the first function that is also above the
//! *client* (the initiator). If there is one and no function on the way, both ends
//! and the common one included, has RR, CR or EC set, requests cross below it.
//! Else they go up to the root, where the CPU's family or the host bridge's entry
//! in a list decides.
//!
//! What Linux does not look at, and therefore this does not: SV, TB, UF and DT,
//! the egress vector, windows, ATS, payload sizes, whether an IOMMU translates.
//! Oddities that are repeated here on purpose:
//!
//! - a function's own ACS counts, so a function may be refused to itself;
//! - the common function's ACS counts although the request only turns there;
//! - one word is read at the wrong place (see [`crate::pcie::acs`]).
//!
//! A verdict is unknown exactly when two ways of filling in the missing facts
//! give different answers. `tests/unknown` fills them in exhaustively.

mod cached;
mod chain;
mod explain;
pub(super) mod gate;
mod index;
mod possible;
mod whitelist;

pub use cached::{CachedView, Client, Distance};
pub use gate::{GateAnswer, Representative, representative};
pub use index::{Answer, PairIndex};
pub use whitelist::{Listed, Table, TableChoice};

use crate::pcie::Fact;
use crate::topology::{FunctionId, HostBridgeId, Topology};
use alloc::vec::Vec;
use chain::{Chain, Step};
use core::fmt;

/// Linux's `enum pci_p2pdma_map_type`, with the honest fourth value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum MapType {
    /// `PCI_P2PDMA_MAP_BUS_ADDR`: program the bus address.
    BusAddr,
    /// `PCI_P2PDMA_MAP_THRU_HOST_BRIDGE`: map as any other physical address.
    ThruHostBridge,
    /// `PCI_P2PDMA_MAP_NOT_SUPPORTED`: refuse.
    NotSupported,
    /// The input cannot tell which of the others Linux would choose.
    Unknown,
}

impl MapType {
    /// The kernel's word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::BusAddr => "BUS_ADDR",
            Self::ThruHostBridge => "THRU_HOST_BRIDGE",
            Self::NotSupported => "NOT_SUPPORTED",
            Self::Unknown => "UNKNOWN",
        }
    }

    /// The answer for requests that go up to the root.
    const fn through_root(gate_opens: Fact<bool>) -> Self {
        match gate_opens {
            Fact::Known(true) => Self::ThruHostBridge,
            Fact::Known(false) => Self::NotSupported,
            Fact::Unknown => Self::Unknown,
        }
    }
}

impl fmt::Display for MapType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Where the two ways up meet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Common {
    /// At this function.
    At(FunctionId),
    /// At this function, or below it: at a bridge that was not listed, or at one that
    /// did not show its bus numbers.
    AtOrBelow(FunctionId),
    /// Nowhere below the root.
    Nowhere,
    /// The way up of one of them is not known far enough to tell.
    Unknown,
}

/// One function that was walked, and what its ACS says to Linux.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Walked {
    /// The function.
    pub function: FunctionId,
    /// Whether Linux counts it as redirecting.
    pub redirects: Fact<bool>,
}

/// What Linux decides for one ordered pair, and from what.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    /// The target's owner.
    pub provider: FunctionId,
    /// The initiator.
    pub client: FunctionId,
    /// The answer.
    pub map_type: MapType,
    /// Hops on both sides added up, as Linux counts them, also where it refuses.
    /// A lower bound where [`hidden_below`](Self::hidden_below) is not empty.
    pub distance: u32,
    /// Where the two ways up meet.
    pub common: Common,
    /// Functions whose ACS was looked at, in Linux's order: from the provider up to
    /// the common one, then from the client up to right below it. Empty where they
    /// meet nowhere. Where it is not known whether they meet, those that are walked
    /// wherever they do; but if something redirects wherever they meet, all of them.
    pub walked: Vec<Walked>,
    /// Functions above which bridges are hidden from the input.
    pub hidden_below: Vec<FunctionId>,
    /// Whether requests go up to the root, so that the host-bridge gate decides.
    pub goes_up: Fact<bool>,
    /// The host-bridge gate, where it was asked or might have been.
    pub gate: Option<GateAnswer>,
    /// Whether the kernel was built without `CONFIG_PCI_P2PDMA`.
    pub configured_out: bool,
}

impl Decision {
    fn undecided(provider: FunctionId, client: FunctionId) -> Self {
        Self {
            provider,
            client,
            map_type: MapType::Unknown,
            distance: 0,
            common: Common::Unknown,
            walked: Vec::new(),
            hidden_below: Vec::new(),
            goes_up: Fact::Unknown,
            gate: None,
            configured_out: false,
        }
    }

    /// Functions that redirect, in Linux's order (its hint lists them so).
    pub fn redirects(&self) -> impl Iterator<Item = FunctionId> + '_ {
        self.walked.iter().filter(|walked| walked.redirects == Fact::Known(true)).map(|walked| walked.function)
    }

    /// Functions on the way whose ACS was not read.
    pub fn unread(&self) -> impl Iterator<Item = FunctionId> + '_ {
        self.walked.iter().filter(|walked| walked.redirects == Fact::Unknown).map(|walked| walked.function)
    }
}

/// Linux's decisions over one topology.
///
/// Building it costs one walk up per function; a decision then costs the depth of
/// the two functions squared.
#[derive(Clone, Debug)]
pub struct KernelView<'t> {
    topology: &'t Topology,
    tables: TableChoice,
    chains: Vec<Chain>,
    redirects: Vec<Fact<bool>>,
}

impl<'t> KernelView<'t> {
    /// Prepares decisions for the kernel version that the topology's machine tells.
    pub fn new(topology: &'t Topology) -> Self {
        let chains = topology.functions().map(|(id, _)| Chain::above(topology, id)).collect();
        let redirects = topology
            .functions()
            .map(|(_, function)| function.info().registers.acs.redirects_as_linux_reads())
            .collect();
        Self { topology, tables: TableChoice::for_kernel(topology.machine().kernel), chains, redirects }
    }

    /// The topology decided over.
    pub fn topology(&self) -> &'t Topology {
        self.topology
    }

    /// Which whitelist holds.
    pub fn tables(&self) -> TableChoice {
        self.tables
    }

    /// The functions from `function` up to the root, itself first, as far as known.
    pub fn way_up(&self, function: FunctionId) -> impl Iterator<Item = FunctionId> + '_ {
        self.chains[function.index()].functions()
    }

    /// The host bridge above `function`, where the way up is known to the end.
    pub fn host_bridge_above(&self, function: FunctionId) -> Option<HostBridgeId> {
        self.chains[function.index()].host
    }

    /// Decides whether and how `client` reaches memory of `provider`.
    pub fn decide(&self, provider: FunctionId, client: FunctionId) -> Decision {
        let (up, down) = (&self.chains[provider.index()], &self.chains[client.index()]);
        let meeting = up.steps.iter().enumerate().find_map(|(i, step)| down.position(step.function).map(|j| (i, j)));
        let mut decision = Decision::undecided(provider, client);
        match meeting {
            Some((i, j)) => self.with_common(up, down, (i, j), &mut decision),
            None => self.without_common(up, down, &mut decision),
        }
        decision.map_type = match decision.goes_up {
            Fact::Known(false) => MapType::BusAddr,
            Fact::Known(true) => {
                decision.gate.as_ref().map_or(MapType::Unknown, |gate| MapType::through_root(gate.opens))
            }
            // The gate never answers as a common switch would.
            Fact::Unknown => MapType::Unknown,
        };
        if self.is_configured_out() {
            decision.configured_out = true;
            decision.map_type = MapType::NotSupported;
        }
        decision
    }

    /// Whether the kernel was built without `CONFIG_PCI_P2PDMA`.
    fn is_configured_out(&self) -> bool {
        self.topology.machine().p2pdma_configured == Fact::Known(false)
    }

    /// The ways up meet at step `i` of the provider's and step `j` of the client's,
    /// unless they meet earlier where the input does not show them.
    fn with_common(&self, up: &Chain, down: &Chain, (i, j): (usize, usize), decision: &mut Decision) {
        let (below, above) = (up.hidden_end(self.topology, i), down.hidden_end(self.topology, j));
        let meetings = [
            Some(Meeting { up: i + 1, down: j, hops: i + j }),
            // At an unlisted bridge above both.
            below.and(above).map(|_| Meeting { up: i, down: j, hops: i + j }),
            // At a listed bridge that did not show its bus numbers, on the other's way up.
            above.and_then(|bus| up.lowest_joint(self.topology, i, bus)).map(|(hops, steps)| Meeting {
                up: steps,
                down: j,
                hops: hops + j,
            }),
            below.and_then(|bus| down.lowest_joint(self.topology, j, bus)).map(|(hops, steps)| Meeting {
                up: i,
                down: steps,
                hops: i + hops,
            }),
        ];
        decision.walked = self.walked(up, i + 1, down, j);
        decision.hidden_below = hidden_in(&up.steps[..i]).chain(hidden_in(&down.steps[..j])).collect();
        decision.distance = fewest_hops(&meetings, i + j);
        let common = up.steps[i].function;
        let one_meeting = meetings.iter().flatten().count() == 1;
        decision.common = if one_meeting { Common::At(common) } else { Common::AtOrBelow(common) };
        let clear = decision.walked.iter().all(|walked| walked.redirects == Fact::Known(false));
        decision.goes_up = if !self.some_meeting_is_free(up, down, &meetings) {
            Fact::Known(true)
        } else if clear && decision.hidden_below.is_empty() {
            Fact::Known(false)
        } else {
            Fact::Unknown
        };
        if decision.goes_up != Fact::Known(false) {
            decision.gate = Some(gate::ask(self.topology, self.tables, up.host, down.host, true));
        }
    }

    /// The ways up do not meet as far as they are known. Where one is not known to the
    /// end it may join the other's, or not; without a common function ACS bits are
    /// discarded, since every request goes up to the root anyway.
    fn without_common(&self, up: &Chain, down: &Chain, decision: &mut Decision) {
        let (up_len, down_len) = (up.steps.len(), down.steps.len());
        let same_domain = up.domain(self.topology) == down.domain(self.topology);
        let open = |chain: &Chain| chain.open_end(self.topology).filter(|_| same_domain);
        let (up_open, down_open) = (open(up), open(down));
        let meetings = [
            up_open.and(down_open).map(|_| Meeting { up: up_len, down: down_len, hops: up_len + down_len }),
            up_open.and_then(|bus| down.lowest_joint(self.topology, down_len, bus)).map(|(hops, steps)| Meeting {
                up: up_len,
                down: steps,
                hops: up_len + hops,
            }),
            down_open.and_then(|bus| up.lowest_joint(self.topology, up_len, bus)).map(|(hops, steps)| Meeting {
                up: steps,
                down: down_len,
                hops: hops + down_len,
            }),
        ];
        let free = self.some_meeting_is_free(up, down, &meetings);
        let counts = meetings.iter().flatten();
        let (ups, downs) = (counts.clone().map(|meeting| meeting.up), counts.clone().map(|meeting| meeting.down));
        let (ups, downs) = if free { (ups.min(), downs.min()) } else { (ups.max(), downs.max()) };
        decision.walked = self.walked(up, ups.unwrap_or(0), down, downs.unwrap_or(0));
        decision.hidden_below = hidden_in(&up.steps).chain(hidden_in(&down.steps)).collect();
        decision.distance = fewest_hops(&meetings, up_len + down_len);
        decision.common = if counts.count() == 0 { Common::Nowhere } else { Common::Unknown };
        decision.goes_up = if free { Fact::Unknown } else { Fact::Known(true) };
        // An unknown host bridge may be the other's if the bus lies at or above its root bus.
        let reaches = |bus: Option<u8>, host: Option<HostBridgeId>| {
            bus.is_some_and(|bus| host.is_none_or(|host| self.topology.host_bridge(host).bus() <= bus))
        };
        let may_share = reaches(up_open, down.host) || reaches(down_open, up.host);
        decision.gate = Some(gate::ask(self.topology, self.tables, up.host, down.host, may_share));
    }

    /// Whether nothing redirects for sure at one of several possible meetings.
    fn some_meeting_is_free(&self, up: &Chain, down: &Chain, meetings: &[Option<Meeting>]) -> bool {
        let free = |steps: &[Step]| steps.iter().all(|step| self.redirects[step.function.index()] != Fact::Known(true));
        meetings.iter().flatten().any(|meeting| free(&up.steps[..meeting.up]) && free(&down.steps[..meeting.down]))
    }

    fn walked(&self, up: &Chain, ups: usize, down: &Chain, downs: usize) -> Vec<Walked> {
        let steps = up.steps[..ups].iter().chain(&down.steps[..downs]);
        steps.map(|step| Walked { function: step.function, redirects: self.redirects[step.function.index()] }).collect()
    }
}

/// One way in which the ways up may meet.
#[derive(Clone, Copy)]
struct Meeting {
    /// Steps of the provider's way whose ACS is looked at, the common one included.
    up: usize,
    /// Steps of the client's way whose ACS is looked at.
    down: usize,
    /// Hops on both sides; at least, where bridges are hidden.
    hops: usize,
}

fn fewest_hops(meetings: &[Option<Meeting>], otherwise: usize) -> u32 {
    meetings.iter().flatten().map(|meeting| meeting.hops).fold(otherwise, usize::min) as u32
}

fn hidden_in(steps: &[Step]) -> impl Iterator<Item = FunctionId> + '_ {
    steps.iter().filter(|step| step.hidden_above).map(|step| step.function)
}
