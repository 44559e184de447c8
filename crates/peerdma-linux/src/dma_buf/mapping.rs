//! A dma-buf in the CPU's reach, and the word that the CPU uses it.

use super::buf::{DmaBuf, DmaBufError};
use crate::memory::{BeyondPages, copy_in, copy_out};
use crate::sys::dma_buf;
use crate::sys::map::Mapping;
use crate::vfio::errno;
use peerdma::addr::{AddrRange, Bytes, ProcVa};
use std::marker::PhantomData;
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

    /// Says that the CPU begins to read; waits for devices that write, and cleans caches, where the exporter does so.
    ///
    /// # Errors
    /// [`DmaBufError::Kernel`].
    pub fn begin_read(&self) -> Result<CpuAccess<'_, Reading>, DmaBufError> {
        self.begin()
    }

    /// Says that the CPU begins to write, and reads nothing; waits for every device.
    ///
    /// # Errors
    /// [`DmaBufError::Kernel`].
    pub fn begin_write(&self) -> Result<CpuAccess<'_, Writing>, DmaBufError> {
        self.begin()
    }

    /// Says that the CPU begins to read and to write; waits for every device, and cleans caches, where the exporter does so.
    ///
    /// # Errors
    /// [`DmaBufError::Kernel`].
    pub fn begin_read_write(&self) -> Result<CpuAccess<'_, ReadingAndWriting>, DmaBufError> {
        self.begin()
    }

    fn begin<K: Kind>(&self) -> Result<CpuAccess<'_, K>, DmaBufError> {
        let begun = dma_buf::sync(self.dma_buf.as_fd(), K::ACCESS.flags(), false);
        begun.map_err(|error| self.dma_buf.refused("DMA_BUF_IOCTL_SYNC (start)", error))?;
        Ok(CpuAccess { of: self, ended: false, kind: PhantomData })
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

mod kind {
    pub trait Sealed {}
}

/// What the CPU said that it does: [`Reading`], [`Writing`] or [`ReadingAndWriting`], and nothing else.
pub trait Kind: kind::Sealed {
    /// The same as a value.
    const ACCESS: Access;
}

/// A [`Kind`] of access that may read.
///
/// What is read without having said so may be what a cache still holds.
pub trait Reads: Kind {}

/// A [`Kind`] of access that may write.
///
/// What is written without having said so may stay in a cache, where no device sees it.
pub trait Writes: Kind {}

/// The CPU reads, and does not write.
#[derive(Debug)]
pub enum Reading {}
/// The CPU writes, and does not read.
#[derive(Debug)]
pub enum Writing {}
/// The CPU does both.
#[derive(Debug)]
pub enum ReadingAndWriting {}

impl kind::Sealed for Reading {}
impl kind::Sealed for Writing {}
impl kind::Sealed for ReadingAndWriting {}

impl Kind for Reading {
    const ACCESS: Access = Access::Read;
}
impl Kind for Writing {
    const ACCESS: Access = Access::Write;
}
impl Kind for ReadingAndWriting {
    const ACCESS: Access = Access::ReadWrite;
}

impl Reads for Reading {}
impl Reads for ReadingAndWriting {}
impl Writes for Writing {}
impl Writes for ReadingAndWriting {}

/// The CPU uses a dma-buf until this is dropped, in the way that `K` says.
///
/// What it did not begin for does not compile: neither a write in an access that was begun for reading,
///
/// ```compile_fail,E0599
/// # fn written(mapping: &peerdma_linux::dma_buf::DmaBufMapping) -> Result<(), Box<dyn std::error::Error>> {
/// mapping.begin_read()?.write(peerdma::addr::Bytes::ZERO, b"ring")?;
/// # Ok(()) }
/// ```
///
/// nor a read in one that was begun for writing.
///
/// ```compile_fail,E0599
/// # fn read(mapping: &peerdma_linux::dma_buf::DmaBufMapping) -> Result<(), Box<dyn std::error::Error>> {
/// mapping.begin_write()?.read(peerdma::addr::Bytes::ZERO, &mut [0; 4])?;
/// # Ok(()) }
/// ```
///
/// One that was begun for both does both.
///
/// ```
/// # fn both(mapping: &peerdma_linux::dma_buf::DmaBufMapping) -> Result<(), Box<dyn std::error::Error>> {
/// let access = mapping.begin_read_write()?;
/// let mut seen = [0; 4];
/// access.write(peerdma::addr::Bytes::ZERO, b"ring")?;
/// access.read(peerdma::addr::Bytes::ZERO, &mut seen)?;
/// access.end()?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "dropping it says that the CPU has ended"]
pub struct CpuAccess<'m, K: Kind> {
    of: &'m DmaBufMapping,
    ended: bool,
    kind: PhantomData<K>,
}

impl<K: Reads> CpuAccess<'_, K> {
    /// Copies bytes out.
    ///
    /// # Errors
    /// [`BeyondPages`], with nothing read.
    pub fn read(&self, offset: Bytes, into: &mut [u8]) -> Result<(), BeyondPages> {
        copy_out(&self.of.mapping, offset, into)
    }
}

impl<K: Writes> CpuAccess<'_, K> {
    /// Copies bytes in.
    ///
    /// # Errors
    /// [`BeyondPages`], with nothing written.
    pub fn write(&self, offset: Bytes, from: &[u8]) -> Result<(), BeyondPages> {
        copy_in(&self.of.mapping, offset, from)
    }
}

impl<K: Kind> CpuAccess<'_, K> {
    /// Says that the CPU has ended, and whether that was heard; dropping it does not tell.
    ///
    /// # Errors
    /// [`DmaBufError::Kernel`].
    pub fn end(mut self) -> Result<(), DmaBufError> {
        self.ended = true;
        let ended = dma_buf::sync(self.of.dma_buf.as_fd(), K::ACCESS.flags(), true);
        ended.map_err(|error| self.of.dma_buf.refused("DMA_BUF_IOCTL_SYNC (end)", error))
    }
}

impl<K: Kind> Drop for CpuAccess<'_, K> {
    fn drop(&mut self) {
        if !self.ended {
            let _ = dma_buf::sync(self.of.dma_buf.as_fd(), K::ACCESS.flags(), true);
        }
    }
}
