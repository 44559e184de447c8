//! Memory that the kernel is made to move, and the calls that make it.
//!
//! UNSAFETY: `mmap` and `munmap` of private memory, volatile accesses to it, `madvise` with advice that rustix does not
//! have (`MADV_COLLAPSE`), and `migrate_pages`, which it does not have either.

#![expect(unsafe_code)]

use peerdma::addr::{AddrRange, Bytes, ProcVa};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use std::ffi::c_void;
use std::ptr::NonNull;

/// Private memory of this process, aligned, unmapped when dropped.
///
/// # Invariants
/// 1. `whole..whole + room` is one mapping made by this module, readable and writable, that nobody else unmaps or replaces.
/// 2. `offset + len <= room`, and `len` is not zero.
/// 3. No reference to any byte of it exists; all accesses are volatile and go through this type.
#[derive(Debug)]
pub(crate) struct Private {
    whole: NonNull<u8>,
    room: usize,
    offset: usize,
    len: usize,
}

// SAFETY: 1. The mapping belongs to the process, not to a thread. 2. Accesses are volatile loads and stores of words, made by
// whoever has the value; what two threads see of each other's is their protocol's question.
unsafe impl Send for Private {}
// SAFETY: as for `Send`.
unsafe impl Sync for Private {}

/// What is said about memory that is to move.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Advised {
    /// Small pages only.
    NoHuge,
    /// Huge pages where they fit.
    Huge,
    /// Made of huge pages at once, which moves all of it (Linux 6.1).
    Collapse,
    /// Same contents may be one page.
    Mergeable,
    /// Given back; the next access finds a new page.
    Discard,
}

impl Advised {
    const fn raw(self) -> libc::c_int {
        match self {
            Self::NoHuge => libc::MADV_NOHUGEPAGE,
            Self::Huge => libc::MADV_HUGEPAGE,
            Self::Collapse => libc::MADV_COLLAPSE,
            Self::Mergeable => libc::MADV_MERGEABLE,
            Self::Discard => libc::MADV_DONTNEED,
        }
    }
}

impl Private {
    /// Maps `len` bytes from a multiple of `align` on, which is a power of two.
    pub(crate) fn aligned(len: usize, align: usize) -> Result<Self, Errno> {
        let room = len.checked_add(align).filter(|room| isize::try_from(*room).is_ok()).ok_or(Errno::INVAL)?;
        if len == 0 || !align.is_power_of_two() {
            return Err(Errno::INVAL);
        }
        // SAFETY: without MAP_FIXED the kernel chooses an address that nothing uses.
        let start = unsafe {
            mmap_anonymous(std::ptr::null_mut(), room, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
        }?;
        let whole = NonNull::new(start.cast::<u8>()).ok_or(Errno::NOMEM)?;
        let offset = whole.as_ptr().expose_provenance().next_multiple_of(align) - whole.as_ptr().addr();
        Ok(Self { whole, room, offset, len })
    }

    pub(crate) fn start(&self) -> ProcVa {
        ProcVa::new((self.whole.as_ptr().addr() + self.offset) as u64)
    }

    pub(crate) fn len(&self) -> Bytes {
        Bytes::new(self.len as u64)
    }

    /// Where the word at an offset lies; the offset is a multiple of eight.
    fn word(&self, offset: usize) -> Option<*mut u64> {
        let end = offset.checked_add(size_of::<u64>())?;
        // SAFETY: `offset + 8 <= len`, so that it lies in the mapping (invariants 1 and 2).
        (end <= self.len && offset.is_multiple_of(8))
            .then(|| unsafe { self.whole.as_ptr().add(self.offset + offset) }.cast())
    }

    /// The word at an offset; `None` past the end, or not at a multiple of eight.
    pub(crate) fn load(&self, offset: usize) -> Option<u64> {
        // SAFETY: the word lies in the mapping and is aligned (see `word`); nobody borrows it (invariant 3).
        self.word(offset).map(|word| unsafe { word.read_volatile() })
    }

    /// Changes the word at an offset; false as for a load that is `None`.
    pub(crate) fn store(&self, offset: usize, value: u64) -> bool {
        let Some(word) = self.word(offset) else { return false };
        // SAFETY: as for a load.
        unsafe { word.write_volatile(value) };
        true
    }

    /// Says something about a part, whole pages of this memory.
    pub(crate) fn advise(&self, part: AddrRange<ProcVa>, advised: Advised) -> Result<(), Errno> {
        let all = AddrRange::new(self.start(), self.len()).ok_or(Errno::INVAL)?;
        if !all.contains_range(&part) {
            return Err(Errno::INVAL);
        }
        let offset = usize::try_from(part.start().as_u64() - all.start().as_u64()).map_err(|_| Errno::INVAL)?;
        let len = usize::try_from(part.len().as_u64()).map_err(|_| Errno::INVAL)?;
        // SAFETY: 1. The part lies in this value's own mapping (checked above, invariant 1). 2. No advice of `Advised` unmaps;
        // what discarding and merging do to bytes nobody can have borrowed (invariant 3).
        let answer = unsafe {
            libc::madvise(self.whole.as_ptr().add(self.offset + offset).cast::<c_void>(), len, advised.raw())
        };
        if answer == 0 { Ok(()) } else { Err(last_errno()) }
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        // SAFETY: 1. The mapping is this value's own (invariant 1). 2. No pointer into it outlives the value (invariant 3).
        // An error would mean that it is not mapped; there is nobody to tell.
        let _ = unsafe { munmap(self.whole.as_ptr().cast(), self.room) };
    }
}

/// Asks the kernel to move all of this process's pages from some NUMA nodes to others, as bits; how many pages stayed.
pub(crate) fn migrate_pages(from: u64, to: u64) -> Result<u64, Errno> {
    let bits: libc::c_ulong = 64;
    // SAFETY: 1. Both masks live across the call, and the kernel reads `bits` bits of each. 2. Moving pages changes no
    // byte and no mapping.
    let left = unsafe { libc::syscall(libc::SYS_migrate_pages, 0, bits, &raw const from, &raw const to) };
    u64::try_from(left).map_err(|_| last_errno())
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}
