//! Bytes between a mapping and a file, without a copy by the processor where the file was opened so.
//!
//! UNSAFETY: `pread` and `pwrite` with a pointer to mapped memory. Rejected: the safe calls, which
//! take slices. A device writes to such memory at any time, so no slice of it may exist.

#![expect(unsafe_code)]

use super::map::{Mapping, Outside};
use rustix::io::Errno;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Reads `len` bytes of `file`, `offset` into it, to `at` in the mapping; the bytes that came.
///
/// `FAULT` if they do not all lie in the mapping, as the kernel would say.
pub(crate) fn read_from(
    mapping: &Mapping,
    at: usize,
    len: usize,
    file: BorrowedFd<'_>,
    offset: u64,
) -> Result<usize, Errno> {
    let offset = libc::off_t::try_from(offset).map_err(|_| Errno::INVAL)?;
    let start = mapping.run(at, len).map_err(|Outside| Errno::FAULT)?;
    // SAFETY: the kernel writes at most `len` bytes from `start` on, which `run` found in a writable mapping that
    // lives as long as the borrow, and of which no reference exists (invariants 1 and 3 of `Mapping`).
    moved(unsafe { libc::pread(file.as_raw_fd(), start.cast(), len, offset) })
}

/// Writes `len` bytes from `at` in the mapping to `file`, `offset` into it; the bytes that went.
///
/// `FAULT` as for reading.
pub(crate) fn write_to(
    mapping: &Mapping,
    at: usize,
    len: usize,
    file: BorrowedFd<'_>,
    offset: u64,
) -> Result<usize, Errno> {
    let offset = libc::off_t::try_from(offset).map_err(|_| Errno::INVAL)?;
    let start = mapping.run(at, len).map_err(|Outside| Errno::FAULT)?;
    // SAFETY: as for reading; the kernel only reads the bytes.
    moved(unsafe { libc::pwrite(file.as_raw_fd(), start.cast(), len, offset) })
}

/// What a call moved, or the number that it left in `errno`.
fn moved(answer: isize) -> Result<usize, Errno> {
    let error = || Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO);
    usize::try_from(answer).map_err(|_| error())
}
