//! Prints what a side of a row holds on the heap once built, and how often its turns take
//! from it: `heap ROW SIDE TURNS`.
//!
//! The turns are done twice and counted the second time, when what is kept for the next
//! turn is there.

use peerdma_bench::rows;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use std::process::ExitCode;

#[global_allocator]
static HEAP: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [row, side, turns] = &arguments[..] else { return usage() };
    let (Some(row), Ok(turns)) = (rows::row(row), turns.parse()) else { return usage() };
    let Some(side) = row.side(side) else { return usage() };
    let mut region = Region::new(HEAP);
    let mut turn = (side.start)();
    let built = region.change_and_reset();
    turn(turns);
    region.reset();
    turn(turns);
    let taken = region.change();
    println!("{} {}", built.bytes_allocated - built.bytes_deallocated, taken.allocations + taken.reallocations);
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    eprintln!("usage: heap ROW SIDE TURNS, as the benches `mapping` and `emu` start it");
    ExitCode::from(2)
}
