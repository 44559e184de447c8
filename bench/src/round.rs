//! Times that can be compared: everybody in turns, within every round.
//!
//! A machine that is shared changes its speed in phases, by up to a factor of two. So no
//! time means anything alone. In each round every side works for some milliseconds, and
//! each round begins with another side; what counts is the ratio of two medians. A side is
//! given the processor time of its thread, which does not go on while others have the
//! processor. Two threads are given the time on the wall, since they may wait for each other.

use crate::row::{Pair, Row, SharedTurn};
use rustix::time::{ClockId, clock_gettime};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

/// Rounds, an odd number so that the median is one of them.
pub const ROUNDS: usize = 11;

/// Nanoseconds a unit for each side of a row, by its place; none where it is not timed.
pub type Times = Vec<Option<f64>>;

/// Times all sides of a row.
pub fn times(row: &Row) -> Times {
    let mut turns: Vec<_> = row.sides.iter().map(|side| (side.timed > 0).then(|| (side.start)())).collect();
    let mut rounds = vec![Vec::with_capacity(ROUNDS); row.sides.len()];
    // The round before the first warms caches, tables and branch predictors.
    for round in 0..=ROUNDS {
        for nth in 0..row.sides.len() {
            let nth = (nth + round) % row.sides.len();
            let (side, Some(turn)) = (&row.sides[nth], &mut turns[nth]) else { continue };
            let start = processor_time();
            turn(side.timed);
            let took = nanoseconds(processor_time().saturating_sub(start)) / (side.timed * side.units) as f64;
            if round > 0 {
                rounds[nth].push(took);
            }
        }
    }
    rounds.into_iter().map(median).collect()
}

/// How much more two threads do together than one alone; 2 is perfect.
pub fn scaling(pair: &Pair) -> Option<f64> {
    let [mut first, mut second] = (pair.start)();
    let (mut alone, mut together) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let one = timed(&mut first, pair.timed);
        let both = side_by_side(&mut first, &mut second, pair.timed);
        if round > 0 {
            alone.push(nanoseconds(one));
            together.push(nanoseconds(both));
        }
    }
    Some(2.0 * median(alone)? / median(together)?)
}

/// What this thread has had of a processor so far.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    // Neither is negative.
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn timed(turn: &mut SharedTurn, turns: u64) -> Duration {
    let start = Instant::now();
    turn(turns);
    start.elapsed()
}

/// The longer of two times that begin together.
fn side_by_side(first: &mut SharedTurn, second: &mut SharedTurn, turns: u64) -> Duration {
    let start = &Barrier::new(2);
    let run = |turn: &mut SharedTurn| {
        start.wait();
        timed(turn, turns)
    };
    thread::scope(|threads| {
        let other = threads.spawn(move || run(second));
        let one = run(first);
        other.join().map_or(one, |other| one.max(other))
    })
}

/// The middle one; `None` of nothing.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn nanoseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e9
}
