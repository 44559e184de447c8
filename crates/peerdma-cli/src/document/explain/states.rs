//! Document of `explain states`.

use peerdma::buffer::confidential::{Answer, Row, TABLE};
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
    /// The life of memory that becomes a confidential guest's: what becomes of each event.
    private_memory: Vec<PrivateDocument>,
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

/// What becomes of an event in the life of memory that becomes a confidential guest's.
#[derive(Serialize, JsonSchema, Debug)]
struct PrivateDocument {
    event: &'static str,
    /// In each of these stages.
    stages: Vec<&'static str>,
    /// Whether the guest has started; null where that does not matter.
    started: Option<bool>,
    /// Whether its IOMMU is in front of the device; null where that does not matter.
    viommu: Option<bool>,
    /// The stage it goes to; null where it stays or is refused.
    goes: Option<&'static str>,
    /// What is to be done, in order.
    actions: Vec<&'static str>,
    /// Why it is refused; null where it is not.
    refused: Option<&'static str>,
}

impl StatesDocument {
    pub(crate) fn new() -> Self {
        Self {
            schema: crate::document::SCHEMA,
            phases: Phase::ALL.into_iter().map(PhaseDocument::new).collect(),
            disturbances: DISTURBANCES.iter().map(DisturbanceDocument::new).collect(),
            transitions: TRANSITIONS.iter().map(TransitionDocument::new).collect(),
            private_memory: TABLE.iter().map(PrivateDocument::new).collect(),
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

impl PrivateDocument {
    fn new(row: &Row) -> Self {
        let (goes, actions, refused) = match row.answer {
            Answer::Goes(stage, actions) => (Some(stage.word()), actions, None),
            Answer::Stays(actions) => (None, actions, None),
            Answer::Refused(why) => (None, [].as_slice(), Some(why.word())),
        };
        Self {
            event: row.event.word(),
            stages: row.stages.iter().map(|stage| stage.word()).collect(),
            started: row.started,
            viommu: row.viommu,
            goes,
            actions: actions.iter().map(|action| action.word()).collect(),
            refused,
        }
    }
}
