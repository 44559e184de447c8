//! `peerdma topo`: the tree, with what matters for peer traffic.

use crate::args::TopoArguments;
use crate::document::TopologyDocument;
use crate::exit::{Exit, Failure};
use crate::input::{self, Loaded};
use crate::output;
use peerdma::pcie::acs::{Acs, AcsRegisters};
use peerdma::pcie::{ClassCode, Fact};
use peerdma::route::kernel_view::{KernelView, Representative, representative};
use peerdma::topology::{Function, FunctionId, HostBridgeId, Parent, Topology};
use std::collections::BTreeMap;
use std::io::Write;

pub(crate) fn run(arguments: &TopoArguments) -> Result<Exit, Failure> {
    if arguments.output.schema {
        output::schema::<TopologyDocument>()?;
        return Ok(Exit::Done);
    }
    if input::platform_help(&arguments.input)? {
        return Ok(Exit::Done);
    }
    let loaded = input::load(&arguments.input)?;
    let view = KernelView::new(&loaded.topology);
    if arguments.output.json {
        output::json(&TopologyDocument::new(&loaded, &view))?;
    } else {
        output::notes(&loaded.notes)?;
        print(&loaded, &view)?;
    }
    Ok(Exit::Done)
}

fn print(loaded: &Loaded, view: &KernelView<'_>) -> Result<(), Failure> {
    let topology = &loaded.topology;
    let machine = topology.machine();
    let mut out = anstream::stdout().lock();
    let unknown = |what: &str| format!("{what} unknown");
    let cpu = machine.cpu.as_ref().map_or_else(|| unknown("CPU"), ToString::to_string);
    let kernel = machine.kernel.map_or_else(|| unknown("kernel"), |version| format!("Linux {version}"));
    let iommu = match machine.iommu {
        Some(mode) => format!("IOMMU {mode}"),
        None if topology.groups().is_empty() => "no IOMMU group listed".into(),
        None => format!("{} IOMMU groups", topology.groups().len()),
    };
    let hosts = topology.host_bridges().len();
    let bridges = if hosts == 1 { "host bridge" } else { "host bridges" };
    writeln!(out, "{} functions, {hosts} {bridges}, {cpu}, {kernel}, {iommu}", topology.functions().len())?;
    let children = Children::new(topology);
    for (id, host) in topology.host_bridges() {
        let heading = output::heading();
        let stands_for_it = match representative(topology, host) {
            Representative::Device(first) => format!("stands for it: {}", ids(topology.function(first))),
            Representative::Nobody(_) => "nothing stands for it in Linux's whitelist".into(),
            Representative::PortTypeUnread(first) => {
                format!("may stand for it: {} (port type not read)", ids(topology.function(first)))
            }
            Representative::NotListed => "none of its root bus listed".into(),
        };
        writeln!(out, "{heading}host bridge {:04x}:{:02x}{heading:#}  {stands_for_it}", host.domain(), host.bus())?;
        print_below(&mut out, loaded, view, &children, children.on_root.get(&id).map_or(&[], Vec::as_slice))?;
    }
    if !children.unplaced.is_empty() {
        let warning = output::warning();
        writeln!(out, "{warning}place unknown{warning:#}")?;
        print_below(&mut out, loaded, view, &children, &children.unplaced)?;
    }
    Ok(())
}

/// Functions by what they hang below.
#[derive(Default)]
struct Children {
    below: BTreeMap<FunctionId, Vec<FunctionId>>,
    on_root: BTreeMap<HostBridgeId, Vec<FunctionId>>,
    unplaced: Vec<FunctionId>,
}

impl Children {
    fn new(topology: &Topology) -> Self {
        let mut children = Self::default();
        for (id, function) in topology.functions() {
            match function.parent() {
                Parent::Bridge(bridge) => children.below.entry(bridge).or_default().push(id),
                Parent::Root(host) => children.on_root.entry(host).or_default().push(id),
                Parent::Unknown { .. } => children.unplaced.push(id),
            }
        }
        children
    }
}

/// Prints subtrees without recursion, since a stranger's tree may be of any depth.
fn print_below(
    out: &mut impl Write,
    loaded: &Loaded,
    view: &KernelView<'_>,
    children: &Children,
    top: &[FunctionId],
) -> Result<(), Failure> {
    let mut open: Vec<(FunctionId, usize)> = top.iter().rev().map(|&id| (id, 1)).collect();
    while let Some((id, depth)) = open.pop() {
        let indent = "  ".repeat(depth.min(40));
        writeln!(out, "{indent}{}", line(&loaded.topology, view, id))?;
        let below = children.below.get(&id).into_iter().flatten();
        open.extend(below.rev().map(|&child| (child, depth + 1)));
    }
    Ok(())
}

fn line(topology: &Topology, view: &KernelView<'_>, id: FunctionId) -> String {
    let function = topology.function(id);
    let info = function.info();
    let registers = &info.registers;
    let kind = match registers.port_type {
        Fact::Known(Some(port_type)) if info.is_bridge() => port_type.to_string(),
        _ => registers.class.map_or_else(|| "class unknown".into(), class_words),
    };
    let mut parts = vec![format!("{} {kind}", info.address)];
    if !info.names.is_empty() {
        parts.push(info.names.join(" "));
    }
    parts.push(info.label.clone().unwrap_or_else(|| ids(function)));
    if let Some(physical) = function.physical() {
        parts.push(format!("VF of {}", topology.function(physical).address()));
    }
    parts.push(acs_words(&registers.acs));
    let link = info.link_state();
    if let (Some(speed), Some(width)) = (link.speed, link.width)
        && width != 0
    {
        let mut words = format!("{speed} x{width}");
        if link.is_degraded() {
            let warning = output::warning();
            let could = match (link.max_speed, link.max_width) {
                (Some(speed), Some(width)) => format!(" of {speed} x{width}"),
                _ => String::new(),
            };
            words = format!("{warning}{words} DEGRADED{could}{warning:#}");
        }
        parts.push(words);
    }
    if let Some(payload) = registers.express.max_payload {
        parts.push(format!("MPS {}", payload.as_u64()));
    }
    if let Some(group) = info.iommu_group {
        let listed = topology.groups().binary_search_by_key(&group, |listed| listed.id);
        let kind = listed.ok().and_then(|index| topology.groups()[index].kind.as_deref());
        parts.push(kind.map_or_else(|| format!("group {group}"), |kind| format!("group {group} {kind}")));
    }
    if let Some(driver) = &info.driver {
        parts.push(format!("driver {driver}"));
    }
    if registers.acs.registers().is_some_and(AcsRegisters::linux_misreads) {
        parts.push(view.acs_evidence(id));
    }
    parts.join(" · ")
}

fn ids(function: &Function) -> String {
    match function.info().candidate_ids() {
        [] => "ID unknown".into(),
        ids => ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or "),
    }
}

fn class_words(class: ClassCode) -> String {
    class.word().map_or_else(|| format!("class {class}"), str::to_string)
}

fn acs_words(acs: &Acs) -> String {
    match acs {
        Acs::Present(registers) => match registers.control {
            Fact::Known(control) => format!("ACS {control}"),
            Fact::Unknown => "ACS ?".into(),
        },
        Acs::Absent(_) => "no ACS".into(),
        Acs::Unknown(_) => "ACS unknown".into(),
    }
}
