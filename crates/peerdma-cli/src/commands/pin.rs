//! `peerdma pin --prove`: pinned memory keeps its place where plain and locked memory moves.

use crate::args::PinArguments;
use crate::document::pin::ProofDocument;
use crate::exit::{Exit, Failure};
use crate::output::{self, columns};
use crate::progress::Steps;
use anstyle::AnsiColor;
use peerdma::addr::Bytes;
use peerdma_linux::proof::{Keep, Proof, ProofError, Trial, Verdict, fitting, prove};
use std::error::Error;
use std::io::Write;

/// What is tried if nobody says how much.
const USUAL: Bytes = Bytes::new(64 << 20);

pub(crate) fn run(arguments: &PinArguments) -> Result<Exit, Failure> {
    if arguments.output.schema {
        output::schema::<ProofDocument>()?;
        return Ok(Exit::Done);
    }
    let len = arguments.size.unwrap_or_else(|| fitting(USUAL));
    let (mut steps, mut done) = (Steps::new(), 0);
    let all = Bytes::new(len.as_u64().saturating_mul(Keep::ALL.len() as u64));
    let between = |keep: Keep| {
        let what = format!("moving {keep} memory");
        steps.show(&what, Bytes::new(done), all);
        done += len.as_u64();
    };
    let proof = match prove(len, between) {
        Ok(proof) => proof,
        Err(error @ ProofError::Limit(_)) => return refused(&error, Exit::Refused),
        Err(error @ ProofError::NoHugePages) => return refused(&error, Exit::Unknown),
        Err(error) => return Err(Failure::usage(error.to_string())),
    };
    let exit = match proof.verdict() {
        Verdict::Proven => Exit::Done,
        Verdict::Refuted => Exit::Refused,
        Verdict::Inconclusive => Exit::Unknown,
    };
    let printed = if arguments.output.json { output::json(&ProofDocument::new(&proof)) } else { print(&proof) };
    output::concluded(exit, printed)
}

/// Says on standard error why nothing was tried, which is an answer and no failure.
fn refused(error: &ProofError, exit: Exit) -> Result<Exit, Failure> {
    output::notes(&[chain(error)])?;
    Ok(exit)
}

/// An error and everything below it, in one line.
pub(crate) fn chain(error: &(impl Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(error) = below {
        text.push_str(&format!(": {error}"));
        below = error.source();
    }
    text
}

fn print(proof: &Proof) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    writeln!(out, "{} of each, collapsed into huge pages by force", proof.len)?;
    let rows: Vec<Vec<String>> = proof.trials.iter().map(|trial| row(trial).to_vec()).collect();
    columns(&mut out, &["MEMORY", "PAGES", "MOVED", "SHARE", "COLLAPSED", "THE KERNEL'S ANSWERS"], &rows)?;
    let (style, words) = match proof.verdict() {
        Verdict::Proven => (AnsiColor::Green, "plain and locked memory moved, pinned memory did not"),
        Verdict::Refuted => (AnsiColor::Red, "pinned memory moved"),
        Verdict::Inconclusive => {
            (AnsiColor::Yellow, "too little of plain or locked memory moved, or one could not be had")
        }
    };
    let style = style.on_default().bold();
    writeln!(out, "{style}{}{style:#}: {words}", proof.verdict().word())?;
    output::notes(&proof.notes)
}

fn row(trial: &Trial) -> [String; 6] {
    let memory = trial.keep.word().to_string();
    let moved = match &trial.moved {
        Ok(moved) => moved,
        Err(error) => return [memory, "-".into(), "-".into(), "-".into(), "-".into(), chain(error)],
    };
    let answers: Vec<String> = trial
        .collapse
        .refused
        .iter()
        .map(|(errno, times)| format!("{times} times {}", std::io::Error::from_raw_os_error(*errno)))
        .collect();
    let collapsed = format!("{} of {}", trial.collapse.done, trial.collapse.asked);
    let share = format!("{:.1} %", 100.0 * moved.share());
    [memory, moved.pages.to_string(), moved.moved.to_string(), share, collapsed, answers.join(", ")]
}
