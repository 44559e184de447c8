//! Memory of a device that its driver offers to other devices.
//!
//! Some drivers (NVMe with a controller memory buffer) give the kernel a pool of their
//! device's memory, and sysfs lets a process take pages of it: `p2pmem/allocate` (Linux
//! 7.3 `drivers/pci/p2pdma.c`). Such pages serve as buffers of direct I/O to another
//! device, and only then does a request travel from device to device. Buffered I/O works
//! too, by the CPU, and so says nothing about a route.
//!
//! Not here: finding out whether bytes arrived by the route that the kernel chose; see [`crate::drive::witness`].

use crate::memory::{BeyondPages, copy_in, copy_out, direct_in, direct_out};
use crate::sys::map::Mapping;
use crate::verified::{CpuAccess, CpuView};
use peerdma::addr::{AddrRange, Bytes, ProcVa};
use rustix::io::Errno;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// Pages of a device's memory, given back to its pool when dropped.
///
/// Holding it proves that the pages are this value's alone and that the device's driver
/// stays; the kernel unbinds the driver only after they are given back.
#[derive(Debug)]
pub struct P2pMemory {
    /// Shared and from offset 0 of the file: the kernel refuses anything else.
    pages: Mapping,
}

/// Why no memory was taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AllocateError {
    /// The file cannot be opened.
    #[error("cannot open {}; a driver that offers its device's memory has to be bound, and it takes root", path.display())]
    Open {
        /// The `p2pmem/allocate` file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The length is zero or no number of bytes in this process.
    #[error("{len} cannot be taken from a device's memory; ask for at least one page")]
    Length {
        /// What was asked for.
        len: Bytes,
    },
    /// The pool holds less than this.
    #[error("{} does not hold {len} any more; p2pmem/available says how much is left", path.display())]
    Exhausted {
        /// The `p2pmem/allocate` file.
        path: PathBuf,
        /// What was asked for.
        len: Bytes,
    },
    /// The device's driver took its memory back.
    #[error("the device behind {} offers no memory any more; bind its driver again", path.display())]
    Withdrawn {
        /// The `p2pmem/allocate` file.
        path: PathBuf,
    },
    /// Anything else the kernel says.
    #[error("the kernel maps no memory from {}; its log may say more", path.display())]
    Kernel {
        /// The `p2pmem/allocate` file.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
}

impl P2pMemory {
    /// Takes `len` bytes, rounded up to pages, from the pool behind `allocate`.
    ///
    /// `allocate` is the path of a `p2pmem/allocate` file. Does not block.
    ///
    /// # Errors
    /// - [`AllocateError::Open`]: no such file, or no privilege to open it.
    /// - [`AllocateError::Length`]: ask for more than zero and less than half the address space.
    /// - [`AllocateError::Exhausted`]: ask for less, or drop other memory first.
    /// - [`AllocateError::Withdrawn`]: the driver was unbound meanwhile; start over.
    /// - [`AllocateError::Kernel`]: nothing that the kernel's code of today answers.
    ///
    /// # Examples
    /// ```no_run
    /// use peerdma::addr::Bytes;
    /// use peerdma_linux::p2pmem::P2pMemory;
    ///
    /// let allocate = "/sys/bus/pci/devices/0000:03:00.0/p2pmem/allocate";
    /// let memory = P2pMemory::allocate(allocate.as_ref(), Bytes::new(4096))?;
    /// # Ok::<(), peerdma_linux::p2pmem::AllocateError>(())
    /// ```
    pub fn allocate(allocate: &Path, len: Bytes) -> Result<Self, AllocateError> {
        let path = || allocate.to_path_buf();
        let count = usize::try_from(len.as_u64())
            .ok()
            .filter(|&count| count > 0 && isize::try_from(count).is_ok())
            .ok_or(AllocateError::Length { len })?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(allocate)
            .map_err(|source| AllocateError::Open { path: path(), source })?;
        match Mapping::of_file(file.as_fd(), 0, count) {
            Ok(pages) => Ok(Self { pages }),
            Err(Errno::NOMEM) => Err(AllocateError::Exhausted { path: path(), len }),
            Err(Errno::NODEV) => Err(AllocateError::Withdrawn { path: path() }),
            Err(errno) => Err(AllocateError::Kernel { path: path(), source: errno.into() }),
        }
    }

    /// Where the process has it, half-open: for whoever asks the kernel what it does with such addresses.
    pub fn process_range(&self) -> Option<AddrRange<ProcVa>> {
        AddrRange::new(self.pages.address(), self.pages.len())
    }

    /// Bytes that were asked for.
    pub fn len(&self) -> Bytes {
        self.pages.len()
    }

    /// Always false; there is at least one byte.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The processor copies bytes out, over its own way to the device.
    ///
    /// # Errors
    /// [`BeyondPages`], with nothing read.
    pub fn read(&self, at: Bytes, into: &mut [u8]) -> Result<(), BeyondPages> {
        copy_out(&self.pages, at, into)
    }

    /// The processor copies bytes in.
    ///
    /// # Errors
    /// [`BeyondPages`], with nothing written.
    pub fn write(&self, at: Bytes, from: &[u8]) -> Result<(), BeyondPages> {
        copy_in(&self.pages, at, from)
    }

    /// Fills `len` bytes from `at` of the memory from `file`, starting `offset` bytes into it; the bytes that came.
    ///
    /// With a file opened for direct I/O, `at`, `len` and `offset` have to be multiples of the device's
    /// block. Blocks until the transfer is over.
    ///
    /// # Errors
    /// The kernel's answer as it is: `EINVAL` where it does not let the two devices reach
    /// each other (or for a crooked offset), `EREMOTEIO` where the file's driver does not
    /// take such memory at all, `EFAULT` for bytes that the memory does not have.
    pub fn read_from(&mut self, at: Bytes, len: Bytes, file: impl AsFd, offset: Bytes) -> io::Result<Bytes> {
        direct_in(&self.pages, at, len, file.as_fd(), offset)
    }

    /// Writes `len` bytes from `at` of the memory to `file`, starting `offset` bytes into it; the bytes that went.
    ///
    /// Blocks as [`read_from`](Self::read_from) does.
    ///
    /// # Errors
    /// As for [`read_from`](Self::read_from).
    pub fn write_to(&self, at: Bytes, len: Bytes, file: impl AsFd, offset: Bytes) -> io::Result<Bytes> {
        direct_out(&self.pages, at, len, file.as_fd(), offset)
    }
}

impl CpuView for P2pMemory {
    fn extent(&self) -> (Bytes, Bytes) {
        (Bytes::ZERO, self.len())
    }

    fn read(&self, offset: Bytes, into: &mut [u8]) -> Result<(), CpuAccess> {
        Ok(Self::read(self, offset, into)?)
    }

    fn write(&self, offset: Bytes, from: &[u8]) -> Result<(), CpuAccess> {
        Ok(Self::write(self, offset, from)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ordinary file maps as the pool's file does; what a device does with it takes one.
    #[test]
    fn bytes_pass_between_the_memory_and_a_file_and_lengths_are_checked_first() {
        let folder = std::env::temp_dir().join(format!("peerdma-p2pmem-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (pool, disk) = (folder.join("allocate"), folder.join("disk"));
        std::fs::write(&pool, [7; 8192]).unwrap();
        std::fs::write(&disk, [1; 8192]).unwrap();
        let file = OpenOptions::new().read(true).write(true).open(&disk).unwrap();
        let page = Bytes::new(4096);
        let mut memory = P2pMemory::allocate(&pool, page).unwrap();
        assert_eq!(memory.write_to(Bytes::ZERO, page, &file, page).unwrap(), page);
        assert_eq!(memory.read_from(Bytes::ZERO, page, &file, Bytes::ZERO).unwrap(), page);
        for (at, len) in [(1, 4096), (4096, 1), (0, 0), (u64::MAX, 1)] {
            let error = memory.read_from(Bytes::new(at), Bytes::new(len), &file, Bytes::ZERO).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(Errno::FAULT.raw_os_error()), "{at} {len}");
        }
        drop(memory);
        assert_eq!(std::fs::read(&disk).unwrap()[4095..4097], [1, 7]);
        assert_eq!(std::fs::read(&pool).unwrap()[4095..4097], [1, 7]);
        for len in [0, u64::MAX] {
            let len = Bytes::new(len);
            assert!(
                matches!(P2pMemory::allocate(&pool, len), Err(AllocateError::Length { len: asked }) if asked == len)
            );
        }
        let absent = folder.join("absent");
        assert!(
            matches!(P2pMemory::allocate(&absent, Bytes::new(1)), Err(AllocateError::Open { path, .. }) if path == absent)
        );
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
