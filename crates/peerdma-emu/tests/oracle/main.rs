//! Resolver against emulator, on random machines.
//!
//! The resolver reads a `Topology` that was discovered from configuration bytes and says which
//! requests arrive. The emulator routes by those bytes and shares no line with it. For every
//! ordered pair of a machine:
//!
//! - a request with each kind of number that an initiator may be handed arrives at exactly that place of
//!   exactly that BAR where the hardware's view says so, and nowhere else, and does not where it says so;
//! - what the verdict permits is mapped with the mapping engine, and arrives at the address that it gave;
//! - what is undefined ends as undefined, or in one of the ways that an implementation may choose;
//! - where Linux and the hardware differ, the hardware's side is what happens.
//!
//! `cargo xtask oracle --requests N --seed S` tries as many as one likes. A seed on which the two did
//! not agree stays in `seeds.txt`.
#![cfg(test)]

mod compare;
mod draw;
mod guest;
mod probe;
mod tally;
mod world;

use compare::Comparison;
use tally::Tally;
use world::World;

/// All pairs of the machine of a seed.
fn machine(seed: u64) -> (Tally, Vec<String>) {
    let world = World::new(&draw::platform(seed), seed);
    let random = fastrand::Rng::with_seed(!seed);
    let mut comparison = Comparison { world: &world, random, tally: Tally::default(), disagreements: Vec::new() };
    comparison.run();
    comparison.tally.machines = 1;
    let disagreements = comparison.disagreements.into_iter().map(|what| format!("seed {seed}: {what}")).collect();
    (comparison.tally, disagreements)
}

fn agree(disagreements: &[String]) {
    let shown: Vec<&str> = disagreements.iter().take(200).map(String::as_str).collect();
    assert!(disagreements.is_empty(), "{} disagreements:\n{}", disagreements.len(), shown.join("\n"));
}

#[test]
fn what_the_resolver_says_is_what_happens_on_random_machines() {
    let (mut tally, mut all) = (Tally::default(), Vec::new());
    for seed in 0..24 {
        let (one, disagreements) = machine(seed);
        tally.add(&one);
        all.extend(disagreements);
    }
    agree(&all);
    assert!(tally.requests > 5_000 && tally.is_broad(), "{tally}");
}

#[test]
fn seeds_on_which_they_once_did_not_agree() {
    for line in include_str!("seeds.txt").lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let seed =
            line.split_whitespace().next().and_then(|word| word.parse().ok()).expect("a line starts with a seed");
        let (_, disagreements) = machine(seed);
        assert!(disagreements.is_empty(), "{line}\n{}", disagreements.join("\n"));
    }
}

/// A number from the environment.
fn stated(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

#[test]
#[ignore = "takes as long as it is told to; cargo xtask oracle runs it"]
fn many_random_machines() {
    let requests = stated("PEERDMA_ORACLE_REQUESTS").unwrap_or(1_000_000);
    let first = stated("PEERDMA_ORACLE_SEED").unwrap_or(1 << 32);
    let (mut tally, mut all, mut said) = (Tally::default(), Vec::new(), 0);
    for seed in first.. {
        if tally.requests >= requests || all.len() > 1000 {
            break;
        }
        let (one, disagreements) = machine(seed);
        tally.add(&one);
        all.extend(disagreements);
        if tally.requests * 20 / requests.max(1) > said {
            said = tally.requests * 20 / requests.max(1);
            eprintln!("{} of {requests} requests, {} disagreements", tally.requests, all.len());
        }
    }
    eprintln!("seeds from {first} on: {tally}");
    agree(&all);
}

/// The platform file of `PEERDMA_ORACLE_SEED`, to look at.
#[test]
#[ignore = "prints a machine"]
fn one_machine_in_words() {
    eprintln!("{}", draw::platform(stated("PEERDMA_ORACLE_SEED").unwrap_or(0)));
}
