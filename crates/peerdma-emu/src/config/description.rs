//! What a function's registers are to say when power comes on.

use peerdma::addr::{AddrRange, BusAddr, Bytes};
use peerdma::pcie::express::{AtomicSizes, LinkSpeed, PortType};
use peerdma::pcie::{ClassCode, PciId};

/// Layout of the first 64 bytes (PCIe 6.0 §7.5.1.1.9).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub enum Header {
    /// Type 0: a function that has nothing below it.
    #[default]
    Device,
    /// Type 1: a port or another bridge.
    Bridge,
}

/// Bus numbers of a bridge.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Buses {
    /// The bus that it sits on.
    pub primary: u8,
    /// The bus right below it.
    pub secondary: u8,
    /// The highest bus below it, inclusive.
    pub subordinate: u8,
}

/// Everything that the registers of one function say at power-on.
///
/// What a register has no room for is cut as the register cuts it: windows begin and end at
/// multiples of 1 MiB, and a BAR that lies over another one, or past the end of the header, is
/// left out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Description {
    /// Vendor and device.
    pub id: PciId,
    /// Class code.
    pub class: ClassCode,
    /// Layout of the header.
    pub header: Header,
    /// Whether the device has other functions beside this one.
    pub multifunction: bool,
    /// Memory Space Enable.
    pub memory_enabled: bool,
    /// Bus Master Enable.
    pub bus_master: bool,
    /// Bus numbers, of a bridge; `None` leaves them at zero, unassigned.
    pub buses: Option<Buses>,
    /// Non-prefetchable window of a bridge, below 4 GiB; `None` is closed.
    pub memory_window: Option<AddrRange<BusAddr>>,
    /// Prefetchable window of a bridge, of 64 bits; `None` is closed.
    pub prefetchable_window: Option<AddrRange<BusAddr>>,
    /// BARs: six registers of a device, two of a bridge.
    pub bars: Vec<BarDescription>,
    /// Whether it can be put to sleep: the power management capability.
    pub power_management: bool,
    /// Messages that it interrupts with, cut to 32 and rounded up to a power of two; 0 is no
    /// such capability.
    pub message_interrupts: u16,
    /// The PCI Express capability; `None` of conventional PCI, which has 256 bytes and none of
    /// what follows.
    pub express: Option<ExpressDescription>,
    /// Access control services.
    pub acs: Option<AcsDescription>,
    /// ATS, and whether it is enabled.
    pub ats: Option<bool>,
    /// Page requests, and whether they are enabled.
    pub pri: Option<bool>,
    /// PASID, and whether it is enabled.
    pub pasid: Option<PasidDescription>,
}

/// The PCI Express capability.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExpressDescription {
    /// What it is.
    pub port_type: PortType,
    /// Port number, which egress vectors of the ports beside it count by.
    pub port_number: u8,
    /// Largest payload that it can be programmed to: 128 to 4096 bytes, never less than
    /// `max_payload`.
    pub max_payload_supported: Bytes,
    /// Largest payload that it is programmed to send and takes (MPS), 128 to 4096 bytes.
    pub max_payload: Bytes,
    /// Largest read that it is programmed to request (MRRS), 128 to 4096 bytes.
    pub max_read_request: Bytes,
    /// Relaxed Ordering enabled.
    pub relaxed_ordering: bool,
    /// No Snoop enabled.
    pub no_snoop: bool,
    /// AtomicOp Routing Supported, of ports.
    pub atomic_routing: bool,
    /// AtomicOp Egress Blocking, of ports.
    pub atomic_egress_blocked: bool,
    /// AtomicOp Requester Enable.
    pub atomic_requester: bool,
    /// AtomicOp Completer Supported, by size.
    pub atomic_completer: AtomicSizes,
    /// Speed and width of the link; `None` without one, or with one that is down.
    pub link: Option<LinkDescription>,
}

/// A link that is up, at the best that its end can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinkDescription {
    /// Speed.
    pub speed: LinkSpeed,
    /// Width in lanes, 1 to 63.
    pub width: u8,
}

/// A base address register.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BarDescription {
    /// Index of its first register.
    pub index: u8,
    /// Where it lies; the bits below its size are dropped.
    pub address: BusAddr,
    /// Size: a power of two from 16 bytes on, to which others are rounded up; of a BAR of 32
    /// bits 2 GiB at most.
    pub size: Bytes,
    /// Prefetchable.
    pub prefetchable: bool,
    /// Takes two registers.
    pub is_64_bit: bool,
    /// Sizes that it can be set to, powers of two from 1 MiB on; empty if its size is fixed.
    pub resizable: Vec<Bytes>,
}

/// Access control services.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AcsDescription {
    /// Capability register. Its bits 15:8 are the size of the egress vector, 0 standing for 256.
    pub capability: u16,
    /// Control register; bits that the capability does not have are left out.
    pub control: u16,
    /// Egress control vector, from bit 0 on; what is missing is clear.
    pub egress: Vec<u32>,
    /// Whether capability and control take a double word each, as in root ports of some Intel
    /// chipsets ([`has_dword_registers`](peerdma::pcie::acs::has_dword_registers)).
    pub double_words: bool,
}

/// Process address space IDs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PasidDescription {
    /// Whether requests may carry one.
    pub enabled: bool,
    /// Width of the ID in bits, 1 to 20.
    pub width: u8,
}

impl Default for Description {
    /// A conventional device of no class, without BARs and capabilities, that neither takes nor
    /// sends requests.
    fn default() -> Self {
        Self {
            id: PciId { vendor: super::NEUTRAL_VENDOR, device: 0 },
            class: ClassCode::new(0xff_0000),
            header: Header::Device,
            multifunction: false,
            memory_enabled: false,
            bus_master: false,
            buses: None,
            memory_window: None,
            prefetchable_window: None,
            bars: Vec::new(),
            power_management: false,
            message_interrupts: 0,
            express: None,
            acs: None,
            ats: None,
            pri: None,
            pasid: None,
        }
    }
}

impl Description {
    /// A function of PCI Express that takes and sends requests, as `port_type` has them.
    pub fn express(port_type: PortType) -> Self {
        let is_bridge = matches!(
            port_type,
            PortType::RootPort
                | PortType::UpstreamPort
                | PortType::DownstreamPort
                | PortType::PciExpressToPci
                | PortType::PciToPciExpress
        );
        Self {
            class: ClassCode::new(if is_bridge { 0x06_0400 } else { 0xff_0000 }),
            header: if is_bridge { Header::Bridge } else { Header::Device },
            memory_enabled: true,
            bus_master: true,
            power_management: true,
            express: Some(ExpressDescription::reset(port_type)),
            ..Self::default()
        }
    }
}

impl ExpressDescription {
    /// The capability as a reset leaves it (PCIe 6.0 §7.5.3.4): payloads of 128 bytes, reads of
    /// 512, both hints allowed, no AtomicOps, the link down.
    pub const fn reset(port_type: PortType) -> Self {
        Self {
            port_type,
            port_number: 0,
            max_payload_supported: Bytes::new(512),
            max_payload: Bytes::new(128),
            max_read_request: Bytes::new(512),
            relaxed_ordering: true,
            no_snoop: true,
            atomic_routing: false,
            atomic_egress_blocked: false,
            atomic_requester: false,
            atomic_completer: AtomicSizes::NONE,
            link: None,
        }
    }
}
