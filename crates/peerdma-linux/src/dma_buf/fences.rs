//! Fences of the kernel's, as a file.
//!
//! The kernel's fences and those of [`peerdma::buffer::fence`] are two things: a file of these retires when drivers say so. A
//! [`KernelFence`](super::KernelFence) has a [`Reservation`](peerdma::buffer::fence::Reservation) of ours wait for one.

use super::buf::is_ready;
use crate::sys::dma_buf;
use crate::vfio::errno;
use peerdma::dma::Errno;
use rustix::event::PollFlags;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// What devices are doing, as a file that becomes readable when they are done.
#[derive(Debug)]
pub struct Fences(OwnedFd);

/// Why a file of fences was not used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FencesError {
    /// It is of something else.
    #[error("the descriptor is of no sync file; hand in one")]
    NotFences,
    /// The kernel refused.
    #[error("{call} refused with {errno}")]
    Kernel {
        /// Which call.
        call: &'static str,
        /// Its answer.
        errno: Errno,
    },
}

/// Where a file's fences are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FenceStatus {
    /// One at least has not retired.
    Active,
    /// All have.
    Retired,
    /// One has failed.
    Failed {
        /// With what.
        errno: Errno,
    },
}

impl Fences {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Takes a sync file of somebody else's.
    ///
    /// # Errors
    /// [`FencesError::NotFences`] if it is something else.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, FencesError> {
        // What a number means is the file's own, and this one belongs to sync files alone.
        let fences = Self(fd);
        match fences.status() {
            Err(FencesError::Kernel { errno, .. }) if errno == Errno::new(libc::ENOTTY) => Err(FencesError::NotFences),
            Err(error) => Err(error),
            Ok(_) => Ok(fences),
        }
    }

    /// Where they are, and how many.
    ///
    /// # Errors
    /// [`FencesError::Kernel`].
    pub fn status(&self) -> Result<(FenceStatus, u32), FencesError> {
        let (status, count) = dma_buf::fence_status(self.0.as_fd()).map_err(refused("SYNC_IOC_FILE_INFO"))?;
        let status = match status {
            0 => FenceStatus::Active,
            failed if failed < 0 => FenceStatus::Failed { errno: Errno::new(failed.saturating_neg()) },
            _ => FenceStatus::Retired,
        };
        Ok((status, count))
    }

    /// Both together, under a name for those who read traces (31 bytes of it).
    ///
    /// # Errors
    /// [`FencesError::Kernel`].
    pub fn merge(&self, other: &Self, name: &str) -> Result<Self, FencesError> {
        let merged = dma_buf::merge(self.0.as_fd(), other.0.as_fd(), name.as_bytes());
        merged.map(Self).map_err(refused("SYNC_IOC_MERGE"))
    }

    /// Waits until they have retired, and for `patience` at most; whether they have.
    ///
    /// # Errors
    /// What poll(2) says.
    pub fn wait(&self, patience: Duration) -> io::Result<bool> {
        is_ready(self.0.as_fd(), PollFlags::IN, patience)
    }
}

fn refused(call: &'static str) -> impl Fn(rustix::io::Errno) -> FencesError {
    move |error| FencesError::Kernel { call, errno: errno(error) }
}

impl AsFd for Fences {
    /// Readable when all have retired.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_of_something_else_is_told_from_fences() {
        let null = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(Fences::from_fd(null.into()).unwrap_err(), FencesError::NotFences);
    }
}
