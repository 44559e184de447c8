//! What is to be pinned, and through whom.

use super::backend::Backend;
use super::coverage::Units;
use super::handle::RingHandle;
use crate::addr::{AddrRange, Bytes, Granule, ProcVa};
use core::fmt;

/// Number of a container or an iommufd file, by which a caller tells his own apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct ScopeId(u32);

impl ScopeId {
    /// The one of this number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for ScopeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Through whom memory is pinned: the backend, and what shares its charges.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Via {
    /// `mlock`, which counts a page of the process once.
    Mlock,
    /// A mapping of a type 1 container.
    Type1 {
        /// Which.
        container: ScopeId,
    },
    /// A mapping of an iommufd. What is asked for again of the same file is taken for a copy
    /// (`IOMMU_IOAS_COPY`); a second `IOMMU_IOAS_MAP` of the same addresses is charged again, so give it a number of its own.
    Iommufd {
        /// Which.
        file: ScopeId,
    },
    /// The same of an iommufd that counts by process.
    IommufdProcess {
        /// Which.
        file: ScopeId,
    },
    /// A slot of a ring.
    IoUring {
        /// Which.
        ring: RingHandle,
    },
    /// A memory region.
    Rdma,
    /// A dma-buf made of a memfd.
    Udmabuf,
    /// A dma-buf of a heap.
    DmaHeap,
}

impl Via {
    /// The backend.
    pub const fn backend(self) -> Backend {
        match self {
            Self::Mlock => Backend::Mlock,
            Self::Type1 { .. } => Backend::Type1,
            Self::Iommufd { .. } => Backend::Iommufd,
            Self::IommufdProcess { .. } => Backend::IommufdProcess,
            Self::IoUring { .. } => Backend::IoUring,
            Self::Rdma => Backend::Rdma,
            Self::Udmabuf => Backend::Udmabuf,
            Self::DmaHeap => Backend::DmaHeap,
        }
    }
}

/// Memory that is to be pinned once.
///
/// Memory is told apart by its address in the process: two mappings of one file count as different memory, by
/// which a ring may be believed to charge more than it does, and never less.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    via: Via,
    range: AddrRange<ProcVa>,
    compound: Option<Granule>,
}

impl Request {
    /// These bytes, in base pages.
    pub const fn new(via: Via, range: AddrRange<ProcVa>) -> Self {
        Self { via, range, compound: None }
    }

    /// The same in compound pages of up to this size: huge pages, or folios of a file system.
    ///
    /// Give the largest that the mapping may have; a smaller one that it has instead is charged less.
    #[must_use]
    pub const fn in_compound_pages(self, of: Granule) -> Self {
        Self { compound: Some(of), ..self }
    }

    /// Through whom.
    pub const fn via(&self) -> Via {
        self.via
    }

    /// Which bytes.
    pub const fn range(&self) -> AddrRange<ProcVa> {
        self.range
    }

    /// The size of its compound pages, if it has any that are larger than a page.
    pub(super) fn compound(&self, page: Granule) -> Option<Granule> {
        self.compound.filter(|compound| *compound > page)
    }

    /// The units of this size that hold a byte of it.
    pub(super) fn units(&self, of: Granule) -> Units {
        let shift = of.bytes().as_u64().trailing_zeros();
        let (start, last) = (self.range.start().as_u64() >> shift, self.range.last().as_u64() >> shift);
        // Only of one-byte units could the last be the number after which there is none.
        Units { start, end: last.saturating_add(1) }
    }
}

/// So many units as bytes; `None` past what 64 bits hold.
pub(super) fn bytes_of(units: u64, of: Granule) -> Option<Bytes> {
    units.checked_mul(of.bytes().as_u64()).map(Bytes::new)
}
