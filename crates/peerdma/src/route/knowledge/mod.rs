//! What people and kernels know about hardware that no register tells.
//!
//! Whether a root complex forwards peer requests, which driver hands out which kind of
//! address, what a board's firmware does behind one's back: it was seen by somebody, on
//! some machine, and stands here with its source. [`observed`] is what was reported,
//! [`listed_by_linux`] what the kernel's own list and rule say, taken from the same table
//! that [`super::kernel_view`] decides by. [`about`] picks what concerns a pair.
//!
//! Knowledge stands beside a verdict and explains it. Only what it says about root
//! complexes counts in one, through [`super::root_complex`]; nothing here touches what
//! Linux decides. Rejected: a file that users extend. What is known of one machine alone
//! belongs in its platform file (`peer = "…"`), where it is stated and not guessed.

mod about;
mod linux;
mod observed;

pub use about::about;
pub(super) use about::{of_cpu, of_platform, of_root_complex};
pub use linux::listed_by_linux;
pub use observed::observed;

use crate::pcie::PciId;
use crate::topology::CpuVendor;
use alloc::borrow::Cow;
use core::fmt;
use core::ops::RangeInclusive;

/// What an entry is found by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Key {
    /// The device that stands for a host bridge: the first of its root bus.
    RootComplex(Ids),
    /// The CPU.
    Cpu {
        /// Vendor.
        vendor: CpuVendor,
        /// Families, both ends inclusive.
        families: RangeInclusive<u32>,
        /// Models; empty for all of those families.
        models: &'static [u32],
    },
    /// A port of a switch on the way.
    Switch(Ids),
    /// The driver bound to one end.
    Driver {
        /// Name, as the link in sysfs reads.
        name: &'static str,
        /// Which end.
        end: End,
    },
    /// Words in the name that a platform file gives its machine, for reports in which
    /// nobody noted an ID.
    PlatformName(&'static str),
}

/// Vendor and device of a PCI function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ids {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID; `None` for any of that vendor.
    pub device: Option<u16>,
}

impl Ids {
    /// Whether a function with this ID is meant.
    pub fn contains(&self, id: PciId) -> bool {
        self.vendor == id.vendor && self.device.is_none_or(|device| device == id.device)
    }
}

/// An end of a pair.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The function that sends requests: its driver imports.
    Initiator,
    /// The function whose memory is reached: its driver exports.
    Target,
}

/// What was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Finding {
    /// Peer requests are forwarded, reads and writes.
    Forwards,
    /// Writes arrive, reads fail.
    WritesOnly,
    /// Reads answer all ones and writes are lost.
    AllOnes,
    /// Peer requests are forwarded once Linux is patched not to refuse them.
    WorksWhenPatched,
    /// The driver hands out host-bridge addresses also where the route is a switch's own.
    NoBusAddresses,
    /// The driver hands out bus addresses also where an IOMMU translates.
    BusAddressesOnly,
    /// Firmware leaves something in another state than it says.
    FirmwareNote,
    /// A kernel behaves otherwise than the settings suggest.
    KernelNote,
    /// It arrives, but slowly.
    SpeedNote,
}

impl Finding {
    /// The word used in text and JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Forwards => "forwards",
            Self::WritesOnly => "writes_only",
            Self::AllOnes => "all_ones",
            Self::WorksWhenPatched => "works_when_patched",
            Self::NoBusAddresses => "no_bus_addresses",
            Self::BusAddressesOnly => "bus_addresses_only",
            Self::FirmwareNote => "firmware_note",
            Self::KernelNote => "kernel_note",
            Self::SpeedNote => "speed_note",
        }
    }

    /// Whether writes between root ports arrive, where that is what was found.
    pub const fn delivers_writes(self) -> Option<bool> {
        match self {
            Self::Forwards | Self::WorksWhenPatched | Self::WritesOnly => Some(true),
            Self::AllOnes => Some(false),
            _ => None,
        }
    }

    /// Whether reads between root ports return the target's bytes, where that is what was found.
    pub const fn delivers_reads(self) -> Option<bool> {
        match self {
            Self::Forwards | Self::WorksWhenPatched => Some(true),
            Self::WritesOnly | Self::AllOnes => Some(false),
            _ => None,
        }
    }
}

/// One thing known, and who says so.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// What it is found by.
    pub key: Key,
    /// What was found.
    pub finding: Finding,
    /// The finding in a sentence.
    pub what: Cow<'static, str>,
    /// Who says so: a public thread as `owner/repository#number`, or a kernel's file and function.
    pub source: Cow<'static, str>,
    /// On what it was seen: a kernel, a date, a setting.
    pub checked: Cow<'static, str>,
}

impl fmt::Display for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.device {
            Some(device) => write!(f, "{}", PciId { vendor: self.vendor, device }),
            None => write!(f, "{:04x}:*", self.vendor),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RootComplex(ids) => write!(f, "root complex {ids}"),
            Self::Switch(ids) => write!(f, "switch {ids}"),
            Self::Driver { name, end: End::Target } => write!(f, "driver {name} of the target"),
            Self::Driver { name, end: End::Initiator } => write!(f, "driver {name} of the initiator"),
            Self::PlatformName(words) => write!(f, "platform name with {words:?}"),
            Self::Cpu { vendor, families, models } => {
                write!(f, "CPU {vendor}")?;
                match (*families.start(), *families.end()) {
                    (0, u32::MAX) => {}
                    (from, u32::MAX) => write!(f, " family {from:#x} and later")?,
                    (from, to) if from == to => write!(f, " family {from:#x}")?,
                    (from, to) => write!(f, " family {from:#x} to {to:#x}")?,
                }
                for (index, model) in models.iter().enumerate() {
                    write!(f, "{} {model:#x}", if index == 0 { " model" } else { " or" })?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({}; {})", self.key, self.what, self.source, self.checked)
    }
}
