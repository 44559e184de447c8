//! G1 to G4: going in and out of a guard, and taking memory away from everybody.

use crate::peers::attachments::Attachments;
use crate::round::{self, median};
use crate::row::{Bound, Figure, Gate, Pair, Row, SharedTurn, Side, Turn};
use peerdma::buffer::guard::{Gate as Guarded, HeavyFence, Portable, Slot};
use peerdma_linux::membarrier::{CheapestFence, Membarrier, NoMembarrier};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

/// Attachments of a buffer that many import.
const MANY: usize = 10_000;

/// Longer than any user is inside.
const LONG: Duration = Duration::from_secs(60);

/// The rows of this file.
pub fn rows() -> Vec<Row> {
    let asymmetric = left_out().is_none().then(asymmetric);
    asymmetric.into_iter().chain([portable(), revoke(), revoke_one()]).collect()
}

const RW_LOCK: Side = Side::new("RwLock", || locked_reads(&Arc::default())).turns(500_000, 20_000).reference(19.0);

fn asymmetric() -> Row {
    Row {
        sides: vec![
            Side::new("membarrier", || accesses(&Guarded::new(registered()))).turns(4_000_000, 20_000),
            Side::new("chosen when run", || accesses(&Guarded::new(CheapestFence::of_this_kernel())))
                .turns(4_000_000, 20_000),
            RW_LOCK,
            Side::new("L", generation_loads).turns(4_000_000, 20_000),
        ],
        pairs: vec![
            Pair {
                name: "membarrier",
                start: || shared_accesses(&Guarded::new(registered())),
                timed: 4_000_000,
                wanted: 1.8,
                stalls: false,
            },
            Pair { name: "RwLock", start: shared_locked_reads, timed: 200_000, wanted: 1.0, stalls: true },
        ],
        gates: vec![
            Gate::Instructions { of: "membarrier", most: 15.0 },
            Gate::Instructions { of: "chosen when run", most: 18.0 },
            Gate::Ratio { of: "membarrier", to: "L", most: 3.0 },
            Gate::Ratio { of: "membarrier", to: "RwLock", most: 0.12 },
        ],
        ..Row::new("G1", "guard in and out, the revoker pays", "access")
    }
}

fn portable() -> Row {
    Row {
        sides: vec![
            Side::new("portable", || accesses(&Guarded::new(Portable))).turns(500_000, 20_000),
            RW_LOCK,
            Side::new("crossbeam-epoch pin", pins).turns(500_000, 20_000).reference(32.0),
        ],
        pairs: vec![Pair {
            name: "portable",
            start: || shared_accesses(&Guarded::new(Portable)),
            timed: 500_000,
            wanted: 1.8,
            stalls: false,
        }],
        gates: vec![
            Gate::Instructions { of: "portable", most: 20.0 },
            Gate::Ratio { of: "portable", to: "RwLock", most: 0.75 },
            Gate::Ratio { of: "portable", to: "crossbeam-epoch pin", most: 1.3 },
        ],
        ..Row::new("G2", "guard in and out, everybody pays", "access")
    }
}

fn revoke() -> Row {
    Row {
        sides: vec![
            Side::new("peerdma 1", || revocations(1, false)).turns(2_000, 0),
            Side::new("peerdma 10k", || revocations(MANY, false)).turns(2_000, 0),
            Side::new("peerdma 10k, told", || revocations(MANY, true)).turns(200, 0),
            Side::new("mutex each 10k", || locked_revocations(MANY, false)).turns(20, 0),
            Side::new("mutex each 10k, told", || locked_revocations(MANY, true)).turns(20, 0),
        ],
        gates: vec![
            Gate::Ratio { of: "peerdma 10k", to: "mutex each 10k", most: 1.0 / 40.0 },
            Gate::Ratio { of: "peerdma 10k, told", to: "mutex each 10k, told", most: 1.0 / 8.0 },
            Gate::Ratio { of: "peerdma 10k", to: "peerdma 1", most: 1.5 },
        ],
        ..Row::new("G3", "end all of N attachments while one is used, open again", "revocation")
    }
}

fn revoke_one() -> Row {
    Row { figures: beyond_the_barrier, ..Row::new("G4", "end one attachment while it is used", "revocation") }
}

/// Why rows about membarrier are left out, if they are.
pub fn left_out() -> Option<NoMembarrier> {
    Membarrier::new().err()
}

/// Rows with it are left out where the kernel has none.
fn registered() -> Membarrier {
    match Membarrier::new() {
        Ok(fence) => fence,
        Err(error) => unreachable!("G1 was to be left out: {error}"),
    }
}

fn slot<F: HeavyFence>(gate: &Guarded<F>) -> Slot<F> {
    match gate.opening() {
        Ok(opening) => opening.slot("bench"),
        Err(error) => unreachable!("nobody closes it: {error}"),
    }
}

#[inline(always)]
fn each_access<F: HeavyFence>(slot: &mut Slot<F>, turns: u64) {
    for _ in 0..turns {
        black_box(slot.enter().is_ok());
    }
}

fn accesses<F: HeavyFence + 'static>(gate: &Guarded<F>) -> Turn {
    let mut slot = slot(gate);
    Box::new(move |turns| each_access(&mut slot, turns))
}

fn shared_accesses<F: HeavyFence + Send + Sync + 'static>(gate: &Guarded<F>) -> [SharedTurn; 2] {
    let thread = || -> SharedTurn {
        let mut slot = slot(gate);
        Box::new(move |turns| each_access(&mut slot, turns))
    };
    [thread(), thread()]
}

fn generation_loads() -> Turn {
    let word = Arc::new(AtomicU64::new(2));
    Box::new(move |turns| {
        for _ in 0..turns {
            black_box(word.load(Ordering::Acquire) == 2);
        }
    })
}

fn read(lock: &RwLock<u64>) -> bool {
    *lock.read().unwrap_or_else(PoisonError::into_inner) == 0
}

#[inline(always)]
fn each_read(lock: &RwLock<u64>, turns: u64) {
    for _ in 0..turns {
        black_box(read(lock));
    }
}

fn locked_reads(lock: &Arc<RwLock<u64>>) -> Turn {
    let lock = Arc::clone(lock);
    Box::new(move |turns| each_read(&lock, turns))
}

fn shared_locked_reads() -> [SharedTurn; 2] {
    let lock = Arc::<RwLock<u64>>::default();
    let thread = || -> SharedTurn {
        let lock = Arc::clone(&lock);
        Box::new(move |turns| each_read(&lock, turns))
    };
    [thread(), thread()]
}

/// With a participant of its own for each thread, as its users hold one.
fn pins() -> Turn {
    let collector = crossbeam_epoch::Collector::new();
    let handle = collector.register();
    Box::new(move |turns| (0..turns).for_each(|_| drop(black_box(handle.pin()))))
}

/// Does `work` while another thread uses what is taken away, from before until after.
fn while_used(importer: impl FnMut() + Send, work: impl FnOnce()) {
    let (begun, stop) = (&AtomicBool::new(false), &AtomicBool::new(false));
    thread::scope(|threads| {
        let mut importer = importer;
        threads.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                importer();
                begun.store(true, Ordering::Relaxed);
            }
        });
        while !begun.load(Ordering::Relaxed) {
            thread::yield_now();
        }
        work();
        stop.store(true, Ordering::Relaxed);
    });
}

/// Whoever is told of a revocation, outside of any lock.
type Told = Box<dyn Fn(u64) + Send>;

fn told(number: usize) -> (Vec<Told>, Arc<AtomicU64>) {
    let count = Arc::new(AtomicU64::new(0));
    let one = |nth: usize| -> Told {
        let count = Arc::clone(&count);
        // Each does something of its own, so that the calls are calls.
        Box::new(move |generation| count.store(generation ^ nth as u64, Ordering::Relaxed))
    };
    ((0..number).map(one).collect(), count)
}

/// One gate in front of all attachments; each finds out by its generation.
fn revocations(attachments: usize, tell: bool) -> Turn {
    let gate = Guarded::new(CheapestFence::of_this_kernel());
    let mut slot = slot(&gate);
    let openings: Vec<_> = (0..attachments).map(|_| gate.opening()).collect();
    let (told, count) = told(if tell { attachments } else { 0 });
    Box::new(move |turns| {
        let importer = || {
            if slot.enter().is_err()
                && let Ok(next) = gate.opening()
            {
                let _ = slot.renew(&next);
            }
        };
        while_used(importer, || {
            for _ in 0..turns {
                revoke_all(&gate, &told);
            }
        });
        black_box((&openings, &count));
    })
}

fn revoke_all<F: HeavyFence>(gate: &Guarded<F>, told: &[Told]) {
    match gate.close().wait_at_most(LONG) {
        Ok(drained) => {
            told.iter().for_each(|told| told(drained.generation().number()));
            let _ = drained.open();
        }
        Err(error) => unreachable!("the importer leaves after each access: {error}"),
    }
}

/// A lock and a condition for each attachment.
fn locked_revocations(attachments: usize, tell: bool) -> Turn {
    let all = Attachments::new(attachments);
    let (told, count) = told(if tell { attachments } else { 0 });
    let mut generation = 0;
    Box::new(move |turns| {
        let mut next = 0;
        let importer = || {
            all.access(next);
            next = (next + 1) % attachments;
        };
        while_used(importer, || {
            for _ in 0..turns {
                generation += 1;
                for nth in 0..attachments {
                    all.revoke(nth, generation);
                    if let Some(told) = told.get(nth) {
                        told(generation);
                    }
                }
            }
        });
        black_box(&count);
    })
}

/// What ending one attachment takes besides the kernel's barrier, in one run with it.
fn beyond_the_barrier() -> Vec<Figure> {
    const TIMES: u32 = 500;
    let fence = CheapestFence::of_this_kernel();
    let gate = Guarded::new(fence);
    let mut slot = slot(&gate);
    let (mut revocations, mut barriers) = (Vec::new(), Vec::new());
    let importer = || {
        if slot.enter().is_err()
            && let Ok(next) = gate.opening()
        {
            let _ = slot.renew(&next);
        }
    };
    while_used(importer, || {
        let timed = |work: &dyn Fn()| {
            let start = Instant::now();
            (0..TIMES).for_each(|_| work());
            start.elapsed().as_secs_f64() * 1e6 / f64::from(TIMES)
        };
        for _ in 0..round::ROUNDS {
            revocations.push(timed(&|| revoke_all(&gate, &[])));
            barriers.push(timed(&|| {
                black_box(fence.heavy().is_ok());
            }));
        }
    });
    let (Some(revocation), Some(barrier)) = (median(revocations), median(barriers)) else { return Vec::new() };
    vec![Figure {
        what: format!("the barrier takes {barrier:.2} us, and besides"),
        value: revocation - barrier,
        unit: "us",
        bound: Bound::Most(2.0),
        gates: false,
    }]
}
