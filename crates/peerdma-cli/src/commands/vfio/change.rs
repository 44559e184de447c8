//! `peerdma vfio bind`, `unbind` and `reset`: what would be done, and, where that is asked for, done.

use super::reset;
use crate::args::VfioChangeArguments;
use crate::document::SCHEMA;
use crate::document::vfio::VfioChangeDocument;
use crate::exit::{Exit, Failure};
use crate::input;
use crate::output::{self, printable, warning};
use peerdma_linux::tree::Tree;
use peerdma_linux::vfio::binding::{Change, Direction, Obstacle, may_write};
use peerdma_linux::vfio::standing::Standing;
use std::io::Write;
use std::path::Path;

/// What to do to a function.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Driver(Direction),
    Reset,
}

impl Action {
    const fn word(self) -> &'static str {
        match self {
            Self::Driver(Direction::Bind) => "bind",
            Self::Driver(Direction::Unbind) => "unbind",
            Self::Reset => "reset",
        }
    }
}

/// Either kind of plan.
enum Planned {
    Driver(Change),
    Reset(reset::Plan),
}

impl Planned {
    fn obstacles(&self) -> &[Obstacle] {
        match self {
            Self::Driver(change) => &change.obstacles,
            Self::Reset(plan) => &plan.obstacles,
        }
    }

    fn steps(&self) -> Vec<String> {
        match self {
            Self::Driver(change) => change.writes.iter().map(ToString::to_string).collect(),
            Self::Reset(plan) => plan.steps.clone(),
        }
    }

    fn not_permitted(&self, tree: &Tree) -> Vec<String> {
        if !tree.is_live() {
            return Vec::new();
        }
        match self {
            Self::Driver(change) => {
                change.not_permitted(Path::new("/")).into_iter().map(|path| format!("/{path}")).collect()
            }
            Self::Reset(plan) => plan.files.iter().filter(|file| !may_write(Path::new(file))).cloned().collect(),
        }
    }
}

pub(super) fn run(arguments: &VfioChangeArguments, action: Action) -> Result<Exit, Failure> {
    if arguments.output.schema {
        output::schema::<VfioChangeDocument>()?;
        return Ok(Exit::Done);
    }
    let Some(device) = arguments.device else {
        return Err(Failure::usage("name a function; peerdma vfio list has them"));
    };
    let tree = input::tree(arguments.from.as_deref(), arguments.sysfs_root.as_deref())?;
    let standing = Standing::read(&tree, device).map_err(|error| Failure::impossible(error.to_string()))?;
    let planned = match action {
        Action::Driver(direction) => Planned::Driver(Change::plan(&tree, &standing, direction)),
        Action::Reset => Planned::Reset(reset::Plan::new(&tree, &standing)),
    };
    let in_the_way = planned.obstacles().iter().any(|obstacle| !(arguments.force && obstacle.yields()));
    let impossible = matches!(&planned, Planned::Reset(plan) if !plan.is_possible());
    let refused = in_the_way || impossible;
    let mut document = VfioChangeDocument {
        schema: SCHEMA,
        action: action.word(),
        device: device.to_string(),
        steps: planned.steps().iter().map(|step| printable(step)).collect(),
        obstacles: planned.obstacles().iter().map(Into::into).collect(),
        unseen: standing.unseen.iter().map(ToString::to_string).collect(),
        not_permitted: planned.not_permitted(&tree),
        done: false,
    };
    if arguments.yes && !refused {
        match &planned {
            Planned::Driver(change) => change
                .carry_out(&tree, Path::new("/"))
                .map_err(|error| Failure::device(format!("cannot {} {device}", action.word()), error))?,
            Planned::Reset(plan) => plan.carry_out(&standing)?,
        }
        document.done = true;
    }
    let exit = if refused { Exit::Refused } else { Exit::Done };
    let printed = if arguments.output.json {
        output::json(&document)
    } else {
        print(&document, arguments, planned.obstacles(), impossible)
    };
    output::concluded(exit, printed)
}

fn print(
    document: &VfioChangeDocument,
    arguments: &VfioChangeArguments,
    obstacles: &[Obstacle],
    impossible: bool,
) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    let style = warning();
    for obstacle in obstacles {
        let forced = arguments.force && obstacle.yields();
        let word = if forced { "forced" } else { "in the way" };
        writeln!(out, "{style}{word}{style:#}: {}", printable(&obstacle.to_string()))?;
    }
    for unseen in &document.unseen {
        writeln!(out, "not seen from here: {unseen}")?;
    }
    let head = match (document.done, document.steps.is_empty(), document.action) {
        (_, true, _) if impossible => {
            "the kernel has no way to reset it by itself; a hot reset takes its neighbours along"
        }
        (_, true, "bind") => "it is bound to vfio-pci already",
        (_, true, _) => "nothing to do",
        (true, ..) => "done:",
        (false, ..) => "would be done:",
    };
    writeln!(out, "{head}")?;
    for step in &document.steps {
        writeln!(out, "  {step}")?;
    }
    if !document.done && !document.steps.is_empty() {
        if !document.not_permitted.is_empty() {
            writeln!(out, "this user may not write {}; that is root's to do", document.not_permitted.join(", "))?;
        }
        let refused = obstacles.iter().any(|obstacle| !(arguments.force && obstacle.yields()));
        let next = if refused { "nothing was changed" } else { "nothing was changed; --yes does it" };
        writeln!(out, "{next}")?;
    }
    Ok(())
}
