//! Which IOVAs a software IOMMU maps: what its tables translate, less what is reserved.

use crate::addr::{AddrRange, Bytes, Granule, Iova};
use crate::iopt::{Half, Shape};
use crate::iova::IovaRanges;
use alloc::vec::Vec;

/// What a software IOMMU is made with, beside format and memory.
///
/// ```
/// use peerdma::addr::PhysAddr;
/// use peerdma::dma::spaces::{SoftIommu, SoftOptions};
/// use peerdma::iopt::{FrameArena, VtdOptions, VtdSecondStage};
///
/// let arena = FrameArena::new(PhysAddr::new(0x10_0000), 64);
/// let format = VtdSecondStage::new(VtdOptions::default())?;
/// let iommu = SoftIommu::with(format, &arena, &SoftOptions::default().reserving_interrupts())?;
/// let usable = iommu.abilities().usable.as_slice();
/// assert_eq!(usable[0].last().as_u64(), 0xfedf_ffff);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SoftOptions {
    pub(super) reserved: Vec<AddrRange<Iova>>,
    pub(super) fault_records: usize,
}

impl Default for SoftOptions {
    /// Nothing reserved, sixty-four fault records.
    fn default() -> Self {
        Self { reserved: Vec::new(), fault_records: 64 }
    }
}

impl SoftOptions {
    /// Takes a range out of what can be mapped, whole granules around it included.
    #[must_use]
    pub fn reserving(mut self, range: AddrRange<Iova>) -> Self {
        self.reserved.push(range);
        self
    }

    /// Takes out the window of message-signalled interrupts of x86, which no IOMMU there
    /// translates: 0xfee00000 to 0xfeefffff (Linux 7.2 `IOAPIC_RANGE_START` and its neighbours in
    /// the Intel and AMD drivers).
    #[must_use]
    pub fn reserving_interrupts(mut self) -> Self {
        self.reserved.extend(AddrRange::new(Iova::new(0xfee0_0000), Bytes::new(0x10_0000)));
        self
    }

    /// How many fault records are kept; more are counted only. At least two, at most 2^20.
    #[must_use]
    pub fn with_fault_records(mut self, records: usize) -> Self {
        self.fault_records = records;
        self
    }
}

/// What a table of this shape translates, first and last address of each part.
fn apertures(shape: &Shape) -> Vec<(u64, u64)> {
    let bits = u32::from(shape.input_bits().clamp(1, 64));
    let low = |bits: u32| (0, u64::MAX >> (64 - bits));
    let high = |bits: u32| (!(u64::MAX >> (64 - bits)), u64::MAX);
    // No length holds all 2^64 bytes, so that of one part for all of them the last page is left out.
    let all = (0, u64::MAX - shape.page().as_u64());
    match shape.half() {
        _ if bits == 64 => [all].into(),
        Half::Low => [low(bits)].into(),
        Half::High => [high(bits)].into(),
        Half::SignExtended if bits == 1 => [low(1)].into(),
        Half::SignExtended => [low(bits - 1), high(bits - 1)].into(),
    }
}

/// The apertures of a shape without what is reserved, in whole granules.
pub(super) fn usable(shape: &Shape, granule: Granule, reserved: &[AddrRange<Iova>]) -> IovaRanges {
    let parts = apertures(shape).into_iter().map(|(first, last)| (Iova::new(first), Iova::new(last)));
    // Apertures share nothing, and none of them is reversed.
    IovaRanges::from_inclusive(parts).unwrap_or_default().without(reserved, granule)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iopt::PageSizes;

    fn shape(half: Half, input_bits: u8) -> Shape {
        Shape::new(input_bits, 52, half, 3, 3, PageSizes::X86)
    }

    fn pairs(shape: &Shape, reserved: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let reserved: Vec<_> = reserved
            .iter()
            .map(|(first, last)| AddrRange::from_inclusive(Iova::new(*first), Iova::new(*last)).unwrap())
            .collect();
        let usable = usable(shape, Granule::PAGE_4K, &reserved);
        usable.as_slice().iter().map(|range| (range.start().as_u64(), range.last().as_u64())).collect()
    }

    #[test]
    fn the_aperture_is_the_half_that_the_tables_translate() {
        assert_eq!(pairs(&shape(Half::Low, 48), &[]), [(0, 0xffff_ffff_ffff)]);
        assert_eq!(pairs(&shape(Half::High, 48), &[]), [(0xffff_0000_0000_0000, u64::MAX)]);
        assert_eq!(
            pairs(&shape(Half::SignExtended, 48), &[]),
            [(0, 0x7fff_ffff_ffff), (0xffff_8000_0000_0000, u64::MAX)]
        );
        for half in [Half::Low, Half::High, Half::SignExtended] {
            assert_eq!(pairs(&shape(half, 64), &[]), [(0, u64::MAX - 0x1000)]);
        }
    }

    #[test]
    fn reserved_ranges_are_cut_out_in_whole_pages() {
        let low = shape(Half::Low, 32);
        assert_eq!(pairs(&low, &[(0xfee0_0000, 0xfeef_ffff)]), [(0, 0xfedf_ffff), (0xfef0_0000, 0xffff_ffff)]);
        assert_eq!(pairs(&low, &[(0x1800, 0x1801)]), [(0, 0xfff), (0x2000, 0xffff_ffff)]);
    }

    #[test]
    fn reserved_ranges_may_overlap_touch_and_reach_out() {
        let low = shape(Half::Low, 32);
        let reserved = [(0x8000, 0xbfff), (0x4000, 0x9fff), (0xc000, 0xcfff), (0x5000, 0x5fff), (0xf000_0000, 1 << 40)];
        assert_eq!(pairs(&low, &reserved), [(0, 0x3fff), (0xd000, 0xefff_ffff)]);
        assert_eq!(pairs(&low, &[(0, u64::MAX - 1)]), []);
        let both = shape(Half::SignExtended, 48);
        assert_eq!(pairs(&both, &[(0x1000, 0xffff_8000_0000_0fff)]), [(0, 0xfff), (0xffff_8000_0000_1000, u64::MAX)]);
        assert_eq!(pairs(&both, &[(0xffff_8000_0000_0000, u64::MAX)]), [(0, 0x7fff_ffff_ffff)]);
    }
}
