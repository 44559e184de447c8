//! `cargo xtask models`: threads over lock-free parts, in many orders.
//!
//! The core's atomics become shuttle's under `--cfg peerdma_shuttle`, and the tests of
//! the crate `models` try orders of their accesses. That flag changes every crate that
//! sees it, so the build has a folder of its own, `target/models`; no other build is
//! thrown away for it.

use crate::failure::Failure;
use crate::repo;
use std::process::Command;

const FLAG: &str = "--cfg peerdma_shuttle";

/// Runs all models, or those whose names hold the argument.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let filter = match arguments {
        [] => None,
        [only] if !only.starts_with('-') => Some(only),
        _ => return Err(Failure::Usage("models takes one word to choose by, or nothing".into())),
    };
    let root = repo::root()?;
    let mut command = Command::new("cargo");
    // Optimised: what is counted is orders tried, not seconds.
    command.args(["test", "--release", "--package", "peerdma-models"]).args(filter);
    command
        .current_dir(&root)
        .env("CARGO_TARGET_DIR", root.join("target/models"))
        .env("RUSTFLAGS", flags(std::env::var("RUSTFLAGS").ok()))
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    let status = command.status().map_err(|error| Failure::Stopped(format!("cannot run cargo: {error}")))?;
    if status.success() {
        say!("models: every order that was tried ends well");
        return Ok(());
    }
    Err(Failure::Found(
        "a model failed, or does not build; the schedule printed above repeats a failing order: hand it to \
         `shuttle::replay`"
            .into(),
    ))
}

/// The flag, after those that the caller set.
fn flags(set: Option<String>) -> String {
    match set.filter(|set| !set.trim().is_empty()) {
        Some(set) => format!("{set} {FLAG}"),
        None => FLAG.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_the_caller_are_kept() {
        assert_eq!(flags(None), FLAG);
        assert_eq!(flags(Some(" ".into())), FLAG);
        assert_eq!(flags(Some("-Dwarnings".into())), "-Dwarnings --cfg peerdma_shuttle");
    }

    #[test]
    fn models_takes_one_word() {
        for line in [&["--quick"][..], &["one", "two"]] {
            let words: Vec<String> = line.iter().map(ToString::to_string).collect();
            assert!(matches!(run(&words), Err(Failure::Usage(_))), "{line:?}");
        }
    }
}
