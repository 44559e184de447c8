//! A dma-buf in the CPU's reach, and the word that the CPU uses it.

use super::buf::{DmaBuf, DmaBufError};
use crate::memory::{BeyondPages, copy_in, copy_out};
use crate::sys::dma_buf;
use crate::sys::map::Mapping;
use crate::vfio::errno;
use peerdma::addr::{AddrRange, Bytes, ProcVa};
use std::os::fd::AsFd;

/// What is done with a dma-buf.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// It is read.
    Read,
    /// It is written.
    Write,
    /// Both.
    ReadWrite,
}

impl Access {
    pub(super) const fn flags(self) -> u32 {
        match self {
            Self::Read => dma_buf::READ,
            Self::Write => dma_buf::WRITE,
            Self::ReadWrite => dma_buf::READ | dma_buf::WRITE,
        }
    }

    const fn reads(self) -> bool {
        matches!(self, Self::Read | Self::ReadWrite)
    }

    const fn writes(self) -> bool {
        matches!(self, Self::Write | Self::ReadWrite)
    }
}

/// All of a dma-buf, mapped until dropped. Bytes are reached through a [`CpuAccess`] alone.
#[derive(Debug)]
pub struct DmaBufMapping {
    dma_buf: DmaBuf,
    mapping: Mapping,
}

impl DmaBufMapping {
    pub(super) fn of(dma_buf: &DmaBuf) -> Result<Self, DmaBufError> {
        let refused = |error| DmaBufError::NotMappable {
            id: dma_buf.id(),
            exporter: dma_buf.exporter().to_string(),
            errno: errno(error),
        };
        let len = usize::try_from(dma_buf.size().as_u64()).map_err(|_| refused(rustix::io::Errno::NOMEM))?;
        let mapping = Mapping::of_file(dma_buf.as_fd(), 0, len).map_err(refused)?;
        let own = dma_buf.try_clone().map_err(|error| DmaBufError::Kernel {
            id: dma_buf.id(),
            call: "fcntl(F_DUPFD_CLOEXEC)",
            errno: peerdma::dma::Errno::new(error.raw_os_error().unwrap_or(0)),
        })?;
        Ok(Self { dma_buf: own, mapping })
    }

    /// Says that the CPU begins; waits for devices, and cleans caches, where the exporter does so.
    ///
    /// # Errors
    /// [`DmaBufError::Kernel`].
    pub fn begin(&self, access: Access) -> Result<CpuAccess<'_>, DmaBufError> {
        let begun = dma_buf::sync(self.dma_buf.as_fd(), access.flags(), false);
        begun.map_err(|error| self.dma_buf.refused("DMA_BUF_IOCTL_SYNC (start)", error))?;
        Ok(CpuAccess { of: self, access, ended: false })
    }

    /// Its length.
    pub fn len(&self) -> Bytes {
        self.mapping.len()
    }

    /// Where the process has it, half-open: for whoever asks the kernel what it does with such addresses.
    pub fn process_range(&self) -> Option<AddrRange<ProcVa>> {
        AddrRange::new(self.mapping.address(), self.mapping.len())
    }

    /// Always false; a dma-buf has a page at least.
    pub fn is_empty(&self) -> bool {
        false
    }
}

/// The CPU uses a dma-buf until this is dropped.
#[derive(Debug)]
#[must_use = "dropping it says that the CPU has ended"]
pub struct CpuAccess<'m> {
    of: &'m DmaBufMapping,
    access: Access,
    ended: bool,
}

impl CpuAccess<'_> {
    /// Copies bytes out.
    ///
    /// # Errors
    /// [`BeyondPages`], with nothing read.
    ///
    /// # Panics
    /// If it was begun for writing alone, since what is read then may be what a cache still holds.
    pub fn read(&self, offset: Bytes, into: &mut [u8]) -> Result<(), BeyondPages> {
        assert!(self.access.reads(), "an access that reads was begun for reading");
        copy_out(&self.of.mapping, offset, into)
    }

    /// Copies bytes in.
    ///
    /// # Errors
    /// [`BeyondPages`], with nothing written.
    ///
    /// # Panics
    /// If it was begun for reading alone, since a device would not see what is written then.
    pub fn write(&self, offset: Bytes, from: &[u8]) -> Result<(), BeyondPages> {
        assert!(self.access.writes(), "an access that writes was begun for writing");
        copy_in(&self.of.mapping, offset, from)
    }

    /// Says that the CPU has ended, and whether that was heard; dropping it does not tell.
    ///
    /// # Errors
    /// [`DmaBufError::Kernel`].
    pub fn end(mut self) -> Result<(), DmaBufError> {
        self.ended = true;
        let ended = dma_buf::sync(self.of.dma_buf.as_fd(), self.access.flags(), true);
        ended.map_err(|error| self.of.dma_buf.refused("DMA_BUF_IOCTL_SYNC (end)", error))
    }
}

impl Drop for CpuAccess<'_> {
    fn drop(&mut self) {
        if !self.ended {
            let _ = dma_buf::sync(self.of.dma_buf.as_fd(), self.access.flags(), true);
        }
    }
}
