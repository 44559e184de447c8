//! The smallest set of ports to change so that chosen pairs are permitted, and how.
//!
//! A pair is helped in two ways: RR, CR and EC cleared wherever they send it up, so that
//! it crosses below the port where both ends meet; or Upstream Forwarding set at a port
//! where it turns round on its way through the root complex, which is undefined without.
//! [`plan`] tries them on the topology itself, through [`super::change::apply`]
//! and [`Judge`], so that what it finds is what the verdict says afterwards.
//!
//! 1. `options`: for each pair by itself, every change of ports near it that permits it
//!    and of which no part would do.
//! 2. `choose`: one option a pair, so that the union has the fewest ports; then the
//!    fewest bits.
//! 3. [`BootParameters`], [`setpci`]: how to make the change, now and for good.
//!
//! Nothing is written anywhere.

mod choose;
mod options;
mod parameters;
mod selector;
mod setpci;

pub use parameters::{BootParameters, Parameter, grub_default_line, grub_quoted};
pub use selector::selector;
pub use setpci::setpci;

use super::change::{self, Change, Changed};
use super::{Judge, Need, PairVerdict, Permission, Reason, Target, Verdict};
use crate::pcie::acs::AcsBits;
use crate::topology::{FunctionId, Topology};
use alloc::vec::Vec;

/// What a fix has to reach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FixOptions {
    /// What every pair is to be permitted.
    pub need: Need,
    /// Only routes below the root count.
    pub direct_only: bool,
}

/// Bits to change at one port, or at one function with an ACS capability of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct PortChange {
    /// Where.
    pub function: FunctionId,
    /// Bits to clear, all set now.
    clear: u16,
    /// Bits to set, all clear now.
    set: u16,
}

impl PortChange {
    /// The change of these bits at one port.
    pub const fn new(function: FunctionId, clear: AcsBits, set: AcsBits) -> Self {
        Self { function, clear: clear.bits(), set: set.bits() }
    }

    /// Bits to clear.
    pub const fn clear(&self) -> AcsBits {
        AcsBits::from_bits_retain(self.clear)
    }

    /// Bits to set.
    pub const fn set(&self) -> AcsBits {
        AcsBits::from_bits_retain(self.set)
    }

    /// As a change to apply.
    pub const fn change(&self) -> Change {
        Change::Acs { function: self.function, clear: self.clear(), set: self.set() }
    }
}

/// Whether there is a way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Every pair is permitted as it is.
    NotNeeded,
    /// Change these ports, in order of addresses.
    Found(Vec<PortChange>),
    /// No ACS bits permit every pair.
    Impossible {
        /// What stands in the way of those that are not.
        why: Vec<Reason>,
    },
    /// It depends on what was not read.
    FactsMissing {
        /// What.
        reasons: Vec<Reason>,
    },
}

/// One of the pairs asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlannedPair {
    /// As it is.
    pub now: PairVerdict,
    /// With the ports changed; as now where nothing was found.
    pub then: PairVerdict,
}

/// What to change, and what comes of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Whether there is a way.
    pub outcome: Outcome,
    /// Whether fewer ports are known not to do. False where fewer may do, depending on what
    /// was not read, and where there are so many combinations that not all were tried.
    pub proven_smallest: bool,
    /// The pairs, as asked for.
    pub pairs: Vec<PlannedPair>,
    /// The machine with the ports changed.
    pub after: Changed,
}

impl Plan {
    /// The ports to change; none unless found.
    pub fn ports(&self) -> &[PortChange] {
        match &self.outcome {
            Outcome::Found(ports) => ports,
            _ => &[],
        }
    }
}

/// Looks for the fewest ports whose change permits every pair of `pairs`, initiators first.
pub fn plan(topology: &Topology, pairs: &[(FunctionId, Target)], options: &FixOptions) -> Plan {
    let search = Search { topology, options: *options };
    let judge = Judge::new(topology);
    let found: Vec<options::Options> = pairs.iter().map(|(from, to)| search.options(&judge, *from, to)).collect();
    let hopeless = || found.iter().filter(|pair| pair.minimal.is_empty());
    let mut proven_smallest = true;
    let outcome = if found.iter().all(options::Options::satisfied) {
        Outcome::NotNeeded
    } else if hopeless().any(|pair| !pair.may_hang_on_facts()) {
        Outcome::Impossible { why: gathered(hopeless().filter(|pair| !pair.may_hang_on_facts())) }
    } else if hopeless().next().is_some() {
        Outcome::FactsMissing { reasons: gathered(hopeless()) }
    } else {
        match search.choose(pairs, &found) {
            Some(choice) => {
                let fewer_may_do = found.iter().any(|pair| pair.may_do_with < choice.ports.len());
                proven_smallest = choice.proven && found.iter().all(|pair| pair.complete) && !fewer_may_do;
                Outcome::Found(choice.ports)
            }
            None => Outcome::Impossible { why: gathered(found.iter()) },
        }
    };
    let ports: &[PortChange] = if let Outcome::Found(ports) = &outcome { ports } else { &[] };
    let after = search.with(ports).unwrap_or_else(|| Changed { topology: topology.clone(), assumed: Vec::new() });
    let pairs = {
        let later = Judge::new(&after.topology);
        let pair = |(from, to): &(FunctionId, Target)| PlannedPair {
            now: judge.judge(*from, to),
            then: later.judge(*from, to),
        };
        pairs.iter().map(pair).collect()
    };
    Plan { outcome, proven_smallest, pairs, after }
}

fn gathered<'o>(pairs: impl Iterator<Item = &'o options::Options>) -> Vec<Reason> {
    let mut reasons: Vec<Reason> = Vec::new();
    for reason in pairs.flat_map(|pair| &pair.reasons) {
        if !reasons.contains(reason) {
            reasons.push(reason.clone());
        }
    }
    reasons
}

/// What every part of the search looks at.
struct Search<'t> {
    topology: &'t Topology,
    options: FixOptions,
}

impl Search<'_> {
    /// The machine with these ports changed; `None` if one cannot be.
    fn with(&self, ports: &[PortChange]) -> Option<Changed> {
        let changes: Vec<Change> = ports.iter().map(PortChange::change).collect();
        change::apply(self.topology, &changes).ok()
    }

    /// Whether a verdict is what is wanted.
    fn satisfies(&self, pair: &PairVerdict) -> Permission {
        let wanted_route = match (self.options.direct_only, pair.verdict) {
            (true, Verdict::HostBridge) => Permission::Refused,
            _ => Permission::Permitted,
        };
        wanted_route.and(pair.permits(self.options.need))
    }
}
