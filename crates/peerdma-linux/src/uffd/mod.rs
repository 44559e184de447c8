//! userfaultfd: being told what becomes of memory, and serving faults in it.
//!
//! A [`Uffd`] watches ranges of its own process. In the mode [`Watch::Events`] it is told of what happens to them and
//! nothing else changes: the range is registered for write protection, and nothing is ever protected. In the mode
//! [`Watch::Missing`] threads that touch pages which are not there wait until somebody brings them.
//!
//! | what happens | message | when |
//! |---|---|---|
//! | `MADV_DONTNEED`, `MADV_FREE`, `MADV_REMOVE` | [`Message::Discard`] | before |
//! | `munmap`, `mmap` with `MAP_FIXED`, a shrinking `mremap` | [`Message::Unmap`] | after |
//! | `mremap` | [`Message::Remap`], then [`Message::Unmap`] of the old place | after |
//! | `fork` | [`Message::Fork`], with privilege alone | after |
//! | `mprotect`, a file that is cut off or punched, guards, migration, swap | none | |
//!
//! Whoever did it waits, in the kernel, until the message is read, and no longer. Nobody needs a privilege, but for
//! forks (`EPERM`), as faults within the kernel are not asked for (`UFFD_USER_MODE_ONLY`).
//!
//! Not here: what follows from a message; see [`mirror`](crate::mirror).

mod message;
#[cfg(test)]
mod tests;

use crate::sys::uffd as sys;
pub use message::{MESSAGE_LEN, MalformedMessage, Message};
use peerdma::addr::{AddrRange, ProcVa};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use thiserror::Error;

/// `UFFD_FEATURE_EVENT_FORK`.
const EVENT_FORK: u64 = 1 << 1;
/// `UFFD_FEATURE_EVENT_REMAP`, `_REMOVE` and `_UNMAP`.
const EVENTS: u64 = 1 << 2 | 1 << 3 | 1 << 6;

/// Whether one is told of forks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Forks {
    /// With a message, for which the parent waits.
    ///
    /// glibc's `fork` waits with the locks of its allocator held. So whoever reads the message must not allocate, at any
    /// time, nor wait for a thread that does; in practice it is another process.
    Told,
    /// Not at all; a child has the memory without being watched, unless it is kept from it.
    NotTold,
}

/// What a range is watched for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Watch {
    /// For what happens to it.
    Events,
    /// For that, and for pages that are touched and not there.
    Missing,
}

/// Why nothing can be watched.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The kernel has no such call.
    #[error(
        "the kernel offers no userfaultfd (CONFIG_USERFAULTFD, and UFFD_USER_MODE_ONLY of Linux 5.11); pin the memory instead"
    )]
    NotOffered,
    /// A filter of system calls forbids it.
    #[error(
        "userfaultfd is refused to this process, by a filter of system calls most likely; allow it, or pin the memory"
    )]
    Forbidden,
    /// It is there, and cannot tell of events.
    #[error(
        "userfaultfd of this kernel has the features {has:#x}, of which {lacks:#x} are lacking to tell of events; pin the memory"
    )]
    Lacks {
        /// The features that it has.
        has: u64,
        /// Those that are needed and not there.
        lacks: u64,
    },
    /// Something else.
    #[error("cannot open a userfaultfd ({doing})")]
    Kernel {
        /// Which call failed.
        doing: &'static str,
        /// Its answer.
        source: io::Error,
    },
}

/// Why a range is not watched.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WatchError {
    /// It is no memory that can be watched.
    #[error(
        "{at} cannot be watched: it is not mapped, or a file's, or, before Linux 5.19, not anonymous private memory; of other memory \
         nobody is told: pin it"
    )]
    NotWatchable {
        /// The range.
        at: AddrRange<ProcVa>,
    },
    /// Somebody else watches it.
    #[error("{at} is watched by another userfaultfd of this process; one alone can be told")]
    Watched {
        /// The range.
        at: AddrRange<ProcVa>,
    },
    /// Something else.
    #[error("cannot watch {at}")]
    Kernel {
        /// The range.
        at: AddrRange<ProcVa>,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Why no message was read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// It has no meaning.
    #[error(transparent)]
    Malformed(#[from] MalformedMessage),
    /// The descriptor fails.
    #[error("cannot read from userfaultfd")]
    Io(#[from] io::Error),
}

/// A message, and what came along.
#[derive(Debug)]
pub struct Heard {
    /// The message.
    pub message: Message,
    /// With a fork: the descriptor that the child's memory is registered with. Dropping it ends that.
    pub child: Option<OwnedFd>,
}

/// Watches memory of this process. What it watched is not watched any more when it is dropped.
#[derive(Debug)]
pub struct Uffd {
    fd: OwnedFd,
    forks: Forks,
}

impl Uffd {
    /// Opens one.
    ///
    /// # Errors
    /// [`OpenError`]; [`OpenError::Kernel`] with `EPERM` where forks are asked for without `CAP_SYS_PTRACE`.
    pub fn open(forks: Forks) -> Result<Self, OpenError> {
        let failed = |doing| move |error: Errno| OpenError::Kernel { doing, source: error.into() };
        let fd = sys::open().map_err(|error| match error {
            Errno::NOSYS | Errno::INVAL => OpenError::NotOffered,
            Errno::PERM => OpenError::Forbidden,
            other => failed("userfaultfd")(other),
        })?;
        let wanted = if forks == Forks::Told { EVENTS | EVENT_FORK } else { EVENTS };
        match sys::handshake(fd.as_fd(), wanted) {
            Ok(_) => Ok(Self { fd, forks }),
            Err(Errno::INVAL) => {
                // A feature that is not there is refused with the whole; asked without any, it says what there is.
                let has = sys::open().and_then(|fd| sys::handshake(fd.as_fd(), 0)).unwrap_or(0);
                Err(OpenError::Lacks { has, lacks: wanted & !has })
            }
            Err(other) => Err(failed("UFFDIO_API")(other)),
        }
    }

    /// Whether it is told of forks.
    pub fn forks(&self) -> Forks {
        self.forks
    }

    /// Watches a range of whole pages.
    ///
    /// # Errors
    /// [`WatchError`]; nothing is watched that was not before.
    pub fn watch(&self, at: AddrRange<ProcVa>, what: Watch) -> Result<(), WatchError> {
        let mode = match what {
            Watch::Events => sys::WRITE_PROTECT,
            Watch::Missing => sys::MISSING,
        };
        sys::register(self.fd.as_fd(), at, mode).map(|_| ()).map_err(|error| match error {
            Errno::INVAL | Errno::NOMEM => WatchError::NotWatchable { at },
            Errno::BUSY => WatchError::Watched { at },
            other => WatchError::Kernel { at, source: other.into() },
        })
    }

    /// Watches a range no more, and wakes whoever waits for its pages.
    ///
    /// # Errors
    /// The kernel's answer; a range that is not mapped any more is one.
    pub fn leave(&self, at: AddrRange<ProcVa>) -> io::Result<()> {
        Ok(sys::unregister(self.fd.as_fd(), at)?)
    }

    /// The next message; `None` if there is none. Never blocks.
    ///
    /// Once this has returned, whoever caused the message goes on.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn next(&self) -> Result<Option<Heard>, ReadError> {
        let number = |bytes: &[u8; MESSAGE_LEN]| match Message::parse(bytes) {
            Ok(Message::Fork { descriptor }) => Some(descriptor),
            _ => None,
        };
        let Some((bytes, child)) = sys::read_message(self.fd.as_fd(), number).map_err(io::Error::from)? else {
            return Ok(None);
        };
        Ok(Some(Heard { message: Message::parse(&bytes)?, child }))
    }

    /// Puts bytes, whole pages of them, where pages are missing, and wakes whoever waits for them.
    ///
    /// Whoever watches a range [for missing pages](Watch::Missing) vouches for it, as for one that a device writes to: a page that
    /// was never touched, or thrown away, takes these bytes although something may be borrowed there that was zeros.
    ///
    /// # Errors
    /// The kernel's answer: `EEXIST` where a page is there already.
    pub fn copy(&self, to: ProcVa, from: &[u8]) -> io::Result<()> {
        Ok(sys::copy(self.fd.as_fd(), to, from)?)
    }

    /// Puts zeros where pages are missing, and wakes whoever waits for them.
    ///
    /// # Errors
    /// As [`copy`](Self::copy).
    pub fn zero(&self, at: AddrRange<ProcVa>) -> io::Result<()> {
        Ok(sys::zero(self.fd.as_fd(), at)?)
    }

    /// Has whoever waits for pages here touch them again.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn wake(&self, at: AddrRange<ProcVa>) -> io::Result<()> {
        Ok(sys::wake(self.fd.as_fd(), at)?)
    }
}

impl AsFd for Uffd {
    /// Readable when there is a message.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
