//! Why a verdict is what it is, in a form that text, JSON and errors share.

use alloc::string::String;
use core::fmt;

/// The decision points a request passes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Gate {
    /// `CONFIG_PCI_P2PDMA`.
    KernelConfig,
    /// An ACS control word on the path sends requests up.
    AcsRedirect,
    /// An ACS control word on the path was not read.
    AcsUnknown,
    /// The host bridge, which forwards or does not.
    HostBridge,
    /// The CPU, which may make the host bridge's question moot.
    Cpu,
    /// What a function hangs below is not known.
    ParentUnknown,
    /// The hardware at a port stops a request, sends it elsewhere, or may do anything:
    /// ACS, windows, decode enables.
    FabricPort,
    /// The root complex, which forwards peer requests or does not.
    RootComplex,
    /// How the IOMMU treats the initiator, and so which address it must be given.
    IommuMode,
    /// The width of addresses the initiator can form.
    AddressWidth,
    /// A payload larger than a port on the way accepts.
    PayloadSize,
    /// AtomicOps need every element on the way.
    Atomics,
    /// Something that was not read and is taken to be as usual.
    Assumed,
}

impl Gate {
    /// The code used in text and JSON.
    pub const fn code(self) -> &'static str {
        match self {
            Self::KernelConfig => "kernel_config",
            Self::AcsRedirect => "acs_redirect",
            Self::AcsUnknown => "acs_unknown",
            Self::HostBridge => "host_bridge",
            Self::Cpu => "cpu",
            Self::ParentUnknown => "parent_unknown",
            Self::FabricPort => "fabric_port",
            Self::RootComplex => "root_complex",
            Self::IommuMode => "iommu_mode",
            Self::AddressWidth => "address_width",
            Self::PayloadSize => "payload_size",
            Self::Atomics => "atomics",
            Self::Assumed => "assumed",
        }
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// One link of a reason chain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reason {
    /// Which decision point.
    pub gate: Gate,
    /// Which thing was looked at: a function's address, a host bridge, `cpu`, `kernel`.
    pub object: String,
    /// What was read, where, and the rule that fired.
    pub evidence: String,
    /// What would change it, if anything the reader can do would.
    pub fix: Option<String>,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.gate, self.object, self.evidence)?;
        match &self.fix {
            Some(fix) => write!(f, "; {fix}"),
            None => Ok(()),
        }
    }
}
