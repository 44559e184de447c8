//! What registers of ports and functions cannot hold.

use peerdma::addr::Bytes;
use peerdma::pcie::acs::AcsBits;

/// What is wrong with a BAR, with ACS or with another register of a port or function.
///
/// Fields named `line` are where the other party to a conflict stands.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterProblem {
    /// Not a payload size of PCI Express.
    #[error("{key} = {found} is not a payload size; it is 128, 256, 512, 1024, 2048 or 4096 bytes")]
    Payload {
        /// `mps` or `mrrs`.
        key: &'static str,
        /// The number found.
        found: i128,
    },
    /// Not the name of a driver.
    #[error("{driver:?} is not the name of a driver; write it as the link in sysfs reads, such as \"vfio-pci\"")]
    Driver {
        /// The text.
        driver: String,
    },
    /// A PCI Express key on a conventional PCI function.
    #[error("{key} belongs to PCI Express, but below {parent} is conventional PCI; remove the key")]
    Conventional {
        /// The key.
        key: &'static str,
        /// The bridge.
        parent: String,
    },
    /// A BAR whose size no BAR can have.
    #[error("a BAR of {size} cannot be; sizes are powers of two from 16 bytes on")]
    BarSize {
        /// The size.
        size: Bytes,
    },
    /// A BAR too large for 32 bits.
    #[error("a BAR of {size} does not fit one 32-bit register; set `prefetch = true`, which makes it 64 bits wide")]
    BarTooLarge {
        /// The size.
        size: Bytes,
    },
    /// Two BARs in one register.
    #[error(
        "BAR {index} takes a register of BAR {other} (line {line}); prefetchable BARs are 64 bits wide and take two"
    )]
    BarTaken {
        /// The later BAR.
        index: u8,
        /// The earlier BAR.
        other: u8,
        /// Its line.
        line: usize,
    },
    /// A 64-bit BAR in the last register.
    #[error("BAR 5 is the last register, and a prefetchable BAR takes two; use BAR 4 or less")]
    BarPastEnd,
    /// A size that a resizable BAR cannot take.
    #[error(
        "{size} is not a size of a resizable BAR; they are powers of two from 1 MiB on, below 4 GiB where not prefetchable"
    )]
    ResizableSize {
        /// The size.
        size: Bytes,
    },
    /// A current size that the BAR cannot take.
    #[error("the BAR's size of {size} is not among its resizable sizes; add it")]
    ResizableLacksSize {
        /// The size.
        size: Bytes,
    },
    /// BARs that the host bridge's windows cannot hold.
    #[error("no room for BAR {index} of {function} ({size}) in {host_bridge}'s windows {}; {}",
        window_kind(*prefetchable), room_needed(*size, *needed))]
    NoRoom {
        /// The function with the largest BAR of what did not fit.
        function: String,
        /// That BAR.
        index: u8,
        /// Its size.
        size: Bytes,
        /// What had to be placed in one piece.
        needed: Bytes,
        /// The host bridge.
        host_bridge: String,
        /// Whether it was to go to the prefetchable windows.
        prefetchable: bool,
    },
    /// Control bits of ACS without the capability for them.
    #[error("acs.ctl sets bits {control:#06x} that cap {capability:#06x} does not have; a register reads them as 0")]
    AcsControl {
        /// The offending bits.
        control: u16,
        /// The capability word.
        capability: u16,
    },
    /// An egress vector without egress control.
    #[error("acs.egress is set, but cap {capability:#06x} lacks egress control ({:#04x})", AcsBits::EC.bits())]
    EgressWithoutControl {
        /// The capability word.
        capability: u16,
    },
    /// An egress vector longer than the capability says.
    #[error("acs.egress {vector:#x} sets bits past the vector's {bits} bits (cap bits 15:8)")]
    EgressTooLong {
        /// The vector.
        vector: u64,
        /// Its size in bits.
        bits: u16,
    },
}

fn window_kind(prefetchable: bool) -> &'static str {
    if prefetchable { "with prefetch = true" } else { "below bus address 4 GiB" }
}

fn room_needed(size: Bytes, needed: Bytes) -> String {
    if size == needed {
        "enlarge one or add one".to_string()
    } else {
        format!("everything below its root port takes {needed} in one piece, so enlarge one or add one")
    }
}
