//! The walk of a device's IOMMU: from an IOVA to an entry.
//!
//! [`walk_tables`] needs no more than an IOMMU has: a format, a root and memory. What it finds
//! may have been written by anybody, so an entry that makes no sense ends the walk with that.

use super::entry::Entry;
use super::format::{Format, shift_of};
use super::memory::TableMemory;
use super::table::{PageTable, Root};
use crate::access::{MemAttrs, Prot};
use crate::addr::{Bytes, Iova, PhysAddr};
use crate::sync::atomic::Ordering;

/// Where a walk led: a translation, or where it ended and why.
pub type Walk = Result<Translation, WalkEnd>;

/// What an IOVA is translated to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translation {
    /// The address of the byte.
    pub pa: PhysAddr,
    /// Size of the page that holds it, to which IOVA and address are congruent.
    pub page_size: Bytes,
    /// What the leaf and the tables above it permit.
    pub prot: Prot,
    /// The attributes that the leaf tells; those a format has no bits for are absent.
    pub attrs: MemAttrs,
    /// Level of the table that holds the leaf, as the format numbers it.
    pub level: u8,
    /// The leaf entry.
    pub entry: u64,
}

/// Where a walk ended without a translation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{why} at entry {entry:#x}")]
pub struct WalkEnd {
    /// Why.
    pub why: NotTranslated,
    /// Level of the table in which it ended, as the format numbers it; `None`: before the root.
    pub level: Option<u8>,
    /// The entry with which it ended; 0 if none was read.
    pub entry: u64,
}

/// Why an IOVA is not translated.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotTranslated {
    /// The IOVA is outside of what the table translates.
    #[error("the table does not translate that IOVA")]
    OutOfRange,
    /// Nothing is mapped there.
    #[error("not present")]
    NotPresent,
    /// The entry is nothing that the format allows there, or its address is beyond the output width.
    #[error("reserved bits or an address beyond the output width")]
    BadEntry,
    /// The leaf, or a table above it, permits nothing.
    #[error("neither reads nor writes are permitted")]
    NoAccess,
    /// The entry before led to a table where the memory has no frame.
    #[error("no table frame where the entry points")]
    NoFrame,
}

/// Translates `iova` by the tables below `root`.
///
/// Reads one entry per level and writes nothing: marks of accesses are for the emulated IOMMU
/// to set.
///
/// # Errors
/// [`WalkEnd`]; never panics and always ends, whatever the frames hold.
#[inline(always)]
pub fn walk_tables<F: Format, M: TableMemory + ?Sized>(format: &F, memory: &M, root: Root, iova: Iova) -> Walk {
    if !format.shape().contains(iova) || (F::GROWS && !reaches::<F>(root.height, iova.as_u64())) {
        return Err(WalkEnd { why: NotTranslated::OutOfRange, level: None, entry: 0 });
    }
    // Heights as constants, so that shifts and masks of every step are; the common one without a call.
    if root.height == 3 {
        return descend::<F, M, 3>(format, memory, root.at, iova);
    }
    descend_other(format, memory, root, iova)
}

#[inline(never)]
fn descend_other<F: Format, M: TableMemory + ?Sized>(format: &F, memory: &M, root: Root, iova: Iova) -> Walk {
    match root.height {
        0 => descend::<F, M, 0>(format, memory, root.at, iova),
        1 => descend::<F, M, 1>(format, memory, root.at, iova),
        2 => descend::<F, M, 2>(format, memory, root.at, iova),
        4 => descend::<F, M, 4>(format, memory, root.at, iova),
        5 => descend::<F, M, 5>(format, memory, root.at, iova),
        _ => Err(WalkEnd { why: NotTranslated::BadEntry, level: None, entry: 0 }),
    }
}

#[inline(always)]
fn descend<F: Format, M: TableMemory + ?Sized, const TOP: u8>(
    format: &F,
    memory: &M,
    mut table: PhysAddr,
    iova: Iova,
) -> Walk {
    let (shape, raw) = (format.shape(), iova.as_u64());
    let mut index = (raw & shape.translated()).wrapping_shr(shift_of::<F>(TOP));
    let mut inherited = F::INHERITED;
    let mut entry = 0;
    let mut below = 0;
    while below <= TOP {
        let height = TOP - below;
        let end = |why, entry| Err(WalkEnd { why, level: Some(format.level(height)), entry });
        // Several frames only where tables are larger, and at the root where they stand side by side.
        let several = F::INDEX_BITS > 9 || (F::CONCATENATES && below == 0);
        let frame_at = if several { table.as_u64().wrapping_add(index >> 9 << 12) } else { table.as_u64() };
        let Some(frame) = memory.frame(PhysAddr::new(frame_at)) else {
            return end(NotTranslated::NoFrame, entry);
        };
        entry = frame[index as usize & 511].load(Ordering::Acquire);
        match format.decode(entry, height) {
            Entry::Table(next) if height > 0 => {
                inherited &= entry;
                table = next;
                index = raw.wrapping_shr(shift_of::<F>(height - 1)) & ((1 << F::INDEX_BITS) - 1);
            }
            Entry::Leaf { base, size_shift } => {
                let within = raw & 1_u64.wrapping_shl(size_shift).wrapping_sub(1);
                let pa = base.as_u64() | within;
                if pa > shape.last_output() {
                    return end(NotTranslated::BadEntry, entry);
                }
                let effective = entry & (inherited | !F::INHERITED);
                let Some(prot) = format.prot(effective) else {
                    return end(NotTranslated::NoAccess, entry);
                };
                return Ok(Translation {
                    pa: PhysAddr::new(pa),
                    page_size: Bytes::new(1_u64.wrapping_shl(size_shift)),
                    prot,
                    attrs: format.attrs(effective),
                    level: format.level(height),
                    entry,
                });
            }
            Entry::Empty => return end(NotTranslated::NotPresent, entry),
            Entry::Table(_) | Entry::Bad => return end(NotTranslated::BadEntry, entry),
        }
        below += 1;
    }
    // A leaf table has no table entries, so that the loop never ends here.
    Err(WalkEnd { why: NotTranslated::BadEntry, level: Some(format.level(0)), entry })
}

/// Whether a root of this height, which may grow, reaches an IOVA.
#[inline]
pub(super) fn reaches<F: Format>(height: u8, raw: u64) -> bool {
    let bits = shift_of::<F>(height) + F::INDEX_BITS;
    bits >= 64 || raw >> bits == 0
}

impl<F: Format, M: TableMemory> PageTable<F, M> {
    /// Translates `iova` as a device's IOMMU would.
    ///
    /// # Errors
    /// [`WalkEnd`]: where and why the walk ended.
    #[inline(always)]
    pub fn walk(&self, at: Iova) -> Walk {
        walk_tables(self.format(), self.memory(), self.root(), at)
    }
}
