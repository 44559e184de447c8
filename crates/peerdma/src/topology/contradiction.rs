//! What an input says against itself.

use crate::pcie::PciAddr;
use core::fmt;

/// Two parts of an input that cannot both be true.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Contradiction {
    /// A function is described more than once, differently.
    DescribedTwice(PciAddr),
    /// Several bridges claim the same secondary bus.
    BusClaimedTwice {
        /// One of them.
        first: PciAddr,
        /// Another.
        second: PciAddr,
        /// The bus.
        bus: u8,
    },
    /// A function is said to hang below a bridge that is not there.
    BridgeMissing {
        /// The function.
        function: PciAddr,
        /// The bridge.
        bridge: PciAddr,
    },
    /// A function is said to hang below a bridge that sits on no lower bus of its domain.
    NotAbove {
        /// The function.
        function: PciAddr,
        /// The bridge.
        bridge: PciAddr,
    },
    /// A function hangs below itself.
    HangsBelowItself(PciAddr),
    /// A virtual function's physical function is not there or is virtual itself.
    PhysicalFunctionMissing {
        /// The virtual function.
        function: PciAddr,
        /// What it names as its physical function.
        physical: PciAddr,
    },
    /// A bridge's secondary bus is not above the bus it sits on.
    SecondaryNotBelow {
        /// The bridge.
        bridge: PciAddr,
        /// Its secondary bus.
        bus: u8,
    },
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DescribedTwice(address) => write!(f, "{address} is described twice, differently"),
            Self::BusClaimedTwice { first, second, bus } => {
                write!(f, "{first} and {second} both have bus {bus:02x} as their secondary bus")
            }
            Self::BridgeMissing { function, bridge } => {
                write!(f, "{function} is said to hang below {bridge}, which is not in the input")
            }
            Self::NotAbove { function, bridge } => {
                write!(f, "{function} is said to hang below {bridge}, which sits on no lower bus of its domain")
            }
            Self::HangsBelowItself(address) => write!(f, "{address} is said to hang below itself"),
            Self::PhysicalFunctionMissing { function, physical } => {
                write!(f, "{function} names {physical} as its physical function, which cannot be one")
            }
            Self::SecondaryNotBelow { bridge, bus } => {
                write!(f, "{bridge} has bus {bus:02x} as its secondary bus, which is not above the bus it sits on")
            }
        }
    }
}
