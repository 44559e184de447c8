//! `peerdma matrix`: the verdict of every pair.

use crate::args::MatrixArguments;
use crate::document::{Pair, PairsDocument, Source};
use crate::exit::{Exit, Failure};
use crate::input::{self, Kind, Loaded};
use crate::progress::Progress;
use crate::{output, proximity, select};
use peerdma::pcie::Fact;
use peerdma::pcie::acs::{Acs, AcsUnread};
use peerdma::route::kernel_view::{Decision, KernelView, MapType, Representative, representative};
use peerdma::route::{Judge, Need, PairVerdict, Permission, Target, Verdict};
use peerdma::topology::{FunctionId, Topology};
use std::cell::Cell;
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
    let shown = Shown {
        judge: Judge::new(&loaded.topology),
        targets: targets(&loaded.topology, functions),
        functions,
        need: arguments.need.into(),
        worst: Cell::new(Permission::Permitted),
    };
    let _progress = Progress::start("deciding pairs");
    // Pairs are shown as they are decided, so what they amount to is known only afterwards.
    let printed = print(arguments, loaded, &shown);
    if !arguments.check {
        return output::concluded(Exit::Done, printed);
    }
    // Where nobody read to the end the rest was not decided either, and the answer is that of all.
    if printed.is_err() {
        shown.pairs().for_each(|(initiator, target)| drop(shown.judged(initiator, target)));
    }
    output::concluded(Exit::judge([shown.worst.get()]), printed)
}

/// What every pair of the matrix reaches for: the largest BAR of each function.
fn targets(topology: &Topology, functions: &[FunctionId]) -> Vec<Target> {
    functions.iter().map(|&function| Target::largest_bar(topology, function)).collect()
}

/// The functions of the matrix and who judges them.
struct Shown<'a> {
    judge: Judge<'a>,
    functions: &'a [FunctionId],
    targets: Vec<Target>,
    need: Need,
    /// What all pairs judged so far amount to, the diagonal left out.
    worst: Cell<Permission>,
}

impl Shown<'_> {
    fn judged(&self, initiator: FunctionId, target: &Target) -> PairVerdict {
        let pair = self.judge.judge(initiator, target);
        if initiator != target.function() {
            self.worst.set(self.worst.get().and(pair.permits(self.need)));
        }
        pair
    }

    /// All ordered pairs, row-major: initiators are rows.
    fn pairs(&self) -> impl Iterator<Item = (FunctionId, &Target)> {
        self.functions.iter().flat_map(|&initiator| self.targets.iter().map(move |target| (initiator, target)))
    }
}

fn print(arguments: &MatrixArguments, loaded: &Loaded, shown: &Shown<'_>) -> Result<(), Failure> {
    let (judge, functions) = (&shown.judge, shown.functions);
    if arguments.output.json {
        let pairs = shown.pairs().map(|(initiator, target)| {
            let verdict = shown.judged(initiator, target);
            let pair = Pair::new(judge, &verdict);
            let word = || proximity::word(judge.kernel(), &verdict.kernel);
            if arguments.proximity { pair.with_proximity(word()) } else { pair }
        });
        output::stream_pairs(&Source::new(loaded), pairs)?;
    } else {
        output::notes(&loaded.notes)?;
        privilege_line(loaded, judge.kernel(), functions)?;
        if functions.is_empty() {
            let mut out = anstream::stdout().lock();
            writeln!(
                out,
                "no function to pair in this input (display, network, storage, accelerator); --all shows the rest"
            )?;
        } else if arguments.list {
            list(arguments, shown)?;
        } else {
            table(arguments, shown)?;
        }
    }
    if arguments.check && functions.len() < 2 {
        output::notes(&["--check judged nothing: it takes two functions to make a pair".into()])?;
    }
    Ok(())
}

/// Unprivileged inputs lose verdicts; the first line says how many and what to type.
fn privilege_line(loaded: &Loaded, view: &KernelView<'_>, functions: &[FunctionId]) -> Result<(), Failure> {
    if loaded.privileged != Some(false) {
        return Ok(());
    }
    let others = |initiator| functions.iter().copied().filter(move |&target| target != initiator);
    let off_diagonal = functions.iter().flat_map(|&initiator| others(initiator).map(move |target| (initiator, target)));
    let lost =
        off_diagonal.filter(|&(initiator, target)| lost_to_privilege(view, &view.decide(target, initiator))).count();
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
    if decision.map_type != MapType::Unknown {
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

fn cell(pair: &PairVerdict) -> String {
    if pair.initiator == pair.target.function() {
        return "X".into();
    }
    let hops = pair.kernel.distance;
    // Hidden bridges make the distance a lower bound.
    let more = if pair.kernel.hidden_below.is_empty() { "" } else { "+" };
    let only = directions(pair).code();
    match pair.verdict {
        Verdict::Direct => format!("D{hops}{more}{only}"),
        Verdict::HostBridge => format!("H{hops}{more}{only}"),
        Verdict::Refused => "no".into(),
        Verdict::Unknown => "?".into(),
    }
}

/// Which of reads and writes a permitted pair takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Directions {
    Both,
    WritesOnly,
    ReadsOnly,
    Open,
}

impl Directions {
    const fn code(self) -> &'static str {
        match self {
            Self::Both => "",
            Self::WritesOnly => "w",
            Self::ReadsOnly => "r",
            Self::Open => "~",
        }
    }
}

fn directions(pair: &PairVerdict) -> Directions {
    match (pair.write, pair.read) {
        (Permission::Permitted, Permission::Permitted) => Directions::Both,
        (Permission::Permitted, Permission::Refused) => Directions::WritesOnly,
        (Permission::Refused, Permission::Permitted) => Directions::ReadsOnly,
        _ => Directions::Open,
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
fn table(arguments: &MatrixArguments, shown: &Shown<'_>) -> Result<(), Failure> {
    const CORNER: &str = "initiator \\ target";
    let (judge, functions) = (&shown.judge, shown.functions);
    let topology = judge.topology();
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
    let mut counts = Counts::default();
    for (row, &initiator) in functions.iter().enumerate() {
        write!(out, " {:<number_width$}  {:<name_width$}", number(row), names[row])?;
        for target in &shown.targets {
            let pair = shown.judged(initiator, target);
            let mut text = cell(&pair);
            if initiator == target.function() {
                write!(out, "  {text:>cell_width$}")?;
                continue;
            }
            counts.add(&pair);
            if arguments.proximity {
                text.push_str(&format!(" {}", proximity::word(judge.kernel(), &pair.kernel).unwrap_or("?")));
            }
            let style = output::style(pair.verdict);
            write!(out, "  {style}{text:>cell_width$}{style:#}")?;
        }
        writeln!(out)?;
    }
    out.flush()?;
    drop(out);
    legend(judge.kernel(), &counts, arguments.proximity)
}

/// How many pairs of each verdict, and of each direction where only one is sure.
#[derive(Default)]
struct Counts {
    verdicts: [usize; 4],
    writes_only: usize,
    reads_only: usize,
    open: usize,
}

impl Counts {
    fn add(&mut self, pair: &PairVerdict) {
        self.verdicts[pair.verdict as usize] += 1;
        if matches!(pair.verdict, Verdict::Direct | Verdict::HostBridge) {
            match directions(pair) {
                Directions::Both => {}
                Directions::WritesOnly => self.writes_only += 1,
                Directions::ReadsOnly => self.reads_only += 1,
                Directions::Open => self.open += 1,
            }
        }
    }
}

fn legend(view: &KernelView<'_>, counts: &Counts, with_proximity: bool) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    writeln!(out)?;
    let entries = [
        (Verdict::Direct, "Dn", "direct (BUS_ADDR): below the root, n hops"),
        (Verdict::HostBridge, "Hn", "through the host bridge (THRU_HOST_BRIDGE), n hops"),
        (Verdict::Refused, "no", "refused (NOT_SUPPORTED, or lost by the hardware)"),
        (Verdict::Unknown, "?", "unknown: the input cannot tell; peerdma route says what is missing"),
    ];
    for (verdict, code, words) in entries {
        let style = output::style(verdict);
        writeln!(out, "  {style}{code:<3}{style:#} {words}: {} pairs", counts.verdicts[verdict as usize])?;
    }
    for (count, code, words) in [
        (counts.writes_only, "w", "of these, writes only: reads are refused"),
        (counts.reads_only, "r", "of these, reads only: writes are refused"),
        (counts.open, "~", "of these, not known for reads, for writes or for both"),
    ] {
        if count != 0 {
            writeln!(out, "  {code:<3} {words}: {count} pairs")?;
        }
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
    writeln!(out, "By Linux's rules and the hardware's: {cpu}, {kernel}, {table}{config}.")?;
    Ok(())
}

fn list(arguments: &MatrixArguments, shown: &Shown<'_>) -> Result<(), Failure> {
    let judge = &shown.judge;
    let topology = judge.topology();
    let mut out = std::io::BufWriter::new(anstream::stdout().lock());
    for (initiator, target) in shown.pairs() {
        let pair = shown.judged(initiator, target);
        let style = output::style(pair.verdict);
        write!(
            out,
            "{} {} {style}{:<11}{style:#} read {:<9} write {:<9} atomic {:<9} {:<12} {:<16} {:>3}",
            topology.function(initiator).address(),
            topology.function(target.function()).address(),
            pair.verdict.word(),
            pair.read.word(),
            pair.write.word(),
            pair.atomic.word(),
            pair.address.kind().word(),
            pair.kernel.map_type.word(),
            pair.kernel.distance
        )?;
        if arguments.proximity {
            write!(out, " {}", proximity::word(judge.kernel(), &pair.kernel).unwrap_or("?"))?;
        }
        writeln!(out)?;
    }
    Ok(out.flush()?)
}
