//! For how long a mapping stays good: what the exporter's memory does, and what the importer can take.

use super::super::Lifetime;
use super::offer::{Moves, Stays};
use super::rule::Rule;
use core::fmt;

/// What comes of one exporter's memory and one importer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Answer {
    /// This lifetime, with nothing to be done for it.
    Gives(Lifetime),
    /// This lifetime, and a pin that keeps the memory in its place as long as the attachment lasts.
    GivesWithPin(Lifetime),
    /// No lifetime: this rule stands against it.
    Refuses(Rule),
}

impl fmt::Display for Answer {
    /// Writes `pinned`, `pinned, with a pin` or `refused: revoked`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gives(lifetime) => write!(f, "{lifetime}"),
            Self::GivesWithPin(lifetime) => write!(f, "{lifetime}, with a pin"),
            Self::Refuses(rule) => write!(f, "refused: {rule}"),
        }
    }
}

/// One row of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct LifetimeRow {
    /// What the memory does.
    pub stays: Stays,
    /// The least promise that the importer can live with.
    pub takes: Lifetime,
    /// What comes of it.
    pub answer: Answer,
}

const fn row(moves: Moves, revoked: bool, takes: Lifetime, answer: Answer) -> LifetimeRow {
    LifetimeRow { stays: Stays { moves, revoked }, takes, answer }
}

use Answer::{Gives, GivesWithPin, Refuses};
use Lifetime::{Movable, Pinned, Revocable};
use Moves::{AtWill, Never, UnlessPinned};

/// Nobody takes it away.
const STAYS: bool = false;
/// The exporter takes it away when the device is reset, powered down or closed.
const REVOKED: bool = true;

/// The lifetimes: each sort of memory with each sort of importer, once.
///
/// After Linux 7.2: an importer without `invalidate_mappings` takes pinned memory alone, one that pins
/// and has it takes memory that is revoked, and one that has it and does not pin takes memory that moves. Who
/// follows moves is not pinned against them, as pins take room that others need.
#[rustfmt::skip]
pub const LIFETIMES: [LifetimeRow; 18] = [
    row(Never,        STAYS,   Pinned,    Gives(Pinned)),
    row(Never,        STAYS,   Revocable, Gives(Pinned)),
    row(Never,        STAYS,   Movable,   Gives(Pinned)),
    row(Never,        REVOKED, Pinned,    Refuses(Rule::Revoked)),
    row(Never,        REVOKED, Revocable, Gives(Revocable)),
    row(Never,        REVOKED, Movable,   Gives(Revocable)),
    row(UnlessPinned, STAYS,   Pinned,    GivesWithPin(Pinned)),
    row(UnlessPinned, STAYS,   Revocable, GivesWithPin(Pinned)),
    row(UnlessPinned, STAYS,   Movable,   Gives(Movable)),
    row(AtWill,       STAYS,   Pinned,    Refuses(Rule::Moved)),
    row(AtWill,       STAYS,   Revocable, Refuses(Rule::Moved)),
    row(AtWill,       STAYS,   Movable,   Gives(Movable)),
    row(UnlessPinned, REVOKED, Pinned,    Refuses(Rule::Revoked)),
    row(UnlessPinned, REVOKED, Revocable, GivesWithPin(Revocable)),
    row(UnlessPinned, REVOKED, Movable,   Gives(Movable)),
    row(AtWill,       REVOKED, Pinned,    Refuses(Rule::Revoked)),
    row(AtWill,       REVOKED, Revocable, Refuses(Rule::Moved)),
    row(AtWill,       REVOKED, Movable,   Gives(Movable)),
];

/// What the table says of this memory and an importer that can live with no less than `takes`.
pub fn lifetime(stays: Stays, takes: Lifetime) -> Answer {
    let row = LIFETIMES.iter().find(|row| row.stays == stays && row.takes == takes);
    // Each combination stands in one row, as a test says; one left out must not give memory away.
    row.map_or(Refuses(Rule::Moved), |row| row.answer)
}
