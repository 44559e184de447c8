//! `cargo xtask models`: threads over lock-free parts, in many orders.
//!
//! The core's atomics become a model checker's under a flag, and the tests of the crate
//! `models` try orders of their accesses: shuttle's many of long models, loom's all of short
//! ones, and what the memory model permits besides. A flag changes every crate that sees it,
//! so each has a build folder of its own; no other build is thrown away for it.

use crate::failure::Failure;
use crate::repo;
use std::path::Path;
use std::process::Command;

/// A model checker.
struct Checker {
    /// Puts its atomics in place of the core's.
    flag: &'static str,
    /// Where it builds.
    folder: &'static str,
    /// What to do about a model that fails.
    advice: &'static str,
}

const CHECKERS: [Checker; 2] = [
    Checker {
        flag: "--cfg peerdma_shuttle",
        folder: "target/models",
        advice: "the schedule printed above repeats a failing order: hand it to `shuttle::replay`",
    },
    Checker {
        flag: "--cfg peerdma_loom",
        folder: "target/models-loom",
        advice: "LOOM_LOG=trace and LOOM_LOCATION=1 print the accesses that led there",
    },
];

/// Runs all models, or those whose names hold the argument.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let filter = match arguments {
        [] => None,
        [only] if !only.starts_with('-') => Some(only.as_str()),
        _ => return Err(Failure::Usage("models takes one word to choose by, or nothing".into())),
    };
    let root = repo::root()?;
    for checker in &CHECKERS {
        checker.run(&root, filter)?;
    }
    say!("models: every order that was tried ends well");
    Ok(())
}

impl Checker {
    fn run(&self, root: &Path, filter: Option<&str>) -> Result<(), Failure> {
        let mut command = Command::new("cargo");
        // Optimised: what is counted is orders tried, not seconds.
        command.args(["test", "--release", "--package", "peerdma-models"]).args(filter);
        command
            .current_dir(root)
            .env("CARGO_TARGET_DIR", root.join(self.folder))
            .env("RUSTFLAGS", flags(std::env::var("RUSTFLAGS").ok(), self.flag))
            .env_remove("CARGO_ENCODED_RUSTFLAGS");
        let status = command.status().map_err(|error| Failure::Stopped(format!("cannot run cargo: {error}")))?;
        if status.success() {
            return Ok(());
        }
        let advice = self.advice;
        Err(Failure::Found(format!("a model failed, or does not build with {}; {advice}", self.flag)))
    }
}

/// The flag, after those that the caller set.
fn flags(set: Option<String>, flag: &str) -> String {
    match set.filter(|set| !set.trim().is_empty()) {
        Some(set) => format!("{set} {flag}"),
        None => flag.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_the_caller_are_kept() {
        let flags = |set: Option<&str>| flags(set.map(str::to_owned), CHECKERS[0].flag);
        assert_eq!(flags(None), "--cfg peerdma_shuttle");
        assert_eq!(flags(Some(" ")), "--cfg peerdma_shuttle");
        assert_eq!(flags(Some("-Dwarnings")), "-Dwarnings --cfg peerdma_shuttle");
    }

    #[test]
    fn models_takes_one_word() {
        for line in [&["--quick"][..], &["one", "two"]] {
            let words: Vec<String> = line.iter().map(ToString::to_string).collect();
            assert!(matches!(run(&words), Err(Failure::Usage(_))), "{line:?}");
        }
    }
}
