//! Writing: JSON in one piece or streamed, and the colours of verdicts.

use crate::document::{Pair, SCHEMA, Source};
use crate::exit::{Exit, Failure};
use anstyle::{AnsiColor, Style};
use peerdma::route::Verdict;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::Serialize;
use std::io::{self, BufWriter, Write};

/// How a command ends that came to `exit` and then tried to print its answer.
///
/// A reader of a pipe that has gone, as `head` goes, changes nothing about the answer: scripts
/// that look at the exit code alone get the same one however much is read.
pub(crate) fn concluded(exit: Exit, printed: Result<(), Failure>) -> Result<Exit, Failure> {
    match printed {
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(exit),
        printed => printed.map(|()| exit),
    }
}

/// Writes a document in one piece.
pub(crate) fn json(document: &impl Serialize) -> Result<(), Failure> {
    let mut out = BufWriter::new(io::stdout().lock());
    serde_json::to_writer_pretty(&mut out, document)?;
    writeln!(out)?;
    Ok(out.flush()?)
}

/// Writes the schema of a document.
pub(crate) fn schema<D: JsonSchema>() -> Result<(), Failure> {
    // The documents are written, never read: what is always written is required.
    json(&SchemaSettings::default().for_serialize().into_generator().into_root_schema_for::<D>())
}

/// Writes a document of pairs one pair at a time, so that memory does not grow with
/// their number. Same form as [`crate::document::PairsDocument`].
pub(crate) fn stream_pairs(source: &Source, pairs: impl Iterator<Item = Pair>) -> Result<(), Failure> {
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    write!(out, "{{\"schema\":{SCHEMA},\"source\":")?;
    serde_json::to_writer(&mut out, source)?;
    out.write_all(b",\"pairs\":[")?;
    let mut separator: &[u8] = b"\n";
    for pair in pairs {
        out.write_all(separator)?;
        serde_json::to_writer(&mut out, &pair)?;
        separator = b",\n";
    }
    out.write_all(b"\n]}\n")?;
    Ok(out.flush()?)
}

/// The colour of a verdict.
pub(crate) fn style(verdict: Verdict) -> Style {
    match verdict {
        Verdict::Direct => AnsiColor::Green.on_default(),
        Verdict::HostBridge => AnsiColor::Cyan.on_default(),
        Verdict::Refused => AnsiColor::Red.on_default(),
        Verdict::Unknown => AnsiColor::Yellow.on_default(),
    }
}

/// Words that nobody cleaned, for one line of a terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// The style of headings.
pub(crate) fn heading() -> Style {
    Style::new().bold()
}

/// The style of what is worth a second look.
pub(crate) fn warning() -> Style {
    AnsiColor::Yellow.on_default().bold()
}

/// Writes a table whose columns are as wide as their longest cell, headings first.
pub(crate) fn columns(out: &mut impl Write, heads: &[&str], rows: &[Vec<String>]) -> Result<(), Failure> {
    let width = |at: usize| {
        let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count());
        cells.chain(heads.get(at).map(|head| head.len())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        padded.join("  ").trim_end().to_string()
    };
    let style = heading();
    writeln!(out, "{style}{}{style:#}", line(&mut heads.iter().copied()))?;
    for row in rows {
        writeln!(out, "{}", line(&mut row.iter().map(String::as_str)))?;
    }
    Ok(())
}

/// Prints notes about the input on standard error, so that they reach the reader of
/// JSON's consumer too without breaking it.
pub(crate) fn notes(notes: &[String]) -> Result<(), Failure> {
    let mut out = anstream::stderr().lock();
    for note in notes {
        writeln!(out, "note: {note}")?;
    }
    Ok(())
}
