//! What has ended, and waiting for it.

use super::error::WaitError;
use super::status::{Status, WorkFailed};
use crate::sys::verbs;
use crate::sys::verbs::completions::{BATCH, WorkCompletion};
use peerdma::addr::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What kind of work has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Kind {
    /// A send.
    Send,
    /// An RDMA write.
    Write,
    /// An RDMA read.
    Read,
    /// A place that a message came to.
    Receive,
    /// Another one, by its number; of work that failed nothing better is known.
    Other(u32),
}

/// One piece of work that has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Completion {
    /// What it was called when it was posted.
    pub id: u64,
    /// How it ended.
    pub status: Status,
    /// What it was; says nothing if it failed.
    pub kind: Kind,
    /// How many bytes were received or read; says nothing of writes and sends, and if it failed.
    pub len: Bytes,
    /// The number of its queue pair.
    pub queue: u32,
    /// The adapter's own number for a failure.
    pub vendor: u32,
}

impl Completion {
    fn of(raw: &WorkCompletion) -> Self {
        let kind = match raw.opcode {
            0 => Kind::Send,
            1 => Kind::Write,
            2 => Kind::Read,
            128 => Kind::Receive,
            other => Kind::Other(other),
        };
        let (status, len) = (Status::from_code(raw.status), Bytes::new(raw.length.into()));
        Self { id: raw.id, status, kind, len, queue: raw.queue, vendor: raw.vendor }
    }

    /// Whether it was done.
    ///
    /// # Errors
    /// [`WorkFailed`]: why not.
    pub fn result(&self) -> Result<(), WorkFailed> {
        match self.status {
            Status::Success => Ok(()),
            status => Err(WorkFailed { id: self.id, queue: self.queue, status, vendor: self.vendor }),
        }
    }
}

/// A completion queue. Copies are the same queue.
///
/// Its descriptor becomes readable when something completes after [`arm`](Self::arm), for programs with a loop of their own.
#[derive(Clone, Debug)]
pub struct Completions {
    raw: Arc<verbs::Completions>,
    device: Arc<str>,
}

impl Completions {
    pub(super) fn new(raw: verbs::Completions, device: &Arc<str>) -> Self {
        Self { raw: Arc::new(raw), device: Arc::clone(device) }
    }

    pub(super) fn raw(&self) -> &Arc<verbs::Completions> {
        &self.raw
    }

    /// How many it holds; one more and it fails for good, with all its queue pairs.
    pub fn capacity(&self) -> u32 {
        u32::try_from(self.raw.entries()).unwrap_or(0)
    }

    /// Takes what has completed, some 32 at once; nothing where nothing has. Does not block.
    ///
    /// # Errors
    /// [`WaitError`]: the queue has failed; make a new one, with its queue pairs.
    pub fn poll(&self) -> Result<Vec<Completion>, WaitError> {
        let mut batch = [WorkCompletion::default(); BATCH];
        let found = self.raw.poll(&mut batch).map_err(|errno| self.error(errno))?;
        Ok(batch.iter().take(found).map(Completion::of).collect())
    }

    /// Has the descriptor become readable with the next completion. Poll once more after it: what came before counts
    /// for nothing.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    pub fn arm(&self) -> Result<(), WaitError> {
        self.raw.arm().map_err(|errno| self.error(errno))
    }

    /// Makes the descriptor unreadable again, until the next completion after the next [`arm`](Self::arm).
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    pub fn quiet(&self) -> Result<(), WaitError> {
        while self.raw.take_event().map_err(|errno| self.error(errno))? {}
        Ok(())
    }

    /// Takes what has completed, waiting for the first if nothing has. Nothing comes back when the time is over.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    pub fn wait(&self, limit: Option<Duration>) -> Result<Vec<Completion>, WaitError> {
        let until = limit.and_then(|limit| Instant::now().checked_add(limit));
        loop {
            let mut found = self.poll()?;
            if found.is_empty() {
                self.arm()?;
                // What came before it was armed rings no bell.
                found = self.poll()?;
            }
            if !found.is_empty() {
                return Ok(found);
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(found);
            }
            let left = left.and_then(|left| Timespec::try_from(left).ok());
            match poll(&mut [PollFd::new(&*self.raw, PollFlags::IN)], left.as_ref()) {
                Ok(_) | Err(Errno::INTR) => self.quiet()?,
                Err(errno) => return Err(self.error(errno)),
            }
        }
    }

    fn error(&self, errno: Errno) -> WaitError {
        WaitError { device: self.device.to_string(), errno }
    }
}

impl AsFd for Completions {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.raw.as_fd()
    }
}
