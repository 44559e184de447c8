//! `peerdma probe`: whether bytes arrive between two devices, by every engine that is here.
//!
//! Three columns, never mixed: *permitted* is the verdict's, *granted* the kernel's answer to an engine's driver,
//! *verified* what the destination's owner saw. A row for each direction and engine; engines that are not here are listed
//! with what they lack, and where none is here the answer is unknown. A measurement may forbid a route and permits none:
//! what arrives by force stays refused.
//!
//! With `--platform` the engines are those of an [emulated](crate::commands::emulated) machine.
//!
//! Not here: what engines need ([`peerdma_linux::engine::Kind`]), and comparing bytes ([`peerdma_linux::verified`],
//! [`peerdma_linux::drive::witness`]).

mod adapter;
mod drive;
mod edu;
mod emulated;
mod show;
mod trial;

use super::emulated::Way;
use super::hardware;
use crate::args::{InputArguments, Need, ProbeArguments, ViaArgument};
use crate::document::{ProbeDocument, SCHEMA, Source};
use crate::exit::{Exit, Failure, chain};
use crate::input::{self, Loaded};
use crate::output;
use crate::progress::Steps;
use crate::select;
use peerdma::pcie::PciAddr;
use peerdma::route::{Judge, PairVerdict, Permission};
use peerdma_linux::engine::Kind;
use peerdma_linux::interrupt::Interrupts;
use peerdma_linux::tree::Tree;
use peerdma_linux::verified::{Progress, Verification, VerifyError};
use peerdma_linux::vfio::BarRange;
use std::ops::ControlFlow;
use trial::{Absent, Row, Stage, Trial};

/// What is asked of each engine.
struct Question<'q> {
    pair: &'q PairVerdict,
    /// What Linux's own rules say of it.
    by_linux: Permission,
    from: PciAddr,
    to: PciAddr,
    /// The target as it was typed, and the memory behind a BAR that was named.
    text: &'q str,
    range: Option<BarRange>,
    ways: &'q [Way],
    via: ViaArgument,
    seed: u64,
    force: bool,
    /// Whether a drive may write its own disk.
    write: bool,
}

impl Question<'_> {
    /// What an engine lacks that reaches memory behind a BAR.
    fn memory_unnamed(&self) -> String {
        let text = self.text;
        format!("name the memory to reach, such as {text}/bar2: its bytes are overwritten and put back")
    }

    /// A row for each direction, none of which moved anything.
    fn unmoved(&self, engine: &'static str, granted: &Stage) -> Vec<Row> {
        self.ways.iter().map(|&way| Row::unmoved(engine, way, self.pair, granted.clone())).collect()
    }

    /// What an engine with a buffer came to, both of whose directions are verified at once.
    fn verified(
        &self,
        engine: &'static str,
        granted: String,
        verified: Result<Verification, VerifyError>,
        trial: &mut Trial,
    ) {
        match verified {
            Ok(verification) => {
                trial.rows.extend(self.ways.iter().map(|&way| {
                    let delivery = if way == Way::Push { verification.write } else { verification.read };
                    Row::moved(engine, way, self.pair, granted.clone(), delivery)
                }));
                if !verification.restored {
                    trial.failures.push(format!("{} does not hold again what it held before", self.to));
                }
            }
            Err(error) => {
                trial.rows.extend(self.unmoved(engine, &Stage::Yes(granted)));
                trial.failures.push(format!("cannot verify {}: {}", self.to, chain(&error)));
            }
        }
    }
}

/// Shows how far a verification is, and ends it when a signal came.
fn observing<'o>(
    interrupts: Option<&'o Interrupts>,
    steps: &'o mut Steps,
) -> impl FnMut(Progress) -> ControlFlow<()> + 'o {
    move |now| {
        steps.show("probing", now.done, now.total);
        if interrupts.is_some_and(Interrupts::came) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// What is said of a pair that is not put to an engine whose kernel interface would not ask.
fn not_asked(rules: Permission) -> Stage {
    let why = match rules {
        Permission::Unknown => "nobody knows what the rules say",
        Permission::Permitted | Permission::Refused => "the pair is refused",
    };
    Stage::Unknown(format!("not asked for: {why}; --force tries it all the same"))
}

pub(crate) fn run(arguments: &ProbeArguments) -> Result<Exit, Failure> {
    if arguments.output.schema {
        output::schema::<ProbeDocument>()?;
        return Ok(Exit::Done);
    }
    if arguments.platform.as_deref() == Some("help") {
        input::print_platforms()?;
        return Ok(Exit::Done);
    }
    let (Some(from), Some(to)) = (&arguments.pair.from_function, &arguments.pair.to_function) else {
        return Err(Failure::usage("probe needs FROM and TO, such as peerdma probe nvme0 0000:06:00.0/bar2"));
    };
    if let Some(platform) = &arguments.platform {
        return emulated::run(arguments, platform, from, to);
    }
    let loaded = input::load(&InputArguments::default())?;
    let initiator = select::function(&loaded.topology, from)?;
    let asked = select::target(&loaded.topology, to)?;
    if initiator == asked.target.function() {
        return Err(Failure::usage(format!("{from} and {to} are the same function; a probe needs two")));
    }
    let (target, range) = match hardware::named_memory(&loaded.topology, asked, to)? {
        Some((target, range)) => (target, Some(range)),
        None => (asked.target, None),
    };
    let judge = Judge::new(&loaded.topology);
    let pair = judge.judge(initiator, &target);
    let address = |id| loaded.topology.function(id).address();
    let ways = ways(arguments.pair.need);
    let question = Question {
        pair: &pair,
        by_linux: hardware::by_linux(&pair),
        from: address(initiator),
        to: address(target.function()),
        text: to.split_once('/').map_or(to, |(name, _)| name),
        range,
        ways,
        via: arguments.via,
        seed: arguments.seed,
        force: arguments.force,
        write: arguments.write,
    };
    let mut trial = Trial::default();
    let tree = Tree::live();
    for &kind in Kind::ALL {
        let needs: Vec<String> =
            kind.lacks(&tree, question.from, question.to).iter().map(ToString::to_string).collect();
        if !needs.is_empty() {
            trial.absent.push(Absent { engine: kind.word(), needs });
            continue;
        }
        match kind {
            Kind::Edu => edu::probe(&question, &mut trial),
            Kind::Drive => drive::probe(&question, &mut trial),
            Kind::Adapter => adapter::probe(&question, &mut trial),
        }
    }
    conclude(arguments, &loaded, &judge, &pair, ways, trial)
}

/// The directions that are needed.
const fn ways(need: Need) -> &'static [Way] {
    match need {
        Need::Write => &[Way::Push],
        Need::Read => &[Way::Pull],
        Need::Both => &[Way::Push, Way::Pull],
    }
}

/// Prints what was found and ends as that deserves.
fn conclude(
    arguments: &ProbeArguments,
    loaded: &Loaded,
    judge: &Judge<'_>,
    pair: &PairVerdict,
    ways: &[Way],
    mut trial: Trial,
) -> Result<Exit, Failure> {
    trial.complete(ways, pair);
    let printed = if arguments.output.json {
        output::json(&document(arguments, loaded, judge, pair, &trial))
    } else {
        output::notes(&loaded.notes).and_then(|()| show::print(judge, pair, &trial))
    };
    // What became of the bytes is told by the exit code too, also where nobody reads the rest.
    match trial.outcome() {
        Ok(exit) => output::concluded(exit, printed),
        Err(what) => Err(Failure::Device { what, source: None }),
    }
}

fn document(
    arguments: &ProbeArguments,
    loaded: &Loaded,
    judge: &Judge<'_>,
    pair: &PairVerdict,
    trial: &Trial,
) -> ProbeDocument {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    ProbeDocument {
        schema: SCHEMA,
        source: Source::new(loaded),
        from: text(&arguments.pair.from_function),
        to: text(&arguments.pair.to_function),
        need: match arguments.pair.need {
            Need::Read => "read",
            Need::Write => "write",
            Need::Both => "both",
        },
        pair: super::route::explained(judge, pair, Vec::new()),
        forced: arguments.force,
        seed: arguments.seed,
        rows: trial.rows.iter().map(Row::document).collect(),
        absent: trial.absent.iter().map(Absent::document).collect(),
        failures: trial.failures.clone(),
    }
}
