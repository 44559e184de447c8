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
//! give different answers. `tests/unknown.rs` fills them in exhaustively.

mod cached;
mod chain;
mod explain;
mod gate;
mod possible;
mod whitelist;

pub use cached::{CachedView, Client, Distance};
pub use gate::{GateAnswer, Representative, representative};
pub use whitelist::{Table, TableChoice};

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
    /// At this function or at one below it that was not listed.
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
    /// meet nowhere.
    pub walked: Vec<Walked>,
    /// Functions above which bridges are hidden from the input.
    pub hidden_below: Vec<FunctionId>,
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
        let blank = Decision::undecided(provider, client);
        let domain = |id: FunctionId| self.topology.function(id).address().domain();
        let apart = up.host.is_some() && down.host.is_some() || domain(provider) != domain(client);
        let mut decision = match meeting {
            Some((i, j)) => self.with_common(&up.steps[..=i], &down.steps[..j], (up.host, down.host), blank),
            None if apart => self.without_common(up, down, blank),
            None => self.maybe_common(up, down, blank),
        };
        if self.topology.machine().p2pdma_configured == Fact::Known(false) {
            decision.configured_out = true;
            decision.map_type = MapType::NotSupported;
        }
        decision
    }

    fn redirects(&self, function: FunctionId) -> Fact<bool> {
        self.redirects[function.index()]
    }

    fn ask_gate(&self, provider: Option<HostBridgeId>, client: Option<HostBridgeId>) -> GateAnswer {
        gate::ask(self.topology, self.tables, provider, client)
    }

    /// `up` ends with the common function, `down` ends right below it.
    fn with_common(
        &self,
        up: &[Step],
        down: &[Step],
        (up_host, down_host): (Option<HostBridgeId>, Option<HostBridgeId>),
        blank: Decision,
    ) -> Decision {
        let (common, below) = up.split_last().map_or((None, up), |(last, below)| (Some(last.function), below));
        let hidden = |steps: &[Step]| steps.last().is_some_and(|step| step.hidden_above);
        // With bridges hidden on both sides right below it, the ways may meet earlier.
        let maybe_lower = hidden(below) && hidden(down);
        let walked: Vec<Walked> = up
            .iter()
            .chain(down)
            .map(|step| Walked { function: step.function, redirects: self.redirects(step.function) })
            .collect();
        let hidden_below: Vec<FunctionId> =
            below.iter().chain(down).filter(|step| step.hidden_above).map(|step| step.function).collect();
        let certain = |walked: &&Walked| !(maybe_lower && Some(walked.function) == common);
        let surely_redirected = walked.iter().filter(certain).any(|walked| walked.redirects == Fact::Known(true));
        let maybe_redirected =
            !hidden_below.is_empty() || walked.iter().any(|walked| walked.redirects != Fact::Known(false));
        let gate = maybe_redirected.then(|| self.ask_gate(up_host, down_host));
        let map_type = match &gate {
            None => MapType::BusAddr,
            Some(gate) if surely_redirected => through_root(gate),
            Some(_) => MapType::Unknown,
        };
        Decision {
            map_type,
            distance: (below.len() + down.len()) as u32,
            common: match common {
                Some(common) if maybe_lower => Common::AtOrBelow(common),
                Some(common) => Common::At(common),
                None => Common::Nowhere,
            },
            walked,
            hidden_below,
            gate,
            ..blank
        }
    }

    fn without_common(&self, up: &Chain, down: &Chain, blank: Decision) -> Decision {
        // ACS bits met on the way are discarded: every request goes up to the root anyway.
        let gate = self.ask_gate(up.host, down.host);
        Decision {
            map_type: through_root(&gate),
            distance: (up.steps.len() + down.steps.len()) as u32,
            common: Common::Nowhere,
            hidden_below: hidden_below(up, down),
            gate: Some(gate),
            ..blank
        }
    }

    /// The way up of at least one is not known to the end: it may join the other's or not.
    fn maybe_common(&self, up: &Chain, down: &Chain, blank: Decision) -> Decision {
        // If they meet, they meet above everything known of a way with an open end, and
        // nowhere below the other's own function.
        let sure = |chain: &Chain| match chain.host {
            None if up.host.is_some() || down.host.is_some() => chain.steps.len(),
            _ => 1,
        };
        let walked: Vec<Walked> = (up.steps.iter().take(sure(up)))
            .chain(down.steps.iter().take(sure(down)))
            .map(|step| Walked { function: step.function, redirects: self.redirects(step.function) })
            .collect();
        let surely_redirected = walked.iter().any(|walked| walked.redirects == Fact::Known(true));
        let gate = self.ask_gate(up.host, down.host);
        Decision {
            map_type: if surely_redirected { through_root(&gate) } else { MapType::Unknown },
            distance: (up.steps.len() + down.steps.len()) as u32,
            common: Common::Unknown,
            walked,
            hidden_below: hidden_below(up, down),
            gate: Some(gate),
            ..blank
        }
    }
}

fn hidden_below(up: &Chain, down: &Chain) -> Vec<FunctionId> {
    let open = |step: &&Step| step.hidden_above;
    up.steps.iter().chain(&down.steps).filter(open).map(|step| step.function).collect()
}

fn through_root(gate: &GateAnswer) -> MapType {
    match gate.opens {
        Fact::Known(true) => MapType::ThruHostBridge,
        Fact::Known(false) => MapType::NotSupported,
        Fact::Unknown => MapType::Unknown,
    }
}
