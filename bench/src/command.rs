//! The command line of the benches `mapping`, `emu`, `guard` and `pin`, and what they print.

use crate::callgrind;
use crate::count::Programs;
use crate::judge::{Conditions, Outcome, Taken, Verdict, judge, short};
use crate::row::Row;
use crate::rows::Table;
use serde_json::{Value, json};
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

const HELP: &str = "\
Measures rows of a table in bench/README.md.

usage: NAME [--row ID]... [--repeat N] [--strict] [--json FILE|-]

  --row ID     only this row; more than once for more
  --repeat N   repeats the rounds, and takes the median ratio (1)
  --strict     ratios of times decide too, for a quiet machine
  --json FILE  writes everything found as JSON too; - for stdout instead of the table

Exits with 1 if something that decides is not as wanted, 2 for a wrong command line, 4 if
something cannot be run.

examples:
  cargo bench -p peerdma-bench --bench mapping
  cargo bench -p peerdma-bench --bench mapping -- --row PT3 --repeat 5 --strict
";

/// What is asked for.
#[derive(Default)]
struct Options {
    rows: Vec<String>,
    repeat: usize,
    strict: bool,
    json: Option<String>,
}

/// Does what the arguments say with the rows of `table`. `heap` is the program with the counting allocator.
pub fn run(table: &Table, arguments: &[String], heap: PathBuf) -> ExitCode {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let ["--count", row, side, turns] = arguments[..] {
        return under_callgrind(table, row, side, turns);
    }
    if arguments.iter().any(|argument| matches!(*argument, "--help" | "-h")) {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let outcome = parse(table, &arguments)
        .map_err(|error| (2, error))
        .and_then(|options| measure(table, &options, heap).map_err(|error| (4, error.to_string())));
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err((code, error)) => {
            eprintln!("error: {error}");
            ExitCode::from(code)
        }
    }
}

fn parse(table: &Table, arguments: &[&str]) -> Result<Options, String> {
    let mut options = Options { repeat: 1, ..Options::default() };
    let mut arguments = arguments.iter();
    while let Some(&argument) = arguments.next() {
        let mut value = || arguments.next().map(|&value| value.to_owned()).ok_or(format!("{argument} wants a value"));
        match argument {
            // Cargo says the first, CI the second; neither changes anything.
            "--bench" | "--short" => {}
            "--strict" => options.strict = true,
            "--row" => options.rows.push(value()?),
            "--json" => options.json = Some(value()?),
            "--repeat" => {
                let repeat = value()?;
                options.repeat = match repeat.parse() {
                    Ok(repeat) if repeat > 0 => repeat,
                    _ => return Err(format!("--repeat {repeat}: want a number of at least 1")),
                };
            }
            _ => return Err(format!("unknown argument {argument}; see --help")),
        }
    }
    for row in &options.rows {
        if table.row(row).is_none() {
            let ids: Vec<&str> = (table.rows)().iter().map(|row| row.id).collect();
            return Err(format!("no row {row}; there are {}", ids.join(", ")));
        }
    }
    Ok(options)
}

/// What this program does when callgrind runs it.
fn under_callgrind(table: &Table, row: &str, side: &str, turns: &str) -> ExitCode {
    let row = table.row(row);
    let side = row.as_ref().and_then(|row| row.side(side));
    let (Some(side), Ok(turns)) = (side, turns.parse()) else {
        eprintln!("error: no such side to count");
        return ExitCode::from(2);
    };
    (side.start)()(turns);
    ExitCode::SUCCESS
}

fn measure(table: &Table, options: &Options, heap: PathBuf) -> io::Result<bool> {
    let programs = Programs { bench: std::env::current_exe()?, heap };
    let conditions = Conditions {
        programs: &programs,
        counts: callgrind::is_available(),
        repeat: options.repeat,
        strict: options.strict,
    };
    let to_stdout = options.json.as_deref() == Some("-");
    if !conditions.counts {
        eprintln!("SKIPPED bench-{}: valgrind is not installed, so no instructions are counted", table.name);
    }
    let wanted = |row: &Row| options.rows.is_empty() || options.rows.iter().any(|id| *id == row.id);
    let mut outcomes = Vec::new();
    for row in (table.rows)().into_iter().filter(wanted) {
        let outcome = judge(&row, &conditions)?;
        if !to_stdout {
            print_sides(&row, &outcome)?;
        }
        outcomes.push((row, outcome));
    }
    if !to_stdout {
        print_table(table, &outcomes)?;
    }
    if let Some(file) = &options.json {
        let document = serde_json::to_string_pretty(&document(&outcomes, options)).map_err(io::Error::other)?;
        if to_stdout { println!("{document}") } else { fs::write(file, document + "\n")? }
    }
    let mut verdicts = outcomes.iter().flat_map(|(_, outcome)| &outcome.findings).map(|finding| finding.verdict);
    Ok(!verdicts.any(|verdict| verdict == Verdict::Failed))
}

fn print_sides(row: &Row, outcome: &Outcome) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}: {}, for each {}", row.id, row.what, row.unit)?;
    for taken in &outcome.taken {
        let number = |number: Option<f64>| number.map_or_else(|| "-".to_owned(), short);
        let when = taken.reference.map(|reference| format!(" (expected {})", short(reference))).unwrap_or_default();
        write!(
            out,
            "  {:<28} {:>9} instr{when}, {} ns",
            taken.side,
            number(taken.instructions),
            number(taken.nanoseconds)
        )?;
        match (taken.heap, taken.nanoseconds) {
            (Some(heap), None) => writeln!(out, ", {} bytes held", heap.held)?,
            (Some(heap), Some(_)) => writeln!(out, ", {} allocations", heap.allocations)?,
            (None, _) => writeln!(out)?,
        }
    }
    writeln!(out)
}

fn print_table(table: &Table, outcomes: &[(Row, Outcome)]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "| id | what | target | result | verdict |\n|---|---|---|---|---|")?;
    for (row, outcome) in outcomes {
        for finding in &outcome.findings {
            let (what, target, result) = (&finding.what, &finding.target, &finding.result);
            writeln!(out, "| {} | {}: {what} | {target} | {result} | {} |", row.id, row.what, finding.verdict)?;
        }
    }
    let all = || outcomes.iter().flat_map(|(_, outcome)| &outcome.findings);
    let number = |verdict| all().filter(|finding| finding.verdict == verdict).count();
    writeln!(
        out,
        "\n{}: {} met, {} missed, {} failed, {} with an invalid limit, {} skipped",
        table.name,
        number(Verdict::Met),
        number(Verdict::Missed),
        number(Verdict::Failed),
        number(Verdict::LimitInvalid),
        number(Verdict::Skipped)
    )
}

fn document(outcomes: &[(Row, Outcome)], options: &Options) -> Value {
    let side = |taken: &Taken| {
        json!({
            "side": taken.side,
            "instructions": taken.instructions,
            "expected_instructions": taken.reference,
            "nanoseconds": taken.nanoseconds,
            "heap_bytes": taken.heap.map(|heap| heap.held),
            "allocations": taken.heap.map(|heap| heap.allocations),
        })
    };
    let row = |(row, outcome): &(Row, Outcome)| {
        let findings = outcome.findings.iter().map(|finding| {
            json!({
                "what": finding.what,
                "target": finding.target,
                "result": finding.result,
                "verdict": finding.verdict.to_string(),
            })
        });
        json!({
            "id": row.id,
            "what": row.what,
            "unit": row.unit,
            "sides": outcome.taken.iter().map(side).collect::<Vec<_>>(),
            "findings": findings.collect::<Vec<_>>(),
        })
    };
    json!({
        "repeat": options.repeat,
        "strict": options.strict,
        "rows": outcomes.iter().map(row).collect::<Vec<_>>(),
    })
}
