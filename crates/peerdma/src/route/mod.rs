//! Whether a request arrives, and by which route.
//!
//! One view so far: [`kernel_view`], what Linux decides. Its answers carry
//! [`Reason`]s: which gate, which object, what was read, what would change it.
//! [`acs_boot`] predicts what the kernel's `pci=` parameters write into ACS
//! control registers.

pub mod acs_boot;
pub mod kernel_view;
mod reason;

pub use reason::{Gate, Reason};

use core::fmt;
use kernel_view::MapType;

/// A verdict in plain words.
///
/// While there is one view only, this is the kernel's map type; see
/// [`kernel_view`] for what it does not consider.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Verdict {
    /// Through the switch, with bus addresses.
    Direct,
    /// Up to the host bridge and down again.
    HostBridge,
    /// Not at all.
    Refused,
    /// The input cannot tell.
    Unknown,
}

impl From<MapType> for Verdict {
    fn from(map_type: MapType) -> Self {
        match map_type {
            MapType::BusAddr => Self::Direct,
            MapType::ThruHostBridge => Self::HostBridge,
            MapType::NotSupported => Self::Refused,
            MapType::Unknown => Self::Unknown,
        }
    }
}

impl Verdict {
    /// The word used in text and JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::HostBridge => "host_bridge",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
