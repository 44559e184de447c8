//! `peerdma copy`: real bytes from one device into another's BAR.
//!
//! Three statements, never mixed: *permitted* is what the rules say, decided first and with
//! the same code as `route`; *granted* is that a driver of the kernel mapped the range, which
//! VFIO does without asking the rules; *verified* is that the bytes were seen where they
//! belong. A refused pair is not touched without `--force`.
//!
//! With `--platform` all of that happens in a machine that is [emulated] in this process.
//!
//! Not here: opening and mapping ([`hardware`]), comparing ([`peerdma_linux::verified`]).

mod emulated;
mod show;

pub(super) use show::words as delivery_words;

use super::hardware::{self, Session, Wanted};
use crate::args::{CopyArguments, InputArguments};
use crate::document::{CopyDocument, GrantedDocument, SCHEMA, Source, VerifiedDocument};
use crate::exit::{Exit, Failure};
use crate::input::{self, Loaded};
use crate::output;
use crate::progress::Steps;
use crate::select;
use peerdma::pcie::PciAddr;
use peerdma::route::{Judge, PairVerdict};
use peerdma::topology::{FunctionId, Topology};
use peerdma_linux::engine::Kind;
use peerdma_linux::interrupt::Interrupts;
use peerdma_linux::verified::{Verification, VerifyError};
use peerdma_linux::vfio::BarRange;
use std::ops::ControlFlow;

/// What happened.
struct Outcome {
    granted: GrantedDocument,
    range: BarRange,
    verification: Option<Verification>,
}

/// How far it came.
enum Attempt {
    /// Nobody tried: the rules do not permit it, and it was not forced.
    No,
    Done(Outcome),
    /// Nothing can be said about the bytes; what was mapped before that, if anything.
    Failed(Option<GrantedDocument>, Failure),
}

pub(crate) fn run(arguments: &CopyArguments) -> Result<Exit, Failure> {
    if let Some(platform) = &arguments.platform {
        return emulated::run(arguments, platform);
    }
    if arguments.output.schema {
        output::schema::<CopyDocument>()?;
        return Ok(Exit::Done);
    }
    let (Some(from), Some(to)) = (&arguments.from_function, &arguments.to_range) else {
        return Err(Failure::usage("copy needs FROM and TO, such as peerdma copy 0000:05:00.0 0000:06:00.0/bar2"));
    };
    let loaded = input::load(&InputArguments::default())?;
    let initiator = select::function(&loaded.topology, from)?;
    let named = select::target(&loaded.topology, to)?;
    let Some((asked, range)) = hardware::named_memory(&loaded.topology, named, to)? else {
        let bars = hardware::bars_of(&loaded.topology, &named.target, to);
        return Err(Failure::usage(format!("{to}: a copy overwrites memory, so it needs to be told which: {bars}")));
    };
    let target = asked.function();
    if initiator == target {
        return Err(Failure::usage(format!("{from} and {to} are the same function; a copy needs two")));
    }
    let judge = Judge::new(&loaded.topology);
    let pair = judge.judge(initiator, &asked);
    let permitted = Exit::judge([hardware::by_linux(&pair)]);
    // A function that is no such engine is named whether or not the pair is permitted.
    let attempt = match check_engine(arguments.engine.into(), &loaded.topology, initiator) {
        Err(failure) => Attempt::Failed(None, failure),
        Ok(()) if permitted == Exit::Done || arguments.force => {
            touch(arguments, address(&loaded, initiator), address(&loaded, target), range)
        }
        Ok(()) => Attempt::No,
    };
    let printed = if arguments.output.json {
        output::json(&document(arguments, &loaded, &judge, &pair, &attempt))
    } else {
        let outcome = match &attempt {
            Attempt::No => Some(None),
            Attempt::Done(outcome) => Some(Some(outcome)),
            // The error says all there is.
            Attempt::Failed(..) => None,
        };
        let print = |outcome| show::print(arguments, judge.kernel(), &pair.kernel, range, outcome);
        output::notes(&loaded.notes).and_then(|()| outcome.map_or(Ok(()), print))
    };
    // What became of the bytes is told by the exit code too, also where nobody reads the rest.
    match attempt {
        Attempt::Failed(_, failure) => Err(failure),
        Attempt::No => output::concluded(permitted, printed),
        Attempt::Done(outcome) => match outcome.verification.as_ref().and_then(show::failure) {
            Some(what) => Err(Failure::Device { what, source: None }),
            None => output::concluded(Exit::Done, printed),
        },
    }
}

fn address(loaded: &Loaded, id: FunctionId) -> PciAddr {
    loaded.topology.function(id).address()
}

/// Refuses an initiator that is known not to be such an engine, before its driver is asked for.
fn check_engine(engine: Kind, topology: &Topology, initiator: FunctionId) -> Result<(), Failure> {
    let info = topology.function(initiator).info();
    let checked = engine.check(info.address, info.registers.id, info.registers.class);
    checked.map_err(|lack| Failure::Device { what: lack.to_string(), source: None })
}

/// Opens both devices, maps, moves, and gives everything back.
fn touch(arguments: &CopyArguments, initiator: PciAddr, target: PciAddr, range: BarRange) -> Attempt {
    // From here on something may have to be put back; a signal is noticed between two steps.
    let interrupts = Interrupts::watch();
    let mut session = match Session::open(arguments.via, Wanted { initiator, target, range }) {
        Ok(session) => session,
        Err(why) => return Attempt::Failed(None, why.into()),
    };
    let granted = session.granted();
    let mut progress = Steps::new();
    let mut observe = |now: peerdma_linux::verified::Progress| {
        progress.show("copying", now.done, now.total);
        if interrupts.as_ref().is_some_and(Interrupts::came) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let result = if arguments.verify {
        session.verify(arguments.seed, &mut observe).map(Some)
    } else {
        session.transfer(arguments.seed, &mut observe).map(|()| None)
    };
    let closed = session.close();
    let result = result.map_err(|error| match error {
        VerifyError::Interrupted if !arguments.verify => Failure::Device {
            what: "interrupted; the target keeps what had been moved by then".to_string(),
            source: None,
        },
        error => Failure::device(format!("cannot copy to {target} {range}"), error),
    });
    match result.and_then(|verification| closed.map(|()| verification)) {
        Ok(verification) => Attempt::Done(Outcome { granted, range, verification }),
        Err(failure) => Attempt::Failed(Some(granted), failure),
    }
}

fn document(
    arguments: &CopyArguments,
    loaded: &Loaded,
    judge: &Judge<'_>,
    pair: &PairVerdict,
    attempt: &Attempt,
) -> CopyDocument {
    let (granted, outcome) = match attempt {
        Attempt::No => (None, None),
        Attempt::Done(outcome) => (Some(&outcome.granted), Some(outcome)),
        Attempt::Failed(granted, _) => (granted.as_ref(), None),
    };
    let moved = outcome.map(|outcome| match &outcome.verification {
        Some(verification) => verification.checked.as_u64(),
        None => outcome.range.len().as_u64(),
    });
    let verification = outcome.and_then(|outcome| outcome.verification);
    CopyDocument {
        schema: SCHEMA,
        source: Source::new(loaded),
        engine: Kind::from(arguments.engine).word(),
        pair: super::route::explained(judge, pair, Vec::new()),
        forced: arguments.force,
        granted: granted.cloned(),
        moved,
        verified: verification.map(|verification| VerifiedDocument::new(arguments.seed, &verification)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::select::Asked;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        copy: CopyArguments,
    }

    #[test]
    fn a_copy_that_failed_keeps_what_was_permitted_and_claims_nothing_else() {
        let input = InputArguments { platform: Some("two-socket".into()), ..Default::default() };
        let loaded = input::load(&input).unwrap();
        let initiator = select::function(&loaded.topology, "nic0").unwrap();
        let Asked { target, .. } = select::target(&loaded.topology, "gpu0/bar0").unwrap();
        let line = Line::try_parse_from(["copy", "nic0", "gpu0/bar0", "--json"]).unwrap();
        let judge = Judge::new(&loaded.topology);
        let failed = Attempt::Failed(None, Failure::Device { what: "cannot open them".into(), source: None });
        let pair = judge.judge(initiator, &target);
        let document = document(&line.copy, &loaded, &judge, &pair, &failed);
        let document = serde_json::to_value(document).unwrap();
        assert_eq!(document["pair"]["verdict"], "direct");
        for statement in ["granted", "moved", "verified"] {
            assert!(document[statement].is_null(), "{statement}");
        }
    }
}
