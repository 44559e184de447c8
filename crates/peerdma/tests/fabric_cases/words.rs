//! Outcomes in the words of the data file, and whether one is among those expected.

use crate::machine::Machine;
use peerdma::route::fabric::journey::{Ending, Outcome, Seen};

pub(crate) fn outcome(machine: &Machine, outcome: &Outcome) -> String {
    let at = |word: &str, port| format!("{word}@{}", machine.name(port));
    let end = match outcome.end {
        Ending::Function(to) if outcome.through_root => machine.name(to).into(),
        Ending::Function(to) => format!("DIRECT({})", machine.name(to)),
        Ending::Memory => "RAM".into(),
        Ending::Interrupt => "INTERRUPT".into(),
        Ending::Translation => "TRANSLATION".into(),
        Ending::Fault => "FAULT".into(),
        Ending::Dropped => "DROPPED".into(),
        Ending::NotIssued => "NOT-ISSUED".into(),
        Ending::Violation(port) => at("ACSV", port),
        Ending::Unsupported(port) => at("UR", port),
        Ending::EgressBlocked(port) => at("EGB", port),
        Ending::Malformed(port) => at("MALF", port),
        Ending::Undefined(port) => at("UNDEF", port),
        Ending::Unexpected(port) => at("UNEXPECTED", port),
        Ending::NotStated(port) => at("NOT-STATED", port),
    };
    match (outcome.through_root, outcome.translated) {
        (false, _) => end,
        (true, None) => format!("RC > {end}"),
        (true, Some(address)) => format!("RC > XLATE({address}) > {end}"),
    }
}

/// Whether one of the expected texts is this outcome, or its beginning.
pub(crate) fn is_among(machine: &Machine, text: &str, expected: &[String]) -> bool {
    expected.iter().any(|expected| match expected.split_once("@switch") {
        Some((word, "")) => text
            .strip_prefix(word)
            .and_then(|rest| rest.strip_prefix('@'))
            .is_some_and(|port| machine.is_outer_switch(port)),
        _ => text == expected || text.strip_prefix(expected.as_str()).is_some_and(|rest| rest.starts_with(" > ")),
    })
}

/// Whether the requester may be told this.
pub(crate) fn may_see(seen: Seen, expected: &[String]) -> bool {
    let word = match seen {
        Seen::Data => "data",
        Seen::CompleterAbort => "CA",
        Seen::UnsupportedRequest => "UR",
        Seen::Timeout => "CTO",
        Seen::AllOnes => "ones",
        Seen::Nothing => "nothing",
        // The view leaves open what the data leaves open.
        Seen::Unspecified => return expected.len() > 1,
    };
    expected.iter().any(|expected| expected == word)
}
