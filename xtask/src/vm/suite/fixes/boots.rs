//! The guests' part: what they run, and what they bring back.

use super::seen::{Seen, file};
use super::{After, Case, First, Found, Verified, Written, document};
use crate::failure::Failure;
use crate::vm::guest::{GuestFile, Job, Outcome};
use crate::vm::machine::Iommu;
use crate::vm::suite::setup::{Laboratory, Setup, Which, expect_exit};
use crate::vm::topology;
use std::path::PathBuf;

/// Leaves a capture by root and the kernel's decisions as `0.root.peerdma` and `0.kernel`.
const ORACLE: &str = "peerdma-guest oracle --peerdma /job/bin/peerdma --module /job/p2p_oracle.ko --out /out";

/// Functions that the IOMMU does not cover are in no group, and without any the pattern
/// stays as it is.
fn groups(state: &str) -> String {
    format!("ls -d /sys/kernel/iommu_groups/*/devices/* > /out/{state}.groups")
}

/// A command whose exit code is an answer.
fn answer(command: &str, name: &str) -> String {
    format!("{{ {command} > /out/{name}.said 2> /out/{name}.error; echo $? > /out/{name}.exit; }}")
}

/// The state as it booted, the fix, and, where there is one, the state after its `setpci` lines.
fn first_script(case: &Case) -> String {
    let pairs: Vec<String> = case.pairs.iter().map(|(from, to)| format!("{from} {to}")).collect();
    let direct = if case.direct { " --direct" } else { "" };
    let mut steps = vec![
        ORACLE.to_string(),
        groups("0"),
        answer(&format!("peerdma fix {}{direct} --json", pairs.join(" ")), "fix"),
    ];
    if let Found::Ports { .. } = case.found {
        steps.extend([
            answer("peerdma verify /out/fix.said --json", "0.verify"),
            "peerdma-guest setpci /out/fix.said".into(),
            "peerdma capture -o /out/1.root.peerdma".into(),
            "cat /proc/p2p_oracle > /out/1.kernel".into(),
            groups("1"),
            answer("peerdma verify /out/fix.said --json", "1.verify"),
        ]);
    }
    steps.join(" && ")
}

/// The first boot.
pub(super) fn first(laboratory: &Laboratory, case: &Case) -> Result<First, Failure> {
    let mut job = Job::new(vec!["sh".into(), "-c".into(), first_script(case)]);
    let outcome = laboratory.boot_job(&setup(case, &[])?, &mut job)?;
    expect_exit(&outcome, 0, "the first guest's script")?;
    let document = file(&outcome, "fix.said")?.to_vec();
    let written = match case.found {
        Found::Nothing { .. } => None,
        Found::Ports { .. } => Some(Written {
            before: verified(&outcome, "0.verify")?,
            seen: Seen::read(&outcome, "1")?,
            after: verified(&outcome, "1.verify")?,
        }),
    };
    Ok(First {
        exit: exit(&outcome, "fix")?,
        fix: document::read("fix", &document).map_err(|failure| with_error(failure, &outcome, "fix"))?,
        document,
        seen: Seen::read(&outcome, "0")?,
        capture: keep(laboratory, &outcome, "fixes.first.peerdma")?,
        written,
    })
}

/// A boot of the same machine with more words on the kernel's command line.
pub(super) fn again(laboratory: &Laboratory, case: &Case, words: &[&str], first: &First) -> Result<After, Failure> {
    let mut steps = vec![ORACLE.to_string(), groups("0")];
    // Without ports there is nothing to verify, which the command says and calls an error.
    let verifies = matches!(case.found, Found::Ports { .. });
    if verifies {
        steps.push(answer("peerdma verify /job/fix.json --json", "0.verify"));
    }
    let mut job = Job::new(vec!["sh".into(), "-c".into(), steps.join(" && ")]);
    job.files.push(GuestFile { path: "job/fix.json".into(), mode: 0o644, bytes: first.document.clone() });
    let setup = setup(case, words)?;
    let outcome = laboratory.boot_job(&setup, &mut job)?;
    expect_exit(&outcome, 0, "the script of a guest that booted again")?;
    Ok(After {
        line: setup.machine()?.cmdline(),
        seen: Seen::read(&outcome, "0")?,
        capture: keep(laboratory, &outcome, "fixes.again.peerdma")?,
        verified: verifies.then(|| verified(&outcome, "0.verify")).transpose()?,
    })
}

fn setup(case: &Case, words: &[&str]) -> Result<Setup, Failure> {
    let model = topology::named(case.topology)
        .ok_or_else(|| Failure::Stopped(format!("no topology is called {}", case.topology)))?;
    let cmdline: Vec<&str> = case.cmdline.iter().chain(words).copied().collect();
    Ok(Setup::planned(Which::Small, case.cpu, Iommu::Intel, model, &cmdline))
}

/// Writes the first capture of a guest where the program of this machine can read it.
fn keep(laboratory: &Laboratory, outcome: &Outcome, name: &str) -> Result<PathBuf, Failure> {
    let path = laboratory.scratch()?.join(name);
    std::fs::write(&path, file(outcome, "0.root.peerdma")?).map_err(|error| Failure::io("write", &path, &error))?;
    Ok(path)
}

fn verified(outcome: &Outcome, name: &str) -> Result<Verified, Failure> {
    let document = file(outcome, &format!("{name}.said"))?;
    let said = document::read("verify", document).map_err(|failure| with_error(failure, outcome, name))?;
    Ok(Verified { exit: exit(outcome, name)?, said })
}

fn exit(outcome: &Outcome, name: &str) -> Result<u8, Failure> {
    let text = String::from_utf8_lossy(file(outcome, &format!("{name}.exit"))?).into_owned();
    text.trim().parse().map_err(|_| Failure::Stopped(format!("{name} ended with {text:?}, which is no exit code")))
}

/// A failure with what the command said on standard error.
fn with_error(failure: Failure, outcome: &Outcome, name: &str) -> Failure {
    let said = outcome.files.get(&format!("{name}.error")).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    Failure::Stopped(format!("{failure}; on standard error: {}", said.unwrap_or_default().trim()))
}
