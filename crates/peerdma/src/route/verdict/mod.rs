//! The verdict: both views, the initiator's domain and the sizes of packets in one answer.
//!
//! The order in which things decide:
//!
//! 1. Linux refuses, or the initiator cannot form the address, or the hardware is known
//!    to lose both reads and writes: [`Verdict::Refused`].
//! 2. Linux's answer is not known, or the hardware's is for reads and writes alike:
//!    [`Verdict::Unknown`].
//! 3. Else the route that the address leads to. Linux hands a kernel driver bus addresses
//!    on a switch-direct pair; whoever opened the initiator through VFIO hands out
//!    IOVAs, which lead through the host bridge whatever Linux would decide.
//!
//! Reads, writes and atomics have permissions of their own, so a root complex that only
//! takes writes is `host_bridge` with `read` refused. Where the IOMMU mode is not told the
//! address is not known either; the verdict then is that of the better mode, because a
//! missing mode hides the address and not the route.
//!
//! ```
//! use peerdma::route::{Judge, Target, Verdict};
//! # use peerdma::topology::{Builder, FunctionInfo, Position};
//! # let mut builder = Builder::new();
//! # for address in ["00:01.0", "00:02.0"] {
//! #     builder.function(FunctionInfo::new(address.parse().unwrap(), Position::RootBus { bus: 0 }));
//! # }
//! # let topology = builder.build();
//! let judge = Judge::new(&topology);
//! let (nic, gpu) = (topology.at("00:01.0".parse().unwrap()).unwrap(), topology.at("00:02.0".parse().unwrap()).unwrap());
//! let pair = judge.judge(nic, &Target::largest_bar(&topology, gpu));
//! // Nothing tells the CPU, so nobody knows what its host bridge forwards.
//! assert_eq!(pair.verdict, Verdict::Unknown);
//! ```

mod address;
mod explain;
mod judge;
mod views;

pub use address::{Address, AddressKind};
pub(in crate::route) use explain::clash_reason;
pub use judge::{Judge, PairVerdict};
pub use views::Difference;

use super::kernel_view::MapType;
use core::fmt;

/// A verdict in plain words.
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

impl From<MapType> for Verdict {
    /// Linux's decision alone, in plain words.
    fn from(map_type: MapType) -> Self {
        match map_type {
            MapType::BusAddr => Self::Direct,
            MapType::ThruHostBridge => Self::HostBridge,
            MapType::NotSupported => Self::Refused,
            MapType::Unknown => Self::Unknown,
        }
    }
}

/// Whether one kind of request gets through.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Permission {
    /// It does.
    Permitted,
    /// It does not.
    Refused,
    /// The input cannot tell, or the specification leaves it open.
    Unknown,
}

impl Permission {
    /// The word used in text and JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Permitted => "permitted",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }

    /// Both needed: refused weighs more than unknown, unknown more than permitted.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Refused, _) | (_, Self::Refused) => Self::Refused,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::Permitted, Self::Permitted) => Self::Permitted,
        }
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What the initiator wants to do with the target.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Need {
    /// Read it.
    Read,
    /// Write it.
    Write,
    /// Both.
    Both,
}
