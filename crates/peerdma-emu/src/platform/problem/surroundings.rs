//! What stands around the hierarchy: CPU, kernel, IOMMU, RAM, host bridges.

use super::Buses;
use crate::platform::words::ModeWord;
use peerdma::addr::Bytes;

/// What is wrong around the hierarchy.
///
/// Fields named `line` are where the other party to a conflict stands.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SurroundingsProblem {
    /// A machine's name that could not be printed.
    #[error("{name:?} is not a name for a machine; write visible characters in one line")]
    PlatformName {
        /// The text.
        name: String,
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
}
