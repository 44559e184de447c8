//! Arguments of `peerdma explain`.

use super::OutputArguments;
use clap::{Args, ValueEnum};

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  peerdma explain states                  phases, disturbances, and which event leads where
  peerdma explain states --json

Exit codes: 0 done, 2 usage, 4 failed.")]
pub(crate) struct ExplainArguments {
    /// What to explain.
    #[arg(value_enum)]
    pub(crate) subject: SubjectArgument,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
pub(crate) enum SubjectArgument {
    /// The life of a shared buffer: its phases, what disturbs it, and its transitions.
    States,
}
