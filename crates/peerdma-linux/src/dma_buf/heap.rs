//! dma-bufs from heaps.
//!
//! A heap does not refuse what the machine does not have: a request for 2^50 bytes has the caller killed for memory
//! instead (Linux 7.3, system heap). So a length is held against a limit of the caller's, and against what is available.

use super::buf::{DmaBuf, NotADmaBuf};
use crate::sys::dma_buf;
use crate::vfio::errno;
use peerdma::addr::Bytes;
use peerdma::dma::Errno;
use rustix::fs::{Mode, OFlags, open};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Where heaps are.
const FOLDER: &str = "/dev/dma_heap";

/// Why a heap gave nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeapError {
    /// There is no such heap.
    #[error("there is no heap `{name}`; this machine has {}", if .has.is_empty() { "none (CONFIG_DMABUF_HEAPS)".to_string() } else { .has.join(", ") })]
    Absent {
        /// Its name.
        name: String,
        /// Those that there are.
        has: Vec<String>,
    },
    /// It may not be opened.
    #[error("heap `{name}` cannot be opened ({errno}); it is mostly root's, or have a descriptor handed in")]
    NotOpened {
        /// Its name.
        name: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// No bytes were asked for.
    #[error("a dma-buf of no bytes cannot be taken; ask for one at least")]
    Empty,
    /// More was asked for than the caller permits.
    #[error("{len} are more than the limit of {limit}; raise the limit if that is meant")]
    OverLimit {
        /// How much.
        len: Bytes,
        /// The limit.
        limit: Bytes,
    },
    /// More was asked for than there is.
    #[error(
        "{len} are more than what is available ({available}), and the kernel would kill this process for them; take less"
    )]
    Unavailable {
        /// How much.
        len: Bytes,
        /// What `/proc/meminfo` says.
        available: Bytes,
    },
    /// How much there is cannot be read.
    #[error(
        "what memory is available cannot be read in /proc/meminfo, and without that no heap is asked: it kills who asks too much"
    )]
    UnknownMemory,
    /// The kernel refused for a reason of its own.
    #[error("the heap refused {len} with {errno}")]
    Kernel {
        /// How much.
        len: Bytes,
        /// Its answer.
        errno: Errno,
    },
    /// What it gave is no dma-buf.
    #[error(transparent)]
    Strange(#[from] NotADmaBuf),
}

/// A heap, open.
#[derive(Debug)]
pub struct Heap(OwnedFd);

impl From<OwnedFd> for Heap {
    /// Takes a descriptor of a heap that the caller opened; one of something else refuses each request with ENOTTY.
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl Heap {
    /// The heaps of this machine by name, sorted; none where there are none, or where nobody may look.
    pub fn names() -> Vec<String> {
        let entries = std::fs::read_dir(FOLDER).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// Opens a heap.
    ///
    /// # Errors
    /// [`HeapError::Absent`] with those that there are; [`HeapError::NotOpened`].
    pub fn open(name: &str) -> Result<Self, HeapError> {
        use rustix::io::Errno as E;
        let absent = || HeapError::Absent { name: name.to_string(), has: Self::names() };
        if name.is_empty() || name.contains('/') || name.starts_with('.') {
            return Err(absent());
        }
        match open(Path::new(FOLDER).join(name), OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
            Ok(fd) => Ok(Self(fd)),
            Err(E::NOENT | E::NOTDIR | E::NXIO) => Err(absent()),
            Err(error) => Err(HeapError::NotOpened { name: name.to_string(), errno: errno(error) }),
        }
    }

    /// Takes `len` bytes, rounded up to pages, but never more than `limit`, nor than half of what the machine has available.
    ///
    /// Half, as others take memory at the same time, and whoever took the last of it is not asked whether it was he.
    ///
    /// # Errors
    /// [`HeapError`]; the kernel was asked for [`HeapError::Kernel`] alone.
    pub fn allocate(&self, len: Bytes, limit: Bytes) -> Result<DmaBuf, HeapError> {
        bounded(len, limit, available())?;
        let fd = dma_buf::heap(self.0.as_fd(), len.as_u64());
        Ok(DmaBuf::from_fd(fd.map_err(|error| HeapError::Kernel { len, errno: errno(error) })?)?)
    }
}

fn bounded(len: Bytes, limit: Bytes, available: Option<Bytes>) -> Result<(), HeapError> {
    if len == Bytes::ZERO {
        return Err(HeapError::Empty);
    }
    if len > limit {
        return Err(HeapError::OverLimit { len, limit });
    }
    let available = available.ok_or(HeapError::UnknownMemory)?;
    match len > Bytes::new(available.as_u64() / 2) {
        true => Err(HeapError::Unavailable { len, available }),
        false => Ok(()),
    }
}

/// `MemAvailable`.
fn available() -> Option<Bytes> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024).map(Bytes::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_that_would_have_the_caller_killed_never_gets_to_the_kernel() {
        let (huge, mib) = (Bytes::new(1 << 50), Bytes::new(1 << 20));
        // Asked, this file would answer ENOTTY.
        let heap = Heap::from(OwnedFd::from(std::fs::File::open("/dev/null").unwrap()));
        assert!(matches!(heap.allocate(huge, huge), Err(HeapError::Unavailable { .. })));
        assert_eq!(heap.allocate(huge, mib).unwrap_err(), HeapError::OverLimit { len: huge, limit: mib });
        assert_eq!(heap.allocate(Bytes::ZERO, mib).unwrap_err(), HeapError::Empty);
        assert!(
            matches!(heap.allocate(Bytes::new(100), mib), Err(HeapError::Kernel { errno, .. }) if errno == Errno::new(libc::ENOTTY))
        );
        assert_eq!(bounded(mib, mib, None), Err(HeapError::UnknownMemory));
    }

    #[test]
    fn no_name_leads_out_of_the_folder_of_heaps() {
        for name in ["", "../null", ".", "no-such-heap", "a/b"] {
            assert!(matches!(Heap::open(name), Err(HeapError::Absent { .. })), "{name}");
        }
    }
}
