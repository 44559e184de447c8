//! What was done wrongly, and where.

use crate::access::Prot;
use crate::addr::Bytes;
use crate::dma::span::DeviceAddress;
use core::fmt;
use core::panic::Location;

/// A place in the program, as `#[track_caller]` gives it.
pub type Place = &'static Location<'static>;

/// `len` bytes from an address of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct DeviceRange {
    /// The first byte.
    pub address: DeviceAddress,
    /// How many there are.
    pub len: Bytes,
}

impl fmt::Display for DeviceRange {
    /// Writes `iova 0x1000 (4 KiB)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.address, self.len)
    }
}

/// A mapping used wrongly: which, where it was made, and where it was misused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Misuse {
    /// A range that is mapped was mapped again.
    #[error("{range} was mapped at {at} while {mapping}, mapped at {mapped_at}, is there; unmap that first")]
    MappedTwice {
        /// What was to be mapped.
        range: DeviceRange,
        /// Where.
        at: Place,
        /// What is mapped there.
        mapping: DeviceRange,
        /// Where that was mapped.
        mapped_at: Place,
    },
    /// A range that was unmapped was unmapped again.
    #[error(
        "{range} was unmapped at {at}, but had been unmapped at {unmapped_at} (mapped at {mapped_at}); unmap it once"
    )]
    UnmappedTwice {
        /// What was to be unmapped.
        range: DeviceRange,
        /// Where.
        at: Place,
        /// Where it was mapped.
        mapped_at: Place,
        /// Where it had been unmapped.
        unmapped_at: Place,
    },
    /// A range was used after it was unmapped.
    #[error(
        "{range} was used at {at} after it was unmapped at {unmapped_at} (mapped at {mapped_at}); wait for the device before unmapping"
    )]
    UsedAfterUnmap {
        /// What was used.
        range: DeviceRange,
        /// Where.
        at: Place,
        /// Where it was mapped.
        mapped_at: Place,
        /// Where it was unmapped.
        unmapped_at: Place,
    },
    /// A device did what the mapping does not let it do.
    #[error(
        "{range} was accessed ({access}) at {at}, but {mapping} was mapped for {prot} at {mapped_at}; map it for what the device does"
    )]
    WrongDirection {
        /// What was used.
        range: DeviceRange,
        /// What the device did.
        access: Prot,
        /// Where.
        at: Place,
        /// The mapping.
        mapping: DeviceRange,
        /// What it was mapped for.
        prot: Prot,
        /// Where.
        mapped_at: Place,
    },
    /// An access or an unmapping that is only partly in a mapping.
    #[error("{range} at {at} goes beyond {mapping}, mapped at {mapped_at}; stay inside one mapping")]
    Outside {
        /// What was used or to be unmapped.
        range: DeviceRange,
        /// Where.
        at: Place,
        /// A mapping that it touches.
        mapping: DeviceRange,
        /// Where that was mapped.
        mapped_at: Place,
    },
    /// Nothing is mapped there, nor was as far back as is remembered.
    #[error("{range} at {at} is not mapped{}", Below(below))]
    NotMapped {
        /// What was used or to be unmapped.
        range: DeviceRange,
        /// Where.
        at: Place,
        /// The next mapping below, which may have been overrun, and where it was mapped.
        below: Option<(DeviceRange, Place)>,
    },
    /// Still mapped when nothing should be.
    #[error("{mapping}, mapped for {prot} at {mapped_at}, was never unmapped; unmap it before its owner goes")]
    Leaked {
        /// The mapping.
        mapping: DeviceRange,
        /// What it was mapped for.
        prot: Prot,
        /// Where.
        mapped_at: Place,
    },
}

struct Below<'a>(&'a Option<(DeviceRange, Place)>);

impl fmt::Display for Below<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some((mapping, at)) => write!(f, "; the next mapping below is {mapping}, mapped at {at}"),
            None => f.write_str("; map it first"),
        }
    }
}
