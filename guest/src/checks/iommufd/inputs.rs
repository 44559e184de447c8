//! Mappings and unmappings that iommufd refuses, and with what.
//!
//! Sources: Linux 7.3 `iommufd_ioas_map_file`, `iopt_map_file_pages`, `iopt_map_dmabuf`,
//! `iopt_check_iova`, `iopt_unmap_iova_range`.

use super::super::answer::{Answer, Refused, Taken, taken};
use super::super::bench::{HERE, PAGE, Space, USED};
use super::super::claim::{Claim, Stop, equal};
use super::super::export;
use super::super::type1::open;
use super::Tried;
use Of::{Memfd, Null, OneRange, SystemHeap, TwoRanges, Udmabuf};
use peerdma::addr::{Bytes, Iova};
use peerdma::dma::{Errno, Prot};
use peerdma_linux::raw;
use rustix::fs::{MemfdFlags, SealFlags};
use std::fs::File;
use std::os::fd::OwnedFd;

pub(super) const P: u64 = PAGE.as_u64();
pub(super) const AT: u64 = HERE.as_u64();
pub(super) const ALL: u64 = USED.as_u64();

/// Where interrupts are written on x86; no memory can be mapped over it.
pub(super) const MSI_WINDOW: u64 = 0xfee0_0000;

/// A file to map: each is four pages long.
#[derive(Clone, Copy)]
pub(super) enum Of {
    /// One range of a BAR.
    OneRange,
    /// Two ranges of a BAR.
    TwoRanges,
    /// Memory.
    Memfd,
    /// A dma-buf of memory, made by udmabuf.
    Udmabuf,
    /// A dma-buf of memory, from the system heap.
    SystemHeap,
    /// No memory at all.
    Null,
}

/// One mapping of a file.
struct Map {
    what: &'static str,
    of: Of,
    start: u64,
    iova: u64,
    len: u64,
    answer: Answer,
}

const EINVAL: Answer = Refused(Errno::EINVAL);
const EOVERFLOW: Answer = Refused(Errno::EOVERFLOW);
const EOPNOTSUPP: Answer = Refused(Errno::EOPNOTSUPP);

const fn map(what: &'static str, of: Of, start: u64, iova: u64, len: u64, answer: Answer) -> Map {
    Map { what, of, start, iova, len, answer }
}

const MAPS: [Map; 19] = [
    map("a mapping of all of a dma-buf", OneRange, 0, AT, ALL, Taken),
    map("a mapping of the last page of a dma-buf", OneRange, ALL - P, AT, P, Taken),
    map("a mapping of a page more than the dma-buf has", OneRange, 0, AT, ALL + P, EINVAL),
    map("a mapping across the end of a dma-buf", OneRange, ALL - P, AT, 2 * P, EINVAL),
    map("a mapping from the end of a dma-buf on", OneRange, ALL, AT, P, EINVAL),
    map("a mapping from half a page on", OneRange, P / 2, AT, P, EINVAL),
    map("a mapping of no bytes", OneRange, 0, AT, 0, EINVAL),
    map("a mapping of half a page", OneRange, 0, AT, P / 2, EINVAL),
    map("a mapping at half a page", OneRange, 0, AT + P / 2, P, EINVAL),
    map("a mapping in the MSI window", OneRange, 0, MSI_WINDOW, P, EINVAL),
    map("a mapping into the MSI window from below", OneRange, 0, MSI_WINDOW - P, 2 * P, EINVAL),
    map("a mapping beyond the IOMMU's reach", OneRange, 0, 1 << 60, P, EINVAL),
    map("a mapping over the end of IOVAs", OneRange, 0, u64::MAX - (P - 1), 2 * P, EOVERFLOW),
    map("a mapping over the end of file offsets", OneRange, u64::MAX - (P - 1), AT, 2 * P, EOVERFLOW),
    map("a dma-buf of two ranges", TwoRanges, 0, AT, ALL, EOPNOTSUPP),
    map("a dma-buf of udmabuf", Udmabuf, 0, AT, ALL, EOPNOTSUPP),
    map("a dma-buf of the system heap", SystemHeap, 0, AT, ALL, EOPNOTSUPP),
    map("a memfd", Memfd, 0, AT, ALL, Taken),
    map("a file that is neither memory nor dma-buf", Null, 0, AT, P, EINVAL),
];

pub(super) fn claims() -> Vec<Claim<Tried>> {
    let map = |row: &'static Map| {
        Claim::new(format!("{} {}", row.what, row.answer.words()), |bench: &mut Tried| row.tries(bench))
    };
    let unmap = |row: &'static Unmap| {
        let sentence = format!("{} {}, and {} pages are gone", row.what, row.answer.words(), row.gone);
        Claim::new(sentence, |bench: &mut Tried| row.tries(bench))
    };
    let overlap = Claim::new("mapping over a mapping is refused with EEXIST", overlap);
    MAPS.iter().map(map).chain(UNMAPS.iter().map(unmap)).chain([overlap]).collect()
}

impl Map {
    fn tries(&self, bench: &mut Tried) -> Result<(), Stop> {
        let file = file(bench, self.of)?;
        let (start, iova, len) = (Bytes::new(self.start), Iova::new(self.iova), Bytes::new(self.len));
        let seen = bench.space.ioas().map_file(Prot::ReadWrite, &file, start, iova, len);
        self.answer.expect("mapping", seen).map(drop)
    }
}

pub(super) fn file(bench: &Tried, of: Of) -> Result<OwnedFd, Stop> {
    let export = |ranges: &[(u64, u64)]| {
        let file = taken("exporting", raw::export(bench.device()?, &export::request(ranges)))?;
        file.ok_or_else(|| Stop::broken("the export gave no descriptor"))
    };
    match of {
        OneRange => export(&[(0, ALL)]),
        TwoRanges => export(&[(0, ALL / 2), (ALL / 2, ALL / 2)]),
        Memfd => memfd(),
        Udmabuf => taken("making a udmabuf", raw::udmabuf(open("/dev/udmabuf")?, memfd()?, Bytes::ZERO, USED)),
        SystemHeap => taken("asking the heap", raw::heap(open("/dev/dma_heap/system")?, USED)),
        Null => Ok(File::open("/dev/null")?.into()),
    }
}

/// A memfd of four pages that cannot shrink, as udmabuf asks for.
fn memfd() -> Result<OwnedFd, Stop> {
    let memfd = rustix::fs::memfd_create("peerdma-check", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::ftruncate(&memfd, ALL)?;
    rustix::fs::fcntl_add_seals(&memfd, SealFlags::SHRINK)?;
    Ok(memfd)
}

/// One unmapping, where four pages are mapped as two mappings of two.
struct Unmap {
    what: &'static str,
    /// Pages from the usual place, and how many.
    page: u64,
    pages: u64,
    answer: Answer,
    /// Pages that are gone afterwards, as a refusal may unmap all the same.
    gone: u64,
}

const ENOENT: Answer = Refused(Errno::ENOENT);

const fn unmap(what: &'static str, page: u64, pages: u64, answer: Answer, gone: u64) -> Unmap {
    Unmap { what, page, pages, answer, gone }
}

const UNMAPS: [Unmap; 7] = [
    unmap("unmapping one of two mappings", 0, 2, Taken, 2),
    unmap("unmapping two mappings in one call", 0, 4, Taken, 4),
    unmap("unmapping a mapping and a hole", 2, 4, Taken, 2),
    unmap("unmapping where nothing is mapped", 8, 1, ENOENT, 0),
    unmap("unmapping the first half of a mapping", 0, 1, ENOENT, 0),
    unmap("unmapping from the second half of a mapping on", 1, 3, ENOENT, 0),
    unmap("unmapping one mapping and half of the next", 0, 3, ENOENT, 2),
];

impl Unmap {
    fn tries(&self, bench: &mut Tried) -> Result<(), Stop> {
        let file = file(bench, OneRange)?;
        let two = Bytes::new(2 * P);
        for iova in [AT, AT + 2 * P] {
            let seen = bench.space.ioas().map_file(Prot::ReadWrite, &file, Bytes::ZERO, Iova::new(iova), two);
            taken("mapping two pages", seen)?;
        }
        let iova = Iova::new(AT + self.page * P);
        let seen = self.answer.expect("unmapping", bench.space.unmap(iova, Bytes::new(self.pages * P)))?;
        let gone = Bytes::new(self.gone * P);
        if let Some(seen) = seen {
            equal("bytes unmapped", &gone, &seen)?;
        }
        let left = match bench.space.unmap(HERE, USED) {
            Err(Errno::ENOENT) => Bytes::ZERO,
            left => taken("unmapping the rest", left)?,
        };
        equal("bytes left", &Bytes::new(ALL - gone.as_u64()), &left)
    }
}

fn overlap(bench: &mut Tried) -> Result<(), Stop> {
    let file = file(bench, OneRange)?;
    let map = |start, iova, len| {
        let (start, iova, len) = (Bytes::new(start), Iova::new(iova), Bytes::new(len));
        bench.space.ioas().map_file(Prot::ReadWrite, &file, start, iova, len)
    };
    taken("mapping", map(0, AT + P, 2 * P))?;
    for (iova, len) in [(AT + P, 2 * P), (AT, 2 * P), (AT + 2 * P, 2 * P), (AT + P, P), (AT, 4 * P)] {
        Refused(Errno::EEXIST).expect(format_args!("mapping at {iova:#x}"), map(0, iova, len))?;
    }
    taken("mapping beside it", map(0, AT, P))
}
