//! What a context can be asked, and how that stands in a command's 64 bytes.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | operation: 1 sum, 2 copy, 3 gather, 4 store |
//! | 8 | 8 | tag |
//! | 16 | 8 | head of the list, source, array of pointers, or value |
//! | 24 | 8 | where results go |
//! | 32 | 8 | most elements, length, or count of pointers |
//! | 40 | 8 | length of what each pointer points to |

use crate::device::channel::Command;
use peerdma::addr::{BusAddr, Bytes};
use std::fmt;

/// The longest thing that a pointer of a gather points to.
pub(super) const LONGEST_ELEMENT: u64 = 4096;

/// What a context does for one command. Addresses are those of its process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Adds up the values of a linked list, wrapping; the result is the sum.
    ///
    /// An element is the address of the next one, or zero at the end, and its value, 8 bytes each.
    Sum {
        /// The first element, or zero for a list of none.
        head: BusAddr,
        /// The most elements to look at, so that a list that bites its tail ends.
        most: u64,
    },
    /// Copies. Ranges that overlap come out in no particular way.
    Copy {
        /// From here.
        from: BusAddr,
        /// To here.
        to: BusAddr,
        /// So many bytes.
        len: Bytes,
    },
    /// Copies what an array of pointers points to, one after the other.
    Gather {
        /// The pointers, 8 bytes each.
        pointers: BusAddr,
        /// How many.
        count: u64,
        /// How long each thing is, 1 byte to 4 KiB.
        each: Bytes,
        /// Where they go.
        to: BusAddr,
    },
    /// Writes 8 bytes.
    Store {
        /// Where to.
        to: BusAddr,
        /// What.
        value: u64,
    },
}

/// Why a command was not done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum Status {
    /// There is no such operation, or one of its fields has no meaning.
    Invalid,
    /// The address space has no such page, or does not permit this.
    Fault,
    /// The page was asked for in vain: page requests are not served, or it went again each time.
    NoPage,
    /// One of its requests failed.
    Request,
    /// The list is longer than the command says; the result is the sum up to there.
    TooLong,
    /// A status that this version does not know.
    Other(u32),
}

impl Status {
    pub(super) const fn code(self) -> u32 {
        match self {
            Self::Invalid => 1,
            Self::Fault => 2,
            Self::NoPage => 3,
            Self::Request => 4,
            Self::TooLong => 5,
            Self::Other(code) => code,
        }
    }

    /// The status of a number; none for zero, which is success.
    pub(super) const fn of(code: u32) -> Option<Self> {
        Some(match code {
            0 => return None,
            1 => Self::Invalid,
            2 => Self::Fault,
            3 => Self::NoPage,
            4 => Self::Request,
            5 => Self::TooLong,
            code => Self::Other(code),
        })
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Invalid => "the accelerator has no such command",
            Self::Fault => "the address space has no such page, or does not permit this",
            Self::NoPage => "a page was asked for in vain",
            Self::Request => "a request of the accelerator failed",
            Self::TooLong => "the list is longer than the command says",
            Self::Other(code) => return write!(f, "status {code}"),
        })
    }
}

/// Writes a command.
pub(super) fn encode(operation: Operation, tag: u64) -> Command {
    let (number, first, to, third, each) = match operation {
        Operation::Sum { head, most } => (1, head.as_u64(), 0, most, 0),
        Operation::Copy { from, to, len } => (2, from.as_u64(), to.as_u64(), len.as_u64(), 0),
        Operation::Gather { pointers, count, each, to } => (3, pointers.as_u64(), to.as_u64(), count, each.as_u64()),
        Operation::Store { to, value } => (4, value, to.as_u64(), 0, 0),
    };
    Command::ZERO
        .with_word::<0>(number)
        .with_double::<8>(tag)
        .with_double::<16>(first)
        .with_double::<24>(to)
        .with_double::<32>(third)
        .with_double::<40>(each)
}

/// Reads a command; `None` where it is none.
pub(super) fn decode(command: &Command) -> Option<Operation> {
    let (first, to, third) = (command.double::<16>(), BusAddr::new(command.double::<24>()), command.double::<32>());
    let each = command.double::<40>();
    match command.word::<0>() {
        1 => Some(Operation::Sum { head: BusAddr::new(first), most: third }),
        2 => Some(Operation::Copy { from: BusAddr::new(first), to, len: Bytes::new(third) }),
        3 if (1..=LONGEST_ELEMENT).contains(&each) => {
            Some(Operation::Gather { pointers: BusAddr::new(first), count: third, each: Bytes::new(each), to })
        }
        4 => Some(Operation::Store { to, value: first }),
        _ => None,
    }
}
