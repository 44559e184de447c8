//! AMD v1 host tables (AMD IOMMU 3.10 §2.2.3).
//!
//! Bit 0 present, bits 11:9 the level of what is below, bits 51:12 its address, bit 61 permits
//! reads and bit 62 writes, of all levels together. Level 0 below makes a page of the size that
//! an entry covers, level 7 one of a larger size that stands in the address: the lowest zero bit
//! from bit 12 up is worth half of it. A level may be skipped, and then the address bits that it
//! would have chosen by have to be zero. Bits 58:52 are reserved, in an entry that leads to a table
//! 60:59 too. An encryption bit, where a host has one, is an address bit to an IOMMU.

use super::{Leaf, bit, entry, field};
use crate::iommu::fault::FaultReason;
use crate::iommu::tables::TableBytes;

/// Logarithm of what one entry of a table of this level covers; level 1 holds pages of 4 KiB.
const fn covers(level: u32) -> u32 {
    12 + 9 * (level - 1)
}

pub(super) fn walk(memory: &dyn TableBytes, root: u64, levels: u8, at: u64) -> Result<Leaf, FaultReason> {
    if !(1..=6).contains(&levels) {
        return Err(FaultReason::BadEntry);
    }
    let mut level = u32::from(levels);
    if at.checked_shr(covers(level + 1)).unwrap_or(0) != 0 {
        return Err(FaultReason::OutOfRange);
    }
    let (mut table, mut read, mut write) = (root, true, true);
    loop {
        let found = entry(memory, table, at >> covers(level) & 0x1ff)?;
        if !bit(found, 0) {
            return Err(FaultReason::NotMapped);
        }
        if field(found, 58, 52) != 0 {
            return Err(FaultReason::BadEntry);
        }
        read &= bit(found, 61);
        write &= bit(found, 62);
        let below = (found >> 9 & 7) as u32;
        if below == 0 || below == 7 {
            let (shift, base) = page(found, level, below == 7)?;
            return Ok(Leaf { shift, base, read, write, user: true });
        }
        if below >= level || field(found, 60, 59) != 0 {
            return Err(FaultReason::BadEntry);
        }
        // The bits between what an entry here covers and what a table of the next level does.
        if covers(below + 1) < covers(level) && field(at, covers(level) - 1, covers(below + 1)) != 0 {
            return Err(FaultReason::NotMapped);
        }
        table = field(found, 51, 12);
        level = below;
    }
}

/// Logarithm of a page's size, and where it is.
fn page(found: u64, level: u32, size_in_address: bool) -> Result<(u32, u64), FaultReason> {
    let address = field(found, 51, 12);
    let own = covers(level);
    if own > 51 {
        return Err(FaultReason::BadEntry);
    }
    if !size_in_address {
        return if address & ((1 << own) - 1) == 0 { Ok((own, address)) } else { Err(FaultReason::BadEntry) };
    }
    let shift = (address >> 12).trailing_ones() + 12 + 1;
    // A page as large as the whole table, or smaller than an entry covers, has another encoding.
    if shift <= own || shift >= own + 9 || shift > 51 {
        return Err(FaultReason::BadEntry);
    }
    Ok((shift, field(address, 51, shift)))
}
