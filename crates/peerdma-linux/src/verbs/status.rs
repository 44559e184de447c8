//! How work ended.

use std::fmt;

/// How one piece of work ended (`ibv_wc_status`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Status {
    /// As asked.
    Success,
    /// The message is longer than the place for it, or than there may be.
    LocalLength,
    /// The adapter lost the queue pair's state.
    LocalQueue,
    /// The adapter refuses its own side's memory.
    LocalProtection,
    /// The queue pair had failed, or was taken down, before this was done.
    Flushed,
    /// The peer answered what makes no sense here.
    BadResponse,
    /// The peer takes no such request.
    RemoteInvalid,
    /// The peer's adapter refuses its memory.
    RemoteAccess,
    /// The peer could not do it.
    RemoteOperation,
    /// Nobody acknowledged.
    RetriesExhausted,
    /// The peer never had a place for it.
    NotReady,
    /// Another one, by its number.
    Other(u32),
}

impl Status {
    pub(super) const fn from_code(code: u32) -> Self {
        match code {
            0 => Self::Success,
            1 => Self::LocalLength,
            2 => Self::LocalQueue,
            4 => Self::LocalProtection,
            5 => Self::Flushed,
            7 => Self::BadResponse,
            9 => Self::RemoteInvalid,
            10 => Self::RemoteAccess,
            11 => Self::RemoteOperation,
            12 => Self::RetriesExhausted,
            13 => Self::NotReady,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Success => "done",
            Self::LocalLength => "the message is too long for its place; post a longer one, or send less",
            Self::LocalQueue => "the adapter lost the queue pair's state; make a new one",
            Self::LocalProtection => {
                "the adapter refuses this side's memory; is its region of the same domain, still registered, and writable where it is written?"
            }
            Self::Flushed => "the queue pair had failed before it was done; look for the first completion that failed",
            Self::BadResponse => "the peer's answer makes no sense; connect anew",
            Self::RemoteInvalid => "the peer takes no such request; did it permit it when it made its queue pair?",
            Self::RemoteAccess => {
                "the peer's adapter refuses its memory; is its region still registered, as long as this, and permitted for it?"
            }
            Self::RemoteOperation => "the peer could not do it; look there",
            Self::RetriesExhausted => "nobody acknowledged; is the peer there, and connected to this queue pair?",
            Self::NotReady => "the peer had no place for the message; have it post one first",
            Self::Other(code) => return write!(f, "status {code} of the adapter's; see ibv_wc_status"),
        })
    }
}

/// A piece of work that was not done. Its queue pair does nothing more.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("work {id} of queue pair {queue} failed: {status} (vendor code {vendor:#x})")]
pub struct WorkFailed {
    /// What it was called when it was posted.
    pub id: u64,
    /// Which queue pair.
    pub queue: u32,
    /// Why.
    pub status: Status,
    /// The adapter's own number.
    pub vendor: u32,
}
