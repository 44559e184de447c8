//! A BAR, or a part of one, in the CPU's reach.
//!
//! A mapping is of whole pages that hold the range asked for. Offsets are counted from the
//! BAR's start, as in a device's manual, whatever part is mapped.
//!
//! Accesses are volatile. Registers are loaded and stored at one width; runs of bytes are
//! copied in words of eight bytes where alignment allows, which is right for memory and
//! wrong for registers.
//!
//! The CPU reaches a BAR only while the function's memory space is on: with
//! [`Command::MEMORY`](super::Command) clear, or between D3 and D0, an access ends the
//! process with SIGBUS (Linux 7.2 `vfio_pci_mmap_huge_fault`). Switch it on first, and keep
//! config writes of others away.
//!
//! Not here: which device may reach the BAR; that is what address spaces are for.

use super::error::errno;
use super::region::{BarIndex, BarRange, Mappable, Region};
use crate::sys::map::{Mapping, Outside};
use peerdma::addr::{AddrRange, Bytes, ProcVa};
use peerdma::dma::Errno;
use peerdma::pcie::PciAddr;
use std::os::fd::BorrowedFd;

/// Pages of a BAR, mapped until dropped.
///
/// Holding it keeps the device open in the kernel, also after its
/// [`VfioDevice`](super::VfioDevice) is gone.
#[derive(Debug)]
pub struct BarMapping {
    mapping: Mapping,
    device: PciAddr,
    /// Whole pages, cut at the BAR's end.
    window: BarRange,
}

/// Why a BAR could not be mapped.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MapBarError {
    /// The function has no such BAR; choose one that it has.
    #[error("{device} has no {bar}; it has {}", Bars(has))]
    Absent {
        /// The function.
        device: PciAddr,
        /// The BAR.
        bar: BarIndex,
        /// Those that it has.
        has: Vec<BarIndex>,
    },
    /// The range ends past the BAR; choose a smaller one.
    #[error("{range} does not lie in {device}'s {} of {size}", range.bar())]
    Outside {
        /// The function.
        device: PciAddr,
        /// The range.
        range: BarRange,
        /// The BAR's length.
        size: Bytes,
    },
    /// The CPU cannot map it; use another BAR or range.
    #[error(
        "{device}'s {range} cannot be mapped: the kernel offers no mmap for it (an I/O BAR, one that shares its page, or the page of an MSI-X table)"
    )]
    NotMappable {
        /// The function.
        device: PciAddr,
        /// The range.
        range: BarRange,
    },
    /// The kernel refused for a reason of its own.
    #[error("mmap of {device}'s {range} refused with {errno}")]
    Kernel {
        /// The function.
        device: PciAddr,
        /// The range.
        range: BarRange,
        /// The kernel's answer.
        errno: Errno,
    },
}

struct Bars<'a>(&'a [BarIndex]);

impl std::fmt::Display for Bars<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (index, bar) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{bar}")?;
        }
        Ok(())
    }
}

/// An access reaches out of what is mapped, or is not aligned to its own width.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{len} at offset {offset:#x} are not an aligned access inside {device}'s mapped {window}", offset = offset.as_u64())]
pub struct AccessError {
    /// The function.
    pub device: PciAddr,
    /// What is mapped.
    pub window: BarRange,
    /// Where the access starts, from the BAR's start.
    pub offset: Bytes,
    /// How long it is.
    pub len: Bytes,
}

impl BarMapping {
    pub(super) fn new(
        fd: BorrowedFd<'_>,
        device: PciAddr,
        region: &Region,
        range: BarRange,
    ) -> Result<Self, MapBarError> {
        let window = mapped_window(device, region, range)?;
        let refused = |error| MapBarError::Kernel { device, range, errno: errno(error) };
        let len = usize::try_from(window.len().as_u64()).map_err(|_| refused(rustix::io::Errno::NOMEM))?;
        // `Region::parse` checked that the region's end fits 64 bits.
        let at = region.file_offset + window.offset().as_u64();
        Ok(Self { mapping: Mapping::of_file(fd, at, len).map_err(refused)?, device, window })
    }

    /// Any mapping in the place of a BAR's.
    #[cfg(test)]
    pub(super) fn of(mapping: Mapping, device: PciAddr, window: BarRange) -> Self {
        Self { mapping, device, window }
    }

    /// What is mapped: whole pages, except at the end of a BAR that is smaller than one.
    pub fn window(&self) -> BarRange {
        self.window
    }

    /// The function whose BAR it is.
    pub fn device(&self) -> PciAddr {
        self.device
    }

    /// Addresses of `range` in this process, to map it for a device; `None` if it is not
    /// all mapped here.
    pub fn process_range(&self, range: BarRange) -> Option<AddrRange<ProcVa>> {
        let at = range.offset().as_u64().checked_sub(self.window.offset().as_u64())?;
        (range.bar() == self.window.bar() && range.end() <= self.window.end())
            .then(|| AddrRange::new(self.mapping.address().checked_add(Bytes::new(at))?, range.len()))?
    }

    /// Copies bytes out of the BAR.
    ///
    /// # Errors
    /// [`AccessError`], with nothing read, if they are not all mapped here.
    pub fn read(&self, offset: Bytes, into: &mut [u8]) -> Result<(), AccessError> {
        let outside = self.outside(offset, into.len());
        self.mapping.read(self.inner(offset, outside)?, into).map_err(|Outside| outside)
    }

    /// Copies bytes into the BAR.
    ///
    /// # Errors
    /// [`AccessError`], with nothing written, if they are not all mapped here.
    pub fn write(&self, offset: Bytes, from: &[u8]) -> Result<(), AccessError> {
        let outside = self.outside(offset, from.len());
        self.mapping.write(self.inner(offset, outside)?, from).map_err(|Outside| outside)
    }

    /// Loads a 32-bit register.
    ///
    /// # Errors
    /// [`AccessError`] if it is not mapped here or not aligned.
    pub fn load_u32(&self, offset: Bytes) -> Result<u32, AccessError> {
        let outside = self.outside(offset, 4);
        self.mapping.load_u32(self.inner(offset, outside)?).map(u32::from_le).map_err(|Outside| outside)
    }

    /// Stores a 32-bit register.
    ///
    /// # Errors
    /// [`AccessError`] if it is not mapped here or not aligned.
    pub fn store_u32(&self, offset: Bytes, value: u32) -> Result<(), AccessError> {
        let outside = self.outside(offset, 4);
        self.mapping.store_u32(self.inner(offset, outside)?, value.to_le()).map_err(|Outside| outside)
    }

    /// Loads a 64-bit register in one access.
    ///
    /// # Errors
    /// [`AccessError`] if it is not mapped here or not aligned.
    pub fn load_u64(&self, offset: Bytes) -> Result<u64, AccessError> {
        let outside = self.outside(offset, 8);
        self.mapping.load_u64(self.inner(offset, outside)?).map(u64::from_le).map_err(|Outside| outside)
    }

    /// Stores a 64-bit register in one access.
    ///
    /// # Errors
    /// [`AccessError`] if it is not mapped here or not aligned.
    pub fn store_u64(&self, offset: Bytes, value: u64) -> Result<(), AccessError> {
        let outside = self.outside(offset, 8);
        self.mapping.store_u64(self.inner(offset, outside)?, value.to_le()).map_err(|Outside| outside)
    }

    fn outside(&self, offset: Bytes, len: usize) -> AccessError {
        AccessError { device: self.device, window: self.window, offset, len: Bytes::new(len as u64) }
    }

    /// Offset in the mapping of an offset in the BAR.
    fn inner(&self, offset: Bytes, outside: AccessError) -> Result<usize, AccessError> {
        let at = offset.as_u64().checked_sub(self.window.offset().as_u64()).ok_or(outside)?;
        usize::try_from(at).map_err(|_| outside)
    }
}

/// The pages around `range` that can be mapped, cut at the BAR's end.
pub(super) fn mapped_window(device: PciAddr, region: &Region, range: BarRange) -> Result<BarRange, MapBarError> {
    let size = region.size;
    let outside = MapBarError::Outside { device, range, size };
    if range.end() > size {
        return Err(outside);
    }
    let pages = range.whole_pages(crate::memory::page_size()).ok_or(outside.clone())?;
    // A BAR smaller than a page that has its page to itself maps with all of the page, but
    // what lies past its end is nobody's.
    let len = pages.end().min(size).as_u64() - pages.offset().as_u64();
    let window = BarRange::new(range.bar(), pages.offset(), Bytes::new(len)).ok_or(outside)?;
    let inside = |(start, len): &(Bytes, Bytes)| {
        *start <= window.offset() && start.checked_add(*len).is_some_and(|end| window.end() <= end)
    };
    let mappable = match &region.mappable {
        Mappable::No => false,
        Mappable::Whole => true,
        Mappable::Areas(areas) => areas.iter().any(inside),
    };
    if mappable { Ok(window) } else { Err(MapBarError::NotMappable { device, range }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> PciAddr {
        "0000:06:00.0".parse().unwrap()
    }

    fn range(offset: u64, len: u64) -> BarRange {
        BarRange::new(BarIndex::new(2).unwrap(), Bytes::new(offset), Bytes::new(len)).unwrap()
    }

    fn region(size: u64, mappable: Mappable) -> Region {
        Region { size: Bytes::new(size), mappable, file_offset: 2 << 40 }
    }

    #[test]
    fn a_window_is_whole_pages_cut_at_the_end_of_the_bar() {
        let whole = region(0x4000, Mappable::Whole);
        assert_eq!(mapped_window(device(), &whole, range(0xffc, 8)).unwrap(), range(0, 0x2000));
        let small = region(0x100, Mappable::Whole);
        assert_eq!(mapped_window(device(), &small, range(0x80, 8)).unwrap(), range(0, 0x100));
    }

    #[test]
    fn ranges_outside_the_bar_and_bars_without_mmap_are_refused_by_name() {
        let whole = region(0x4000, Mappable::Whole);
        let error = mapped_window(device(), &whole, range(0x3fff, 2)).unwrap_err();
        assert!(matches!(error, MapBarError::Outside { .. }), "{error}");
        assert_eq!(error.to_string(), "bar2+0x3fff,2 bytes does not lie in 0000:06:00.0's bar2 of 16 KiB");
        let error = mapped_window(device(), &region(0x4000, Mappable::No), range(0, 1)).unwrap_err();
        assert!(matches!(error, MapBarError::NotMappable { .. }), "{error}");
    }

    #[test]
    fn only_the_areas_that_the_kernel_offers_are_mapped() {
        let areas = Mappable::Areas(vec![(Bytes::ZERO, Bytes::new(0x1000)), (Bytes::new(0x2000), Bytes::new(0x2000))]);
        let sparse = region(0x4000, areas);
        assert!(mapped_window(device(), &sparse, range(0x10, 0x10)).is_ok());
        assert!(mapped_window(device(), &sparse, range(0x2000, 0x2000)).is_ok());
        for refused in [range(0x1000, 1), range(0xfff, 2), range(0, 0x4000), range(0x1fff, 2)] {
            assert!(mapped_window(device(), &sparse, refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn process_addresses_are_given_only_for_what_is_mapped() {
        let mapping = Mapping::anonymous(0x1000).unwrap();
        let start = mapping.address();
        let bar = BarMapping { mapping, device: device(), window: range(0x1000, 0x1000) };
        let inside = bar.process_range(range(0x1800, 0x800)).unwrap();
        assert_eq!(inside.start(), start.checked_add(Bytes::new(0x800)).unwrap());
        assert_eq!(bar.process_range(range(0xfff, 1)), None);
        assert_eq!(bar.process_range(range(0x1fff, 2)), None);
        let other = BarRange::new(BarIndex::new(0).unwrap(), Bytes::new(0x1000), Bytes::new(1)).unwrap();
        assert_eq!(bar.process_range(other), None);
    }

    #[test]
    fn registers_are_reached_by_their_offset_in_the_bar() {
        let mapping = Mapping::anonymous(0x1000).unwrap();
        let bar = BarMapping { mapping, device: device(), window: range(0x1000, 0x1000) };
        bar.store_u64(Bytes::new(0x1088), 0x1122_3344_5566_7788).unwrap();
        assert_eq!(bar.load_u32(Bytes::new(0x108c)), Ok(0x1122_3344));
        assert_eq!(bar.load_u64(Bytes::new(0x1088)), Ok(0x1122_3344_5566_7788));
        for wrong in [0u64, 0xfff, 0x1001, 0x1ffe, 0x2000, u64::MAX] {
            assert!(bar.load_u32(Bytes::new(wrong)).is_err(), "{wrong:#x}");
            assert!(bar.store_u64(Bytes::new(wrong), 0).is_err(), "{wrong:#x}");
        }
        assert!(bar.read(Bytes::new(0x1ff0), &mut [0; 17]).is_err());
        assert!(bar.write(Bytes::new(0xff8), &[0; 16]).is_err());
    }
}
