//! A descriptor that one thread makes readable and another waits for.

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{Errno, read, write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// An eventfd of which only matters whether it is readable.
#[derive(Debug)]
pub(crate) struct Bell(OwnedFd);

impl Bell {
    pub(crate) fn new() -> Result<Self, Errno> {
        eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map(Self)
    }

    /// Makes it readable, from whichever thread; never blocks.
    pub(crate) fn ring(&self) {
        // A counter without room for one more is readable as it is.
        while write(&self.0, &1_u64.to_ne_bytes()) == Err(Errno::INTR) {}
    }

    /// Makes it unreadable until the next ring; never blocks.
    pub(crate) fn silence(&self) {
        while read(&self.0, &mut [0; 8]) == Err(Errno::INTR) {}
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
