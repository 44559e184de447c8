//! What can be wrong with a platform file.

use super::words::{ModeWord, PortKind};
use peerdma::addr::Bytes;
use peerdma::pcie::PciAddr;
use peerdma::pcie::acs::AcsBits;
use std::fmt;

/// Bus numbers `first..=last`, for messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Buses {
    /// First bus.
    pub first: u8,
    /// Last bus, inclusive.
    pub last: u8,
}

impl fmt::Display for Buses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}-{:02x}", self.first, self.last)
    }
}

/// What is wrong with a platform file.
///
/// Fields named `line` are where the other party to a conflict stands.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// Not TOML, a key that does not exist or is missing, a value of the wrong type, an unknown word.
    #[error("{message}")]
    Syntax {
        /// The parser's words.
        message: String,
    },
    /// Another version of the schema.
    #[error("schema {found} is not known here; this version reads `schema = 1`")]
    Schema {
        /// The version asked for.
        found: i128,
    },
    /// A number outside what its key takes.
    #[error("{key} = {found} is out of range; it takes {min} to {max:#x}")]
    OutOfRange {
        /// The key.
        key: &'static str,
        /// The number found.
        found: i128,
        /// Smallest number it takes.
        min: u64,
        /// Largest number it takes.
        max: u64,
    },
    /// A size or length of nothing.
    #[error("{key} is zero; give it at least one byte or leave it out")]
    Zero {
        /// The key.
        key: &'static str,
    },
    /// A range that ends past the address space.
    #[error("{key} plus the size runs past 2^64; move or shrink the range")]
    Wraps {
        /// The key of the range's start.
        key: &'static str,
    },
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
    /// Buses that are not a first and a last one.
    #[error("buses is a list of {found} numbers; write the first bus and the last, such as [0x00, 0x7f]")]
    NotTwoBuses {
        /// How many numbers there are.
        found: usize,
    },
    /// Last bus before the first.
    #[error("buses run backwards from {first:#04x} to {last:#04x}; write the first one first")]
    BusesReversed {
        /// First bus as written.
        first: u8,
        /// Last bus as written.
        last: u8,
    },
    /// Two host bridges with the same buses.
    #[error("buses {buses} of segment {segment:#x} overlap those of host bridge {other} (line {line})")]
    HostBridgesCross {
        /// The buses.
        buses: Buses,
        /// The segment of both.
        segment: u32,
        /// The other host bridge.
        other: String,
        /// Its line.
        line: usize,
    },
    /// Two windows at the same addresses.
    #[error("the window's {space} addresses overlap those of the window on line {line}")]
    WindowsOverlap {
        /// `cpu` or `bus`.
        space: &'static str,
        /// Line of the other.
        line: usize,
    },
    /// Two stretches of RAM at the same addresses.
    #[error("this RAM overlaps the RAM on line {line}")]
    RamOverlaps {
        /// Line of the other.
        line: usize,
    },
    /// A CPU that is misspelt or whose family decides and is missing.
    #[error(
        "{vendor:?} is not a CPU vendor; write cpuinfo's word, such as \"AuthenticAMD\", or intel, amd, hygon, arm"
    )]
    CpuVendor {
        /// The word.
        vendor: String,
    },
    /// No family, where it decides.
    #[error("cpu.family is missing; Linux's verdict depends on it for every vendor but Arm")]
    CpuFamily,
    /// Not a kernel version.
    #[error("{version:?} is not a kernel version; write x.y or x.y.z, such as \"7.2\"")]
    KernelVersion {
        /// The text.
        version: String,
    },
    /// A machine's name that could not be printed.
    #[error("{name:?} is not a name for a machine; write visible characters in one line")]
    PlatformName {
        /// The text.
        name: String,
    },
    /// Not the name of a driver.
    #[error("{driver:?} is not the name of a driver; write it as the link in sysfs reads, such as \"vfio-pci\"")]
    Driver {
        /// The text.
        driver: String,
    },
    /// A function's mode without the machine's.
    #[error(
        "iommu_mode is stated for a function, but [iommu] is missing; its mode counts for functions that state none"
    )]
    IommuTableMissing,
    /// A function's mode without an IOMMU that could work so.
    #[error("iommu_mode = {mode} needs an IOMMU that is on, but [iommu] has none or one with mode = none")]
    FunctionNeedsIommu {
        /// The mode.
        mode: ModeWord,
    },
    /// No mode for an IOMMU that is there.
    #[error("iommu.mode is missing; write translated, identity or none")]
    IommuModeMissing,
    /// A mode without an IOMMU.
    #[error("iommu.mode = {mode} needs an IOMMU, but the kind is none")]
    IommuModeWithoutIommu {
        /// The mode.
        mode: ModeWord,
    },
    /// Not a payload size of PCI Express.
    #[error("{key} = {found} is not a payload size; it is 128, 256, 512, 1024, 2048 or 4096 bytes")]
    Payload {
        /// `mps` or `mrrs`.
        key: &'static str,
        /// The number found.
        found: i128,
    },
    /// Not a speed of a link.
    #[error("{speed:?} is not the speed of a link; it is 2.5GT/s, 5GT/s, 8GT/s, 16GT/s, 32GT/s or 64GT/s")]
    LinkSpeed {
        /// The text.
        speed: String,
    },
    /// Not a width of a link.
    #[error("link.width = {found} is not the width of a link; it is 1, 2, 4, 8, 12, 16 or 32 lanes")]
    LinkWidth {
        /// The number found.
        found: i128,
    },
    /// A link where there is none.
    #[error("{name} sits on the root bus of {host_bridge} and has no link; remove the key")]
    NoLink {
        /// The function.
        name: String,
        /// The host bridge.
        host_bridge: String,
    },
    /// Two ends of a link that say different things.
    #[error("this link is {link}, but its other end, {other} (line {line}), says {other_link}")]
    LinkEndsDiffer {
        /// This end.
        link: String,
        /// Who is at the other end.
        other: String,
        /// What stands there.
        other_link: String,
        /// Its line.
        line: usize,
    },
    /// Two ports of one parent with one port number.
    #[error("port number {number} is that of {other} (line {line}) too; ports of one parent have numbers of their own")]
    PortNumberTaken {
        /// The number.
        number: u8,
        /// The other port.
        other: String,
        /// Line of its name.
        line: usize,
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
    /// A PCI Express key on a conventional PCI function.
    #[error("{key} belongs to PCI Express, but below {parent} is conventional PCI; remove the key")]
    Conventional {
        /// The key.
        key: &'static str,
        /// The bridge.
        parent: String,
    },
    /// No RAM, in a machine that is to run.
    #[error(
        "no [[ram]] is stated, and a machine that runs needs {needed} of it in one piece outside of its host \
         bridges' windows; add one, such as base = 0x1_0000_0000 and size = \"4GiB\""
    )]
    NoRam {
        /// The least that there has to be.
        needed: Bytes,
    },
    /// Too little RAM, in a machine that is to run.
    #[error(
        "{free} of this RAM in one piece are outside of the host bridges' windows, no other has more, and a machine \
         that runs needs {needed}; enlarge it, or add a [[ram]] where no window is"
    )]
    TooLittleRam {
        /// The longest piece outside of all windows.
        free: Bytes,
        /// The least that there has to be.
        needed: Bytes,
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

impl Problem {
    pub(super) fn port_article(kind: PortKind) -> &'static str {
        match kind {
            PortKind::Root => "a root port",
            PortKind::Upstream => "an upstream port",
            PortKind::Downstream => "a downstream port",
            PortKind::PciePci => "a PCIe-to-PCI bridge",
        }
    }
}
