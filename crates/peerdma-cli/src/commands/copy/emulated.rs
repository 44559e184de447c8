//! `peerdma copy --platform`: bytes in a machine that runs in this process.
//!
//! Who moves them: FROM, where it has an engine and TO has addresses; else TO, which reads. The
//! verdict is asked first, on the topology that the machine's registers tell, and a refused pair
//! is not touched. `--force` programs what a driver would that does not ask (`dma_map_resource` on
//! a peer's BAR), so that what becomes of such bytes can be seen.

use super::show;
use crate::args::CopyArguments;
use crate::commands::emulated::{
    Booted, Checked, Owner, Pace, Place, Session, Transfer, Way, engine_word, memcpy, with_owner, with_session,
};
use crate::commands::route;
use crate::document::{
    EmulatedCopyDocument, FaultDocument, HandedDocument, InitiatorDocument, OwnerDocument, SCHEMA, Source,
    SpeedDocument,
};
use crate::exit::{Exit, Failure};
use crate::input;
use crate::output;
use peerdma::addr::Bytes;
use peerdma::dma::Span;
use peerdma::dma::engine::MapRangesError;
use peerdma::route::{Judge, Need, PairVerdict, Permission, Verdict};
use std::io::Write;

/// How much is copied where nobody says.
const DEFAULT_SIZE: Bytes = Bytes::new(64 << 20);

/// Who moves which bytes which way.
struct Plan {
    from: Place,
    to: Place,
    way: Way,
}

impl Plan {
    /// The place of whoever moves the bytes, and the other one.
    fn ends(&self) -> (&Place, &Place) {
        if self.way == Way::Push { (&self.from, &self.to) } else { (&self.to, &self.from) }
    }
}

/// How far it came.
enum Attempt {
    /// Refused, or unknown, and not forced; with what stands in the way beyond the pair's reasons.
    No(Exit, Option<String>),
    Done(HandedDocument, Checked, Pace),
}

pub(super) fn run(arguments: &CopyArguments, platform: &str) -> Result<Exit, Failure> {
    if arguments.output.schema {
        output::schema::<EmulatedCopyDocument>()?;
        return Ok(Exit::Done);
    }
    if platform == "help" {
        input::print_platforms()?;
        return Ok(Exit::Done);
    }
    let (Some(from), Some(to)) = (&arguments.from_function, &arguments.to_range) else {
        return Err(Failure::usage("copy needs FROM and TO, such as peerdma copy nvme0 gpu0 --platform two-socket"));
    };
    let booted = Booted::start(platform, arguments.seed)?;
    let size = arguments.size.unwrap_or(DEFAULT_SIZE);
    let plan = plan(Place::parse(&booted, from, size)?, Place::parse(&booted, to, size)?)?;
    let judge = Judge::new(booted.kernel.topology());
    let (mover, other) = plan.ends();
    let pair = match (mover.at, other.target(&booted)?) {
        (Some(at), Some(target)) => Some(judge.judge(at.function, &target)),
        _ => None,
    };
    let need = arguments.need.map_or(if plan.way == Way::Push { Need::Write } else { Need::Read }, Into::into);
    // No rule of peer-to-peer says anything about RAM.
    let permission = pair.as_ref().map_or(Permission::Permitted, |pair| pair.permits(need));
    let permitted = Exit::judge([permission]);
    let attempt = if permitted == Exit::Done || arguments.force {
        with_session(&booted, mover, |session| touch(arguments, &plan, session))?
    } else {
        Attempt::No(permitted, None)
    };
    let printed = if arguments.output.json {
        output::json(&document(arguments, &booted, &plan, &judge, pair.as_ref(), &attempt))
    } else {
        output::notes(&booted.loaded.notes)
            .and_then(|()| print(arguments, &booted, &plan, &judge, pair.as_ref(), &attempt))
    };
    match &attempt {
        Attempt::No(exit, _) => output::concluded(*exit, printed),
        Attempt::Done(_, checked, _) => match lost(&plan, checked) {
            Some(what) => Err(Failure::Device { what, source: None }),
            None => output::concluded(Exit::Done, printed),
        },
    }
}

/// Decides who moves the bytes.
fn plan(from: Place, to: Place) -> Result<Plan, Failure> {
    let same = from.at.zip(to.at).is_some_and(|(from, to)| from.node == to.node);
    if same || from.at.is_none() && to.at.is_none() {
        return Err(Failure::usage(format!("{} and {} are one place; a copy needs two", from.name, to.name)));
    }
    for place in [&from, &to] {
        place.check_blocks()?;
    }
    if from.moves() && to.has_addresses() {
        return Ok(Plan { from, to, way: Way::Push });
    }
    if to.moves() && from.has_addresses() {
        return Ok(Plan { from, to, way: Way::Pull });
    }
    let lacks = |place: &Place| match (place.moves(), place.has_addresses()) {
        (true, _) => format!("{} has no addresses for others", place.words()),
        _ => format!("{} has no engine that moves it", place.words()),
    };
    let what = format!("nobody can move these bytes: {}, and {}; go by way of ram", lacks(&from), lacks(&to));
    Err(Failure::usage(what))
}

/// Maps, moves and looks.
fn touch(arguments: &CopyArguments, plan: &Plan, session: &mut Session<'_>) -> Result<Attempt, Failure> {
    let ((own, other), verify) = (plan.ends(), !arguments.no_verify);
    let go = |session: &mut Session<'_>, peer: &[Span], asked: bool, owner: &mut Owner<'_, '_>| {
        let transfer =
            Transfer { way: plan.way, own, other, peer, seed: arguments.seed, verify, fault: arguments.fault };
        let checked = transfer.run(session, owner)?;
        let handed = HandedDocument::new(peer, asked);
        let handed = handed.ok_or_else(|| Failure::usage(format!("{} has no bytes", other.words())))?;
        Ok(Attempt::Done(handed, checked, memcpy(own.len)))
    };
    if other.at.is_none() {
        let ram = session.allocate(other.len)?;
        return go(session, &ram.spans, true, &mut Owner::Ram(&ram));
    }
    let (peer, asked) = match session.map(other, plan.way.prot()) {
        Ok(spans) => (spans, true),
        Err(_) if arguments.force => {
            let cpu = other.cpu(session.booted());
            let cpu = cpu.ok_or_else(|| Failure::usage(format!("nobody has an address for {}", other.words())))?;
            (session.map_unasked(cpu, other.len, plan.way.prot())?, false)
        }
        Err(error) => {
            let unknown = matches!(&*error, MapRangesError::Refused(refusal) if refusal.is_unknown());
            let exit = if unknown { Exit::Unknown } else { Exit::Refused };
            return Ok(Attempt::No(exit, Some(error.to_string())));
        }
    };
    let booted = session.booted();
    with_owner(booted, other, |mut owner| go(session, &peer, asked, &mut owner))
}

/// What to say on standard error if bytes did not arrive.
fn lost(plan: &Plan, checked: &Checked) -> Option<String> {
    let (mover, _) = plan.ends();
    let said = checked.failed.as_ref().map(|error| format!("{}: {error}", mover.name));
    let seen = checked.delivery.as_ref().filter(|delivery| !delivery.is_delivered()).map(show::words);
    match (said, seen) {
        (None, None) => None,
        (said, seen) => {
            let all: Vec<String> = said.into_iter().chain(seen).collect();
            Some(format!("the bytes did not arrive as sent; {}", all.join("; ")))
        }
    }
}

fn speed(checked: &Checked, memcpy: Pace) -> SpeedDocument {
    let (pace, memcpy) = (checked.pace.bytes_per_second(), memcpy.bytes_per_second());
    SpeedDocument {
        seconds: checked.pace.took.as_secs_f64(),
        bytes_per_second: pace,
        memcpy_bytes_per_second: memcpy,
        of_memcpy: if memcpy > 0.0 { pace / memcpy } else { 0.0 },
    }
}

fn initiator(booted: &Booted, plan: &Plan) -> InitiatorDocument {
    let (mover, _) = plan.ends();
    let function = mover.at.map(|at| booted.kernel.topology().function(at.function).address().to_string());
    InitiatorDocument {
        function: function.unwrap_or_default(),
        name: mover.name.clone(),
        engine: mover.at.map_or("none", |at| engine_word(at.model)),
        access: plan.way.word(),
    }
}

fn document(
    arguments: &CopyArguments,
    booted: &Booted,
    plan: &Plan,
    judge: &Judge<'_>,
    pair: Option<&PairVerdict>,
    attempt: &Attempt,
) -> EmulatedCopyDocument {
    let done = match attempt {
        Attempt::Done(handed, checked, memcpy) => Some((handed, checked, *memcpy)),
        Attempt::No(..) => None,
    };
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    EmulatedCopyDocument {
        schema: SCHEMA,
        source: Source::new(&booted.loaded),
        seed: arguments.seed,
        from: text(&arguments.from_function),
        to: text(&arguments.to_range),
        size: plan.from.len.as_u64(),
        initiator: initiator(booted, plan),
        pair: pair.map(|pair| route::explained(judge, pair, Vec::new())),
        refused: match attempt {
            Attempt::No(_, why) => why.clone(),
            Attempt::Done(..) => None,
        },
        forced: arguments.force,
        granted: done.map(|(handed, ..)| handed.clone()),
        moved: done.map(|(_, checked, _)| checked.pace.bytes.as_u64()),
        engine_error: done.and_then(|(_, checked, _)| checked.failed.clone()),
        verified: done.and_then(|(_, checked, _)| {
            checked.delivery.as_ref().map(|delivery| OwnerDocument::new(plan.from.len, delivery))
        }),
        fault: done.and_then(|(_, checked, _)| {
            Some(FaultDocument { name: arguments.fault?.word().to_string(), strikes: checked.strikes? })
        }),
        speed: done.map(|(_, checked, memcpy)| speed(checked, memcpy)),
    }
}

fn print(
    arguments: &CopyArguments,
    booted: &Booted,
    plan: &Plan,
    judge: &Judge<'_>,
    pair: Option<&PairVerdict>,
    attempt: &Attempt,
) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    let heading = output::heading();
    let InitiatorDocument { function, name, engine, access } = initiator(booted, plan);
    writeln!(out, "{heading}{} -> {}, {}{heading:#}", plan.from.words(), plan.to.words(), plan.from.len)?;
    writeln!(out, "  initiator  {name} ({function}), {engine}: {access}s the other end")?;
    match pair {
        Some(pair) => {
            let style = output::style(pair.verdict);
            writeln!(out, "  permitted  {style}{}{style:#}: {}", pair.verdict, route::verdict_words(pair))?;
            if pair.verdict == Verdict::Refused || pair.verdict == Verdict::Unknown {
                route::write_reasons(&mut out, "why", &judge.reasons(pair))?;
            }
        }
        None => writeln!(out, "  permitted  to RAM, which no peer-to-peer rule concerns")?,
    }
    let (handed, checked, memcpy) = match attempt {
        Attempt::No(_, why) => {
            if let Some(why) = why {
                writeln!(out, "  refused    {why}")?;
            }
            writeln!(out, "  granted    not asked for: nothing was touched; --force tries it all the same")?;
            writeln!(out, "  verified   no")?;
            return Ok(());
        }
        Attempt::Done(handed, checked, memcpy) => (handed, checked, *memcpy),
    };
    let forced = if handed.asked { "" } else { ", which nobody was asked about (as dma_map_resource does)" };
    writeln!(out, "  granted    {}{forced}", handed.words())?;
    match &checked.failed {
        Some(error) => writeln!(out, "  moved      {} before the engine stopped: {error}", checked.pace.bytes)?,
        None => writeln!(out, "  moved      {}, as the engine says", checked.pace.bytes)?,
    }
    match &checked.delivery {
        None => writeln!(out, "  verified   no: --no-verify")?,
        Some(delivery) => {
            let (word, verdict) = match delivery.is_delivered() {
                true => ("yes", Verdict::Direct),
                false => ("no", Verdict::Refused),
            };
            let style = output::style(verdict);
            let owner = if plan.to.at.is_none() { "the processor" } else { "its owner" };
            writeln!(out, "  verified   {style}{word}{style:#}: {}; {owner} read it", show::words(delivery))?;
        }
    }
    if let (Some(fault), Some(strikes)) = (arguments.fault, checked.strikes) {
        writeln!(out, "  fault      {fault} struck {strikes} times: {}", fault.summary())?;
    }
    let speed = speed(checked, memcpy);
    let seed = arguments.seed;
    writeln!(
        out,
        "  speed      {}, {:.2} of memcpy ({}); seed {seed}",
        checked.pace.words(),
        speed.of_memcpy,
        memcpy.words()
    )?;
    Ok(())
}
