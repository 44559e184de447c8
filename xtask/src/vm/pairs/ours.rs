//! What `peerdma` says about a capture, through its command line.
//!
//! The program and its JSON are what a user has, so they are what is held against the
//! kernel; calling the library would skip the reading of captures and the documents.

use super::kernel::{MapType, Pair};
use crate::failure::Failure;
use crate::vm::process::{bound, output};
use peerdma::pcie::PciAddr;
use serde::Deserialize;
use std::path::Path;

/// Which pairs to ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scope {
    /// `--all`: every function with a type 0 header.
    Devices,
    /// Bridges too, by their addresses.
    Everything,
}

/// One answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Answer {
    pub(crate) pair: Pair,
    /// `None` for unknown.
    pub(crate) map_type: Option<MapType>,
    pub(crate) distance: u32,
    pub(crate) distance_is_lower_bound: bool,
}

/// The answers of one document.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Ours {
    pub(crate) answers: Vec<Answer>,
    /// The series whose whitelist was applied, as the document words it.
    pub(crate) table: Option<String>,
}

/// The members of `peerdma matrix --json` that matter here.
#[derive(Deserialize)]
struct Document {
    pairs: Vec<PairMember>,
}

#[derive(Deserialize)]
struct PairMember {
    initiator: String,
    target: String,
    kernel: KernelMember,
}

#[derive(Deserialize)]
struct KernelMember {
    map_type: String,
    distance: u32,
    distance_is_lower_bound: bool,
    table: Option<String>,
}

impl Ours {
    /// Reads a document of `peerdma matrix --json`.
    ///
    /// # Errors
    ///
    /// A document of another form, which means that the command changed.
    pub(crate) fn read(document: &str) -> Result<Self, Failure> {
        let form = |what: String| Failure::Stopped(format!("peerdma matrix --json wrote {what}; its schema changed"));
        let document: Document =
            serde_json::from_str(document).map_err(|error| form(format!("what is no pairs document ({error})")))?;
        let address = |text: &str| text.parse::<PciAddr>().map_err(|_| form(format!("{text:?} for an address")));
        let mut ours = Self { answers: Vec::with_capacity(document.pairs.len()), table: None };
        for member in document.pairs {
            let word = member.kernel.map_type.as_str();
            let map_type = MapType::ALL.into_iter().find(|map_type| map_type.word() == word);
            if map_type.is_none() && word != "UNKNOWN" {
                return Err(form(format!("{word:?} for a map type")));
            }
            ours.table = member.kernel.table;
            ours.answers.push(Answer {
                pair: Pair { provider: address(&member.target)?, client: address(&member.initiator)? },
                map_type,
                distance: member.kernel.distance,
                distance_is_lower_bound: member.kernel.distance_is_lower_bound,
            });
        }
        Ok(ours)
    }
}

/// Asks the `peerdma` program about a capture; `functions` are asked about by address
/// where the scope is everything.
///
/// # Errors
///
/// The program failed, or wrote another form.
pub(crate) fn decide(
    peerdma: &Path,
    capture: &Path,
    scope: Scope,
    functions: impl Iterator<Item = PciAddr>,
) -> Result<Ours, Failure> {
    let mut command = bound(&peerdma.to_string_lossy());
    command.args(["matrix", "--json", "--from"]).arg(capture);
    match scope {
        Scope::Devices => command.arg("--all"),
        Scope::Everything => command.args(functions.map(|address| address.to_string())),
    };
    Ours::read(&output(command, "ask peerdma about a guest's capture")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_type_of_no_known_word_is_an_error_and_not_unknown() {
        let document = |word: &str| {
            format!(
                r#"{{"schema":1,"pairs":[{{"initiator":"0000:08:00.1","target":"0000:08:00.0","verdict":"refused",
                "kernel":{{"map_type":"{word}","distance":2,"distance_is_lower_bound":false,"table":"7.3"}}}}]}}"#
            )
        };
        let known = Ours::read(&document("NOT_SUPPORTED")).unwrap();
        assert_eq!((known.answers[0].map_type, known.table.as_deref()), (Some(MapType::NotSupported), Some("7.3")));
        assert_eq!(known.answers[0].pair.to_string(), "0000:08:00.1 to 0000:08:00.0");
        assert_eq!(Ours::read(&document("UNKNOWN")).unwrap().answers[0].map_type, None);
        assert!(Ours::read(&document("MAYBE")).is_err());
        assert!(Ours::read("{}").is_err());
    }
}
