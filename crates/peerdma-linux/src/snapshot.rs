//! Facts as sysfs gives them, before anybody draws conclusions.
//!
//! Live machines, copied trees and captures all pass through [`Snapshot`]: a capture
//! is a snapshot in a file, so reading it back gives what live reading gave. Drawing
//! conclusions, from bytes to registers to a tree, happens in [`crate::assemble`].

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Everything read from one machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Snapshot {
    /// CPU, kernel, command line.
    pub machine: MachineFacts,
    /// PCI functions.
    pub functions: Vec<FunctionFacts>,
    /// IOMMU groups.
    #[serde(default)]
    pub groups: Vec<GroupFacts>,
}

/// Facts about the machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MachineFacts {
    /// cpuinfo's vendor word, `Arm` on Arm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_vendor: Option<String>,
    /// cpuinfo's family.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_family: Option<u32>,
    /// cpuinfo's model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_model: Option<u32>,
    /// Whether cpuinfo's flags name `hypervisor`; absent where there are no flags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hypervisor_flag: Option<bool>,
    /// Devices and flags that only a guest with confidential memory has, as sysfs and
    /// cpuinfo name them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub confidential_signs: Vec<String>,
    /// Kernel release, as `uname -r` prints it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// Kernel command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_line: Option<String>,
    /// Options of the kernel configuration that matter here, `y`, `m` or `n`; empty
    /// where the configuration was not readable.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub kernel_config: BTreeMap<String, String>,
    /// Names of loaded modules, absent where not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modules: Option<Vec<String>>,
    /// Lines of `/proc/iomem`, empty where it shows no addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub memory_map: Vec<String>,
    /// Bits of address that every IOMMU takes, the fewest of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iommu_address_bits: Option<u8>,
    /// Whether the folder of IOMMU groups was read, be it empty, so that the groups
    /// below are all there are.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub groups_listed: bool,
    /// Whether more than the unprivileged 64 bytes of some config space were read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privileged: Option<bool>,
}

/// Facts about one function.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FunctionFacts {
    /// `dddd:bb:dd.f`.
    pub address: String,
    /// `dddd:bb` of the root bus its path starts at; absent where the tree shows no path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_bus: Option<String>,
    /// Bridges on its path, from the root down.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bridges: Vec<String>,
    /// Config space as far as it was read, in hexadecimal.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub config: String,
    /// Size of config space as the kernel announced it, where it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_size: Option<u16>,
    /// Vendor ID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor: Option<u16>,
    /// Device ID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<u16>,
    /// Class code, 24 bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<u32>,
    /// Lines of `resource`: start, end and flags as they stand there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resource: Vec<String>,
    /// NUMA node; absent for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numa_node: Option<u32>,
    /// Bound driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// IOMMU group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iommu_group: Option<u32>,
    /// Physical function of a virtual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub physfn: Option<String>,
    /// Virtual functions enabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sriov_num_vfs: Option<u16>,
    /// Devices of its subsystems.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// `current_link_speed`, `current_link_width`, `max_link_speed`, `max_link_width`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<[String; 4]>,
    /// Bits of the driver's DMA mask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dma_mask_bits: Option<u8>,
}

/// Facts about one IOMMU group.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GroupFacts {
    /// Its number.
    pub id: u32,
    /// Type of its default domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Lines of `reserved_regions`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reserved: Vec<String>,
}

/// Writes bytes as hexadecimal digits.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|nibble| char::from(DIGITS[usize::from(nibble)])).collect()
}

/// Reads hexadecimal digits; `None` where anything else stands there.
pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let nibble = |digit: u8| char::from(digit).to_digit(16).map(|value| value as u8);
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    digits.chunks_exact(2).map(|pair| Some(nibble(pair[0])? << 4 | nibble(pair[1])?)).collect()
}
