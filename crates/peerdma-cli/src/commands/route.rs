//! `peerdma route`: one pair, explained in both directions.

use crate::args::RouteArguments;
use crate::document::{Pair, PairsDocument, SCHEMA, Source, StepDocument};
use crate::exit::{Exit, Failure};
use crate::input::{self, Loaded};
use crate::output;
use crate::select::{self, TargetRange};
use peerdma::pcie::Fact;
use peerdma::pcie::acs::AcsBits;
use peerdma::route::Verdict;
use peerdma::route::acs_boot::{AcsParameters, Before, DecidedBy};
use peerdma::route::kernel_view::{Common, Decision, KernelView, TableChoice};
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
    let (Some(from), Some(to)) = (&arguments.from_function, &arguments.to_function) else {
        return Err(Failure::usage("route needs FROM and TO, such as peerdma route mlx5_0 0000:41:00.0/bar1"));
    };
    let loaded = input::load(&arguments.input)?;
    let initiator = select::function(&loaded.topology, from)?;
    let (target, range) = select::target(&loaded.topology, to)?;
    let view = KernelView::new(&loaded.topology);
    // Linux calls the target's owner the provider and the initiator the client.
    let there = view.decide(target, initiator);
    let back = view.decide(initiator, target);
    let print_both = || {
        output::notes(&loaded.notes)?;
        print(&loaded, &view, &there, range.as_ref())?;
        writeln!(anstream::stdout().lock())?;
        print(&loaded, &view, &back, None)
    };
    let printed = if arguments.output.json {
        let pair = |decision: &Decision, range| {
            Pair::new(&view, decision).explained(path(&view, decision), range, boot_notes(&loaded.topology, decision))
        };
        let pairs = vec![pair(&there, range.as_ref()), pair(&back, None)];
        output::json(&PairsDocument { schema: SCHEMA, source: Source::new(&loaded), pairs })
    } else {
        print_both()
    };
    output::concluded(Exit::judge([Verdict::from(there.map_type)]), printed)
}

fn print(
    loaded: &Loaded,
    view: &KernelView<'_>,
    decision: &Decision,
    range: Option<&TargetRange>,
) -> Result<(), Failure> {
    let topology = &loaded.topology;
    let mut out = anstream::stdout().lock();
    let heading = output::heading();
    let verdict = Verdict::from(decision.map_type);
    let style = output::style(verdict);
    writeln!(
        out,
        "{heading}{} -> {}{heading:#}",
        naming(topology, decision.client),
        naming(topology, decision.provider)
    )?;
    if let Some(range) = range {
        writeln!(out, "  target     {}", range_words(range))?;
    }
    let hops = if decision.hidden_below.is_empty() { "" } else { "at least " };
    writeln!(out, "  verdict    {style}{verdict}{style:#}: {}", meaning(verdict))?;
    writeln!(out, "  Linux      {}, distance {hops}{}, {}", decision.map_type, decision.distance, rules(loaded, view))?;
    let steps = path(view, decision);
    if steps.is_empty() {
        writeln!(out, "  path       no common device below the root; ACS does not matter")?;
    }
    for (index, step) in steps.iter().enumerate() {
        let title = if index == 0 { "path" } else { "" };
        writeln!(out, "  {title:<10} {:<9} {} {}", step.role, step.function, step.evidence)?;
    }
    print_reasons(&mut out, view, decision)?;
    for (index, note) in boot_notes(topology, decision).iter().enumerate() {
        let title = if index == 0 { "boot" } else { "" };
        writeln!(out, "  {title:<10} {note}")?;
    }
    Ok(())
}

/// Why, in the order in which Linux meets it, and what would change it.
pub(super) fn print_reasons(out: &mut impl Write, view: &KernelView<'_>, decision: &Decision) -> std::io::Result<()> {
    // Several ports share one remedy; it is said once, after the last of them.
    let reasons = view.reasons(decision);
    for (index, reason) in reasons.iter().enumerate() {
        let title = if index == 0 { "why" } else { "" };
        let object = if reason.object == reason.gate.code() { String::new() } else { format!(" {}", reason.object) };
        writeln!(out, "  {title:<10} {}{object}: {}", reason.gate, reason.evidence)?;
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

fn range_words(range: &TargetRange) -> String {
    let mut words = format!("bar{}", range.bar);
    match range.len {
        Some(len) => words.push_str(&format!(" {len} from offset {:#x}", range.offset.as_u64())),
        None => words.push_str(&format!(" from offset {:#x}, size not told", range.offset.as_u64())),
    }
    if let Some(cpu) = range.cpu {
        words.push_str(&format!(", CPU {cpu}"));
    }
    if let Some(bus) = range.bus {
        words.push_str(&format!(", bus {bus}"));
    }
    words.push_str("; the route is the same for every range of the function, however small");
    words
}

/// Every function whose ACS Linux looks at, in its order.
pub(super) fn path(view: &KernelView<'_>, decision: &Decision) -> Vec<StepDocument> {
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
