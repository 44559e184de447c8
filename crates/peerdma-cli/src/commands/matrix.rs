//! `peerdma matrix`: the verdict of every pair.

use crate::args::MatrixArguments;
use crate::document::{Pair, PairsDocument, Source};
use crate::exit::{Exit, Failure};
use crate::input::{self, Kind, Loaded};
use crate::progress::Progress;
use crate::{output, proximity, select};
use peerdma::pcie::Fact;
use peerdma::pcie::acs::{Acs, AcsUnread};
use peerdma::route::Verdict;
use peerdma::route::kernel_view::{Decision, KernelView, Representative, representative};
use peerdma::topology::{FunctionId, Topology};
use std::io::Write;

pub(crate) fn run(arguments: &MatrixArguments) -> Result<Exit, Failure> {
    if arguments.output.schema {
        output::schema::<PairsDocument>()?;
        return Ok(Exit::Done);
    }
    if input::platform_help(&arguments.input)? {
        return Ok(Exit::Done);
    }
    let loaded = input::load(&arguments.input)?;
    let functions = shown(&loaded.topology, arguments)?;
    // A machine without two such devices, a laptop or a container, still gets an answer.
    let nothing_to_pair =
        loaded.kind == Kind::Live && functions.len() < 2 && arguments.filters.is_empty() && !arguments.all;
    if nothing_to_pair && !arguments.output.json {
        return show_platform_instead(arguments, &loaded, functions.len());
    }
    show(arguments, &loaded, &functions)
}

fn shown(topology: &Topology, arguments: &MatrixArguments) -> Result<Vec<FunctionId>, Failure> {
    if !arguments.filters.is_empty() {
        return select::filtered(topology, &arguments.filters);
    }
    let admitted = |function: &peerdma::topology::Function| {
        if arguments.all { select::has_device_header(function.info()) } else { select::is_worth_pairing(function) }
    };
    Ok(topology.functions().filter(|(_, function)| admitted(function)).map(|(id, _)| id).collect())
}

fn show_platform_instead(arguments: &MatrixArguments, loaded: &Loaded, found: usize) -> Result<Exit, Failure> {
    const INSTEAD: &str = "two-socket";
    let mut out = anstream::stdout().lock();
    writeln!(
        out,
        "This machine has {} PCI functions, but {found} to pair (display, network, storage, accelerator); --all shows the rest.",
        loaded.topology.functions().len()
    )?;
    writeln!(out, "The described machine `--platform {INSTEAD}` instead:")?;
    writeln!(out)?;
    drop(out);
    let instead = input::load(&crate::args::InputArguments { platform: Some(INSTEAD.into()), ..Default::default() })?;
    let functions = shown(&instead.topology, arguments)?;
    show(arguments, &instead, &functions)?;
    // Nothing of this machine was judged.
    Ok(Exit::Done)
}

fn show(arguments: &MatrixArguments, loaded: &Loaded, functions: &[FunctionId]) -> Result<Exit, Failure> {
    let view = KernelView::new(&loaded.topology);
    let _progress = Progress::start("deciding pairs");
    // Pairs are shown as they are decided, so what they amount to is known only afterwards.
    let printed = print(arguments, loaded, &view, functions);
    if !arguments.check {
        return output::concluded(Exit::Done, printed);
    }
    let judged = pairs(functions).filter(|(initiator, target)| initiator != target);
    let exit = Exit::judge(judged.map(|(initiator, target)| view.decide(target, initiator).map_type.into()));
    output::concluded(exit, printed)
}

fn print(
    arguments: &MatrixArguments,
    loaded: &Loaded,
    view: &KernelView<'_>,
    functions: &[FunctionId],
) -> Result<(), Failure> {
    if arguments.output.json {
        let pairs = pairs(functions).map(|(initiator, target)| {
            let decision = view.decide(target, initiator);
            let pair = Pair::new(view, &decision);
            if arguments.proximity { pair.with_proximity(proximity::word(view, &decision)) } else { pair }
        });
        output::stream_pairs(&Source::new(loaded), pairs)?;
    } else {
        output::notes(&loaded.notes)?;
        privilege_line(loaded, view, functions)?;
        if functions.is_empty() {
            let mut out = anstream::stdout().lock();
            writeln!(
                out,
                "no function to pair in this input (display, network, storage, accelerator); --all shows the rest"
            )?;
        } else if arguments.list {
            list(arguments, view, functions)?;
        } else {
            table(arguments, view, functions)?;
        }
    }
    if arguments.check && functions.len() < 2 {
        output::notes(&["--check judged nothing: it takes two functions to make a pair".into()])?;
    }
    Ok(())
}

/// All ordered pairs, row-major: initiators are rows.
fn pairs(functions: &[FunctionId]) -> impl Iterator<Item = (FunctionId, FunctionId)> + '_ {
    functions.iter().flat_map(move |&initiator| functions.iter().map(move |&target| (initiator, target)))
}

/// Unprivileged inputs lose verdicts; the first line says how many and what to type.
fn privilege_line(loaded: &Loaded, view: &KernelView<'_>, functions: &[FunctionId]) -> Result<(), Failure> {
    if loaded.privileged != Some(false) {
        return Ok(());
    }
    let off_diagonal = || pairs(functions).filter(|(initiator, target)| initiator != target);
    let lost =
        off_diagonal().filter(|&(initiator, target)| lost_to_privilege(view, &view.decide(target, initiator))).count();
    if lost == 0 {
        return Ok(());
    }
    let command = match loaded.kind {
        Kind::Live => "sudo peerdma matrix",
        Kind::Lspci => "sudo lspci -vvv > FILE, then peerdma matrix --from FILE",
        Kind::Capture => "sudo peerdma capture -o FILE, then peerdma matrix --from FILE",
        Kind::Sysfs | Kind::Archive => "sudo peerdma capture -o FILE on that machine, then peerdma matrix --from FILE",
        // Nothing of a described machine is unread for lack of privilege.
        Kind::Platform => return Ok(()),
    };
    let warning = output::warning();
    let mut out = anstream::stdout().lock();
    writeln!(
        out,
        "{warning}{lost} of {} verdicts are unknown for lack of privilege{warning:#}: {command}",
        functions.len() * (functions.len() - 1)
    )?;
    writeln!(out)?;
    Ok(())
}

/// Whether privilege would have read what this verdict lacks.
fn lost_to_privilege(view: &KernelView<'_>, decision: &Decision) -> bool {
    if Verdict::from(decision.map_type) != Verdict::Unknown {
        return false;
    }
    let topology = view.topology();
    let unread = decision.unread().any(|function| {
        matches!(
            topology.function(function).info().registers.acs,
            Acs::Unknown(AcsUnread::Cut(_) | AcsUnread::Denied | AcsUnread::TextTooTerse)
        )
    });
    let gate = decision.gate.as_ref();
    let port_type_unread = gate
        .into_iter()
        .flat_map(|gate| gate.provider.into_iter().chain(gate.client))
        .any(|host| matches!(representative(topology, topology.host_bridge(host)), Representative::PortTypeUnread(_)));
    unread && decision.goes_up == Fact::Unknown
        || port_type_unread && gate.is_some_and(|gate| gate.opens == Fact::Unknown)
}

fn cell(decision: &Decision) -> String {
    if decision.provider == decision.client {
        return "X".into();
    }
    // Hidden bridges make the distance a lower bound.
    let more = if decision.hidden_below.is_empty() { "" } else { "+" };
    match Verdict::from(decision.map_type) {
        Verdict::Direct => format!("D{}{more}", decision.distance),
        Verdict::HostBridge => format!("H{}{more}", decision.distance),
        Verdict::Refused => "no".into(),
        Verdict::Unknown => "?".into(),
    }
}

fn row_name(topology: &Topology, id: FunctionId) -> String {
    let info = topology.function(id).info();
    let name = info.names.first().cloned().or_else(|| info.label.clone()).unwrap_or_default();
    // Long labels of lspci would push the table off the screen.
    let name: String = if name.chars().count() > 32 { name.chars().take(31).chain(['…']).collect() } else { name };
    if name.is_empty() { info.address.to_string() } else { format!("{} {name}", info.address) }
}

/// Writes rows as they are decided: a stranger's input may have thousands of columns.
fn table(arguments: &MatrixArguments, view: &KernelView<'_>, functions: &[FunctionId]) -> Result<(), Failure> {
    const CORNER: &str = "initiator \\ target";
    let topology = view.topology();
    let number = |index: usize| format!("[{index}]");
    let number_width = number(functions.len() - 1).len();
    let names: Vec<String> = functions.iter().map(|&function| row_name(topology, function)).collect();
    let name_width = names.iter().map(|name| name.chars().count()).chain([CORNER.len()]).max().unwrap_or(0);
    // The widest cells are H and two digits, with a word of proximity after it.
    let cell_width = number_width.max(if arguments.proximity { 8 } else { 3 });
    let mut out = std::io::BufWriter::new(anstream::stdout().lock());
    let heading = output::heading();
    write!(out, "{heading} {:number_width$}  {CORNER:<name_width$}", "")?;
    for column in 0..functions.len() {
        write!(out, "  {:>cell_width$}", number(column))?;
    }
    writeln!(out, "{heading:#}")?;
    let mut counts = [0usize; 4];
    for (row, &initiator) in functions.iter().enumerate() {
        write!(out, " {:<number_width$}  {:<name_width$}", number(row), names[row])?;
        for &target in functions {
            let decision = view.decide(target, initiator);
            let mut text = cell(&decision);
            if initiator == target {
                write!(out, "  {text:>cell_width$}")?;
                continue;
            }
            let verdict = Verdict::from(decision.map_type);
            counts[verdict as usize] += 1;
            if arguments.proximity {
                text.push_str(&format!(" {}", proximity::word(view, &decision).unwrap_or("?")));
            }
            let style = output::style(verdict);
            write!(out, "  {style}{text:>cell_width$}{style:#}")?;
        }
        writeln!(out)?;
    }
    out.flush()?;
    drop(out);
    legend(view, counts, arguments.proximity)
}

fn legend(view: &KernelView<'_>, counts: [usize; 4], with_proximity: bool) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    writeln!(out)?;
    let entries = [
        (Verdict::Direct, "Dn", "direct (BUS_ADDR): below the root, n hops"),
        (Verdict::HostBridge, "Hn", "through the host bridge (THRU_HOST_BRIDGE), n hops"),
        (Verdict::Refused, "no", "refused (NOT_SUPPORTED)"),
        (Verdict::Unknown, "?", "unknown: the input cannot tell; peerdma route says what is missing"),
    ];
    for (verdict, code, words) in entries {
        let style = output::style(verdict);
        writeln!(out, "  {style}{code:<3}{style:#} {words}: {} pairs", counts[verdict as usize])?;
    }
    if with_proximity {
        writeln!(
            out,
            "  PIX at most one switch, PXB several, PHB one host bridge, NODE one NUMA node, SYS across nodes"
        )?;
    }
    let machine = view.topology().machine();
    let cpu = machine.cpu.as_ref().map_or_else(|| "CPU unknown (--cpu)".to_string(), ToString::to_string);
    let kernel = machine.kernel.map_or_else(|| "kernel not told".to_string(), |version| format!("kernel {version}"));
    let table =
        view.tables().label().map_or_else(|| "no whitelist known".to_string(), |label| format!("whitelist of {label}"));
    let config = match machine.p2pdma_configured {
        Fact::Known(false) => ", built without CONFIG_PCI_P2PDMA, so everything is refused",
        _ => "",
    };
    writeln!(out, "As Linux decides: {cpu}, {kernel}, {table}{config}.")?;
    Ok(())
}

fn list(arguments: &MatrixArguments, view: &KernelView<'_>, functions: &[FunctionId]) -> Result<(), Failure> {
    let topology = view.topology();
    let mut out = std::io::BufWriter::new(anstream::stdout().lock());
    for (initiator, target) in pairs(functions) {
        let decision = view.decide(target, initiator);
        let verdict = Verdict::from(decision.map_type);
        let style = output::style(verdict);
        write!(
            out,
            "{} {} {style}{:<11}{style:#} {:<16} {:>3}",
            topology.function(initiator).address(),
            topology.function(target).address(),
            verdict.word(),
            decision.map_type.word(),
            decision.distance
        )?;
        if arguments.proximity {
            write!(out, " {}", proximity::word(view, &decision).unwrap_or("?"))?;
        }
        writeln!(out)?;
    }
    Ok(out.flush()?)
}
