//! A small window with one table of entries, as POWER has below old host bridges.
//!
//! Devices see a few hundred megabytes of IOVA at most, and each page of it has one
//! translation control entry: the real address of the page, bit 1 for writes, bit 0 for reads
//! (Linux 7.2 `tce_build_pSeries`). Entries are big-endian, since the host bridge reads them so
//! whatever the CPU does.
//!
//! An entry has no attributes. Linux builds it from the address alone and asks nobody
//! whether that is device memory (`iommu_map_phys` of arch/powerpc, the one legacy
//! implementation of its kind that takes device memory), so this takes it as memory and
//! says so.

use crate::access::{Access, MemAttrs, Prot};
use crate::addr::{AddrRange, Bytes, Granule, Iova, PhysAddr};
use crate::dma::abilities::{Abilities, Changes, Mmio, Placement, Sources, WriteOnly};
use crate::dma::error::{MapError, UnmapError};
use crate::dma::io_space::{IoSpace, Source};
use crate::iopt::{Frame, TableMemory};
use crate::iova::IovaRanges;
use crate::sync::atomic::{AtomicU64, Ordering};
use core::convert::Infallible;

const READ: u64 = 1;
const WRITE: u64 = 2;

/// Entries in a frame of the table.
const PER_FRAME: u64 = 512;

/// The most frames that a table can have in a row.
const MOST_FRAMES: u64 = 256;

/// Size of the pages of a window.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum TcePage {
    /// 4 KiB.
    K4,
    /// 64 KiB.
    K64,
}

impl TcePage {
    const fn shift(self) -> u32 {
        match self {
            Self::K4 => 12,
            Self::K64 => 16,
        }
    }

    /// The size.
    pub const fn bytes(self) -> Bytes {
        Bytes::new(1 << self.shift())
    }
}

/// Why a window cannot be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WindowError {
    /// Its start or length is not a multiple of its pages.
    #[error("window {window} does not consist of pages of {page}; align its start and length")]
    Misaligned {
        /// The window.
        window: AddrRange<Iova>,
        /// Size of its pages.
        page: Bytes,
    },
    /// One table cannot hold so many entries.
    #[error("window {window} has {pages} pages, one table holds {most}; make it smaller, or its pages larger")]
    TooLarge {
        /// The window.
        window: AddrRange<Iova>,
        /// How many pages it has.
        pages: u64,
        /// How many entries the largest table has.
        most: u64,
    },
    /// There are not enough frames in a row.
    #[error("no {frames} frames in a row are left for the table of window {window}")]
    NoTableMemory {
        /// The window.
        window: AddrRange<Iova>,
        /// How many frames the table takes.
        frames: usize,
    },
}

/// A window and its table.
///
/// ```
/// use peerdma::addr::{AddrRange, Bytes, Iova, PhysAddr};
/// use peerdma::access::Access;
/// use peerdma::dma::spaces::{TcePage, TceSpace};
/// use peerdma::dma::{IoSpace, MemAttrs, Prot, Source};
/// use peerdma::iopt::FrameArena;
///
/// let arena = FrameArena::new(PhysAddr::new(0x10_0000), 16);
/// let window = AddrRange::new(Iova::new(0), Bytes::new(0x200_0000)).unwrap();
/// let mut space = TceSpace::new(&arena, window, TcePage::K4)?;
///
/// let iova = AddrRange::new(Iova::new(0x4000), Bytes::new(0x1000)).unwrap();
/// space.map(iova, &Source::Physical(PhysAddr::new(0x9000)), Prot::Read, MemAttrs::empty())?;
/// assert_eq!(space.translate(Iova::new(0x4010), Access::Read), Some(PhysAddr::new(0x9010)));
/// assert_eq!(space.translate(Iova::new(0x4010), Access::Write), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct TceSpace<M: TableMemory> {
    memory: M,
    root: PhysAddr,
    frames: usize,
    window: AddrRange<Iova>,
    page: TcePage,
    abilities: Abilities,
}

impl<M: TableMemory> TceSpace<M> {
    /// An empty table for `window`, which has to consist of whole pages.
    ///
    /// # Errors
    /// See [`WindowError`]; nothing is allocated after any of them.
    pub fn new(memory: M, window: AddrRange<Iova>, page: TcePage) -> Result<Self, WindowError> {
        let size = page.bytes();
        let granule = Granule::new(size).unwrap_or(Granule::PAGE_4K);
        if !granule.aligns(window.start()) || !granule.divides(window.len()) {
            return Err(WindowError::Misaligned { window, page: size });
        }
        let (pages, most) = (window.len().as_u64() >> page.shift(), MOST_FRAMES * PER_FRAME);
        if pages > most {
            return Err(WindowError::TooLarge { window, pages, most });
        }
        let frames = pages.div_ceil(PER_FRAME).next_power_of_two() as usize;
        let root = memory.allocate(frames).ok_or(WindowError::NoTableMemory { window, frames })?;
        let abilities = Abilities {
            placement: Placement::Chosen,
            sources: Sources { physical: Some(Mmio::AsMemory), ..Sources::default() },
            granule,
            usable: IovaRanges::from_inclusive([(window.start(), window.last())]).unwrap_or_default(),
            attrs: MemAttrs::empty(),
            write_only: WriteOnly::Exact,
            changes: Changes::UNMAP_PART | Changes::UNMAP_SEVERAL | Changes::UNMAP_NOTHING | Changes::RELINK,
            max_mappings: None,
        };
        Ok(Self { memory, root, frames, window, page, abilities })
    }

    /// Takes a range out of what can be mapped, whole pages around it included.
    ///
    /// What is mapped there already stays until it is unmapped.
    #[must_use]
    pub fn reserving(mut self, range: AddrRange<Iova>) -> Self {
        self.abilities.usable = self.abilities.usable.without(&[range], self.abilities.granule);
        self
    }

    /// The size of its pages.
    pub fn page(&self) -> TcePage {
        self.page
    }

    /// Where the table is: the address that the host bridge is told.
    pub fn root(&self) -> PhysAddr {
        self.root
    }

    /// The IOVAs that it translates.
    pub fn window(&self) -> AddrRange<Iova> {
        self.window
    }

    /// Where an access ends up, to the byte; `None` where it meets a fault.
    pub fn translate(&self, iova: Iova, access: Access) -> Option<PhysAddr> {
        let tce = u64::from_be(self.entry(iova)?.load(Ordering::Relaxed));
        let needed = match access {
            Access::Read => READ,
            Access::Write => WRITE,
        };
        let within = iova.as_u64() & (self.page.bytes().as_u64() - 1);
        // The lowest twelve bits are flags whatever the page size.
        (tce & needed != 0).then(|| PhysAddr::new(tce >> 12 << 12 | within))
    }

    fn frame(&self, index: u64) -> Option<&Frame> {
        self.memory.frame(self.root.checked_add(Bytes::new(index << 12))?)
    }

    fn entry(&self, iova: Iova) -> Option<&AtomicU64> {
        let offset = iova.as_u64().checked_sub(self.window.start().as_u64())?;
        let number = offset >> self.page.shift();
        if offset >= self.window.len().as_u64() {
            return None;
        }
        self.frame(number / PER_FRAME)?.get((number % PER_FRAME) as usize)
    }

    /// The entries of a range inside the window, with the IOVA of each.
    fn entries(&self, iova: AddrRange<Iova>) -> impl Iterator<Item = (Iova, &AtomicU64)> {
        let (first, step) = (iova.start().as_u64(), self.page.bytes().as_u64());
        let pages = (0..iova.len().as_u64().div_ceil(step)).map(move |n| Iova::new(first + n * step));
        pages.filter_map(|at| Some((at, self.entry(at)?)))
    }

    /// The first page in a range for which `wanted` holds of its entry.
    fn first_page(&self, iova: AddrRange<Iova>, wanted: fn(u64) -> bool) -> Option<AddrRange<Iova>> {
        let mut entries = self.entries(iova);
        let (at, _) = entries.find(|(_, entry)| wanted(entry.load(Ordering::Relaxed)))?;
        AddrRange::new(at, self.page.bytes())
    }

    /// Refuses what the abilities refuse; says where the source starts.
    fn check(
        &self,
        iova: AddrRange<Iova>,
        source: &Source<Infallible>,
        prot: Prot,
        attrs: MemAttrs,
    ) -> Result<PhysAddr, MapError> {
        self.abilities.check_map(iova, source, prot, attrs)?;
        match source {
            Source::Physical(at) => Ok(*at),
            Source::Process(_) | Source::File { .. } => {
                Err(MapError::SourceNotTaken { kind: source.kind(), taken: self.abilities.sources })
            }
        }
    }

    /// Writes the entries of a range that was checked.
    fn write(&self, iova: AddrRange<Iova>, to: PhysAddr, prot: Prot) {
        let rights = if prot.reads() { READ } else { 0 } | if prot.writes() { WRITE } else { 0 };
        for (at, entry) in self.entries(iova) {
            // The source ends inside 64 bits, as was checked, so that this does not wrap.
            let page = to.as_u64() + (at.as_u64() - iova.start().as_u64());
            entry.store((page | rights).to_be(), Ordering::Relaxed);
        }
    }
}

impl<M: TableMemory> IoSpace for TceSpace<M> {
    type File = Infallible;

    fn abilities(&self) -> &Abilities {
        &self.abilities
    }

    fn map(
        &mut self,
        iova: AddrRange<Iova>,
        source: &Source<Infallible>,
        prot: Prot,
        attrs: MemAttrs,
    ) -> Result<(), MapError> {
        let to = self.check(iova, source, prot, attrs)?;
        let existing = self.first_page(iova, |entry| entry != 0);
        if existing.is_some() {
            return Err(MapError::Overlap { iova, existing });
        }
        self.write(iova, to, prot);
        Ok(())
    }

    fn relink(
        &mut self,
        iova: AddrRange<Iova>,
        source: &Source<Infallible>,
        prot: Prot,
        attrs: MemAttrs,
    ) -> Result<(), MapError> {
        let to = self.check(iova, source, prot, attrs)?;
        if let Some(hole) = self.first_page(iova, |entry| entry == 0) {
            return Err(MapError::NotMapped { iova, at: hole.start() });
        }
        self.write(iova, to, prot);
        Ok(())
    }

    fn unmap(&mut self, iova: AddrRange<Iova>) -> Result<Bytes, UnmapError> {
        self.abilities.check_unmap(iova)?;
        let first = iova.start().max(self.window.start());
        let Some(inside) = AddrRange::from_inclusive(first, iova.last().min(self.window.last())) else {
            return Ok(Bytes::ZERO);
        };
        let entries = self.entries(inside);
        let unmapped = entries.filter(|(_, entry)| entry.swap(0, Ordering::Relaxed) != 0).count() as u64;
        Ok(Bytes::new(unmapped << self.page.shift()))
    }
}

impl<M: TableMemory> Drop for TceSpace<M> {
    /// Gives the table's frames back; nothing may read them any more.
    fn drop(&mut self) {
        self.memory.free(self.root, self.frames);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iopt::FrameArena;

    const NONE: MemAttrs = MemAttrs::empty();

    fn range(start: u64, len: u64) -> AddrRange<Iova> {
        AddrRange::new(Iova::new(start), Bytes::new(len)).unwrap()
    }

    fn physical(at: u64) -> Source<Infallible> {
        Source::Physical(PhysAddr::new(at))
    }

    /// Literals by hand: address, write 2, read 1, big-endian.
    #[test]
    fn an_entry_is_address_and_rights_and_big_endian() {
        let arena = FrameArena::new(PhysAddr::new(0x10_0000), 4);
        let mut space = TceSpace::new(&arena, range(0x8000_0000, 0x20_0000), TcePage::K4).unwrap();
        space.map(range(0x8000_3000, 0x2000), &physical(0x1_2345_6000), Prot::ReadWrite, NONE).unwrap();
        space.map(range(0x8000_5000, 0x1000), &physical(0x7000), Prot::Write, MemAttrs::MMIO).unwrap();
        let frame = arena.frame(space.root()).unwrap();
        let bytes = |index: usize| frame[index].load(Ordering::Relaxed).to_ne_bytes();
        assert_eq!(bytes(3), [0, 0, 0, 1, 0x23, 0x45, 0x60, 3]);
        assert_eq!(bytes(4), [0, 0, 0, 1, 0x23, 0x45, 0x70, 3]);
        assert_eq!(bytes(5), [0, 0, 0, 0, 0, 0, 0x70, 2]);
        assert_eq!(bytes(6), [0; 8]);
    }

    #[test]
    fn pages_of_64_kib_take_one_entry_each() {
        let arena = FrameArena::new(PhysAddr::new(0x10_0000), 4);
        let mut space = TceSpace::new(&arena, range(0, 0x200_0000), TcePage::K64).unwrap();
        let odd = space.map(range(0x1000, 0x1_0000), &physical(0), Prot::Read, NONE);
        assert!(matches!(odd, Err(MapError::Misaligned { .. })));
        space.map(range(0x1_0000, 0x2_0000), &physical(0x8_0000), Prot::Read, NONE).unwrap();
        assert_eq!(space.translate(Iova::new(0x2_fff7), Access::Read), Some(PhysAddr::new(0x9_fff7)));
        assert_eq!(space.translate(Iova::new(0x3_0000), Access::Read), None);
        assert_eq!(space.unmap(range(0, 0x200_0000)), Ok(Bytes::new(0x2_0000)));
    }

    #[test]
    fn a_page_with_a_reserved_byte_cannot_be_mapped_and_its_neighbours_can() {
        let arena = FrameArena::new(PhysAddr::new(0x10_0000), 4);
        let space = TceSpace::new(&arena, range(0, 0x20_0000), TcePage::K4).unwrap();
        let mut space = space.reserving(range(0x5fff, 1)).reserving(range(0x20_0000, 0x1000));
        for (page, taken) in [(4, true), (5, false), (6, true), (0x1ff, true)] {
            let answer = space.map(range(page << 12, 0x1000), &physical(0), Prot::Read, NONE);
            assert_eq!(answer.is_ok(), taken, "page {page}: {answer:?}");
        }
        assert!(space.map(range(0x3000, 0x4000), &physical(0), Prot::Read, NONE).is_err());
    }

    #[test]
    fn rights_are_exact() {
        let arena = FrameArena::new(PhysAddr::new(0x10_0000), 4);
        let mut space = TceSpace::new(&arena, range(0, 0x20_0000), TcePage::K4).unwrap();
        for (page, prot) in [(0, Prot::Read), (1, Prot::Write), (2, Prot::ReadWrite)] {
            space.map(range(page << 12, 0x1000), &physical(0), prot, NONE).unwrap();
            for access in [Access::Read, Access::Write] {
                let reached = space.translate(Iova::new(page << 12), access);
                assert_eq!(reached.is_some(), access.is_permitted_by(prot), "{prot} {access}");
            }
        }
    }

    #[test]
    fn nothing_lies_outside_the_window() {
        let arena = FrameArena::new(PhysAddr::new(0x10_0000), 4);
        let mut space = TceSpace::new(&arena, range(0x10_0000, 0x20_0000), TcePage::K4).unwrap();
        for iova in [range(0xf_f000, 0x2000), range(0x2f_f000, 0x2000), range(0, 0x1000)] {
            let answer = space.map(iova, &physical(0), Prot::Read, NONE);
            assert!(matches!(answer, Err(MapError::OutsideUsable { .. })), "{iova}");
            assert_eq!(space.unmap(iova), Ok(Bytes::ZERO));
        }
        space.map(space.window(), &physical(0), Prot::Read, NONE).unwrap();
        assert_eq!(space.translate(Iova::new(0xf_ffff), Access::Read), None);
        assert_eq!(space.translate(Iova::new(0x30_0000), Access::Read), None);
        assert_eq!(space.unmap(range(0, 0x1_0000_0000)), Ok(space.window().len()));
    }

    #[test]
    fn a_window_that_no_table_holds_is_refused_and_takes_no_frame() {
        let arena = FrameArena::new(PhysAddr::new(0x10_0000), 4);
        let refused = |window, page| TceSpace::new(&arena, window, page).unwrap_err();
        let odd = range(0x1000, 0x10_0000);
        assert_eq!(refused(odd, TcePage::K64), WindowError::Misaligned { window: odd, page: Bytes::new(0x1_0000) });
        let large = range(0, 0x1_0000_0000);
        let (pages, most) = (1 << 20, 1 << 17);
        assert_eq!(refused(large, TcePage::K4), WindowError::TooLarge { window: large, pages, most });
        let many = range(0, 0x200_0000);
        assert_eq!(refused(many, TcePage::K4), WindowError::NoTableMemory { window: many, frames: 16 });
        assert_eq!(arena.in_use(), 0);
        drop(TceSpace::new(&arena, odd, TcePage::K4).unwrap());
        assert_eq!(arena.in_use(), 0, "a dropped space gives its table back");
    }
}
