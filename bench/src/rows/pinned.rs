//! P1, P2, F2: blocks of a pool, what a pin takes, and whether pinned memory is ever waited for.

use super::kept;
use crate::jitter::{self, Kind};
use crate::round::median;
use crate::row::{Bound, Figure, Gate, Row, Side, Turn};
use peerdma::addr::{AddrRange, Bytes, ProcVa};
use peerdma::pool::{Area, Cache};
use peerdma_linux::memory::Pages;
use peerdma_linux::pin::{Pinner, RingError};
use std::hint::black_box;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Instant;

/// As long as a packet.
const BLOCK: Bytes = Bytes::new(1500);

/// The rows of this file.
pub fn rows() -> Vec<Row> {
    let mut rows = vec![blocks()];
    if left_out().is_none() {
        rows[0].sides.push(Side::new("malloc + register", registered).turns(400, 0));
        rows[0].gates.push(Gate::Ratio { of: "cache", to: "malloc + register", most: 1.0 / 20.0 });
        rows.push(Row { figures: latencies, ..Row::new("PIN2", "pin touched memory and let it go", "pin") });
        rows.push(Row { figures: jitters, ..Row::new("F2", "accesses while the kernel moves what it can", "access") });
    }
    rows
}

/// What is counted, without anything that valgrind cannot run: it knows no rings.
pub fn counted() -> Vec<Row> {
    vec![blocks()]
}

/// Why rows about pins are left out, if they are.
pub fn left_out() -> Option<RingError> {
    Pinner::new().err()
}

fn blocks() -> Row {
    Row {
        sides: vec![
            Side::new("cache", cached).turns(400_000, 4_000),
            Side::new("pool, no cache", locked).turns(100_000, 2_000),
            Side::new("malloc", malloc).turns(400_000, 4_000),
        ],
        gates: vec![
            Gate::Instructions { of: "cache", most: 200.0 },
            Gate::Instructions { of: "pool, no cache", most: 1800.0 },
            Gate::Ratio { of: "cache", to: "malloc", most: 1.0 },
            Gate::NoAllocation { of: "cache" },
        ],
        ..Row::new("PIN1", "a block of 1500 bytes, taken and put back", "block")
    }
}

fn area() -> Arc<Area> {
    let range = AddrRange::new(ProcVa::new(0x7000_0000_0000), Bytes::new(16 << 20));
    let Some(Ok(area)) = range.map(|range| Area::new(range, Area::LINE)) else { unreachable!("whole cache lines") };
    Arc::new(area)
}

fn cached() -> Turn {
    let area = area();
    let Ok(owner) = area.owner("bench") else { unreachable!("the first owner") };
    let mut cache = Cache::new(area);
    // The first of a length makes room for its kind.
    let mut turn = move |turns: u64| {
        for _ in 0..turns {
            let Ok(block) = cache.take(BLOCK, owner) else { unreachable!("one block of 16 MiB") };
            if cache.put(black_box(block)).is_err() {
                unreachable!("it is the cache's own")
            }
        }
    };
    turn(1);
    Box::new(turn)
}

fn locked() -> Turn {
    let area = kept(area());
    let Ok(owner) = area.owner("bench") else { unreachable!("the first owner") };
    Box::new(move |turns| {
        for _ in 0..turns {
            let Ok(block) = area.take(BLOCK, owner) else { unreachable!("one block of 16 MiB") };
            if area.put(black_box(block)).is_err() {
                unreachable!("it is the area's own")
            }
        }
    })
}

fn malloc() -> Turn {
    Box::new(|turns| {
        for _ in 0..turns {
            black_box(Vec::<u8>::with_capacity(BLOCK.as_u64() as usize));
        }
    })
}

/// What a driver without a pool does: memory for each buffer, and a registration of it.
fn registered() -> Turn {
    let Ok(pinner) = Pinner::new() else { unreachable!("it was there a moment ago") };
    Box::new(move |turns| {
        for _ in 0..turns {
            let memory = black_box(vec![0_u8; BLOCK.as_u64() as usize]);
            let pin = pinner.pin_foreign(ProcVa::new(memory.as_ptr().addr() as u64), BLOCK);
            if pin.is_err() {
                unreachable!("memory of the heap is pinned: {pin:?}")
            }
        }
    })
}

/// Microseconds by length, each beside what it takes to find and touch as much memory, and to ask another thread four times:
/// pins are made by one that no child inherits.
fn latencies() -> Vec<Figure> {
    let asked = 4.0 * round_trip();
    let sizes = [(4_u64 << 10, 200), (64 << 10, 100), (2 << 20, 20), (64 << 20, 3)];
    let Ok(pinner) = Pinner::new() else { return Vec::new() };
    let mut figures = Vec::new();
    for (size, times) in sizes {
        let (mut touched, mut pinned) = (Vec::new(), Vec::new());
        for _ in 0..times {
            let start = Instant::now();
            let Ok(pages) = Pages::zeroed(Bytes::new(size)) else { return figures };
            for page in 0..size / 0x1000 {
                if pages.write(Bytes::new(page * 0x1000), &[1]).is_err() {
                    unreachable!("it lies in the pages")
                }
            }
            touched.push(start.elapsed().as_secs_f64() * 1e6);
            let pages = Arc::new(pages);
            let start = Instant::now();
            drop(black_box(pinner.pin(Arc::clone(&pages))));
            pinned.push(start.elapsed().as_secs_f64() * 1e6);
        }
        let (Some(pinned), Some(touched)) = (median(pinned), median(touched)) else { continue };
        figures.push(Figure {
            what: format!("{}; the bound is mapping and touching it, and four trips to a thread", Bytes::new(size)),
            value: pinned,
            unit: "us",
            bound: Bound::Most(touched + asked),
            gates: false,
        });
    }
    figures
}

/// Microseconds to ask another thread something and to hear the answer.
fn round_trip() -> f64 {
    let (ask, asked) = mpsc::channel::<()>();
    let (answer, answered) = mpsc::channel::<()>();
    let other = thread::spawn(move || asked.iter().try_for_each(|()| answer.send(())));
    let trip = || {
        let start = Instant::now();
        let heard = ask.send(()).is_ok() && answered.recv().is_ok();
        heard.then(|| start.elapsed().as_secs_f64() * 1e6)
    };
    let trips: Vec<f64> = (0..200).filter_map(|_| trip()).collect();
    drop(ask);
    drop(other.join());
    median(trips).unwrap_or(0.0)
}

/// Faults of accesses to pinned memory, which decide, and tails, which do not.
fn jitters() -> Vec<Figure> {
    // A fault of the thread's own, which nobody here can tell from the memory's, does not come three times in a row; moved
    // memory faults each time.
    let pinned =
        (0..3).map(|_| jitter::measure(Kind::Pinned, 4)).find(|it| it.as_ref().map_or(true, |it| it.faults == 0));
    let pinned = pinned.unwrap_or_else(|| jitter::measure(Kind::Pinned, 4));
    let (Ok(pinned), Ok(locked)) = (pinned, jitter::measure(Kind::Locked, 4)) else {
        return vec![Figure {
            what: "there is memory to lock and to pin".into(),
            value: 0.0,
            unit: "samples",
            bound: Bound::Least(1.0),
            gates: true,
        }];
    };
    let figure = |what: &str, value: f64, unit: &'static str, bound: Bound, gates: bool| Figure {
        what: what.into(),
        value,
        unit,
        bound,
        gates,
    };
    vec![
        figure("pinned: faults", pinned.faults as f64, "faults", Bound::Most(0.0), true),
        figure("pinned: pages moved", 100.0 * pinned.moved, "%", Bound::Most(0.0), true),
        figure("mlocked beside it: pages moved", 100.0 * locked.moved, "%", Bound::Least(90.0), false),
        figure(
            "pinned: p99",
            f64::from(pinned.within(990)) / f64::from(pinned.within(500).max(1)),
            "x p50",
            Bound::Most(3.0),
            false,
        ),
        figure(
            "pinned: longest",
            f64::from(pinned.longest()) / 1e3,
            "us",
            Bound::Most(f64::from(locked.longest()) / 1e3),
            false,
        ),
    ]
}
