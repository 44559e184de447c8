//! Mappings of other kinds: private ones, and those of huge pages.

use super::Mapping;
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

/// Where mmap is told the size of huge pages, as the power of two (`MAP_HUGE_SHIFT`).
const HUGE_SHIFT: u32 = 26;
const BOTH: ProtFlags = ProtFlags::READ.union(ProtFlags::WRITE);

impl Mapping {
    /// Maps new zeroed pages that a forked child gets copies of.
    pub(crate) fn private(len: usize) -> Result<Self, Errno> {
        Self::sized(len, |len| {
            // SAFETY: without MAP_FIXED the kernel chooses an address that nothing uses.
            unsafe { mmap_anonymous(std::ptr::null_mut(), len, BOTH, MapFlags::PRIVATE) }
        })
    }

    /// Maps a file's bytes, and keeps what is written to itself.
    pub(crate) fn private_of_file(fd: BorrowedFd<'_>, len: usize) -> Result<Self, Errno> {
        Self::sized(len, |len| {
            // SAFETY: as above.
            unsafe { mmap(std::ptr::null_mut(), len, BOTH, MapFlags::PRIVATE, fd, 0) }
        })
    }

    /// Maps whole huge pages of `1 << log2` bytes out of the system's pool; `len` is a multiple of them.
    pub(crate) fn huge(len: usize, log2: u32) -> Result<Self, Errno> {
        let size = MapFlags::from_bits_retain(log2 << HUGE_SHIFT);
        Self::sized(len, |len| {
            // SAFETY: as above.
            unsafe { mmap_anonymous(std::ptr::null_mut(), len, BOTH, MapFlags::PRIVATE | MapFlags::HUGETLB | size) }
        })
    }

    /// Maps new zeroed pages at a multiple of `1 << log2`, a power of two of pages, and asks for huge ones there.
    pub(crate) fn transparent(len: usize, log2: u32) -> Result<Self, Errno> {
        let align = 1_usize.checked_shl(log2).ok_or(Errno::INVAL)?;
        let room = len.checked_next_multiple_of(align).and_then(|len| len.checked_add(align)).ok_or(Errno::NOMEM)?;
        Self::sized(len, |_| {
            // SAFETY: as above.
            let start = unsafe { mmap_anonymous(std::ptr::null_mut(), room, BOTH, MapFlags::PRIVATE) }?;
            let skip = start.addr().wrapping_neg() & (align - 1);
            let (head, body) = (start, start.wrapping_byte_add(skip));
            let tail = body.wrapping_byte_add(len);
            // SAFETY: 1. Head and tail are whole pages of the mapping just made, which nobody knows of yet. 2. What is
            // left from `body` on has `len` bytes, as `skip` is less than `align` and `room` is longer by that.
            unsafe {
                if skip > 0 {
                    munmap(head, skip)?;
                }
                if room - skip > len {
                    munmap(tail, room - skip - len)?;
                }
                // Without transparent huge pages the advice is refused, and the pages are small.
                let _ = madvise(body, len, Advice::LinuxHugepage);
            }
            NonNull::new(body).map(NonNull::as_ptr).ok_or(Errno::NOMEM)
        })
    }
}
