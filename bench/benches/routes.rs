//! Reading a megabyte of `lspci -vvv` and answering: `matrix` and `route`.
//!
//! Counted over the whole process, start-up included, since that is what a person
//! waits for. The raw limit is a process that reads the same file and counts its
//! lines. Ceilings are per whole run; a change that passes one must either be undone
//! or raise it here, with the reason in the commit. They stand some 15 % above what
//! was counted when they were set, since the C library and pci.ids differ by machine.

use peerdma_bench::{callgrind, dump};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

struct Row {
    name: &'static str,
    arguments: &'static [&'static str],
    /// Most instructions of one run.
    ceiling: u64,
}

const ROWS: [Row; 3] = [
    Row { name: "matrix", arguments: &["matrix"], ceiling: 43_000_000 },
    Row { name: "route", arguments: &["route", "0000:03:00.0", "0000:04:00.0"], ceiling: 35_000_000 },
    Row { name: "matrix --all --json", arguments: &["matrix", "--all", "--json"], ceiling: 7_200_000_000 },
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
    // `--short` of every bench is its shortest mode; counting needs one run anyway, the
    // streamed matrix of all pairs is left out then.
    let short = std::env::args().any(|argument| argument == "--short");
    let folder = target_folder();
    let file = folder.join("eight-gpu-server.lspci.txt");
    let text = dump::eight_gpu_server();
    fs::write(&file, &text)?;
    let functions = text.lines().filter(|line| line.as_bytes().first().is_some_and(u8::is_ascii_hexdigit)).count();
    let program = build()?;
    let raw = callgrind::instructions(Path::new("/usr/bin/wc"), &["-l", &file.display().to_string()])?;
    println!(
        "{functions} functions, {} bytes of text; raw limit (wc -l of the same file): {raw} instructions",
        text.len()
    );
    println!("{:<22} {:>14} {:>8} {:>9} {:>14}", "command", "instructions", "per byte", "x limit", "ceiling");
    let mut all_below = true;
    for row in ROWS {
        if short && row.name.contains("--all") {
            continue;
        }
        let path = file.display().to_string();
        let arguments: Vec<&str> = row.arguments.iter().copied().chain(["--from", &path]).collect();
        let count = callgrind::instructions(&program, &arguments)?;
        let below = count <= row.ceiling;
        all_below &= below;
        println!(
            "{:<22} {count:>14} {:>8.1} {:>9.1} {:>14}{}",
            row.name,
            count as f64 / text.len() as f64,
            count as f64 / raw as f64,
            row.ceiling,
            if below { "" } else { "  PASSED" }
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
