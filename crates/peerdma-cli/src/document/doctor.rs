//! Document of `doctor`.

use super::Source;
use peerdma::route::checkup::Check;
use schemars::JsonSchema;
use serde::Serialize;

/// Document of `doctor`.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct DoctorDocument {
    /// Version of this schema.
    pub(crate) schema: u32,
    /// Where the facts came from.
    pub(crate) source: Source,
    /// What was looked at, gate by gate in their order; what the log tells of a gate comes last.
    pub(crate) gates: Vec<CheckDocument>,
    /// What the kernel log tells, alike ones once, in its order.
    pub(crate) events: Vec<EventDocument>,
    /// What the reader must know before believing any of it.
    pub(crate) notes: Vec<String>,
}

/// One thing that was looked at.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct CheckDocument {
    /// `kernel`, `bars`, `route`, `iommu`, `direction` or `grant`.
    #[schemars(extend("enum" = ["kernel", "bars", "route", "iommu", "direction", "grant"]))]
    gate: &'static str,
    /// `OK`, `FAIL` or `UNKNOWN`.
    #[schemars(extend("enum" = ["OK", "FAIL", "UNKNOWN"]))]
    status: &'static str,
    /// What was looked at.
    object: String,
    /// What was read, and where.
    evidence: String,
    /// What to do next; null where there is nothing.
    next: Option<String>,
}

impl From<&Check> for CheckDocument {
    fn from(check: &Check) -> Self {
        Self {
            gate: check.station.word(),
            status: check.status.word(),
            object: check.object.clone(),
            evidence: check.evidence.clone(),
            next: check.next.clone(),
        }
    }
}

/// One thing that the kernel log tells.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct EventDocument {
    /// What it is: `p2p_refused`, `p2p_redirected`, `iommu_fault`, `aer`, `vfio`, …
    pub(crate) kind: &'static str,
    /// Whom it concerns; null where the log does not tell.
    pub(crate) device: Option<String>,
    /// The address that the device sent; null where there is none.
    pub(crate) address: Option<String>,
    /// What that number is: `bus`, `cpu_physical`, `bus_and_cpu_physical`, `window`, `reserved`, `ram` or `iova`.
    pub(crate) address_kind: Option<&'static str>,
    /// Whose memory it is, where it is a BAR's.
    pub(crate) owner: Option<String>,
    /// What it means.
    pub(crate) meaning: String,
    /// How often, in lines that differ in the address at most.
    pub(crate) count: usize,
    /// The first such line, without its stamp.
    pub(crate) text: String,
}
