//! The text of `trace`.

use super::{Known, Sent, kind_word};
use crate::commands::emulated::Booted;
use crate::commands::route;
use crate::document::fate_word;
use crate::exit::Failure;
use crate::output;
use peerdma::dma::DeviceAddress;
use peerdma::route::Verdict;
use peerdma::route::fabric::{Fate, Kind};
use std::io::Write;

pub(super) fn print(
    booted: &Booted,
    kind: Kind,
    known: &Known<'_>,
    sent: &Sent,
    fate: Option<Fate>,
    agrees: Option<bool>,
) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    let heading = output::heading();
    let topology = booted.kernel.topology();
    let from = booted.called(sent.from);
    match &known.pair {
        Some(pair) => {
            let to = route::naming(topology, pair.target.function());
            let range = route::range_words(crate::select::Asked { target: pair.target, bar_is_named: true });
            writeln!(out, "{heading}{} {from} -> {to}{heading:#}", kind_word(kind))?;
            if let Some(range) = range {
                writeln!(out, "  target     {}", range.split(';').next().unwrap_or_default())?;
            }
            let style = output::style(pair.verdict);
            writeln!(out, "  verdict    {style}{}{style:#}: {}", pair.verdict, route::verdict_words(pair))?;
            writeln!(out, "  access     this {}: {}", kind_word(kind), known.permission)?;
            if pair.verdict == Verdict::Refused || pair.verdict == Verdict::Unknown {
                route::write_reasons(&mut out, "why", &known.judge.reasons(pair))?;
            }
        }
        None => writeln!(out, "{heading}{} {from} -> RAM{heading:#}", kind_word(kind))?,
    }
    let address = match sent.address {
        DeviceAddress::Bus { .. } => "bus address",
        DeviceAddress::Iova(_) => "IOVA",
        DeviceAddress::CpuPhysical(_) => "CPU-physical address",
    };
    let asked = if sent.asked { "" } else { ", which nobody was asked about (as dma_map_resource does)" };
    writeln!(out, "  address    {address} {:#x}{asked}", sent.address.as_u64())?;
    for request in &sent.requests {
        for (index, hop) in request.hops.iter().enumerate() {
            let title = if index == 0 { format!("request {}", request.number) } else { String::new() };
            writeln!(out, "  {title:<10} {}", hop.text)?;
        }
    }
    if sent.requests.is_empty() {
        let told = sent.told.map_or_else(String::new, |told| format!(": {told}"));
        writeln!(out, "  request    nothing was sent{told}")?;
    }
    let (word, verdict) = if sent.arrived() { ("arrived", Verdict::Direct) } else { ("lost", Verdict::Refused) };
    let style = output::style(verdict);
    writeln!(out, "  outcome    {style}{word}{style:#}{}", outcome(kind, sent))?;
    if let Some(fate) = fate {
        let agreement = match agrees {
            Some(true) => ", and so it came",
            Some(false) => ", and it came otherwise",
            None => ", so that nothing was foretold",
        };
        writeln!(out, "  foretold   {}{agreement}", fate_word(fate))?;
    }
    Ok(())
}

/// What the requester knows of it.
fn outcome(kind: Kind, sent: &Sent) -> &'static str {
    match (kind, sent.arrived(), sent.told.is_some()) {
        (Kind::Write, true, _) => ", which no requester of a posted write is told",
        (Kind::Write, false, false) => ", and nobody tells the requester",
        (_, true, _) => ", and the answer came back",
        (_, false, true) => ", and the requester was told",
        (_, false, false) => ", and the requester was told nothing of it: it takes what came for data",
    }
}
