//! What can be posted, and how that stands in a slot's 64 bytes.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | operation: 1 send, 2 write, 3 write with immediate, 4 read, 5 fetch and add, 6 compare and swap, 16 receive |
//! | 4 | 4 | flags: 1 no completion unless it fails, 2 with immediate (of a send) |
//! | 8 | 8 | the poster's own number |
//! | 16 | 8 | local address |
//! | 24 | 4 | local key |
//! | 28 | 4 | remote key |
//! | 32 | 8 | length |
//! | 40 | 8 | remote address |
//! | 48 | 8 | immediate, what to add, or what to expect |
//! | 56 | 8 | what takes its place |

use super::region::Key;
use crate::device::channel::Command;
use peerdma::addr::Bytes;
use peerdma::dma::consumer::rdma::RegionAddr;
use std::fmt;

/// Names a queue pair of an adapter; a number is not used again while 65536 others were not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(transparent)]
pub struct PairNumber(u32);

impl PairNumber {
    /// The queue pair that this number names, if any.
    pub const fn new(raw: u32) -> Self {
        Self(raw)
    }

    /// The number, for the other side.
    pub const fn as_u32(self) -> u32 {
        self.0
    }

    pub(super) const fn of(index: u16, generation: u16) -> Self {
        Self((generation as u32) << 16 | index as u32)
    }

    pub(super) const fn index(self) -> u16 {
        self.0 as u16
    }
}

/// Local memory of a work request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Source {
    /// Where in the region.
    pub at: RegionAddr,
    /// The region.
    pub key: Key,
    /// How many bytes, at most 2 GiB.
    pub len: Bytes,
}

/// What a posted send does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Local memory goes into the next receive of the other side.
    Send {
        /// Shown in the completion of the receive.
        immediate: Option<u32>,
    },
    /// Local memory goes to remote memory.
    Write {
        /// Where to.
        to: RegionAddr,
        /// The region there.
        key: Key,
        /// Completes a receive of the other side, which shows this.
        immediate: Option<u32>,
    },
    /// Remote memory comes into local memory.
    Read {
        /// Where from.
        from: RegionAddr,
        /// The region there.
        key: Key,
    },
    /// Adds to 8 bytes of remote memory; what stood there comes into local memory.
    FetchAdd {
        /// Where.
        at: RegionAddr,
        /// The region there.
        key: Key,
        /// What.
        value: u64,
    },
    /// Replaces 8 bytes of remote memory if they are as expected; what stood there comes into
    /// local memory.
    CompareSwap {
        /// Where.
        at: RegionAddr,
        /// The region there.
        key: Key,
        /// What is expected.
        expected: u64,
        /// What takes its place.
        new: u64,
    },
}

/// A send, as it is posted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WorkRequest {
    /// The poster's own number, which its completion shows.
    pub id: u64,
    /// Local memory.
    pub local: Source,
    /// What to do.
    pub operation: Operation,
    /// Whether it completes silently if nothing goes wrong. Slots of silent sends are in use until
    /// a later one completes that is not.
    pub quiet: bool,
}

const QUIET: u32 = 1;
const IMMEDIATE: u32 = 2;
const RECEIVE: u32 = 16;

impl WorkRequest {
    /// Writes a slot of the ring of sends.
    pub(super) fn encode(&self) -> Command {
        let mut flags = if self.quiet { QUIET } else { 0 };
        let (number, remote, key, first, second) = match self.operation {
            Operation::Send { immediate } => {
                flags |= if immediate.is_some() { IMMEDIATE } else { 0 };
                (1, 0, 0, u64::from(immediate.unwrap_or(0)), 0)
            }
            Operation::Write { to, key, immediate: None } => (2, to.as_u64(), key.as_u32(), 0, 0),
            Operation::Write { to, key, immediate: Some(immediate) } => {
                (3, to.as_u64(), key.as_u32(), u64::from(immediate), 0)
            }
            Operation::Read { from, key } => (4, from.as_u64(), key.as_u32(), 0, 0),
            Operation::FetchAdd { at, key, value } => (5, at.as_u64(), key.as_u32(), value, 0),
            Operation::CompareSwap { at, key, expected, new } => (6, at.as_u64(), key.as_u32(), expected, new),
        };
        slot(number, flags, self.id, self.local)
            .with_word::<28>(key)
            .with_double::<40>(remote)
            .with_double::<48>(first)
            .with_double::<56>(second)
    }

    /// Reads a slot of the ring of sends; `None` where it holds none.
    pub(super) fn decode(slot: &Command) -> Option<Self> {
        let flags = slot.word::<4>();
        let (remote, key) = (RegionAddr::new(slot.double::<40>()), Key::new(slot.word::<28>()));
        let (first, second) = (slot.double::<48>(), slot.double::<56>());
        let operation = match slot.word::<0>() {
            1 => Operation::Send { immediate: (flags & IMMEDIATE != 0).then_some(first as u32) },
            2 => Operation::Write { to: remote, key, immediate: None },
            3 => Operation::Write { to: remote, key, immediate: Some(first as u32) },
            4 => Operation::Read { from: remote, key },
            5 => Operation::FetchAdd { at: remote, key, value: first },
            6 => Operation::CompareSwap { at: remote, key, expected: first, new: second },
            _ => return None,
        };
        Some(Self { id: slot.double::<8>(), local: local(slot), operation, quiet: flags & QUIET != 0 })
    }
}

fn slot(number: u32, flags: u32, id: u64, local: Source) -> Command {
    Command::ZERO
        .with_word::<0>(number)
        .with_word::<4>(flags)
        .with_double::<8>(id)
        .with_double::<16>(local.at.as_u64())
        .with_word::<24>(local.key.as_u32())
        .with_double::<32>(local.len.as_u64())
}

fn local(slot: &Command) -> Source {
    let at = RegionAddr::new(slot.double::<16>());
    Source { at, key: Key::new(slot.word::<24>()), len: Bytes::new(slot.double::<32>()) }
}

/// Writes a slot of the ring of receives.
pub(super) fn encode_receive(id: u64, into: Source) -> Command {
    slot(RECEIVE, 0, id, into)
}

/// Reads a slot of the ring of receives: its number and its memory; `None` where it holds none.
pub(super) fn decode_receive(slot: &Command) -> Option<(u64, Source)> {
    (slot.word::<0>() == RECEIVE).then(|| (slot.double::<8>(), local(slot)))
}

/// What became of a work request; the numbers are those of `enum ibv_wc_status`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum Status {
    /// It was done.
    Success,
    /// It is longer than its memory, or than a message can be.
    LocalLength,
    /// There is no such operation, or its slot could not be read.
    LocalOperation,
    /// Its local memory is not in a region that permits it.
    LocalProtection,
    /// The queue pair was in error already.
    Flushed,
    /// The other side takes no such request: too long for the receive, or an AtomicOp that is not aligned.
    RemoteInvalid,
    /// Its remote memory is not in a region that permits it.
    RemoteAccess,
    /// A request of the other adapter's failed.
    RemoteOperation,
    /// The other side does not answer.
    RetryExceeded,
    /// A request of this adapter's failed.
    General,
    /// A status that this version does not know.
    Other(u16),
}

impl Status {
    pub(super) const fn code(self) -> u32 {
        match self {
            Self::Success => 0,
            Self::LocalLength => 1,
            Self::LocalOperation => 2,
            Self::LocalProtection => 4,
            Self::Flushed => 5,
            Self::RemoteInvalid => 9,
            Self::RemoteAccess => 10,
            Self::RemoteOperation => 11,
            Self::RetryExceeded => 12,
            Self::General => 21,
            Self::Other(code) => code as u32,
        }
    }

    pub(super) const fn of(code: u16) -> Self {
        match code {
            0 => Self::Success,
            1 => Self::LocalLength,
            2 => Self::LocalOperation,
            4 => Self::LocalProtection,
            5 => Self::Flushed,
            9 => Self::RemoteInvalid,
            10 => Self::RemoteAccess,
            11 => Self::RemoteOperation,
            12 => Self::RetryExceeded,
            21 => Self::General,
            code => Self::Other(code),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Success => "done",
            Self::LocalLength => "longer than its local memory",
            Self::LocalOperation => "no such operation",
            Self::LocalProtection => "local memory does not permit it",
            Self::Flushed => "flushed, because the queue pair was in error",
            Self::RemoteInvalid => "the other side takes no such request",
            Self::RemoteAccess => "remote memory does not permit it",
            Self::RemoteOperation => "a request of the other adapter failed",
            Self::RetryExceeded => "the other side does not answer",
            Self::General => "a request of the adapter failed",
            Self::Other(code) => return write!(f, "status {code}"),
        })
    }
}
