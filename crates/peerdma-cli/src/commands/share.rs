//! `peerdma share`: memory that other processes map, taken away and given back.
//!
//! A memfd is shared here and in [`session`], a BAR in [`bar`].
//!
//! Not here: the exporter itself ([`peerdma_linux::share`]), and what is printed how ([`chronicle`]).

mod bar;
pub(crate) mod chronicle;
mod session;

use crate::args::ShareArguments;
use crate::document::share::ShareDocument;
use crate::exit::{Exit, Failure};
use crate::output;
use peerdma::addr::Bytes;
use peerdma_linux::interrupt::Interrupts;
use peerdma_linux::share::{BindError, Exporter, Listener, Memory, MemoryError, Shared};
use session::Session;
pub(super) use session::pieces;
use std::path::Path;

/// Length of a memfd that nobody gave.
const MEMFD: Bytes = Bytes::new(1 << 20);

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
        only_of_memfds(arguments)?;
        return bar::run(arguments, what, socket, document);
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

/// What is said of memory that is made, and means nothing of a device's.
fn only_of_memfds(arguments: &ShareArguments) -> Result<(), Failure> {
    match (arguments.size, arguments.read_only) {
        (None, false) => Ok(()),
        (Some(_), _) => Err(Failure::usage("--size is of a memfd; a BAR's range is named: BDF/bar2+0,64KiB")),
        (None, true) => Err(Failure::usage(
            "--read-only is of a memfd; nothing in the kernel keeps who has a device from writing it",
        )),
    }
}

fn open(arguments: &ShareArguments, socket: &Path) -> Result<Exporter, Failure> {
    let size = arguments.size.unwrap_or(MEMFD);
    let memory = match arguments.read_only {
        true => Memory::create_read_only("peerdma", size),
        false => Memory::create("peerdma", size),
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
