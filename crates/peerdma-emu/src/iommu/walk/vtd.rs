//! VT-d second stage (VT-d 4.1 §3.7 and §9.8).
//!
//! Bit 0 permits reads, bit 1 writes, of all levels together; an entry with neither is not
//! present. Bit 7 makes a page of 2 MiB or 1 GiB; higher up it is reserved. Bits 51:12 are the
//! address, and those of them inside a large page are reserved. Memory types, snoop
//! control, accessed and dirty bits change nothing here.

use super::{Leaf, bit, entry, field};
use crate::iommu::fault::FaultReason;
use crate::iommu::tables::TableBytes;

pub(super) fn walk(memory: &dyn TableBytes, root: u64, levels: u8, at: u64) -> Result<Leaf, FaultReason> {
    if !(1..=5).contains(&levels) {
        return Err(FaultReason::BadEntry);
    }
    if at >> (12 + 9 * u32::from(levels)) != 0 {
        return Err(FaultReason::OutOfRange);
    }
    let (mut table, mut read, mut write) = (root, true, true);
    for level in (1..=u32::from(levels)).rev() {
        let shift = 12 + 9 * (level - 1);
        let found = entry(memory, table, at >> shift & 0x1ff)?;
        if !bit(found, 0) && !bit(found, 1) {
            return Err(FaultReason::NotMapped);
        }
        read &= bit(found, 0);
        write &= bit(found, 1);
        let address = field(found, 51, 12);
        if level == 1 || bit(found, 7) {
            if level > 3 || address & ((1 << shift) - 1) != 0 {
                return Err(FaultReason::BadEntry);
            }
            return Ok(Leaf { shift, base: address, read, write, user: true });
        }
        table = address;
    }
    Err(FaultReason::BadEntry)
}
