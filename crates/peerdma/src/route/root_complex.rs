//! What is known of a root complex's way with peer requests.
//!
//! Forwarding from one root port to another, or back out of the same one, is optional
//! (PCIe 6.0 §1.3.1), and no register tells. So this is knowledge, not arithmetic. Three
//! voices are heard, for writes and for reads separately, and the first that knows is
//! believed:
//!
//! 1. what the input states of this very machine;
//! 2. what people saw on hardware with this ID, CPU or name ([`super::knowledge`]);
//! 3. what Linux lists.
//!
//! A report outweighs the list, since the list is what somebody once vouched for. A
//! request passes both host bridges, so one that is known to lose it settles the matter;
//! that one forwards among its own ports says nothing about another, so a good report
//! counts only where both functions are below one host bridge.

use super::kernel_view::{TableChoice, gate};
use super::knowledge::{self, Entry};
use crate::pcie::Fact;
use crate::topology::{HostBridgeId, PeerForwarding, Topology};
use alloc::vec::Vec;
use core::fmt;

/// Whether peer requests come out of a root complex again, and who says so.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Forwarding {
    /// Whether writes reach the target.
    pub writes: Fact<bool>,
    /// Whether reads return the target's bytes.
    pub reads: Fact<bool>,
    /// Who says so. A voice that was outweighed is here too.
    pub sources: Vec<Source>,
}

/// Who says what a root complex does; as text, a sentence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// The input, of the host bridge above this root bus.
    Stated {
        /// Domain of the root bus.
        domain: u32,
        /// Its number.
        bus: u8,
        /// What the host bridge does.
        peer: PeerForwarding,
    },
    /// Somebody who saw it.
    Reported(&'static Entry),
    /// Linux's rule for AMD's CPUs (`cpu_supports_p2pdma`).
    Zen,
    /// Linux's list (`pci_p2pdma_whitelist`).
    Listed,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stated { domain, bus, peer } => {
                write!(f, "the input states that host bridge {domain:04x}:{bus:02x} {peer}")
            }
            Self::Reported(entry) => write!(f, "{entry}"),
            Self::Zen => {
                f.write_str("Linux takes every root complex of AMD family 0x17 and later to forward peer requests")
            }
            Self::Listed => f.write_str("Linux lists its first device as one that forwards peer requests"),
        }
    }
}

impl Forwarding {
    fn is_settled(&self) -> bool {
        matches!((self.writes, self.reads), (Fact::Known(_), Fact::Known(_)))
    }

    /// Hears a voice that counts where the ones before it are silent.
    fn hear(mut self, next: Self) -> Self {
        self.writes = self.writes.or(next.writes);
        self.reads = self.reads.or(next.reads);
        self.sources.extend(next.sources);
        self
    }
}

/// What is known of requests that come up below `from` for a target below `to`; a host
/// bridge that is not known is `None`.
pub fn forwarding(topology: &Topology, from: Option<HostBridgeId>, to: Option<HostBridgeId>) -> Forwarding {
    let stated = stated(topology, from, to);
    if stated.is_settled() {
        return stated;
    }
    stated.hear(reported(topology, from, to)).hear(listed(topology, from, to))
}

/// What the input states of the host bridges.
fn stated(topology: &Topology, from: Option<HostBridgeId>, to: Option<HostBridgeId>) -> Forwarding {
    let peer = |host: HostBridgeId| topology.host_bridge(host).facts().peer;
    let delivers = |does: fn(PeerForwarding) -> bool| -> Fact<bool> {
        let sides = [from, to].map(|host| host.and_then(peer).map(does));
        if sides.contains(&Some(false)) {
            Fact::Known(false)
        } else if sides == [Some(true); 2] {
            Fact::Known(true)
        } else {
            Fact::Unknown
        }
    };
    let sources = hosts(from, to).filter_map(|host| {
        let (peer, bridge) = (peer(host)?, topology.host_bridge(host));
        Some(Source::Stated { domain: bridge.domain(), bus: bridge.bus(), peer })
    });
    Forwarding {
        writes: delivers(PeerForwarding::delivers_writes),
        reads: delivers(PeerForwarding::delivers_reads),
        sources: sources.collect(),
    }
}

/// What people saw.
fn reported(topology: &Topology, from: Option<HostBridgeId>, to: Option<HostBridgeId>) -> Forwarding {
    let of_hosts = hosts(from, to).flat_map(|host| knowledge::of_root_complex(topology, host));
    let entries = of_hosts.chain(knowledge::of_cpu(topology)).chain(knowledge::of_platform(topology));
    let entries: Vec<&'static Entry> = entries.filter(|entry| entry.finding.delivers_writes().is_some()).collect();
    let within_one = from.is_some() && from == to;
    let delivers = |does: &dyn Fn(&Entry) -> Option<bool>| -> Fact<bool> {
        if entries.iter().any(|entry| does(entry) == Some(false)) {
            Fact::Known(false)
        } else if within_one && entries.iter().any(|entry| does(entry) == Some(true)) {
            Fact::Known(true)
        } else {
            Fact::Unknown
        }
    };
    let (writes, reads) =
        (delivers(&|entry| entry.finding.delivers_writes()), delivers(&|entry| entry.finding.delivers_reads()));
    // A report that does not count here is no source.
    let counts = |entry: &&'static Entry| {
        writes.known().is_some_and(|known| entry.finding.delivers_writes() == Some(known))
            || reads.known().is_some_and(|known| entry.finding.delivers_reads() == Some(known))
    };
    let mut sources: Vec<Source> = Vec::new();
    for entry in entries.iter().copied().filter(counts) {
        let source = Source::Reported(entry);
        if !sources.contains(&source) {
            sources.push(source);
        }
    }
    Forwarding { writes, reads, sources }
}

/// What Linux lists.
fn listed(topology: &Topology, from: Option<HostBridgeId>, to: Option<HostBridgeId>) -> Forwarding {
    // The newest list says most about hardware, whichever kernel runs.
    let tables = TableChoice::for_kernel(None);
    let answer = gate::ask(topology, tables, to, from, true);
    if answer.opens != Fact::Known(true) {
        return Forwarding { writes: Fact::Unknown, reads: Fact::Unknown, sources: Vec::new() };
    }
    let source = if answer.cpu_opens == Fact::Known(true) { Source::Zen } else { Source::Listed };
    Forwarding { writes: Fact::Known(true), reads: Fact::Known(true), sources: [source].into() }
}

/// The host bridges that are known, each once.
fn hosts(from: Option<HostBridgeId>, to: Option<HostBridgeId>) -> impl Iterator<Item = HostBridgeId> {
    from.into_iter().chain(to.filter(|_| to != from))
}
