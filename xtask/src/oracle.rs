//! `cargo xtask oracle`: resolver against emulator, for as long as one likes.
//!
//! The comparison is a test of peerdma-emu that thousands of requests go through with every
//! `cargo test`; here it is built with optimisation and told how many to try. What it prints says
//! which cases were met how often, so that a run in which nothing could go wrong is seen to be one.

use crate::failure::Failure;
use crate::repo;
use std::process::Command;

/// What is tried where nothing is said.
const REQUESTS: u64 = 1_000_000;
/// Seeds below are those of `cargo test`.
const FIRST_SEED: u64 = 1 << 32;

/// How much to try, and from which seed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Options {
    requests: u64,
    seed: u64,
}

/// Runs the comparison.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let Options { requests, seed } = options(arguments)?;
    let mut command = Command::new("cargo");
    command
        .args(["test", "--release", "--package", "peerdma-emu", "--test", "oracle", "many_random_machines"])
        .args(["--", "--ignored", "--exact", "--nocapture"])
        .current_dir(repo::root()?)
        .env("PEERDMA_ORACLE_REQUESTS", requests.to_string())
        .env("PEERDMA_ORACLE_SEED", seed.to_string());
    let status = command.status().map_err(|error| Failure::Stopped(format!("cannot run cargo: {error}")))?;
    if status.success() {
        say!("oracle: resolver and emulator agree on {requests} requests from seed {seed} on");
        return Ok(());
    }
    Err(Failure::Found(
        "the two do not agree, or the test does not build; a seed printed above repeats a machine: find out who is \
         wrong, and keep the seed in crates/peerdma-emu/tests/oracle/seeds.txt"
            .into(),
    ))
}

fn options(arguments: &[String]) -> Result<Options, Failure> {
    let mut options = Options { requests: REQUESTS, seed: FIRST_SEED };
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let field = match word.as_str() {
            "--requests" => &mut options.requests,
            "--seed" => &mut options.seed,
            other => return Err(Failure::Usage(format!("oracle takes --requests N and --seed S, not `{other}`"))),
        };
        let number = words.next().and_then(|number| number.replace('_', "").parse().ok());
        *field = number.ok_or_else(|| Failure::Usage(format!("{word} takes a number")))?;
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
    fn count_and_seed_are_numbers_and_have_defaults() {
        assert_eq!(of(&[]), Some(Options { requests: REQUESTS, seed: FIRST_SEED }));
        assert_eq!(of(&["--seed", "7", "--requests", "5_000"]), Some(Options { requests: 5_000, seed: 7 }));
        for line in [&["--seed"][..], &["--seed", "x"], &["5"], &["--millions", "1"]] {
            assert_eq!(of(line), None, "{line:?}");
        }
    }
}
