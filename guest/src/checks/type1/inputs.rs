//! Mappings and unmappings that type1 refuses, and with what.
//!
//! Sources: Linux 7.3 `vfio_dma_do_map`, `vfio_dma_do_unmap`.

use super::super::answer::{Answer, Refused, Taken, taken};
use super::super::bench::{HERE, PAGE, Space};
use super::super::claim::{Claim, Stop, equal};
use super::{NOWHERE, Tried};
use Origin::{Bar, Nowhere, Top};
use peerdma::addr::{Bytes, Iova, ProcVa};
use peerdma::dma::{Errno, Prot};

/// Where interrupts are written on x86; no memory can be mapped over it.
pub(super) const MSI_WINDOW: u64 = 0xfee0_0000;

/// One mapping.
struct Map {
    what: &'static str,
    iova: u64,
    len: u64,
    from: Origin,
    answer: Answer,
}

/// Where in the process a mapping starts.
#[derive(Clone, Copy)]
pub(super) enum Origin {
    /// So many bytes after the start of the BAR's mapping, which is page aligned.
    Bar(u64),
    /// Where nothing is mapped.
    Nowhere,
    /// At the last page of all addresses.
    Top,
}

impl Origin {
    /// Where that is.
    pub(super) fn address(self, bench: &Tried) -> Result<ProcVa, Stop> {
        Ok(match self {
            Bar(offset) => ProcVa::new(bench.bar_address()?.as_u64() + offset),
            Nowhere => NOWHERE,
            Top => ProcVa::new(u64::MAX - (P - 1)),
        })
    }
}

const fn map(what: &'static str, iova: u64, len: u64, from: Origin, answer: Answer) -> Map {
    Map { what, iova, len, from, answer }
}

pub(super) const P: u64 = PAGE.as_u64();
const AT: u64 = HERE.as_u64();
const EINVAL: Answer = Refused(Errno::EINVAL);
const EFAULT: Answer = Refused(Errno::EFAULT);
const EOVERFLOW: Answer = Refused(Errno::EOVERFLOW);

const MAPS: [Map; 14] = [
    map("mapping one page of a BAR", AT, P, Bar(0), Taken),
    map("mapping no bytes", AT, 0, Bar(0), EINVAL),
    map("mapping at half a page", AT + P / 2, P, Bar(0), EINVAL),
    map("mapping one byte", AT, 1, Bar(0), EINVAL),
    map("mapping a page and a half", AT, P + P / 2, Bar(0), EINVAL),
    map("mapping from half a page on", AT, P, Bar(P / 2), EINVAL),
    map("mapping in the MSI window", MSI_WINDOW, P, Bar(0), EINVAL),
    map("mapping into the MSI window from below", MSI_WINDOW - P, 2 * P, Bar(0), EINVAL),
    map("mapping up to the MSI window", MSI_WINDOW - P, P, Bar(0), Taken),
    map("mapping beyond the IOMMU's reach", 1 << 60, P, Bar(0), EINVAL),
    map("mapping over the end of IOVAs", u64::MAX - (P - 1), 2 * P, Bar(0), EOVERFLOW),
    map("mapping from over the end of process addresses", AT, 2 * P, Top, EOVERFLOW),
    map("mapping from where nothing is mapped", AT, P, Nowhere, EFAULT),
    map("mapping past the end of a BAR's mapping", AT, 1 << 30, Bar(0), EFAULT),
];

pub(super) fn maps() -> Vec<Claim<Tried>> {
    let claim = |row: &'static Map| {
        Claim::new(format!("{} {}", row.what, row.answer.words()), |bench: &mut Tried| row.tries(bench))
    };
    MAPS.iter().map(claim).collect()
}

impl Map {
    fn tries(&self, bench: &mut Tried) -> Result<(), Stop> {
        let from = self.from.address(bench)?;
        let seen = bench.space.map_memory(Prot::ReadWrite, from, Iova::new(self.iova), Bytes::new(self.len));
        self.answer.expect("mapping", seen).map(drop)
    }
}

/// One unmapping, where four pages are mapped at `HERE` as two mappings of two.
struct Unmap {
    what: &'static str,
    /// Pages from `HERE`, and how many bytes.
    page: u64,
    len: u64,
    answer: Answer,
    /// Pages that are gone afterwards.
    gone: u64,
}

const fn unmap(what: &'static str, page: u64, len: u64, answer: Answer, gone: u64) -> Unmap {
    Unmap { what, page, len, answer, gone }
}

const UNMAPS: [Unmap; 7] = [
    unmap("unmapping one of two mappings", 0, 2 * P, Taken, 2),
    unmap("unmapping two mappings in one call", 0, 4 * P, Taken, 4),
    unmap("unmapping a mapping and a hole", 2, 4 * P, Taken, 2),
    unmap("unmapping where nothing is mapped", 8, P, Taken, 0),
    unmap("unmapping the first half of a mapping", 0, P, EINVAL, 0),
    unmap("unmapping from the second half of a mapping on", 1, 3 * P, EINVAL, 0),
    unmap("unmapping half a page", 0, P / 2, EINVAL, 0),
];

pub(super) fn unmaps() -> Vec<Claim<Tried>> {
    let claim = |row: &'static Unmap| {
        let sentence = format!("{} {}, and {} pages are gone", row.what, row.answer.words(), row.gone);
        Claim::new(sentence, |bench: &mut Tried| row.tries(bench))
    };
    UNMAPS.iter().map(claim).collect()
}

impl Unmap {
    fn tries(&self, bench: &mut Tried) -> Result<(), Stop> {
        let from = bench.bar_address()?;
        for iova in [AT, AT + 2 * P] {
            let seen = bench.space.map_memory(Prot::ReadWrite, from, Iova::new(iova), Bytes::new(2 * P));
            taken("mapping two pages", seen)?;
        }
        let iova = Iova::new(AT + self.page * P);
        let seen = self.answer.expect("unmapping", bench.space.unmap(iova, Bytes::new(self.len)))?;
        let gone = Bytes::new(self.gone * P);
        equal("bytes unmapped", &gone, &seen.unwrap_or(Bytes::ZERO))?;
        let left = taken("unmapping the rest", bench.space.unmap(HERE, Bytes::new(4 * P)))?;
        equal("bytes left", &Bytes::new(4 * P - gone.as_u64()), &left)
    }
}
