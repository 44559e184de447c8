//! Why a platform file is no machine that QEMU can be, and what it shows differently.

use super::acs::{ROOT_PORT_CAPABILITY, bit_names};
use crate::vm::topology::legal::Illegal;
use peerdma::addr::{BusAddr, PhysAddr};
use peerdma::pcie::acs::AcsBits;
use peerdma::pcie::{PciAddr, PciId};
use std::fmt;

/// Something that decides verdicts, or the tree, and that QEMU cannot be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Refusal {
    #[error("host bridge {name}: segment {segment:#x}, and QEMU's q35 has segment 0 only")]
    Segment { name: String, segment: u32 },
    #[error("host bridge {name}: bus address {bus} is {cpu} to the CPU, and q35 passes addresses down unchanged")]
    OffsetWindow { name: String, cpu: PhysAddr, bus: BusAddr },
    #[error(
        "host bridge {name}: {id} stands for it, which Linux {series} lists as forwarding, and nothing in QEMU has \
         an ID that is listed; with an AMD CPU of family 0x17 or later Linux would not ask"
    )]
    ListedHostBridge { name: String, id: PciId, series: String },
    #[error(
        "root port {name} ({address}) has ACS capability {:#06x}, and QEMU's pcie-root-port {:#06x} or none",
        found.bits(), ROOT_PORT_CAPABILITY.bits()
    )]
    RootPortCapability { name: String, address: PciAddr, found: AcsBits },
    #[error(
        "root port {name} ({address}) is of those whose ACS Linux reads in the wrong place, and QEMU's pcie-root-port is not"
    )]
    MisreadRootPort { name: String, address: PciAddr },
    #[error("{kind} {name} ({address}) sets ACS {}: QEMU's {device} has no ACS capability", bit_names(*set))]
    Acs { kind: &'static str, name: String, address: PciAddr, set: AcsBits, device: &'static str },
    #[error(
        "function {name} ({address}): QEMU's pxb-pcie takes ports only on its root bus; put it on bus 0 or below a port"
    )]
    Integrated { name: String, address: PciAddr },
    #[error("function {name} ({address}): below a link QEMU takes device 0 only, not functions numbered by ARI")]
    Ari { name: String, address: PciAddr },
    #[error(
        "function {name} ({address}): device 0 below QEMU's pcie-pci-bridge is its hot-plug controller's; use 1 to 31"
    )]
    HotPlugController { name: String, address: PciAddr },
    #[error("CPU {vendor}: QEMU's q35 is an x86 machine of Intel, AMD or Hygon")]
    Cpu { vendor: String },
    #[error("CPU family {family:#x}: CPUID cannot show more than 0x10e")]
    CpuFamily { family: u32 },
    #[error("IOMMU {kind}: QEMU's q35 has vtd, amd or none")]
    Iommu { kind: &'static str },
    #[error("as QEMU would number it, {0}")]
    Illegal(Illegal),
}

/// Everything about a file that QEMU cannot be; at least one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Refusals(pub(crate) Vec<Refusal>);

impl fmt::Display for Refusals {
    /// One line each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, refusal) in self.0.iter().enumerate() {
            write!(f, "{}{refusal}", if nth == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusals {}

/// Something that a file says and the guest shows differently or not, without a verdict
/// depending on it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub(crate) enum Warning {
    /// The capability is there in the file, with nothing set.
    ClearAcs { name: String, address: PciAddr, device: &'static str },
    /// The file says that ACS was not read; the guest's can be.
    UnknownAcs { name: String, address: PciAddr },
    /// Another device number on bus 0.
    Moved { name: String, from: PciAddr, device: u8 },
    /// No CPU is stated.
    UnknownCpu,
    /// No IOMMU is stated.
    UnknownIommu,
    /// The IOMMU is off.
    IommuOff,
    /// An AMD IOMMU that translates.
    AmdPassesThrough,
    /// What stands for a host bridge has no ID in the file.
    UnknownHostBridge { name: String },
    /// The file's kernel and command line.
    Kernel,
    /// The file's memory.
    Ram,
    /// Properties without a counterpart.
    LeftOut { what: &'static str, objects: Vec<String> },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClearAcs { name, address, device } => write!(
                f,
                "{name} ({address}) has ACS with nothing set; QEMU's {device} has no ACS, which to Linux is the same"
            ),
            Self::UnknownAcs { name, address } => {
                write!(f, "{name} ({address}): the file does not know its ACS, the guest's is as Linux boots it")
            }
            Self::Moved { name, from, device } => {
                write!(f, "{name} ({from}) is at device {device:#04x} in the guest, whose own devices need its place")
            }
            Self::UnknownCpu => {
                f.write_str("no [cpu]: the guest has QEMU's qemu64, which Linux takes for AMD family 0xf")
            }
            Self::UnknownIommu => f.write_str("no [iommu]: the guest has none"),
            Self::IommuOff => f.write_str("the IOMMU is off: the guest has none"),
            Self::AmdPassesThrough => f.write_str(
                "the AMD IOMMU passes addresses through in the guest: drivers do not work behind QEMU's when it translates",
            ),
            Self::UnknownHostBridge { name } => {
                write!(f, "host bridge {name}: what stands for it has no ID; in the guest nothing listed does")
            }
            Self::Kernel => f.write_str("[kernel] is not used: the guest's version and command line are its own"),
            Self::Ram => f.write_str("[[ram]] is not used: the guest has the memory that it is given"),
            Self::LeftOut { what, objects } => {
                write!(f, "{what}: the guest shows QEMU's own or none ({})", objects.join(", "))
            }
        }
    }
}
