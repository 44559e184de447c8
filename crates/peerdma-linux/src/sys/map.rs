//! Memory that a device and the CPU both change: mapped, copied in and out, unmapped.
//!
//! UNSAFETY: `mmap` and `munmap`, volatile accesses to what they map, and `pread` with a pointer to it. No Rust
//! reference to the memory is ever made, since devices write to it at any time.
//!
//! Accesses are as wide as the caller says ([`Mapping::load_u32`] and so on, for
//! registers) or, for runs of bytes, eight bytes wide where the offset allows and one
//! byte wide at the edges. Memory of a device whose PCI memory space is off answers with
//! `SIGBUS`; whoever maps a BAR switches it on first.

#![expect(unsafe_code)]

mod kinds;

use peerdma::addr::{Bytes, ProcVa};
use rustix::io::Errno;
use rustix::mm::{Advice, madvise};
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// An access reaches past the end of a mapping, or is not aligned to its own width.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Outside;

/// A mapping of this process, unmapped when dropped; shared unless made as another kind.
///
/// # Invariants
/// 1. `start..start + len` is one mapping made by this module, page aligned, readable and
///    writable, that nobody else unmaps or replaces.
/// 2. `len` is not zero and fits `isize`.
/// 3. No reference to any byte of it exists but, for a moment, to an atomic; all accesses go through this type.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
    /// The process that has it, where its children do not ([`keep_from_children`](Self::keep_from_children)).
    kept_by: Option<u32>,
}

// SAFETY: 1. The mapping belongs to the process, not to a thread (invariant 1). 2. Its
// bytes are only accessed by volatile loads and stores, whose interleaving is the same
// question as that of the device's own accesses: the callers' protocol answers it.
unsafe impl Send for Mapping {}
// SAFETY: as for `Send`; shared use adds no access that a device could not make too.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps new zeroed pages of `len` bytes, rounded up to pages by the kernel.
    pub(crate) fn anonymous(len: usize) -> Result<Self, Errno> {
        Self::sized(len, |len| {
            // SAFETY: without MAP_FIXED the kernel chooses an address that nothing uses.
            unsafe { mmap_anonymous(std::ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED) }
        })
    }

    /// Maps `len` bytes of new zeroed memory of this process alone at that place, of hugetlb pages or of ordinary ones.
    ///
    /// `EXIST` where something is mapped there already.
    pub(crate) fn at_place(start: ProcVa, len: usize, hugetlb: bool) -> Result<Self, Errno> {
        let mut flags = MapFlags::PRIVATE | MapFlags::FIXED_NOREPLACE;
        flags.set(MapFlags::HUGETLB, hugetlb);
        let at = usize::try_from(start.as_u64()).map_err(|_| Errno::INVAL)?;
        let mapping = Self::sized(len, |len| {
            // SAFETY: MAP_FIXED_NOREPLACE takes the place of no mapping, and kernels that do not know it take the address
            // for a hint, so that nothing that exists is touched either way.
            unsafe {
                mmap_anonymous(std::ptr::without_provenance_mut(at), len, ProtFlags::READ | ProtFlags::WRITE, flags)
            }
        })?;
        // Of a kernel that took it for a hint.
        if mapping.address() != start { Err(Errno::EXIST) } else { Ok(mapping) }
    }

    /// Asks for huge pages (`MADV_HUGEPAGE`), which the kernel gives where it has them at hand.
    pub(crate) fn prefer_huge(&self) -> Result<(), Errno> {
        // SAFETY: 1. The range is this value's own mapping (invariant 1). 2. The advice changes no byte of it.
        unsafe { madvise(self.start.as_ptr().cast(), self.len, Advice::LinuxHugepage) }
    }

    /// Has all pages there and writable, now and not at the first access (`MADV_POPULATE_WRITE`, Linux 5.14).
    pub(crate) fn populate(&self) -> Result<(), Errno> {
        // SAFETY: 1. The range is this value's own mapping (invariant 1). 2. Pages are found as by a write that
        // changes nothing.
        let populated = unsafe { madvise(self.start.as_ptr().cast(), self.len, Advice::LinuxPopulateWrite) };
        match populated {
            // An older kernel finds them when they are pinned, or touched.
            Err(Errno::INVAL) => Ok(()),
            other => other,
        }
    }

    /// Maps `len` bytes of `fd` from `offset`.
    pub(crate) fn of_file(fd: BorrowedFd<'_>, offset: u64, len: usize) -> Result<Self, Errno> {
        Self::sized(len, |len| {
            // SAFETY: without MAP_FIXED the kernel chooses an address that nothing uses.
            unsafe { mmap(std::ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, fd, offset) }
        })
    }

    fn sized(len: usize, map: impl FnOnce(usize) -> Result<*mut std::ffi::c_void, Errno>) -> Result<Self, Errno> {
        if len == 0 || isize::try_from(len).is_err() {
            return Err(Errno::INVAL);
        }
        let start = NonNull::new(map(len)?.cast::<u8>()).ok_or(Errno::NOMEM)?;
        Ok(Self { start, len, kept_by: None })
    }

    /// Leaves the mapping out of the address spaces of children (`MADV_DONTFORK`).
    ///
    /// A child has a hole there, or by then something else of its own. Dropping this value unmaps nothing in a child; whoever
    /// owns one refuses accesses where it [is not here](Self::is_here).
    pub(crate) fn keep_from_children(&mut self) -> Result<(), Errno> {
        self.kept_by = Some(std::process::id());
        // SAFETY: 1. The range is this value's own mapping (invariant 1). 2. The advice changes nothing in this process. 3. In
        // a child the value is not dropped to any effect, as the process's number shows, and every owner (pools, rings) asks
        // for that before an access.
        unsafe { madvise(self.start.as_ptr().cast(), self.len, Advice::LinuxDontFork) }
    }

    /// Whether this process has the mapping: a forked child does not have one that it was kept from. Costs a system call then.
    pub(crate) fn is_here(&self) -> bool {
        self.kept_by.is_none_or(|process| process == std::process::id())
    }

    /// One load of a `u32` that another processor, or the kernel, stored with release order.
    pub(crate) fn acquire_u32(&self, offset: usize) -> Result<u32, Outside> {
        Ok(self.atomic(offset)?.load(Ordering::Acquire))
    }

    /// One store of a `u32`, after all accesses before it.
    pub(crate) fn release_u32(&self, offset: usize, value: u32) -> Result<(), Outside> {
        self.atomic(offset)?.store(value, Ordering::Release);
        Ok(())
    }

    fn atomic(&self, offset: usize) -> Result<&AtomicU32, Outside> {
        let pointer = self.at(offset, size_of::<u32>())?.cast::<u32>();
        // SAFETY: 1. `at` checked bounds and alignment. 2. The mapping lives as long as the borrow of `self`. 3. Other
        // accesses of this process to it are volatile or atomic, and ordered by the ring's protocol (invariant 3).
        Ok(unsafe { AtomicU32::from_ptr(pointer) })
    }

    /// Address of the first byte, as a device address space is told it.
    pub(crate) fn address(&self) -> ProcVa {
        ProcVa::new(self.start.as_ptr().addr() as u64)
    }

    /// Bytes that were asked for.
    pub(crate) fn len(&self) -> Bytes {
        Bytes::new(self.len as u64)
    }

    /// A pointer to `width` bytes at `offset`, aligned to `width`.
    fn at(&self, offset: usize, width: usize) -> Result<*mut u8, Outside> {
        let end = offset.checked_add(width).ok_or(Outside)?;
        if end > self.len || !offset.is_multiple_of(width) {
            return Err(Outside);
        }
        // SAFETY: 1. `offset` is at most `len` as just checked. 2. By invariants 1 and 2
        // the mapping is one allocation of `len` bytes that fits `isize`.
        Ok(unsafe { self.start.as_ptr().add(offset) })
    }

    /// A pointer to `len` bytes at `offset`, at least one, for a system call that moves them.
    pub(super) fn run(&self, offset: usize, len: usize) -> Result<*mut u8, Outside> {
        if len == 0 {
            return Err(Outside);
        }
        self.inside(offset, len)?;
        // A byte is aligned wherever it is.
        self.at(offset, 1)
    }

    /// Copies bytes from `offset` on out of the mapping.
    pub(crate) fn read(&self, offset: usize, into: &mut [u8]) -> Result<(), Outside> {
        self.inside(offset, into.len())?;
        let mut done = 0;
        while done < into.len() {
            let at = offset + done;
            let rest = &mut into[done..];
            if at.is_multiple_of(8) && rest.len() >= 8 {
                rest[..8].copy_from_slice(&self.load_u64(at)?.to_ne_bytes());
                done += 8;
            } else {
                rest[0] = self.load_u8(at)?;
                done += 1;
            }
        }
        Ok(())
    }

    /// Copies bytes into the mapping from `offset` on.
    pub(crate) fn write(&self, offset: usize, from: &[u8]) -> Result<(), Outside> {
        self.inside(offset, from.len())?;
        let mut done = 0;
        while done < from.len() {
            let at = offset + done;
            match from[done..].first_chunk::<8>() {
                Some(word) if at.is_multiple_of(8) => {
                    self.store_u64(at, u64::from_ne_bytes(*word))?;
                    done += 8;
                }
                _ => {
                    self.store_u8(at, from[done])?;
                    done += 1;
                }
            }
        }
        Ok(())
    }

    /// Loads bytes as a processor would: one, two, four or eight at a multiple of that by one access, and others one by one.
    pub(crate) fn load(&self, offset: usize, into: &mut [u8]) -> Result<(), Outside> {
        self.inside(offset, into.len())?;
        match into.len() {
            2 if offset.is_multiple_of(2) => into.copy_from_slice(&self.load_u16(offset)?.to_ne_bytes()),
            4 if offset.is_multiple_of(4) => into.copy_from_slice(&self.load_u32(offset)?.to_ne_bytes()),
            8 if offset.is_multiple_of(8) => into.copy_from_slice(&self.load_u64(offset)?.to_ne_bytes()),
            _ => {
                for (at, byte) in into.iter_mut().enumerate() {
                    *byte = self.load_u8(offset + at)?;
                }
            }
        }
        Ok(())
    }

    /// Stores bytes as a processor would; see [`load`](Self::load).
    pub(crate) fn store(&self, offset: usize, from: &[u8]) -> Result<(), Outside> {
        self.inside(offset, from.len())?;
        match *from {
            [a, b] if offset.is_multiple_of(2) => self.store_u16(offset, u16::from_ne_bytes([a, b])),
            [a, b, c, d] if offset.is_multiple_of(4) => self.store_u32(offset, u32::from_ne_bytes([a, b, c, d])),
            [a, b, c, d, e, f, g, h] if offset.is_multiple_of(8) => {
                self.store_u64(offset, u64::from_ne_bytes([a, b, c, d, e, f, g, h]))
            }
            _ => from.iter().enumerate().try_for_each(|(at, byte)| self.store_u8(offset + at, *byte)),
        }
    }

    /// Refuses a run as a whole, before any byte of it moved.
    fn inside(&self, offset: usize, len: usize) -> Result<(), Outside> {
        offset.checked_add(len).filter(|&end| end <= self.len).map(|_| ()).ok_or(Outside)
    }
}

/// A mapping that may only be read.
///
/// # Invariants
/// The mapping within is as [`Mapping`] says, but for not being writable; nothing here stores to it.
#[derive(Debug)]
pub(crate) struct ReadOnly(Mapping);

impl ReadOnly {
    /// Maps `len` bytes of `fd` from `offset`, for reading.
    pub(crate) fn of_file(fd: BorrowedFd<'_>, offset: u64, len: usize) -> Result<Self, Errno> {
        Mapping::sized(len, |len| {
            // SAFETY: without MAP_FIXED the kernel chooses an address that nothing uses.
            unsafe { mmap(std::ptr::null_mut(), len, ProtFlags::READ, MapFlags::SHARED, fd, offset) }
        })
        .map(Self)
    }

    /// Address of the first byte.
    pub(crate) fn address(&self) -> ProcVa {
        self.0.address()
    }

    /// Bytes that were asked for.
    pub(crate) fn len(&self) -> Bytes {
        self.0.len()
    }

    /// Loads bytes as a processor would; see [`Mapping::load`].
    pub(crate) fn load(&self, offset: usize, into: &mut [u8]) -> Result<(), Outside> {
        self.0.load(offset, into)
    }

    /// Copies bytes from `offset` on out of the mapping.
    pub(crate) fn read(&self, offset: usize, into: &mut [u8]) -> Result<(), Outside> {
        self.0.read(offset, into)
    }
}

macro_rules! access {
    ($load:ident, $store:ident, $word:ty) => {
        impl Mapping {
            #[doc = concat!("One load of a `", stringify!($word), "` at `offset`.")]
            pub(crate) fn $load(&self, offset: usize) -> Result<$word, Outside> {
                let pointer = self.at(offset, size_of::<$word>())?.cast::<$word>();
                // SAFETY: 1. `at` checked bounds and alignment; the start is page aligned
                // (invariant 1), so the pointer is aligned. 2. Any bits are a valid value.
                // 3. The access is volatile, so what devices do to it in between is seen
                // and not assumed away.
                Ok(unsafe { pointer.read_volatile() })
            }

            #[doc = concat!("One store of a `", stringify!($word), "` at `offset`.")]
            pub(crate) fn $store(&self, offset: usize, value: $word) -> Result<(), Outside> {
                let pointer = self.at(offset, size_of::<$word>())?.cast::<$word>();
                // SAFETY: 1. As for the load, and the mapping is writable (invariant 1).
                // 2. No reference to the bytes exists that this could change (invariant 3).
                unsafe { pointer.write_volatile(value) };
                Ok(())
            }
        }
    };
}

access!(load_u8, store_u8, u8);
access!(load_u16, store_u16, u16);
access!(load_u32, store_u32, u32);
access!(load_u64, store_u64, u64);

impl Drop for Mapping {
    fn drop(&mut self) {
        if !self.is_here() {
            return;
        }
        // SAFETY: 1. The range is this value's own mapping (invariant 1), in this process as just seen, whole pages of
        // which munmap takes. 2. No reference to it exists (invariant 3), and no more
        // access can follow a drop.
        // An error would mean that the range was no mapping; there is nobody to tell.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_any_offset_and_length_come_back_as_written() {
        let mapping = Mapping::anonymous(4096).unwrap();
        for offset in [0usize, 1, 7, 8, 13, 4096 - 21] {
            for len in [0usize, 1, 7, 8, 9, 21] {
                let bytes: Vec<u8> = (0..len).map(|index| (index * 31 + offset) as u8 | 1).collect();
                mapping.write(0, &[0; 4096]).unwrap();
                mapping.write(offset, &bytes).unwrap();
                let mut all = [0; 4096];
                mapping.read(0, &mut all).unwrap();
                assert_eq!(&all[offset..offset + len], bytes);
                assert_eq!(all.iter().filter(|&&byte| byte != 0).count(), len, "nothing else changed");
            }
        }
    }

    #[test]
    fn accesses_outside_or_across_their_alignment_are_refused_and_move_nothing() {
        let mapping = Mapping::anonymous(4096).unwrap();
        assert_eq!(mapping.load_u32(4094), Err(Outside));
        assert_eq!(mapping.load_u32(4096), Err(Outside));
        assert_eq!(mapping.load_u64(4), Err(Outside));
        assert_eq!(mapping.load_u64(usize::MAX - 7), Err(Outside));
        assert_eq!(mapping.write(4090, &[1; 7]), Err(Outside));
        assert_eq!(mapping.read(usize::MAX, &mut [0]), Err(Outside));
        let mut tail = [0xff; 6];
        mapping.read(4090, &mut tail).unwrap();
        assert_eq!(tail, [0; 6]);
    }

    #[test]
    fn an_empty_mapping_cannot_be_made() {
        assert_eq!(Mapping::anonymous(0).unwrap_err(), Errno::INVAL);
        assert_eq!(Mapping::anonymous(usize::MAX).unwrap_err(), Errno::INVAL);
    }
}
