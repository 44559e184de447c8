//! `cargo xtask soak`: devices that share buffers while everything happens to them, for as long as one likes.
//!
//! The run is a test of peerdma-emu, built with optimisation here. It prints what has happened so far and which
//! seed comes next; a seed with which a rule did not hold ends it.

use crate::failure::Failure;
use crate::repo;
use std::process::Command;

/// Seeds below are those of `cargo test`.
const FIRST_SEED: u64 = 1 << 32;
/// How long, where nothing is said.
const SECONDS: u64 = 60;

/// When a run ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Until {
    Seconds(u64),
    Operations(u64),
}

/// How much to run, and from which seed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Options {
    until: Until,
    seed: u64,
}

/// Runs the soak.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let Options { until, seed } = options(arguments)?;
    let (name, number) = match until {
        Until::Seconds(seconds) => ("PEERDMA_SOAK_SECONDS", seconds),
        Until::Operations(operations) => ("PEERDMA_SOAK_OPERATIONS", operations),
    };
    let mut command = Command::new("cargo");
    command
        .args(["test", "--release", "--package", "peerdma-emu", "--test", "soak", "for_as_long_as_asked"])
        .args(["--", "--ignored", "--exact", "--nocapture"])
        .current_dir(repo::root()?)
        .env(name, number.to_string())
        .env("PEERDMA_SOAK_SEED", seed.to_string());
    let status = command.status().map_err(|error| Failure::Stopped(format!("cannot run cargo: {error}")))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::Found(
        "a rule of sharing did not hold, or the test does not build; a seed printed above repeats the run: mend it, and \
         keep the seed in crates/peerdma-emu/tests/soak/seeds.txt"
            .into(),
    ))
}

fn options(arguments: &[String]) -> Result<Options, Failure> {
    let mut options = Options { until: Until::Seconds(SECONDS), seed: FIRST_SEED };
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let number = |text: Option<&String>| {
            let number = text.and_then(|text| text.replace('_', "").parse().ok());
            number.ok_or_else(|| Failure::Usage(format!("{word} takes a number")))
        };
        match word.as_str() {
            "--seconds" => options.until = Until::Seconds(number(words.next())?),
            "--operations" => options.until = Until::Operations(number(words.next())?),
            "--seed" => options.seed = number(words.next())?,
            other => {
                let takes = "soak takes --seconds N or --operations N, and --seed S";
                return Err(Failure::Usage(format!("{takes}, not `{other}`")));
            }
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &[&str]) -> Option<Options> {
        let words: Vec<String> = line.iter().map(ToString::to_string).collect();
        options(&words).ok()
    }

    #[test]
    fn time_or_operations_and_a_seed_are_numbers_and_have_defaults() {
        assert_eq!(of(&[]), Some(Options { until: Until::Seconds(SECONDS), seed: FIRST_SEED }));
        assert_eq!(
            of(&["--seed", "7", "--operations", "20_000_000"]),
            Some(Options { until: Until::Operations(20_000_000), seed: 7 })
        );
        assert_eq!(of(&["--seconds", "5"]), Some(Options { until: Until::Seconds(5), seed: FIRST_SEED }));
        for line in [&["--seed"][..], &["--seconds", "x"], &["5"], &["--hours", "1"]] {
            assert_eq!(of(line), None, "{line:?}");
        }
    }
}
