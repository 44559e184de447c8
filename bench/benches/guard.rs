//! Guards of accesses in flight, and what it takes to revoke them. Rows, gates and the command line are
//! `bench/src`'s; `--help` has them.

use peerdma_bench::rows::{GUARD, guard};
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(reason) = guard::left_out() {
        eprintln!("SKIPPED bench-guard-membarrier: {reason}");
    }
    peerdma_bench::command::run(&GUARD, &arguments, PathBuf::from(env!("CARGO_BIN_EXE_heap")))
}
