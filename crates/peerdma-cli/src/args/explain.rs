//! Arguments of `peerdma explain`.

use super::OutputArguments;
use clap::{Args, ValueEnum};

#[derive(Args, Debug)]
#[command(after_help = "\
Topics:
  lifetimes   for how long a mapping of a shared buffer stays good, by what its memory does and what the importer
              can live with; and every rule that is asked when an importer attaches, in order
  states      the life of a shared buffer: its phases, what disturbs it, and which event leads where; and
              the life of memory that becomes a confidential guest's

Examples:
  peerdma explain lifetimes
  peerdma explain lifetimes --json | jq '.lifetimes[] | select(.refused)'
  peerdma explain states

Exit codes: 0 explained, 2 usage, 4 failed.")]
pub(crate) struct ExplainArguments {
    /// What to explain.
    #[arg(value_name = "TOPIC")]
    pub(crate) topic: Topic,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}

/// A set of rules that is data.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Topic {
    /// What is settled when an importer attaches to a shared buffer.
    Lifetimes,
    /// The life of a shared buffer.
    States,
}
