//! Arm VMSAv8-64, stages 1 and 2 (Arm ARM D8.2 and D8.3).
//!
//! Bit 0 valid; bit 1 a table, at level 3 a page, and without it a block. The address stands in
//! bits 47 down to the granule, with 64 KiB pages and 52 bits of output bits 51:48 of it in
//! 15:12. Stage 1: AP\[2:1\] in 7:6 (read-only, unprivileged too), which APTable in bits
//! 62:61 of the tables above restricts. Stage 2: S2AP in 7:6 (reads, writes). Bit 10 is the access
//! flag. The contiguous bit is a hint and not needed for an answer; bit 16 of a block (nT) is one
//! too. Sizes of blocks are those without FEAT_LPA2.
//!
//! At level 3 an entry without bit 1 is reserved, and faults on hardware as an invalid one
//! does; it is told apart here, as nobody writes it on purpose.

use super::{Leaf, bit, entry, field};
use crate::iommu::fault::FaultReason;
use crate::iommu::tables::{ArmGranule, ArmStage, TableBytes};

/// What there is to know of a table besides its root.
pub(super) struct Lpae {
    pub(super) stage: ArmStage,
    pub(super) granule: ArmGranule,
    pub(super) input_bits: u8,
    pub(super) output_bits: u8,
    pub(super) access_flag_faults: bool,
}

impl Lpae {
    const fn page_shift(&self) -> u32 {
        match self.granule {
            ArmGranule::K4 => 12,
            ArmGranule::K16 => 14,
            ArmGranule::K64 => 16,
        }
    }

    /// Logarithm of what an entry of a table of this level covers; level 3 holds the pages.
    const fn covers(&self, level: u32) -> u32 {
        self.page_shift() + (self.page_shift() - 3) * (3 - level)
    }

    /// The lowest level number at which there are blocks.
    const fn first_blocks(&self) -> u32 {
        match self.granule {
            ArmGranule::K4 => 1,
            ArmGranule::K16 => 2,
            ArmGranule::K64 => {
                if self.output_bits == 52 {
                    1
                } else {
                    2
                }
            }
        }
    }

    /// Level of the root; `None` where the widths make no table.
    fn start(&self) -> Option<u32> {
        let input = u32::from(self.input_bits);
        if !(16..=52).contains(&input) || !(32..=52).contains(&self.output_bits) || input <= self.page_shift() {
            return None;
        }
        match self.stage {
            ArmStage::One { .. } => 4_u32.checked_sub((input - self.page_shift()).div_ceil(self.page_shift() - 3)),
            ArmStage::Two { start_level } => {
                let level = u32::from(start_level);
                // Sixteen tables side by side at most.
                let most = (level < 4).then(|| self.covers(level) + self.page_shift() - 3 + 4)?;
                (input <= most && input > self.covers(level)).then_some(level)
            }
        }
    }

    /// The address in an entry; `None` where it has more bits than an output may have.
    fn address(&self, found: u64) -> Option<u64> {
        let low = field(found, 47, self.page_shift());
        let address = match self.granule {
            ArmGranule::K64 if self.output_bits == 52 => low | field(found, 15, 12) << 36,
            _ => low,
        };
        (address >> self.output_bits == 0).then_some(address)
    }

    pub(super) fn walk(&self, memory: &dyn TableBytes, root: u64, at: u64) -> Result<Leaf, FaultReason> {
        let start = self.start().ok_or(FaultReason::BadEntry)?;
        let above = at >> self.input_bits;
        let expected = match self.stage {
            ArmStage::One { upper_half: true, .. } => u64::MAX >> self.input_bits,
            _ => 0,
        };
        if above != expected {
            return Err(FaultReason::OutOfRange);
        }
        let (mut table, mut writable, mut unprivileged) = (root, true, true);
        for level in start..=3 {
            let shift = self.covers(level);
            let index_high = if level == start { u32::from(self.input_bits) } else { self.covers(level - 1) } - 1;
            let found = entry(memory, table, field(at, index_high, shift) >> shift)?;
            if !bit(found, 0) {
                return Err(FaultReason::NotMapped);
            }
            let address = self.address(found).ok_or(FaultReason::BadEntry)?;
            if bit(found, 1) && level < 3 {
                if matches!(self.stage, ArmStage::One { .. }) {
                    writable &= !bit(found, 62);
                    unprivileged &= !bit(found, 61);
                }
                table = address;
                continue;
            }
            if !bit(found, 1) && (level == 3 || level < self.first_blocks()) {
                return Err(FaultReason::BadEntry);
            }
            return self.leaf(found, address, shift, writable, unprivileged);
        }
        Err(FaultReason::BadEntry)
    }

    /// What a page or a block says.
    fn leaf(
        &self,
        found: u64,
        address: u64,
        shift: u32,
        writable: bool,
        unprivileged: bool,
    ) -> Result<Leaf, FaultReason> {
        // Bit 16 of a block is nT, where it is no address bit.
        let hint = if shift > 16 && !matches!(self.granule, ArmGranule::K64) { 1 << 16 } else { 0 };
        let address = address & !hint;
        if address & ((1 << shift) - 1) != 0 {
            return Err(FaultReason::BadEntry);
        }
        if self.access_flag_faults && !bit(found, 10) {
            return Err(FaultReason::AccessFlag);
        }
        Ok(match self.stage {
            ArmStage::One { hardware_dirty, .. } => {
                let write = !bit(found, 7) || (hardware_dirty && bit(found, 51));
                let user = bit(found, 6) && unprivileged;
                Leaf { shift, base: address, read: true, write: write && writable, user }
            }
            ArmStage::Two { .. } => {
                Leaf { shift, base: address, read: bit(found, 6), write: bit(found, 7), user: true }
            }
        })
    }
}
