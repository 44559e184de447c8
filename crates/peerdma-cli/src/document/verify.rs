//! The document of `verify`.

use super::Source;
use super::whatif::MergedDocument;
use schemars::JsonSchema;
use serde::Serialize;

/// Document of `verify`.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct VerifyDocument {
    /// Version of this schema.
    pub(crate) schema: u32,
    /// Where the facts came from.
    pub(crate) source: Source,
    /// The ports wanted, in their order.
    pub(crate) ports: Vec<CheckDocument>,
    /// Whether the IOMMU groups are those that a boot with the present ACS words forms.
    pub(crate) groups: CheckDocument,
    /// Groups of wanted ports that are still apart and would be one after a boot.
    pub(crate) stale_apart: Vec<MergedDocument>,
    /// Groups of wanted ports that are still one and would be apart after a boot.
    pub(crate) stale_together: Vec<MergedDocument>,
}

/// One check.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct CheckDocument {
    /// What was looked at: an address, or a path where no function is at it; `groups`.
    pub(crate) object: String,
    /// `OK`, `FAIL` or `UNKNOWN`.
    #[schemars(extend("enum" = ["OK", "FAIL", "UNKNOWN"]))]
    pub(crate) status: &'static str,
    /// What was read.
    pub(crate) evidence: String,
}
