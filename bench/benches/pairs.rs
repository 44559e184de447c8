//! A pair's answer from the index, beside what it replaces and what it cannot beat.
//!
//! In one run: the walk that keeps its evidence (`KernelView::decide`), Linux's two loops
//! with nothing around them, a hit in a hash table of pairs, the index, and two loads of
//! 32 bytes each with one exclusive or. Instructions a pair are the difference between
//! three rounds and one, so building machines does not count. Where all pairs would take
//! minutes under callgrind, every so many-th provider stands for all; the column says how
//! many pairs were taken. `--short` changes nothing.

use peerdma::route::kernel_view::{Answer, KernelView, MapType, PairIndex};
use peerdma::topology::FunctionId;
use peerdma_bench::bare_walk::BareWalk;
use peerdma_bench::callgrind;
use peerdma_bench::shelf::{ENDPOINTS_PER_HOST, Shelf, shelf};
use std::collections::HashMap;
use std::hint::black_box;
use std::io;
use std::process::ExitCode;
use std::time::Instant;

/// Least number of times that the walk with evidence executes the instructions of the index.
const LEAST_OF_WALK: f64 = 15.0;

/// The same of the bare walk.
const LEAST_OF_BARE: f64 = 12.0;

/// Most bytes an endpoint.
const MOST_BYTES: u64 = 32;

/// Endpoints of the machines asked about.
const SIZES: [u32; 2] = [512, 4096];

/// A way to answer pairs.
struct Way {
    name: &'static str,
    which: Pairs,
    /// Pairs under callgrind, at most.
    most_pairs: usize,
    gate: Gate,
    run: Run,
}

type Pair = (FunctionId, FunctionId);
type Run = fn(&Machine<'_>, &[Pair], rounds: usize) -> u64;

/// Which pairs of endpoints.
#[derive(Clone, Copy)]
enum Pairs {
    All,
    /// Those below one host bridge, whose paths have to be compared.
    OfOneHost,
    /// Those of them that no bridge sends up to the root: nothing ends the answer early.
    StayingBelow,
}

/// What fails the bench.
enum Gate {
    Nothing,
    /// More instructions a pair, the loop around the pairs included.
    Most(f64),
    /// Fewer times the instructions of the index.
    LeastOfIndex(f64),
}

struct Machine<'t> {
    view: &'t KernelView<'t>,
    index: PairIndex<'t>,
}

const fn way(name: &'static str, which: Pairs, most_pairs: usize, gate: Gate, run: Run) -> Way {
    Way { name, which, most_pairs, gate, run }
}

/// The place of the index among the ways.
const INDEX: usize = 3;

const WAYS: [Way; 7] = [
    way("walk with evidence", Pairs::All, 1 << 14, Gate::LeastOfIndex(LEAST_OF_WALK), |machine, pairs, rounds| {
        each(pairs, rounds, |provider, client| {
            let decision = machine.view.decide(provider, client);
            weight(decision.map_type, decision.distance)
        })
    }),
    way("Linux's loops, bare", Pairs::All, 1 << 16, Gate::LeastOfIndex(LEAST_OF_BARE), |machine, pairs, rounds| {
        let walk = BareWalk::new(machine.view);
        each(pairs, rounds, |provider, client| sum(walk.answer(provider, client)))
    }),
    way("hash table, hit", Pairs::All, 1 << 16, Gate::Nothing, |machine, pairs, rounds| {
        let answer = |&(provider, client)| ((provider, client), machine.index.answer(provider, client));
        let table: HashMap<_, _> = pairs.iter().map(answer).collect();
        each(pairs, rounds, |provider, client| table.get(&(provider, client)).map_or(0, |&answer| sum(answer)))
    }),
    way("index", Pairs::All, 1 << 18, Gate::Most(40.0), ask_index),
    way("index, one host", Pairs::OfOneHost, 1 << 18, Gate::Most(50.0), ask_index),
    way("index, below", Pairs::StayingBelow, 1 << 18, Gate::Most(60.0), ask_index),
    way("raw limit", Pairs::All, 1 << 18, Gate::Nothing, |machine, pairs, rounds| {
        let summaries = vec![[black_box(1u64); 4]; machine.view.topology().functions().len()];
        each(pairs, rounds, |provider, client| summaries[provider.index()][0] ^ summaries[client.index()][0])
    }),
];

fn ask_index(machine: &Machine<'_>, pairs: &[Pair], rounds: usize) -> u64 {
    each(pairs, rounds, |provider, client| sum(machine.index.answer(provider, client)))
}

/// Folds an answer into what is summed over pairs, so that no part of it is left out.
#[inline(always)]
fn sum(answer: Answer) -> u64 {
    weight(answer.map_type, answer.distance)
}

#[inline(always)]
fn weight(map_type: MapType, distance: u32) -> u64 {
    map_type as u64 + u64::from(distance)
}

#[inline(always)]
fn each(pairs: &[Pair], rounds: usize, answer: impl Fn(FunctionId, FunctionId) -> u64) -> u64 {
    let mut total = 0u64;
    for _ in 0..rounds {
        for &(provider, client) in black_box(pairs) {
            total = total.wrapping_add(answer(provider, client));
        }
    }
    total
}

/// The ordered pairs of a kind: of every so many-th provider with all its clients, so that
/// there are no more than `most`.
fn pairs_of(which: Pairs, machine: &Machine<'_>, endpoints: &[FunctionId], most: usize) -> Vec<Pair> {
    let clients = match which {
        Pairs::All => endpoints.len(),
        Pairs::OfOneHost | Pairs::StayingBelow => ENDPOINTS_PER_HOST as usize,
    };
    let step = (endpoints.len() * clients).div_ceil(most);
    let with_clients = |(nth, &provider): (usize, &FunctionId)| {
        endpoints[nth / clients * clients..][..clients].iter().map(move |&client| (provider, client))
    };
    let stays = |&(provider, client): &Pair| machine.index.answer(provider, client).map_type == MapType::BusAddr;
    let pairs = endpoints.iter().enumerate().step_by(step).flat_map(with_clients);
    match which {
        Pairs::All | Pairs::OfOneHost => pairs.collect(),
        Pairs::StayingBelow => pairs.filter(stays).collect(),
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["run", way, endpoints, rounds] => rounds_under_callgrind(way, endpoints, rounds).map(|()| true),
        _ => compare(),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(4)
        }
    }
}

/// What this program does when callgrind runs it.
fn rounds_under_callgrind(way: &str, endpoints: &str, rounds: &str) -> io::Result<()> {
    let number = |text: &str| text.parse::<usize>().map_err(io::Error::other);
    let (way, endpoints, rounds) = (&WAYS[number(way)? % WAYS.len()], number(endpoints)?, number(rounds)?);
    let shelf = shelf(endpoints as u32 / ENDPOINTS_PER_HOST);
    let view = KernelView::new(&shelf.topology);
    let machine = Machine { view: &view, index: view.index() };
    let pairs = pairs_of(way.which, &machine, &shelf.endpoints, way.most_pairs);
    black_box((way.run)(&machine, &pairs, rounds));
    Ok(())
}

fn compare() -> io::Result<bool> {
    let mut all_well = true;
    for endpoints in SIZES {
        let shelf = shelf(endpoints / ENDPOINTS_PER_HOST);
        let view = KernelView::new(&shelf.topology);
        let machine = Machine { view: &view, index: view.index() };
        let functions = shelf.topology.functions().len();
        let bytes = PairIndex::SUMMARY.as_u64();
        println!(
            "{endpoints} endpoints of {functions} functions, {} host bridges: {bytes} bytes an endpoint (ceiling {MOST_BYTES})",
            shelf.topology.host_bridges().len()
        );
        all_well &= shelf.endpoints.len() == endpoints as usize && bytes <= MOST_BYTES;
        all_well &= equal(&machine, &shelf);
        all_well &= count(&machine, &shelf)?;
    }
    Ok(all_well)
}

/// Whether index and both walks agree.
fn equal(machine: &Machine<'_>, shelf: &Shelf) -> bool {
    let bare = BareWalk::new(machine.view);
    let pairs = pairs_of(Pairs::All, machine, &shelf.endpoints, 1 << 18);
    let mut by_type = [0usize; 4];
    for &(provider, client) in &pairs {
        let (answer, decision) = (machine.index.answer(provider, client), machine.view.decide(provider, client));
        let walked =
            Answer { map_type: decision.map_type, distance: decision.distance, distance_is_lower_bound: false };
        if answer != walked || answer != bare.answer(provider, client) || !machine.index.is_summed_up(client) {
            println!("DIFFERENT: {answer:?} and {decision:?}");
            return false;
        }
        by_type[answer.map_type as usize] += 1;
    }
    let compared = pairs.len();
    println!("equal to both walks on {compared} of {} pairs", shelf.endpoints.len().pow(2));
    println!("of those {} BUS_ADDR, {} THRU_HOST_BRIDGE, {} NOT_SUPPORTED", by_type[0], by_type[1], by_type[2]);
    by_type[..3].iter().all(|&some| some > 0)
}

fn count(machine: &Machine<'_>, shelf: &Shelf) -> io::Result<bool> {
    if !callgrind::is_available() {
        println!("SKIPPED bench-pairs: valgrind is not installed");
        return Ok(true);
    }
    println!("{:<20} {:>8} {:>11} {:>8} {:>8} {:>13}", "way", "pairs", "instr/pair", "x index", "gate", "ns (no gate)");
    let program = std::env::current_exe()?;
    let endpoints = shelf.endpoints.len().to_string();
    let mut measured = Vec::new();
    for (nth, way) in WAYS.iter().enumerate() {
        let pairs = pairs_of(way.which, machine, &shelf.endpoints, way.most_pairs);
        let once = |rounds| callgrind::instructions(&program, &["run", &nth.to_string(), &endpoints, rounds]);
        let difference = once("3")?.saturating_sub(once("1")?);
        let start = Instant::now();
        black_box((way.run)(machine, &pairs, 1));
        let nanoseconds = start.elapsed().as_secs_f64() * 1e9;
        let number = pairs.len() as f64;
        measured.push((number, difference as f64 / 2.0 / number, nanoseconds / number));
    }
    let index = measured[INDEX].1;
    let mut all_well = true;
    for (way, &(pairs, instructions, nanoseconds)) in WAYS.iter().zip(&measured) {
        let times = instructions / index;
        let (gate, well) = match way.gate {
            Gate::Nothing => (String::new(), true),
            Gate::Most(most) => (format!("<= {most}"), instructions <= most),
            Gate::LeastOfIndex(least) => (format!(">= {least} x"), times >= least),
        };
        all_well &= well;
        println!(
            "{:<20} {pairs:>8} {instructions:>11.1} {times:>8.1} {gate:>8} {nanoseconds:>13.2}{}",
            way.name,
            if well { "" } else { "  OUT OF BOUNDS" }
        );
    }
    Ok(all_well)
}
