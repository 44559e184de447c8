//! Buffers that devices share while everything happens to their memory, watched by memory itself.
//!
//! `cargo xtask soak --seconds N --seed S` runs as long as one likes. A seed on which a rule did not
//! hold stays in `seeds.txt`, and so do those that catch bugs which were planted to be caught: each is
//! an entry of the list of mutants.
#![cfg(test)]

mod contract;
mod faults;

use peerdma_emu::platform::Platform;
use peerdma_emu::sharing::soak::{Outcome, run};
use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, Instant};

/// Steps of one run; after that another seed tells more.
const STRETCH: u64 = 200_000;

fn platform() -> Platform {
    Platform::built_in("shared-switch").expect("it comes with peerdma")
}

fn soak(seed: u64, operations: u64) -> Outcome {
    let outcome = run(&platform(), seed, operations).expect("the platform has everything that it takes");
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
    let (mut happened, mut late, mut done, mut read, mut born_away) = (BTreeSet::new(), 0, 0, 0, 0);
    for seed in 0..3 {
        let outcome = soak(seed, 15_000);
        happened.extend(outcome.deeds.happened.keys().copied());
        late += outcome.parties.iter().map(|(_, tally)| tally.late).sum::<u64>();
        done += outcome.parties.iter().map(|(_, tally)| tally.done).sum::<u64>();
        read += outcome.parties.iter().map(|(_, tally)| tally.for_reading).sum::<u64>();
        born_away += outcome.deeds.born_away;
    }
    assert!(happened.len() >= 8, "{happened:?}");
    assert!(late > 0 && done > 100, "{late} late jobs, {done} good ones");
    assert!(read > 10, "mapped for reading {read} times");
    assert!(born_away > 0, "no buffer was exported while something happened to its device");
}

/// What the drivers met and who held on is not asked here, so that a planted bug which fails this one was
/// seen by memory.
#[test]
fn memory_has_nothing_to_object_to_in_the_kept_seeds() {
    for line in include_str!("seeds.txt").lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let mut words = line.split_whitespace().map(|word| word.parse().ok());
        let (Some(Some(seed)), Some(Some(operations))) = (words.next(), words.next()) else {
            panic!("`{line}` does not begin with a seed and a number of operations");
        };
        let violations =
            run(&platform(), seed, operations).expect("the platform has everything that it takes").violations;
        let first = violations.first().map(ToString::to_string).unwrap_or_default();
        assert!(violations.is_empty(), "{line}: {} violations: {first}", violations.len());
    }
}

#[test]
#[ignore = "as long as one likes: cargo xtask soak"]
fn for_as_long_as_asked() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let operations = number("PEERDMA_SOAK_OPERATIONS");
    let seconds = number("PEERDMA_SOAK_SECONDS").or(operations.is_none().then_some(1)).map(Duration::from_secs);
    let first = number("PEERDMA_SOAK_SEED").unwrap_or(0);
    let (began, mut told) = (Instant::now(), Instant::now());
    let mut sum = Sum::default();
    for seed in first.. {
        let left = operations.map_or(STRETCH, |operations| operations - sum.operations);
        if left == 0 || seconds.is_some_and(|seconds| began.elapsed() >= seconds) {
            break;
        }
        sum.add(&soak(seed, left.min(STRETCH)));
        if told.elapsed() >= Duration::from_secs(10) {
            told = Instant::now();
            println!("seed {seed}: {sum}");
        }
    }
    println!("soak: {sum}, seeds from {first} on, in {} s; every rule held", began.elapsed().as_secs());
}

/// What several runs came to.
#[derive(Default)]
struct Sum {
    runs: u64,
    operations: u64,
    jobs: u64,
    disturbances: u64,
    judged: u64,
}

impl Sum {
    fn add(&mut self, outcome: &Outcome) {
        self.runs += 1;
        self.operations += outcome.operations;
        self.jobs += outcome.parties.iter().map(|(_, tally)| tally.done).sum::<u64>();
        self.disturbances += outcome.deeds.happened.values().sum::<u64>();
        self.judged += outcome.judged;
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { runs, operations, jobs, disturbances, judged } = self;
        write!(
            f,
            "{operations} operations in {runs} runs, {jobs} jobs, {disturbances} disturbances, {judged} words judged"
        )
    }
}
