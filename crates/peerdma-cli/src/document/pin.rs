//! Document of `pin --prove`.

use super::SCHEMA;
use peerdma_linux::proof::{Proof, Trial};
use schemars::JsonSchema;
use serde::Serialize;

/// Document of `pin --prove`.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct ProofDocument {
    /// Version of this schema.
    schema: u32,
    /// `proven`, `refuted` or `inconclusive`.
    #[schemars(extend("enum" = ["proven", "refuted", "inconclusive"]))]
    verdict: &'static str,
    /// Bytes of each piece of memory.
    bytes: u64,
    /// How moves were told: by page `frames`, or by `huge_pages`.
    #[schemars(extend("enum" = ["frames", "huge_pages"]))]
    told_by: &'static str,
    /// The three pieces of memory.
    trials: Vec<TrialDocument>,
    /// What could not be done or told.
    notes: Vec<String>,
}

/// One piece of memory.
#[derive(Serialize, JsonSchema, Debug)]
struct TrialDocument {
    /// `plain`, `mlock` or `pin`.
    #[schemars(extend("enum" = ["plain", "mlock", "pin"]))]
    memory: &'static str,
    /// How many pages it has; null where it could not be had.
    pages: Option<u64>,
    /// How many of them moved.
    moved: Option<u64>,
    /// `moved` as a part of `pages`.
    share: Option<f64>,
    /// How many huge pages the kernel was asked to make of it.
    asked: u64,
    /// How many it made.
    made: u64,
    /// What it answered to the rest.
    answers: Vec<AnswerDocument>,
    /// Whether every page holds what it did.
    intact: bool,
    /// Why it could not be had; null where it could.
    error: Option<String>,
}

/// An error number and how often it came.
#[derive(Serialize, JsonSchema, Debug)]
struct AnswerDocument {
    /// The number.
    errno: i32,
    /// How often.
    times: u64,
}

impl ProofDocument {
    pub(crate) fn new(proof: &Proof) -> Self {
        Self {
            schema: SCHEMA,
            verdict: proof.verdict().word(),
            bytes: proof.len.as_u64(),
            told_by: proof.by.word(),
            trials: proof.trials.iter().map(trial).collect(),
            notes: proof.notes.clone(),
        }
    }
}

fn trial(it: &Trial) -> TrialDocument {
    let moved = it.moved.as_ref().ok();
    TrialDocument {
        memory: it.keep.word(),
        pages: moved.map(|moved| moved.pages),
        moved: moved.map(|moved| moved.moved),
        share: moved.map(|moved| moved.share()),
        asked: it.collapse.asked,
        made: it.collapse.done,
        answers: it
            .collapse
            .refused
            .iter()
            .map(|(errno, times)| AnswerDocument { errno: *errno, times: *times })
            .collect(),
        intact: it.intact,
        error: it.moved.as_ref().err().map(crate::commands::pin::chain),
    }
}
