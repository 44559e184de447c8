//! `peerdma memlock`: which limit a plan of pins needs, whether it is there, and where to set it.

mod file;
mod lines;
mod plan;
mod print;
mod standing;

pub(crate) use lines::{Line, lines};
pub(crate) use standing::{Answer, Standing};

use crate::args::MemlockArguments;
use crate::document::memlock::MemlockDocument;
use crate::exit::{Exit, Failure};
use crate::output;
use file::PlanFile;
use peerdma::pin::{Backend, Need};
use plan::Resolved;
use std::io::Read;
use std::path::Path;

/// Longest plan.
const MOST: u64 = 1 << 20;

/// What a plan needs, as far as it is told.
pub(crate) struct Told {
    /// Names of its processes.
    pub(crate) processes: Vec<String>,
    /// As it is written.
    pub(crate) need: Need,
    /// With everything through one backend, by each.
    pub(crate) through: Vec<(Backend, Need)>,
    /// Against which limit, and how it stands.
    pub(crate) standing: Standing,
}

pub(crate) fn run(arguments: &MemlockArguments) -> Result<Exit, Failure> {
    if arguments.output.schema {
        output::schema::<MemlockDocument>()?;
        return Ok(Exit::Done);
    }
    let path = arguments.plan.as_deref().unwrap_or(Path::new("-"));
    let resolved = Resolved::new(&parse(path, &text(path)?)?)?;
    let need = resolved.need(None)?;
    let through: Vec<(Backend, Need)> =
        Backend::ALL.into_iter().map(|all| Ok((all, resolved.need(Some(all))?))).collect::<Result<_, Failure>>()?;
    let standing = Standing::new(arguments, &need)?;
    let exit = match standing.answer {
        Answer::Suffices | Answer::NotHeld => Exit::Done,
        Answer::Lacks => Exit::Refused,
        Answer::May => Exit::Unknown,
    };
    let told = Told { processes: resolved.processes, need, through, standing };
    let printed = if arguments.output.json { output::json(&MemlockDocument::new(&told)) } else { print::print(&told) };
    output::concluded(exit, printed)
}

fn text(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = match path.to_str() {
        Some("-") => std::io::stdin().lock().take(MOST + 1).read_to_string(&mut text),
        _ => std::fs::File::open(path).and_then(|file| file.take(MOST + 1).read_to_string(&mut text)),
    };
    let len = read.map_err(|source| Failure::Read { path: path.into(), source })?;
    if len as u64 > MOST {
        return Err(Failure::impossible(format!("{} is longer than 1 MiB; no plan is", path.display())));
    }
    Ok(text)
}

fn parse(path: &Path, text: &str) -> Result<PlanFile, Failure> {
    toml::from_str(text).map_err(|error| {
        let what = error.to_string();
        Failure::impossible(format!("{} is no plan: {}; docs/memlock.md says what is", path.display(), what.trim_end()))
    })
}
