//! `peerdma route`: one pair, explained in both directions.

use crate::args::RouteArguments;
use crate::document::{Pair, PairsDocument, SCHEMA, Source, StepDocument, fate_word};
use crate::exit::{Exit, Failure};
use crate::input::{self, Loaded};
use crate::output;
use crate::select::{self, Asked};
use peerdma::addr::Bytes;
use peerdma::pcie::Fact;
use peerdma::pcie::acs::AcsBits;
use peerdma::route::acs_boot::{AcsParameters, Before, DecidedBy};
use peerdma::route::fabric::{Handed, Passage, Way};
use peerdma::route::kernel_view::{Common, Decision, KernelView, MapType, TableChoice};
use peerdma::route::knowledge;
use peerdma::route::payload;
use peerdma::route::{Gate, Judge, PairVerdict, Reason, Target, Verdict};
use peerdma::topology::{FunctionId, Topology};
use std::io::Write;

pub(crate) fn run(arguments: &RouteArguments) -> Result<Exit, Failure> {
    if arguments.output.schema {
        output::schema::<PairsDocument>()?;
        return Ok(Exit::Done);
    }
    if input::platform_help(&arguments.input)? {
        return Ok(Exit::Done);
    }
    let (Some(from), Some(to)) = (&arguments.pair.from_function, &arguments.pair.to_function) else {
        return Err(Failure::usage("route needs FROM and TO, such as peerdma route mlx5_0 0000:41:00.0/bar1"));
    };
    let loaded = input::load(&arguments.input)?;
    let initiator = select::function(&loaded.topology, from)?;
    let there_target = select::target(&loaded.topology, to)?;
    let target = there_target.target.function();
    let back_target = Asked { target: Target::largest_bar(&loaded.topology, initiator), bar_is_named: false };
    let judge = Judge::new(&loaded.topology);
    let there = judge.judge(initiator, &there_target.target);
    let back = judge.judge(target, &back_target.target);
    let print_both = || {
        output::notes(&loaded.notes)?;
        print(&loaded, &judge, &there, there_target)?;
        writeln!(anstream::stdout().lock())?;
        print(&loaded, &judge, &back, back_target)
    };
    let printed = if arguments.output.json {
        let pair = |pair: &PairVerdict| explained(&judge, pair, boot_notes(&loaded.topology, &pair.kernel));
        let pairs = vec![pair(&there), pair(&back)];
        output::json(&PairsDocument { schema: SCHEMA, source: Source::new(&loaded), pairs })
    } else {
        print_both()
    };
    output::concluded(Exit::judge([there.permits(arguments.pair.need.into())]), printed)
}

fn print(loaded: &Loaded, judge: &Judge<'_>, pair: &PairVerdict, asked: Asked) -> Result<(), Failure> {
    let (topology, view, decision) = (&loaded.topology, judge.kernel(), &pair.kernel);
    let mut out = anstream::stdout().lock();
    let heading = output::heading();
    let verdict = pair.verdict;
    let style = output::style(verdict);
    writeln!(
        out,
        "{heading}{} -> {}{heading:#}",
        naming(topology, decision.client),
        naming(topology, decision.provider)
    )?;
    if let Some(words) = range_words(asked) {
        writeln!(out, "  target     {words}")?;
    }
    writeln!(out, "  verdict    {style}{verdict}{style:#}: {}", verdict_words(pair))?;
    writeln!(out, "  access     read {}, write {}, atomic {}", pair.read, pair.write, pair.atomic)?;
    match pair.wrong_address() {
        Some(wrong) => writeln!(out, "  address    {}; {wrong}", pair.address)?,
        None => writeln!(out, "  address    {}", pair.address)?,
    }
    let hops = if decision.hidden_below.is_empty() { "" } else { "at least " };
    writeln!(out, "  Linux      {}, distance {hops}{}, {}", decision.map_type, decision.distance, rules(loaded, view))?;
    writeln!(out, "  hardware   {}", hardware_words(pair))?;
    if let Some(difference) = pair.difference {
        let warning = output::warning();
        writeln!(out, "  {warning}they differ{warning:#} {difference}")?;
    }
    let steps = path(view, decision);
    if steps.is_empty() {
        writeln!(out, "  path       no common device below the root; ACS does not matter to Linux")?;
    }
    for (index, step) in steps.iter().enumerate() {
        let title = if index == 0 { "path" } else { "" };
        writeln!(out, "  {title:<10} {:<9} {} {}", step.role, step.function, step.evidence)?;
    }
    write_reasons(&mut out, "why", &judge.reasons(pair))?;
    lines(&mut out, "sizes", &transfer_words(judge, pair))?;
    lines(&mut out, "boot", &boot_notes(topology, decision))?;
    write_reasons(&mut out, "assumed", &judge.assumed(pair))?;
    let known = knowledge::about(topology, pair.initiator, pair.target.function());
    let known: Vec<String> = known.iter().map(|entry| format!("{} ({})", entry.what, entry.source)).collect();
    lines(&mut out, "known", &known)?;
    Ok(())
}

/// Lines below one title.
fn lines(out: &mut impl Write, title: &str, lines: &[String]) -> std::io::Result<()> {
    for (index, line) in lines.iter().enumerate() {
        let title = if index == 0 { title } else { "" };
        writeln!(out, "  {title:<10} {line}")?;
    }
    Ok(())
}

/// The verdict's meaning, for refusals with who refuses.
pub(super) fn verdict_words(pair: &PairVerdict) -> &'static str {
    match pair.verdict {
        Verdict::Refused if pair.kernel.map_type == MapType::NotSupported => "Linux refuses to map it",
        Verdict::Refused if pair.too_narrow.is_some() => "the initiator cannot form the address",
        Verdict::Refused => "the hardware loses reads and writes",
        Verdict::HostBridge if pair.on_request.is_some() => {
            "up to the host bridge and down again, for VFIO hands out IOVAs; the direct route is there on request"
        }
        verdict => meaning(verdict),
    }
}

/// What becomes of requests that carry the route's address.
fn hardware_words(pair: &PairVerdict) -> String {
    let words = |what: &str, passage: &Passage| {
        let way = match passage.way {
            Some(Way::BelowRoot) => " below the root",
            Some(Way::RootComplex) => " through the root complex",
            None => "",
        };
        format!("{what} {}{way}", fate_word(passage.fate))
    };
    let with = |passage: &Passage| match passage.handed {
        Handed::Bus => "with the bus address",
        Handed::Iova => "with an IOVA",
        Handed::CpuPhysical => "with the CPU-physical address",
        Handed::Translated => "with a translated address",
    };
    let (write, read) = (&pair.fabric_write, &pair.fabric_read);
    let mut all = format!("{}: {}, ", with(write), words("write", write));
    // While the route is not known, each is followed with the address of which more arrives.
    if read.handed != write.handed {
        all.push_str(&format!("{}: ", with(read)));
    }
    all.push_str(&words("read", read));
    for (title, passages) in [("bus addresses on request", &pair.on_request), ("translated by ATS", &pair.translated)] {
        if let Some([write, read]) = passages {
            all.push_str(&format!("; {title}: {}, {}", words("write", write), words("read", read)));
        }
    }
    all
}

/// Sizes of packets, ordering, the narrowest link.
fn transfer_words(judge: &Judge<'_>, pair: &PairVerdict) -> Vec<String> {
    let topology = judge.topology();
    let express = |id: FunctionId| payload::in_force(topology, id);
    let initiator = express(pair.initiator);
    let size = |size: Option<Bytes>| size.map_or_else(|| "not read".to_string(), |size| size.to_string());
    let mut words = Vec::new();
    let target_payload = express(pair.target.function()).max_payload;
    if initiator.max_payload.is_some() || target_payload.is_some() {
        let mut line = format!(
            "payload: writes up to {}, completions of reads up to {}, read requests up to {}",
            size(initiator.max_payload),
            size(target_payload),
            size(initiator.max_read_request)
        );
        let marks = [(initiator.relaxed_ordering, "relaxed ordering"), (initiator.no_snoop, "no-snoop")];
        for (enabled, name) in marks {
            if let Some(enabled) = enabled {
                line.push_str(&format!(", {name} {}", if enabled { "enabled" } else { "off" }));
            }
        }
        words.push(line);
    }
    if let Some(link) = pair.payload.narrowest {
        let address = topology.function(link.function).address();
        words.push(format!("narrowest link told: {} x{} at {address}", link.speed, link.width));
    }
    words
}

/// Why Linux decides so, in its order, and what would change it.
pub(super) fn print_reasons(out: &mut impl Write, view: &KernelView<'_>, decision: &Decision) -> std::io::Result<()> {
    write_reasons(out, "why", &view.reasons(decision))
}

/// Reasons below one title, each with what would change it.
pub(super) fn write_reasons(out: &mut impl Write, title: &str, reasons: &[Reason]) -> std::io::Result<()> {
    // Several ports share one remedy; it is said once, after the last of them.
    for (index, reason) in reasons.iter().enumerate() {
        let title = if index == 0 { title } else { "" };
        let repeats = reason.object.replace(' ', "_") == reason.gate.code();
        let object = if repeats { String::new() } else { format!(" {}", reason.object) };
        if reason.gate == Gate::Assumed {
            // The title says it already.
            writeln!(out, "  {title:<10}{object}: {}", reason.evidence)?;
        } else {
            writeln!(out, "  {title:<10} {}{object}: {}", reason.gate, reason.evidence)?;
        }
        let next = reasons.get(index + 1).and_then(|next| next.fix.as_ref());
        if let Some(fix) = reason.fix.as_ref().filter(|fix| next != Some(fix)) {
            writeln!(out, "  {:<10}   fix: {fix}", "")?;
        }
    }
    Ok(())
}

pub(super) fn naming(topology: &Topology, id: FunctionId) -> String {
    let info = topology.function(id).info();
    let mut words = info.address.to_string();
    if let Some(name) = info.names.first() {
        words.push_str(&format!(" {name}"));
    }
    if let Some(label) = &info.label {
        words.push_str(&format!(" ({label})"));
    }
    words
}

pub(super) fn meaning(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Direct => "below the root, through switches, with bus addresses",
        Verdict::HostBridge => "up to the host bridge and down again",
        Verdict::Refused => "Linux refuses to map it",
        Verdict::Unknown => "the input cannot tell",
    }
}

fn rules(loaded: &Loaded, view: &KernelView<'_>) -> String {
    let rules = match view.tables() {
        TableChoice::Exact(table) => format!("rules of {table}"),
        TableChoice::NewestAssumed(table) => format!("rules of {table} (newest known; give --kernel for another)"),
        TableChoice::NewerThanNewest(table) => format!("rules of {table} (newest known; the kernel is newer)"),
        TableChoice::Between(older, newer) => format!("rules of {older} or {newer} (the kernel lies between)"),
        TableChoice::OlderThanOldest(table) => format!("rules of before {table} (not known)"),
    };
    let config = match loaded.topology.machine().p2pdma_configured {
        Fact::Known(true) => "CONFIG_PCI_P2PDMA=y read",
        Fact::Known(false) => "CONFIG_PCI_P2PDMA=n read",
        Fact::Unknown => "CONFIG_PCI_P2PDMA=y assumed",
    };
    format!("{rules}, {config}")
}

pub(super) fn range_words(asked: Asked) -> Option<String> {
    let target = asked.target;
    let mut words = format!("bar{}", target.bar()?);
    match target.len() {
        Some(len) => words.push_str(&format!(" {len} from offset {:#x}", target.offset().as_u64())),
        None => words.push_str(&format!(" from offset {:#x}, size not told", target.offset().as_u64())),
    }
    if let Some(cpu) = target.cpu() {
        words.push_str(&format!(", CPU {cpu}"));
    }
    if let Some(bus) = target.bus() {
        words.push_str(&format!(", bus {bus}"));
    }
    words.push_str(if asked.bar_is_named {
        "; the route is the same for every range of the function, however small"
    } else {
        "; the largest BAR, name another with /barN"
    });
    Some(words)
}

/// A pair with all that is told of it, `boot` being what kernel parameters of ACS would do to it.
pub(super) fn explained(judge: &Judge<'_>, pair: &PairVerdict, boot: Vec<String>) -> Pair {
    Pair::new(judge, pair).explained(judge, pair, path(judge.kernel(), &pair.kernel), boot)
}

/// Every function whose ACS Linux looks at, in its order.
fn path(view: &KernelView<'_>, decision: &Decision) -> Vec<StepDocument> {
    let common = match decision.common {
        Common::At(function) | Common::AtOrBelow(function) => Some(function),
        Common::Nowhere | Common::Unknown => None,
    };
    decision
        .walked
        .iter()
        .map(|walked| StepDocument {
            function: view.topology().function(walked.function).address().to_string(),
            role: if walked.function == decision.provider {
                "target"
            } else if walked.function == decision.client {
                "initiator"
            } else if Some(walked.function) == common {
                "common"
            } else {
                "port"
            },
            redirects: walked.redirects.known(),
            evidence: view.acs_evidence(walked.function),
        })
        .collect()
}

/// What the command line's `pci=` parameters say about ports on the way.
///
/// The firmware's word is not known any more, so only the bits that a parameter
/// forces are predicted and compared with what is there now.
fn boot_notes(topology: &Topology, decision: &Decision) -> Vec<String> {
    let Some(line) = &topology.machine().command_line else { return Vec::new() };
    let parameters = AcsParameters::from_command_line(line);
    if !parameters.names_ports() {
        return Vec::new();
    }
    let note = |function: FunctionId| -> Option<String> {
        let function_info = topology.function(function).info();
        let registers = function_info.registers.acs.registers()?;
        let now = registers.control.known()?;
        let before =
            |firmware| Before { capability: registers.capability, firmware, iommu_requested: false, external: false };
        // Bits that come out the same whatever the firmware left are the forced ones.
        let from_clear = parameters.predict(topology, function, before(AcsBits::empty()));
        let from_set = parameters.predict(topology, function, before(AcsBits::from_bits_retain(0x7f)));
        let forced = !(from_clear.control ^ from_set.control) & AcsBits::from_bits_retain(0x7f);
        let element = match &from_clear.decided_by {
            DecidedBy::Kernel => return None,
            DecidedBy::DisableAcsRedir(element) => format!("pci=disable_acs_redir={element}"),
            DecidedBy::ConfigAcs(element) => format!("pci=config_acs={element}"),
        };
        let as_forced = (now ^ from_clear.control) & forced == AcsBits::empty();
        let address = function_info.address;
        Some(if as_forced {
            format!("{element} matches {address} and took: {now} = {:#06x}", now.bits())
        } else {
            format!(
                "{element} matches {address} but did not last: it forces {:#06x} of the bits {:#06x}, the register holds {:#06x}",
                from_clear.control.bits() & forced.bits(),
                forced.bits(),
                now.bits()
            )
        })
    };
    decision.walked.iter().filter_map(|walked| note(walked.function)).collect()
}
