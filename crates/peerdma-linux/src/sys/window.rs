//! A range of this process whose memory comes and goes, and which nothing else takes.
//!
//! UNSAFETY: `mmap` with MAP_FIXED over a range that this module reserved, and `munmap` of it. Its bytes are never
//! accessed by this process: it is there for the page tables that somebody else fills from it, as a virtual
//! machine's second stage.

#![expect(unsafe_code)]

use peerdma::addr::{AddrRange, Bytes, ProcVa};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use std::os::fd::BorrowedFd;

/// A reserved range.
///
/// # Invariants
/// 1. `at` is a range of whole pages that this value reserved; nobody else maps, unmaps or accesses anything there.
#[derive(Debug)]
pub(crate) struct Window {
    at: AddrRange<ProcVa>,
}

/// Reserves, and takes no memory.
const HIDDEN: MapFlags = MapFlags::PRIVATE.union(MapFlags::NORESERVE);

impl Window {
    /// Reserves whole pages, in which nothing shows.
    pub(crate) fn reserve(len: Bytes) -> Result<Self, Errno> {
        let size = usize::try_from(len.as_u64()).ok().filter(|size| *size > 0).ok_or(Errno::INVAL)?;
        // SAFETY: without MAP_FIXED the kernel chooses an address that nothing uses.
        let start = unsafe { mmap_anonymous(std::ptr::null_mut(), size, ProtFlags::empty(), HIDDEN) }?;
        let at = AddrRange::new(ProcVa::new(start.addr() as u64), len).ok_or(Errno::INVAL)?;
        Ok(Self { at })
    }

    /// Where it is.
    pub(crate) fn at(&self) -> AddrRange<ProcVa> {
        self.at
    }

    /// Shows `len` bytes of a file from `offset` on at byte `into` of the window.
    ///
    /// # Errors
    /// EINVAL for what is not within the window; else what mmap says, and what showed there may be gone.
    pub(crate) fn show(
        &self,
        into: Bytes,
        file: BorrowedFd<'_>,
        offset: u64,
        len: Bytes,
        writable: bool,
    ) -> Result<(), Errno> {
        let part = self.at.slice(into, len).ok_or(Errno::INVAL)?;
        let size = usize::try_from(len.as_u64()).map_err(|_| Errno::INVAL)?;
        let prot = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        // SAFETY: 1. The part lies within the window, where nothing of anybody else's is (invariant 1). 2. A part
        // that does not begin at a page is refused by the kernel.
        unsafe { mmap(pointer(part.start()), size, prot, MapFlags::SHARED | MapFlags::FIXED, file, offset) }.map(drop)
    }

    /// Shows nothing any more. Whoever filled tables from it has none of it left when this returns: the kernel tells
    /// them before it unmaps (Linux 7.2 `mmu_notifier_invalidate_range_start`).
    pub(crate) fn hide(&self) -> Result<(), Errno> {
        let size = usize::try_from(self.at.len().as_u64()).map_err(|_| Errno::INVAL)?;
        // SAFETY: the range is the window's own, of which nobody has a reference (invariant 1).
        let hidden =
            unsafe { mmap_anonymous(pointer(self.at.start()), size, ProtFlags::empty(), HIDDEN | MapFlags::FIXED) };
        hidden.map(drop)
    }
}

fn pointer(at: ProcVa) -> *mut std::ffi::c_void {
    std::ptr::without_provenance_mut(at.as_u64() as usize)
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: the range is this value's own (invariant 1). An error would mean that it was none; nobody to tell.
        let _ = unsafe { munmap(pointer(self.at.start()), self.at.len().as_u64() as usize) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Backing, Pages, page_size};
    use crate::sys::process_memory;

    #[test]
    fn what_shows_in_a_window_is_the_file_and_what_is_hidden_is_nobodys() {
        let page = page_size();
        let pages = Pages::backed(Backing::Memfd, Bytes::new(2 * page.as_u64())).unwrap();
        pages.write(page, b"second").unwrap();
        let window = Window::reserve(Bytes::new(2 * page.as_u64())).unwrap();
        let read = |at: ProcVa| {
            let mut bytes = [0; 6];
            process_memory::read(at, &mut bytes).map(|()| bytes)
        };
        let start = window.at().start();
        assert!(read(start).is_err(), "nothing shows at first");
        let file = pages.file().unwrap();
        window.show(Bytes::ZERO, file, page.as_u64(), page, true).unwrap();
        assert_eq!(&read(start).unwrap(), b"second");
        assert!(read(start.checked_add(page).unwrap()).is_err(), "the rest stays hidden");
        window.hide().unwrap();
        assert!(read(start).is_err());
    }

    #[test]
    fn nothing_is_shown_outside_a_window() {
        let page = page_size();
        let pages = Pages::backed(Backing::Memfd, Bytes::new(2 * page.as_u64())).unwrap();
        let window = Window::reserve(page).unwrap();
        let file = pages.file().unwrap();
        for (into, len) in [(Bytes::ZERO, Bytes::new(2 * page.as_u64())), (page, page), (Bytes::ZERO, Bytes::ZERO)] {
            assert_eq!(window.show(into, file, 0, len, true), Err(Errno::INVAL));
        }
        assert!(Window::reserve(Bytes::ZERO).is_err());
    }
}
