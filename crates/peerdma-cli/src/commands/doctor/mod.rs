//! `peerdma doctor`: which of the six gates is shut.
//!
//! The gates themselves are [`peerdma::route::checkup`]; here the kernel log is read and
//! laid beside them (`log`), and everything is written down.

mod log;

use crate::args::DoctorArguments;
use crate::document::doctor::{CheckDocument, DoctorDocument};
use crate::document::{SCHEMA, Source};
use crate::exit::{Exit, Failure};
use crate::input::{self, Kind, Loaded};
use crate::progress::Progress;
use crate::{output, select};
use anstyle::{AnsiColor, Style};
use log::{Heard, Named};
use peerdma::route::checkup::{Check, Scope, Status, caveats, examine};
use peerdma::route::{Judge, Target};
use peerdma::topology::{FunctionId, Topology};
use std::io::Write;

pub(crate) fn run(arguments: &DoctorArguments) -> Result<Exit, Failure> {
    if arguments.output.schema {
        output::schema::<DoctorDocument>()?;
        return Ok(Exit::Done);
    }
    if input::platform_help(&arguments.input)? {
        return Ok(Exit::Done);
    }
    let mut loaded = input::load(&arguments.input)?;
    let heard = Heard::read(arguments.log.as_deref(), loaded.kind == Kind::Live)?;
    loaded.topology = heard.told_of(loaded.topology);
    let asked = Asked::new(&loaded.topology, arguments)?;
    let judge = Judge::new(&loaded.topology);
    let mut checks = {
        let _progress = Progress::start("asking the gates");
        examine(&judge, asked.scope())
    };
    let named = heard.named(&loaded.topology);
    let route = match asked.scope() {
        Scope::Pair(initiator, target) => Some(judge.judge(initiator, target).verdict),
        Scope::Machine(_) => None,
    };
    checks.extend(named.iter().filter_map(|event| event.check(&loaded.topology, asked.scope(), route)));
    // Stable: what the log tells of a gate stands after what was looked at there.
    checks.sort_by_key(|check| check.station);
    let mut notes = caveats(&loaded.topology);
    notes.extend(heard.notes.iter().cloned());
    let exit = exit(&checks);
    let printed = if arguments.output.json {
        output::json(&DoctorDocument {
            schema: SCHEMA,
            source: Source::new(&loaded),
            gates: checks.iter().map(CheckDocument::from).collect(),
            events: named.into_iter().map(|event| event.document).collect(),
            notes,
        })
    } else {
        print(&loaded, &checks, &named, &notes)
    };
    output::concluded(exit, printed)
}

/// A shut gate weighs more than one that cannot be told.
fn exit(checks: &[Check]) -> Exit {
    match checks.iter().map(|check| check.status).max() {
        Some(Status::Fail) => Exit::Refused,
        Some(Status::Unknown) => Exit::Unknown,
        Some(Status::Ok) | None => Exit::Done,
    }
}

/// What the arguments ask about.
enum Asked {
    Pair(FunctionId, Target),
    Machine(Vec<FunctionId>),
}

impl Asked {
    fn new(topology: &Topology, arguments: &DoctorArguments) -> Result<Self, Failure> {
        if let (Some(from), Some(to)) = (&arguments.from_function, &arguments.to_function) {
            let initiator = select::function(topology, from)?;
            return Ok(Self::Pair(initiator, select::target(topology, to)?.target));
        }
        let worth = topology.functions().filter(|(_, function)| select::is_worth_pairing(function));
        Ok(Self::Machine(worth.map(|(id, _)| id).collect()))
    }

    fn scope(&self) -> Scope<'_> {
        match self {
            Self::Pair(initiator, target) => Scope::Pair(*initiator, target),
            Self::Machine(functions) => Scope::Machine(functions),
        }
    }
}

fn print(loaded: &Loaded, checks: &[Check], events: &[Named], notes: &[String]) -> Result<(), Failure> {
    output::notes(&loaded.notes)?;
    let mut out = anstream::stdout().lock();
    for note in notes {
        writeln!(out, "NOTE\t{}", output::printable(note))?;
    }
    for check in checks {
        let style = style(check.status);
        write!(
            out,
            "{style}{}{style:#}\t{}\t{}\t{}",
            check.status,
            check.station.word(),
            output::printable(&check.object),
            output::printable(&check.evidence)
        )?;
        match &check.next {
            Some(next) => writeln!(out, "\tnext: {}", output::printable(next))?,
            None => writeln!(out)?,
        }
    }
    for Named { document: event, .. } in events {
        let device = event.device.as_deref().unwrap_or("-");
        let times = if event.count > 1 { format!(" ({} times)", event.count) } else { String::new() };
        writeln!(out, "LOG\t{}\t{device}\t{}{times}\t{}", event.kind, event.meaning, event.text)?;
    }
    Ok(())
}

fn style(status: Status) -> Style {
    match status {
        Status::Ok => AnsiColor::Green.on_default(),
        Status::Fail => AnsiColor::Red.on_default(),
        Status::Unknown => AnsiColor::Yellow.on_default(),
    }
}
