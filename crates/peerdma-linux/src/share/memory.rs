//! Memory that other processes map: a sealed memfd.

use crate::memory::{BeyondPages, copy_in, copy_out};
use crate::sys::map::Mapping;
use peerdma::access::Prot;
use peerdma::addr::{Bytes, ProcVa};
use peerdma::buffer::wire::{Carrier, Terms};
use peerdma::dma::OwnerId;
use rustix::fs::{
    MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create,
};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

/// Numbers of memory made by this process, so that each is an owner of its own; they begin anew after four thousand
/// million, when memory as old as that would still have to be there to be taken for another.
static MADE: AtomicU32 = AtomicU32::new(1);

/// Why memory was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// No bytes, or not whole pages.
    #[error("{size} cannot be shared; share whole pages of {page}, one at least")]
    Size {
        /// What was asked for.
        size: Bytes,
        /// The page size.
        page: Bytes,
    },
    /// The kernel does not make it.
    #[error("cannot make {size} of memory to share ({doing})")]
    Kernel {
        /// What was asked for.
        size: Bytes,
        /// Which call failed.
        doing: &'static str,
        /// Its answer.
        source: io::Error,
    },
}

/// Memory of this process that others may map: it neither shrinks nor grows.
///
/// Bytes are copied in and out, as other processes may change them at any time.
#[derive(Debug)]
pub struct Memory {
    file: OwnedFd,
    mapping: Mapping,
    name: String,
    id: OwnerId,
    prot: Prot,
}

impl Memory {
    /// Makes zeroed memory that importers may read and write.
    ///
    /// # Errors
    /// [`MemoryError::Size`] for anything but whole pages; [`MemoryError::Kernel`] where there is no more memory.
    pub fn create(name: &str, size: Bytes) -> Result<Self, MemoryError> {
        Self::make(name, size, Prot::ReadWrite)
    }

    /// Makes zeroed memory that only this process writes; the kernel refuses it to everybody else.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_read_only(name: &str, size: Bytes) -> Result<Self, MemoryError> {
        Self::make(name, size, Prot::Read)
    }

    fn make(name: &str, size: Bytes, prot: Prot) -> Result<Self, MemoryError> {
        let page = crate::memory::page_size();
        let len = usize::try_from(size.as_u64()).ok().filter(|_| size.as_u64().is_multiple_of(page.as_u64()));
        let len = len.filter(|len| *len > 0).ok_or(MemoryError::Size { size, page })?;
        let failed = |doing| move |error: Errno| MemoryError::Kernel { size, doing, source: error.into() };
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        // Memory that nobody can run is asked for first (Linux 6.3); older kernels do not know the flag.
        let file = match memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
            Err(Errno::INVAL) => memfd_create(name, flags),
            made => made,
        };
        let file = file.map_err(failed("memfd_create"))?;
        ftruncate(&file, size.as_u64()).map_err(failed("ftruncate"))?;
        let mapping = Mapping::of_file(file.as_fd(), 0, len).map_err(failed("mmap"))?;
        let mut seals = SealFlags::SHRINK | SealFlags::GROW;
        if prot == Prot::Read {
            // After the own mapping was made, which stays writable. Rejected: a descriptor opened for reading alone,
            // which its receiver opens anew for writing through /proc/self/fd.
            seals |= SealFlags::FUTURE_WRITE;
        }
        fcntl_add_seals(&file, seals | SealFlags::SEAL).map_err(failed("fcntl(F_ADD_SEALS)"))?;
        let id = OwnerId::new(MADE.fetch_add(1, Ordering::Relaxed));
        Ok(Self { file, mapping, name: name.to_string(), id, prot })
    }

    /// Makes memory like this one, which holds what this one holds.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub(super) fn copied(&self) -> Result<Self, MemoryError> {
        let copy = Self::make(&self.name, self.len(), self.prot)?;
        let mut piece = vec![0; 1 << 16];
        let (mut at, len) = (0, self.len().as_u64());
        while at < len {
            let now = usize::try_from(len - at).map_or(piece.len(), |left| left.min(piece.len()));
            let inside =
                self.read(Bytes::new(at), &mut piece[..now]).and_then(|()| copy.write(Bytes::new(at), &piece[..now]));
            assert_eq!(inside, Ok(()), "both are as long as each other");
            at += now as u64;
        }
        Ok(copy)
    }

    /// Address of its first byte in this process.
    pub fn address(&self) -> ProcVa {
        self.mapping.address()
    }

    /// Its length.
    pub fn len(&self) -> Bytes {
        self.mapping.len()
    }

    /// Always false; there is at least one page.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// What importers may do with it at most.
    pub fn prot(&self) -> Prot {
        self.prot
    }

    /// Which owner of memory it is.
    pub fn id(&self) -> OwnerId {
        self.id
    }

    /// Copies bytes out.
    ///
    /// # Errors
    /// [`BeyondPages`], with nothing read.
    pub fn read(&self, offset: Bytes, into: &mut [u8]) -> Result<(), BeyondPages> {
        copy_out(&self.mapping, offset, into)
    }

    /// Copies bytes in.
    ///
    /// # Errors
    /// [`BeyondPages`], with nothing written.
    pub fn write(&self, offset: Bytes, from: &[u8]) -> Result<(), BeyondPages> {
        copy_in(&self.mapping, offset, from)
    }

    /// A descriptor for an importer that may do this much.
    ///
    /// For one that only reads it is opened for reading, so that a mistake of its is an error. That is no wall: memory
    /// that nobody else may write is made by [`create_read_only`](Self::create_read_only).
    pub(super) fn descriptor(&self, prot: Prot) -> io::Result<OwnedFd> {
        if prot.writes() {
            return self.file.try_clone();
        }
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&self.file));
        Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
    }
}

/// Why a descriptor that came is not the memory that was promised.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum Unfit {
    #[error("it can shrink under whoever has mapped it (no F_SEAL_SHRINK)")]
    Shrinks,
    #[error("it has {has}, and {promised} were promised")]
    Short { has: Bytes, promised: Bytes },
    #[error("it is no device of VFIO whose BAR lies there for a CPU to map")]
    NoBar,
    #[error("it cannot be looked at: {0}")]
    Unseen(#[from] Errno),
}

/// Checks that a descriptor is what terms say that it is.
pub(super) fn check(memory: BorrowedFd<'_>, terms: &Terms) -> Result<(), Unfit> {
    match terms.carrier {
        // The session let no terms through whose end overflows.
        Carrier::Memfd => check_memfd(memory, terms.start.checked_add(terms.size).unwrap_or(terms.size)),
        Carrier::Device => match crate::vfio::holds(memory, terms.start, terms.size) {
            Ok(true) => Ok(()),
            Ok(false) | Err(Errno::NOTTY | Errno::BADF | Errno::INVAL) => Err(Unfit::NoBar),
            Err(error) => Err(error.into()),
        },
    }
}

/// Checks that memory can be mapped without being cut off later, which would kill whoever touches it.
fn check_memfd(memory: BorrowedFd<'_>, promised: Bytes) -> Result<(), Unfit> {
    let has = Bytes::new(u64::try_from(fstat(memory)?.st_size).unwrap_or(0));
    if has < promised {
        return Err(Unfit::Short { has, promised });
    }
    match fcntl_get_seals(memory)?.contains(SealFlags::SHRINK) {
        true => Ok(()),
        false => Err(Unfit::Shrinks),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::map::ReadOnly;

    #[test]
    fn memory_is_whole_pages_and_neither_shrinks_nor_grows() {
        let page = crate::memory::page_size();
        assert!(matches!(Memory::create("m", Bytes::new(page.as_u64() + 1)), Err(MemoryError::Size { .. })));
        assert!(matches!(Memory::create("m", Bytes::ZERO), Err(MemoryError::Size { .. })));
        let memory = Memory::create("m", page).unwrap();
        for size in [0, 2 * page.as_u64()] {
            assert_eq!(ftruncate(&memory.file, size), Err(Errno::PERM));
        }
        assert!(check_memfd(memory.file.as_fd(), page).is_ok());
        assert!(matches!(check_memfd(memory.file.as_fd(), Bytes::new(2 * page.as_u64())), Err(Unfit::Short { .. })));
    }

    #[test]
    fn memory_for_reading_cannot_be_opened_for_writing_by_any_way() {
        let page = crate::memory::page_size();
        let memory = Memory::create_read_only("m", page).unwrap();
        memory.write(Bytes::ZERO, b"ours").unwrap();
        let len = page.as_u64() as usize;
        let other = memory.descriptor(Prot::Read).unwrap();
        let mapped = ReadOnly::of_file(other.as_fd(), 0, len).unwrap();
        let mut bytes = [0; 4];
        mapped.read(0, &mut bytes).unwrap();
        assert_eq!(&bytes, b"ours");
        assert!(Mapping::of_file(other.as_fd(), 0, len).is_err());
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&other));
        if let Ok(again) = rustix::fs::open(path, OFlags::RDWR, Mode::empty()) {
            assert!(Mapping::of_file(again.as_fd(), 0, len).is_err(), "opened anew, and still not writable");
        }
        memory.write(Bytes::ZERO, b"mine").unwrap();
    }

    #[test]
    fn a_file_that_can_be_cut_off_is_not_mapped() {
        let file = memfd_create("m", MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&file, 4096).unwrap();
        assert!(matches!(check_memfd(file.as_fd(), Bytes::new(4096)), Err(Unfit::Shrinks)));
    }
}
