//! Whoever lends a device's memory to others as buffers, and what faults make of him.

use super::Fault;
use std::fmt::Debug;

/// What somebody does who does not keep to the rules of a shared buffer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Wrong {
    /// The exporter gives memory that is in use to somebody else, and tells nobody.
    Revokes,
    /// The exporter moves bytes that are in use, and tells nobody.
    Migrates,
    /// An importer says that it has unmapped, and its device goes on.
    UnmapsLate,
}

/// Whoever lends memory of a function to others, as the faults of buffers need him.
///
/// Registered by [`Machine::lend`](crate::machine::Machine::lend). Called between requests, by whichever thread's
/// request or step it is that a fault strikes at: it must not wait, and must not send requests. Who
/// acts in steps of his own takes note, and does wrong when he next can.
pub trait Lender: Send + Sync + Debug {
    /// Does wrong, once. False if nothing came of it, which counts as no strike.
    fn do_wrong(&self, how: Wrong) -> bool;
}

impl Fault {
    /// What it makes a lender do; `None` for faults of the machine itself.
    pub const fn wrong(self) -> Option<Wrong> {
        match self {
            Self::Revoked => Some(Wrong::Revokes),
            Self::Migrated => Some(Wrong::Migrates),
            Self::LateUnmap => Some(Wrong::UnmapsLate),
            _ => None,
        }
    }
}
