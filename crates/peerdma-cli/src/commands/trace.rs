//! `peerdma trace`: one request through a machine that runs in this process, hop by hop.
//!
//! The verdict is asked before, on the topology that the machine's registers tell, and what
//! became of the request is put beside it. A permitted pair's request carries the address of
//! the mapping engine. That of a refused one carries what a driver programs that does not ask, and
//! the resolver's fabric view is asked about a request with that kind of address.

mod show;

use crate::args::TraceArguments;
use crate::commands::emulated::{At, Booted, Place, Session, hops, with_idle};
use crate::commands::route;
use crate::document::{RequestDocument, SCHEMA, Source, TraceDocument, fate_word};
use crate::exit::{Exit, Failure};
use crate::input;
use crate::output;
use crate::select::{self, Asked};
use peerdma::addr::{BusAddr, Bytes, PhysAddr};
use peerdma::dma::{DeviceAddress, Prot, Span};
use peerdma::route::fabric::{self, Fate, Handed};
use peerdma::route::{Judge, PairVerdict, Permission, Target};
use peerdma_emu::device::{Bus, How};
use peerdma_emu::fabric::NodeId;
use peerdma_emu::machine::{Event, Happened};
use peerdma_emu::wire::{Atomic, Failure as Told, Operand};
use peerdma_linux::pattern::Pattern;

/// The longest request, which is cut into packets.
const LONGEST: u64 = 4096;
/// How long a request is of which nobody says.
const DEFAULT_LEN: Bytes = Bytes::new(64);

/// Where a request is meant to arrive.
#[derive(Clone, Copy, Debug)]
enum Meant {
    Bar(At, u8, Bytes),
    Memory(PhysAddr),
}

/// What was sent, and what became of it.
struct Sent {
    from: NodeId,
    address: DeviceAddress,
    asked: bool,
    told: Option<Told>,
    requests: Vec<RequestDocument>,
}

impl Sent {
    fn arrived(&self) -> bool {
        self.told.is_none() && !self.requests.is_empty() && self.requests.iter().all(|request| request.arrived)
    }
}

/// What was known before.
struct Known<'t> {
    judge: Judge<'t>,
    pair: Option<PairVerdict>,
    permission: Permission,
}

pub(crate) fn run(arguments: &TraceArguments) -> Result<Exit, Failure> {
    if arguments.output.schema {
        output::schema::<TraceDocument>()?;
        return Ok(Exit::Done);
    }
    let platform = arguments.platform.as_deref().unwrap_or("two-socket");
    if platform == "help" {
        input::print_platforms()?;
        return Ok(Exit::Done);
    }
    let (Some(from), Some(to)) = (&arguments.from_function, &arguments.to_place) else {
        return Err(Failure::usage("trace needs FROM and TO, such as peerdma trace nic0 gpu0"));
    };
    let (kind, len) = wanted(arguments)?;
    let booted = Booted::start(platform, arguments.seed)?;
    let sender = Place::device(&booted, from)?;
    let target = if to == "ram" { None } else { Some(target(&booted, to, arguments.at, len)?) };
    if sender.at.zip(target.as_ref()).is_some_and(|(at, target)| at.function == target.function()) {
        return Err(Failure::usage(format!("{from} and {to} are the same function; a request goes to another")));
    }
    let judge = Judge::new(booted.kernel.topology());
    let pair = sender.at.zip(target.as_ref()).map(|(at, target)| judge.judge(at.function, target));
    let permission = pair.as_ref().map_or(Permission::Permitted, |pair| match kind {
        fabric::Kind::Write => pair.write,
        fabric::Kind::Read => pair.read,
        fabric::Kind::Atomic => pair.atomic,
    });
    let known = Known { judge, pair, permission };
    let sent = with_idle(&booted, &sender, |session| send(arguments, session, kind, len, target.as_ref(), &known))?;
    let fate = foretold(&known, kind, sent.address);
    let agrees = match fate {
        Some(Fate::Arrives) => Some(sent.arrived()),
        Some(Fate::Lost) => Some(!sent.arrived()),
        Some(Fate::Undefined | Fate::Unknown) | None => None,
    };
    let printed = if arguments.output.json {
        output::json(&document(arguments, &booted, kind, &known, &sent, fate, agrees))
    } else {
        output::notes(&booted.loaded.notes).and_then(|()| show::print(&booted, kind, &known, &sent, fate, agrees))
    };
    let exit = match (sent.arrived(), known.permission) {
        (true, _) => Exit::Done,
        (false, Permission::Permitted) => {
            let what = "the request did not arrive although the verdict permits it; the hops say where it ended";
            return Err(Failure::Device { what: what.to_string(), source: None });
        }
        (false, Permission::Unknown) => Exit::Unknown,
        (false, Permission::Refused) if matches!(fate, Some(Fate::Undefined | Fate::Unknown)) => Exit::Unknown,
        (false, Permission::Refused) => Exit::Refused,
    };
    output::concluded(exit, printed)
}

/// What is sent, and how long it is.
fn wanted(arguments: &TraceArguments) -> Result<(fabric::Kind, Bytes), Failure> {
    if arguments.atomic {
        return Ok((fabric::Kind::Atomic, Bytes::new(8)));
    }
    let len = arguments.len.unwrap_or(DEFAULT_LEN);
    if len.as_u64() > LONGEST {
        return Err(Failure::usage(format!("--len {len}: a request has {} at most", Bytes::new(LONGEST))));
    }
    Ok((if arguments.read { fabric::Kind::Read } else { fabric::Kind::Write }, len))
}

/// The range of the BAR that was named, or of the largest one.
fn target(booted: &Booted, text: &str, at: Bytes, len: Bytes) -> Result<Target, Failure> {
    let topology = booted.kernel.topology();
    let Asked { target, .. } = select::target(topology, text)?;
    if text.split_once('/').is_some_and(|(_, range)| range.contains('+')) {
        return Err(Failure::usage(format!("{text}: where in the BAR is said by --at and --len")));
    }
    let bar = target.bar().ok_or_else(|| Failure::usage(format!("{text} has no memory BAR")))?;
    let range = Target::of_bar(topology, target.function(), bar, Some((at, len)));
    range.map_err(|error| Failure::usage(error.to_string()))
}

/// Maps, sends one request and lets the machine come to rest.
fn send(
    arguments: &TraceArguments,
    session: &mut Session<'_>,
    kind: fabric::Kind,
    len: Bytes,
    target: Option<&Target>,
    known: &Known<'_>,
) -> Result<Sent, Failure> {
    let (booted, node) = (session.booted(), session.node());
    let prot = match kind {
        fabric::Kind::Write => Prot::Write,
        fabric::Kind::Read => Prot::Read,
        fabric::Kind::Atomic => Prot::ReadWrite,
    };
    let (spans, asked, meant) = match target {
        None => {
            let ram = session.allocate(len)?;
            let at = ram.cpu();
            (ram.spans, true, Meant::Memory(at))
        }
        Some(target) => {
            let place = Place::of_target(booted, target, len)?;
            let (Some(at), Some(bar)) = (place.at, target.bar()) else {
                return Err(Failure::usage("the target is no BAR"));
            };
            let mapped = if known.permission == Permission::Permitted { session.map(&place, prot).ok() } else { None };
            let (spans, asked) = match (mapped, target.cpu()) {
                (Some(spans), _) => (spans, true),
                (None, Some(cpu)) => (session.map_unasked(cpu.start(), len, prot)?, false),
                (None, None) => return Err(Failure::usage("nobody has an address for the target")),
            };
            (spans, asked, Meant::Bar(at, bar, target.offset()))
        }
    };
    let Some(Span { address, .. }) = spans.first().copied() else {
        return Err(Failure::usage("the target has no bytes"));
    };
    let machine = booted.machine();
    booted.settle()?;
    machine.log().keep(true);
    machine.log().take();
    let (mut port, at) = (machine.port(node), BusAddr::new(address.as_u64()));
    let count = len.as_u64() as usize;
    let told = match kind {
        fabric::Kind::Write => {
            port.write(How::default(), at, &Pattern::new(arguments.seed, 0).bytes(Bytes::ZERO, count)).err()
        }
        fabric::Kind::Read => port.read(How::default(), at, &mut vec![0; count]).err(),
        fabric::Kind::Atomic => port.atomic(How::default(), at, Atomic::FetchAdd(Operand::Double(1))).err(),
    };
    booted.settle()?;
    machine.log().keep(false);
    let events = machine.log().take();
    let first = at;
    let requests = hops::of_function(&events, node).into_iter().map(|(number, events)| {
        let arrived = arrived(&events, kind, first, meant);
        RequestDocument { number, arrived, hops: hops::hops(booted, &events) }
    });
    Ok(Sent { from: node, address, asked, told, requests: requests.collect() })
}

/// Whether a request came to where it was meant to, and its completion back.
fn arrived(events: &[Event], kind: fabric::Kind, first: BusAddr, meant: Meant) -> bool {
    let Some(Happened::Sent { head, .. }) = events.first().map(|event| event.what) else { return false };
    let into = head.address.as_u64().wrapping_sub(first.as_u64());
    let there = events.iter().any(|event| match (event.what, meant) {
        (Happened::AtFunction { node, bar, offset }, Meant::Bar(at, wanted, start)) => {
            node == at.node && bar == wanted && offset.as_u64() == start.as_u64().wrapping_add(into)
        }
        (Happened::InMemory { at }, Meant::Memory(start)) => at.as_u64() == start.as_u64().wrapping_add(into),
        _ => false,
    });
    let ended = events.iter().any(|event| matches!(event.what, Happened::Ended(_) | Happened::Failed(_)));
    let answered = events.iter().any(|event| event.what == Happened::Answered);
    there && !ended && (kind == fabric::Kind::Write || answered)
}

/// What the resolver's fabric view says of a request that carries such an address.
fn foretold(known: &Known<'_>, kind: fabric::Kind, address: DeviceAddress) -> Option<Fate> {
    let pair = known.pair.as_ref()?;
    let handed = match address {
        DeviceAddress::Bus { .. } => Handed::Bus,
        DeviceAddress::Iova(_) => Handed::Iova,
        DeviceAddress::CpuPhysical(_) => Handed::CpuPhysical,
    };
    Some(known.judge.fabric().pass(pair.initiator, &pair.target, kind, handed).fate)
}

const fn kind_word(kind: fabric::Kind) -> &'static str {
    match kind {
        fabric::Kind::Write => "write",
        fabric::Kind::Read => "read",
        fabric::Kind::Atomic => "atomic",
    }
}

fn document(
    arguments: &TraceArguments,
    booted: &Booted,
    kind: fabric::Kind,
    known: &Known<'_>,
    sent: &Sent,
    fate: Option<Fate>,
    agrees: Option<bool>,
) -> TraceDocument {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    TraceDocument {
        schema: SCHEMA,
        source: Source::new(&booted.loaded),
        seed: arguments.seed,
        from: text(&arguments.from_function),
        to: text(&arguments.to_place),
        kind: kind_word(kind),
        pair: known.pair.as_ref().map(|pair| route::explained(&known.judge, pair, Vec::new())),
        address: format!("{:#x}", sent.address.as_u64()),
        address_kind: sent.address.word(),
        asked: sent.asked,
        foretold: fate.map(fate_word),
        arrived: sent.arrived(),
        agrees,
        failure: sent.told.map(|told| told.to_string()),
        requests: sent.requests.clone(),
    }
}
