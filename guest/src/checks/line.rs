//! What is printed of a claim.

use super::claim::Stop;
use serde::{Deserialize, Serialize};

/// One line of output.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) group: String,
    pub(crate) claim: String,
    pub(crate) result: Word,
    /// Why not; empty for one that held.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) why: String,
}

/// What became of a claim.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Word {
    Held,
    Broken,
    DoesNotApply,
}

impl Line {
    pub(crate) fn new(group: &str, claim: &str, outcome: Result<(), Stop>) -> Self {
        let (result, why) = match outcome {
            Ok(()) => (Word::Held, String::new()),
            Err(Stop::Broken(why)) => (Word::Broken, why),
            Err(Stop::DoesNotApply(why)) => (Word::DoesNotApply, why),
        };
        Self { group: group.into(), claim: claim.into(), result, why }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_results_have_the_words_that_readers_look_for() {
        let json = |outcome| serde_json::to_string(&Line::new("g", "c", outcome)).unwrap();
        assert_eq!(json(Ok(())), r#"{"group":"g","claim":"c","result":"held"}"#);
        assert_eq!(
            json(Err(Stop::DoesNotApply("no engine".into()))),
            r#"{"group":"g","claim":"c","result":"does-not-apply","why":"no engine"}"#
        );
        let broken = json(Err(Stop::broken("seen 1")));
        assert!(broken.contains(r#""result":"broken","why":"seen 1""#));
        assert_eq!(serde_json::from_str::<Line>(&broken).unwrap().result, Word::Broken);
    }
}
