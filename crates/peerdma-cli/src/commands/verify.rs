//! `peerdma verify`: config space now against what a fix wanted.

mod stale;
mod wanted;

use crate::args::VerifyArguments;
use crate::document::verify::{CheckDocument, VerifyDocument};
use crate::document::{SCHEMA, Source};
use crate::exit::{Exit, Failure};
use crate::input;
use crate::output;
use peerdma::pcie::Fact;
use peerdma::pcie::acs::{Acs, AcsBits};
use peerdma::route::Permission;
use peerdma::route::fix;
use peerdma::topology::{FunctionId, Topology};
use stale::Stale;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use wanted::Wanted;

pub(crate) fn run(arguments: &VerifyArguments) -> Result<Exit, Failure> {
    if arguments.output.schema {
        output::schema::<VerifyDocument>()?;
        return Ok(Exit::Done);
    }
    if input::platform_help(&arguments.input)? {
        return Ok(Exit::Done);
    }
    let Some(path) = &arguments.wanted else {
        return Err(Failure::usage("verify needs WANTED, the output of peerdma fix --json"));
    };
    if path == Path::new("-") && arguments.input.from.as_deref() == Some(path) {
        return Err(Failure::usage("standard input is either WANTED or --from, not both"));
    }
    let wanted = wanted::read(path)?;
    let loaded = input::load(&arguments.input)?;
    let ports = Ports::new(&loaded.topology);
    let found: Vec<Option<FunctionId>> = wanted.iter().map(|wanted| ports.find(wanted)).collect();
    let checks: Vec<Check> = wanted.iter().zip(&found).map(|(wanted, found)| ports.check(wanted, *found)).collect();
    let functions: Vec<FunctionId> = found.into_iter().flatten().collect();
    let stale = Stale::among(&loaded.topology, &functions);
    let groups = stale.check();
    let exit = Exit::judge(checks.iter().chain([&groups]).map(|check| check.status.permission()));
    let printed = if arguments.output.json {
        output::json(&VerifyDocument {
            schema: SCHEMA,
            source: Source::new(&loaded),
            ports: checks.into_iter().map(Into::into).collect(),
            groups: groups.into(),
            stale_apart: stale.apart(),
            stale_together: stale.together(),
        })
    } else {
        output::notes(&loaded.notes).and_then(|()| print(&checks, &groups, &stale))
    };
    output::concluded(exit, printed)
}

/// How a check ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Status {
    Ok,
    Fail,
    Unknown,
}

impl Status {
    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Fail => "FAIL",
            Self::Unknown => "UNKNOWN",
        }
    }

    const fn permission(self) -> Permission {
        match self {
            Self::Ok => Permission::Permitted,
            Self::Fail => Permission::Refused,
            Self::Unknown => Permission::Unknown,
        }
    }
}

/// One line.
struct Check {
    object: String,
    status: Status,
    evidence: String,
}

impl From<Check> for CheckDocument {
    fn from(check: Check) -> Self {
        Self { object: check.object, status: check.status.word(), evidence: check.evidence }
    }
}

/// The functions of a machine, by their paths.
struct Ports<'t> {
    topology: &'t Topology,
    by_path: BTreeMap<String, FunctionId>,
    /// Whether every function's path is known, so that one that is not there does not exist.
    all_paths_known: bool,
}

impl<'t> Ports<'t> {
    fn new(topology: &'t Topology) -> Self {
        let paths: Vec<(Option<String>, FunctionId)> =
            topology.functions().map(|(id, _)| (fix::selector(topology, id), id)).collect();
        let all_paths_known = paths.iter().all(|(path, _)| path.is_some());
        let by_path = paths.into_iter().filter_map(|(path, id)| Some((path?, id))).collect();
        Self { topology, by_path, all_paths_known }
    }

    /// The function at the wanted path, which bus numbers do not change; at its address
    /// where there is no path, or not every path is known.
    fn find(&self, wanted: &Wanted) -> Option<FunctionId> {
        let by_address = || self.topology.at(wanted.address?);
        match &wanted.path {
            None => by_address(),
            Some(path) => {
                let at_path = self.by_path.get(path).copied();
                at_path.or_else(|| if self.all_paths_known { None } else { by_address() })
            }
        }
    }

    fn check(&self, wanted: &Wanted, found: Option<FunctionId>) -> Check {
        let Some(function) = found else {
            let evidence = "no function is there; cards may have moved since the fix was made: run peerdma fix again";
            return Check { object: wanted.name(), status: Status::Fail, evidence: evidence.into() };
        };
        let info = self.topology.function(function).info();
        let (status, evidence) = match &info.registers.acs {
            Acs::Unknown(_) => {
                (Status::Unknown, "its ACS was not read; root, or an input with all of config space, shows it".into())
            }
            Acs::Absent(_) if wanted.set.is_empty() => {
                (Status::Ok, "it has no ACS capability, so nothing is set".into())
            }
            Acs::Absent(_) => (Status::Fail, format!("it has no ACS capability; wanted set: {}", words(wanted.set))),
            Acs::Present(registers) => match registers.control {
                Fact::Unknown => (Status::Unknown, "its ACS control register was not read".into()),
                Fact::Known(control) => judge(control, wanted),
            },
        };
        Check { object: info.address.to_string(), status, evidence }
    }
}

fn judge(control: AcsBits, wanted: &Wanted) -> (Status, String) {
    let (still_set, still_clear) = (control & wanted.clear, wanted.set - control);
    let mut evidence = format!("control word {:#06x}", control.bits());
    for (bits, word) in [(still_set, "still set"), (still_clear, "still clear")] {
        if !bits.is_empty() {
            evidence.push_str(&format!(", {} {word}", words(bits)));
        }
    }
    let as_wanted = still_set.is_empty() && still_clear.is_empty();
    (if as_wanted { Status::Ok } else { Status::Fail }, evidence)
}

fn words(bits: AcsBits) -> String {
    bits.iter_names().map(|(name, _)| name.to_ascii_lowercase()).collect::<Vec<_>>().join(",")
}

fn print(checks: &[Check], groups: &Check, stale: &Stale<'_>) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    for Check { object, status, evidence } in checks.iter().chain([groups]) {
        writeln!(out, "{}\t{object}\t{evidence}", status.word())?;
    }
    for line in stale.lines() {
        writeln!(out, "STALE\t{line}")?;
    }
    if checks.is_empty() {
        writeln!(out, "nothing is wanted: WANTED names no ports")?;
    }
    Ok(())
}
