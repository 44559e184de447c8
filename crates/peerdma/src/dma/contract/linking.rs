//! Claims about mapping in two steps, and about pointing what is mapped elsewhere.

use super::trial::{Claim, Expected, Stop, Trial};
use super::{Access, Fixture};
use crate::access::Prot;
use crate::dma::abilities::Changes;
use crate::dma::error::MapError;

const NOT_TAKEN: Expected<MapError> =
    Expected { name: "RelinkNotTaken", is: |error| matches!(error, MapError::RelinkNotTaken { .. }) };
const NOT_MAPPED: Expected<MapError> =
    Expected { name: "NotMapped", is: |error| matches!(error, MapError::NotMapped { .. }) };
const MISALIGNED: Expected<MapError> =
    Expected { name: "Misaligned", is: |error| matches!(error, MapError::Misaligned { .. }) };

pub(super) fn claims<X: Fixture>() -> [Claim<X>; 4] {
    [
        Claim { sentence: "what was linked is in reach after one sync of all of it", tries: links },
        Claim {
            sentence: "one unit of a mapping is pointed elsewhere and the rest stays, or nothing is",
            tries: relinks,
        },
        Claim { sentence: "a relinking gives the protection that it asks for", tries: protects },
        Claim { sentence: "a relinking of what is not mapped throughout is refused and changes nothing", tries: holes },
    ]
}

fn links<X: Fixture>(trial: &mut Trial<'_, X>) -> Result<(), Stop> {
    let (one, first) = trial.place(100, 2, 0)?;
    let (other, second) = trial.place(102, 1, 2)?;
    trial.link(one, &first, Prot::ReadWrite)?;
    trial.link(other, &second, Prot::ReadWrite)?;
    let both = trial.range(100, 3)?;
    trial.sync(both);
    trial.seen(one, &first, Access::Write)?;
    trial.seen(other, &second, Access::Read)?;
    // A link is a mapping to all that comes after it.
    let (overlapping, source) = trial.place(101, 1, 1)?;
    if !trial.changes(Changes::REPLACE) {
        let overlap = Expected { name: "Overlap", is: |error| matches!(error, MapError::Overlap { .. }) };
        let attrs = trial.attrs();
        trial.refuses(overlapping, &source, Prot::ReadWrite, attrs, &overlap)?;
    }
    trial.unmap(one, one.len())?;
    trial.unseen(one, &first, Access::Write)?;
    trial.seen(other, &second, Access::Write)?;
    trial.unmap(other, other.len())?;
    trial.nothing_in(both)
}

fn relinks<X: Fixture>(trial: &mut Trial<'_, X>) -> Result<(), Stop> {
    trial.chooses_freely()?;
    let (whole, source) = trial.place(108, 4, 0)?;
    trial.map(whole, &source, Prot::ReadWrite)?;
    // The second unit is pointed at what the fourth one leads to.
    let (second, fourth) = (trial.range(109, 1)?, trial.source(3)?);
    if !trial.changes(Changes::RELINK) {
        trial.stays_linked(second, &fourth, &NOT_TAKEN)?;
        trial.seen(whole, &source, Access::Write)?;
        return trial.unmap(whole, whole.len());
    }
    trial.relink(second, &fourth, Prot::ReadWrite)?;
    trial.seen(second, &fourth, Access::Write)?;
    let was = trial.source(1)?;
    trial.unseen(second, &was, Access::Write)?;
    for (at, units) in [(0, 1), (2, 2)] {
        let (rest, same) = trial.place(108 + at, units, at)?;
        trial.seen(rest, &same, Access::Write)?;
    }
    trial.unmap(whole, whole.len())?;
    trial.unseen(second, &fourth, Access::Write)?;
    trial.nothing_in(whole)
}

fn protects<X: Fixture>(trial: &mut Trial<'_, X>) -> Result<(), Stop> {
    relinking(trial)?;
    let (whole, source) = trial.place(112, 2, 0)?;
    trial.map(whole, &source, Prot::ReadWrite)?;
    let (first, same) = trial.place(112, 1, 0)?;
    trial.relink(first, &same, Prot::Read)?;
    trial.seen(first, &same, Access::Read)?;
    trial.unseen(first, &same, Access::Write)?;
    trial.relink(whole, &source, Prot::ReadWrite)?;
    trial.seen(whole, &source, Access::Write)?;
    trial.unmap(whole, whole.len())
}

fn holes<X: Fixture>(trial: &mut Trial<'_, X>) -> Result<(), Stop> {
    relinking(trial)?;
    let (hole, other) = (trial.range(118, 1)?, trial.source(2)?);
    trial.stays_linked(hole, &other, &NOT_MAPPED)?;
    trial.nothing_in(hole)?;
    let (before, source) = trial.place(116, 2, 0)?;
    let (after, same) = trial.place(119, 1, 0)?;
    trial.map(before, &source, Prot::ReadWrite)?;
    trial.map(after, &same, Prot::ReadWrite)?;
    // A hole at the end, at the start, and in the middle.
    for (at, units) in [(117, 2), (118, 2), (117, 3)] {
        let iova = trial.range(at, units)?;
        trial.stays_linked(iova, &other, &NOT_MAPPED)?;
    }
    // Its faults have the names that a mapping's have.
    let half = trial.abilities().granule.bytes().as_u64() / 2;
    if half != 0 {
        let odd = trial.source_at(crate::addr::Bytes::new(half))?;
        trial.stays_linked(before, &odd, &MISALIGNED)?;
    }
    trial.seen(before, &source, Access::Write)?;
    trial.seen(after, &same, Access::Write)?;
    trial.unmap(before, before.len())?;
    trial.unmap(after, after.len())
}

/// Ends a claim about relinking in a space without it.
fn relinking<X: Fixture>(trial: &mut Trial<'_, X>) -> Result<(), Stop> {
    trial.chooses_freely()?;
    match trial.changes(Changes::RELINK) {
        true => Ok(()),
        false => Err(Stop::DoesNotApply("the space points nothing elsewhere")),
    }
}
