//! The emulated platform beside bare copies. Rows, gates and the command line are
//! `bench/src`'s; `--help` has them.

use peerdma_bench::rows::EMU;
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    peerdma_bench::command::run(&EMU, &arguments, PathBuf::from(env!("CARGO_BIN_EXE_heap")))
}
