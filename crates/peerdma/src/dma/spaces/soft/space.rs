//! One party's handle to map in a software IOMMU.
//!
//! As `Read` is implemented for `&TcpStream`: the domain is shared and the handle is
//! exclusive. It remembers the tables that it wrote last and the usable range it was last in,
//! so that mapping the next page costs no descent and no search.

use super::iommu::SoftIommu;
use super::refusal;
use crate::access::{MemAttrs, Prot};
use crate::addr::{AddrRange, Bytes, Iova, PhysAddr};
use crate::dma::abilities::Abilities;
use crate::dma::error::{MapError, UnmapError};
use crate::dma::io_space::{IoSpace, Source};
use crate::iopt::{Cursor, Format, Gather, Leaf, MapFault, Near, TableMemory};
use core::convert::Infallible;

/// A handle to map in a [`SoftIommu`], for one queue, context or thread.
///
/// What it mapped stays when it is dropped; the domain holds the mappings, not the handle.
#[derive(Debug)]
pub struct SoftSpace<'a, F: Format, M: TableMemory> {
    iommu: &'a SoftIommu<F, M>,
    /// The frame of entries that was written last.
    near: Option<Near<'a>>,
    cursor: Cursor,
    /// The usable range that the last mapping was in; no bytes before the first.
    first: u64,
    len: u64,
    /// Protection and attributes of the last mapping, and the entry bits that they have.
    kind: u64,
    leaf: Leaf,
    /// Bits of an address within a granule.
    within: u64,
}

/// Protection and attributes in one word, to be compared at once.
#[inline]
const fn kind(prot: Prot, attrs: MemAttrs) -> u64 {
    (prot as u64) << 32 | attrs.bits() as u64
}

impl<'a, F: Format, M: TableMemory> SoftSpace<'a, F, M> {
    pub(super) fn new(iommu: &'a SoftIommu<F, M>) -> Self {
        let (prot, attrs) = (Prot::ReadWrite, MemAttrs::empty());
        Self {
            iommu,
            near: None,
            cursor: Cursor::new(),
            first: 0,
            len: 0,
            kind: kind(prot, attrs),
            leaf: iommu.table.leaf(prot, attrs),
            within: iommu.abilities.granule.bytes().as_u64() - 1,
        }
    }

    /// The domain that it maps in.
    pub fn iommu(&self) -> &'a SoftIommu<F, M> {
        self.iommu
    }

    /// Checks a request in full, and remembers what the next one will have in common with it.
    #[cold]
    #[inline(never)]
    fn check(
        &mut self,
        iova: AddrRange<Iova>,
        source: &Source<Infallible>,
        prot: Prot,
        attrs: MemAttrs,
    ) -> Result<(), MapError> {
        let abilities = &self.iommu.abilities;
        abilities.check_map(iova, source, prot, attrs)?;
        if let Some(range) = abilities.usable.nearest(iova.start()) {
            (self.first, self.len) = (range.start().as_u64(), range.len().as_u64());
        }
        self.kind = kind(prot, attrs);
        self.leaf = self.iommu.table.leaf(prot, attrs);
        Ok(())
    }

    /// Whether a range lies in the usable range that the last mapping was in.
    #[inline]
    fn is_in_window(&self, iova: AddrRange<Iova>) -> bool {
        // Below the window the offset wraps, beyond all room that there is.
        let offset = iova.start().as_u64().wrapping_sub(self.first);
        self.len.checked_sub(iova.len().as_u64()).is_some_and(|room| offset <= room)
    }

    /// Links by the tables that are remembered, and remembers where that was.
    #[inline(never)]
    fn link_run(
        &mut self,
        iova: AddrRange<Iova>,
        source: &Source<Infallible>,
        prot: Prot,
        attrs: MemAttrs,
    ) -> Result<(), MapError> {
        if let Source::Physical(to) = *source
            && kind(prot, attrs) == self.kind
            && self.is_in_window(iova)
            && self.write(iova, to).is_ok()
        {
            return Ok(());
        }
        self.link_anew(iova, source, prot, attrs)
    }

    /// Links what is unlike the last, or has a fault to be named.
    #[cold]
    #[inline(never)]
    fn link_anew(
        &mut self,
        iova: AddrRange<Iova>,
        source: &Source<Infallible>,
        prot: Prot,
        attrs: MemAttrs,
    ) -> Result<(), MapError> {
        let Source::Physical(to) = *source else {
            let (kind, taken) = (source.kind(), self.iommu.abilities.sources);
            return Err(MapError::SourceNotTaken { kind, taken });
        };
        self.check(iova, source, prot, attrs)?;
        self.write(iova, to).map_err(|fault| refusal::of_map(self.iommu, iova, to, fault))
    }

    /// Writes entries of the last kind.
    #[inline]
    fn write(&mut self, iova: AddrRange<Iova>, to: PhysAddr) -> Result<(), MapFault> {
        let iommu = self.iommu;
        let mapped = iommu.table.map(&mut self.cursor, iova, to, self.leaf);
        // A large page took the place of an empty table, or what failed in the middle is out again.
        if !self.cursor.take_replaced().is_empty() {
            iommu.invalidate();
        }
        if mapped.is_ok() {
            self.near = self.look_near(iova.last());
        }
        mapped
    }

    /// The frame of entries around an IOVA, as far as it lies in the window.
    #[inline]
    fn look_near(&self, iova: Iova) -> Option<Near<'a>> {
        let window = AddrRange::new(Iova::new(self.first), Bytes::new(self.len))?;
        let iommu: &'a SoftIommu<F, M> = self.iommu;
        iommu.table.near(&self.cursor, iova, window)
    }

    /// Unmaps a range of which `gone` bytes are out already.
    #[inline(never)]
    fn clear_far(&mut self, iova: AddrRange<Iova>, gone: Bytes) -> Result<Bytes, UnmapError> {
        let aligned = (iova.start().as_u64() | iova.len().as_u64()) & self.within == 0;
        let rest = match aligned && self.is_in_window(iova) {
            true => self.clear(iova)?,
            false => self.clear_parts(iova)?,
        };
        self.near = self.look_near(iova.start());
        // Parts of a range, so that their sum is no longer than it.
        Ok(Bytes::new(gone.as_u64() + rest.as_u64()))
    }

    /// Unmaps one part of a request that lies inside a usable range.
    fn clear(&mut self, iova: AddrRange<Iova>) -> Result<Bytes, UnmapError> {
        let mut gather = Gather::new();
        let cleared = self.iommu.table.unmap_exactly(&mut self.cursor, iova, &mut gather);
        if !gather.is_empty() {
            self.iommu.invalidate();
        }
        cleared.map_err(|error| refusal::of_unmap(iova, error))
    }

    /// Unmaps a range anywhere: what of it lies in usable ranges, as nothing is mapped elsewhere.
    #[cold]
    #[inline(never)]
    fn clear_parts(&mut self, iova: AddrRange<Iova>) -> Result<Bytes, UnmapError> {
        let iommu = self.iommu;
        iommu.abilities.check_unmap(iova)?;
        let parts = || {
            let usable = iommu.abilities.usable.as_slice().iter();
            usable.filter_map(|range| {
                AddrRange::from_inclusive(range.start().max(iova.start()), range.last().min(iova.last()))
            })
        };
        // Both ends are split before anything is unmapped, as splitting can fail and unmapping cannot.
        for part in parts() {
            for end in [Some(part.start()), part.last().checked_add(Bytes::new(1))].into_iter().flatten() {
                if iommu.abilities.usable.nearest(end).is_some_and(|range| range.start() <= end && end <= range.last())
                {
                    iommu.table.split(end).map_err(|error| refusal::of_unmap(iova, error))?;
                }
            }
        }
        let mut len = 0;
        for part in parts() {
            len += self.clear(part)?.as_u64();
        }
        Ok(Bytes::new(len))
    }
}

impl<F: Format, M: TableMemory> IoSpace for SoftSpace<'_, F, M> {
    /// Files have no physical address; there is no value of this type.
    type File = Infallible;

    #[inline]
    fn abilities(&self) -> &Abilities {
        &self.iommu.abilities
    }

    #[inline]
    fn map(
        &mut self,
        iova: AddrRange<Iova>,
        source: &Source<Infallible>,
        prot: Prot,
        attrs: MemAttrs,
    ) -> Result<(), MapError> {
        self.link(iova, source, prot, attrs)
    }

    #[inline]
    fn link(
        &mut self,
        iova: AddrRange<Iova>,
        source: &Source<Infallible>,
        prot: Prot,
        attrs: MemAttrs,
    ) -> Result<(), MapError> {
        // The tables look at alignment, output width and what is mapped themselves, so faults are
        // asked about by name only once they object.
        if let Source::Physical(to) = *source
            && let Some(near) = &self.near
            && kind(prot, attrs) == self.kind
            && self.iommu.table.map_near(near, iova, to, self.leaf)
        {
            return Ok(());
        }
        self.link_run(iova, source, prot, attrs)
    }

    /// Nothing is left to do: nobody remembers that an IOVA led nowhere.
    #[inline]
    fn sync(&mut self, iova: AddrRange<Iova>) {
        let _ = iova;
    }

    fn relink(
        &mut self,
        iova: AddrRange<Iova>,
        source: &Source<Infallible>,
        prot: Prot,
        attrs: MemAttrs,
    ) -> Result<(), MapError> {
        self.check(iova, source, prot, attrs)?;
        let Source::Physical(to) = *source else { return Ok(()) };
        let table = &self.iommu.table;
        // Leaves that reach out of the range, or that the new place is not aligned to, are split
        // on the way; they lead where they led until all fit.
        loop {
            let at = match table.replace(&mut self.cursor, iova, to, self.leaf) {
                Ok(()) => break,
                Err(error) => refusal::split_for(self.iommu, iova, to, error)?,
            };
            table.split(at).map_err(|error| refusal::of_split(iova, error))?;
        }
        self.iommu.invalidate();
        Ok(())
    }

    #[inline]
    fn unmap(&mut self, iova: AddrRange<Iova>) -> Result<Bytes, UnmapError> {
        let gone = self.near.as_ref().map_or(Bytes::ZERO, |near| self.iommu.table.unmap_near(near, iova));
        if gone != Bytes::ZERO {
            self.iommu.invalidate();
            if gone == iova.len() {
                return Ok(gone);
            }
        }
        self.clear_far(iova, gone)
    }
}
