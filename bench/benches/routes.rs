//! Reading a megabyte of `lspci -vvv` and answering: `matrix` and `route`.
//!
//! Counted over the whole process, start-up included, since that is what a person
//! waits for. The raw limit is a process that reads the same file and counts its
//! lines (`wc -l`). One run counts, so `--short` changes nothing here. Ceilings are per whole run; a change that passes one must either be undone
//! or raise it here, with the reason in the commit. They stand some 15 % above what
//! was counted when they were set, since the C library and pci.ids differ by machine.

use peerdma_bench::{callgrind, dump};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

struct Row {
    name: &'static str,
    arguments: &'static [&'static str],
    dump: fn() -> String,
    /// Most instructions of one run.
    ceiling: u64,
}

const ROWS: [Row; 3] = [
    Row { name: "matrix", arguments: &["matrix"], dump: dump::eight_gpu_server, ceiling: 125_000_000 },
    Row {
        name: "route",
        arguments: &["route", "0000:03:00.0", "0000:04:00.0"],
        dump: dump::eight_gpu_server,
        ceiling: 38_000_000,
    },
    // Every pair with its reasons as text: what streams, and grows with the square. A pair is
    // followed through the fabric as write, read and atomic, and both ways where the IOMMU's
    // mode is not told, as here.
    Row {
        name: "matrix --all --json",
        arguments: &["matrix", "--all", "--json"],
        dump: dump::eight_gpu_server_without_uncore,
        ceiling: 1_300_000_000,
    },
];

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(4)
        }
    }
}

fn run() -> std::io::Result<bool> {
    if !callgrind::is_available() {
        println!("SKIPPED bench-routes: valgrind is not installed");
        return Ok(true);
    }
    let program = build()?;
    println!(
        "{:<20} {:>9} {:>8} {:>12} {:>13} {:>9} {:>8} {:>12}",
        "command", "functions", "bytes", "wc -l", "instructions", "per byte", "x limit", "ceiling"
    );
    let mut all_below = true;
    for row in ROWS {
        let text = (row.dump)();
        let file = target_folder().join("bench.lspci.txt");
        fs::write(&file, &text)?;
        let path = file.display().to_string();
        let functions = text.lines().filter(|line| line.as_bytes().first().is_some_and(u8::is_ascii_hexdigit)).count();
        let raw = callgrind::instructions(Path::new("/usr/bin/wc"), &["-l", &path])?;
        let arguments: Vec<&str> = row.arguments.iter().copied().chain(["--from", &path]).collect();
        let count = callgrind::instructions(&program, &arguments)?;
        let below = count <= row.ceiling;
        all_below &= below;
        println!(
            "{:<20} {functions:>9} {:>8} {raw:>12} {count:>13} {:>9.1} {:>8.1} {:>12}{}",
            row.name,
            text.len(),
            count as f64 / text.len() as f64,
            count as f64 / raw as f64,
            row.ceiling,
            if below { "" } else { "  TOO MANY" }
        );
    }
    Ok(all_below)
}

/// The program under test, as users build it.
fn build() -> std::io::Result<PathBuf> {
    let status =
        Command::new(env!("CARGO")).args(["build", "--quiet", "--release", "--package", "peerdma-cli"]).status()?;
    if !status.success() {
        return Err(std::io::Error::other("peerdma-cli does not build"));
    }
    Ok(target_folder().join("release/peerdma"))
}

/// The workspace's target folder: this bench runs from `target/release/deps`.
fn target_folder() -> PathBuf {
    let here = std::env::current_exe().unwrap_or_default();
    here.ancestors()
        .find(|folder| folder.ends_with("release"))
        .and_then(Path::parent)
        .unwrap_or(Path::new("target"))
        .into()
}
