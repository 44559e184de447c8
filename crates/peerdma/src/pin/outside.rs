//! What others hold of a counter, as far as somebody looked.

use crate::addr::Bytes;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// A process that holds some.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    /// Its number.
    pub pid: u32,
    /// What it calls itself.
    pub command: String,
    /// How much.
    pub held: Bytes,
}

impl fmt::Display for Holder {
    /// Writes `48 MiB by process 4711 (qemu)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by process {} ({})", self.held, self.pid, self.command)
    }
}

/// How good a sum is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Precision {
    /// The kernel's own number.
    Exact,
    /// So much at least: some processes could not be read, or nobody looked.
    #[default]
    AtLeast,
    /// Added up from what processes show of it, which may be too much or too little.
    About,
}

impl Precision {
    /// What to write before the number, with a space behind it where there is something.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Exact => "",
            Self::AtLeast => "at least ",
            Self::About => "about ",
        }
    }
}

/// What is charged to a counter and stands in no books of the ledger's.
///
/// The default is that nobody looked: at least nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Outside {
    /// How much.
    pub held: Bytes,
    /// How well that is known.
    pub precision: Precision,
    /// By whom, largest first.
    pub holders: Vec<Holder>,
}
