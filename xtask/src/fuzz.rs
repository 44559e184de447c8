//! `cargo xtask fuzz`: the fuzz targets, for a stated time or number of executions.
//!
//! `cargo fuzz build` builds them, without sanitizer and so on any toolchain; the
//! programs are then run directly, which keeps libFuzzer's own figures readable.
//! `--planted` builds them with a panic that a marker in the input triggers, and
//! requires that each target finds it from a seed that lacks it by one bit: a
//! harness that cannot find that would find nothing.

mod report;

use crate::failure::Failure;
use crate::{repo, table};
use report::Report;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

/// Executions or seconds for each target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Budget {
    Runs(u64),
    Seconds(u64),
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Options {
    budget: Budget,
    planted: bool,
    targets: Vec<String>,
}

/// Time after which a planted panic that was not found counts as missed.
const PLANTED_SECONDS: u64 = 120;

/// Runs the chosen targets, or all.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let options = parse(arguments)?;
    let root = repo::root()?;
    let fuzz = root.join("fuzz");
    let known = targets(&fuzz)?;
    if let Some(unknown) = options.targets.iter().find(|name| !known.contains(name)) {
        return Err(Failure::Usage(format!("no fuzz target `{unknown}`; there are {}", known.join(", "))));
    }
    let chosen: Vec<&String> =
        known.iter().filter(|name| options.targets.is_empty() || options.targets.contains(name)).collect();
    let programs = build(&fuzz, options.planted)?;
    let mut rows = Vec::new();
    let mut bad = Vec::new();
    for name in chosen {
        let session = Session { fuzz: &fuzz, program: &programs.join(name), name, options: &options };
        say!("fuzz {name}: {}", session.intent());
        let report = session.run()?;
        if report.found.is_none() == options.planted {
            bad.push(name.as_str());
            say!("{}", report.tail);
        }
        let found = match &report.found {
            None => "none".to_string(),
            Some(place) => place.strip_prefix(&format!("{}/", root.display())).unwrap_or(place).to_string(),
        };
        rows.push(vec![name.clone(), report.executions, report.edges, report.features, found]);
    }
    say!(
        "\n{}",
        table::lay_out(&["target", "executions", "edges (cov)", "features (ft)", "findings"], &rows).trim_end()
    );
    match (bad.as_slice(), options.planted) {
        ([], false) => say!("fuzz: nothing found"),
        ([], true) => say!("fuzz: every target found the planted panic"),
        (bad, false) => {
            return Err(Failure::Found(format!(
                "findings in {}; run the program again with the file named above, mend the code, and keep the file as a seed",
                bad.join(", ")
            )));
        }
        (bad, true) => {
            return Err(Failure::Found(format!(
                "{} did not find the panic planted one bit away, so they would find little else; see whether \
                 they call peerdma_fuzz::planted",
                bad.join(", ")
            )));
        }
    }
    Ok(())
}

fn parse(arguments: &[String]) -> Result<Options, Failure> {
    let mut options = Options { budget: Budget::Seconds(10), planted: false, targets: Vec::new() };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut number = || {
            let value = rest.next().and_then(|value| value.parse().ok()).filter(|&value| value > 0);
            value.ok_or_else(|| Failure::Usage(format!("{argument} wants a number above 0")))
        };
        match argument.as_str() {
            "--runs" => options.budget = Budget::Runs(number()?),
            "--seconds" => options.budget = Budget::Seconds(number()?),
            "--planted" => options.planted = true,
            flag if flag.starts_with('-') => return Err(Failure::Usage(format!("fuzz knows no flag `{flag}`"))),
            target => options.targets.push(target.to_string()),
        }
    }
    Ok(options)
}

/// Names of the programs that `fuzz/Cargo.toml` lists.
fn targets(fuzz: &Path) -> Result<Vec<String>, Failure> {
    let path = fuzz.join("Cargo.toml");
    let text = fs::read_to_string(&path).map_err(|error| Failure::io("read", &path, &error))?;
    let manifest: toml::Table =
        text.parse().map_err(|error| Failure::Stopped(format!("{} is not TOML: {error}", path.display())))?;
    let programs = manifest.get("bin").and_then(toml::Value::as_array).into_iter().flatten();
    Ok(programs.filter_map(|program| Some(program.get("name")?.as_str()?.to_string())).collect())
}

/// Builds all targets; returns the folder that holds the programs.
///
/// The build's folder is `fuzz/target` wherever the caller's own builds go, since programs, logs and
/// planted corpora are looked for there.
fn build(fuzz: &Path, planted: bool) -> Result<PathBuf, Failure> {
    let built = fuzz.join("target");
    let mut command = Command::new("cargo");
    command.args(["fuzz", "build", "--sanitizer", "none"]).current_dir(fuzz).env("CARGO_TARGET_DIR", &built);
    if planted {
        command.args(["--features", "planted"]);
    }
    let status = command.status().map_err(|error| Failure::Stopped(format!("cannot run cargo: {error}")))?;
    if !status.success() {
        return Err(Failure::Stopped(
            "the fuzz targets do not build; if cargo knows no `fuzz`: cargo install cargo-fuzz --locked".into(),
        ));
    }
    Ok(built.join(host()?).join("release"))
}

/// The triple that cargo-fuzz builds for, which names a folder.
fn host() -> Result<String, Failure> {
    let output = Command::new("rustc")
        .arg("-vV")
        .output()
        .map_err(|error| Failure::Stopped(format!("cannot run rustc: {error}; it must be on the PATH")))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_string).ok_or_else(|| Failure::Stopped("rustc -vV names no host; reinstall the toolchain".into()))
}

/// One target's run.
struct Session<'a> {
    fuzz: &'a Path,
    program: &'a Path,
    name: &'a str,
    options: &'a Options,
}

impl Session<'_> {
    fn intent(&self) -> String {
        match (self.options.planted, self.options.budget) {
            (true, _) => format!("until it finds the planted panic, at most {PLANTED_SECONDS} s"),
            (false, Budget::Runs(runs)) => format!("{runs} executions"),
            (false, Budget::Seconds(seconds)) => format!("{seconds} s"),
        }
    }

    fn run(&self) -> Result<Report, Failure> {
        let kind = if self.options.planted { "planted" } else { "plain" };
        let artifacts = self.folder("artifacts")?;
        let log_path = self.fuzz.join("target").join(format!("{}-{kind}.log", self.name));
        let log = File::create(&log_path).map_err(|error| Failure::io("write", &log_path, &error))?;
        let same = log.try_clone().map_err(|error| Failure::io("write", &log_path, &error))?;
        let mut command = Command::new(self.program);
        command
            .args(["-print_final_stats=1", "-rss_limit_mb=2048", "-timeout=20"])
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .current_dir(self.fuzz)
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(same);
        if self.options.planted {
            // Short inputs and small steps: what lies behind the marker is not what is looked for.
            command
                .args(["-max_len=16", "-mutate_depth=1"])
                .arg(format!("-max_total_time={PLANTED_SECONDS}"))
                .arg(self.planted_seeds()?);
        } else {
            match self.options.budget {
                Budget::Runs(runs) => command.arg(format!("-runs={runs}")),
                Budget::Seconds(seconds) => command.arg(format!("-max_total_time={seconds}")),
            };
            command.arg("-max_len=16384");
            // The first folder takes what is new, the second is only read.
            command.arg(self.folder("corpus")?).arg(self.folder("seeds")?);
        }
        let status = command.status().map_err(|error| Failure::io("run", self.program, &error))?;
        let said = fs::read(&log_path).map_err(|error| Failure::io("read", &log_path, &error))?;
        self.judge(&Report::read(&String::from_utf8_lossy(&said)), status)
    }

    /// A planted run must die of the planted panic and of nothing else.
    fn judge(&self, report: &Report, status: ExitStatus) -> Result<Report, Failure> {
        let mut report = report.clone();
        if self.options.planted {
            report.found =
                report.found.filter(|_| report.panic.as_ref().is_some_and(|said| said.contains("the planted panic")));
        } else if report.found.is_none() && !status.success() {
            report.found = Some(format!("ended with {status}"));
        }
        Ok(report)
    }

    fn folder(&self, kind: &str) -> Result<PathBuf, Failure> {
        let place = if self.options.planted { "target/planted" } else { "." };
        let folder = self.fuzz.join(place).join(kind).join(self.name);
        fs::create_dir_all(&folder).map_err(|error| Failure::io("create", &folder, &error))?;
        Ok(folder)
    }

    /// A fresh corpus of one input that lacks the marker by one bit.
    fn planted_seeds(&self) -> Result<PathBuf, Failure> {
        let folder = self.folder("corpus")?;
        let emptied = fs::remove_dir_all(&folder).and_then(|()| fs::create_dir_all(&folder));
        emptied.map_err(|error| Failure::io("empty", &folder, &error))?;
        let seed = folder.join("nearly");
        fs::write(&seed, "PLAN_").map_err(|error| Failure::io("write", &seed, &error))?;
        Ok(folder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Result<Options, Failure> {
        parse(&line.split_whitespace().map(str::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn budgets_and_targets_are_read_and_nonsense_is_refused() {
        assert_eq!(options("").unwrap().budget, Budget::Seconds(10));
        let chosen = options("--runs 1000000 capture archive --planted").unwrap();
        assert_eq!((chosen.budget, chosen.planted, chosen.targets.len()), (Budget::Runs(1_000_000), true, 2));
        for line in ["--runs", "--runs many", "--seconds 0", "--forever"] {
            assert!(matches!(options(line), Err(Failure::Usage(_))), "{line}");
        }
    }

    #[test]
    fn the_targets_are_those_of_the_manifest_and_each_has_seeds() {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
        let targets = targets(&fuzz).unwrap();
        assert!(targets.len() >= 5);
        for target in targets {
            assert!(fuzz.join("targets").join(format!("{target}.rs")).is_file(), "{target}");
            assert!(
                fs::read_dir(fuzz.join("seeds").join(&target)).is_ok_and(|mut seeds| seeds.next().is_some()),
                "{target}"
            );
        }
    }
}
