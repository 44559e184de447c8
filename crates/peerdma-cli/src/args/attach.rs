//! Arguments of `peerdma attach`.

use super::share::seconds;
use super::{EnforcementArgument, OutputArguments};
use clap::{Args, ValueEnum};
use peerdma::buffer::Lifetime;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Args, Debug)]
#[command(after_help = "\
Attaches to what `peerdma share` shares, maps it, compares it with the pattern, lets go when told to, and maps again \
when it may.

Examples:
  peerdma attach /tmp/frames                  follow it until its exporter is done
  peerdma attach /tmp/frames --once           map, compare, detach
  peerdma attach /tmp/frames --write --for 10
  peerdma attach /tmp/frames --keep           do not let go: the exporter's wait ends and names this process
  peerdma attach /tmp/bar --look              a BAR, and what its exporter filled it with

Exit codes: 0 done, 1 refused, 2 usage, 4 nobody is there, the exporter is gone without a word, or the memory holds \
something else.")]
pub(crate) struct AttachArguments {
    /// Where the memory is shared.
    #[arg(value_name = "PATH", required_unless_present = "schema")]
    pub(crate) socket: Option<PathBuf>,
    /// Map it for reading, which is the default.
    #[arg(long, conflicts_with = "write")]
    pub(crate) read: bool,
    /// Map it for reading and writing, and turn over every bit of it twice.
    #[arg(long)]
    pub(crate) write: bool,
    /// The least promise to live with.
    #[arg(long, value_name = "LIFETIME", default_value = "movable")]
    pub(crate) takes: LifetimeArgument,
    /// Who sees to it that this process lets go.
    #[arg(long, value_name = "LEVEL", default_value = "cooperative")]
    pub(crate) enforcement: EnforcementArgument,
    /// Look at a device's memory too, and compare it with the pattern; reading may be a command to its registers.
    #[arg(long)]
    pub(crate) look: bool,
    /// Map, compare and detach.
    #[arg(long)]
    pub(crate) once: bool,
    /// Do not let go when told to, to see what becomes of the exporter's wait.
    #[arg(long, conflicts_with = "once")]
    pub(crate) keep: bool,
    /// Detach after so many seconds [default: when the exporter is done, or with a signal].
    #[arg(long = "for", value_name = "SECONDS", value_parser = seconds)]
    pub(crate) lasts: Option<Duration>,
    /// How many seconds to wait for answers.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub(crate) patience: Duration,
    /// Seed of the pattern.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LifetimeArgument {
    /// The memory stays as long as it is mapped.
    Pinned,
    /// It stays until it is taken away.
    Revocable,
    /// It may move.
    Movable,
}

impl From<LifetimeArgument> for Lifetime {
    fn from(argument: LifetimeArgument) -> Self {
        match argument {
            LifetimeArgument::Pinned => Self::Pinned,
            LifetimeArgument::Revocable => Self::Revocable,
            LifetimeArgument::Movable => Self::Movable,
        }
    }
}
