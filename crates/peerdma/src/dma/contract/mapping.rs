//! Claims about mappings that are taken.

use super::trial::{Claim, Expected, Stop, Trial};
use super::{Access, Fixture};
use crate::access::Prot;
use crate::dma::abilities::WriteOnly;
use crate::dma::error::MapError;

pub(super) fn claims<X: Fixture>() -> [Claim<X>; 5] {
    [
        Claim { sentence: "a mapping reaches its source and unmaps with exactly its length", tries: maps_and_unmaps },
        Claim { sentence: "what was unmapped is out of reach and can be mapped again", tries: maps_again },
        Claim { sentence: "the middle of a source is what is mapped when it is asked for", tries: maps_a_middle },
        Claim { sentence: "each protection lets a device do what it names and no more", tries: protects },
        Claim { sentence: "one source can be mapped at several IOVAs", tries: maps_twice },
    ]
}

fn maps_and_unmaps<X: Fixture>(trial: &mut Trial<'_, X>) -> Result<(), Stop> {
    for units in [1, 2, 4] {
        let (iova, source) = trial.place(0, units, 0)?;
        trial.map(iova, &source, Prot::ReadWrite)?;
        trial.seen(iova, &source, Access::Write)?;
        trial.seen(iova, &source, Access::Read)?;
        trial.unmap(iova, iova.len())?;
    }
    Ok(())
}

fn maps_again<X: Fixture>(trial: &mut Trial<'_, X>) -> Result<(), Stop> {
    let (iova, source) = trial.place(8, 2, 0)?;
    for _ in 0..3 {
        trial.map(iova, &source, Prot::ReadWrite)?;
        trial.unmap(iova, iova.len())?;
        trial.nothing_in(iova)?;
    }
    trial.unseen(iova, &source, Access::Write)?;
    // Also by another division of the same IOVAs, which leftovers in page tables would refuse.
    for at in [8, 9] {
        let (iova, source) = trial.place(at, 1, 1)?;
        trial.map(iova, &source, Prot::ReadWrite)?;
        trial.seen(iova, &source, Access::Write)?;
    }
    Ok(())
}

fn maps_a_middle<X: Fixture>(trial: &mut Trial<'_, X>) -> Result<(), Stop> {
    let ((iova, middle), start) = (trial.place(16, 2, 1)?, trial.source(0)?);
    trial.map(iova, &middle, Prot::ReadWrite)?;
    trial.seen(iova, &middle, Access::Write)?;
    trial.unseen(iova, &start, Access::Write)
}

fn protects<X: Fixture>(trial: &mut Trial<'_, X>) -> Result<(), Stop> {
    trial.keeps_devices_out()?;
    let (iova, source) = trial.place(24, 1, 0)?;
    trial.map(iova, &source, Prot::Read)?;
    trial.seen(iova, &source, Access::Read)?;
    trial.unseen(iova, &source, Access::Write)?;
    trial.unmap(iova, iova.len())?;

    let write_only = trial.abilities().write_only;
    if write_only == WriteOnly::Refused {
        let attrs = trial.attrs();
        let name = Expected { name: "WriteOnlyNotTaken", is: |error| matches!(error, MapError::WriteOnlyNotTaken) };
        trial.refuses(iova, &source, Prot::Write, attrs, &name)?;
        return trial.nothing_in(iova);
    }
    trial.map(iova, &source, Prot::Write)?;
    trial.seen(iova, &source, Access::Write)?;
    if write_only == WriteOnly::Exact {
        trial.unseen(iova, &source, Access::Read)?;
    }
    Ok(())
}

fn maps_twice<X: Fixture>(trial: &mut Trial<'_, X>) -> Result<(), Stop> {
    trial.chooses_freely()?;
    let source = trial.source(0)?;
    let (one, other) = (trial.range(32, 1)?, trial.range(40, 1)?);
    trial.map(one, &source, Prot::ReadWrite)?;
    trial.map(other, &source, Prot::ReadWrite)?;
    trial.unmap(one, one.len())?;
    trial.seen(other, &source, Access::Write)?;
    trial.unseen(one, &source, Access::Write)
}
