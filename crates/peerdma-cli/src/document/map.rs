//! Document of `map`.

use super::{ReasonDocument, Source};
use schemars::JsonSchema;
use serde::Serialize;

/// Document of `map`.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct MapDocument {
    /// Version of this schema.
    pub(crate) schema: u32,
    /// Where the facts came from.
    pub(crate) source: Source,
    /// `planned`, `refused` or `unknown`.
    #[schemars(extend("enum" = ["planned", "refused", "unknown"]))]
    pub(crate) outcome: &'static str,
    /// The device that will use the mapping.
    pub(crate) initiator: InitiatorDocument,
    /// What translates; null where nothing does, or where the input does not tell.
    pub(crate) tables: Option<TablesDocument>,
    /// One a chunk, in the order given, the doorbell last.
    pub(crate) chunks: Vec<ChunkDocument>,
    /// What stands against the list as a whole; null where nothing does.
    pub(crate) refusal: Option<RefusalDocument>,
    /// Bytes that are mapped, with those of chunks beside refused ones.
    pub(crate) bytes: u64,
    /// IOVAs in use, this plan's own; null without any.
    pub(crate) iovas: Option<RangeDocument>,
    /// How many segments the device gets.
    pub(crate) segments: u64,
    /// Each of them; only with --spans, else null.
    pub(crate) spans: Option<Vec<SpanDocument>>,
    /// What has to happen between the payload and the doorbell; null without --doorbell.
    pub(crate) ring: Option<RingDocument>,
}

/// The device that will use the mapping.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct InitiatorDocument {
    /// Its address.
    pub(crate) function: String,
    /// `translated`, `identity` or `none`; null where not told.
    #[schemars(extend("enum" = ["translated", "identity", "none", null]))]
    pub(crate) iommu: Option<String>,
    /// What was read about the mode, and where.
    pub(crate) iommu_evidence: String,
    /// Bits of address that it forms.
    pub(crate) mask_bits: u8,
    /// Whether the mask was given or told, and not assumed.
    pub(crate) mask_is_told: bool,
    /// Highest address that reaches anything from it; null where the mode is not told.
    pub(crate) highest: Option<String>,
    /// Whether its accesses are snooped.
    pub(crate) coherent: bool,
    /// Whether it may see bytes beside those it is given.
    pub(crate) trusted: bool,
    /// `never`, `as_needed` or `forced`.
    #[schemars(extend("enum" = ["never", "as_needed", "forced"]))]
    pub(crate) bouncing: &'static str,
    /// State of its interface towards a confidential guest: `plain`, `unlocked`, `locked`, `run`, `error`.
    #[schemars(extend("enum" = ["plain", "unlocked", "locked", "run", "error"]))]
    pub(crate) interface: &'static str,
}

/// The tables of the IOMMU.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct TablesDocument {
    /// `vtd`, `amd-v1`, `x86-first-stage`, `arm-s1` or `arm-s2`.
    #[schemars(extend("enum" = ["vtd", "amd-v1", "x86-first-stage", "arm-s1", "arm-s2"]))]
    pub(crate) format: &'static str,
    /// Whether the format was assumed, since nothing told it.
    pub(crate) assumed: bool,
    /// Why this format.
    pub(crate) evidence: String,
    /// How many tables the plan takes, the root among them; null where nothing was mapped.
    pub(crate) count: Option<usize>,
    /// How many bytes they take.
    pub(crate) bytes: Option<u64>,
}

/// A chunk, and what came of it.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct ChunkDocument {
    /// As it was typed.
    pub(crate) chunk: String,
    /// `ram`, `private`, `bar` or `device`.
    #[schemars(extend("enum" = ["ram", "private", "bar", "device"]))]
    pub(crate) owner: &'static str,
    /// Address of the function whose BAR it is, else null.
    pub(crate) function: Option<String>,
    /// Index of the BAR, else null.
    pub(crate) bar: Option<u8>,
    /// As the CPU addresses it; null where not known.
    pub(crate) cpu: Option<RangeDocument>,
    /// Bytes.
    pub(crate) len: u64,
    /// What the device does: `r`, `w` or `rw`.
    #[schemars(extend("enum" = ["r", "w", "rw"]))]
    pub(crate) access: String,
    /// `memory`, `stated`, or the pair's verdict: `direct`, `host_bridge`, `refused`, `unknown`.
    #[schemars(extend("enum" = ["memory", "stated", "direct", "host_bridge", "refused", "unknown"]))]
    pub(crate) route: &'static str,
    /// `mapped`, `refused`, `unknown`, or `not_placed` where the list as a whole was not mapped.
    #[schemars(extend("enum" = ["mapped", "refused", "unknown", "not_placed"]))]
    pub(crate) outcome: &'static str,
    /// Parts that the device sees contiguously, in order, before segments are cut; empty unless mapped.
    pub(crate) pieces: Vec<PieceDocument>,
    /// Why it is not mapped; null where it is.
    pub(crate) refusal: Option<RefusalDocument>,
}

/// A part of a chunk that the device sees contiguously.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct PieceDocument {
    /// What the device gets.
    pub(crate) span: SpanDocument,
    /// Segments in it; one that it shares with a chunk before it counts for both.
    pub(crate) segments: u64,
    /// Pages that hold it, largest first; empty where no table does.
    pub(crate) pages: Vec<PagesDocument>,
    /// What the tables' entries permit, `r`, `w` or `rw`; null where no table holds it.
    pub(crate) entry_access: Option<String>,
    /// What the entries say of the memory, as far as the format has bits for it.
    pub(crate) entry_attributes: Option<String>,
}

/// Pages of one size.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct PagesDocument {
    /// Bytes of a page.
    pub(crate) size: u64,
    /// How many of them.
    pub(crate) count: u64,
}

/// A stretch as the device gets it.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct SpanDocument {
    /// Bytes of the mapping before it.
    pub(crate) at: u64,
    /// Kind of address: `bus`, `iova` or `cpu_physical`.
    #[schemars(extend("enum" = ["bus", "iova", "cpu_physical"]))]
    pub(crate) kind: &'static str,
    /// Domain and root bus of the host bridge below which a bus address means something, where known.
    pub(crate) host_bridge: Option<String>,
    /// First and last address.
    pub(crate) address: RangeDocument,
    /// Bytes.
    pub(crate) len: u64,
    /// `memory` or `mmio`.
    #[schemars(extend("enum" = ["memory", "mmio"]))]
    pub(crate) behind: &'static str,
    /// Whether the device's accesses are snooped.
    pub(crate) snooped: bool,
    /// Whether it is a copy.
    pub(crate) bounced: bool,
}

/// A range of addresses, both ends inclusive.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct RangeDocument {
    pub(crate) first: String,
    pub(crate) last: String,
}

/// Why something is not mapped.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct RefusalDocument {
    /// What stands in the way, in a word, such as `route`, `above_mask` or `no_pool`.
    pub(crate) code: &'static str,
    /// One sentence.
    pub(crate) what: String,
    /// The chain of a route's reasons.
    pub(crate) reasons: Vec<ReasonDocument>,
}

/// What has to happen between the payload and the doorbell.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct RingDocument {
    /// In order; empty if the doorbell does not overtake the payload.
    pub(crate) steps: Vec<StepDocument>,
    /// Whether the device may mark writes as relaxed in order, which asks for more where it does.
    pub(crate) may_relax: bool,
}

/// Something to do.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct StepDocument {
    /// The word for it.
    pub(crate) step: &'static str,
    /// What is to be done.
    pub(crate) what: &'static str,
    /// The rule.
    pub(crate) rule: &'static str,
}
