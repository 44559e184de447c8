//! Store buffering on two processors, with the barrier and without.
//!
//! One side stores to X and loads Y, the other stores to Y and loads X. That both load what was there before is what a
//! processor does whose loads overtake its stores, and what a guard must never see. No model checker knows
//! `membarrier`, so it is the machine that is asked, and first whether it shows the effect at all.

use super::*;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::io::Write;
use std::sync::atomic::AtomicU64;
use std::thread;
use std::time::{Duration, Instant};

/// A place on cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
struct Padded(AtomicU64);

impl Padded {
    fn load(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn store(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// What both sides share. Rounds are counted from 1; a place that holds the round's number was stored to in it.
#[derive(Default)]
struct Shared {
    x: Padded,
    y: Padded,
    /// Whom each side waits for: the round that the other has got to.
    arrived: [Padded; 2],
    /// Of each side: whether its load saw the other's store in the round whose number is above.
    saw: [Padded; 2],
    stop: Padded,
}

impl Shared {
    /// Waits until both sides have got to `step`; false once somebody has stopped.
    fn meet(&self, side: usize, step: u64) -> bool {
        self.arrived[side].0.store(step, Ordering::Release);
        let mut looks = 0u32;
        while self.arrived[1 - side].0.load(Ordering::Acquire) < step {
            if self.stop.load() != 0 {
                return false;
            }
            looks += 1;
            // The other side may have lost its processor.
            if looks.is_multiple_of(10_000) { thread::yield_now() } else { std::hint::spin_loop() }
        }
        true
    }
}

/// A barrier of which only the compiler's part is left.
struct Removed;

impl HeavyFence for Removed {
    fn light(&self) {
        compiler_fence(Ordering::SeqCst);
    }

    fn heavy(&self) -> Result<(), BarrierRefused> {
        compiler_fence(Ordering::SeqCst);
        Ok(())
    }
}

/// What was seen.
#[derive(Debug)]
struct Seen {
    rounds: u64,
    both_missed: u64,
}

/// Processors of this process, two of them.
fn two_processors() -> Option<[usize; 2]> {
    let allowed = sched_getaffinity(None).ok()?;
    let mut processors = (0..CpuSet::MAX_CPU).filter(|&processor| allowed.is_set(processor));
    Some([processors.next()?, processors.next()?])
}

fn pin_to(processor: usize) {
    let mut one = CpuSet::new();
    one.set(processor);
    // Without, the threads may share a processor for a while, and the effect is seen later.
    let _ = sched_setaffinity(None, &one);
}

/// Rounds until `enough` says so, of which it is told after every one.
fn store_buffering<F: HeavyFence + Sync>(
    fence: &F,
    on: [usize; 2],
    enough: impl Fn(&Seen) -> bool + Send,
) -> Option<Seen> {
    let shared = &Shared::default();
    thread::scope(|threads| {
        let user = threads.spawn(move || {
            pin_to(on[0]);
            for round in 1.. {
                // Y is in this processor's cache and X in the other's: so the load is quick and the store is not.
                let _ = shared.y.load();
                if !shared.meet(0, 2 * round) {
                    return;
                }
                shared.x.store(round);
                fence.light();
                let seen = shared.y.0.load(Ordering::Acquire) == round;
                shared.saw[0].store(u64::from(seen));
                if !shared.meet(0, 2 * round + 1) {
                    return;
                }
            }
        });
        let revoker = threads.spawn(move || {
            pin_to(on[1]);
            let mut found = Seen { rounds: 0, both_missed: 0 };
            for round in 1.. {
                let _ = shared.x.load();
                if !shared.meet(1, 2 * round) {
                    return None;
                }
                shared.y.store(round);
                let carried_out = fence.heavy();
                let seen = shared.x.0.load(Ordering::Acquire) == round;
                if !shared.meet(1, 2 * round + 1) {
                    return None;
                }
                found.rounds = round;
                found.both_missed += u64::from(!seen && shared.saw[0].load() == 0);
                if carried_out.is_err() || enough(&found) {
                    shared.stop.store(1);
                    return carried_out.ok().map(|()| found);
                }
            }
            None
        });
        let found = revoker.join().ok().flatten();
        user.join().ok().and(found)
    })
}

#[test]
fn with_membarrier_one_of_both_sides_sees_the_other_and_without_it_neither() -> Result<(), Box<dyn std::error::Error>> {
    let skip = |reason: String| writeln!(std::io::stderr(), "SKIPPED membarrier-litmus: {reason}");
    let Some(on) = two_processors() else {
        return Ok(skip("fewer than two processors run this process".into())?);
    };
    let fence = match Membarrier::new() {
        Ok(fence) => fence,
        Err(error) => return Ok(skip(error.to_string())?),
    };
    let start = Instant::now();
    let bounded = |seen: &Seen| {
        seen.both_missed >= 10 || seen.rounds.is_multiple_of(4096) && start.elapsed() > Duration::from_secs(30)
    };
    let removed = store_buffering(&Removed, on, bounded).ok_or("a thread of the litmus test panicked")?;
    if removed.both_missed == 0 {
        let rounds = removed.rounds;
        return Ok(skip(format!("these processors have not let a load overtake a store in {rounds} rounds"))?);
    }
    // So many that without the barrier several would have been seen, and at least some ten thousand.
    let rounds = (removed.rounds * 4).clamp(20_000, 400_000);
    let kept = store_buffering(&fence, on, |seen| seen.rounds >= rounds).ok_or("the kernel refused a barrier")?;
    assert_eq!(kept.both_missed, 0, "{kept:?}, without the barrier {removed:?}");
    println!("without: {removed:?}; with: {kept:?}");
    Ok(())
}

/// The way that a child of a fork goes, and a program that asks from several places.
#[test]
fn registering_again_is_no_mistake() {
    if let Ok(first) = Membarrier::new() {
        assert!(first.heavy().is_ok() && Membarrier::new().is_ok_and(|again| again.heavy().is_ok()));
    }
    assert!(CheapestFence::of_this_kernel().heavy().is_ok());
}
