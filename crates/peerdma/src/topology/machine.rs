//! Facts about the machine as a whole: CPU, kernel, command line.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use crate::addr::{AddrRange, PhysAddr};
use crate::pcie::Fact;

/// CPU vendor as `/proc/cpuinfo` names it.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub enum CpuVendor {
    /// `AuthenticAMD`.
    Amd,
    /// `GenuineIntel`.
    Intel,
    /// `HygonGenuine`; shares Zen's design but not its entry in Linux's rule.
    Hygon,
    /// Any Arm implementer.
    Arm,
    /// Any other, by its own word.
    Other(String),
}

impl CpuVendor {
    /// Reads cpuinfo's word or one of `amd`, `intel`, `hygon`, `arm` in any case.
    pub fn from_word(word: &str) -> Self {
        match word.to_ascii_lowercase().as_str() {
            "amd" | "authenticamd" => Self::Amd,
            "intel" | "genuineintel" => Self::Intel,
            "hygon" | "hygongenuine" => Self::Hygon,
            "arm" => Self::Arm,
            _ => Self::Other(word.to_string()),
        }
    }
}

impl fmt::Display for CpuVendor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Amd => "AuthenticAMD",
            Self::Intel => "GenuineIntel",
            Self::Hygon => "HygonGenuine",
            Self::Arm => "Arm",
            Self::Other(word) => word,
        })
    }
}

/// The CPU, as far as peer-to-peer decisions depend on it.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct Cpu {
    /// Vendor.
    pub vendor: CpuVendor,
    /// Family as `/proc/cpuinfo` prints it (extended family added in); 0 where there is none.
    pub family: u32,
    /// Model as `/proc/cpuinfo` prints it (extended model added in), where told.
    pub model: Option<u32>,
}

impl Cpu {
    /// AMD family 0x17 and later, for which Linux asks no whitelist (`cpu_supports_p2pdma`).
    pub fn is_zen_or_newer(&self) -> bool {
        self.vendor == CpuVendor::Amd && self.family >= 0x17
    }

    /// Reads the first processor of a `/proc/cpuinfo`.
    ///
    /// `None` where no architecture's fields are found. A last line without its end is
    /// not believed: `cpu family : 2` may have been 25.
    pub fn from_cpuinfo(text: &str) -> Option<Self> {
        let field = |name: &str| {
            text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).find_map(|line| {
                let (key, value) = line.split_once(':')?;
                (key.trim() == name).then(|| value.trim())
            })
        };
        if let Some(vendor) = field("vendor_id") {
            let vendor = CpuVendor::from_word(vendor);
            let model = field("model").and_then(|model| model.parse().ok());
            return match (field("cpu family"), &vendor) {
                (Some(family), _) => Some(Self { vendor, family: family.parse().ok()?, model }),
                // s390 names a vendor and has no families; on x86 the line is missing.
                (None, CpuVendor::Other(_)) => Some(Self { vendor, family: 0, model: None }),
                (None, _) => None,
            };
        }
        if field("CPU implementer").is_some() {
            return Some(Self { vendor: CpuVendor::Arm, family: 0, model: None });
        }
        // POWER, RISC-V, LoongArch and MIPS name no vendor; none of them is a Zen.
        let word = ["cpu", "isa", "CPU Family", "cpu model"].iter().find_map(|name| field(name))?;
        Some(Self { vendor: CpuVendor::Other(word.to_string()), family: 0, model: None })
    }
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.vendor {
            // Only x86 has families.
            CpuVendor::Arm | CpuVendor::Other(_) if self.family == 0 => write!(f, "{}", self.vendor),
            _ => write!(f, "{} family {:#x}", self.vendor, self.family),
        }
    }
}

/// The text is not `VENDOR:FAMILY`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a CPU: expected VENDOR:FAMILY or VENDOR:FAMILY:MODEL, such as amd:0x19 or GenuineIntel:6:0xa7")]
pub struct NotACpu;

impl FromStr for Cpu {
    type Err = NotACpu;

    /// Reads `VENDOR:FAMILY[:MODEL]`, the numbers in decimal or with `0x`.
    fn from_str(text: &str) -> Result<Self, NotACpu> {
        let (vendor, numbers) = text.split_once(':').ok_or(NotACpu)?;
        let number = |text: &str| match text.strip_prefix("0x").or(text.strip_prefix("0X")) {
            Some(digits) => u32::from_str_radix(digits, 16),
            None => text.parse(),
        };
        let (family, model) = match numbers.split_once(':') {
            Some((family, model)) => (number(family), Some(number(model).map_err(|_| NotACpu)?)),
            None => (number(numbers), None),
        };
        let vendor = CpuVendor::from_word(vendor.trim());
        match (vendor, family) {
            // A typo in the vendor would silently become "not Zen".
            (CpuVendor::Other(word), _) if !word.contains(|c: char| c.is_ascii_uppercase()) => Err(NotACpu),
            (vendor, Ok(family)) => Ok(Self { vendor, family, model }),
            (_, Err(_)) => Err(NotACpu),
        }
    }
}

/// Kernel version, compared by series and patch level.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct KernelVersion {
    /// `x` of `x.y.z`.
    pub major: u32,
    /// `y` of `x.y.z`.
    pub minor: u32,
    /// `z` of `x.y.z`, where told.
    pub patch: Option<u32>,
}

impl KernelVersion {
    /// The series, `x.y`.
    pub const fn series(self) -> (u32, u32) {
        (self.major, self.minor)
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.patch {
            Some(patch) => write!(f, "{}.{}.{patch}", self.major, self.minor),
            None => write!(f, "{}.{}", self.major, self.minor),
        }
    }
}

/// The text does not start with `x.y`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a kernel version: expected x.y or x.y.z, such as 6.12 or 7.2.13")]
pub struct NotAKernelVersion;

impl FromStr for KernelVersion {
    type Err = NotAKernelVersion;

    /// Reads `x.y[.z]` and ignores what a distribution appends (`-amd64`, `+deb14`, `-rc3`).
    fn from_str(text: &str) -> Result<Self, NotAKernelVersion> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let mut numbers = text[..end].trim_end_matches('.').split('.').map(str::parse::<u32>);
        match (numbers.next(), numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor)), None) => Ok(Self { major, minor, patch: None }),
            (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch))) => Ok(Self { major, minor, patch: Some(patch) }),
            _ => Err(NotAKernelVersion),
        }
    }
}

/// How an IOMMU treats a device's requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum IommuMode {
    /// Device addresses are translated (group types `DMA`, `DMA-FQ`).
    Translated,
    /// The IOMMU passes addresses through (group type `identity`).
    Identity,
    /// There is no IOMMU.
    None,
}

impl fmt::Display for IommuMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Translated => "translated",
            Self::Identity => "identity",
            Self::None => "none",
        })
    }
}

/// The machine around the functions, as far as the input tells.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Machine {
    /// What a description calls the machine; never read from hardware.
    pub name: Option<String>,
    /// CPU; never inferred from the devices.
    pub cpu: Option<Cpu>,
    /// Version of the kernel that ran when the input was taken.
    pub kernel: Option<KernelVersion>,
    /// Kernel command line.
    pub command_line: Option<String>,
    /// `CONFIG_PCI_P2PDMA`; taken to be `y` where the input does not tell.
    pub p2pdma_configured: Fact<bool>,
    /// IOMMU mode of all devices, where stated for the machine as a whole.
    pub iommu: Option<IommuMode>,
    /// Bits of address that every IOMMU of the machine takes, the fewest of all, where read.
    pub iommu_address_bits: Option<u8>,
    /// Whether the input lists every IOMMU group there is, so that a function without
    /// one has no IOMMU in front of it.
    pub groups_are_complete: bool,
    /// Options of the kernel's configuration by full name (`CONFIG_PCI_P2PDMA`), each
    /// `y`, `m` or `n`; empty where it was not read.
    pub kernel_config: BTreeMap<String, String>,
    /// Names of loaded modules, where read.
    pub modules: Option<Vec<String>>,
    /// The machine's memory map, as `/proc/iomem` names its stretches; empty where not read.
    pub memory_map: Vec<MemoryRegion>,
    /// Whether this runs in a virtual machine.
    pub in_guest: Fact<bool>,
    /// Whether that machine's memory is confidential (SEV-SNP, TDX, Arm CCA).
    pub in_confidential_guest: Fact<bool>,
}

/// A stretch of the CPU's address space and what lies there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemoryRegion {
    /// Where.
    pub range: AddrRange<PhysAddr>,
    /// What, in the words of `/proc/iomem`: `System RAM`, `PCI Bus 0000:00`, `Reserved`.
    pub name: String,
}

impl MemoryRegion {
    /// The name of memory that the kernel uses as such.
    pub const SYSTEM_RAM: &str = "System RAM";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zen_is_amd_from_family_17_hex_on_and_hygon_is_not() {
        let zen = |text: &str| text.parse::<Cpu>().unwrap().is_zen_or_newer();
        assert!(zen("amd:0x17") && zen("AuthenticAMD:23") && zen("AMD:26"));
        assert!(!zen("amd:0x16") && !zen("hygon:0x18") && !zen("intel:6") && !zen("arm:0"));
    }

    #[test]
    fn a_misspelt_cpu_is_refused() {
        for text in ["amd", "amd:", "amd:zen", "adm:0x17", ":6", "intel:-6", "intel:6:", "intel:6:x"] {
            assert!(text.parse::<Cpu>().is_err(), "{text}");
        }
        assert!("CentaurHauls:6".parse::<Cpu>().is_ok());
        assert_eq!("intel:6:0xa7".parse::<Cpu>().unwrap().model, Some(0xa7));
    }

    #[test]
    fn versions_read_through_what_distributions_append() {
        let version = |text: &str| text.parse::<KernelVersion>().unwrap();
        assert_eq!(version("7.2.13+deb14-amd64").series(), (7, 2));
        assert_eq!(version("6.12").patch, None);
        assert_eq!(version("7.3-rc1").series(), (7, 3));
        assert_eq!(version("3.10.0-1160.el7.x86_64").series(), (3, 10));
        for text in ["", "7", "v7.2", "7.x", "..", "99999999999.1"] {
            assert!(text.parse::<KernelVersion>().is_err(), "{text}");
        }
    }

    #[test]
    fn cpuinfo_without_a_vendor_is_no_cpu() {
        assert_eq!(Cpu::from_cpuinfo("processor : 0\nbogomips : 1\n"), None);
        let arm = Cpu::from_cpuinfo("processor\t: 0\nCPU implementer\t: 0x41\n").unwrap();
        assert_eq!(arm.vendor, CpuVendor::Arm);
        let power = Cpu::from_cpuinfo("processor\t: 0\ncpu\t\t: POWER9, altivec supported\n").unwrap();
        assert!(!power.is_zen_or_newer());
    }

    #[test]
    fn half_a_line_of_cpuinfo_is_not_believed() {
        let whole = "vendor_id\t: AuthenticAMD\ncpu family\t: 25\n";
        for len in 0..whole.len() {
            assert_eq!(Cpu::from_cpuinfo(&whole[..len]), None, "{len}");
        }
        assert!(Cpu::from_cpuinfo(whole).unwrap().is_zen_or_newer());
    }
}
