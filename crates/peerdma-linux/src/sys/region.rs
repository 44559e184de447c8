//! A private mapping that is moved, thrown away and closed while devices may know its address.
//!
//! UNSAFETY: `mmap`, `munmap`, `mremap`, `mprotect` and `madvise` on memory that is this module's own. Its bytes are only
//! ever copied by the kernel ([`super::process_memory`]), and never accessed by a pointer, so that a page
//! that is not there or closed is an error and no signal.

#![expect(unsafe_code)]

use super::process_memory;
use peerdma::access::Prot;
use peerdma::addr::{AddrRange, Bytes, ProcVa};
use rustix::io::Errno;
use rustix::mm::{
    Advice, MapFlags, MprotectFlags, MremapFlags, ProtFlags, madvise, mmap_anonymous, mprotect, mremap_fixed, munmap,
};
use std::ffi::c_void;

/// An anonymous private mapping of this process, unmapped when dropped.
///
/// A forked child may have been kept from it (`MADV_DONTFORK`) and have something of its own there: in a child accesses and changes
/// are refused with EFAULT, and dropping it unmaps nothing.
///
/// # Invariants
/// 1. In the process `of`, `at` is a mapping made here, of whole pages, that nobody else unmaps, moves or replaces.
/// 2. No pointer or reference to its bytes exists.
#[derive(Debug)]
pub(crate) struct Region {
    at: AddrRange<ProcVa>,
    of: u32,
}

fn pointer(at: ProcVa) -> *mut c_void {
    std::ptr::without_provenance_mut(at.as_u64() as usize)
}

fn len(of: Bytes) -> Result<usize, Errno> {
    usize::try_from(of.as_u64()).ok().filter(|len| *len > 0).ok_or(Errno::INVAL)
}

fn range(start: *mut c_void, len: Bytes) -> Result<AddrRange<ProcVa>, Errno> {
    AddrRange::new(ProcVa::new(start.addr() as u64), len).ok_or(Errno::INVAL)
}

impl Region {
    /// Maps zeroed pages, at an address if one is given.
    ///
    /// # Errors
    /// EEXIST if something is there already; nothing is ever replaced.
    pub(crate) fn map(at: Option<ProcVa>, size: Bytes) -> Result<Self, Errno> {
        let flags = MapFlags::PRIVATE | if at.is_some() { MapFlags::FIXED_NOREPLACE } else { MapFlags::empty() };
        let place = at.map_or(std::ptr::null_mut(), pointer);
        // SAFETY: without an address, and with MAP_FIXED_NOREPLACE, nothing that is mapped is touched.
        let start = unsafe { mmap_anonymous(place, len(size)?, ProtFlags::READ | ProtFlags::WRITE, flags) }?;
        let region = Self { at: range(start, size)?, of: std::process::id() };
        match at {
            // Kernels before 4.17 take the address for a hint.
            Some(at) if region.at.start() != at => Err(Errno::EXIST),
            _ => Ok(region),
        }
    }

    /// Where it is.
    pub(crate) fn at(&self) -> AddrRange<ProcVa> {
        self.at
    }

    /// Permits the CPU this, and nothing else.
    pub(crate) fn protect(&self, at: AddrRange<ProcVa>, prot: Option<Prot>) -> Result<(), Errno> {
        let flags = match prot {
            None => MprotectFlags::empty(),
            Some(Prot::Read) => MprotectFlags::READ,
            // A CPU's page that can be written can be read.
            Some(Prot::Write | Prot::ReadWrite) => MprotectFlags::READ | MprotectFlags::WRITE,
        };
        self.own(at)?;
        // SAFETY: the range is within this mapping, of which nobody has a reference (invariants 1, 2).
        unsafe { mprotect(pointer(at.start()), len(at.len())?, flags) }
    }

    /// Throws away what stands there; zeros come in its place.
    pub(crate) fn discard(&self, at: AddrRange<ProcVa>) -> Result<(), Errno> {
        self.own(at)?;
        // SAFETY: as for `protect`.
        unsafe { madvise(pointer(at.start()), len(at.len())?, Advice::LinuxDontNeed) }
    }

    /// Moves it to where `place` is, with that one's length; `place` is nothing any more then.
    ///
    /// # Errors
    /// The kernel's answer; it is where it was, whole, and `place` is nobody's.
    pub(crate) fn remap(&mut self, place: Self) -> Result<(), Errno> {
        self.own(self.at)?;
        let (old, new) = (len(self.at.len())?, len(place.at.len())?);
        let (from, to) = (pointer(self.at.start()), pointer(place.at.start()));
        // What is too long goes after the move: the kernel cuts it off before it finds out whether it moves the rest.
        let moving = old.min(new);
        // SAFETY: 1. The range is this mapping, of which nobody has a reference (invariants 1, 2). 2. What is replaced is
        // `place`, of which the same holds.
        if let Err(error) = unsafe { mremap_fixed(from, moving, new, MremapFlags::MAYMOVE, to) } {
            place.abandon();
            return Err(error);
        }
        if let Some(rest) = self.at.len().as_u64().checked_sub(new as u64).filter(|rest| *rest > 0) {
            let rest = self.at.slice(Bytes::new(new as u64), Bytes::new(rest)).map(|at| Self { at, of: self.of });
            // Dropped, which unmaps it: it is this mapping's, of which no other part is left there.
            drop(rest);
        }
        self.at = place.at;
        std::mem::forget(place);
        Ok(())
    }

    /// Unmaps it if it is still there, after a call that may have unmapped it and then failed.
    fn abandon(self) {
        let at = self.at;
        std::mem::forget(self);
        // Where it can be had anew it was gone, and this one goes; else it stays for good, or is somebody else's by now. The
        // kernel unmaps a place before it finds out that nothing can move there (Linux 6.12 `mremap_to`).
        drop(Self::map(Some(at.start()), at.len()));
    }

    /// Puts new zeroed pages where it is, by which the kernel unmaps what was there.
    #[cfg(any(test, feature = "raw"))]
    pub(crate) fn replace(&self) -> Result<(), Errno> {
        let (flags, prot) = (MapFlags::PRIVATE | MapFlags::FIXED, ProtFlags::READ | ProtFlags::WRITE);
        // SAFETY: what is replaced is this mapping, of which nobody has a reference (invariants 1, 2).
        unsafe { mmap_anonymous(pointer(self.at.start()), len(self.at.len())?, prot, flags) }.map(|_| ())
    }

    /// Unmaps a part in its middle, where nobody maps anything as long as this lives.
    #[cfg(test)]
    pub(crate) fn punch(&self, at: AddrRange<ProcVa>) -> Result<(), Errno> {
        self.own(at)?;
        // SAFETY: the range is within this mapping, of which nobody has a reference (invariants 1, 2).
        unsafe { munmap(pointer(at.start()), len(at.len())?) }
    }

    /// Copies bytes out.
    pub(crate) fn read(&self, at: ProcVa, into: &mut [u8]) -> Result<(), Errno> {
        self.own_bytes(at, into.len())?;
        process_memory::read(at, into)
    }

    /// Copies bytes in.
    pub(crate) fn write(&self, at: ProcVa, from: &[u8]) -> Result<(), Errno> {
        self.own_bytes(at, from.len())?;
        process_memory::write(at, from)
    }

    /// Whether this process is the one that mapped it, and no child.
    pub(crate) fn is_here(&self) -> bool {
        self.of == std::process::id()
    }

    fn own(&self, at: AddrRange<ProcVa>) -> Result<(), Errno> {
        if !self.is_here() {
            return Err(Errno::FAULT);
        }
        self.at.contains_range(&at).then_some(()).ok_or(Errno::INVAL)
    }

    fn own_bytes(&self, at: ProcVa, count: usize) -> Result<(), Errno> {
        match AddrRange::new(at, Bytes::new(count as u64)) {
            Some(at) => self.own(at),
            None if count == 0 => Ok(()),
            None => Err(Errno::INVAL),
        }
    }

    /// Unmaps it.
    pub(crate) fn unmap(self) {}
}

impl Drop for Region {
    fn drop(&mut self) {
        if let Ok(len) = len(self.at.len())
            && self.is_here()
        {
            // SAFETY: the range is this value's own mapping, of which nobody has a reference (invariants 1, 2).
            // An error would mean that it was no mapping; there is nobody to tell.
            let _ = unsafe { munmap(pointer(self.at.start()), len) };
        }
    }
}
