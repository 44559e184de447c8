//! `pins`: what the kernel moves of plain, locked and pinned memory when it is made to.
//!
//! For each way in which Linux moves pages there are three samples at once, so that all are under the same force. One
//! line of JSON for each sample, and one for a force that this kernel or machine does not have, with what it lacks by
//! name:
//!
//! ```text
//! {"force":"collapse","how":"…","memory":"pin","pages":2048,"moved":0,"intact":true}
//! {"force":"cma","missing":"…"}
//! ```
//!
//! - [`force`]: what a force is, and the knobs of the kernel's. [`within`]: those that move pages within memory: collapse, compaction, KSM.
//! - [`zones`]: where memory of which kind lies. [`nodes`]: between NUMA nodes. [`away`]: out of memory that is wanted for something else: CMA, offline.
//!
//! Not here: what is right. The suite outside judges.

mod away;
mod force;
mod nodes;
mod within;
mod zones;

use crate::failure::Failure;
use force::{Force, Missing};
use peerdma::addr::Bytes;
use peerdma_linux::proof::{Keep, Sample};
use serde::Serialize;
use std::io::Write;

pub(crate) const USAGE: &str =
    "peerdma-guest pins FORCE... (forces: collapse, compaction, ksm, migrate, balancing, cma, offline)";

const FORCES: [Force; 7] =
    [within::COLLAPSE, within::COMPACTION, within::KSM, nodes::MIGRATE, nodes::BALANCING, away::CMA, away::OFFLINE];

/// How much of each kind of memory is looked at.
const SIZE: Bytes = Bytes::new(8 << 20);

/// One line of the answer.
#[derive(Serialize)]
struct Line<'a> {
    force: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    how: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pages: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    moved: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    intact: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    said: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<String>,
}

impl<'a> Line<'a> {
    fn of(force: &'a str) -> Self {
        Self { force, how: None, memory: None, pages: None, moved: None, intact: None, said: None, missing: None }
    }
}

pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let asked: Vec<&Force> = arguments
        .iter()
        .map(|name| FORCES.iter().find(|force| force.name == name))
        .collect::<Option<_>>()
        .filter(|forces: &Vec<_>| !forces.is_empty())
        .ok_or_else(|| Failure::Usage(USAGE.into()))?;
    for force in asked {
        try_force(force)?;
    }
    Ok(())
}

/// Puts the three samples under one force, and prints what came of each.
fn try_force(force: &Force) -> Result<(), Failure> {
    let said = match (force.ready)() {
        Ok(()) => force::under(force, SIZE)?,
        Err(Missing(what)) => {
            return print(&Line { missing: Some(what), ..Line::of(force.name) });
        }
    };
    let (samples, said) = match said {
        Ok(done) => done,
        Err(Missing(what)) => return print(&Line { missing: Some(what), ..Line::of(force.name) }),
    };
    for sample in &samples.kinds {
        let moved = moved(sample)?;
        print(&Line {
            how: Some(force.how),
            memory: Some(sample.keep().word()),
            pages: Some(moved.0),
            moved: Some(moved.1),
            // Merged and collapsed pages hold what they held.
            intact: Some(sample.is_intact()),
            said: said.iter().find(|(keep, _)| *keep == sample.keep()).map(|(_, said)| said.clone()),
            ..Line::of(force.name)
        })?;
    }
    Ok(())
}

/// Pages of a sample, and how many of them moved.
fn moved(sample: &Sample) -> Result<(u64, u64), Failure> {
    match sample.moved() {
        Ok(Some(moved)) => Ok((moved.pages, moved.moved)),
        Ok(None) => Err(Failure::Nothing { what: "page frames are not shown", next: "run this as root" }),
        Err(error) => Err(Failure::Sample(error)),
    }
}

fn print(line: &Line<'_>) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, line).map_err(std::io::Error::from)?;
    writeln!(out)?;
    Ok(out.flush()?)
}

/// What somebody said of one sample.
type Said = Vec<(Keep, String)>;
