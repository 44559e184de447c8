//! No IOMMU, or one that passes everything: memory is where the host bridge shows it.
//!
//! Nothing is written anywhere when a source is mapped here, and nothing keeps a device
//! from memory that is not: placement is dictated and protection is a promise. What is
//! left to a space of this kind is to refuse: what the device cannot address, what no
//! window shows, and IOVAs at which the source does not appear.
//!
//! Memory goes through the windows (Linux 7.2 `phys_to_dma`, `dma_range_map`); device
//! memory keeps the number that the CPU knows it by, as in `dma_direct_map_phys`, which
//! skips the windows for it.

use crate::access::{MemAttrs, Prot};
use crate::addr::{AddrRange, Bytes, Granule, Iova};
use crate::dma::abilities::{Abilities, Changes, Mmio, Placement, Sources, WriteOnly};
use crate::dma::error::{MapError, UnmapError};
use crate::dma::io_space::{IoSpace, Source};
use crate::dma::mapped::Mapped;
use crate::dma::windows::Windows;
use crate::iova::IovaRanges;
use core::convert::Infallible;

/// The smallest unit is a byte, since nothing is translated.
const BYTE: Granule = match Granule::new(Bytes::new(1)) {
    Some(granule) => granule,
    None => Granule::PAGE_4K,
};

/// The machine as a device sees it that no IOMMU translates for.
///
/// ```
/// use peerdma::addr::{AddrRange, BusAddr, Bytes, Iova, PhysAddr};
/// use peerdma::dma::spaces::DirectSpace;
/// use peerdma::dma::{IoSpace, MapError, MemAttrs, Prot, Source, Windows};
/// use peerdma::topology::HostWindow;
///
/// // Memory that the CPU finds from 2 GiB on is shown to devices from zero on.
/// let memory = AddrRange::new(PhysAddr::new(0x8000_0000), Bytes::new(0x1000_0000)).unwrap();
/// let windows = Windows::new([HostWindow::new(memory, BusAddr::new(0)).unwrap()].into());
/// let mut space = DirectSpace::new(windows, Iova::new(0xffff_ffff));
///
/// let source = Source::Physical(PhysAddr::new(0x8000_4000));
/// let at = |start| AddrRange::new(Iova::new(start), Bytes::new(0x1000)).unwrap();
/// assert!(space.map(at(0x4000), &source, Prot::ReadWrite, MemAttrs::empty()).is_ok());
/// let elsewhere = space.map(at(0x9000), &source, Prot::ReadWrite, MemAttrs::empty());
/// assert!(matches!(elsewhere, Err(MapError::PlacementDictated { dictated: Some(_), .. })));
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirectSpace {
    abilities: Abilities,
    mapped: Mapped,
}

impl DirectSpace {
    /// What a device sees through these windows that can form addresses up to `highest`, inclusive.
    pub fn new(windows: Windows, highest: Iova) -> Self {
        let usable = IovaRanges::from_inclusive([(Iova::new(0), highest)]).unwrap_or_default();
        let abilities = Abilities {
            placement: Placement::Dictated(windows),
            sources: Sources { physical: Some(Mmio::AsMemory), ..Sources::default() },
            granule: BYTE,
            usable,
            attrs: MemAttrs::NOT_SNOOPED,
            write_only: WriteOnly::MayRead,
            changes: Changes::UNMAP_PART | Changes::UNMAP_SEVERAL | Changes::UNMAP_NOTHING,
            max_mappings: None,
        };
        Self { abilities, mapped: Mapped::new() }
    }

    /// What is mapped.
    pub fn mapped(&self) -> &Mapped {
        &self.mapped
    }
}

impl IoSpace for DirectSpace {
    type File = Infallible;

    fn abilities(&self) -> &Abilities {
        &self.abilities
    }

    fn check_place(&self, iova: AddrRange<Iova>) -> Result<(), MapError> {
        self.abilities.check_iovas(iova)?;
        self.mapped.check_map(&self.abilities, iova)
    }

    fn map(
        &mut self,
        iova: AddrRange<Iova>,
        source: &Source<Infallible>,
        prot: Prot,
        attrs: MemAttrs,
    ) -> Result<(), MapError> {
        self.abilities.check_map(iova, source, prot, attrs)?;
        let dictated = match (source, &self.abilities.placement) {
            (Source::Physical(at), Placement::Dictated(windows)) => windows.appears(*at, iova.len(), attrs),
            (Source::Physical(_), Placement::Chosen) => Some(iova.start()),
            (Source::Process(_) | Source::File { .. }, _) => {
                let (kind, taken) = (source.kind(), self.abilities.sources);
                return Err(MapError::SourceNotTaken { kind, taken });
            }
        };
        if dictated != Some(iova.start()) {
            return Err(MapError::PlacementDictated { iova, dictated });
        }
        self.mapped.check_map(&self.abilities, iova)?;
        self.mapped.insert(iova);
        Ok(())
    }

    fn unmap(&mut self, iova: AddrRange<Iova>) -> Result<Bytes, UnmapError> {
        self.abilities.check_unmap(iova)?;
        self.mapped.check_unmap(&self.abilities, iova)?;
        Ok(self.mapped.remove(iova))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{BusAddr, PhysAddr};
    use crate::dma::io_space::SourceKind;
    use crate::topology::HostWindow;

    const NONE: MemAttrs = MemAttrs::empty();

    fn range(start: u64, len: u64) -> AddrRange<Iova> {
        AddrRange::new(Iova::new(start), Bytes::new(len)).unwrap()
    }

    fn physical(at: u64) -> Source<Infallible> {
        Source::Physical(PhysAddr::new(at))
    }

    /// Memory from 2 GiB on, shown from 1 GiB on; 30 bits and a half.
    fn shifted() -> DirectSpace {
        let memory = AddrRange::new(PhysAddr::new(0x8000_0000), Bytes::new(0x4000_0000)).unwrap();
        let window = HostWindow::new(memory, BusAddr::new(0x4000_0000)).unwrap();
        DirectSpace::new(Windows::new([window].into()), Iova::new(0x5fff_ffff))
    }

    #[test]
    fn memory_is_mapped_where_the_window_shows_it_and_nowhere_else() {
        let mut space = shifted();
        let at = range(0x4000_1001, 7);
        assert_eq!(space.map(at, &physical(0x8000_1001), Prot::Write, NONE), Ok(()));
        let wrong = range(0x4000_2000, 0x1000);
        let dictated = Some(Iova::new(0x4000_3000));
        let answer = space.map(wrong, &physical(0x8000_3000), Prot::Read, NONE);
        assert_eq!(answer, Err(MapError::PlacementDictated { iova: wrong, dictated }));
        assert_eq!(space.mapped().count(), 1);
    }

    #[test]
    fn memory_outside_the_windows_appears_nowhere() {
        let mut space = shifted();
        let iova = range(0x1000, 0x1000);
        let answer = space.map(iova, &physical(0x1000), Prot::Read, NONE);
        assert_eq!(answer, Err(MapError::PlacementDictated { iova, dictated: None }));
    }

    #[test]
    fn device_memory_keeps_the_number_that_the_cpu_knows_it_by() {
        let mut space = shifted();
        let iova = range(0x1000, 0x1000);
        assert_eq!(space.map(iova, &physical(0x1000), Prot::Read, MemAttrs::MMIO), Ok(()));
    }

    #[test]
    fn what_the_device_cannot_address_is_refused_up_to_its_last_byte() {
        let mut space = shifted();
        assert_eq!(space.map(range(0x5fff_f000, 0x1000), &physical(0x9fff_f000), Prot::Read, NONE), Ok(()));
        let iova = range(0x5fff_e000, 0x2001);
        let answer = space.map(iova, &physical(0x9fff_e000), Prot::Read, NONE);
        assert!(matches!(answer, Err(MapError::OutsideUsable { .. })), "{answer:?}");
    }

    #[test]
    fn other_sources_have_no_place_to_appear_at() {
        let mut space = shifted();
        let process = Source::Process(crate::addr::ProcVa::new(0x1000));
        let answer = space.map(range(0x1000, 0x1000), &process, Prot::Read, NONE);
        assert!(matches!(answer, Err(MapError::SourceNotTaken { kind: SourceKind::Process, .. })));
    }

    #[test]
    fn parts_come_out_and_the_rest_stays() {
        let mut space = shifted();
        space.map(range(0x4000_0000, 0x4000), &physical(0x8000_0000), Prot::Read, NONE).unwrap();
        assert_eq!(space.unmap(range(0x4000_1000, 0x1000)), Ok(Bytes::new(0x1000)));
        assert_eq!(space.unmap(range(0x3000_0000, 0x2000_0000)), Ok(Bytes::new(0x3000)));
        assert!(space.mapped().is_empty());
    }
}
