//! Capabilities of virtualisation and translation: SR-IOV, ATS, PRI, PASID, resizable BARs.

use super::config::ConfigSpace;
use crate::addr::Bytes;
use alloc::vec::Vec;

/// Single Root I/O Virtualization (PCIe 6.0 §9.3.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SrIov {
    /// VF Enable.
    pub enabled: bool,
    /// Number of virtual functions that exist while enabled.
    pub num_vfs: u16,
    /// Number of virtual functions the device can have.
    pub total_vfs: u16,
    /// Routing ID of the first virtual function, counted from the physical one.
    pub first_offset: u16,
    /// Routing IDs from one virtual function to the next.
    pub stride: u16,
}

impl SrIov {
    /// Reads the capability at `offset`; `None` where a register is not at hand.
    pub fn decode(config: &impl ConfigSpace, offset: u16) -> Option<Self> {
        Some(Self {
            enabled: config.word(offset + 0x08)? & 1 != 0,
            total_vfs: config.word(offset + 0x0e)?,
            num_vfs: config.word(offset + 0x10)?,
            first_offset: config.word(offset + 0x14)?,
            stride: config.word(offset + 0x16)?,
        })
    }

    /// Number of virtual functions that exist.
    pub fn existing(&self) -> u16 {
        if self.enabled { self.num_vfs } else { 0 }
    }

    /// Whether an existing virtual function lies `distance` routing IDs after the physical one.
    pub fn yields(&self, distance: u32) -> bool {
        let Some(beyond) = distance.checked_sub(u32::from(self.first_offset)) else { return false };
        let nth = match u32::from(self.stride) {
            0 => (beyond == 0).then_some(0),
            stride => beyond.is_multiple_of(stride).then_some(beyond / stride),
        };
        distance != 0 && nth.is_some_and(|nth| nth < u32::from(self.existing()))
    }

    /// Routing-ID distances of the existing virtual functions from the physical one.
    pub fn vf_offsets(&self) -> impl Iterator<Item = u32> + use<> {
        let Self { first_offset, stride, .. } = *self;
        (0..u32::from(self.existing())).map(move |n| u32::from(first_offset) + n * u32::from(stride))
    }
}

/// Address Translation Services (PCIe 6.0 §10.5.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ats {
    /// Whether the function may send translation requests and translated addresses.
    pub enabled: bool,
}

/// Page Request Interface (PCIe 6.0 §10.5.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pri {
    /// Whether the function may send page requests.
    pub enabled: bool,
}

/// Process Address Space IDs (PCIe 6.0 §7.8.8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pasid {
    /// Whether requests may carry one.
    pub enabled: bool,
    /// Width of the ID in bits, 0 to 20.
    pub width: u8,
}

/// One resizable BAR (PCIe 6.0 §7.8.6).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ResizableBar {
    /// Which BAR, 0 to 5.
    pub index: u8,
    /// Size it has now.
    pub size: Bytes,
    /// Sizes it can take, ascending.
    pub sizes: Vec<Bytes>,
}

/// Reads the resizable-BAR capability at `offset`; entries that are not at hand are left out.
pub fn resizable_bars(config: &impl ConfigSpace, offset: u16) -> Vec<ResizableBar> {
    let Some(first) = config.dword(offset + 8) else { return Vec::new() };
    let count = (first >> 5 & 7).min(6) as u16;
    (0..count)
        .map_while(|n| {
            let capability = config.dword(offset + 4 + 8 * n)?;
            let control = config.dword(offset + 8 + 8 * n)?;
            // Capability bits 31:4 are 1 MiB to 128 TiB, control bits 31:16 go on to 2^63.
            let mask = u64::from(capability >> 4) | u64::from(control >> 16) << 28;
            Some(ResizableBar {
                index: (control & 7) as u8,
                size: Bytes::new(1u64.checked_shl(20 + (control >> 8 & 0x3f)).unwrap_or(0)),
                sizes: (0..44).filter(|bit| mask & 1 << bit != 0).map(|bit| Bytes::new(1 << (20 + bit))).collect(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_physical_function_yields_what_its_offset_and_stride_say(
            enabled: bool, num_vfs in 0u16..40, first_offset in 0u16..20, stride in 0u16..5, distance in 0u32..300,
        ) {
            let sriov = SrIov { enabled, num_vfs, total_vfs: 40, first_offset, stride };
            let listed = distance != 0 && sriov.vf_offsets().any(|offset| offset == distance);
            prop_assert_eq!(sriov.yields(distance), listed);
        }
    }
}
