//! Pages of a device's own memory, lent to system calls as buffers.
//!
//! UNSAFETY: `mmap` and `munmap`, and a slice made from what they map, since `pread` and
//! `pwrite` take slices.
//!
//! Unlike [`super::map`], whose memory devices write to at any time and which is
//! therefore never borrowed, these pages come from the kernel's pool of a device's
//! memory (Linux 7.3 `p2pmem_alloc_mmap`) and are this mapping's alone: a device
//! reaches them only on behalf of a system call that was given them, and direct I/O is
//! over when the call returns.

#![expect(unsafe_code)]

use rustix::io::{Errno, pread, pwrite};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

/// Pages taken from a device's pool, given back when dropped.
///
/// # Invariants
/// 1. `start..start + len` is one mapping made by this module, page aligned, readable and
///    writable, that nobody else unmaps or replaces.
/// 2. `len` is not zero and fits `isize`.
/// 3. The address never leaves this module, so no device is told it except by a system
///    call that this module makes and waits for.
#[derive(Debug)]
pub(crate) struct Pages {
    start: NonNull<u8>,
    len: usize,
}

impl Pages {
    /// Takes `len` bytes from the pool behind a `p2pmem/allocate` file.
    pub(crate) fn take(allocate: BorrowedFd<'_>, len: usize) -> Result<Self, Errno> {
        if len == 0 || isize::try_from(len).is_err() {
            return Err(Errno::INVAL);
        }
        // Shared and from offset 0: the kernel refuses anything else.
        // SAFETY: without MAP_FIXED the kernel chooses an address that nothing uses.
        let start = unsafe {
            mmap(std::ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, allocate, 0)
        }?;
        Ok(Self { start: NonNull::new(start.cast()).ok_or(Errno::NOMEM)?, len })
    }

    /// Reads all of the pages from `file`; the bytes that came.
    pub(crate) fn read_from(&mut self, file: BorrowedFd<'_>, offset: u64) -> Result<usize, Errno> {
        // SAFETY:
        // 1. The mapping is `len` bytes that are valid for reads and writes (invariants 1
        //    and 2), and any bits are a valid `u8`.
        // 2. `&mut self` makes the reference the only one, and nothing else writes the
        //    bytes while it lives (invariant 3).
        // 3. It lives as long as the call; the bytes are not looked at through it.
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) };
        pread(file, bytes, offset)
    }

    /// Writes all of the pages to `file`; the bytes that went.
    pub(crate) fn write_to(&self, file: BorrowedFd<'_>, offset: u64) -> Result<usize, Errno> {
        // SAFETY: 1. As for reading. 2. `&self` allows no writer while the reference lives.
        let bytes = unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) };
        pwrite(file, bytes, offset)
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: 1. The range is this value's own mapping (invariant 1). 2. No reference
        // to it is alive, since each lives only within a call on the value.
        // An error would mean that the range was no mapping; there is nobody to tell.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}
