//! F1: a device's page fault, served in the same process, beside what hands a thread over at least and what the kernel takes.

use crate::round::median;
use crate::row::{Bound, Figure, Gate, Row, Side, Turn};
use peerdma::access::{Access, Prot};
use peerdma::addr::{AddrRange, Bytes, Granule, ProcVa};
use peerdma::mirror::{Answer, Brought, Event, Fault, Finished, Keeping, MirrorState, Queue, Token, Wanted};
use peerdma_linux::memory::Pages;
use peerdma_linux::mirror::Mirror;
use peerdma_linux::uffd::{Forks, Message, Uffd, Watch};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const PAGE: u64 = 4096;
/// Faults of each kind that are timed one by one.
const FAULTS: u64 = 400;
/// Pages of the range under callgrind.
const RANGE: u64 = 512;

/// The rows of this file.
pub fn rows() -> Vec<Row> {
    vec![Row {
        sides: vec![
            Side::new("queue", asked).turns(200_000, 20_000),
            Side::new("queue and decision", decided).turns(20_000, 4_000),
        ],
        gates: vec![
            Gate::Instructions { of: "queue", most: 400.0 },
            Gate::Instructions { of: "queue and decision", most: 8000.0 },
        ],
        figures: beside_the_kernel,
        ..Row::new("F1", "page fault of a device, served in the process", "fault")
    }]
}

/// Why the kernel's own faults cannot be timed beside, if they cannot.
pub fn left_out() -> Option<String> {
    Uffd::open(Forks::NotTold).err().map(|error| error.to_string())
}

fn page(number: u64) -> AddrRange<ProcVa> {
    match AddrRange::new(ProcVa::new((number + 1) * PAGE), Bytes::new(PAGE)) {
        Some(page) => page,
        None => unreachable!("a few pages are far from the last address"),
    }
}

fn wanted(at: AddrRange<ProcVa>) -> Wanted {
    Wanted { at: at.start(), access: Access::Write }
}

/// The way to the server and back, without anything to decide.
fn asked() -> Turn {
    let queue = Queue::new(64);
    let mut context = queue.seat();
    Box::new(move |turns| {
        let Some(context) = &mut context else { return };
        for turn in 0..turns {
            let _ = std::hint::black_box(context.ask(wanted(page(turn % RANGE))));
            queue.serve(|token, _| {
                queue.respond(token, Answer::Success);
            });
            std::hint::black_box(context.answer());
        }
    })
}

/// The same with a range, its sequence and what is present; each page is thrown away again.
fn decided() -> Turn {
    let queue = Queue::new(64);
    let mut context = queue.seat();
    let mut state = state();
    Box::new(move |turns| {
        let Some(context) = &mut context else { return };
        for turn in 0..turns {
            let at = page(turn % RANGE);
            let _ = context.ask(wanted(at));
            queue.serve(|token, wanted| {
                queue.respond(token, decide(&mut state, token, wanted));
            });
            std::hint::black_box(context.answer());
            let discard = state.begin(&Event::Discard(at));
            let _ = std::hint::black_box(state.end(discard));
        }
    })
}

fn state() -> MirrorState {
    let mut state = match Granule::new(Bytes::new(PAGE)) {
        Some(page) => MirrorState::new(page),
        None => unreachable!("4 KiB are a power of two"),
    };
    let all = AddrRange::new(page(0).start(), Bytes::new(FAULTS.max(RANGE) * PAGE));
    let registered = all.map(|all| state.register(all, Prot::ReadWrite, Keeping::Faulting));
    assert!(matches!(registered, Some(Ok(_))), "nothing else is registered");
    state
}

fn decide(state: &mut MirrorState, token: Token, wanted: Wanted) -> Answer {
    match state.fault(wanted, token) {
        Fault::Bring(ticket) => match state.finish(ticket, Brought::Page(Prot::ReadWrite)) {
            Finished::Map { .. } => Answer::Success,
            _ => Answer::Failure,
        },
        _ => Answer::Failure,
    }
}

/// Medians of single faults, each with the server on another processor, which spins.
fn beside_the_kernel() -> Vec<Figure> {
    let (spin, queue) = (spin_round_trip(), through_the_queue());
    let (Some(spin), Some(queue)) = (spin, queue) else { return Vec::new() };
    let mut figures = vec![Figure {
        what: format!("p50 {queue:.2} us through the queue, beside a spin round trip of {spin:.2} us"),
        value: queue / spin,
        unit: "x",
        bound: Bound::Most(2.0),
        gates: false,
    }];
    if let (Some(kernel), Some(whole)) = (through_uffd(), through_a_mirror()) {
        figures.push(Figure {
            what: format!("p50 through the queue, beside uffd COPY, spinning, of {kernel:.2} us"),
            value: queue / kernel,
            unit: "x",
            bound: Bound::Most(0.1),
            gates: false,
        });
        figures.push(Figure {
            what: format!(
                "p50 {whole:.2} us through a mirror that touches the page (MADV_POPULATE_WRITE), beside the same"
            ),
            value: whole / kernel,
            unit: "x",
            bound: Bound::Most(1.0),
            gates: false,
        });
    }
    figures
}

fn microseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e6
}

/// Two threads hand one cache line back and forth.
fn spin_round_trip() -> Option<f64> {
    let line = AtomicU64::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for turn in 0..FAULTS {
                while line.load(Ordering::Acquire) != 2 * turn + 1 {
                    std::hint::spin_loop();
                }
                line.store(2 * turn + 2, Ordering::Release);
            }
        });
        let round = |turn: u64| {
            let start = Instant::now();
            line.store(2 * turn + 1, Ordering::Release);
            while line.load(Ordering::Acquire) != 2 * turn + 2 {
                std::hint::spin_loop();
            }
            microseconds(start)
        };
        median((0..FAULTS).map(round).collect())
    })
}

/// A request, the decision in another thread, and the answer.
fn through_the_queue() -> Option<f64> {
    let queue = Queue::new(64);
    let mut context = queue.seat()?;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut state = state();
            while !over.load(Ordering::Relaxed) {
                queue.serve(|token, wanted| {
                    queue.respond(token, decide(&mut state, token, wanted));
                });
            }
        });
        let fault = |turn: u64| {
            let start = Instant::now();
            let _ = context.ask(wanted(page(turn)));
            while context.answer().is_none() {
                std::hint::spin_loop();
            }
            microseconds(start)
        };
        let found = median((0..FAULTS).map(fault).collect());
        over.store(true, Ordering::Relaxed);
        found
    })
}

/// A whole mirror: the first access to each page of memory that is there.
fn through_a_mirror() -> Option<f64> {
    let mirror = Mirror::of_owned_memory(()).ok()?;
    let mut context = mirror.context("bench")?;
    let owned = mirror.create(Bytes::new(FAULTS * PAGE)).ok()?;
    owned.write(owned.range().start(), &vec![1; (FAULTS * PAGE) as usize]).ok()?;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                mirror.poll_requests();
            }
        });
        let until = Instant::now() + Duration::from_secs(60);
        let fault = |turn: u64| {
            let at = owned.range().start().checked_add(Bytes::new(turn * PAGE))?;
            let start = Instant::now();
            context.write(at, &[2; 8], until).ok()?;
            Some(microseconds(start))
        };
        let found: Option<Vec<f64>> = (0..FAULTS).map(fault).collect();
        over.store(true, Ordering::Relaxed);
        found.and_then(median)
    })
}

/// The first access to each page, served with copies by a thread that reads messages without waiting.
fn through_uffd() -> Option<f64> {
    // Pages last, and so unmapped last: who unmaps what is watched waits until somebody reads of it.
    let pages = Arc::new(Pages::zeroed(Bytes::new(FAULTS * PAGE)).ok()?);
    let uffd = Uffd::open(Forks::NotTold).ok()?;
    uffd.watch(AddrRange::new(pages.address(), pages.len())?, Watch::Missing).ok()?;
    let bytes = [7; PAGE as usize];
    thread::scope(|scope| {
        let touching = scope.spawn(|| {
            let touch = |turn: u64| {
                let (mut byte, start) = ([0; 1], Instant::now());
                pages.read(Bytes::new(turn * PAGE), &mut byte).ok()?;
                Some(microseconds(start))
            };
            (0..FAULTS).map(touch).collect::<Option<Vec<f64>>>()
        });
        while !touching.is_finished() {
            if let Ok(Some(heard)) = uffd.next()
                && let Message::Fault { at, .. } = heard.message
            {
                // One that is there already was brought for an earlier access.
                let _ = uffd.copy(ProcVa::new(at.as_u64() & !(PAGE - 1)), &bytes);
            }
        }
        touching.join().ok().flatten().and_then(median)
    })
}
