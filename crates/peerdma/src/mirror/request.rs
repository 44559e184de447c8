//! What a device asks, and what it is answered.

use super::range::RangeId;
use crate::access::{Access, Prot};
use crate::addr::{AddrRange, ProcVa};
use core::fmt;

/// An address that a device found not to be in its table, or not for this.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Wanted {
    /// Any address in the page.
    pub at: ProcVa,
    /// What the device means to do there.
    pub access: Access,
}

/// Whatever whoever asked is known by to whoever drives the mirror.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Token(pub u64);

/// What a request came to, as PCIe names it (PCIe 6.0 §10.4.2.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Answer {
    /// The page is in the table; look again.
    Success,
    /// There is no such page, or it does not permit what was asked. Asking again gives the same.
    Invalid,
    /// The page should be there, and could not be brought.
    Failure,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Success => "success",
            Self::Invalid => "invalid request",
            Self::Failure => "response failure",
        })
    }
}

/// What to do about a request.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use = "the device waits"]
pub enum Fault {
    /// Touch the page as the ticket says, without any lock of the mirror's, then
    /// [`finish`](super::MirrorState::finish).
    Bring(Ticket),
    /// Nothing now: something happens there, and the end of that gives the request back.
    Parked,
    /// Answer the device.
    Answer(Answer),
}

/// The right to install one page, if nothing has happened to its range since.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use = "the device waits"]
pub struct Ticket {
    pub(super) wanted: Wanted,
    pub(super) page: AddrRange<ProcVa>,
    pub(super) id: RangeId,
    pub(super) sequence: u64,
}

impl Ticket {
    /// The page to touch.
    pub const fn page(&self) -> AddrRange<ProcVa> {
        self.page
    }

    /// How to touch it.
    pub const fn access(&self) -> Access {
        self.wanted.access
    }
}

/// What touching a page came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Brought {
    /// It is there, and permits this.
    Page(Prot),
    /// There is no memory, or it does not permit that.
    Denied,
    /// It could not be brought for a reason that is not the device's, as want of memory.
    Failed,
}

/// What to do once a page was touched.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use = "the device waits"]
pub enum Finished {
    /// Put it into the device's table, before anything else happens, and answer with success.
    Map {
        /// The page.
        page: AddrRange<ProcVa>,
        /// What the device may do there.
        prot: Prot,
    },
    /// Something has happened to the range: what was touched may be something else by now. Ask anew.
    Again(Wanted),
    /// Answer the device.
    Answer(Answer),
}

/// A request that waited, to be asked anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parked {
    /// Who asked.
    pub token: Token,
    /// For what.
    pub wanted: Wanted,
}
