//! Where memory appears to devices that no IOMMU translates for.
//!
//! On most machines at its own address. Behind host bridges with windows at an offset
//! (device tree `dma-ranges`, Linux 7.2 `dma_range_map`) memory has another number below
//! the bridge, or none. Device memory is not looked up there: what goes through the
//! host bridge to a peer is CPU-physical as it is (`dma_direct_map_phys` with the MMIO
//! attribute), which is why the two are asked separately.

use crate::access::MemAttrs;
use crate::addr::{AddrRange, BusAddr, Bytes, Iova, PhysAddr};
use crate::topology::HostWindow;
use alloc::vec::Vec;

/// The windows through which devices below one host bridge see memory.
///
/// Without any, every address is its own.
#[derive(Clone, PartialEq, Eq, Debug, Default, Hash)]
pub struct Windows {
    windows: Vec<HostWindow>,
}

impl Windows {
    /// Every address is its own.
    pub const fn one_to_one() -> Self {
        Self { windows: Vec::new() }
    }

    /// What these windows show, and nothing else.
    pub fn new(windows: Vec<HostWindow>) -> Self {
        Self { windows }
    }

    /// Whether every address is its own.
    pub fn are_one_to_one(&self) -> bool {
        self.windows.iter().all(HostWindow::is_one_to_one)
    }

    /// The windows; none if every address is its own.
    pub fn as_slice(&self) -> &[HostWindow] {
        &self.windows
    }

    /// Where devices find memory that the CPU finds at `cpu`; `None` if no window shows it.
    #[inline]
    pub fn show(&self, cpu: PhysAddr, len: Bytes) -> Option<BusAddr> {
        if self.windows.is_empty() {
            return Some(BusAddr::new(cpu.as_u64()));
        }
        let range = AddrRange::new(cpu, len)?;
        self.windows.iter().find_map(|window| window.to_bus(&range)).map(|range| range.start())
    }

    /// Where devices find a source of these attributes: memory through the windows, device memory
    /// at the number the CPU knows it by. `None` if no window shows it.
    pub fn appears(&self, source: PhysAddr, len: Bytes, attrs: MemAttrs) -> Option<Iova> {
        if attrs.contains(MemAttrs::MMIO) {
            return Some(Iova::new(source.as_u64()));
        }
        self.show(source, len).map(|at| Iova::new(at.as_u64()))
    }

    /// Where the CPU finds what devices find at `bus`; `None` if no window shows it.
    pub fn cpu(&self, bus: &AddrRange<BusAddr>) -> Option<AddrRange<PhysAddr>> {
        if self.windows.is_empty() {
            return AddrRange::new(PhysAddr::new(bus.start().as_u64()), bus.len());
        }
        self.windows.iter().find_map(|window| window.to_cpu(bus))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_no_window_shows_has_no_number_below() {
        let cpu = AddrRange::new(PhysAddr::new(0x8000_0000), Bytes::new(0x1000_0000)).unwrap();
        let windows = Windows::new([HostWindow::new(cpu, BusAddr::new(0)).unwrap()].into());
        let page = Bytes::new(0x1000);
        assert_eq!(windows.show(PhysAddr::new(0x8000_1000), page), Some(BusAddr::new(0x1000)));
        assert_eq!(windows.show(PhysAddr::new(0x8fff_f000), Bytes::new(0x2000)), None);
        assert_eq!(windows.show(PhysAddr::new(0x7000_0000), page), None);
        // A peer behind the same host bridge is not memory and keeps its number.
        assert_eq!(windows.appears(PhysAddr::new(0x7000_0000), page, MemAttrs::MMIO), Some(Iova::new(0x7000_0000)));
        assert_eq!(windows.appears(PhysAddr::new(0x8000_1000), page, MemAttrs::empty()), Some(Iova::new(0x1000)));
        assert_eq!(Windows::one_to_one().show(PhysAddr::new(0x7000), page), Some(BusAddr::new(0x7000)));
    }
}
