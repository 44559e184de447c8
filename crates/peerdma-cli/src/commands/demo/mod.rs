//! `peerdma demo`: what the library is for, on a machine that is only described.
//!
//! - [`findings`]: everything is run once, and what was seen is kept.
//! - [`mod@print`], [`document`]: text and JSON of it. - [`wrap`]: lines for a terminal.
//! - [`serve`]: one story over and over, for `peerdma buffers` to look at.

mod document;
mod findings;
mod print;
mod serve;
mod wrap;

use crate::args::{Arguments, Command, DemoArguments};
use crate::document::demo::{DemoDocument, ServeDocument};
use crate::exit::{Exit, Failure};
use crate::progress::Progress;
use crate::{input, output};
use clap::Parser;
use findings::Findings;

pub(crate) fn run(arguments: &DemoArguments) -> Result<Exit, Failure> {
    if arguments.output.schema {
        match arguments.serve {
            None => output::schema::<DemoDocument>()?,
            Some(_) => output::schema::<ServeDocument>()?,
        }
        return Ok(Exit::Done);
    }
    if arguments.platform == "help" {
        input::print_platforms()?;
        return Ok(Exit::Done);
    }
    let (loaded, platform) = input::machine(&arguments.platform)?;
    if let Some(path) = &arguments.serve {
        return serve::run(arguments, path.as_deref(), &platform);
    }
    let found = {
        let _progress = Progress::start("running the machine");
        Findings::collect(arguments, loaded, &platform)?
    };
    let printed = if arguments.output.json { found.document().and_then(|it| output::json(&it)) } else { found.print() };
    let done = output::concluded(Exit::Done, printed)?;
    match found.missing().as_slice() {
        [] => Ok(done),
        missing => Err(Failure::Device { what: format!("not as it should be: {}", missing.join(", ")), source: None }),
    }
}

/// Another command as if it were typed.
fn typed(words: &[&str]) -> Result<Command, Failure> {
    let parsed = Arguments::try_parse_from(["peerdma"].iter().chain(words));
    parsed.map(|arguments| arguments.command).map_err(|error| Failure::usage(error.to_string()))
}
