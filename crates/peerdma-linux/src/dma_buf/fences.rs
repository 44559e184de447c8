//! Fences of the kernel's, as a file.
//!
//! The kernel's fences and those of [`peerdma::buffer::fence`] are two things: a file of these retires when drivers say so. To have a
//! [`Reservation`](peerdma::buffer::fence::Reservation) of ours wait for one, issue a fence of a timeline for it and retire that when the file is readable.
//! The other way there is none: no program makes the kernel wait for it.

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
    /// ENOTTY if it is something else.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, Errno> {
        // What a number means is the file's own, and this one belongs to sync files alone.
        dma_buf::fence_status(fd.as_fd()).map_err(errno)?;
        Ok(Self(fd))
    }

    /// Where they are, and how many.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn status(&self) -> Result<(FenceStatus, u32), Errno> {
        let (status, count) = dma_buf::fence_status(self.0.as_fd()).map_err(errno)?;
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
    /// The kernel's answer.
    pub fn merge(&self, other: &Self, name: &str) -> Result<Self, Errno> {
        dma_buf::merge(self.0.as_fd(), other.0.as_fd(), name.as_bytes()).map(Self).map_err(errno)
    }

    /// Waits until they have retired, and for `patience` at most; whether they have.
    ///
    /// # Errors
    /// What poll(2) says.
    pub fn wait(&self, patience: Duration) -> io::Result<bool> {
        is_ready(self.0.as_fd(), PollFlags::IN, patience)
    }
}

impl AsFd for Fences {
    /// Readable when all have retired.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
