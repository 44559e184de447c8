//! What can be wrong with a platform file.

mod link;
mod register;
mod surroundings;
mod tree;

pub use link::LinkProblem;
pub use register::RegisterProblem;
pub use surroundings::SurroundingsProblem;
pub use tree::TreeProblem;

use std::fmt;

/// Bus numbers `first..=last`, for messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Buses {
    /// First bus.
    pub first: u8,
    /// Last bus, inclusive.
    pub last: u8,
}

impl fmt::Display for Buses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}-{:02x}", self.first, self.last)
    }
}

/// What is wrong with a platform file.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// Not TOML, a key that does not exist or is missing, a value of the wrong type, an unknown word.
    #[error("{message}")]
    Syntax {
        /// The parser's words.
        message: String,
    },
    /// Another version of the schema.
    #[error("schema {found} is not known here; this version reads `schema = 1`")]
    Schema {
        /// The version asked for.
        found: i128,
    },
    /// A number outside what its key takes.
    #[error("{key} = {found} is out of range; it takes {min} to {max:#x}")]
    OutOfRange {
        /// The key.
        key: &'static str,
        /// The number found.
        found: i128,
        /// Smallest number it takes.
        min: u64,
        /// Largest number it takes.
        max: u64,
    },
    /// A size or length of nothing.
    #[error("{key} is zero; give it at least one byte or leave it out")]
    Zero {
        /// The key.
        key: &'static str,
    },
    /// A range that ends past the address space.
    #[error("{key} plus the size runs past 2^64; move or shrink the range")]
    Wraps {
        /// The key of the range's start.
        key: &'static str,
    },
    /// How ports and functions hang together.
    #[error(transparent)]
    Tree(#[from] TreeProblem),
    /// CPU, kernel, IOMMU, RAM or host bridges.
    #[error(transparent)]
    Surroundings(#[from] SurroundingsProblem),
    /// A link.
    #[error(transparent)]
    Link(#[from] LinkProblem),
    /// A BAR, ACS or another register of a port or function.
    #[error(transparent)]
    Register(#[from] RegisterProblem),
}
