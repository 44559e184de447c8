//! Tables of one address space, as they are written, whatever their format.

use crate::iommu::TableFormat;
use crate::ranges;
use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::{AddrRange, Bytes, Iova, PhysAddr};
use peerdma::dma::spaces::{SoftIommu, TcePage, TceSpace};
use peerdma::dma::{Abilities, IoSpace, IovaRanges, MapError, Source, UnmapError};
use peerdma::iopt::{Format, Root, TableMemory};
use std::convert::Infallible;
use std::sync::{Mutex, PoisonError, RwLock};

/// Tables and how to write them.
pub(super) trait Written: Send + Sync {
    /// As [`IoSpace::link`].
    fn link(
        &self,
        iova: AddrRange<Iova>,
        source: &Source<Infallible>,
        prot: Prot,
        attrs: MemAttrs,
    ) -> Result<(), MapError>;

    /// As [`IoSpace::relink`].
    fn relink(
        &self,
        iova: AddrRange<Iova>,
        source: &Source<Infallible>,
        prot: Prot,
        attrs: MemAttrs,
    ) -> Result<(), MapError>;

    /// As [`IoSpace::unmap`].
    fn unmap(&self, iova: AddrRange<Iova>) -> Result<Bytes, UnmapError>;

    /// What can be mapped.
    fn abilities(&self) -> Abilities;

    /// What an IOMMU has to be told: how to read the tables, and where they begin now.
    fn place(&self) -> (TableFormat, PhysAddr);

    /// Gives back frames that no walk reaches any more, unless somebody else is writing.
    fn reclaim(&self);
}

/// Tables of a format of [`peerdma::iopt`].
pub(super) struct Tree<F: Format, M: TableMemory> {
    /// Shared by those who map in it; exclusive to give frames back.
    pub(super) iommu: RwLock<SoftIommu<F, M>>,
    /// How an IOMMU is to read tables with this root.
    pub(super) format: fn(Root) -> TableFormat,
}

impl<F: Format + Send + Sync, M: TableMemory + Send + Sync> Tree<F, M> {
    fn with<T>(&self, does: impl FnOnce(&SoftIommu<F, M>) -> T) -> T {
        does(&self.iommu.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<F: Format + Send + Sync, M: TableMemory + Send + Sync> Written for Tree<F, M> {
    fn link(
        &self,
        iova: AddrRange<Iova>,
        source: &Source<Infallible>,
        prot: Prot,
        attrs: MemAttrs,
    ) -> Result<(), MapError> {
        self.with(|iommu| iommu.attach().map(iova, source, prot, attrs))
    }

    fn relink(
        &self,
        iova: AddrRange<Iova>,
        source: &Source<Infallible>,
        prot: Prot,
        attrs: MemAttrs,
    ) -> Result<(), MapError> {
        self.with(|iommu| iommu.attach().relink(iova, source, prot, attrs))
    }

    fn unmap(&self, iova: AddrRange<Iova>) -> Result<Bytes, UnmapError> {
        self.with(|iommu| iommu.attach().unmap(iova))
    }

    fn abilities(&self) -> Abilities {
        self.with(|iommu| iommu.abilities().clone())
    }

    fn place(&self) -> (TableFormat, PhysAddr) {
        let root = self.with(|iommu| iommu.table().root());
        ((self.format)(root), root.at)
    }

    fn reclaim(&self) {
        // Who writes now gives them back afterwards.
        if let Ok(mut iommu) = self.iommu.try_write() {
            iommu.reclaim();
        }
    }
}

/// The flat table of a window.
pub(super) struct Window<M: TableMemory> {
    pub(super) space: Mutex<TceSpace<M>>,
    pub(super) page: TcePage,
    /// The window's own, with less of it usable.
    pub(super) abilities: Abilities,
}

impl<M: TableMemory + Send + Sync> Window<M> {
    pub(super) fn new(space: TceSpace<M>, page: TcePage, reserved: &[AddrRange<Iova>]) -> Self {
        let mut abilities = space.abilities().clone();
        abilities.usable = without(space.window(), reserved, page.bytes());
        Self { space: Mutex::new(space), page, abilities }
    }

    fn with<T>(&self, does: impl FnOnce(&mut TceSpace<M>) -> T) -> T {
        does(&mut self.space.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What is left of a window, in whole pages.
fn without(window: AddrRange<Iova>, reserved: &[AddrRange<Iova>], page: Bytes) -> IovaRanges {
    let within = page.as_u64() - 1;
    let pages = reserved.iter().map(|hole| {
        let (first, last) = (hole.start().as_u64() & !within, hole.last().as_u64() | within);
        // All 2^64 bytes are no range; of a hole so large no whole page is outside.
        AddrRange::from_inclusive(Iova::new(first), Iova::new(last)).unwrap_or(*hole)
    });
    let parts = ranges::outside(window, &pages.collect::<Vec<_>>());
    // The parts lie in the window one after the other, so that they are ranges apart.
    IovaRanges::from_inclusive(parts.iter().map(|part| (part.start(), part.last()))).unwrap_or_default()
}

impl<M: TableMemory + Send + Sync> Written for Window<M> {
    fn link(
        &self,
        iova: AddrRange<Iova>,
        source: &Source<Infallible>,
        prot: Prot,
        attrs: MemAttrs,
    ) -> Result<(), MapError> {
        self.abilities.check_map(iova, source, prot, attrs)?;
        self.with(|space| space.map(iova, source, prot, attrs))
    }

    fn relink(
        &self,
        iova: AddrRange<Iova>,
        source: &Source<Infallible>,
        prot: Prot,
        attrs: MemAttrs,
    ) -> Result<(), MapError> {
        self.abilities.check_map(iova, source, prot, attrs)?;
        self.with(|space| space.relink(iova, source, prot, attrs))
    }

    fn unmap(&self, iova: AddrRange<Iova>) -> Result<Bytes, UnmapError> {
        self.with(|space| space.unmap(iova))
    }

    fn abilities(&self) -> Abilities {
        self.abilities.clone()
    }

    fn place(&self) -> (TableFormat, PhysAddr) {
        let page_shift = self.page.bytes().as_u64().trailing_zeros() as u8;
        self.with(|space| (TableFormat::Tce { window: space.window(), page_shift }, space.root()))
    }

    /// One table for as long as the window is there.
    fn reclaim(&self) {}
}
