//! The memory of a pool: where it is mapped, and which pages it is made of.

use super::error::{BufferError, PoolError};
use super::gaps;
use super::options::{Options, Pages};
use crate::memory::{BeyondPages, huge_page_size, page_size, transparent_huge_page_size};
use crate::own::smaps;
use crate::sys::map::{Mapping, Outside};
use peerdma::addr::{AddrRange, Bytes, Granule, ProcVa};
use peerdma::pool::place;
use rustix::io::Errno;
use std::fs;

/// How often a place is looked for again that another thread took meanwhile.
const TRIES: u32 = 16;

/// Memory of a pool. Nobody borrows it: bytes are copied in and out, since devices may write at any time.
#[derive(Debug)]
pub struct Region {
    mapping: Mapping,
    pages: Pages,
}

impl Region {
    pub(super) fn map(size: Bytes, options: &Options) -> Result<Self, PoolError> {
        let hugetlb = options.is_hugetlb();
        let huge = huge_page_size();
        let unit = match (hugetlb, huge) {
            (true, None) => return Err(PoolError::NoHugetlb),
            (true, Some(huge)) => huge,
            (false, _) => page_size(),
        };
        let len = size.as_u64().checked_next_multiple_of(unit.as_u64()).filter(|len| *len > 0);
        let len = len.and_then(|len| usize::try_from(len).ok()).filter(|len| isize::try_from(*len).is_ok());
        let len = len.ok_or(PoolError::Size { size })?;
        if hugetlb {
            check_free(size, unit, len as u64 / unit.as_u64())?;
        }
        // Where huge pages begin, so that all of the pool can be in them; a pool of less than one needs none of that.
        // The default size of hugetlb may be another one than that of transparent huge pages.
        let huge = huge.filter(|_| hugetlb).unwrap_or_else(transparent_huge_page_size);
        let align = if hugetlb || len as u64 >= huge.as_u64() { huge } else { page_size() };
        let align = Granule::new(align).unwrap_or(Granule::PAGE_4K);
        let mut mapping = map_where_all_reach(size, len, align, options, hugetlb)?;
        let failed = |source: Errno| PoolError::Map { size, source: source.into() };
        // Nobody else's memory is copied for a child that will never look at it.
        mapping.keep_from_children().map_err(failed)?;
        if !hugetlb && options.huge {
            // A kernel without huge pages says so, and base pages serve as well.
            let _ = mapping.prefer_huge();
        }
        mapping.populate().map_err(failed)?;
        let pages = match hugetlb {
            true => Pages::Hugetlb { each: unit },
            false => Pages::Ordinary { huge: in_huge_pages(&mapping) },
        };
        Ok(Self { mapping, pages })
    }

    /// Where it is mapped.
    pub fn range(&self) -> AddrRange<ProcVa> {
        let Some(range) = AddrRange::new(self.mapping.address(), self.mapping.len()) else {
            unreachable!("a mapping has a page at least, and ends inside of the address space")
        };
        range
    }

    pub(super) fn pages(&self) -> Pages {
        self.pages
    }

    /// Copies bytes out.
    pub(super) fn read(&self, at: Bytes, into: &mut [u8]) -> Result<(), BufferError> {
        let at = self.here(at, into.len())?;
        self.mapping.read(at, into).map_err(|Outside| self.beyond(at, into.len()).into())
    }

    /// Copies bytes in.
    pub(super) fn write(&self, at: Bytes, from: &[u8]) -> Result<(), BufferError> {
        let at = self.here(at, from.len())?;
        self.mapping.write(at, from).map_err(|Outside| self.beyond(at, from.len()).into())
    }

    /// Refuses a forked child, which has no such memory.
    fn here(&self, at: Bytes, len: usize) -> Result<usize, BufferError> {
        if !self.mapping.is_here() {
            return Err(BufferError::Forked);
        }
        usize::try_from(at.as_u64()).map_err(|_| BeyondPages { offset: at, ..self.beyond(0, len) }.into())
    }

    fn beyond(&self, at: usize, len: usize) -> BeyondPages {
        BeyondPages { offset: Bytes::new(at as u64), len: Bytes::new(len as u64), size: self.mapping.len() }
    }
}

/// Maps where nothing is and every device reaches, again if another thread maps there first.
fn map_where_all_reach(
    size: Bytes,
    len: usize,
    align: Granule,
    options: &Options,
    hugetlb: bool,
) -> Result<Mapping, PoolError> {
    let mut left = TRIES;
    loop {
        let gaps = gaps::of_this_process().map_err(PoolError::Maps)?;
        let place = place(Bytes::new(len as u64), align, &gaps, &options.devices)?;
        match Mapping::at_place(place.start(), len, hugetlb) {
            Ok(mapping) => return Ok(mapping),
            Err(Errno::EXIST) if left > 0 => left -= 1,
            Err(source) => return Err(PoolError::Map { size, source: source.into() }),
        }
    }
}

/// How much of it lies in huge pages; none where the kernel does not say.
fn in_huge_pages(mapping: &Mapping) -> Bytes {
    let range = AddrRange::new(mapping.address(), mapping.len());
    range.and_then(|range| smaps::in_huge_pages(range).ok()).unwrap_or(Bytes::ZERO)
}

/// Refuses by name what the kernel would refuse with "no memory", or accept and end with a bus error.
fn check_free(size: Bytes, each: Bytes, needed: u64) -> Result<(), PoolError> {
    let free = meminfo("HugePages_Free:").unwrap_or(0).saturating_sub(meminfo("HugePages_Rsvd:").unwrap_or(0));
    // Pages beyond those put aside may be made on demand, as many as the administrator allows.
    let surplus = fs::read_to_string("/proc/sys/vm/nr_overcommit_hugepages").ok();
    let surplus = surplus.and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0);
    if free.saturating_add(surplus.saturating_sub(meminfo("HugePages_Surp:").unwrap_or(0))) < needed {
        return Err(PoolError::TooFewHugePages { size, each, free, needed });
    }
    Ok(())
}

/// A number of `/proc/meminfo`.
fn meminfo(word: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(word))?;
    line.split_whitespace().next()?.parse().ok()
}
