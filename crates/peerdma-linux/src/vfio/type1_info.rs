//! What a container's type1 IOMMU says about itself.
//!
//! Answer to `VFIO_IOMMU_GET_INFO` (Linux 7.2 `vfio_iommu_type1_get_info`): page sizes, and
//! capabilities with usable IOVA ranges and the number of mappings that are left.
//!
//! Not here: turning it into [`Abilities`](peerdma::dma::Abilities); see [`crate::type1`].

use super::chain::{DamagedChain, capabilities, counted_pairs, u32_at, u64_at};
use vfio_bindings::bindings::vfio as uapi;

/// The answer, as far as the kernel gave it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Type1Info {
    /// Bit n: mappings may be of 2^n bytes; `None` from a kernel that does not say.
    pub(crate) page_sizes: Option<u64>,
    /// First and last usable address; `None` from kernels before 5.4.
    pub(crate) ranges: Option<Vec<(u64, u64)>>,
    /// Mappings that can still be made; `None` from kernels before 5.10.
    pub(crate) left: Option<u32>,
}

/// The kernel's answer makes no sense.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum DamagedInfo {
    #[error("the answer is too short")]
    Short,
    #[error(transparent)]
    Chain(#[from] DamagedChain),
    #[error("a capability is shorter than it says")]
    Capability,
}

impl Type1Info {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, DamagedInfo> {
        // struct vfio_iommu_type1_info: argsz, flags, iova_pgsizes, cap_offset.
        let flags = u32_at(bytes, 4).ok_or(DamagedInfo::Short)?;
        let page_sizes = u64_at(bytes, 8).ok_or(DamagedInfo::Short)?;
        let cap_offset = u32_at(bytes, 16).ok_or(DamagedInfo::Short)?;
        let page_sizes = (flags & uapi::VFIO_IOMMU_INFO_PGSIZES != 0).then_some(page_sizes);
        let mut info = Self { page_sizes, ..Self::default() };
        if flags & uapi::VFIO_IOMMU_INFO_CAPS != 0 {
            for capability in capabilities(bytes, cap_offset)? {
                match u32::from(capability.id) {
                    uapi::VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE => {
                        info.ranges = Some(counted_pairs(capability.body).ok_or(DamagedInfo::Capability)?);
                    }
                    uapi::VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL => {
                        info.left = Some(u32_at(capability.body, 0).ok_or(DamagedInfo::Capability)?);
                    }
                    _ => {}
                }
            }
        }
        Ok(info)
    }
}

#[cfg(test)]
mod tests {
    use super::super::chain::tests::{answer, pairs};
    use super::*;

    fn info(flags: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(0u32.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(0x4020_1000u64.to_ne_bytes());
        bytes.extend(24u32.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes
    }

    #[test]
    fn ranges_page_sizes_and_what_is_left_are_read() {
        let chain =
            [(1, pairs(&[(0, 0xfedf_ffff), (0xfef0_0000, u64::MAX >> 25)])), (2, vec![0; 24]), (3, vec![9, 0, 0, 0])];
        let read = Type1Info::parse(&answer(&info(3), &chain)).unwrap();
        assert_eq!(read.page_sizes, Some(0x4020_1000));
        assert_eq!(read.ranges.unwrap().len(), 2);
        assert_eq!(read.left, Some(9));
    }

    #[test]
    fn what_the_kernel_does_not_say_is_not_made_up() {
        assert_eq!(Type1Info::parse(&info(0)), Ok(Type1Info::default()));
        let damaged = answer(&info(3), &[(3, vec![9, 0])]);
        assert_eq!(Type1Info::parse(&damaged), Err(DamagedInfo::Capability));
        assert_eq!(Type1Info::parse(&info(3)[..18]), Err(DamagedInfo::Short));
    }
}
