//! Buffers that devices share while everything happens to their memory, watched by memory itself.
//!
//! `cargo xtask soak --operations N --seed S` runs as long as one likes. A seed on which a rule did not
//! hold stays in `seeds.txt`, and so do those that catch bugs which were planted to be caught: each is
//! an entry of the list of mutants.
#![cfg(test)]

use peerdma_emu::platform::Platform;
use peerdma_emu::sharing::soak::{Outcome, run};
use std::collections::BTreeSet;

/// Steps of one run; after that another seed tells more.
const STRETCH: u64 = 200_000;

fn soak(seed: u64, operations: u64) -> Outcome {
    let platform = Platform::built_in("shared-switch").expect("it comes with peerdma");
    let outcome = run(&platform, seed, operations).expect("the platform has everything that it takes");
    let first = outcome.violations.iter().take(3).map(ToString::to_string).collect::<Vec<_>>().join("\n  ");
    let broken = outcome.broken.iter().map(ToString::to_string).collect::<String>();
    assert!(
        outcome.is_good(),
        "seed {seed}: {} violations, {} hold on after the end\n  {first}\n  {broken}\n  {:?}",
        outcome.violations.len(),
        outcome.stuck.len(),
        outcome.stuck,
    );
    outcome
}

#[test]
fn whatever_happens_to_memory_no_device_touches_what_it_must_not() {
    let (mut happened, mut late, mut done) = (BTreeSet::new(), 0, 0);
    for seed in 0..3 {
        let outcome = soak(seed, 30_000);
        happened.extend(outcome.deeds.happened.keys().copied());
        late += outcome.drivers.iter().map(|(_, tally)| tally.late).sum::<u64>();
        done += outcome.drivers.iter().map(|(_, tally)| tally.done).sum::<u64>();
    }
    assert!(happened.len() >= 8, "{happened:?}");
    assert!(late > 0 && done > 100, "{late} late jobs, {done} good ones");
}

#[test]
fn seeds_that_once_caught_something() {
    for line in include_str!("seeds.txt").lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let mut words = line.split_whitespace().map(|word| word.parse().ok());
        let (Some(Some(seed)), Some(Some(operations))) = (words.next(), words.next()) else {
            panic!("`{line}` does not begin with a seed and a number of operations");
        };
        soak(seed, operations);
    }
}

#[test]
#[ignore = "as long as one likes: cargo xtask soak"]
fn as_many_operations_as_asked_for() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let operations = number("PEERDMA_SOAK_OPERATIONS").unwrap_or(1_000_000);
    let first = number("PEERDMA_SOAK_SEED").unwrap_or(0);
    let (mut left, mut seed, mut told) = (operations, first, 0);
    let (mut judged, mut deeds, mut jobs) = (0, 0, 0);
    while left > 0 {
        let outcome = soak(seed, left.min(STRETCH));
        left -= outcome.operations.min(left);
        judged += outcome.judged;
        deeds += outcome.deeds.happened.values().sum::<u64>();
        jobs += outcome.drivers.iter().map(|(_, tally)| tally.done).sum::<u64>();
        seed += 1;
        let percent = (operations - left) * 100 / operations;
        if percent >= told + 10 {
            told = percent;
            println!("{percent:3} %: {jobs} jobs, {deeds} disturbances, {judged} words judged");
        }
    }
    println!("soak: {operations} operations, seeds {first} to {}, every rule held", seed - 1);
}
