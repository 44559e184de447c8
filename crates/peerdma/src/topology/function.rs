//! One PCI function: what an input says about it, and where it hangs.

use crate::addr::{AddrRange, Bytes, Iova, PhysAddr};
use crate::pcie::decode::{HeaderType, Registers};
use crate::pcie::express::Link;
use crate::pcie::{ClassCode, PciAddr, PciId};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// Where a datum about a function was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Origin {
    /// Configuration bytes of sysfs, live or copied.
    Sysfs,
    /// Hexadecimal dump of `lspci -x` and more.
    LspciHex,
    /// Decoded text of `lspci -v` and more.
    LspciText,
    /// A peerdma capture.
    Capture,
    /// A platform file.
    Platform,
    /// Only its place in another device's path is known.
    PathOnly,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sysfs => "sysfs config space",
            Self::LspciHex => "lspci hex dump",
            Self::LspciText => "lspci text",
            Self::Capture => "capture",
            Self::Platform => "platform file",
            Self::PathOnly => "another device's path",
        })
    }
}

/// Where an input says a function hangs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Position {
    /// On the root bus with this number, in the function's domain.
    RootBus {
        /// Bus number of the root bus.
        bus: u8,
    },
    /// Right below this bridge.
    Below(PciAddr),
    /// The input gives no path; bus numbers decide.
    ByBusNumber,
}

/// A base address register and the range it decodes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bar {
    /// Index of its first register, 0 to 5.
    pub index: u8,
    /// Range as the CPU addresses it; `None` where only the bus address or only the size is known.
    pub cpu: Option<AddrRange<PhysAddr>>,
    /// Address in the register, below the host bridge.
    pub bus: Option<crate::addr::BusAddr>,
    /// Size, where the input tells.
    pub size: Option<Bytes>,
    /// Prefetchable memory.
    pub prefetchable: bool,
}

/// What an input says about one function.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FunctionInfo {
    /// Address.
    pub address: PciAddr,
    /// Where it hangs.
    pub position: Position,
    /// Where its registers were read.
    pub origin: Origin,
    /// Registers, as far as they were read.
    pub registers: Registers,
    /// IDs that a name without numbers may stand for; used where the registers tell none.
    pub ids_by_name: Vec<PciId>,
    /// Vendors that a name may start with whose device no list knows; used where there
    /// are neither IDs nor names of IDs.
    pub vendors_by_name: Vec<u16>,
    /// Memory BARs.
    pub bars: Vec<Bar>,
    /// Link as sysfs tells it, for inputs whose capability was cut.
    pub link: Link,
    /// The physical function, of a virtual one.
    pub physfn: Option<PciAddr>,
    /// Number of virtual functions as sysfs tells it.
    pub sriov_num_vfs: Option<u16>,
    /// Bound driver.
    pub driver: Option<String>,
    /// Names of its subsystems' devices: `nvme0`, `mlx5_0`, `eth0`, `card1`.
    pub names: Vec<String>,
    /// What a person would call it: vendor and device in words.
    pub label: Option<String>,
    /// NUMA node.
    pub numa_node: Option<u32>,
    /// IOMMU group.
    pub iommu_group: Option<u32>,
    /// Bits of address the driver says the device can form. On a live machine this is
    /// the bound driver's mask, and 32 while none is bound.
    pub dma_mask_bits: Option<u8>,
    /// Device memory behind its BARs, where the input tells.
    pub device_memory: Option<Bytes>,
}

impl FunctionInfo {
    /// A function of which only the address and place are known.
    pub fn new(address: PciAddr, position: Position) -> Self {
        Self {
            address,
            position,
            origin: Origin::PathOnly,
            registers: Registers::unread(),
            ids_by_name: Vec::new(),
            vendors_by_name: Vec::new(),
            bars: Vec::new(),
            link: Link::default(),
            physfn: None,
            sriov_num_vfs: None,
            driver: None,
            names: Vec::new(),
            label: None,
            numa_node: None,
            iommu_group: None,
            dma_mask_bits: None,
            device_memory: None,
        }
    }

    /// The IDs it may have: one if known, several if only a name is, none if nothing is.
    pub fn candidate_ids(&self) -> &[PciId] {
        match &self.registers.id {
            Some(id) => core::slice::from_ref(id),
            None => &self.ids_by_name,
        }
    }

    /// Whether it is a bridge, by header or, where that is unread, by class.
    pub fn is_bridge(&self) -> bool {
        match self.registers.header {
            Some(header) => matches!(header, HeaderType::Bridge | HeaderType::CardBus),
            None => self.registers.class.is_some_and(ClassCode::has_buses_below),
        }
    }

    /// What it says about the buses below it.
    pub(crate) fn buses_below(&self) -> BusesBelow {
        if !self.is_bridge() {
            return BusesBelow::None;
        }
        match self.registers.buses {
            None => BusesBelow::Untold,
            // Not configured.
            Some(buses) if buses.secondary == 0 => BusesBelow::None,
            Some(buses) if buses.secondary <= self.address.bus() => BusesBelow::Untold,
            Some(buses) => {
                BusesBelow::Range { secondary: buses.secondary, subordinate: buses.subordinate.max(buses.secondary) }
            }
        }
    }

    /// Whether `bus` may lie below it.
    pub(crate) fn may_lead_to(&self, bus: u8) -> bool {
        match self.buses_below() {
            BusesBelow::None => false,
            BusesBelow::Untold => self.address.bus() < bus,
            BusesBelow::Range { secondary, subordinate } => (secondary..=subordinate).contains(&bus),
        }
    }

    /// Whether VFIO owns it: `vfio-pci` or one of its variants (`mlx5_vfio_pci`,
    /// `nvgrace-gpu-vfio-pci`) is bound, and addresses come from whoever opened it.
    pub fn is_vfio_owned(&self) -> bool {
        self.driver.as_deref().is_some_and(|driver| {
            let word = driver.replace('_', "-");
            word == "vfio-pci" || word.ends_with("-vfio-pci")
        })
    }

    /// Its link: what the capability says, completed by sysfs.
    pub fn link_state(&self) -> Link {
        self.registers.express.link.or(self.link)
    }
}

/// What a function says about the buses below it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BusesBelow {
    /// None: it is no bridge, or one without numbers assigned.
    None,
    /// Any higher than its own: its numbers were not read, or cannot be true.
    Untold,
    /// These, both inclusive.
    Range { secondary: u8, subordinate: u8 },
}

/// Type of a reserved region of an IOMMU group, in sysfs' words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReservedRegion {
    /// Addresses that must not be handed out.
    pub range: AddrRange<Iova>,
    /// `direct`, `direct-relaxable`, `reserved`, `msi`.
    pub kind: String,
}

/// An IOMMU group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IommuGroup {
    /// Its number.
    pub id: u32,
    /// Type of its default domain in sysfs' word (`identity`, `DMA`, `DMA-FQ`, …).
    pub kind: Option<String>,
    /// Reserved regions.
    pub reserved: Vec<ReservedRegion>,
}
