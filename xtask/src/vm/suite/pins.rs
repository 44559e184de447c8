//! What the kernel moves of plain, locked and pinned memory when it is made to: one table from two guests.
//!
//! A force that moves no plain memory says nothing about pins, so that each has a share of plain memory that it must move. A
//! force that the stock kernel does not have is in the table with what it lacks, and one that is expected to be there and
//! is not fails.

use super::setup::{Laboratory, Setup};
use super::{Asked, Done, Test};
use crate::failure::Failure;
use crate::table;
use crate::vm::guest::Job;
use crate::vm::machine::Memory;
use serde::Deserialize;
use std::fmt::Write as _;
use std::path::Path;

/// What a force must do for its row to count.
struct Expected {
    force: &'static str,
    /// The share of plain memory that moves at least.
    plain: f64,
    /// The share of locked memory that moves at least.
    locked: f64,
}

const fn expected(force: &'static str, plain: f64, locked: f64) -> Expected {
    Expected { force, plain, locked }
}

/// Forces of the first guest, then of the second. Compaction goes from one end of memory until it meets free memory from the other, so
/// that any share of a sample may lie where it comes.
const EXPECTED: [Expected; 7] = [
    expected("collapse", 0.9, 0.9),
    expected("ksm", 0.9, 0.9),
    expected("migrate", 0.9, 0.9),
    expected("balancing", 0.5, 0.5),
    expected("cma", 0.5, 0.5),
    expected("compaction", 0.5, 0.5),
    expected("offline", 0.9, 0.9),
];

/// The stock kernel has no file to allocate from CMA (`CONFIG_CMA_DEBUGFS`); pages of 1 GiB come from an area of CMA's
/// too. The area lies at a multiple of 1 GiB with nothing of the boot in it, which goes to the node's end; and movable memory is put there
/// while it is more than half of what is free (Linux 7.2 `__rmqueue`), so that much of the rest is kept from the kernel.
const TWO_NODES: [&str; 4] = ["cma=64M", "hugetlb_cma=0:1G", "memmap=640M$0x18000000", "transparent_hugepage=madvise"];
/// Half of the memory is for what can be moved away.
const MOVABLE: [&str; 2] = ["movablecore=640M", "transparent_hugepage=madvise"];

pub(super) fn tests(asked: &Asked) -> Vec<Test> {
    let write = asked.write_fixtures;
    vec![Test::new("pins", "what moves plain and locked memory moves no pin", move |laboratory| all(laboratory, write))]
}

/// What the program in the guest prints.
#[derive(Clone, Debug, Deserialize, PartialEq)]
struct Line {
    force: String,
    how: Option<String>,
    memory: Option<String>,
    pages: Option<u64>,
    moved: Option<u64>,
    intact: Option<bool>,
    said: Option<String>,
    missing: Option<String>,
}

fn all(laboratory: &Laboratory, write: bool) -> Result<Done, Failure> {
    let first = Setup::of_memory(Memory::Nodes([2176, 512]), "qemu64,+pdpe1gb", &TWO_NODES);
    let second = Setup::of_memory(Memory::Nodes([768, 512]), "qemu64", &MOVABLE);
    let mut lines = guest(laboratory, &first, &["collapse", "ksm", "migrate", "balancing", "cma"])?;
    lines.extend(guest(laboratory, &second, &["compaction", "offline"])?);
    let text = text(&lines);
    say!("{}", text.trim_end());
    let done = judge(&lines)?;
    if write {
        record(&laboratory.root, &laboratory.kernel(super::setup::Which::Stock).release, &lines)?;
    }
    Ok(done)
}

fn guest(laboratory: &Laboratory, setup: &Setup, forces: &[&str]) -> Result<Vec<Line>, Failure> {
    let argv = ["peerdma-guest", "pins"].iter().chain(forces).map(|&word| word.into()).collect();
    let mut job = Job::new(argv);
    let outcome = laboratory.boot_job(setup, &mut job)?;
    let said = String::from_utf8_lossy(&outcome.stdout);
    if outcome.exit != 0 {
        let complaints = String::from_utf8_lossy(&outcome.stderr);
        return Err(Failure::Found(format!("the guest's forces ended with {}:\n{said}{complaints}", outcome.exit)));
    }
    parse(&said)
}

fn parse(said: &str) -> Result<Vec<Line>, Failure> {
    let line = |text: &str| {
        serde_json::from_str(text).map_err(|error| {
            Failure::Found(format!("the guest wrote `{text}`, which is no line of its table: {error}"))
        })
    };
    said.lines().filter(|text| !text.is_empty()).map(line).collect()
}

/// The share of one kind of memory that a force moved.
fn share(lines: &[Line], force: &str, memory: &str) -> Option<f64> {
    let line = lines.iter().find(|line| line.force == force && line.memory.as_deref() == Some(memory))?;
    Some(line.moved? as f64 / line.pages?.max(1) as f64)
}

/// Holds each row against what it must be, and counts what held.
fn judge(lines: &[Line]) -> Result<Done, Failure> {
    let mut broken = Vec::new();
    let mut claims = 0;
    let mut claim = |holds: bool, words: String| {
        if holds { claims += 1 } else { broken.push(words) }
    };
    for it in &EXPECTED {
        let force = it.force;
        if let Some(missing) = lines.iter().filter(|line| line.force == force).find_map(|line| line.missing.as_ref()) {
            claim(false, format!("{force}: the kernel lacks it: {missing}"));
            continue;
        }
        let of = |memory| share(lines, force, memory);
        let (Some(plain), Some(locked), Some(pinned)) = (of("plain"), of("mlock"), of("pin")) else {
            claim(false, format!("{force}: the guest said nothing of it"));
            continue;
        };
        claim(pinned == 0.0, format!("{force}: {:.1} % of pinned memory moved", 100.0 * pinned));
        let enough = |moved: f64, least: f64| moved >= least;
        claim(
            enough(plain, it.plain),
            format!("{force}: only {:.1} % of plain memory moved, so that it says nothing of pins", 100.0 * plain),
        );
        claim(enough(locked, it.locked), format!("{force}: only {:.1} % of locked memory moved", 100.0 * locked));
        let intact = lines.iter().filter(|line| line.force == force).all(|line| line.intact == Some(true));
        claim(intact, format!("{force}: memory does not hold any more what it did"));
    }
    if !broken.is_empty() {
        return Err(Failure::Found(format!("{} claims do not hold:\n  {}", broken.len(), broken.join("\n  "))));
    }
    Ok(Done { claims, pairs: 0 })
}

fn cells(lines: &[Line]) -> Vec<Vec<String>> {
    let mut forces: Vec<&str> = Vec::new();
    for line in lines {
        if !forces.contains(&line.force.as_str()) {
            forces.push(&line.force);
        }
    }
    let row = |force: &str| {
        let of: Vec<&Line> = lines.iter().filter(|line| line.force == force).collect();
        let percent = |memory| share(lines, force, memory).map_or("-".into(), |it| format!("{:.1} %", 100.0 * it));
        let how = of.iter().find_map(|line| line.how.clone().or_else(|| line.missing.clone())).unwrap_or_default();
        vec![force.to_string(), percent("plain"), percent("mlock"), percent("pin"), how]
    };
    forces.into_iter().map(row).collect()
}

const HEADS: [&str; 5] = ["force", "plain", "mlock", "pin", "how"];

fn text(lines: &[Line]) -> String {
    let mut text = table::lay_out(&HEADS, &cells(lines));
    for line in lines {
        if let (Some(memory), Some(said)) = (&line.memory, &line.said) {
            let _ = writeln!(text, "  {}, {memory}: {said}", line.force);
        }
    }
    text
}

/// Where the table begins in its document, and where it ends.
const MARKS: [&str; 2] = ["<!-- what guests said: begin -->", "<!-- what guests said: end -->"];
const DOCUMENT: &str = "docs/pins-proof.md";

fn record(root: &Path, release: &str, lines: &[Line]) -> Result<(), Failure> {
    let path = root.join(DOCUMENT);
    let document = std::fs::read_to_string(&path).map_err(|error| Failure::io("read", &path, &error))?;
    let document = replaced(&document, &markdown(release, lines))
        .ok_or_else(|| Failure::Found(format!("{DOCUMENT} has lost its marks `{}` and `{}`", MARKS[0], MARKS[1])))?;
    std::fs::write(&path, document).map_err(|error| Failure::io("write", &path, &error))
}

fn replaced(document: &str, table: &str) -> Option<String> {
    let (before, rest) = document.split_once(MARKS[0])?;
    let (_, after) = rest.split_once(MARKS[1])?;
    Some(format!("{before}{}\n\n{table}\n{}{after}", MARKS[0], MARKS[1]))
}

fn markdown(release: &str, lines: &[Line]) -> String {
    let mut text = format!(
        "Linux {release} (Debian's), two NUMA nodes, 8 MiB of each kind of memory; shares of pages that moved:\n\n"
    );
    let _ = writeln!(text, "| {} |\n|---|---|---|---|---|", HEADS.join(" | "));
    for row in cells(lines) {
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    let _ = writeln!(text, "\nWhat was said besides:\n");
    for line in lines {
        if let (Some(memory), Some(said)) = (&line.memory, &line.said) {
            let _ = writeln!(text, "- {}, {memory}: {said}", line.force);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(force: &str, memory: &str, moved: u64) -> Line {
        Line {
            force: force.into(),
            how: Some("a knob".into()),
            memory: Some(memory.into()),
            pages: Some(100),
            moved: Some(moved),
            intact: Some(true),
            said: None,
            missing: None,
        }
    }

    fn good() -> Vec<Line> {
        let all =
            |it: &Expected| [line(it.force, "plain", 100), line(it.force, "mlock", 100), line(it.force, "pin", 0)];
        EXPECTED.iter().flat_map(all).collect()
    }

    fn broken(change: impl Fn(&mut Vec<Line>)) -> String {
        let mut lines = good();
        change(&mut lines);
        judge(&lines).unwrap_err().to_string()
    }

    #[test]
    fn one_page_of_a_pin_that_moved_fails() {
        assert!(judge(&good()).is_ok());
        let said = broken(|lines| lines[2].moved = Some(1));
        assert!(said.contains("collapse: 1.0 % of pinned memory moved"), "{said}");
    }

    #[test]
    fn a_force_that_moved_nothing_or_is_missing_proves_nothing() {
        let said = broken(|lines| lines[0].moved = Some(89));
        assert!(said.contains("only 89.0 % of plain memory"), "{said}");
        let said = broken(|lines| _ = lines.drain(0..3));
        assert!(said.contains("collapse: the guest said nothing of it"), "{said}");
        let said = broken(|lines| lines[0].missing = Some("CONFIG_X".into()));
        assert!(said.contains("collapse: the kernel lacks it: CONFIG_X"), "{said}");
        let said = broken(|lines| lines[1].intact = Some(false));
        assert!(said.contains("does not hold any more"), "{said}");
    }

    #[test]
    fn the_table_stands_between_its_marks() {
        let document = format!("before\n{}\nold\n{}\nafter\n", MARKS[0], MARKS[1]);
        let table = markdown("7.3.4", &good());
        let new = replaced(&document, &table).unwrap();
        assert!(new.starts_with("before\n") && new.ends_with("after\n") && !new.contains("old"));
        assert!(new.contains("| collapse | 100.0 % | 100.0 % | 0.0 % | a knob |"), "{new}");
        assert_eq!(replaced(&new, &table).unwrap(), new);
        assert_eq!(replaced("no marks", &table), None);
        assert!(parse("no json").is_err());
    }
}
