//! Document of `explain states`.

use peerdma::buffer::life::{About, DISTURBANCES, Phase, TRANSITIONS, Transition, Trigger};
use schemars::JsonSchema;
use serde::Serialize;

/// Document of `explain states`.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct StatesDocument {
    /// Version of this schema.
    schema: u32,
    /// Where in its life a buffer can be.
    phases: Vec<PhaseDocument>,
    /// What takes memory away from importers.
    disturbances: Vec<DisturbanceDocument>,
    /// Where events lead; what has no row is refused.
    transitions: Vec<TransitionDocument>,
}

/// Where in its life a buffer can be.
#[derive(Serialize, JsonSchema, Debug)]
struct PhaseDocument {
    phase: &'static str,
    meaning: &'static str,
    /// Whether nobody has mapped it and nobody may: what a disturbance waits for.
    quiet: bool,
    /// Whether memory is within reach.
    reachable: bool,
}

/// Something that takes memory away from importers.
#[derive(Serialize, JsonSchema, Debug)]
struct DisturbanceDocument {
    disturbance: &'static str,
    what: &'static str,
    /// `state`, `deed` or `final`.
    duration: &'static str,
    /// What becomes of it while there are pinned mappings: `refused`, `waits` or `happens`.
    against_pins: &'static str,
    /// Whether revocable mappings refuse it too.
    refused_for_revocable: bool,
    /// What memory holds afterwards: `kept` or `lost`.
    contents: &'static str,
}

/// Where events lead from a phase.
#[derive(Serialize, JsonSchema, Debug)]
struct TransitionDocument {
    from: &'static str,
    /// Each of these: a disturbance that begins, or `end`, `attach`, `map`, `noted`,
    /// `fences-retired`, `unmap`, `detach` or `hang-up`.
    on: Vec<&'static str>,
    to: &'static str,
    why: &'static str,
}

impl StatesDocument {
    pub(crate) fn new() -> Self {
        Self {
            schema: crate::document::SCHEMA,
            phases: Phase::ALL.into_iter().map(PhaseDocument::new).collect(),
            disturbances: DISTURBANCES.iter().map(DisturbanceDocument::new).collect(),
            transitions: TRANSITIONS.iter().map(TransitionDocument::new).collect(),
        }
    }
}

impl PhaseDocument {
    fn new(phase: Phase) -> Self {
        Self { phase: phase.word(), meaning: phase.meaning(), quiet: phase.is_quiet(), reachable: phase.is_reachable() }
    }
}

impl DisturbanceDocument {
    fn new(about: &About) -> Self {
        Self {
            disturbance: about.word,
            what: about.what,
            duration: about.duration.word(),
            against_pins: about.pinned.word(),
            refused_for_revocable: about.spares_revocable,
            contents: about.contents.word(),
        }
    }
}

impl TransitionDocument {
    fn new(row: &Transition) -> Self {
        Self {
            from: row.from.word(),
            on: row.on.iter().copied().map(Trigger::word).collect(),
            to: row.to.word(),
            why: row.why,
        }
    }
}
