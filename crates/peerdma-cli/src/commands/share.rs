//! `peerdma share`: memory that other processes map, taken away and given back.
//!
//! Not here: the exporter itself ([`peerdma_linux::share`]), and what is printed how ([`chronicle`]).

pub(crate) mod chronicle;
mod named;
mod session;

use crate::args::ShareArguments;
use crate::document::share::ShareDocument;
use crate::exit::{Exit, Failure};
use crate::output;
use chronicle::Chronicle;
use peerdma_linux::interrupt::Interrupts;
use peerdma_linux::share::{BindError, Exporter, Listener, Memory, MemoryError, Shared};
use session::Session;
pub(super) use session::pieces;
use std::path::Path;

pub(crate) fn run(arguments: &ShareArguments) -> Result<Exit, Failure> {
    if arguments.output.schema {
        output::schema::<ShareDocument>()?;
        return Ok(Exit::Done);
    }
    let (Some(what), Some(socket)) = (&arguments.what, &arguments.socket) else {
        return Err(Failure::usage("share needs what and where, such as peerdma share memfd --socket /tmp/frames"));
    };
    let mut document = ShareDocument::new(what, socket);
    if what != "memfd" {
        let why = named::refusal(what)?;
        document.refused = Some(why.clone());
        let printed = match arguments.output.json {
            true => output::json(&document),
            false => Chronicle::new(false).tell("refused", &why),
        };
        return output::concluded(Exit::Refused, printed);
    }
    // Before there is a socket that would be left behind.
    let interrupts = Interrupts::watch();
    let mut exporter = open(arguments, socket)?;
    document.bytes = Some(exporter.memory().len().as_u64());
    let mut session = Session::new(arguments, &mut exporter, interrupts.as_ref());
    let outcome = session.run();
    (document.events, document.events_left_out) = session.into_events();
    let printed = if arguments.output.json { output::json(&document) } else { Ok(()) };
    output::concluded(outcome?, printed)
}

fn open(arguments: &ShareArguments, socket: &Path) -> Result<Exporter, Failure> {
    let memory = match arguments.read_only {
        true => Memory::create_read_only("peerdma", arguments.size),
        false => Memory::create("peerdma", arguments.size),
    };
    let memory = memory.map_err(|error| match error {
        MemoryError::Size { .. } => Failure::usage(error.to_string()),
        error => Failure::device("cannot make memory to share", error),
    })?;
    let listener = Listener::bind(socket).map_err(|error| match error {
        BindError::NotASocket { .. } | BindError::TooLong { .. } => Failure::usage(error.to_string()),
        error => Failure::device("cannot share", error),
    })?;
    let shared = Shared {
        floor: arguments.floor.into(),
        stays: peerdma::buffer::terms::Stays { moves: peerdma::buffer::terms::Moves::UnlessPinned, revoked: true },
        ..Shared::named("memfd")
    };
    Exporter::new(listener, memory, shared).map_err(|error| Failure::device("cannot share", error))
}
