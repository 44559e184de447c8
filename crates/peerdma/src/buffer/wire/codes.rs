//! Closed sets that cross between processes, each value with the number that stands for it.
//!
//! The numbers are written out here and never follow from the order of an enumeration, since a
//! peer may have been built from another version of this library.

use super::super::life::{Disturbance, Phase};
use super::super::pins::RegionId;
use super::super::terms::{Contiguity, Methods, Moves, Place, Stays};
use super::super::{Control, Enforcement, Lifetime};
use super::field::{BadField, Field, Reader, Shape};
use crate::access::Prot;
use crate::topology::IommuMode;
use alloc::vec::Vec;
use core::fmt;

/// Why a side says goodbye.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Ending {
    /// It has done what it wanted.
    Done,
    /// Bytes came that are no message.
    Malformed,
    /// A message came that may not be said at that time, or not by that side.
    OutOfTurn,
    /// A message came that claims what cannot be.
    Untrue,
    /// More came than was asked for, or answers are not read.
    Flood,
    /// Descriptors came where none belong, or were missing.
    Descriptors,
    /// Nothing came in time.
    Late,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Done => "done",
            Self::Malformed => "malformed",
            Self::OutOfTurn => "out-of-turn",
            Self::Untrue => "untrue",
            Self::Flood => "flood",
            Self::Descriptors => "descriptors",
            Self::Late => "late",
        })
    }
}

/// How many descriptors come with a message.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Descriptors {
    /// None.
    None,
    /// One, of the memory.
    Memory,
    /// Two, of the memory and of the control channel, in this order.
    MemoryAndControl,
}

impl Descriptors {
    /// How many.
    pub const fn count(self) -> usize {
        match self {
            Self::None => 0,
            Self::Memory => 1,
            Self::MemoryAndControl => 2,
        }
    }
}

impl fmt::Display for Descriptors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Memory => "memory",
            Self::MemoryAndControl => "memory and control",
        })
    }
}

/// What the descriptor of the memory is, and so who can take the memory from a process that has mapped it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Carrier {
    /// A memfd that neither shrinks nor grows: what is mapped stays readable whatever becomes of the exporter.
    Memfd,
    /// An open VFIO device, in which a BAR is a range. It is all of the device: whoever has it can reset it too, and what
    /// is mapped of it does not answer while the device's memory is off, asleep or being reset.
    Device,
}

/// A number and what it stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Code {
    /// The number; of `methods` its bit, as a mask.
    pub number: u64,
    /// The word.
    pub word: &'static str,
}

/// One closed set: its name in [`Shape::name`] and its values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Coded {
    /// The name.
    pub name: &'static str,
    /// Every value; any other number is refused.
    pub codes: &'static [Code],
}

macro_rules! coded {
    ($($set:ident in $table:ident, $name:literal { $($value:ident = $number:literal, $word:literal;)+ })+) => {$(
        const $table: Coded = Coded { name: $name, codes: &[$(Code { number: $number, word: $word }),+] };

        impl Field for $set {
            const SHAPE: Shape = Shape::fixed($name, 1);

            fn put(&self, out: &mut Vec<u8>) {
                let number: u8 = match self { $(Self::$value => $number),+ };
                number.put(out);
            }

            fn take(input: &mut Reader<'_>) -> Result<Self, BadField> {
                match u8::take(input)? {
                    $($number => Ok(Self::$value),)+
                    other => Err(BadField::Meaningless(u64::from(other))),
                }
            }
        }

        #[cfg(test)]
        impl Listed for $set {
            fn listed() -> Vec<(Self, &'static str)> {
                Vec::from([$((Self::$value, $word)),+])
            }
        }
    )+};
}

/// Every value of a coded set with its word, for tests.
#[cfg(test)]
pub(super) trait Listed: Sized {
    fn listed() -> Vec<(Self, &'static str)>;
}

coded! {
    Enforcement in ENFORCEMENT, "enforcement" { None = 0, "none"; Cooperative = 1, "cooperative"; Kernel = 2, "kernel"; }
    Lifetime in LIFETIME, "lifetime" { Pinned = 0, "pinned"; Revocable = 1, "revocable"; Movable = 2, "movable"; }
    Control in CONTROL, "control" { Use = 0, "use"; Full = 1, "full"; }
    Prot in PROT, "prot" { Read = 1, "r"; Write = 2, "w"; ReadWrite = 3, "rw"; }
    Contiguity in CONTIGUITY, "contiguity" { Scattered = 0, "scattered"; AsSeen = 1, "as_seen"; OneRange = 2, "one_range"; }
    IommuMode in IOMMU, "iommu" { Translated = 0, "translated"; Identity = 1, "identity"; None = 2, "none"; }
    Descriptors in DESCRIPTORS, "descriptors" { None = 0, "none"; Memory = 1, "memory"; MemoryAndControl = 2, "memory and control"; }
    Carrier in CARRIER, "carrier" { Memfd = 0, "memfd"; Device = 1, "device"; }
    Ending in ENDING, "ending" {
        Done = 0, "done"; Malformed = 1, "malformed"; OutOfTurn = 2, "out-of-turn"; Untrue = 3, "untrue"; Flood = 4, "flood";
        Descriptors = 5, "descriptors"; Late = 6, "late";
    }
    Phase in PHASE, "phase" {
        Live = 0, "live"; Invalidating = 1, "invalidating"; Draining = 2, "draining"; Revoked = 3, "revoked";
        Moving = 4, "moving"; Restored = 5, "restored"; Dead = 6, "dead";
    }
    Disturbance in DISTURBANCE, "disturbance" {
        DecodeOff = 0, "decode-off"; PowerDown = 1, "power-down"; Reset = 2, "reset"; HotReset = 3, "hot-reset";
        FunctionReset = 4, "function-reset"; Close = 5, "close"; Removal = 6, "removal"; Lock = 7, "lock";
        Permission = 8, "permission"; BarMove = 9, "bar-move"; Move = 10, "move";
    }
}

const METHODS: Coded = Coded {
    name: "methods",
    codes: &[Code { number: 1, word: "dma" }, Code { number: 2, word: "cpu" }, Code { number: 4, word: "frames" }],
};

impl Field for Methods {
    const SHAPE: Shape = Shape::fixed("methods", 1);

    fn put(&self, out: &mut Vec<u8>) {
        let bit = |method, bit: u8| if self.contains(method) { bit } else { 0 };
        (bit(Self::DMA, 1) | bit(Self::CPU, 2) | bit(Self::FRAMES, 4)).put(out);
    }

    fn take(input: &mut Reader<'_>) -> Result<Self, BadField> {
        let bits = u8::take(input)?;
        if bits & !0x7 != 0 {
            return Err(BadField::Meaningless(u64::from(bits)));
        }
        let method = |bit: u8, method| if bits & bit != 0 { method } else { Self::empty() };
        Ok(method(1, Self::DMA) | method(2, Self::CPU) | method(4, Self::FRAMES))
    }
}

const STAYS: Coded = Coded {
    name: "stays",
    codes: &[
        Code { number: 0, word: "never leaves" },
        Code { number: 1, word: "may be revoked" },
        Code { number: 2, word: "may move unless pinned" },
        Code { number: 3, word: "may move unless pinned, and may be revoked" },
        Code { number: 4, word: "may move" },
        Code { number: 5, word: "may move, and may be revoked" },
    ],
};

impl Field for Stays {
    const SHAPE: Shape = Shape::fixed("stays", 1);

    fn put(&self, out: &mut Vec<u8>) {
        let moves: u8 = match self.moves {
            Moves::Never => 0,
            Moves::UnlessPinned => 2,
            Moves::AtWill => 4,
        };
        (moves | u8::from(self.revoked)).put(out);
    }

    fn take(input: &mut Reader<'_>) -> Result<Self, BadField> {
        let number = u8::take(input)?;
        let moves = match number & !1 {
            0 => Moves::Never,
            2 => Moves::UnlessPinned,
            4 => Moves::AtWill,
            _ => return Err(BadField::Meaningless(u64::from(number))),
        };
        Ok(Self { moves, revoked: number & 1 == 1 })
    }
}

#[cfg(test)]
impl Listed for Stays {
    fn listed() -> Vec<(Self, &'static str)> {
        let decode = |code: &Code| Some((Self::take(&mut Reader::new(&[code.number as u8])).ok()?, code.word));
        STAYS.codes.iter().filter_map(decode).collect()
    }
}

const PLACE: Coded = Coded {
    name: "place",
    codes: &[
        Code { number: 0, word: "ram; the four bytes that follow are zero" },
        Code { number: 1, word: "device; a `u32` follows, the exporter's number of the region" },
    ],
};

impl Field for Place {
    const SHAPE: Shape = Shape::fixed("place", 5);

    fn put(&self, out: &mut Vec<u8>) {
        let (kind, region): (u8, u32) = match self {
            Self::Ram => (0, 0),
            Self::Device(region) => (1, region.number()),
        };
        kind.put(out);
        region.put(out);
    }

    fn take(input: &mut Reader<'_>) -> Result<Self, BadField> {
        match (u8::take(input)?, u32::take(input)?) {
            (0, 0) => Ok(Self::Ram),
            (0, region) => Err(BadField::Meaningless(u64::from(region))),
            (1, region) => Ok(Self::Device(RegionId::new(region))),
            (kind, _) => Err(BadField::Meaningless(u64::from(kind))),
        }
    }
}

/// What a side can do beyond its version; a bit that the other side does not know has no effect.
///
/// Version 1 defines none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub struct Features(u32);

impl Features {
    /// None.
    pub const NONE: Self = Self(0);

    /// The features of these bits, as they came from another process.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The bits.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// What both sides can do.
    pub const fn common(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl Field for Features {
    const SHAPE: Shape = Shape::fixed("u32", 4);

    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }

    fn take(input: &mut Reader<'_>) -> Result<Self, BadField> {
        Ok(Self(u32::take(input)?))
    }
}

/// Every closed set, for the documentation.
pub const CODES: &[Coded] = &[
    ENFORCEMENT,
    LIFETIME,
    CONTROL,
    PROT,
    CONTIGUITY,
    IOMMU,
    DESCRIPTORS,
    CARRIER,
    ENDING,
    PHASE,
    DISTURBANCE,
    METHODS,
    STAYS,
    PLACE,
];
