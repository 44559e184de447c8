//! A flat table of translation control entries (PAPR §14.5.4.2.1, Linux `arch/powerpc/include/asm/tce.h`).
//!
//! One big-endian entry a page: bit 0 permits reads, bit 1 writes, bits 63:12 are the address of the page.

use super::{Leaf, bit, entry, field};
use crate::iommu::fault::FaultReason;
use crate::iommu::tables::TableBytes;
use peerdma::addr::{AddrRange, Iova};

pub(super) fn walk(
    memory: &dyn TableBytes,
    root: u64,
    window: AddrRange<Iova>,
    page_shift: u8,
    at: u64,
) -> Result<Leaf, FaultReason> {
    let (first, last, shift) = (window.start().as_u64(), window.last().as_u64(), u32::from(page_shift));
    if !(12..52).contains(&shift) || field(first, shift - 1, 0) != 0 {
        return Err(FaultReason::BadEntry);
    }
    if at < first || at > last {
        return Err(FaultReason::OutOfRange);
    }
    let found = u64::from_be(entry(memory, root, (at - first) >> shift)?);
    let (read, write) = (bit(found, 0), bit(found, 1));
    if !read && !write {
        return Err(FaultReason::NotMapped);
    }
    Ok(Leaf { shift, base: field(found, 63, shift), read, write, user: true })
}
