//! What page tables object to, in the words of an address space.

use super::iommu::SoftIommu;
use crate::addr::{AddrRange, Bytes, Iova, PhysAddr};
use crate::dma::error::{MapError, UnmapError};
use crate::iopt::{Format, MapFault, MapFaultKind, ReplaceError, SplitError, TableMemory};

/// Why a mapping was refused that its abilities permit.
pub(super) fn of_map<F: Format, M: TableMemory>(
    iommu: &SoftIommu<F, M>,
    iova: AddrRange<Iova>,
    to: PhysAddr,
    fault: MapFault,
) -> MapError {
    match fault.kind {
        MapFaultKind::AlreadyMapped => MapError::Overlap { iova, existing: in_the_way(iommu, iova, fault.at) },
        MapFaultKind::NoMemory => MapError::NoTableMemory { iova },
        MapFaultKind::ReadOnlyRefused => MapError::ReadOnlyNotTaken,
        MapFaultKind::PhysOutOfRange => too_high(iommu, to, iova.len()),
        MapFaultKind::IovaOutOfRange | MapFaultKind::Misaligned => {
            MapError::OutsideUsable { iova, nearest: iommu.abilities.usable.nearest(iova.start()) }
        }
        MapFaultKind::BadEntry => MapError::TablesDamaged { iova },
    }
}

/// The first page at or above `from` that is mapped in a range.
fn in_the_way<F: Format, M: TableMemory>(
    iommu: &SoftIommu<F, M>,
    iova: AddrRange<Iova>,
    from: Iova,
) -> Option<AddrRange<Iova>> {
    let format = iommu.table.format();
    let mut at = from;
    while at <= iova.last() {
        let ended = match iommu.table.walk(at) {
            Ok(found) => {
                let start = Iova::new(at.as_u64() & !(found.page_size.as_u64() - 1));
                return AddrRange::new(start, found.page_size);
            }
            Err(ended) => ended,
        };
        // Nothing is mapped below the entry at which the walk ended.
        let height = (0..=format.shape().max_height()).find(|height| Some(format.level(*height)) == ended.level)?;
        let shift = F::PAGE_SHIFT + F::INDEX_BITS * u32::from(height);
        let span = 1_u64.checked_shl(shift).unwrap_or(0).wrapping_sub(1);
        at = Iova::new((at.as_u64() | span).checked_add(1)?);
    }
    None
}

fn too_high<F: Format, M: TableMemory>(iommu: &SoftIommu<F, M>, at: PhysAddr, len: Bytes) -> MapError {
    let address = AddrRange::new(at, len).map_or(at, |range| range.last());
    MapError::SourceTooHigh { address, bits: iommu.table.format().shape().output_bits() }
}

/// Where to split so that a replacement fits, or why it never will.
pub(super) fn split_for<F: Format, M: TableMemory>(
    iommu: &SoftIommu<F, M>,
    iova: AddrRange<Iova>,
    to: PhysAddr,
    error: ReplaceError,
) -> Result<Iova, MapError> {
    let outside = || MapError::OutsideUsable { iova, nearest: iommu.abilities.usable.nearest(iova.start()) };
    match error {
        // The leaf begins before the range, or ends behind it.
        ReplaceError::Crosses { at, .. } if at == iova.start() && !starts_a_leaf(iommu, at) => Ok(at),
        ReplaceError::Crosses { .. } => iova.last().checked_add(Bytes::new(1)).ok_or_else(outside),
        ReplaceError::SourceMisaligned { at, .. } => {
            at.checked_add(iommu.abilities.granule.bytes()).ok_or_else(outside)
        }
        ReplaceError::NotMapped { at } => Err(MapError::NotMapped { iova, at }),
        ReplaceError::ReadOnlyRefused { .. } => Err(MapError::ReadOnlyNotTaken),
        ReplaceError::OutOfRange { .. } => Err(too_high(iommu, to, iova.len())),
        ReplaceError::Misaligned { .. } => Err(outside()),
        ReplaceError::BadEntry { .. } => Err(MapError::TablesDamaged { iova }),
    }
}

fn starts_a_leaf<F: Format, M: TableMemory>(iommu: &SoftIommu<F, M>, at: Iova) -> bool {
    let found = iommu.table.walk(at);
    found.is_ok_and(|found| at.as_u64() & (found.page_size.as_u64() - 1) == 0)
}

/// Why a replacement's leaves could not be split.
pub(super) fn of_split(iova: AddrRange<Iova>, error: SplitError) -> MapError {
    match error {
        SplitError::NoMemory { .. } => MapError::NoTableMemory { iova },
        // The tables were given page sizes with a gap between them.
        SplitError::NoSmallerPage { .. } => MapError::RelinkNotTaken { iova },
        SplitError::Misaligned { .. } | SplitError::IovaOutOfRange { .. } | SplitError::BadEntry { .. } => {
            MapError::TablesDamaged { iova }
        }
    }
}

/// Why nothing was unmapped.
#[cold]
pub(super) fn of_unmap(iova: AddrRange<Iova>, error: SplitError) -> UnmapError {
    match error {
        SplitError::NoMemory { at } => UnmapError::NoTableMemory { iova, at },
        // The tables were given page sizes with a gap between them.
        SplitError::NoSmallerPage { at, page } => {
            let start = Iova::new(at.as_u64() & !(page.as_u64() - 1));
            UnmapError::Split { iova, existing: AddrRange::new(start, page) }
        }
        SplitError::Misaligned { .. } | SplitError::IovaOutOfRange { .. } | SplitError::BadEntry { .. } => {
            UnmapError::TablesDamaged { iova }
        }
    }
}
