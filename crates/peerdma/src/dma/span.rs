//! What a device is handed: addresses, each of one kind.
//!
//! A span is a stretch of a mapping that the device sees contiguously: an address of a
//! kind, a length, whether memory or device memory lies there, and whether accesses are
//! snooped. Nothing here leads back from a device's address to where it goes; only a
//! walker of page tables translates.

use crate::access::Prot;
use crate::addr::{BusAddr, Bytes, Iova, PhysAddr};
use crate::topology::HostBridgeId;
use core::fmt;

/// An address as a device puts it into a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum DeviceAddress {
    /// Compared with windows and BARs below this host bridge; never translated.
    Bus {
        /// The address.
        address: BusAddr,
        /// The host bridge below which it means something; `None` where the input does not tell it.
        bridge: Option<HostBridgeId>,
    },
    /// Translated by the IOMMU in front of the device.
    Iova(Iova),
    /// As the CPU counts; goes up untranslated.
    CpuPhysical(PhysAddr),
}

impl DeviceAddress {
    /// The number, for descriptors and registers of the device.
    pub const fn as_u64(self) -> u64 {
        match self {
            Self::Bus { address, .. } => address.as_u64(),
            Self::Iova(address) => address.as_u64(),
            Self::CpuPhysical(address) => address.as_u64(),
        }
    }

    /// The word used in text and JSON: `bus`, `iova`, `cpu_physical`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Bus { .. } => "bus",
            Self::Iova(_) => "iova",
            Self::CpuPhysical(_) => "cpu_physical",
        }
    }

    /// The address `len` further, of the same kind; `None` past the end.
    #[inline]
    pub const fn checked_add(self, len: Bytes) -> Option<Self> {
        Some(match self {
            Self::Bus { address, bridge } => match address.checked_add(len) {
                Some(address) => Self::Bus { address, bridge },
                None => return None,
            },
            Self::Iova(address) => match address.checked_add(len) {
                Some(address) => Self::Iova(address),
                None => return None,
            },
            Self::CpuPhysical(address) => match address.checked_add(len) {
                Some(address) => Self::CpuPhysical(address),
                None => return None,
            },
        })
    }
}

impl fmt::Display for DeviceAddress {
    /// Writes `iova 0x1000`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:#x}", self.word(), self.as_u64())
    }
}

/// What lies behind a span.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Behind {
    /// Memory.
    Memory,
    /// Device memory: never cached, writes are not merged.
    Mmio,
}

/// A stretch of a mapping that the device sees contiguously.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Span {
    /// Where it starts in the mapping, counted in bytes that were linked.
    pub at: Bytes,
    /// What the device is handed.
    pub address: DeviceAddress,
    /// Its length.
    pub len: Bytes,
    /// What lies there.
    pub behind: Behind,
    /// Whether the device's accesses are snooped.
    pub snooped: bool,
    /// What the device may do there; where nothing translates, what it was said to do.
    pub prot: Prot,
    /// Whether it is a copy, to be synchronised before and after the device uses it.
    pub bounced: bool,
}

impl Span {
    /// Whether `next` continues this span as one.
    #[inline]
    pub(super) fn continues(&self, next: &Self) -> bool {
        self.behind == next.behind
            && self.snooped == next.snooped
            && self.bounced == next.bounced
            && self.prot == next.prot
            && self.address.checked_add(self.len) == Some(next.address)
    }
}
