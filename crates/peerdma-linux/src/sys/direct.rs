//! Pages of a device's own memory, lent to system calls as buffers.
//!
//! UNSAFETY: `mmap` and `munmap`, and `pread` and `pwrite` with a pointer to what they map.
//! Rejected: the safe calls, which take slices. The file behind the pages is whatever the
//! caller named, so nothing says that no other mapping of it changes while a slice lives.

#![expect(unsafe_code)]

use peerdma::addr::ProcVa;
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

/// Pages taken from a device's pool, given back when dropped.
///
/// # Invariants
/// 1. `start..start + len` is one mapping made by this module, page aligned, readable and
///    writable, that nobody else unmaps or replaces.
/// 2. `len` is not zero and fits `isize`.
/// 3. The address leaves this module as a number alone, and no reference to a byte of it exists.
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

    /// Where they are mapped.
    pub(crate) fn address(&self) -> ProcVa {
        ProcVa::new(self.start.as_ptr().expose_provenance() as u64)
    }

    /// Reads all of the pages from `file`; the bytes that came.
    pub(crate) fn read_from(&mut self, file: BorrowedFd<'_>, offset: u64) -> Result<usize, Errno> {
        let offset = libc::off_t::try_from(offset).map_err(|_| Errno::INVAL)?;
        // SAFETY: the kernel writes at most `len` bytes from `start` on, which are a writable
        // mapping (invariants 1 and 2) without references to it (invariant 3).
        moved(unsafe { libc::pread(file.as_raw_fd(), self.start.as_ptr().cast(), self.len, offset) })
    }

    /// Writes all of the pages to `file`; the bytes that went.
    pub(crate) fn write_to(&self, file: BorrowedFd<'_>, offset: u64) -> Result<usize, Errno> {
        let offset = libc::off_t::try_from(offset).map_err(|_| Errno::INVAL)?;
        // SAFETY: as for reading; the kernel only reads the bytes.
        moved(unsafe { libc::pwrite(file.as_raw_fd(), self.start.as_ptr().cast(), self.len, offset) })
    }
}

/// What a call moved, or the number that it left in `errno`.
fn moved(answer: isize) -> Result<usize, Errno> {
    let error = || Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO);
    usize::try_from(answer).map_err(|_| error())
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: 1. The range is this value's own mapping (invariant 1). 2. No reference
        // to it exists (invariant 3).
        // An error would mean that the range was no mapping; there is nobody to tell.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}
