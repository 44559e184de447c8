//! What the copy engine can be asked, and how that stands in a command's 64 bytes.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | operation |
//! | 4 | 4 | flags: 1 the first place is in VRAM, 2 the second is, 4 the value has 4 bytes, 8 read back first, 16 relaxed ordering, 32 with PASID, 64 translate first |
//! | 8 | 8 | tag |
//! | 16 | 8 | first place, or value |
//! | 24 | 8 | second place |
//! | 32 | 8 | length, or how often to look |
//! | 40 | 4 | PASID |
//! | 48 | 8 | where to read back |

use crate::device::channel::Command;
use crate::wire::Pasid;
use peerdma::addr::{BusAddr, Bytes};
use std::fmt;

/// Where bytes are, as the engine reaches them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// In its VRAM, from the start of it.
    Vram(Bytes),
    /// In the machine, at an address that it sends requests to.
    Bus(BusAddr),
}

impl Place {
    /// `by` bytes on; past the last address it begins again at zero.
    pub(super) fn plus(self, by: u64) -> Self {
        match self {
            Self::Vram(at) => Self::Vram(Bytes::new(at.as_u64().wrapping_add(by))),
            Self::Bus(at) => Self::Bus(BusAddr::new(at.as_u64().wrapping_add(by))),
        }
    }

    fn encode(self) -> (bool, u64) {
        match self {
            Self::Vram(at) => (true, at.as_u64()),
            Self::Bus(at) => (false, at.as_u64()),
        }
    }

    fn decode(vram: bool, number: u64) -> Self {
        if vram { Self::Vram(Bytes::new(number)) } else { Self::Bus(BusAddr::new(number)) }
    }
}

/// What the engine does for one command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Copies. Ranges that overlap come out in no particular way.
    Copy {
        /// From here.
        from: Place,
        /// To here.
        to: Place,
        /// So many bytes.
        len: Bytes,
    },
    /// Fills with a pattern of 8 bytes.
    Fill {
        /// From here on.
        to: Place,
        /// So many bytes; the pattern is cut at the end.
        len: Bytes,
        /// What with, little-endian.
        pattern: u64,
    },
    /// Writes a value: a doorbell, or a semaphore. It is sent after everything that this channel
    /// sent; what arrives first is another matter where the two take different ways, or where
    /// it is sent with Relaxed Ordering.
    Release {
        /// Where to.
        to: Place,
        /// The value; of a narrow one the lower half.
        value: u64,
        /// Eight bytes, or four.
        wide: bool,
        /// Reads 8 bytes from here before. A read pushes the writes ahead of it on its way
        /// (PCIe 6.0 §2.4.1), which a write that takes another way does not.
        read_back: Option<BusAddr>,
    },
    /// Waits until the 8 bytes there, as a number, are at least a value.
    Acquire {
        /// Where.
        at: Place,
        /// At least this.
        value: u64,
        /// How often to look before giving up.
        looks: u64,
    },
    /// Adds to 8 bytes by an AtomicOp; the result is what stood there.
    Add {
        /// Where, a multiple of 8.
        to: BusAddr,
        /// What.
        value: u64,
    },
    /// Copies pieces of VRAM to an address and from then on regards them as being there.
    Evict {
        /// Where in VRAM; a multiple of [`PIECE`](super::PIECE).
        from: Bytes,
        /// Where to.
        to: BusAddr,
        /// How many bytes; a multiple of [`PIECE`](super::PIECE).
        len: Bytes,
    },
    /// Brings pieces back to where in VRAM they were.
    Restore {
        /// Where in VRAM; a multiple of [`PIECE`](super::PIECE).
        to: Bytes,
        /// How many bytes; a multiple of [`PIECE`](super::PIECE).
        len: Bytes,
    },
}

/// How a command's requests are sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// In this address space rather than in the channel's.
    pub pasid: Option<Pasid>,
    /// With Relaxed Ordering.
    pub relaxed: bool,
    /// Asks for translations, and sends translated requests.
    pub translate: bool,
}

/// Why a command was not done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum Status {
    /// There is no such operation, or one of its fields has no meaning.
    Invalid,
    /// It asks for more VRAM than there is.
    OutsideVram,
    /// It names VRAM whose bytes are elsewhere, or brings back what is not.
    Moved,
    /// One of its requests failed.
    Request,
    /// An address has no translation, or none for this.
    NotMapped,
    /// The value was not there after as many looks as were asked for.
    NotSeen,
    /// A status that this version does not know.
    Other(u32),
}

impl Status {
    pub(super) const fn code(self) -> u32 {
        match self {
            Self::Invalid => 1,
            Self::OutsideVram => 2,
            Self::Moved => 3,
            Self::Request => 4,
            Self::NotMapped => 5,
            Self::NotSeen => 6,
            Self::Other(code) => code,
        }
    }

    /// The status of a number; none for zero, which is success.
    pub(super) const fn of(code: u32) -> Option<Self> {
        Some(match code {
            0 => return None,
            1 => Self::Invalid,
            2 => Self::OutsideVram,
            3 => Self::Moved,
            4 => Self::Request,
            5 => Self::NotMapped,
            6 => Self::NotSeen,
            code => Self::Other(code),
        })
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Invalid => "the copy engine has no such command",
            Self::OutsideVram => "the command reaches past the end of VRAM",
            Self::Moved => "the bytes are not where the command looks for them",
            Self::Request => "a request of the copy engine failed",
            Self::NotMapped => "an address has no translation for this",
            Self::NotSeen => "the awaited value did not come",
            Self::Other(code) => return write!(f, "status {code}"),
        })
    }
}

const FIRST_IN_VRAM: u32 = 1;
const SECOND_IN_VRAM: u32 = 2;
const NARROW: u32 = 4;
const READ_BACK: u32 = 8;
const RELAXED: u32 = 16;
const WITH_PASID: u32 = 32;
const TRANSLATE: u32 = 64;

/// Writes a command.
pub(super) fn encode(operation: Operation, options: Options, tag: u64) -> Command {
    let flag = |set: bool, flag: u32| if set { flag } else { 0 };
    // First, second, third number, flags, and where to read back.
    let two = |from: Place, to: Place, third: u64| {
        let ((first_in, first), (second_in, second)) = (from.encode(), to.encode());
        (first, second, third, flag(first_in, FIRST_IN_VRAM) | flag(second_in, SECOND_IN_VRAM), 0)
    };
    let one = |first: u64, at: Place, third: u64| {
        let (second_in, second) = at.encode();
        (first, second, third, flag(second_in, SECOND_IN_VRAM), 0)
    };
    let (number, (first, second, third, flags, back)) = match operation {
        Operation::Copy { from, to, len } => (1, two(from, to, len.as_u64())),
        Operation::Fill { to, len, pattern } => (2, one(pattern, to, len.as_u64())),
        Operation::Release { to, value, wide, read_back } => {
            let (first, second, third, flags, _) = one(value, to, 0);
            let flags = flags | flag(!wide, NARROW) | flag(read_back.is_some(), READ_BACK);
            (3, (first, second, third, flags, read_back.map_or(0, BusAddr::as_u64)))
        }
        Operation::Acquire { at, value, looks } => (4, one(value, at, looks)),
        Operation::Add { to, value } => (5, one(value, Place::Bus(to), 0)),
        Operation::Evict { from, to, len } => (6, two(Place::Vram(from), Place::Bus(to), len.as_u64())),
        Operation::Restore { to, len } => (7, one(0, Place::Vram(to), len.as_u64())),
    };
    let flags = flags
        | flag(options.relaxed, RELAXED)
        | flag(options.pasid.is_some(), WITH_PASID)
        | flag(options.translate, TRANSLATE);
    Command::ZERO
        .with_word::<0>(number)
        .with_word::<4>(flags)
        .with_double::<8>(tag)
        .with_double::<16>(first)
        .with_double::<24>(second)
        .with_double::<32>(third)
        .with_word::<40>(options.pasid.map_or(0, Pasid::number))
        .with_double::<48>(back)
}

/// Reads a command; `None` where it is none.
pub(super) fn decode(command: &Command) -> Option<(Operation, Options)> {
    let flags = command.word::<4>();
    let is = |flag: u32| flags & flag != 0;
    let (first, third) = (command.double::<16>(), command.double::<32>());
    let from = Place::decode(is(FIRST_IN_VRAM), first);
    let to = Place::decode(is(SECOND_IN_VRAM), command.double::<24>());
    let len = Bytes::new(third);
    let operation = match (command.word::<0>(), from, to) {
        (1, from, to) => Operation::Copy { from, to, len },
        (2, _, to) => Operation::Fill { to, len, pattern: first },
        (3, _, to) => {
            let read_back = is(READ_BACK).then(|| BusAddr::new(command.double::<48>()));
            Operation::Release { to, value: first, wide: !is(NARROW), read_back }
        }
        (4, _, at) => Operation::Acquire { at, value: first, looks: third },
        (5, _, Place::Bus(to)) => Operation::Add { to, value: first },
        (6, Place::Vram(from), Place::Bus(to)) => Operation::Evict { from, to, len },
        (7, _, Place::Vram(to)) => Operation::Restore { to, len },
        _ => return None,
    };
    let pasid = match is(WITH_PASID) {
        true => Some(Pasid::new(command.word::<40>())?),
        false => None,
    };
    Some((operation, Options { pasid, relaxed: is(RELAXED), translate: is(TRANSLATE) }))
}
