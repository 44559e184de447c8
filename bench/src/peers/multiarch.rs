//! The page tables of the crate `page_table_multiarch`.
//!
//! Its frames are memory of this process at their own address, as in a kernel that maps all
//! memory one to one. Nothing is flushed, since no processor uses them.

use memory_addr::{PhysAddr, VirtAddr};
use page_table_multiarch::{MappingFlags, PageSize, PageTable64, PageTable64Cursor, PagingHandler, PagingMetaData};
use std::sync::{Mutex, PoisonError};

#[cfg(target_arch = "aarch64")]
use page_table_entry::aarch64::A64PTE as Entry;
#[cfg(target_arch = "x86_64")]
use page_table_entry::x86_64::X64PTE as Entry;

/// A frame, aligned as one.
#[repr(C, align(4096))]
struct Frame([u8; 4096]);

/// Free frames, by address.
static FREE: Mutex<Vec<usize>> = Mutex::new(Vec::new());

/// Hands out frames.
pub struct Frames;

impl PagingHandler for Frames {
    fn alloc_frames(count: usize, _align: usize) -> Option<PhysAddr> {
        // Its tables ask for single frames only.
        if count != 1 {
            return None;
        }
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let at =
            free.pop().unwrap_or_else(|| std::ptr::from_mut(Box::leak(Box::new(Frame([0; 4096])))).expose_provenance());
        Some(at.into())
    }

    fn dealloc_frames(at: PhysAddr, _count: usize) {
        FREE.lock().unwrap_or_else(PoisonError::into_inner).push(at.as_usize());
    }

    fn phys_to_virt(at: PhysAddr) -> VirtAddr {
        at.as_usize().into()
    }
}

/// Four levels, 48 bits.
pub struct FourLevels;

impl PagingMetaData for FourLevels {
    const LEVELS: usize = 4;
    const PA_MAX_BITS: usize = 52;
    const VA_MAX_BITS: usize = 48;
    type VirtAddr = VirtAddr;

    fn flush_tlb(_at: Option<VirtAddr>) {}
}

/// A table of it.
pub type Table = PageTable64<FourLevels, Entry, Frames>;

/// Readable and writable.
pub const FLAGS: MappingFlags = MappingFlags::READ.union(MappingFlags::WRITE);

/// An empty table; memory for it is there.
pub fn table() -> Table {
    match Table::try_new() {
        Ok(table) => table,
        Err(error) => unreachable!("frames are allocated as they are asked for: {error:?}"),
    }
}

/// What a table is changed with; it notes what to flush.
pub type Cursor<'t> = PageTable64Cursor<'t, FourLevels, Entry, Frames>;

/// Maps a contiguous range in one call; false if it refuses.
#[inline]
pub fn map(cursor: &mut Cursor<'_>, iova: u64, target: u64, bytes: u64, large: bool) -> bool {
    let further = target.wrapping_sub(iova) as usize;
    let at = |page: VirtAddr| PhysAddr::from(page.as_usize().wrapping_add(further));
    cursor.map_region((iova as usize).into(), at, bytes as usize, FLAGS, large).is_ok()
}

/// Maps one page; false if it refuses.
#[inline]
pub fn map_page(cursor: &mut Cursor<'_>, iova: u64, target: u64) -> bool {
    cursor.map((iova as usize).into(), (target as usize).into(), PageSize::Size4K, FLAGS).is_ok()
}

/// Unmaps one page; false if nothing was mapped.
#[inline]
pub fn unmap_page(cursor: &mut Cursor<'_>, iova: u64) -> bool {
    cursor.unmap((iova as usize).into()).is_ok()
}

/// Unmaps a range; false if something in it was not mapped.
#[inline]
pub fn unmap(cursor: &mut Cursor<'_>, iova: u64, bytes: u64) -> bool {
    cursor.unmap_region((iova as usize).into(), bytes as usize).is_ok()
}
