//! Runs of `cargo test` in the copy.

use crate::failure::Failure;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How a test run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// No test failed, and so many ran.
    Passed {
        /// Tests that ran.
        ran: usize,
    },
    /// At least one test failed.
    Failed,
    /// It took too long and was stopped.
    Hung,
}

/// Where and with which build folder tests are run.
pub(super) struct TestRun {
    tree: PathBuf,
    build: PathBuf,
    log: PathBuf,
}

impl TestRun {
    pub(super) fn new(tree: &Path, build: &Path) -> Self {
        Self { tree: tree.to_path_buf(), build: build.to_path_buf(), log: build.with_file_name("last-run.log") }
    }

    /// Builds the tests that `arguments` select; false where they do not compile.
    ///
    /// Ends with an error where cargo fails without any compiler's complaint about the code: a full
    /// disk, a missing package or a broken lock says nothing of any test.
    pub(super) fn build(&self, arguments: &str) -> Result<bool, Failure> {
        let mut child = self.start(&["--no-run"], arguments)?;
        let status = child.wait().map_err(|error| cannot_run(&error))?;
        if status.success() {
            return Ok(true);
        }
        let log = std::fs::read_to_string(&self.log).map_err(|error| Failure::io("read", &self.log, &error))?;
        match refused_code(&log) {
            true => Ok(false),
            false => Err(Failure::Stopped(format!(
                "cargo test --no-run {arguments} ended with {status}, and not because of the code:\n{}",
                last_lines(&log, 12)
            ))),
        }
    }

    /// Runs the tests that `arguments` select, for at most `longest`.
    pub(super) fn run(&self, arguments: &str, longest: Duration) -> Result<Outcome, Failure> {
        let mut child = self.start(&[], arguments)?;
        let Some(status) = wait_at_most(&mut child, longest).map_err(|error| cannot_run(&error))? else {
            return Ok(Outcome::Hung);
        };
        let log = std::fs::read_to_string(&self.log).map_err(|error| Failure::io("read", &self.log, &error))?;
        Ok(outcome(&log, status.success()))
    }

    fn start(&self, before: &[&str], arguments: &str) -> Result<Child, Failure> {
        let log = File::create(&self.log).map_err(|error| Failure::io("write", &self.log, &error))?;
        let same = log.try_clone().map_err(|error| Failure::io("write", &self.log, &error))?;
        // Without the folders that this very run of cargo told us about.
        let ours = std::env::vars()
            .map(|(name, _)| name)
            .filter(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"));
        let mut command = Command::new("cargo");
        for name in ours {
            command.env_remove(name);
        }
        command
            .arg("test")
            .args(before)
            .args(arguments.split_whitespace())
            .current_dir(&self.tree)
            .env("CARGO_TARGET_DIR", &self.build)
            // A break changes one line of one crate, and hundreds are compiled one after the other.
            .env("CARGO_INCREMENTAL", "1")
            // Nobody reads a backtrace of a test that is to fail.
            .env("CARGO_PROFILE_DEV_DEBUG", "none")
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(same);
        command.spawn().map_err(|error| cannot_run(&error))
    }
}

/// Whether a compiler refused the code: rustc's summary line names the crate and counts errors.
fn refused_code(log: &str) -> bool {
    log.lines().any(|line| line.starts_with("error: could not compile ") && line.contains("previous error"))
        && !log.contains("No space left on device")
}

fn last_lines(log: &str, most: usize) -> String {
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(most)..].join("\n")
}

fn cannot_run(error: &io::Error) -> Failure {
    Failure::Stopped(format!("cannot run cargo: {error}; it must be on the PATH"))
}

/// Waits; `None` after stopping a child that takes longer.
fn wait_at_most(child: &mut Child, longest: Duration) -> io::Result<Option<ExitStatus>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() > longest {
            // From the bottom up, so that nobody is left without a parent.
            for pid in descendants(child.id()).iter().rev() {
                Command::new("kill").args(["-KILL", &pid.to_string()]).status()?;
            }
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Processes started by this one or by those, parents first.
fn descendants(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut at = 0;
    while let Some(&pid) = found.get(at) {
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        found.extend(children.split_whitespace().filter_map(|word| word.parse::<u32>().ok()));
        at += 1;
    }
    found.split_off(1)
}

/// Reads the runner's own words, since a status alone does not tell failure from a build that broke.
fn outcome(log: &str, success: bool) -> Outcome {
    let results = || log.lines().filter(|line| line.starts_with("test result: "));
    if results().any(|line| line.starts_with("test result: FAILED")) || !success {
        return Outcome::Failed;
    }
    let passed = |line: &str| -> usize {
        let before = line.split(" passed;").next().unwrap_or_default();
        before.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
    };
    Outcome::Passed { ran: results().map(passed).sum() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runner_s_own_words_decide() {
        let passed =
            "running 2 tests\ntest result: ok. 2 passed; 0 failed; 0 ignored\n\ntest result: ok. 1 passed; 0 failed;\n";
        assert_eq!(outcome(passed, true), Outcome::Passed { ran: 3 });
        assert_eq!(outcome("test result: FAILED. 1 passed; 1 failed;", false), Outcome::Failed);
        assert_eq!(outcome("test result: ok. 0 passed; 0 failed;", true), Outcome::Passed { ran: 0 });
    }

    #[test]
    fn a_full_disk_is_not_a_broken_test() {
        let refused =
            "error[E0308]: mismatched types\nerror: could not compile `peerdma` (lib) due to 1 previous error\n";
        assert!(refused_code(refused));
        assert!(!refused_code("error: failed to write `/t/.fingerprint/x`: No space left on device (os error 28)\n"));
        let linker = "error: linking with `cc` failed: No space left on device\nerror: could not compile `x` (test \"y\") due to 1 previous error\n";
        assert!(!refused_code(linker));
        assert_eq!(last_lines("a\n\nb\nc\n", 2), "b\nc");
    }

    #[test]
    fn what_does_not_end_is_stopped() {
        let mut child = Command::new("sh").args(["-c", "sleep 61; true"]).stderr(Stdio::null()).spawn().unwrap();
        let start = Instant::now();
        while descendants(child.id()).is_empty() && start.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let below = descendants(child.id());
        assert!(wait_at_most(&mut child, Duration::from_millis(50)).unwrap().is_none());
        // A killed process may take a moment to go, and a zombie is gone already.
        let alive = |pid: &u32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            !stat.is_empty() && !stat.contains(") Z ") && !stat.contains(") X ")
        };
        while below.iter().any(alive) {
            assert!(start.elapsed() < Duration::from_secs(20), "{below:?} still run");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
