//! What a device may do with memory, and what sort of memory it is.
//!
//! Chunks carry the sort, mappings both, and page tables have bits for them, each
//! format for some. Nobody drops what cannot be expressed: it is refused by name where
//! something is to be mapped.
//!
//! Not here: who owns the memory ([`chunk`](crate::chunk)).

use core::fmt;

/// What a device may do through a mapping.
///
/// A mapping without any access is not a value of this type, as neither VFIO nor
/// iommufd maps one (both answer EINVAL).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Prot {
    /// The device reads.
    Read,
    /// The device writes; whether it can read too is [`WriteOnly`](crate::dma::WriteOnly)'s question.
    Write,
    /// The device reads and writes.
    ReadWrite,
}

impl Prot {
    /// Whether reads are asked for.
    pub const fn reads(self) -> bool {
        matches!(self, Self::Read | Self::ReadWrite)
    }

    /// Whether writes are asked for.
    pub const fn writes(self) -> bool {
        matches!(self, Self::Write | Self::ReadWrite)
    }

    /// What this and `other` both permit; `None` if that is nothing.
    #[must_use]
    pub const fn within(self, other: Self) -> Option<Self> {
        match (self.reads() && other.reads(), self.writes() && other.writes()) {
            (true, true) => Some(Self::ReadWrite),
            (true, false) => Some(Self::Read),
            (false, true) => Some(Self::Write),
            (false, false) => None,
        }
    }
}

impl fmt::Display for Prot {
    /// Writes `r`, `w` or `rw`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "r",
            Self::Write => "w",
            Self::ReadWrite => "rw",
        })
    }
}

/// What a device does with an address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Access {
    /// It reads.
    Read,
    /// It writes.
    Write,
}

impl Access {
    /// Whether a mapping of this protection lets it happen.
    pub const fn is_permitted_by(self, prot: Prot) -> bool {
        match self {
            Self::Read => prot.reads(),
            Self::Write => prot.writes(),
        }
    }
}

impl fmt::Display for Access {
    /// Writes `read` or `write`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
        })
    }
}

bitflags::bitflags! {
    /// What the caller knows or wants about the memory behind a mapping.
    ///
    /// Empty means memory: cacheable, coherent, reachable by every context of the device.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
    pub struct MemAttrs: u32 {
        /// The source is device memory: a BAR, never to be cached or speculated on.
        const MMIO = 0x1;
        /// Only privileged contexts of the device may use the mapping.
        const PRIVILEGED = 0x2;
        /// The device's accesses are not snooped, as those of a non-coherent initiator; whoever
        /// shares the memory with it has to flush and invalidate caches.
        const NOT_SNOOPED = 0x4;
        /// The device must not fetch instructions from it.
        const NO_EXECUTE = 0x8;
        /// Attributes of later versions are kept, and refused by spaces that do not know them.
        const _ = !0;
    }
}

impl fmt::Display for MemAttrs {
    /// Writes `memory`, or names joined by `+`, as in `mmio+privileged`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("memory");
        }
        let names = [
            ("mmio", Self::MMIO),
            ("privileged", Self::PRIVILEGED),
            ("not-snooped", Self::NOT_SNOOPED),
            ("no-execute", Self::NO_EXECUTE),
        ];
        let known = names.iter().fold(Self::empty(), |known, (_, bit)| known.union(*bit));
        let mut separator = "";
        for (name, bit) in names {
            if self.contains(bit) {
                write!(f, "{separator}{name}")?;
                separator = "+";
            }
        }
        match self.difference(known) {
            unknown if unknown.is_empty() => Ok(()),
            unknown => write!(f, "{separator}{:#x}", unknown.bits()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn attributes_of_later_versions_are_kept_and_shown() {
        let attrs = MemAttrs::from_bits_retain(0x41);
        assert_eq!(attrs.bits(), 0x41);
        assert_eq!(attrs.to_string(), "mmio+0x40");
        assert_eq!(MemAttrs::empty().to_string(), "memory");
    }

    #[test]
    fn every_protection_gives_the_device_something_to_do() {
        for prot in [Prot::Read, Prot::Write, Prot::ReadWrite] {
            assert!(prot.reads() || prot.writes(), "{prot}");
        }
    }
}
