//! BARs as VFIO describes them: how large, whether the CPU may map them, and where.
//!
//! VFIO calls BARs and other parts of a device regions. Regions 0 to 5 are the BARs, 7 is
//! config space. A BAR without the mmap flag exists for `read` and `write` only; one with
//! a sparse capability may be mapped in parts (Linux before 4.16 keeps the MSI-X table out
//! so).
//!
//! Not here: mapping; see [`super::bar`].

use super::chain::{DamagedChain, capabilities, counted_pairs, u32_at, u64_at};
use peerdma::addr::Bytes;
use std::fmt;
use vfio_bindings::bindings::vfio as uapi;

/// Which of a function's six base address registers: 0 to 5.
///
/// A 64-bit BAR has the number of its lower half.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BarIndex(u8);

impl BarIndex {
    /// BAR `index`; `None` above 5.
    pub const fn new(index: u8) -> Option<Self> {
        if index < 6 { Some(Self(index)) } else { None }
    }

    /// All six.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..6).map(Self)
    }

    /// 0 to 5.
    pub const fn as_u8(self) -> u8 {
        self.0
    }

    /// Its region number.
    pub(crate) const fn region(self) -> u32 {
        uapi::VFIO_PCI_BAR0_REGION_INDEX + self.0 as u32
    }
}

impl fmt::Display for BarIndex {
    /// Writes `bar2`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bar{}", self.0)
    }
}

/// Bytes `offset..offset + len` of a BAR; not empty and within 64 bits.
///
/// Whether a certain device's BAR is that long is checked where the range is used.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BarRange {
    bar: BarIndex,
    offset: Bytes,
    len: Bytes,
}

impl BarRange {
    /// `len` bytes of `bar` from `offset`; `None` if there are none or their end overflows.
    pub fn new(bar: BarIndex, offset: Bytes, len: Bytes) -> Option<Self> {
        offset.checked_add(len)?;
        (len != Bytes::ZERO).then_some(Self { bar, offset, len })
    }

    /// The BAR.
    pub const fn bar(&self) -> BarIndex {
        self.bar
    }

    /// Bytes from the BAR's start.
    pub const fn offset(&self) -> Bytes {
        self.offset
    }

    /// Length, at least one byte.
    pub const fn len(&self) -> Bytes {
        self.len
    }

    /// Always false; ranges of this type hold at least one byte.
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// First byte past the range, from the BAR's start.
    pub const fn end(&self) -> Bytes {
        Bytes::new(self.offset.as_u64() + self.len.as_u64())
    }

    /// The smallest range of whole `page`s (a power of two of bytes) around it; `None` if
    /// that overflows.
    pub fn whole_pages(&self, page: Bytes) -> Option<Self> {
        let mask = page.as_u64().checked_sub(1)?;
        let start = self.offset.as_u64() & !mask;
        let end = self.end().as_u64().checked_add(mask)? & !mask;
        Self::new(self.bar, Bytes::new(start), Bytes::new(end.checked_sub(start)?))
    }
}

impl fmt::Display for BarRange {
    /// Writes `bar2+0x1000,4 KiB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{:#x},{}", self.bar, self.offset.as_u64(), self.len)
    }
}

/// Which parts of a BAR the CPU can map.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Mappable {
    /// None: it is for I/O ports, or shares its page with another device's.
    No,
    /// All of it.
    Whole,
    /// These parts, as offset and length.
    Areas(Vec<(Bytes, Bytes)>),
}

/// A BAR of an open device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bar {
    /// Its length.
    pub size: Bytes,
    /// What of it the CPU can map.
    pub mappable: Mappable,
}

/// A region: what the kernel said, checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Region {
    pub(crate) size: Bytes,
    pub(crate) mappable: Mappable,
    /// Where it starts in the device's file.
    pub(crate) file_offset: u64,
}

/// The kernel's answer about a region makes no sense.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum DamagedRegion {
    #[error("the answer is too short")]
    Short,
    #[error("its end in the device's file is past 64 bits")]
    Overflow,
    #[error(transparent)]
    Chain(#[from] DamagedChain),
    #[error("its areas for mmap do not fit into it")]
    Areas,
}

impl Region {
    /// Reads the answer to `VFIO_DEVICE_GET_REGION_INFO`.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, DamagedRegion> {
        // struct vfio_region_info: argsz, flags, index, cap_offset, size, offset.
        let word = |at| u32_at(bytes, at).ok_or(DamagedRegion::Short);
        let long = |at| u64_at(bytes, at).ok_or(DamagedRegion::Short);
        let (flags, cap_offset, size, file_offset) = (word(4)?, word(12)?, long(16)?, long(24)?);
        file_offset.checked_add(size).ok_or(DamagedRegion::Overflow)?;
        let mut mappable = if flags & uapi::VFIO_REGION_INFO_FLAG_MMAP != 0 { Mappable::Whole } else { Mappable::No };
        if flags & uapi::VFIO_REGION_INFO_FLAG_CAPS != 0 && mappable == Mappable::Whole {
            let chain = capabilities(bytes, cap_offset)?;
            let sparse = chain.iter().find(|one| u32::from(one.id) == uapi::VFIO_REGION_INFO_CAP_SPARSE_MMAP);
            if let Some(sparse) = sparse {
                let areas = counted_pairs(sparse.body).ok_or(DamagedRegion::Areas)?;
                if areas.iter().any(|(start, len)| start.checked_add(*len).is_none_or(|end| end > size)) {
                    return Err(DamagedRegion::Areas);
                }
                let areas = areas.into_iter().filter(|(_, len)| *len > 0);
                mappable = Mappable::Areas(areas.map(|(start, len)| (Bytes::new(start), Bytes::new(len))).collect());
            }
        }
        Ok(Self { size: Bytes::new(size), mappable, file_offset })
    }
}

#[cfg(test)]
mod tests {
    use super::super::chain::tests::{answer, pairs};
    use super::*;

    fn info(flags: u32, cap_offset: u32, size: u64, offset: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [0u32, flags, 2, cap_offset] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(size.to_ne_bytes());
        bytes.extend(offset.to_ne_bytes());
        bytes
    }

    #[test]
    fn a_region_is_mappable_as_far_as_the_kernel_says() {
        let plain = Region::parse(&info(7, 0, 0x4000, 2 << 40)).unwrap();
        assert_eq!((plain.mappable, plain.file_offset), (Mappable::Whole, 2 << 40));
        assert_eq!(Region::parse(&info(3, 0, 0x100, 0)).unwrap().mappable, Mappable::No);
        let sparse = answer(&info(15, 32, 0x4000, 0), &[(3, vec![]), (1, pairs(&[(0x2000, 0x2000), (0, 0)]))]);
        let areas = Mappable::Areas(vec![(Bytes::new(0x2000), Bytes::new(0x2000))]);
        assert_eq!(Region::parse(&sparse).unwrap().mappable, areas);
    }

    #[test]
    fn areas_outside_their_region_and_cut_answers_are_refused() {
        let outside = answer(&info(15, 32, 0x4000, 0), &[(1, pairs(&[(0x3000, 0x2000)]))]);
        assert_eq!(Region::parse(&outside), Err(DamagedRegion::Areas));
        let wrapping = answer(&info(15, 32, 0x4000, 0), &[(1, pairs(&[(u64::MAX, 2)]))]);
        assert_eq!(Region::parse(&wrapping), Err(DamagedRegion::Areas));
        assert_eq!(Region::parse(&info(7, 0, 0x4000, u64::MAX)), Err(DamagedRegion::Overflow));
        assert_eq!(Region::parse(&info(7, 0, 0, 0)[..31]), Err(DamagedRegion::Short));
        assert!(matches!(Region::parse(&info(15, 8000, 0x4000, 0)), Err(DamagedRegion::Chain(_))));
    }

    #[test]
    fn a_range_grows_to_whole_pages_and_never_wraps() {
        let bar = BarIndex::new(2).unwrap();
        let range = BarRange::new(bar, Bytes::new(0x1ff0), Bytes::new(0x20)).unwrap();
        let pages = range.whole_pages(Bytes::new(0x1000)).unwrap();
        assert_eq!(pages, BarRange::new(bar, Bytes::new(0x1000), Bytes::new(0x2000)).unwrap());
        assert_eq!(pages.whole_pages(Bytes::new(0x1000)), Some(pages));
        let last = BarRange::new(bar, Bytes::new(u64::MAX - 1), Bytes::new(1)).unwrap();
        assert_eq!(last.whole_pages(Bytes::new(0x1000)), None);
        assert_eq!(BarRange::new(bar, Bytes::new(u64::MAX), Bytes::new(2)), None);
        assert_eq!(BarRange::new(bar, Bytes::ZERO, Bytes::ZERO), None);
        assert_eq!(range.to_string(), "bar2+0x1ff0,32 bytes");
    }

    #[test]
    fn there_are_six_bars() {
        assert_eq!(BarIndex::all().count(), 6);
        assert!(BarIndex::new(6).is_none());
    }
}
