//! The documentation's tables are this code's data.

use super::*;
use std::fmt::Write;

/// Every table of the document, made from the data.
fn tables() -> String {
    let mut out = String::new();
    for kind in KINDS {
        let sender = match kind.sender {
            Sender::Exporter => "exporter",
            Sender::Importer => "importer",
            Sender::Both => "either side",
        };
        let channel = match kind.channel {
            Channel::Connection => "connection",
            Channel::Control => "control",
            Channel::Either => "connection or control",
        };
        let meaning = kind.meaning.trim();
        let _ = writeln!(out, "### `{}` ({}), {sender}, {channel}\n\n{meaning}\n", kind.word, kind.number);
        if kind.fields.is_empty() {
            continue;
        }
        let _ = writeln!(out, "| at | bytes | field | sort | says |\n|---|---|---|---|---|");
        let mut at = Some(HEADER_LEN);
        for field in kind.fields {
            let place = at.map_or_else(|| "next".to_string(), |at| at.to_string());
            let shape = field.shape;
            let len = match shape.shortest == shape.longest {
                true => shape.longest.to_string(),
                false => format!("{} to {}", shape.shortest, shape.longest),
            };
            let _ = writeln!(out, "| {place} | {len} | `{}` | {} | {} |", field.name, shape.name, field.meaning.trim());
            at = at.filter(|_| shape.shortest == shape.longest).map(|at| at + shape.longest);
        }
        out.push('\n');
    }
    let _ = writeln!(out, "## Numbers\n\n| sort | number | word |\n|---|---|---|");
    for coded in CODES {
        for code in coded.codes {
            let _ = writeln!(out, "| {} | {} | `{}` |", coded.name, code.number, code.word);
        }
    }
    out
}

#[test]
fn the_tables_in_the_documentation_are_this_data() {
    let document = include_str!("../../../../../../docs/protocol.md");
    let tables = tables();
    assert!(document.contains(&tables), "docs/protocol.md should hold:\n{tables}");
}

#[test]
fn the_bounds_in_the_documentation_are_these() {
    let document = include_str!("../../../../../../docs/protocol.md");
    for (bound, what) in [
        (MAX_LEN, "bytes in a message"),
        (super::super::session::REQUESTS_MAX, "requests unanswered"),
        (OUTBOX_MAX, "answers unread"),
        (UNANSWERED_MAX, "notices unanswered"),
        (MAPPINGS_MAX as usize, "mappings"),
    ] {
        assert!(document.contains(&format!("| {what} | {bound} |")), "{what}");
    }
}
