//! Claims about unmapping, where spaces differ most.

use super::trial::{Claim, Expected, FileOf, Stop, Trial};
use super::{Access, Fixture};
use crate::access::Prot;
use crate::addr::{AddrRange, Bytes, Iova};
use crate::dma::abilities::Changes;
use crate::dma::error::UnmapError;
use crate::dma::io_space::Source;
use alloc::format;
use alloc::vec::Vec;

const SPLIT: Expected<UnmapError> = Expected { name: "Split", is: |error| matches!(error, UnmapError::Split { .. }) };
const NOT_ONE: Expected<UnmapError> =
    Expected { name: "NotOneMapping", is: |error| matches!(error, UnmapError::NotOneMapping { .. }) };
const MISALIGNED: Expected<UnmapError> =
    Expected { name: "Misaligned", is: |error| matches!(error, UnmapError::Misaligned { .. }) };

pub(super) fn claims<X: Fixture>() -> [Claim<X>; 6] {
    [
        Claim { sentence: "several mappings come out in one call, gaps and all, or only one by one", tries: several },
        Claim { sentence: "a part of a mapping comes out alone, or not at all and the mapping stays", tries: part },
        Claim {
            sentence: "an unmapping that would cut one mapping leaves the others whole too",
            tries: part_of_the_last,
        },
        Claim { sentence: "unmapping where nothing is mapped answers as the space says", tries: nothing },
        Claim { sentence: "an unaligned unmapping is refused and changes nothing", tries: unaligned },
        Claim { sentence: "sixty-four mappings come out one by one in another order", tries: many },
    ]
}

/// A mapping that a claim made: where, and to what.
type Single<X> = (AddrRange<Iova>, Source<FileOf<X>>);

/// Maps single units at these units of the area.
fn singles<X: Fixture>(trial: &mut Trial<'_, X>, at: &[u64]) -> Result<Vec<Single<X>>, Stop> {
    let mut singles = Vec::new();
    for at in at {
        let (iova, source) = trial.place(*at, 1, 0)?;
        trial.map(iova, &source, Prot::ReadWrite)?;
        singles.push((iova, source));
    }
    Ok(singles)
}

fn several<X: Fixture>(trial: &mut Trial<'_, X>) -> Result<(), Stop> {
    let unit = trial.unit().as_u64();
    // Two neighbours, then a gap on each side of them, then a gap between them.
    for (mapped, all) in [(&[1, 2], (1, 2)), (&[1, 2], (0, 4)), (&[0, 3], (0, 4))] {
        let singles = singles(trial, mapped)?;
        let all = trial.range(all.0, all.1)?;
        if trial.changes(Changes::UNMAP_SEVERAL) {
            trial.unmap(all, Bytes::new(2 * unit))?;
        } else {
            trial.keeps(all, &NOT_ONE)?;
            for (range, source) in &singles {
                trial.seen(*range, source, Access::Write)?;
                trial.unmap(*range, range.len())?;
            }
        }
        for (range, source) in &singles {
            trial.unseen(*range, source, Access::Write)?;
        }
        trial.nothing_in(all)?;
    }
    Ok(())
}

fn part<X: Fixture>(trial: &mut Trial<'_, X>) -> Result<(), Stop> {
    let (whole, source) = trial.place(8, 4, 0)?;
    for (at, units) in [(8, 2), (10, 2), (9, 2), (6, 4), (10, 4)] {
        trial.map(whole, &source, Prot::ReadWrite)?;
        let cut = trial.range(at, units)?;
        if trial.changes(Changes::UNMAP_PART | Changes::UNMAP_SEVERAL) {
            // What is left is unmapped as one range that holds a gap, hence both abilities.
            let first = cut.start().max(whole.start());
            let shared = AddrRange::from_inclusive(first, cut.last().min(whole.last()));
            let out = shared.map_or(Bytes::ZERO, |shared| shared.len());
            trial.unmap(cut, out)?;
            trial.unmap(whole, Bytes::new(whole.len().as_u64() - out.as_u64()))?;
        } else if trial.changes(Changes::UNMAP_PART) {
            let (half, rest) = (trial.range(8, 2)?, trial.range(10, 2)?);
            trial.shrunk(whole, rest);
            trial.unmap(half, half.len())?;
            trial.unmap(rest, rest.len())?;
        } else {
            trial.keeps(cut, &SPLIT)?;
            trial.seen(whole, &source, Access::Write)?;
            trial.unmap(whole, whole.len())?;
        }
    }
    Ok(())
}

/// iommufd by itself fails this one: it unmaps what lies whole below the cut, then says ENOENT.
fn part_of_the_last<X: Fixture>(trial: &mut Trial<'_, X>) -> Result<(), Stop> {
    if trial.changes(Changes::UNMAP_PART) {
        return Err(Stop::DoesNotApply("the space unmaps parts of mappings"));
    }
    let both = [trial.place(16, 2, 0)?, trial.place(18, 2, 0)?];
    for (whole, source) in &both {
        trial.map(*whole, source, Prot::ReadWrite)?;
    }
    let all_but_the_end = trial.range(16, 3)?;
    trial.keeps(all_but_the_end, &SPLIT)?;
    let all_but_the_start = trial.range(17, 3)?;
    trial.keeps(all_but_the_start, &SPLIT)?;
    for (whole, source) in &both {
        trial.seen(*whole, source, Access::Write)?;
        trial.unmap(*whole, whole.len())?;
    }
    Ok(())
}

fn nothing<X: Fixture>(trial: &mut Trial<'_, X>) -> Result<(), Stop> {
    let never = trial.range(24, 2)?;
    trial.nothing_in(never)?;
    let once = singles(trial, &[24])?;
    for (range, _) in once {
        trial.unmap(range, range.len())?;
        trial.nothing_in(range)?;
    }
    // Between two mappings there is nothing either, and they stay.
    let neighbours = singles(trial, &[28, 30])?;
    let between = trial.range(29, 1)?;
    trial.nothing_in(between)?;
    for (range, _) in neighbours {
        trial.unmap(range, range.len())?;
    }
    Ok(())
}

fn unaligned<X: Fixture>(trial: &mut Trial<'_, X>) -> Result<(), Stop> {
    let half = trial.abilities().granule.bytes().as_u64() / 2;
    if half == 0 {
        return Err(Stop::DoesNotApply("the granule is one byte"));
    }
    let whole = singles(trial, &[33])?;
    let around = trial.range(32, 3)?;
    for (range, source) in whole {
        for (offset, len) in [(half, 2 * range.len().as_u64()), (0, 2 * range.len().as_u64() + half)] {
            if let Some(iova) = around.slice(Bytes::new(offset), Bytes::new(len)) {
                trial.keeps(iova, &MISALIGNED)?;
            }
        }
        trial.seen(range, &source, Access::Write)?;
        trial.unmap(range, range.len())?;
    }
    Ok(())
}

fn many<X: Fixture>(trial: &mut Trial<'_, X>) -> Result<(), Stop> {
    const COUNT: u64 = 64;
    // Odd, so that its multiples visit every mapping once, far from neighbours.
    const STRIDE: u64 = 37;
    if trial.abilities().max_mappings.is_some_and(|limit| u64::from(limit) < COUNT) {
        return Err(Stop::DoesNotApply("the space holds fewer than sixty-four mappings"));
    }
    let mut at = Vec::new();
    for n in 0..COUNT {
        at.push(32 + n);
    }
    let singles = singles(trial, &at)?;
    for n in 0..COUNT {
        let index = (n * STRIDE % COUNT) as usize;
        let Some((range, _)) = singles.get(index) else { continue };
        trial.unmap(*range, range.len())?;
        // A neighbour that is still there stays within reach; looking at a few is enough.
        let neighbour = (index + 1) % singles.len();
        let still_there = (n + 1..COUNT).any(|later| (later * STRIDE % COUNT) as usize == neighbour);
        if n % 16 == 0 && still_there {
            let (range, source) = &singles[neighbour];
            trial.seen(*range, source, Access::Read)?;
        }
    }
    let all = trial.range(32, COUNT)?;
    if trial.changes(Changes::UNMAP_SEVERAL) {
        trial.nothing_in(all)?;
    }
    match singles.len() as u64 {
        COUNT => Ok(()),
        other => Err(Stop::Broken(format!("{other} mappings were made"))),
    }
}
