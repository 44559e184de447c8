//! `peerdma probe --platform`: the engine of FROM in a machine that runs in this process.
//!
//! *Granted* is what the library's mapping engine answers, which asks the verdict. With `--force` a refused range is
//! programmed as a driver would that does not ask, so that what becomes of the bytes can be seen.

use super::trial::{Absent, Row, Stage, Trial};
use super::{conclude, ways};
use crate::args::ProbeArguments;
use crate::commands::emulated::{
    Booted, Checked, Place, Session, Transfer, Way, engine_word, with_owner, with_session,
};
use crate::document::HandedDocument;
use crate::exit::{Exit, Failure};
use peerdma::addr::Bytes;
use peerdma::dma::Span;
use peerdma::dma::engine::MapRangesError;
use peerdma::route::{Judge, PairVerdict};

/// How much is moved where nobody says.
const DEFAULT_SIZE: Bytes = Bytes::new(64 << 10);

pub(super) fn run(arguments: &ProbeArguments, platform: &str, from: &str, to: &str) -> Result<Exit, Failure> {
    let booted = Booted::start(platform, arguments.seed)?;
    let size = arguments.size.unwrap_or(DEFAULT_SIZE);
    let (from, to) = (Place::parse(&booted, from, size)?, Place::parse(&booted, to, size)?);
    let target = to.target(&booted)?;
    let (Some(at), Some(target)) = (from.at, target) else {
        let (from, to) = (from.words(), to.words());
        let what =
            format!("{from} and {to}: a probe is of a device and of memory behind another's BAR, such as gpu0/bar2");
        return Err(Failure::usage(what));
    };
    if to.at.is_some_and(|to| to.node == at.node) {
        return Err(Failure::usage(format!("{} and {} are one device; a probe needs two", from.name, to.name)));
    }
    for place in [&from, &to] {
        place.check_blocks()?;
    }
    let judge = Judge::new(booted.kernel.topology());
    let pair = judge.judge(at.function, &target);
    let (engine, ways) = (engine_word(at.model), ways(arguments.pair.need));
    let mut trial = Trial::default();
    if from.moves() {
        let probed = with_session(&booted, &from, |session| {
            ways.iter().map(|&way| probe(arguments, session, &from, &to, &pair, engine, way)).collect()
        });
        trial.rows = probed?;
    } else {
        let needs = vec![format!("{} has no engine that moves bytes; name another device", from.words())];
        trial.absent.push(Absent { engine, needs });
    }
    conclude(arguments, &booted.loaded, &judge, &pair, ways, trial)
}

/// One direction.
fn probe(
    arguments: &ProbeArguments,
    session: &mut Session<'_>,
    own: &Place,
    other: &Place,
    pair: &PairVerdict,
    engine: &'static str,
    way: Way,
) -> Result<Row, Failure> {
    let (spans, granted) = match session.map(other, way.prot()) {
        Ok(spans) => {
            let handed = HandedDocument::new(&spans, true).map(|handed| handed.words());
            (spans, Stage::Yes(handed.unwrap_or_default()))
        }
        Err(error) => {
            let unknown = matches!(&*error, MapRangesError::Refused(refusal) if refusal.is_unknown());
            let stage = if unknown { Stage::Unknown } else { Stage::No };
            if !arguments.force {
                return Ok(Row::unmoved(engine, way, pair, stage(error.to_string())));
            }
            let cpu = other.cpu(session.booted());
            let cpu = cpu.ok_or_else(|| Failure::usage(format!("nobody has an address for {}", other.words())))?;
            let spans = session.map_unasked(cpu, other.len, way.prot())?;
            (spans, stage(format!("{error}; programmed all the same, as a driver does that does not ask")))
        }
    };
    let checked = moved(arguments, session, own, other, &spans, way)?;
    let Some(delivery) = checked.delivery else {
        return Err(Failure::usage(format!("{} has no bytes", other.words())));
    };
    let row = Row { granted, ..Row::moved(engine, way, pair, String::new(), delivery) };
    Ok(match checked.failed {
        Some(error) => Row { verified: Stage::No(format!("{}; {error}", row.verified.evidence())), ..row },
        None => row,
    })
}

fn moved(
    arguments: &ProbeArguments,
    session: &mut Session<'_>,
    own: &Place,
    other: &Place,
    peer: &[Span],
    way: Way,
) -> Result<Checked, Failure> {
    let booted = session.booted();
    with_owner(booted, other, |mut owner| {
        let (seed, verify) = (arguments.seed, true);
        Transfer { way, own, other, peer, seed, verify, fault: None }.run(session, &mut owner)
    })
}
