//! An address space as a table of pages: slow, obvious, and written without the checks of
//! `peerdma::dma`, so that it can say what they should have said.
//!
//! Its abilities are a parameter. With those of type1 or iommufd it is a model of the
//! recording space; with all of them it tries those halves of the contract suite that no
//! Linux space reaches (parts, replacement, physical sources).

use peerdma::addr::{AddrRange, Bytes, Iova, PhysAddr, ProcVa};
use peerdma::dma::contract::{Access, Fixture, Lent};
use peerdma::dma::error::Misaligned;
use peerdma::dma::{
    Abilities, Changes, Errno, IoSpace, MapError, MemAttrs, Mmio, Prot, Source, SourceKind, UnmapError, WriteOnly,
};
use std::collections::{BTreeMap, BTreeSet};

pub(crate) const PAGE: u64 = 4096;

/// Memory of the process, memory of the machine and the file: all as long as this, from here.
pub(crate) const BASE: u64 = 0x7f00_0000_0000;
pub(crate) const LENGTH: u64 = 16 * PAGE;

/// A page of a mapping: which mapping, and where in the source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Page {
    mapping: u64,
    source: Source<u8>,
    prot: Prot,
}

pub(crate) struct Paged {
    abilities: Abilities,
    pages: BTreeMap<u64, Page>,
    made: u64,
}

impl Paged {
    pub(crate) fn new(abilities: Abilities) -> Self {
        Self { abilities, pages: BTreeMap::new(), made: 0 }
    }

    /// Where an IOVA that starts a page leads.
    pub(crate) fn translate(&self, iova: Iova) -> Option<(Source<u8>, Prot)> {
        self.pages.get(&(iova.as_u64() / PAGE)).map(|page| (page.source, page.prot))
    }

    /// All of a mapping.
    fn whole(&self, mapping: u64) -> BTreeSet<u64> {
        self.pages.iter().filter(|(_, page)| page.mapping == mapping).map(|(number, _)| *number).collect()
    }

    fn range_of(&self, mapping: u64) -> Option<AddrRange<Iova>> {
        let pages = self.whole(mapping);
        let (first, last) = (pages.first()?, pages.last()?);
        AddrRange::from_inclusive(Iova::new(first * PAGE), Iova::new(last * PAGE + (PAGE - 1)))
    }

    fn usable(&self, iova: AddrRange<Iova>) -> bool {
        let ranges = self.abilities.usable.as_slice();
        ranges.iter().any(|range| range.start() <= iova.start() && iova.last() <= range.last())
    }
}

/// The numbers of the pages that a range touches.
fn pages_of(iova: AddrRange<Iova>) -> BTreeSet<u64> {
    (iova.start().as_u64() / PAGE..=iova.last().as_u64() / PAGE).collect()
}

/// The source `pages` further on.
fn further<F: Clone>(source: &Source<F>, pages: u64) -> Source<F> {
    let by = pages * PAGE;
    match source {
        Source::Physical(at) => Source::Physical(PhysAddr::new(at.as_u64() + by)),
        Source::Process(at) => Source::Process(ProcVa::new(at.as_u64() + by)),
        Source::File { file, offset } => Source::File { file: file.clone(), offset: Bytes::new(offset.as_u64() + by) },
    }
}

impl IoSpace for Paged {
    type File = u8;

    fn abilities(&self) -> &Abilities {
        &self.abilities
    }

    fn map(&mut self, iova: AddrRange<Iova>, source: &Source<u8>, prot: Prot, attrs: MemAttrs) -> Result<(), MapError> {
        let granule = self.abilities.granule;
        let (kind, start, first) = match source {
            Source::Physical(at) => (SourceKind::Physical, at.as_u64(), Misaligned::Physical(*at)),
            Source::Process(at) => (SourceKind::Process, at.as_u64(), Misaligned::Process(*at)),
            Source::File { offset, .. } => (SourceKind::File, offset.as_u64(), Misaligned::FileOffset(*offset)),
        };
        let mmio = match kind {
            SourceKind::Physical => self.abilities.sources.physical,
            SourceKind::Process => self.abilities.sources.process,
            SourceKind::File => self.abilities.sources.file,
        };
        let Some(mmio) = mmio else {
            return Err(MapError::SourceNotTaken { kind, taken: self.abilities.sources });
        };
        let mut odd = attrs & !self.abilities.attrs;
        if mmio != Mmio::Refused {
            odd.remove(MemAttrs::MMIO);
        }
        if !odd.is_empty() {
            return Err(MapError::AttrsNotTaken { attrs: odd, kind });
        }
        if prot == Prot::Write && self.abilities.write_only == WriteOnly::Refused {
            return Err(MapError::WriteOnlyNotTaken);
        }
        let len = iova.len().as_u64();
        for (number, what) in [
            (iova.start().as_u64(), Misaligned::Iova(iova.start())),
            (len, Misaligned::Length(iova.len())),
            (start, first),
        ] {
            if number % granule.bytes().as_u64() != 0 {
                return Err(MapError::Misaligned { what, granule });
            }
        }
        // An address one past the end may be 2^64, a file offset may not.
        let end = u128::from(start) + u128::from(len);
        if end > 1 << 64 || (kind == SourceKind::File && end == 1 << 64) {
            return Err(MapError::SourceWraps { kind, len: iova.len() });
        }
        if !self.usable(iova) {
            return Err(MapError::OutsideUsable { iova, nearest: None });
        }
        if kind == SourceKind::File && end > u128::from(LENGTH) {
            let (offset, file_len) = (Bytes::new(start), Bytes::new(LENGTH));
            return Err(MapError::BeyondFile { offset, len: iova.len(), file_len });
        }
        let pages = pages_of(iova);
        let in_the_way = pages.iter().find_map(|page| self.pages.get(page)).map(|page| page.mapping);
        if let Some(mapping) = in_the_way {
            if !self.abilities.changes.contains(Changes::REPLACE) || self.whole(mapping) != pages {
                return Err(MapError::Overlap { iova, existing: self.range_of(mapping) });
            }
        } else {
            let mappings: BTreeSet<_> = self.pages.values().map(|page| page.mapping).collect();
            if self.abilities.max_mappings.is_some_and(|limit| mappings.len() >= limit as usize) {
                return Err(MapError::TooManyMappings { limit: self.abilities.max_mappings });
            }
        }
        let there = BASE..BASE + LENGTH;
        if kind != SourceKind::File && (start < there.start || end > u128::from(there.end)) {
            return Err(MapError::SourceRefused { kind, errno: Errno::EFAULT });
        }
        self.made += 1;
        for (n, page) in pages.into_iter().enumerate() {
            let source = further(source, n as u64);
            self.pages.insert(page, Page { mapping: self.made, source, prot });
        }
        Ok(())
    }

    fn unmap(&mut self, iova: AddrRange<Iova>) -> Result<Bytes, UnmapError> {
        let granule = self.abilities.granule;
        for (number, what) in [
            (iova.start().as_u64(), Misaligned::Iova(iova.start())),
            (iova.len().as_u64(), Misaligned::Length(iova.len())),
        ] {
            if number % granule.bytes().as_u64() != 0 {
                return Err(UnmapError::Misaligned { what, granule });
            }
        }
        let wanted = pages_of(iova);
        let present: BTreeSet<_> = wanted.iter().copied().filter(|page| self.pages.contains_key(page)).collect();
        let mappings: BTreeSet<_> = present.iter().map(|page| self.pages[page].mapping).collect();
        if present.is_empty() && !self.abilities.changes.contains(Changes::UNMAP_NOTHING) {
            return Err(UnmapError::NothingMapped { iova });
        }
        if !self.abilities.changes.contains(Changes::UNMAP_PART) {
            // In order of addresses, as mappings were made in any.
            let cut =
                present.iter().map(|page| self.pages[page].mapping).find(|id| !self.whole(*id).is_subset(&wanted));
            if let Some(mapping) = cut {
                return Err(UnmapError::Split { iova, existing: self.range_of(mapping) });
            }
        }
        let several = mappings.len() > 1 || (!present.is_empty() && present != wanted);
        if several && !self.abilities.changes.contains(Changes::UNMAP_SEVERAL) {
            return Err(UnmapError::NotOneMapping { iova });
        }
        self.pages.retain(|page, _| !wanted.contains(page));
        Ok(Bytes::new(present.len() as u64 * PAGE))
    }
}

impl Fixture for Paged {
    type Space = Self;

    fn space(&mut self) -> &mut Self {
        self
    }

    fn lend(&mut self, kind: SourceKind) -> Option<Lent<u8>> {
        let source = match kind {
            SourceKind::Physical => Source::Physical(PhysAddr::new(BASE)),
            SourceKind::Process => Source::Process(ProcVa::new(BASE)),
            SourceKind::File => Source::File { file: 1, offset: Bytes::ZERO },
        };
        Some(Lent { source, len: Bytes::new(LENGTH), attrs: MemAttrs::empty() })
    }

    fn reaches(&mut self, iova: Iova, source: &Source<u8>, access: Access) -> Option<bool> {
        let reached = self.translate(iova).is_some_and(|(at, prot)| {
            at == *source
                && match access {
                    Access::Read => prot.reads(),
                    Access::Write => prot.writes(),
                }
        });
        Some(reached)
    }
}
