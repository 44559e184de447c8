//! One dma-buf.

use super::fdinfo;
use super::fences::Fences;
use super::mapping::{Access, DmaBufMapping};
use crate::sys::dma_buf;
use crate::vfio::errno;
use peerdma::addr::Bytes;
use peerdma::buffer::life::Phase;
use peerdma::buffer::shared::Buffer;
use peerdma::dma::Errno;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// Which dma-buf it is, on this machine and while it exists: two descriptors of one buffer have the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct DmaBufId(pub(super) u64);

impl DmaBufId {
    /// The number, as `/proc/PID/fdinfo` and debugfs show it (`ino`).
    pub const fn inode(self) -> u64 {
        self.0
    }
}

impl fmt::Display for DmaBufId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dma-buf {}", self.0)
    }
}

/// Why a descriptor is not taken for a dma-buf.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotADmaBuf {
    /// It is of something else.
    #[error("the descriptor is of {seen}, not of a dma-buf")]
    Other {
        /// What `/proc/self/fd` says of it.
        seen: String,
    },
    /// It cannot be looked at.
    #[error("what the descriptor is of cannot be read in {path}: {why}; mount /proc")]
    Unread {
        /// Where.
        path: String,
        /// Why not.
        why: String,
    },
}

/// Why something was not done with a dma-buf.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DmaBufError {
    /// Its exporter lets no CPU map it.
    #[error("{id} of {exporter} cannot be mapped by the CPU ({errno}); map what it was exported from instead")]
    NotMappable {
        /// Which.
        id: DmaBufId,
        /// Who exported it.
        exporter: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The kernel has no such call for dma-bufs.
    #[error("this kernel has no {call} for dma-bufs, which needs Linux {since}")]
    Lacks {
        /// Which call.
        call: &'static str,
        /// From which kernel on.
        since: &'static str,
    },
    /// The kernel refused for a reason of its own.
    #[error("{call} of {id} refused with {errno}")]
    Kernel {
        /// Which.
        id: DmaBufId,
        /// Which call.
        call: &'static str,
        /// Its answer.
        errno: Errno,
    },
}

/// Why a dma-buf was not named.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// It is too long, or has a zero or a line end in it, behind which it would pass for something else.
    #[error("`{name}` is no name for a dma-buf: at most 31 bytes, without control characters")]
    Unfit {
        /// The name, with what is not printable replaced.
        name: String,
    },
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] DmaBufError),
}

/// Whether a dma-buf's memory is within reach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// As its buffer says, which is of this process.
    Known(Phase),
    /// No descriptor tells: importing it does.
    Unknown,
}

/// A dma-buf.
///
/// *What holding this tells you:* the kernel says that it is one, and its memory exists as long as this does. It may be out of
/// reach all the same, see [`standing`](Self::standing).
#[derive(Debug)]
pub struct DmaBuf {
    fd: OwnedFd,
    id: DmaBufId,
    size: Bytes,
    exporter: String,
    buffer: Option<Buffer>,
}

impl DmaBuf {
    /// Takes a descriptor from anywhere, if it is of a dma-buf.
    ///
    /// It is believed neither to the sender nor to its link's text, but to what only dma-bufs have in `fdinfo`.
    ///
    /// # Errors
    /// [`NotADmaBuf`]; the descriptor is closed then.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, NotADmaBuf> {
        let path = format!("/proc/self/fdinfo/{}", fd.as_raw_fd());
        let unread = |error: io::Error| NotADmaBuf::Unread { path: path.clone(), why: error.to_string() };
        let text = std::fs::read(&path).map_err(unread)?;
        let Some(info) = fdinfo::parse(&String::from_utf8_lossy(&text)) else {
            let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).map_err(unread)?;
            return Err(NotADmaBuf::Other { seen: link.display().to_string() });
        };
        let inode = rustix::fs::fstat(&fd).map_err(|error| unread(error.into()))?.st_ino;
        Ok(Self { fd, id: DmaBufId(inode), size: info.size, exporter: info.exporter, buffer: None })
    }

    /// The same of what `buffer` was exported as, so that its life is known.
    #[must_use]
    pub fn of_buffer(self, buffer: &Buffer) -> Self {
        Self { buffer: Some(buffer.clone()), ..self }
    }

    /// Another descriptor of the same dma-buf.
    ///
    /// # Errors
    /// What fcntl(2) says, mostly that the process has too many descriptors open.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            fd: self.fd.try_clone()?,
            id: self.id,
            size: self.size,
            exporter: self.exporter.clone(),
            buffer: self.buffer.clone(),
        })
    }

    /// Which it is.
    pub fn id(&self) -> DmaBufId {
        self.id
    }

    /// Its length, which never changes.
    pub fn size(&self) -> Bytes {
        self.size
    }

    /// Which kernel driver exported it: `udmabuf`, `vfio_pci_core`, a heap's name.
    pub fn exporter(&self) -> &str {
        &self.exporter
    }

    /// The buffer of this process that it was exported of, where it is one.
    pub fn buffer(&self) -> Option<&Buffer> {
        self.buffer.as_ref()
    }

    /// Whether its memory is within reach, as far as anybody here knows.
    pub fn standing(&self) -> Standing {
        self.buffer.as_ref().map_or(Standing::Unknown, |buffer| Standing::Known(buffer.phase()))
    }

    /// Its name; `None` if nobody gave it one. Whoever holds it may name it anew at any time.
    ///
    /// # Errors
    /// [`NotADmaBuf::Unread`].
    pub fn read_name(&self) -> Result<Option<String>, NotADmaBuf> {
        let path = format!("/proc/self/fdinfo/{}", self.fd.as_raw_fd());
        match std::fs::read(&path) {
            Ok(text) => Ok(fdinfo::parse(&String::from_utf8_lossy(&text)).and_then(|info| info.name)),
            Err(error) => Err(NotADmaBuf::Unread { path, why: error.to_string() }),
        }
    }

    /// Names it, for those who read lists: 31 bytes at most.
    ///
    /// # Errors
    /// [`NameError`]; it is called as before.
    pub fn set_name(&self, name: &str) -> Result<(), NameError> {
        if name.len() >= dma_buf::NAME_ROOM || name.chars().any(char::is_control) {
            return Err(NameError::Unfit { name: name.escape_debug().to_string() });
        }
        let named = dma_buf::set_name(self.fd.as_fd(), name.as_bytes());
        Ok(named.map_err(|error| self.refused("DMA_BUF_SET_NAME", error))?)
    }

    /// Maps all of it for this process's CPU.
    ///
    /// # Errors
    /// [`DmaBufError::NotMappable`]: not every exporter has memory for a CPU. VFIO has none for its BARs.
    pub fn map(&self) -> Result<DmaBufMapping, DmaBufError> {
        DmaBufMapping::of(self)
    }

    /// What an access of the CPU or of another device would have to wait for.
    ///
    /// # Errors
    /// [`DmaBufError::Lacks`] before Linux 6.0; [`DmaBufError::Kernel`].
    pub fn export_fences(&self, access: Access) -> Result<Fences, DmaBufError> {
        let fences = dma_buf::export_fences(self.fd.as_fd(), access.flags());
        let fences = fences.map_err(|error| self.lacks_or_refused("DMA_BUF_IOCTL_EXPORT_SYNC_FILE", error))?;
        Ok(Fences::new(fences))
    }

    /// Has others wait for these fences, as those of an access.
    ///
    /// # Errors
    /// As [`export_fences`](Self::export_fences).
    pub fn import_fences(&self, access: Access, fences: &Fences) -> Result<(), DmaBufError> {
        let imported = dma_buf::import_fences(self.fd.as_fd(), access.flags(), fences.as_fd());
        imported.map_err(|error| self.lacks_or_refused("DMA_BUF_IOCTL_IMPORT_SYNC_FILE", error))
    }

    /// Whether an access would have to wait for nobody, waiting until that is so and for `patience` at most.
    ///
    /// Its descriptor does the same in a `poll` of the caller's: readable when nobody writes, writable when nobody does either.
    ///
    /// # Errors
    /// What poll(2) says.
    pub fn is_ready(&self, access: Access, patience: Duration) -> io::Result<bool> {
        let flags = match access {
            Access::Read => PollFlags::IN,
            Access::Write | Access::ReadWrite => PollFlags::OUT,
        };
        is_ready(self.fd.as_fd(), flags, patience)
    }

    pub(super) fn refused(&self, call: &'static str, error: rustix::io::Errno) -> DmaBufError {
        DmaBufError::Kernel { id: self.id, call, errno: errno(error) }
    }

    fn lacks_or_refused(&self, call: &'static str, error: rustix::io::Errno) -> DmaBufError {
        match error {
            rustix::io::Errno::NOTTY => DmaBufError::Lacks { call, since: "6.0" },
            error => self.refused(call, error),
        }
    }
}

impl AsFd for DmaBuf {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<DmaBuf> for OwnedFd {
    fn from(dma_buf: DmaBuf) -> Self {
        dma_buf.fd
    }
}

/// Whether a descriptor is a dma-buf's, or cannot be looked at.
pub(crate) fn may_be_dma_buf(fd: BorrowedFd<'_>) -> bool {
    let text = std::fs::read(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()));
    text.map_or(true, |text| fdinfo::parse(&String::from_utf8_lossy(&text)).is_some())
}

/// Polls one descriptor for one thing.
pub(super) fn is_ready(fd: BorrowedFd<'_>, what: PollFlags, patience: Duration) -> io::Result<bool> {
    let until = std::time::Instant::now() + patience;
    loop {
        let left = until.saturating_duration_since(std::time::Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::from_borrowed_fd(fd, what)], Some(&timeout)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
