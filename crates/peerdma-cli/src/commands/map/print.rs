//! A plan as text.

use super::Answer;
use super::plan::{Outcome, Piece};
use super::refused::Refused;
use crate::commands::route::{naming, write_reasons};
use crate::document::whose::host_bridge;
use crate::exit::{Exit, Failure};
use crate::output;
use anstyle::{AnsiColor, Style};
use peerdma::addr::Bytes;
use peerdma::dma::{Behind, Bouncing, DeviceAddress, Interface, Span};
use std::io::Write;

/// Cells of a line of the table, after the chunk's number.
type Line = [String; 6];

const HEAD: [&str; 6] = ["chunk", "route", "address", "pages", "attributes", "segments"];

impl Answer<'_> {
    pub(super) fn print(&self) -> Result<(), Failure> {
        let mut out = anstream::stdout().lock();
        self.print_head(&mut out)?;
        self.print_table(&mut out)?;
        let (shown, warning) = (self.plan.exit(), output::warning());
        if let Some(iovas) = self.plan.iovas {
            writeln!(
                out,
                "  {:<10} {} from {}, this plan's own: another gets others",
                "IOVAs",
                iovas.len(),
                iovas.start()
            )?;
        }
        if let Some(tables) = self.plan.tables {
            let count = tables.count;
            writeln!(out, "  {:<10} {} in {count} {}", "tables", tables.bytes, plural(count as u64, "table"))?;
        }
        let segments = self.plan.segments;
        if segments > 0 {
            writeln!(out, "  {:<10} {} in {segments} {}", "mapped", self.plan.len(), plural(segments, "segment"))?;
        }
        for (index, span) in self.plan.spans.iter().enumerate() {
            writeln!(out, "  {:<10} [{index}] {} {}", "", self.address(span), attributes(span))?;
        }
        self.print_ring(&mut out)?;
        for (chunk, refused) in self.plan.refusals() {
            self.print_refusal(&mut out, chunk, refused)?;
        }
        if shown != Exit::Done && segments > 0 {
            let word = self.word();
            writeln!(
                out,
                "  {warning}{word:<10}{warning:#} the list as a whole; the addresses above are what its other chunks would get"
            )?;
        }
        Ok(())
    }

    fn print_head(&self, out: &mut impl Write) -> std::io::Result<()> {
        let (device, heading) = (self.device, output::heading());
        let chunks = self.plan.rows.len();
        let name = naming(&self.loaded.topology, device.function);
        writeln!(out, "{heading}{name} maps {chunks} {}{heading:#}", plural(chunks as u64, "chunk"))?;
        let mode = device.domain.mode.map_or("unknown".to_string(), |mode| mode.to_string());
        writeln!(out, "  {:<10} {mode}: {}", "iommu", device.domain.evidence)?;
        if let Some(tables) = &self.tables {
            writeln!(out, "  {:<10} {}: {}", "format", tables.name(), tables.evidence)?;
        }
        let mut words = format!("{} address bits, {}", device.mask.bits, device.mask.evidence);
        if let Some(initiator) = device.initiator.as_ref().filter(|_| device.mask.is_limited) {
            words.push_str(&format!(", and nothing above {:#x} is passed on", initiator.highest()));
        }
        let said = [
            (!device.coherent, "not coherent"),
            (!device.trusted, "not trusted"),
            (device.bouncing == Bouncing::Never, "takes no copies"),
            (device.bouncing == Bouncing::Forced, "takes copies only"),
        ];
        said.into_iter().filter(|(so, _)| *so).for_each(|(_, word)| words.push_str(&format!("; {word}")));
        if device.interface != Interface::Plain {
            words.push_str(&format!("; interface {}", device.interface));
        }
        writeln!(out, "  {:<10} {words}", "device")
    }

    fn print_table(&self, out: &mut impl Write) -> std::io::Result<()> {
        let lines: Vec<(Option<usize>, Style, Line)> =
            self.rows().flat_map(|(index, row)| self.lines(index, row)).collect();
        let mut widths = HEAD.map(str::len);
        for (_, _, line) in &lines {
            for (width, cell) in widths.iter_mut().zip(line) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let digits = (lines.len().max(1) - 1).to_string().len();
        let heading = output::heading();
        let pad = |cells: [&str; 6]| -> String {
            let cells = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_string()
        };
        writeln!(out, "  {:digits$}   {heading}{}{heading:#}", "", pad(HEAD))?;
        for (index, style, line) in &lines {
            let number = index.map_or(String::new(), |index| format!("[{index}]"));
            writeln!(
                out,
                "  {number:<width$} {style}{}{style:#}",
                pad(line.each_ref().map(String::as_str)),
                width = digits + 2
            )?;
        }
        Ok(())
    }

    /// The lines of a chunk: one a piece, the first with the chunk's own words.
    fn lines(&self, index: usize, outcome: &Outcome) -> Vec<(Option<usize>, Style, Line)> {
        let (label, route) = (self.label(index), self.plan.rows[index].route.to_string());
        let nothing = || "-".to_string();
        let (style, word) = match outcome {
            Outcome::Mapped(pieces) => {
                let line = |(nth, piece): (usize, &Piece)| {
                    let first = nth == 0;
                    let [label, route] = [&label, &route].map(|word| if first { word.clone() } else { String::new() });
                    let (address, segments) = (self.address(&piece.span), piece.segments.to_string());
                    let cells = [label, route, address, pages(piece), of_piece(piece), segments];
                    (first.then_some(index), Style::new(), cells)
                };
                return pieces.iter().enumerate().map(line).collect();
            }
            Outcome::Refused(refused) if refused.exit == Exit::Unknown => (output::warning(), "unknown"),
            Outcome::Refused(_) => (AnsiColor::Red.on_default(), "refused"),
            Outcome::NotPlaced => (Style::new(), "not placed"),
        };
        let access = self.resolved.wanted[index].prot.to_string();
        vec![(Some(index), style, [label, route, word.to_string(), nothing(), access, nothing()])]
    }

    /// Kind and range, with the host bridge below which a bus address means something.
    fn address(&self, span: &Span) -> String {
        let (kind, first) = (span.address.word(), span.address.as_u64());
        let last = first.saturating_add(span.len.as_u64() - 1);
        match span.address {
            DeviceAddress::Bus { bridge: Some(bridge), .. } => {
                format!("{kind} {first:#x}-{last:#x} below {}", host_bridge(&self.loaded.topology, bridge))
            }
            _ => format!("{kind} {first:#x}-{last:#x}"),
        }
    }

    fn print_ring(&self, out: &mut impl Write) -> std::io::Result<()> {
        let Some(ring) = &self.ring else { return Ok(()) };
        if ring.steps.is_nothing() {
            writeln!(
                out,
                "  {:<10} nothing has to happen before: the doorbell does not overtake the payload",
                "doorbell"
            )?;
        }
        for (nth, step) in ring.steps.iter().enumerate() {
            let title = if nth == 0 { "doorbell" } else { "" };
            writeln!(out, "  {title:<10} before it, {}: {} ({})", step.code(), step.sentence(), step.citation())?;
        }
        if ring.may_relax {
            writeln!(out, "  {:<10} that is for writes without Relaxed Ordering, which this device may ask for", "")?;
        }
        Ok(())
    }

    fn print_refusal(&self, out: &mut impl Write, chunk: Option<usize>, refused: &Refused) -> std::io::Result<()> {
        let style = if refused.exit == Exit::Unknown { output::warning() } else { AnsiColor::Red.on_default() };
        let subject = chunk.map_or(String::new(), |index| format!("[{index}] "));
        writeln!(out, "  {style}{:<10}{style:#} {subject}{}: {}", "why", refused.code, refused.what)?;
        write_reasons(out, "", &refused.reasons)
    }
}

fn plural(count: u64, word: &str) -> String {
    if count == 1 { word.to_string() } else { format!("{word}s") }
}

/// `3x2M 5x4K`, largest first.
fn pages(piece: &Piece) -> String {
    let pages: Vec<String> =
        piece.pages.iter().rev().map(|(size, count)| format!("{count}x{}", short(*size))).collect();
    if pages.is_empty() { "-".to_string() } else { pages.join(" ") }
}

/// A page size as people write it: `4K`, `2M`, `1G`.
fn short(size: Bytes) -> String {
    let size = size.as_u64();
    let units = [(40, "T"), (30, "G"), (20, "M"), (10, "K")];
    let unit = units.into_iter().find(|(shift, _)| size.is_multiple_of(1 << shift));
    unit.map_or(size.to_string(), |(shift, unit)| format!("{}{unit}", size >> shift))
}

/// Attributes, and what the tables' entries permit where they cannot say less.
fn of_piece(piece: &Piece) -> String {
    let words = attributes(&piece.span);
    match piece.entry {
        Some((prot, _)) if prot != piece.span.prot => format!("{words}, entries permit {prot}"),
        _ => words,
    }
}

fn attributes(span: &Span) -> String {
    let behind = match span.behind {
        Behind::Memory if span.snooped => "memory",
        Behind::Memory => "memory, not snooped",
        Behind::Mmio => "mmio",
    };
    let copy = if span.bounced { ", a copy" } else { "" };
    format!("{} {behind}{copy}", span.prot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_sizes_are_short() {
        let sizes = [1 << 12, 1 << 16, 1 << 21, 1 << 30, 1 << 39, 1 << 42];
        assert_eq!(sizes.map(|size| short(Bytes::new(size))), ["4K", "64K", "2M", "1G", "512G", "4T"]);
    }
}
