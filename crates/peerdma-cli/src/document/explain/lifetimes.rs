//! Document of `explain lifetimes`.

use peerdma::buffer::terms::{AboutRule, Answer, LIFETIMES, LifetimeRow, RULES};
use schemars::JsonSchema;
use serde::Serialize;

/// Document of `explain lifetimes`.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct LifetimesDocument {
    /// Version of this schema.
    schema: u32,
    /// For how long a mapping stays good: each sort of memory with each sort of importer.
    lifetimes: Vec<LifetimeDocument>,
    /// What else is asked when an importer attaches, in order.
    rules: Vec<RuleDocument>,
}

/// One sort of memory with one sort of importer.
#[derive(Serialize, JsonSchema, Debug)]
struct LifetimeDocument {
    /// Whether the memory goes to another place: `never`, `unless_pinned` or `at_will`.
    moves: &'static str,
    /// Whether it may be taken away.
    revoked: bool,
    /// The least promise that the importer can live with: `pinned`, `revocable` or `movable`.
    takes: &'static str,
    /// What it is promised: `pinned`, `revocable` or `movable`; null where it is refused.
    lifetime: Option<&'static str>,
    /// Whether a pin is taken for that as long as the importer is attached.
    pin: bool,
    /// The rule by which it is refused; null where it is not.
    refused: Option<&'static str>,
}

/// One rule.
#[derive(Serialize, JsonSchema, Debug)]
struct RuleDocument {
    rule: &'static str,
    /// What it says.
    sentence: &'static str,
    /// What to do where it is broken.
    fix: &'static str,
}

impl LifetimesDocument {
    pub(crate) fn new() -> Self {
        Self {
            schema: crate::document::SCHEMA,
            lifetimes: LIFETIMES.iter().map(LifetimeDocument::new).collect(),
            rules: RULES.iter().map(RuleDocument::new).collect(),
        }
    }
}

impl LifetimeDocument {
    fn new(row: &LifetimeRow) -> Self {
        let (lifetime, pin, refused) = match row.answer {
            Answer::Gives(lifetime) => (Some(lifetime.word()), false, None),
            Answer::GivesWithPin(lifetime) => (Some(lifetime.word()), true, None),
            Answer::Refuses(rule) => (None, false, Some(rule.word())),
        };
        let stays = row.stays;
        let (moves, takes) = (stays.moves.word(), row.takes.word());
        Self { moves, revoked: stays.revoked, takes, lifetime, pin, refused }
    }
}

impl RuleDocument {
    fn new(about: &AboutRule) -> Self {
        Self { rule: about.word, sentence: about.sentence, fix: about.fix }
    }
}
