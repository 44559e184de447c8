//! How ports and functions hang together, and what they are called.

use super::Buses;
use crate::platform::words::PortKind;
use peerdma::pcie::PciAddr;

/// What is wrong with how ports and functions hang together.
///
/// Fields named `line` are where the other party to a conflict stands.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TreeProblem {
    /// A name that a command line could not take.
    #[error("{name:?} is not a name; use a letter and then up to 63 letters, digits, `_`, `-` or `.`")]
    Name {
        /// The name.
        name: String,
    },
    /// A name given twice.
    #[error(
        "{name} is the name of something on line {line} already; host bridges, ports and functions share one set of names"
    )]
    NameTaken {
        /// The name.
        name: String,
        /// Line of the first use.
        line: usize,
    },
    /// A parent that does not exist.
    #[error("nothing is called {parent:?}; name a [[host_bridge]] or a [[port]]")]
    NoSuchParent {
        /// The name looked for.
        parent: String,
    },
    /// A parent of a kind that cannot have this child.
    #[error("{child} hangs below {wanted}, but {parent} is {found}")]
    WrongParent {
        /// What hangs there.
        child: &'static str,
        /// What it may hang below.
        wanted: &'static str,
        /// The parent's name.
        parent: String,
        /// What the parent is.
        found: &'static str,
    },
    /// Not the address of a function.
    #[error("{text:?} is not a PCI address; write bus:device.function in hexadecimal, such as \"03:00.0\"")]
    NotAnAddress {
        /// The text.
        text: String,
    },
    /// A domain that is not the host bridge's segment.
    #[error(
        "{address} is not in segment {segment:#x} of host bridge {host_bridge}; leave the domain out or write that one"
    )]
    WrongSegment {
        /// The address as written.
        address: PciAddr,
        /// The host bridge's segment.
        segment: u32,
        /// The host bridge.
        host_bridge: String,
    },
    /// An address outside the host bridge's buses.
    #[error("{address} is outside buses {buses} of host bridge {host_bridge}")]
    OutsideBuses {
        /// The address.
        address: PciAddr,
        /// The host bridge's buses.
        buses: Buses,
        /// The host bridge.
        host_bridge: String,
    },
    /// Right below a host bridge but not on its root bus.
    #[error(
        "bus {bus:02x} is not the root bus of host bridge {host_bridge}, which is the first of its buses, {root:02x}"
    )]
    NotOnRootBus {
        /// The bus found.
        bus: u8,
        /// The root bus.
        root: u8,
        /// The host bridge.
        host_bridge: String,
    },
    /// A bus number that is not above the parent's.
    #[error(
        "bus {bus:02x} cannot be below {parent}, which sits on bus {parent_bus:02x} itself; numbers grow downwards"
    )]
    NotBelow {
        /// The bus found.
        bus: u8,
        /// The parent.
        parent: String,
        /// The parent's own bus.
        parent_bus: u8,
    },
    /// Two children of one port on different buses.
    #[error("bus {bus:02x} is not the one below {parent}: {sibling} (line {line}) puts it at {sibling_bus:02x}")]
    OtherBusThanSibling {
        /// The bus found.
        bus: u8,
        /// The port.
        parent: String,
        /// The child that came first.
        sibling: String,
        /// Its bus.
        sibling_bus: u8,
        /// Its line.
        line: usize,
    },
    /// Two ports of one parent that lead to the same buses.
    #[error("{port} leads to buses {buses}, {other} (line {line}) to {other_buses}; a bus is below one of them only")]
    BusesCross {
        /// One port.
        port: String,
        /// Buses below it.
        buses: Buses,
        /// The other port.
        other: String,
        /// Buses below that.
        other_buses: Buses,
        /// Its line.
        line: usize,
    },
    /// Two functions at one address.
    #[error("{address} is the address of {other} (line {line}) already")]
    AddressTaken {
        /// The address.
        address: PciAddr,
        /// Who has it.
        other: String,
        /// Its line.
        line: usize,
    },
    /// Something declared where `first_device` stands.
    #[error("{address} is where host bridge {host_bridge} has its first_device (line {line}); remove one of the two")]
    FirstDeviceThere {
        /// The address.
        address: PciAddr,
        /// The host bridge.
        host_bridge: String,
        /// Line of `first_device`.
        line: usize,
    },
}

impl TreeProblem {
    /// What a port is, with its article.
    pub(in crate::platform) fn port_article(kind: PortKind) -> &'static str {
        match kind {
            PortKind::Root => "a root port",
            PortKind::Upstream => "an upstream port",
            PortKind::Downstream => "a downstream port",
            PortKind::PciePci => "a PCIe-to-PCI bridge",
        }
    }
}
