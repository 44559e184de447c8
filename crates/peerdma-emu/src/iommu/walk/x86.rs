//! x86-64 first stage: 4 and 5 levels (Intel SDM 3A §4.5, VT-d 4.1 §9.7).
//!
//! Bit 0 present, bit 1 writable, bit 2 for users too, of all levels together; whatever is
//! present can be read. Write protection holds for supervisors as well (VT-d's WPE set). Bit 7
//! makes a page of 2 MiB or 1 GiB and is reserved above; there bit 12 is a memory type (PAT) and
//! bits up to the page's size are reserved. Accessed and dirty bits are not set and not asked for.

use super::{Leaf, bit, entry, field};
use crate::iommu::fault::FaultReason;
use crate::iommu::tables::TableBytes;

pub(super) fn walk(
    memory: &dyn TableBytes,
    root: u64,
    levels: u8,
    sign_extended: bool,
    at: u64,
) -> Result<Leaf, FaultReason> {
    if !(1..=5).contains(&levels) {
        return Err(FaultReason::BadEntry);
    }
    let bits = 12 + 9 * u32::from(levels);
    let canonical = if sign_extended {
        // All bits from the highest translated one up are the same.
        let upper = at >> (bits - 1);
        upper == 0 || upper == u64::MAX >> (bits - 1)
    } else {
        at >> bits == 0
    };
    if !canonical {
        return Err(FaultReason::OutOfRange);
    }
    let (mut table, mut write, mut user) = (root, true, true);
    for level in (1..=u32::from(levels)).rev() {
        let shift = 12 + 9 * (level - 1);
        let found = entry(memory, table, at >> shift & 0x1ff)?;
        if !bit(found, 0) {
            return Err(FaultReason::NotMapped);
        }
        write &= bit(found, 1);
        user &= bit(found, 2);
        if level == 1 {
            return Ok(Leaf { shift, base: field(found, 51, 12), read: true, write, user });
        }
        if bit(found, 7) {
            if level > 3 || field(found, shift - 1, 13) != 0 {
                return Err(FaultReason::BadEntry);
            }
            return Ok(Leaf { shift, base: field(found, 51, shift), read: true, write, user });
        }
        table = field(found, 51, 12);
    }
    Err(FaultReason::BadEntry)
}
