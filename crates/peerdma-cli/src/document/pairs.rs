//! Pairs and why: the documents of `matrix` and `route`.

use super::Source;
use crate::select::TargetRange;
use peerdma::route::kernel_view::{Common, Decision, KernelView};
use peerdma::route::{Reason, Verdict};
use peerdma::topology::FunctionId;
use schemars::JsonSchema;
use serde::Serialize;

/// Document of `matrix` and `route`.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct PairsDocument {
    /// Version of this schema.
    pub(crate) schema: u32,
    /// Where the facts came from.
    pub(crate) source: Source,
    /// `matrix`: row-major by address, initiators first. `route`: FROM to TO, then back.
    pub(crate) pairs: Vec<Pair>,
}

/// One ordered pair.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct Pair {
    /// Address of the function that sends requests (Linux: the client).
    initiator: String,
    /// Address of the function whose memory is reached (Linux: the provider).
    target: String,
    /// `direct`, `host_bridge`, `refused` or `unknown`.
    #[schemars(extend("enum" = ["direct", "host_bridge", "refused", "unknown"]))]
    verdict: &'static str,
    /// What Linux decides.
    kernel: KernelDocument,
    /// Why, in the order in which Linux meets it.
    reasons: Vec<ReasonDocument>,
    /// PIX, PXB, PHB, NODE, SYS or X; only with --proximity, null where not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    proximity: Option<Option<&'static str>>,
    /// Every function whose ACS was looked at; only in `route`.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<Vec<StepDocument>>,
    /// The range asked for; only in `route` with a BAR.
    #[serde(skip_serializing_if = "Option::is_none")]
    range: Option<RangeDocument>,
    /// What the kernel's boot parameters did to ports on the way; only in `route`.
    #[serde(skip_serializing_if = "Option::is_none")]
    boot: Option<Vec<String>>,
}

/// Linux's decision.
#[derive(Serialize, JsonSchema, Debug)]
struct KernelDocument {
    /// `BUS_ADDR`, `THRU_HOST_BRIDGE`, `NOT_SUPPORTED` or `UNKNOWN`.
    #[schemars(extend("enum" = ["BUS_ADDR", "THRU_HOST_BRIDGE", "NOT_SUPPORTED", "UNKNOWN"]))]
    map_type: &'static str,
    /// Hops on both sides added up, also where refused or unknown.
    distance: u32,
    /// Bridges on the way are hidden from the input: the distance is at least this.
    distance_is_lower_bound: bool,
    /// Functions that redirect, in the kernel's order: from the target up, then from the
    /// initiator up; empty where the two have no common device.
    acs_redirects: Vec<String>,
    /// Functions on the way whose ACS was not read.
    acs_unknown: Vec<String>,
    /// Series of the whitelist applied, such as `7.2`; `6.12..7.2` where the kernel lies
    /// between two; null below the oldest.
    table: Option<String>,
}

/// One reason.
#[derive(Serialize, JsonSchema, Debug)]
struct ReasonDocument {
    /// `kernel_config`, `acs_redirect`, `acs_unknown`, `host_bridge`, `cpu` or `parent_unknown`.
    #[schemars(extend("enum" = ["kernel_config", "acs_redirect", "acs_unknown", "host_bridge", "cpu", "parent_unknown"]))]
    gate: &'static str,
    /// What was looked at.
    object: String,
    /// What was read, where, and the rule.
    evidence: String,
    /// What would change it; null where nothing the reader can do would.
    fix: Option<String>,
}

impl From<Reason> for ReasonDocument {
    fn from(reason: Reason) -> Self {
        Self { gate: reason.gate.code(), object: reason.object, evidence: reason.evidence, fix: reason.fix }
    }
}

/// A function on the way.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct StepDocument {
    /// Its address.
    pub(crate) function: String,
    /// `target`, `initiator`, `common` or `port`.
    pub(crate) role: &'static str,
    /// Whether Linux counts it as redirecting; null where not read.
    pub(crate) redirects: Option<bool>,
    /// What its ACS says and where that was read.
    pub(crate) evidence: String,
}

/// A range of a BAR.
#[derive(Serialize, JsonSchema, Debug)]
struct RangeDocument {
    /// BAR, 0 to 5.
    bar: u8,
    /// Bytes from the BAR's start.
    offset: u64,
    /// Bytes; null where the input does not tell the BAR's size.
    len: Option<u64>,
    /// First address as the CPU sees it.
    cpu_address: Option<String>,
    /// First address below the host bridge.
    bus_address: Option<String>,
}

impl From<&TargetRange> for RangeDocument {
    fn from(range: &TargetRange) -> Self {
        Self {
            bar: range.bar,
            offset: range.offset.as_u64(),
            len: range.len.map(|len| len.as_u64()),
            cpu_address: range.cpu.map(|cpu| cpu.start().to_string()),
            bus_address: range.bus.map(|bus| bus.to_string()),
        }
    }
}

impl Pair {
    pub(crate) fn new(view: &KernelView<'_>, decision: &Decision) -> Self {
        let address = |id: FunctionId| view.topology().function(id).address().to_string();
        let meet = matches!(decision.common, Common::At(_) | Common::AtOrBelow(_));
        Self {
            initiator: address(decision.client),
            target: address(decision.provider),
            verdict: Verdict::from(decision.map_type).word(),
            kernel: KernelDocument {
                map_type: decision.map_type.word(),
                distance: decision.distance,
                distance_is_lower_bound: !decision.hidden_below.is_empty(),
                acs_redirects: decision.redirects().filter(|_| meet).map(address).collect(),
                acs_unknown: decision.unread().map(address).collect(),
                table: view.tables().label(),
            },
            reasons: view.reasons(decision).into_iter().map(Into::into).collect(),
            proximity: None,
            path: None,
            range: None,
            boot: None,
        }
    }

    pub(crate) fn with_proximity(mut self, word: Option<&'static str>) -> Self {
        self.proximity = Some(word);
        self
    }

    pub(crate) fn explained(mut self, path: Vec<StepDocument>, range: Option<&TargetRange>, boot: Vec<String>) -> Self {
        self.path = Some(path);
        self.range = range.map(Into::into);
        self.boot = Some(boot);
        self
    }
}
