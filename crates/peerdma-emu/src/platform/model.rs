//! A machine, as a platform file describes it, checked.

use super::words::{IommuKind, Model, PeerForwarding, PortKind, TdiState};
use peerdma::addr::{AddrRange, BusAddr, Bytes, PhysAddr};
use peerdma::pcie::acs::Acs;
use peerdma::pcie::decode::BridgeWindows;
use peerdma::pcie::express::LinkSpeed;
use peerdma::pcie::{ClassCode, PciAddr, PciId};
use peerdma::topology::{IommuMode, KernelVersion};

/// Names a host bridge of one [`Platform`](super::Platform), in the file's order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct HostBridgeId(pub(super) usize);

/// Names a port of one [`Platform`](super::Platform), in the file's order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct PortId(pub(super) usize);

impl HostBridgeId {
    /// Position among the platform's host bridges.
    pub const fn index(self) -> usize {
        self.0
    }
}

impl PortId {
    /// Position among the platform's ports.
    pub const fn index(self) -> usize {
        self.0
    }
}

/// What a port or a function hangs below.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Parent {
    /// On the root bus of this host bridge.
    HostBridge(HostBridgeId),
    /// On the bus right below this port.
    Port(PortId),
}

/// The kernel that runs on the machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kernel {
    /// Version, where stated.
    pub version: Option<KernelVersion>,
    /// Command line, where stated.
    pub cmdline: Option<String>,
}

/// The machine's IOMMU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Iommu {
    /// Which one.
    pub kind: IommuKind,
    /// How it treats every device's requests. `None` with a kind other than none
    /// means that it is there and off.
    pub mode: IommuMode,
}

/// A stretch of system memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ram {
    /// Where the CPU sees it. Where a host bridge's window lies over it, the window
    /// answers and the memory behind it is not reachable there.
    pub range: AddrRange<PhysAddr>,
    /// NUMA node, where stated.
    pub node: Option<u32>,
}

/// Addresses that a host bridge passes down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// As the CPU addresses it.
    pub cpu: AddrRange<PhysAddr>,
    /// As it is addressed below the host bridge; of the same length.
    pub bus: AddrRange<BusAddr>,
    /// Meant for prefetchable memory.
    pub prefetchable: bool,
}

impl Window {
    /// Where the CPU sees `bus`; `None` if any of it is outside the window.
    pub fn to_cpu(&self, bus: &AddrRange<BusAddr>) -> Option<AddrRange<PhysAddr>> {
        let offset = bus.start().as_u64().checked_sub(self.bus.start().as_u64())?;
        self.cpu.slice(Bytes::new(offset), bus.len())
    }
}

/// A host bridge with its root bus.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostBridge {
    /// Its name in the file.
    pub name: String,
    /// Segment, which Linux calls domain.
    pub segment: u32,
    /// Root bus, the first of its buses.
    pub root_bus: u8,
    /// Last of its buses, inclusive.
    pub last_bus: u8,
    /// NUMA node, where stated.
    pub node: Option<u32>,
    /// ID of a device at 00.0 of the root bus that stands for the host bridge and does
    /// nothing else. Without one, the lowest port or function is the first device.
    pub first_device: Option<PciId>,
    /// Windows, in the file's order. Their CPU addresses overlap no other window of
    /// the machine, their bus addresses no other window of this host bridge.
    pub windows: Vec<Window>,
    /// What it does with requests from one device below a host bridge for another.
    pub peer: PeerForwarding,
    /// Whether it passes them on in its own name.
    pub replaces_requester: bool,
    /// Whether its root ports pass requests to each other by address before the IOMMU sees them.
    pub between_ports: bool,
}

/// Buses below a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BusesBelow {
    /// The bus right below, on which all its children sit.
    pub secondary: u8,
    /// The highest bus below, inclusive.
    pub subordinate: u8,
}

/// A port, or a bridge to conventional PCI.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Port {
    /// Its name in the file.
    pub name: String,
    /// What it hangs below.
    pub parent: Parent,
    /// The host bridge at the top.
    pub host_bridge: HostBridgeId,
    /// What it is.
    pub kind: PortKind,
    /// Its address.
    pub address: PciAddr,
    /// Vendor and device, where stated.
    pub id: Option<PciId>,
    /// Largest payload it is programmed to send, in bytes.
    pub mps: Bytes,
    /// Its link, where stated.
    pub link: Option<LinkState>,
    /// What it does with AtomicOps.
    pub atomics: PortAtomics,
    /// Access control services.
    pub acs: Acs,
    /// Port number, which egress vectors of the ports beside it count by; where none is
    /// stated the device number, or the position by address where ports of one parent
    /// share a device.
    pub number: u8,
    /// Buses below; `None` where nothing hangs below it.
    pub below: Option<BusesBelow>,
    /// Windows that hold exactly the BARs below, in steps of 1 MiB.
    pub windows: BridgeWindows,
}

/// A link that is up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinkState {
    /// Negotiated speed.
    pub speed: LinkSpeed,
    /// Negotiated width in lanes.
    pub width: u8,
}

/// What a port does with AtomicOps, as far as stated.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PortAtomics {
    /// Whether it passes them on.
    pub routing: Option<bool>,
    /// Whether it keeps them from leaving by this port.
    pub egress_blocked: Option<bool>,
}

/// What a function does with AtomicOps, as far as stated.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FunctionAtomics {
    /// Whether it may send them.
    pub requester: Option<bool>,
    /// Whether its memory answers them.
    pub completer: Option<bool>,
}

/// Attributes that a function may set in its requests, as far as stated.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ordering {
    /// Relaxed Ordering enabled.
    pub relaxed: Option<bool>,
    /// No Snoop enabled.
    pub no_snoop: Option<bool>,
}

/// Payload sizes of a PCI Express function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Payload {
    /// Largest payload it is programmed to send (MPS).
    pub max: Bytes,
    /// Largest read it is programmed to request (MRRS).
    pub max_read_request: Bytes,
}

/// A base address register and the addresses it was given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bar {
    /// Index of its first register, 0 to 5.
    pub index: u8,
    /// Prefetchable; such a BAR is 64 bits wide, any other 32.
    pub prefetchable: bool,
    /// Addresses below the host bridge; as long as the BAR.
    pub bus: AddrRange<BusAddr>,
    /// Addresses as the CPU sees them.
    pub cpu: AddrRange<PhysAddr>,
    /// Sizes it can be set to, ascending, the present one among them; empty if fixed.
    pub resizable: Vec<Bytes>,
}

/// A function that initiates requests, owns memory, or both.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Function {
    /// Its name in the file.
    pub name: String,
    /// What it hangs below.
    pub parent: Parent,
    /// The host bridge at the top.
    pub host_bridge: HostBridgeId,
    /// Its address.
    pub address: PciAddr,
    /// Vendor and device, where stated.
    pub id: Option<PciId>,
    /// Class code.
    pub class: ClassCode,
    /// What it behaves like when it is emulated.
    pub model: Model,
    /// BARs, ascending by index, in registers of their own.
    pub bars: Vec<Bar>,
    /// Size of the device memory behind its BARs, where it has any.
    pub memory: Option<Bytes>,
    /// Access control services.
    pub acs: Acs,
    /// Whether it has ATS, enabled.
    pub ats: bool,
    /// Width of its PASIDs in bits, 1 to 20; `None` without the capability.
    pub pasid_bits: Option<u8>,
    /// Payload sizes; `None` on conventional PCI, which has no such limits.
    pub payload: Option<Payload>,
    /// Attributes it may set in its requests.
    pub ordering: Ordering,
    /// What it does with AtomicOps.
    pub atomics: FunctionAtomics,
    /// Its link, where stated.
    pub link: Option<LinkState>,
    /// Width in bits of the DMA addresses it can form, 1 to 64.
    pub mask_bits: u8,
    /// Driver bound to it, where stated.
    pub driver: Option<String>,
    /// How the IOMMU treats its requests, where stated for it alone.
    pub iommu_mode: Option<IommuMode>,
    /// State of its trusted device interface; `None` if it has none.
    pub tdi: Option<TdiState>,
}
