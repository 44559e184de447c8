//! Memory that stays where it is: blocks of a pool, pins, and accesses that are never waited for. Rows, gates and the
//! command line are `bench/src`'s; `--help` has them. `--draw` measures how long accesses take by how memory is kept, and
//! prints what stands in `docs/pin-or-fault.md`; `--draw ../docs/pin-or-fault.md` puts it there (cargo runs benches in their folder).

use peerdma_bench::jitter::{self, Kind};
use peerdma_bench::rows::{PIN, PIN_COUNTED, pinned};
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

const BEGIN: &str = "<!-- drawn by `cargo bench -p peerdma-bench --bench pin -- --draw` -->\n";
const END: &str = "<!-- end -->\n";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let heap = PathBuf::from(env!("CARGO_BIN_EXE_heap"));
    if arguments.first().is_some_and(|first| first == "--count") {
        return peerdma_bench::command::run(&PIN_COUNTED, &arguments, heap);
    }
    if let Some(reason) = pinned::left_out() {
        eprintln!("SKIPPED bench-pin: {reason}");
    }
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--draw"] => draw(None),
        ["--draw", file] => draw(Some(file)),
        _ => peerdma_bench::command::run(&PIN, &arguments, heap),
    }
}

fn draw(file: Option<&str>) -> ExitCode {
    let mut measured = Vec::new();
    for kind in Kind::ALL {
        match jitter::measure(kind, 8) {
            Ok(jitter) => measured.push((kind, jitter)),
            Err(error) => {
                eprintln!("error: {}: {error}", kind.name());
                return ExitCode::from(4);
            }
        }
    }
    let drawn = format!("{}\n```text\n{}```\n", jitter::summary(&measured), jitter::drawn(&measured));
    let Some(file) = file else {
        print!("{drawn}");
        return ExitCode::SUCCESS;
    };
    let put = fs::read_to_string(file).map_err(|error| error.to_string()).and_then(|text| {
        let (before, rest) = text.split_once(BEGIN).ok_or_else(|| format!("has no line {}", BEGIN.trim()))?;
        let (_, after) = rest.split_once(END).ok_or_else(|| format!("has no line {}", END.trim()))?;
        fs::write(file, format!("{before}{BEGIN}{drawn}{END}{after}")).map_err(|error| error.to_string())
    });
    match put {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {file}: {error}");
            ExitCode::from(4)
        }
    }
}
