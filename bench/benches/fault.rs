//! Page faults of devices. Rows, gates and the command line are `bench/src`'s; `--help` has them.

use peerdma_bench::rows::{FAULT, fault};
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(reason) = fault::left_out() {
        eprintln!("SKIPPED bench-fault-userfaultfd: {reason}");
    }
    peerdma_bench::command::run(&FAULT, &arguments, PathBuf::from(env!("CARGO_BIN_EXE_heap")))
}
