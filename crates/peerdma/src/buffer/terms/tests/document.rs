//! The tables of the documentation, which are the data.

use super::super::*;

const DOCUMENT: &str = include_str!("../../../../../../docs/lifetimes.md");

/// Rows of the documentation after this head, up to the next line that is none.
fn rows(head: &str) -> Vec<&'static str> {
    let after = DOCUMENT.lines().skip_while(|line| *line != head).skip(2);
    after.take_while(|line| line.starts_with('|')).collect()
}

#[test]
fn the_table_of_lifetimes_in_the_documentation_is_this_data() {
    let row = |stays: Stays| {
        let cells = Lifetime::ALL.map(|takes| format!(" {} |", lifetime(stays, takes)));
        format!("| {stays} |{}", cells.concat())
    };
    let table: Vec<String> = Stays::ALL.into_iter().map(row).collect();
    let found = rows("| memory | pinned | revocable | movable |");
    assert_eq!(found, table, "docs/lifetimes.md should hold:\n{}", table.join("\n"));
}

#[test]
fn the_rules_in_the_documentation_are_this_data() {
    let row = |about: &AboutRule| format!("| `{}` | {} | {} |", about.word, about.sentence, about.fix);
    let table: Vec<String> = RULES.iter().map(row).collect();
    let found = rows("| rule | what it says | what to do |");
    assert_eq!(found, table, "docs/lifetimes.md should hold:\n{}", table.join("\n"));
}
