//! `docs/states.md` holds what the tables here hold.

use super::table::words;
use super::{DISTURBANCES, Phase, TRANSITIONS, Trigger};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

const DOCUMENT: &str = include_str!("../../../../../docs/states.md");

/// The lines below a heading, up to the next one, that begin with `mark`.
fn lines_of(heading: &str, mark: &str) -> Vec<String> {
    let mut section = DOCUMENT.lines().skip_while(|line| *line != heading).skip(1);
    let lines = section.by_ref().take_while(|line| !line.starts_with("## "));
    lines.filter(|line| line.starts_with(mark)).map(String::from).collect()
}

fn held(heading: &str, mark: &str, rows: Vec<String>) {
    assert_eq!(lines_of(heading, mark), rows, "below {heading:?} docs/states.md should hold:\n{}", rows.join("\n"));
}

#[test]
fn the_documentation_holds_the_phases() {
    let rows = Phase::ALL.iter().map(|phase| format!("| `{phase}` | {} |", phase.meaning()));
    held("## Phases", "| `", rows.collect());
}

#[test]
fn the_documentation_holds_the_disturbances() {
    let rows = DISTURBANCES.iter().map(|about| {
        let in_the_way = if about.spares_revocable { "yes" } else { "no" };
        let (duration, pinned, contents) = (about.duration.word(), about.pinned.word(), about.contents.word());
        format!("| `{}` | {} | {duration} | {pinned} | {in_the_way} | {contents} |", about.word, about.what)
    });
    held("## Disturbances", "| `", rows.collect());
}

#[test]
fn the_documentation_holds_the_transitions() {
    let rows =
        TRANSITIONS.iter().map(|row| format!("| `{}` | {} | `{}` | {} |", row.from, row.triggers(), row.to, row.why));
    held("## Transitions", "| `", rows.collect());
}

/// Each arrow once, with everything that takes it.
#[test]
fn the_diagram_is_the_changes_among_the_transitions() {
    let mut arrows: BTreeMap<(Phase, Phase), Vec<Trigger>> = BTreeMap::new();
    for row in TRANSITIONS.iter().filter(|row| row.is_change()) {
        arrows.entry((row.from, row.to)).or_default().extend(row.on);
    }
    let mut lines = vec![
        String::from("    [*] --> live"),
        String::from("    [*] --> revoked: born of memory that does not answer"),
    ];
    lines.extend(arrows.iter().map(|((from, to), on)| format!("    {from} --> {to}: {}", words(on))));
    held("## Diagram", "    ", lines);
}
