//! The document of `fix`, which `verify` reads.

use super::whatif::MergedDocument;
use super::{ReasonDocument, Source};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Document of `fix`.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct FixDocument {
    /// Version of this schema.
    pub(crate) schema: u32,
    /// Where the facts came from.
    pub(crate) source: Source,
    /// `found`, `not_needed`, `none` or `facts_missing`.
    #[schemars(extend("enum" = ["found", "not_needed", "none", "facts_missing"]))]
    pub(crate) outcome: &'static str,
    /// The pairs, as asked for.
    pub(crate) pairs: Vec<FixedPair>,
    /// The ports to change; empty unless found.
    pub(crate) ports: Vec<PortDocument>,
    /// Whether fewer ports are known not to do.
    pub(crate) proven_smallest: bool,
    /// The kernel parameter to boot with; null where nothing changes, or the kernel has none that does it.
    pub(crate) cmdline: Option<String>,
    /// Both kernel parameters that may do it, and what each leaves behind.
    pub(crate) parameters: Vec<ParameterDocument>,
    /// `iommu=pt` or `iommu.passthrough=1` where a pair may need it besides: an initiator whose
    /// driver hands out IOVAs in a translated domain does not use the direct route.
    pub(crate) iommu: Option<String>,
    /// The line for /etc/default/grub or a file below /etc/default/grub.d; null without `cmdline`.
    pub(crate) grub: Option<String>,
    /// The change at once, by hand, lost at the next reset or boot.
    pub(crate) setpci: Vec<String>,
    /// IOMMU groups as a boot with the present ACS words forms them, predicted for an IOMMU in use.
    pub(crate) groups_before: Vec<Vec<String>>,
    /// IOMMU groups as a boot with the changed words forms them, predicted for an IOMMU in use.
    pub(crate) groups_after: Vec<Vec<String>>,
    /// Functions whose group, before or after, what was read does not tell.
    pub(crate) groups_unknown: Vec<String>,
    /// Groups that become one: the isolation it costs.
    pub(crate) merged: Vec<MergedDocument>,
    /// Why there is none, or which facts are missing.
    pub(crate) reasons: Vec<ReasonDocument>,
    /// What a reader has to know.
    pub(crate) notes: Vec<String>,
}

/// A pair before and after.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct FixedPair {
    /// Address of the initiator.
    pub(crate) initiator: String,
    /// Address of the target.
    pub(crate) target: String,
    /// Verdict now.
    #[schemars(extend("enum" = ["direct", "host_bridge", "refused", "unknown"]))]
    pub(crate) now: &'static str,
    /// Verdict with the ports changed.
    #[schemars(extend("enum" = ["direct", "host_bridge", "refused", "unknown"]))]
    pub(crate) then: &'static str,
    /// The address the initiator must be given then.
    #[schemars(extend("enum" = ["bus", "iova", "cpu_physical", "unknown", "none"]))]
    pub(crate) address: &'static str,
}

/// Bits to change at one port.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct PortDocument {
    /// Its address now; bus numbers may change at a boot.
    #[serde(default)]
    pub(crate) bdf: Option<String>,
    /// Its path from the root bus, as the kernel's parameters take it; null where not known.
    #[serde(default)]
    pub(crate) path: Option<String>,
    /// Bits to clear: of `sv`, `tb`, `rr`, `cr`, `uf`, `ec`, `dt`.
    #[serde(default)]
    pub(crate) clear: Vec<String>,
    /// Bits to set.
    #[serde(default)]
    pub(crate) set: Vec<String>,
}

/// One kernel parameter.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct ParameterDocument {
    /// As it stands on a command line.
    pub(crate) argument: String,
    /// The option whose list it takes over, to be taken off the present line.
    pub(crate) replaces: Option<String>,
    /// The whole command line with it; null where the present one is not known.
    pub(crate) line: Option<String>,
    /// Whether it does what is wanted, whatever firmware left.
    pub(crate) suffices: bool,
    /// Whether the kernel knows it; null where its version is not told.
    pub(crate) known_to_kernel: Option<bool>,
    /// What it leaves in the control words of the ports.
    pub(crate) leaves: Vec<LeftDocument>,
}

/// A control word after a boot.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct LeftDocument {
    /// The port.
    pub(crate) bdf: String,
    /// Bits that are set.
    pub(crate) set: Vec<String>,
    /// Bits that are clear.
    pub(crate) clear: Vec<String>,
    /// Bits that are what firmware left, which is not known.
    pub(crate) firmware: Vec<String>,
}
