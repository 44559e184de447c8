//! The same mappings of the library, which refuses by name what it can know, and before the kernel is asked.

use super::super::bench::{HERE, PAGE, USED};
use super::super::claim::{Claim, Stop, equal};
use super::Tried;
use super::inputs::Origin::{self, Bar, Nowhere, Top};
use super::inputs::{MSI_WINDOW, P};
use peerdma::addr::{AddrRange, Bytes, Iova, ProcVa};
use peerdma::dma::error::Misaligned;
use peerdma::dma::{Errno, IoSpace, MapError, MemAttrs, Permit, Prot, Source, SourceKind};

/// What the library says of one mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Said {
    Mapped,
    /// There are no such IOVAs to name.
    NoRange,
    /// Not whole pages: this, of IOVA, length and address.
    Misaligned(&'static str),
    OutsideUsable,
    SourceWraps,
    /// The kernel's EFAULT, by name.
    SourceRefused,
}

const AT: u64 = HERE.as_u64();

const ROWS: [(&str, u64, u64, Origin, Said); 13] = [
    ("one page of a BAR", AT, P, Bar(0), Said::Mapped),
    ("no bytes", AT, 0, Bar(0), Said::NoRange),
    ("a page at half a page", AT + P / 2, P, Bar(0), Said::Misaligned("IOVA")),
    ("one byte", AT, 1, Bar(0), Said::Misaligned("length")),
    ("a page from half a page on", AT, P, Bar(P / 2), Said::Misaligned("address")),
    ("a page in the MSI window", MSI_WINDOW, P, Bar(0), Said::OutsideUsable),
    ("two pages into the MSI window from below", MSI_WINDOW - P, 2 * P, Bar(0), Said::OutsideUsable),
    ("a page up to the MSI window", MSI_WINDOW - P, P, Bar(0), Said::Mapped),
    ("a page beyond the IOMMU's reach", 1 << 60, P, Bar(0), Said::OutsideUsable),
    ("two pages over the end of IOVAs", u64::MAX - (P - 1), 2 * P, Bar(0), Said::NoRange),
    ("two pages from over the end of process addresses", AT, 2 * P, Top, Said::SourceWraps),
    ("a page from where nothing is mapped", AT, P, Nowhere, Said::SourceRefused),
    ("more than a BAR's mapping", AT, 1 << 30, Bar(0), Said::SourceRefused),
];

pub(super) fn claims() -> Vec<Claim<Tried>> {
    let claim = |&(what, iova, len, from, said): &(&'static str, u64, u64, Origin, Said)| {
        let is = match said {
            Said::Mapped => "maps",
            Said::NoRange => "has no words for a mapping of",
            _ => "refuses by name to map",
        };
        Claim::new(format!("the library {is} {what}"), move |bench: &mut Tried| tries(bench, (iova, len), from, said))
    };
    let mut claims: Vec<_> = ROWS.iter().map(claim).collect();
    claims.push(Claim::new("the library refuses by name to map where it has mapped", twice));
    claims
}

fn tries(bench: &mut Tried, (iova, len): (u64, u64), from: Origin, said: Said) -> Result<(), Stop> {
    let Some(iova) = AddrRange::new(Iova::new(iova), Bytes::new(len)) else {
        return equal("what the library says", &said, &Said::NoRange);
    };
    let address = from.address(bench)?;
    let mapped = maps(bench, iova, address);
    let seen = match mapped {
        Ok(()) => {
            equal("bytes unmapped", &iova.len(), &bench.space.space.unmap(iova)?)?;
            Said::Mapped
        }
        Err(MapError::Misaligned { what: Misaligned::Iova(_), .. }) => Said::Misaligned("IOVA"),
        Err(MapError::Misaligned { what: Misaligned::Length(_), .. }) => Said::Misaligned("length"),
        Err(MapError::Misaligned { what: Misaligned::Process(_), .. }) => Said::Misaligned("address"),
        Err(MapError::OutsideUsable { .. }) => Said::OutsideUsable,
        Err(MapError::SourceWraps { .. }) => Said::SourceWraps,
        Err(MapError::SourceRefused { kind: SourceKind::Process, errno: Errno::EFAULT }) => Said::SourceRefused,
        Err(other) => return Err(other.into()),
    };
    equal("what the library says", &said, &seen)
}

/// With a permit, as memory of another device.
pub(super) fn maps(bench: &mut Tried, iova: AddrRange<Iova>, from: ProcVa) -> Result<(), MapError> {
    let permit = Permit::vouched(Prot::ReadWrite);
    bench.space.space.map_peer(iova, &Source::Process(from), Prot::ReadWrite, MemAttrs::MMIO, &permit)
}

fn twice(bench: &mut Tried) -> Result<(), Stop> {
    let range = |len| AddrRange::new(HERE, len).ok_or_else(|| Stop::broken("the place wraps"));
    let (all, page, from) = (range(USED)?, range(PAGE)?, bench.bar_address()?);
    maps(bench, all, from)?;
    let again = maps(bench, page, from);
    equal("mapping there again", &Err(MapError::Overlap { iova: page, existing: Some(all) }), &again)?;
    equal("bytes unmapped", &USED, &bench.space.space.unmap(all)?)
}
