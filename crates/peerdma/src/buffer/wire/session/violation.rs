//! What a peer may not do, and what the own side may not.

use super::super::codes::Ending;
use super::super::malformed::Malformed;
use alloc::string::String;

/// What a peer did that ends its session.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// It sent bytes that are no message.
    #[error("sent bytes that are no message: {0}")]
    Malformed(#[from] Malformed),
    /// It sent a message that belongs to another time, channel or side.
    #[error("said `{kind}` {when}")]
    OutOfTurn {
        /// Which message.
        kind: &'static str,
        /// When it was said.
        when: &'static str,
    },
    /// It claimed what cannot be.
    #[error("said `{kind}`, but {what}")]
    Untrue {
        /// Which message.
        kind: &'static str,
        /// What is the case instead.
        what: String,
    },
    /// It asked for more than it may have at a time, or does not read what it is told.
    #[error("{what}, and {bound} is the bound")]
    Flood {
        /// What there is too much of.
        what: &'static str,
        /// How much there may be.
        bound: usize,
    },
    /// It sent another number of descriptors than the message has.
    #[error("sent {got} descriptors with `{kind}`, which has {expected}")]
    Descriptors {
        /// Which message.
        kind: &'static str,
        /// How many it has.
        expected: usize,
        /// How many came.
        got: usize,
    },
    /// It said nothing for too long where something was due.
    #[error("said nothing in time; {due} was due")]
    Late {
        /// What was due.
        due: &'static str,
    },
}

impl Violation {
    /// The reason that the peer is given.
    pub const fn ending(&self) -> Ending {
        match self {
            Self::Malformed(_) => Ending::Malformed,
            Self::OutOfTurn { .. } => Ending::OutOfTurn,
            Self::Untrue { .. } => Ending::Untrue,
            Self::Flood { .. } => Ending::Flood,
            Self::Descriptors { .. } => Ending::Descriptors,
            Self::Late { .. } => Ending::Late,
        }
    }
}

/// The own side wanted to say what it may not say now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{kind}` cannot be said now: {why}")]
pub struct OutOfTurn {
    /// Which message.
    pub kind: &'static str,
    /// Why.
    pub why: &'static str,
}
