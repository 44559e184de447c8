//! Tables of one address space, as they are written, whatever their format.

use crate::iommu::TableFormat;
use peerdma::addr::PhysAddr;
use peerdma::dma::spaces::{SoftIommu, TceSpace};
use peerdma::dma::{Abilities, IoSpace};
use peerdma::iopt::{Format, Root, TableMemory};
use std::convert::Infallible;
use std::sync::{Mutex, PoisonError, RwLock};

/// Who writes tables: an address space of the library's.
pub(super) type Writer<'a> = dyn IoSpace<File = Infallible> + 'a;

/// Tables and how to write them.
pub(super) trait Written: Send + Sync {
    /// Hands out the writer of the tables, once and before it returns.
    ///
    /// It is borrowed for the call, since what guards the tables is held meanwhile.
    fn write(&self, change: &mut dyn FnMut(&mut Writer<'_>));

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

impl<F: Format, M: TableMemory> Tree<F, M> {
    fn with<T>(&self, does: impl FnOnce(&SoftIommu<F, M>) -> T) -> T {
        does(&self.iommu.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<F: Format + Send + Sync, M: TableMemory + Send + Sync> Written for Tree<F, M> {
    fn write(&self, change: &mut dyn FnMut(&mut Writer<'_>)) {
        self.with(|iommu| change(&mut iommu.attach()));
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
pub(super) struct Window<M: TableMemory>(pub(super) Mutex<TceSpace<M>>);

impl<M: TableMemory> Window<M> {
    fn with<T>(&self, does: impl FnOnce(&mut TceSpace<M>) -> T) -> T {
        does(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<M: TableMemory + Send + Sync> Written for Window<M> {
    fn write(&self, change: &mut dyn FnMut(&mut Writer<'_>)) {
        self.with(|space| change(space));
    }

    fn abilities(&self) -> Abilities {
        self.with(|space| space.abilities().clone())
    }

    fn place(&self) -> (TableFormat, PhysAddr) {
        self.with(|space| {
            let page_shift = space.page().bytes().as_u64().trailing_zeros() as u8;
            (TableFormat::Tce { window: space.window(), page_shift }, space.root())
        })
    }

    /// One table for as long as the window is there.
    fn reclaim(&self) {}
}
