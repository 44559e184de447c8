//! Why something about a mirror was not done.

use crate::pin::Standing;
use crate::uffd::{OpenError, ReadError, WatchError};
use peerdma::addr::{AddrRange, Bytes, ProcVa};
use peerdma::buffer::guard::BarrierRefused;
use peerdma::mirror::{Answer, RangeId, RegisterError, UnknownRange};
use std::io;
use thiserror::Error;

/// Why there is no mirror.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NewError {
    /// Nobody tells what happens to memory.
    #[error(transparent)]
    Uffd(#[from] OpenError),
    /// Pages cannot be brought without changing them.
    #[error(
        "this kernel does not bring pages on request (MADV_POPULATE_WRITE, Linux 5.14), or a filter forbids it; pin the memory instead"
    )]
    NoPopulate {
        /// The kernel's answer.
        source: io::Error,
    },
    /// Memory of the process cannot be copied by address.
    #[error(
        "this process may not copy memory by its addresses (process_vm_readv), by a filter of system calls most likely; allow it"
    )]
    NoCopies {
        /// The kernel's answer.
        source: io::Error,
    },
    /// There is no descriptor left, or no memory.
    #[error("cannot set up what a mirror waits with ({doing})")]
    Kernel {
        /// Which call failed.
        doing: &'static str,
        /// Its answer.
        source: io::Error,
    },
}

/// Somebody uses memory and did not leave in time. Nothing has changed; contexts wait until it has left.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{} did not leave in time{}; stop the device, or wait longer", .who.join(", "), Refused(*.refused))]
pub struct StillInUse {
    /// The names of the contexts; or another change, which waits for them and was not over in time.
    pub who: Vec<String>,
    /// Why nobody can be said to be outside, if the barrier was refused.
    pub refused: Option<BarrierRefused>,
}

struct Refused(Option<BarrierRefused>);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.map_or(Ok(()), |refused| write!(f, " ({refused})"))
    }
}

/// Why a range is not the device's to use; it is as it was.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RangeError {
    /// It overlaps another, or is not whole pages.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// Nobody would be told what happens to it.
    #[error(transparent)]
    Watch(#[from] WatchError),
    /// The mirror was made for memory that it owns.
    #[error(
        "{at} belongs to somebody else, and this mirror has no userfaultfd to be told of it; make the mirror with one"
    )]
    Untold {
        /// The range.
        at: AddrRange<ProcVa>,
    },
    /// What is said to hold the pages holds others.
    #[error("{at} is to be pinned, and what was handed over holds {holds}; pin all of it first")]
    NotHeld {
        /// The range.
        at: AddrRange<ProcVa>,
        /// What is held.
        holds: AddrRange<ProcVa>,
    },
    /// What is said to hold the pages holds others by now than the process has there.
    #[error("the pin of {at} and its addresses have parted ({}); pin it anew", parted(.standing))]
    Parted {
        /// The range.
        at: AddrRange<ProcVa>,
        /// What became of it.
        standing: Standing,
    },
    /// The device's table did not take it.
    #[error("{at} could not be put into the device's table; it may be full")]
    Table {
        /// The range.
        at: AddrRange<ProcVa>,
    },
    /// Children cannot be kept from it.
    #[error("children of this process cannot be kept from {at} (MADV_DONTFORK)")]
    Children {
        /// The range.
        at: AddrRange<ProcVa>,
        /// The kernel's answer.
        source: io::Error,
    },
    /// There is no such memory to be had.
    #[error("cannot make {size} of memory")]
    NoMemory {
        /// How much was asked for.
        size: Bytes,
        /// The kernel's answer.
        source: io::Error,
    },
}

fn parted(standing: &Standing) -> String {
    match standing {
        Standing::Moved { to } => format!("its pages are at {to} now"),
        Standing::Stale { at } => format!("at {at} the process has other pages"),
        other => format!("{other:?}"),
    }
}

/// Why a range of the mirror's own was not changed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// The device uses it.
    #[error(transparent)]
    StillInUse(#[from] StillInUse),
    /// It lies outside of the memory.
    #[error("{at} is not within {own}; name a part of it, in whole pages")]
    Outside {
        /// What was named.
        at: AddrRange<ProcVa>,
        /// What there is.
        own: AddrRange<ProcVa>,
    },
    /// Where it is to go somebody else's range is registered, of whose end nobody has heard yet.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// It is pinned, and a move would part it from its pin.
    #[error("{at} is pinned where it is, and a device knows it by that address; unmap it and make other memory")]
    Pinned {
        /// The range.
        at: AddrRange<ProcVa>,
    },
    /// The kernel refuses.
    #[error("cannot change {at}; the device sees it as it is, and asks for its pages anew")]
    Kernel {
        /// The range.
        at: AddrRange<ProcVa>,
        /// The kernel's answer.
        source: io::Error,
    },
    /// It is the mirror's own, and goes with its handle.
    #[error("range {id} at {at} is the mirror's own; unmap it, or drop it")]
    Owned {
        /// Its name.
        id: RangeId,
        /// Its first part.
        at: AddrRange<ProcVa>,
    },
    /// It is not registered any more.
    #[error(transparent)]
    Unknown(#[from] UnknownRange),
}

/// Why a context did not move bytes.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AccessError {
    /// No such page is registered, or not for this; or it could not be brought.
    #[error("the page at {at} was asked for, and the answer was: {answer}")]
    Refused {
        /// The first address that was not there.
        at: ProcVa,
        /// The answer.
        answer: Answer,
    },
    /// The table leads there, and the process has no such memory: of what has happened nobody has told yet, or will.
    #[error(
        "the table leads to {at}, which the process has closed, cut off or unmapped without the mirror having been told"
    )]
    Stale {
        /// The range.
        at: AddrRange<ProcVa>,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Nobody answered in time, or pages were taken away faster than others came.
    #[error(
        "the page at {at} did not come in time; call `serve` in another thread, and discard less while a device reads"
    )]
    Late {
        /// The first address that is not there.
        at: ProcVa,
    },
    /// The memory was about to change until it was too late: somebody else does not leave it.
    #[error("{at} was closed until it was too late, since another context does not leave; see what keeps that")]
    Closed {
        /// The range.
        at: AddrRange<ProcVa>,
    },
    /// No range holds this.
    #[error("{len} from {at} on reach past the end of all addresses")]
    Range {
        /// Where it starts.
        at: ProcVa,
        /// How long it is.
        len: Bytes,
    },
}

/// Why serving stopped.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServeError {
    /// A context did not leave. No message was read, so that whoever changes memory waits on.
    #[error(transparent)]
    StillInUse(#[from] StillInUse),
    /// userfaultfd fails.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Waiting fails.
    #[error("cannot wait for messages and requests")]
    Io(#[from] io::Error),
}
