//! The document of `probe`: each direction by each engine, in three columns.

use super::copy::DeliveryDocument;
use super::{Pair, Source};
use schemars::JsonSchema;
use serde::Serialize;

/// Document of `probe`.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct ProbeDocument {
    /// Version of this schema.
    pub(crate) schema: u32,
    /// Where the facts about the pair came from: this machine, or a platform that runs.
    pub(crate) source: Source,
    /// The initiator, as it was asked for.
    pub(crate) from: String,
    /// The target.
    pub(crate) to: String,
    /// What was needed: `read`, `write` or `both`.
    #[schemars(extend("enum" = ["read", "write", "both"]))]
    pub(crate) need: &'static str,
    /// The pair, with the reasons of what is permitted.
    pub(crate) pair: Pair,
    /// Whether --force was given.
    pub(crate) forced: bool,
    /// Seed of the bytes.
    pub(crate) seed: u64,
    /// A row for each direction that was needed and each engine; one of engine `none` where no engine is here.
    pub(crate) rows: Vec<ProbeRowDocument>,
    /// Engines that are not here, with what each lacks.
    pub(crate) absent: Vec<AbsentEngineDocument>,
    /// What went wrong besides: nothing is said about the bytes then, or something was not put back.
    pub(crate) failures: Vec<String>,
}

/// One direction by one engine.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct ProbeRowDocument {
    /// `edu`, `nvme`, `verbs`, the words for an emulated engine, or `none`.
    pub(crate) engine: String,
    /// `write` (the initiator writes the target) or `read` (it reads it).
    #[schemars(extend("enum" = ["write", "read"]))]
    pub(crate) direction: &'static str,
    /// What the verdict says: `permitted`, `refused` or `unknown`.
    #[schemars(extend("enum" = ["permitted", "refused", "unknown"]))]
    pub(crate) permitted: &'static str,
    /// What the kernel answered.
    pub(crate) granted: StageDocument,
    /// Whether the bytes are at their destination.
    pub(crate) verified: StageDocument,
    /// What the destination's owner saw; null where nothing was moved.
    pub(crate) delivery: Option<DeliveryDocument>,
    /// What the kernel did that the rules, as they are known here, do not say; null where they agree.
    pub(crate) contradiction: Option<String>,
}

/// An answer.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct StageDocument {
    /// `yes`, `no` or `unknown`.
    #[schemars(extend("enum" = ["yes", "no", "unknown"]))]
    pub(crate) answer: &'static str,
    /// The evidence, or what keeps it from being known.
    pub(crate) evidence: String,
}

/// An engine that is not here.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct AbsentEngineDocument {
    /// Which.
    pub(crate) engine: String,
    /// What it lacks, each with what to do.
    pub(crate) needs: Vec<String>,
}
