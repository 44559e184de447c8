//! Fixes: what is found permits every pair, and nothing smaller does.

#![cfg(test)]

mod by_hand;
mod parameters;
mod random;
#[path = "../tree/mod.rs"]
mod tree;

use peerdma::pcie::acs::AcsBits;
use peerdma::route::change::{Change, apply};
use peerdma::route::fix::{FixOptions, Outcome, Plan, PortChange, plan};
use peerdma::route::{Judge, Need, PairVerdict, Permission, Target, Verdict};
use peerdma::topology::{FunctionId, Topology};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use random::{Asked, Maker};

/// Most ports of a tree whose smaller sets are all tried.
const MOST_CANDIDATES: usize = 8;

/// What the machines of a test were like.
#[derive(Default, Debug)]
struct Seen {
    not_needed: usize,
    found: usize,
    /// With so many ports.
    sizes: [usize; 6],
    with_upstream_forwarding: usize,
    not_proven: usize,
    impossible: usize,
    missing: usize,
    brute_forced: usize,
}

fn satisfies(pair: &PairVerdict, options: &FixOptions) -> Permission {
    match (options.direct_only, pair.verdict) {
        (true, Verdict::HostBridge) => Permission::Refused,
        _ => pair.permits(options.need),
    }
}

fn permits_all(topology: &Topology, pairs: &[(FunctionId, Target)], options: &FixOptions) -> bool {
    all_are(topology, pairs, options, &[Permission::Permitted])
}

fn all_are(topology: &Topology, pairs: &[(FunctionId, Target)], options: &FixOptions, of: &[Permission]) -> bool {
    let judge = Judge::new(topology);
    pairs.iter().all(|(from, to)| of.contains(&satisfies(&judge.judge(*from, to), options)))
}

fn applied(topology: &Topology, ports: &[PortChange]) -> Option<Topology> {
    let changes: Vec<Change> = ports.iter().map(PortChange::change).collect();
    apply(topology, &changes).ok().map(|changed| changed.topology)
}

/// Everything that can be changed anywhere: at each port, clear what redirects, set
/// Upstream Forwarding, or both.
fn candidates(topology: &Topology) -> Vec<Vec<PortChange>> {
    let none = AcsBits::empty();
    let mut all = Vec::new();
    for (id, function) in topology.functions() {
        let Some(registers) = function.info().registers.acs.registers() else { continue };
        let control = registers.control.known().unwrap_or(none);
        let clear = control & AcsBits::REDIRECT & registers.capability;
        let set = (registers.capability & AcsBits::UF) - control;
        let ways = [(clear, none), (none, set), (clear, set)];
        let ways: Vec<PortChange> = ways
            .into_iter()
            .filter(|(clear, set)| !(*clear | *set).is_empty())
            .map(|(clear, set)| PortChange::new(id, clear, set))
            .collect();
        if !ways.is_empty() {
            all.push(ways);
        }
    }
    all
}

/// A change of at most `ports` ports that brings every pair to one of `of`, by trying all.
fn brute_force(
    topology: &Topology,
    asked: &Asked,
    at: &[Vec<PortChange>],
    ports: usize,
    of: &[Permission],
) -> Option<Vec<PortChange>> {
    fn go(
        topology: &Topology,
        asked: &Asked,
        at: &[Vec<PortChange>],
        ports: usize,
        of: &[Permission],
        chosen: &mut Vec<PortChange>,
    ) -> bool {
        let fits = applied(topology, chosen).is_some_and(|after| all_are(&after, &asked.pairs, &asked.options, of));
        if fits || ports == 0 {
            return fits;
        }
        for (nth, ways) in at.iter().enumerate() {
            for &way in ways {
                chosen.push(way);
                if go(topology, asked, &at[nth + 1..], ports - 1, of, chosen) {
                    return true;
                }
                chosen.pop();
            }
        }
        false
    }
    let mut chosen = Vec::new();
    go(topology, asked, at, ports, of, &mut chosen).then_some(chosen)
}

fn check(topology: &Topology, asked: &Asked, seen: &mut Seen) {
    let plan: Plan = plan(topology, &asked.pairs, &asked.options);
    let at = candidates(topology);
    let few = at.len() <= MOST_CANDIDATES;
    match &plan.outcome {
        Outcome::NotNeeded => {
            seen.not_needed += 1;
            assert!(permits_all(topology, &asked.pairs, &asked.options));
        }
        Outcome::Found(ports) => {
            seen.found += 1;
            seen.sizes[ports.len().min(5)] += 1;
            seen.with_upstream_forwarding += usize::from(ports.iter().any(|port| !port.set().is_empty()));
            let after = applied(topology, ports).unwrap();
            assert!(permits_all(&after, &asked.pairs, &asked.options), "{ports:?}");
            seen.not_proven += usize::from(!plan.proven_smallest);
            if few {
                seen.brute_forced += 1;
                let smaller = |of| brute_force(topology, asked, &at, ports.len() - 1, of);
                assert_eq!(smaller(&[Permission::Permitted]), None, "against {ports:?}");
                // Fewer ports may do where that hangs on facts; of several pairs they may do for each by itself.
                let may_do = smaller(&[Permission::Permitted, Permission::Unknown]).is_some();
                assert!(!may_do || !plan.proven_smallest, "against {ports:?}");
                assert!(may_do || plan.proven_smallest || asked.pairs.len() > 1, "against {ports:?}");
            }
        }
        Outcome::Impossible { why } => {
            seen.impossible += 1;
            assert!(!why.is_empty());
            if at.len() <= 5 {
                seen.brute_forced += 1;
                assert_eq!(brute_force(topology, asked, &at, at.len(), &[Permission::Permitted]), None);
            }
        }
        Outcome::FactsMissing { reasons } => {
            seen.missing += 1;
            assert!(!reasons.is_empty());
            if at.len() <= 5 {
                assert_eq!(brute_force(topology, asked, &at, at.len(), &[Permission::Permitted]), None);
            }
        }
    }
    for pair in &plan.pairs {
        assert_eq!(pair.now, Judge::new(topology).judge(pair.now.initiator, &pair.now.target));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_fix_permits_its_pairs_and_no_smaller_set_of_ports_does(bytes in prop::collection::vec(any::<u8>(), 0..160)) {
        let (topology, asked) = Maker::machine(&bytes);
        check(&topology, &asked, &mut Seen::default());
    }
}

/// A generator that made only one kind of machine would prove nothing.
#[test]
fn random_machines_come_to_every_outcome() {
    let mut runner = TestRunner::deterministic();
    let bytes = prop::collection::vec(any::<u8>(), 60..160);
    let mut seen = Seen::default();
    for _ in 0..150 {
        let (topology, asked) = Maker::machine(&bytes.new_tree(&mut runner).unwrap().current());
        check(&topology, &asked, &mut seen);
    }
    let rare = [seen.not_needed, seen.found, seen.impossible, seen.missing, seen.with_upstream_forwarding];
    assert!(seen.not_proven > 2 && seen.found > seen.not_proven + 5, "{seen:?}");
    assert!(rare.iter().all(|&count| count > 2), "{seen:?}");
    assert!(seen.brute_forced > 40 && seen.sizes.iter().filter(|&&count| count > 0).count() >= 3, "{seen:?}");
}

fn both(direct_only: bool) -> FixOptions {
    FixOptions { need: Need::Both, direct_only }
}
