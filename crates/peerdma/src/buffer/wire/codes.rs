//! Closed sets that cross between processes, each value with the number that stands for it.
//!
//! The numbers are written out here and never follow from the order of an enumeration, since a
//! peer may have been built from another version of this library.

use super::super::life::{Disturbance, Phase};
use super::super::{Control, Enforcement, Lifetime};
use super::field::{BadField, Field, Reader, Shape};
use crate::access::Prot;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use bitflags::bitflags;
use core::fmt;

/// Where the bytes of a buffer lie.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Residency {
    /// Memory of the CPU.
    Ram,
    /// Memory of a device, behind one of its BARs.
    Device,
}

impl fmt::Display for Residency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ram => "ram",
            Self::Device => "device",
        })
    }
}

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

/// A number and what it stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Code {
    /// The number; of a set of flags its bit, as a mask.
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
    Residency in RESIDENCY, "residency" { Ram = 0, "ram"; Device = 1, "device"; }
    Descriptors in DESCRIPTORS, "descriptors" { None = 0, "none"; Memory = 1, "memory"; MemoryAndControl = 2, "memory and control"; }
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

macro_rules! flags {
    ($($(#[doc = $doc:literal])+ $set:ident in $table:ident, $name:literal { $($(#[doc = $fdoc:literal])+ $flag:ident = $bit:literal, $word:literal;)+ })+) => {$(
        bitflags! {
            $(#[doc = $doc])+
            #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
            pub struct $set: u8 {
                $($(#[doc = $fdoc])+ const $flag = $bit;)+
            }
        }

        const $table: Coded = Coded { name: $name, codes: &[$(Code { number: $bit, word: $word }),+] };

        impl fmt::Display for $set {
            /// Writes words joined by `+`, or `nothing`.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let words: Vec<String> = $table
                    .codes
                    .iter()
                    .filter(|code| u64::from(self.bits()) & code.number != 0)
                    .map(|code| code.word.to_string())
                    .collect();
                f.write_str(if words.is_empty() { "nothing" } else { "" })?;
                f.write_str(&words.join("+"))
            }
        }

        impl Field for $set {
            const SHAPE: Shape = Shape::fixed($name, 1);

            fn put(&self, out: &mut Vec<u8>) {
                self.bits().put(out);
            }

            fn take(input: &mut Reader<'_>) -> Result<Self, BadField> {
                let bits = u8::take(input)?;
                Self::from_bits(bits).ok_or(BadField::Meaningless(u64::from(bits)))
            }
        }
    )+};
}

flags! {
    /// What may happen to a buffer while it is mapped, and what its exporter can prevent.
    Stays in STAYS, "stays" {
        /// It may be taken away.
        MAY_BE_REVOKED = 0x1, "may-be-revoked";
        /// Its bytes may move.
        MAY_MOVE = 0x2, "may-move";
        /// The exporter can keep the bytes from moving while somebody needs that.
        CAN_PIN = 0x4, "can-pin";
    }
    /// Which lifetimes an importer can take.
    Takes in TAKES, "takes" {
        /// Mappings that stay as long as it wants.
        PINNED = 0x1, "pinned";
        /// Mappings that it must give up when told.
        REVOCABLE = 0x2, "revocable";
        /// Mappings whose bytes may be elsewhere after any notice.
        MOVABLE = 0x4, "movable";
    }
    /// Ways to reach the memory of a buffer, which an exporter offers and an importer needs.
    Need in NEED, "need" {
        /// By the CPU.
        CPU = 0x1, "cpu";
        /// By page frame numbers, as a stage-2 table takes them.
        PFN = 0x2, "pfn";
        /// By a device.
        DMA = 0x4, "dma";
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
pub const CODES: &[Coded] =
    &[ENFORCEMENT, LIFETIME, CONTROL, PROT, RESIDENCY, DESCRIPTORS, ENDING, PHASE, DISTURBANCE, STAYS, TAKES, NEED];
