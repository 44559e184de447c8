//! The `peerdma` command: which devices of a machine reach each other's memory.
//!
//! Data flows one way: [`args`] → [`input`] (whatever `--from` names becomes a
//! topology) → [`select`] (names become functions) → [`commands`] → [`output`].
//! Nothing here decides about a route; that is the `peerdma` crate.
//!
//! Exit codes: 0 done or permitted, 1 refused, 2 usage, 3 unknown, 4 failed.

mod args;
mod chunk;
mod commands;
mod document;
mod exit;
mod input;
mod output;
mod progress;
mod proximity;
mod select;

use crate::args::{Arguments, Command};
use crate::exit::Exit;
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    // clap itself exits with 2 on misuse and 0 after --help.
    let arguments = Arguments::parse();
    let result = match &arguments.command {
        Command::Topo(arguments) => commands::topo::run(arguments),
        Command::Matrix(arguments) => commands::matrix::run(arguments),
        Command::Route(arguments) => commands::route::run(arguments),
        Command::Capture(arguments) => commands::capture::run(arguments),
        Command::Map(arguments) => commands::map::run(arguments),
        Command::Demo(arguments) => commands::demo::run(arguments),
        Command::Copy(arguments) => commands::copy::run(arguments),
        Command::Probe(arguments) => commands::probe::run(arguments),
        Command::Trace(arguments) => commands::trace::run(arguments),
        Command::Whatif(arguments) => commands::whatif::run(arguments),
        Command::Fix(arguments) => commands::fix::run(arguments),
        Command::LintCmdline(arguments) => commands::lint_cmdline::run(arguments),
        Command::Verify(arguments) => commands::verify::run(arguments),
        Command::Doctor(arguments) => commands::doctor::run(arguments),
        Command::Whose(arguments) => commands::whose::run(arguments),
        Command::Guest(arguments) => commands::guest::run(arguments),
        Command::Compat(arguments) => commands::compat::run(arguments),
        Command::Pins(arguments) => commands::pins::run(arguments),
        Command::Memlock(arguments) => commands::memlock::run(arguments),
        Command::Pin(arguments) => commands::pin::run(arguments),
        Command::Explain(arguments) => commands::explain::run(arguments),
        Command::Share(arguments) => commands::share::run(arguments),
        Command::Attach(arguments) => commands::attach::run(arguments),
        Command::Buffers(arguments) => commands::buffers::run(arguments),
        Command::Vfio(arguments) => commands::vfio::run(arguments),
    };
    // A command that judges nothing is done, also where nobody reads to the end.
    let result = result.or_else(|failure| output::concluded(Exit::Done, Err(failure)));
    match result {
        Ok(exit) => exit.into(),
        Err(failure) => {
            failure.print();
            failure.exit()
        }
    }
}
