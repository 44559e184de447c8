//! Claims about mappings that are refused, by name and without a trace.

use super::trial::{Claim, Expected, FileOf, Stop, Trial};
use super::{Access, Fixture, advanced};
use crate::access::{MemAttrs, Prot};
use crate::addr::{AddrRange, Bytes, Iova, PhysAddr, ProcVa};
use crate::dma::abilities::{Changes, Mmio};
use crate::dma::error::MapError;
use crate::dma::io_space::{IoSpace, Source, SourceKind};
use crate::iova::IovaRanges;
use alloc::format;
use alloc::vec::Vec;

const OVERLAP: Expected<MapError> = Expected { name: "Overlap", is: |error| matches!(error, MapError::Overlap { .. }) };
const MISALIGNED: Expected<MapError> =
    Expected { name: "Misaligned", is: |error| matches!(error, MapError::Misaligned { .. }) };
const OUTSIDE: Expected<MapError> =
    Expected { name: "OutsideUsable", is: |error| matches!(error, MapError::OutsideUsable { .. }) };
const ATTRS: Expected<MapError> =
    Expected { name: "AttrsNotTaken", is: |error| matches!(error, MapError::AttrsNotTaken { .. }) };
const BEYOND: Expected<MapError> =
    Expected { name: "BeyondFile", is: |error| matches!(error, MapError::BeyondFile { .. }) };
const WRAPS: Expected<MapError> =
    Expected { name: "SourceWraps", is: |error| matches!(error, MapError::SourceWraps { .. }) };
const PLACEMENT: Expected<MapError> =
    Expected { name: "PlacementDictated", is: |error| matches!(error, MapError::PlacementDictated { .. }) };
const TOO_MANY: Expected<MapError> =
    Expected { name: "TooManyMappings", is: |error| matches!(error, MapError::TooManyMappings { .. }) };

pub(super) fn claims<X: Fixture>() -> [Claim<X>; 8] {
    [
        Claim { sentence: "a mapping over a mapping is refused and the first stays", tries: overlap },
        Claim { sentence: "an unaligned IOVA, length or source is refused and changes nothing", tries: unaligned },
        Claim { sentence: "a mapping that is not inside one usable range is refused", tries: outside },
        Claim { sentence: "attributes that the space cannot express are refused, others are taken", tries: attributes },
        Claim { sentence: "a file that ends before the mapping does is refused", tries: beyond_the_file },
        Claim { sentence: "a source that runs past the end of its addresses is refused", tries: wraps },
        Claim { sentence: "a source is refused where the space does not show it", tries: misplaced },
        Claim { sentence: "one mapping more than fit is refused, and fits after another is gone", tries: too_many },
    ]
}

fn overlap<X: Fixture>(trial: &mut Trial<'_, X>) -> Result<(), Stop> {
    let ((first, source), attrs) = (trial.place(4, 2, 0)?, trial.attrs());
    let other = trial.source(1)?;
    trial.map(first, &source, Prot::ReadWrite)?;
    // Its head, its tail, both, and from inside; of the same source and of another.
    for (at, units) in [(4, 2), (3, 2), (5, 2), (4, 1), (5, 1), (3, 3)] {
        let (iova, same) = trial.place(at, units, 0)?;
        if iova == first && trial.changes(Changes::REPLACE) {
            continue;
        }
        trial.refuses(iova, &same, Prot::Read, attrs, &OVERLAP)?;
        if trial.chooses_freely().is_ok() {
            trial.refuses(iova, &other, Prot::ReadWrite, attrs, &OVERLAP)?;
        }
    }
    trial.seen(first, &source, Access::Write)?;
    trial.unmap(first, first.len())?;
    // Had a refused mapping left its part outside the first, this would overlap.
    let (around, source) = trial.place(3, 4, 0)?;
    trial.nothing_in(around)?;
    trial.map(around, &source, Prot::ReadWrite)
}

fn unaligned<X: Fixture>(trial: &mut Trial<'_, X>) -> Result<(), Stop> {
    let half = Bytes::new(trial.abilities().granule.bytes().as_u64() / 2);
    if half == Bytes::ZERO {
        return Err(Stop::DoesNotApply("the granule is one byte"));
    }
    let attrs = trial.attrs();
    let (around, source) = trial.place(48, 3, 0)?;
    let inside =
        advanced(&source, half).ok_or(Stop::DoesNotApply("the source lies at the end of its address space"))?;
    let unit = trial.unit();
    let longer = Bytes::new(unit.as_u64() + half.as_u64());
    for (offset, len, source) in [
        (half, unit, &source),
        (Bytes::ZERO, longer, &source),
        (Bytes::ZERO, half, &source),
        (Bytes::ZERO, unit, &inside),
    ] {
        if let Some(iova) = around.slice(offset, len) {
            trial.refuses(iova, source, Prot::ReadWrite, attrs, &MISALIGNED)?;
        }
    }
    trial.nothing_in(around)?;
    trial.map(around, &source, Prot::ReadWrite)
}

fn outside<X: Fixture>(trial: &mut Trial<'_, X>) -> Result<(), Stop> {
    let (source, attrs, unit) = (trial.source(0)?, trial.attrs(), trial.unit());
    let outside = beyond_usable(&trial.abilities().usable, unit);
    if outside.is_empty() {
        return Err(Stop::DoesNotApply("every IOVA is usable"));
    }
    for iova in outside {
        trial.refuses(iova, &source, Prot::ReadWrite, attrs, &OUTSIDE)?;
    }
    Ok(())
}

/// Aligned ranges of one or two units around the edges of the usable ranges, none inside one.
fn beyond_usable(usable: &IovaRanges, unit: Bytes) -> Vec<AddrRange<Iova>> {
    let unit = unit.as_u64();
    let mut edges: Vec<u64> = Vec::new();
    for range in usable.as_slice() {
        edges.extend(range.start().as_u64().checked_sub(1));
        edges.extend(range.last().as_u64().checked_add(1));
    }
    edges.push(u64::MAX);
    let mut found = Vec::new();
    for edge in edges {
        let start = edge - edge % unit;
        for (start, units) in [(Some(start), 1), (start.checked_sub(unit), 2), (Some(start), 2)] {
            let range = start.and_then(|start| AddrRange::new(Iova::new(start), Bytes::new(units * unit)));
            found.extend(range.filter(|range| !usable.contain(range)));
        }
    }
    found
}

fn attributes<X: Fixture>(trial: &mut Trial<'_, X>) -> Result<(), Stop> {
    let ((iova, source), plain) = (trial.place(56, 1, 0)?, trial.attrs());
    let unknown = MemAttrs::from_bits_retain(1 << 31);
    for attr in [MemAttrs::PRIVILEGED, MemAttrs::NOT_SNOOPED, MemAttrs::NO_EXECUTE, unknown] {
        if trial.abilities().attrs.contains(attr) {
            trial.map_as(iova, &source, Prot::ReadWrite, plain | attr)?;
            trial.unmap(iova, iova.len())?;
        } else {
            trial.refuses(iova, &source, Prot::ReadWrite, plain | attr, &ATTRS)?;
        }
    }
    if trial.abilities().sources.of(source.kind()) == Some(Mmio::Refused) {
        trial.refuses(iova, &source, Prot::ReadWrite, plain | MemAttrs::MMIO, &ATTRS)?;
    }
    trial.nothing_in(iova)
}

fn beyond_the_file<X: Fixture>(trial: &mut Trial<'_, X>) -> Result<(), Stop> {
    let (attrs, unit) = (trial.attrs(), trial.unit().as_u64());
    if trial.source(0)?.kind() != SourceKind::File {
        return Err(Stop::DoesNotApply("the source is not a file"));
    }
    let end = trial.lent_len().as_u64();
    // All of it from the second unit on and one more; the unit that follows it; far away.
    for offset in [end - end % unit, (end - end % unit).saturating_add(1 << 40)] {
        let source = trial.source_at(Bytes::new(offset))?;
        let iova = trial.range(64, 1)?;
        trial.refuses(iova, &source, Prot::ReadWrite, attrs, &BEYOND)?;
    }
    let last = trial.source_at(Bytes::new((end - end % unit) - unit))?;
    let iova = trial.range(64, 2)?;
    trial.refuses(iova, &last, Prot::ReadWrite, attrs, &BEYOND)?;
    trial.nothing_in(iova)?;
    // The last unit by itself is in the file.
    let iova = trial.range(64, 1)?;
    trial.map(iova, &last, Prot::ReadWrite)
}

fn wraps<X: Fixture>(trial: &mut Trial<'_, X>) -> Result<(), Stop> {
    let (attrs, unit) = (trial.attrs(), trial.unit().as_u64());
    let last_unit = u64::MAX - (unit - 1);
    let source = match trial.source(0)? {
        Source::Physical(_) => Source::Physical(PhysAddr::new(last_unit)),
        Source::Process(_) => Source::Process(ProcVa::new(last_unit)),
        Source::File { file, .. } => Source::File { file, offset: Bytes::new(last_unit) },
    };
    let iova = trial.range(72, 2)?;
    trial.refuses(iova, &source, Prot::ReadWrite, attrs, &WRAPS)?;
    trial.nothing_in(iova)
}

fn misplaced<X: Fixture>(trial: &mut Trial<'_, X>) -> Result<(), Stop> {
    if trial.chooses_freely().is_ok() {
        return Err(Stop::DoesNotApply("whoever maps chooses where a source appears"));
    }
    let attrs = trial.attrs();
    let ((first, source), (second, next)) = (trial.place(80, 1, 0)?, trial.place(81, 1, 0)?);
    trial.refuses(first, &next, Prot::ReadWrite, attrs, &PLACEMENT)?;
    trial.refuses(second, &source, Prot::ReadWrite, attrs, &PLACEMENT)?;
    trial.nothing_in(first)?;
    trial.nothing_in(second)
}

fn too_many<X: Fixture>(trial: &mut Trial<'_, X>) -> Result<(), Stop> {
    // More would take a kernel seconds, and the claim is about the last one.
    const MOST: u64 = 64;
    let Some(limit) = trial.abilities().max_mappings.map(u64::from) else {
        return Err(Stop::DoesNotApply("the space tells no limit"));
    };
    if limit > MOST {
        return Err(Stop::DoesNotApply("the limit is more than sixty-four mappings"));
    }
    if limit == 0 {
        return Err(Stop::DoesNotApply("the space holds no mapping at all"));
    }
    let attrs = trial.attrs();
    for n in 0..limit {
        // The last of sixty-four starts at the last unit but one of the area.
        let (iova, source) = trial.place(2 * n, 1, 0)?;
        trial.map(iova, &source, Prot::ReadWrite)?;
    }
    let (one_more, source) = trial.place(1, 1, 0)?;
    trial.refuses(one_more, &source, Prot::ReadWrite, attrs, &TOO_MANY)?;
    trial.nothing_in(one_more)?;
    let first = trial.range(0, 1)?;
    trial.unmap(first, first.len())?;
    trial.map(one_more, &source, Prot::ReadWrite)
}

/// The sentence of [`untaken`], which needs no source of the space's own kinds.
pub(super) const UNTAKEN: &str = "a kind of source that the space does not take is refused by that name";

/// Offers a kind that the space does not take.
pub(super) fn untaken<X: Fixture>(
    fixture: &mut X,
    unit: Bytes,
    area: AddrRange<Iova>,
    kind: SourceKind,
) -> Result<(), Stop> {
    if fixture.space().abilities().sources.of(kind).is_some() {
        return Err(Stop::DoesNotApply("the space takes them"));
    }
    let source: Source<FileOf<X>> = match (kind, fixture.lend(kind)) {
        (_, Some(lent)) => lent.source,
        (SourceKind::Physical, None) => Source::Physical(PhysAddr::new(0)),
        (SourceKind::Process, None) => Source::Process(ProcVa::new(unit.as_u64())),
        (SourceKind::File, None) => return Err(Stop::DoesNotApply("none is lent")),
    };
    let Some(iova) = area.slice(Bytes::ZERO, unit) else {
        return Err(Stop::DoesNotApply("the area is empty"));
    };
    // Attributes and protection that are refused as well: the kind comes first.
    match fixture.space().map(iova, &source, Prot::Write, MemAttrs::all()) {
        Err(MapError::SourceNotTaken { kind: named, .. }) if named == kind => Ok(()),
        Err(error) => Err(Stop::Broken(format!("{kind} were refused, but not as SourceNotTaken: {error}"))),
        Ok(()) => {
            let _ = fixture.space().unmap(iova);
            Err(Stop::Broken(format!("{kind} were taken although the space says that it takes none")))
        }
    }
}
