//! The smallest unit of an address space.
//!
//! Not the page size of the CPU: an IOMMU may know larger pages only, and an iommufd
//! space asks for none at all before a device is attached.

use super::{Address, Bytes};
use core::fmt;

/// Smallest unit of an address space: a power of two of bytes.
///
/// IOVAs, lengths and starts of sources are multiples of it. One byte is possible:
/// an iommufd address space to which nothing is attached asks for no alignment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Granule {
    shift: u8,
}

impl Granule {
    /// 4 KiB, the smallest page of every IOMMU that Linux drives on x86.
    pub const PAGE_4K: Self = Self { shift: 12 };

    /// The granule of `len` bytes; `None` unless that is a power of two.
    pub const fn new(len: Bytes) -> Option<Self> {
        if len.as_u64().is_power_of_two() {
            return Some(Self { shift: len.as_u64().trailing_zeros() as u8 });
        }
        None
    }

    /// The smallest page size in a bitmap of page sizes (bit n: 2^n bytes), as VFIO
    /// gives it in `iova_pgsizes`; `None` if it names none.
    pub const fn smallest_of(page_sizes: u64) -> Option<Self> {
        if page_sizes == 0 {
            return None;
        }
        Some(Self { shift: page_sizes.trailing_zeros() as u8 })
    }

    /// Its size.
    pub const fn bytes(self) -> Bytes {
        Bytes::new(1 << self.shift)
    }

    /// Whether a length or file offset is a multiple.
    pub const fn divides(self, len: Bytes) -> bool {
        len.as_u64().trailing_zeros() >= self.shift as u32
    }

    /// Whether an address is a multiple.
    pub fn aligns<A: Address>(self, address: A) -> bool {
        self.divides(Bytes::new(address.as_u64()))
    }
}

impl fmt::Display for Granule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_granule_is_a_power_of_two() {
        assert_eq!(Granule::new(Bytes::new(4096)), Some(Granule::PAGE_4K));
        assert_eq!(Granule::new(Bytes::new(1)).map(Granule::bytes), Some(Bytes::new(1)));
        assert_eq!(Granule::new(Bytes::new(1 << 63)).map(Granule::bytes), Some(Bytes::new(1 << 63)));
        for odd in [0, 3, 4097, u64::MAX] {
            assert_eq!(Granule::new(Bytes::new(odd)), None, "{odd}");
        }
    }

    #[test]
    fn the_smallest_page_size_of_a_bitmap_is_the_granule() {
        // VT-d second stage: 4 KiB, 2 MiB, 1 GiB.
        assert_eq!(Granule::smallest_of(0x4020_1000), Some(Granule::PAGE_4K));
        assert_eq!(Granule::smallest_of(0xffff_ffff_ffff_f000), Some(Granule::PAGE_4K));
        assert_eq!(Granule::smallest_of(0), None);
    }

    #[test]
    fn an_address_is_aligned_if_it_is_a_multiple() {
        use super::super::Iova;
        let page = Granule::PAGE_4K;
        assert!(page.aligns(Iova::new(0)) && page.aligns(Iova::new(0x3000)));
        assert!(!page.aligns(Iova::new(0x3800)) && !page.aligns(Iova::new(u64::MAX)));
    }
}
