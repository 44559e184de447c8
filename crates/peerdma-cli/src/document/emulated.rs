//! The document of `copy --platform`.

use super::copy::DeliveryDocument;
use super::{Pair, Source};
use peerdma::addr::Bytes;
use peerdma::dma::Span;
use peerdma_linux::verified::Delivery;
use schemars::JsonSchema;
use serde::Serialize;

/// Document of `copy --platform`: a copy in a machine that runs in the process.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct EmulatedCopyDocument {
    /// Version of this schema.
    pub(crate) schema: u32,
    /// The platform, with what its registers told.
    pub(crate) source: Source,
    /// Seed of the bytes and of the order of what is free to choose.
    pub(crate) seed: u64,
    /// Where bytes come from, as it was asked for.
    pub(crate) from: String,
    /// Where they go to.
    pub(crate) to: String,
    /// How many bytes.
    pub(crate) size: u64,
    /// Who moves them.
    pub(crate) initiator: InitiatorDocument,
    /// The initiator and the other device's memory; null where the other end is RAM, for which
    /// no peer-to-peer rule applies.
    pub(crate) pair: Option<Pair>,
    /// Why it is refused, beyond the pair's own reasons; null where nothing is.
    pub(crate) refused: Option<String>,
    /// Whether --force was given: then a refused or unknown pair was tried all the same.
    pub(crate) forced: bool,
    /// What the initiator was handed; null where nothing was touched.
    pub(crate) granted: Option<HandedDocument>,
    /// Bytes that the engine reported as moved, whether or not they arrived; null where nothing
    /// was touched.
    pub(crate) moved: Option<u64>,
    /// What the engine said in place of being done; null where it said that it is.
    pub(crate) engine_error: Option<String>,
    /// What the destination's owner saw; null with --no-verify and where nothing was touched.
    pub(crate) verified: Option<OwnerDocument>,
    /// What was made to go wrong; null if nothing was.
    pub(crate) fault: Option<FaultDocument>,
    /// How fast; null where nothing was moved.
    pub(crate) speed: Option<SpeedDocument>,
}

/// Who moves the bytes.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct InitiatorDocument {
    /// Address of the function.
    pub(crate) function: String,
    /// Its name.
    pub(crate) name: String,
    /// Its engine, in words.
    pub(crate) engine: &'static str,
    /// `write` (it writes the other end) or `read` (it reads it).
    #[schemars(extend("enum" = ["write", "read"]))]
    pub(crate) access: &'static str,
}

/// What the initiator was handed for the other end.
#[derive(Serialize, JsonSchema, Clone, Debug)]
pub(crate) struct HandedDocument {
    /// `bus`, `iova` or `cpu_physical`.
    #[schemars(extend("enum" = ["bus", "iova", "cpu_physical"]))]
    pub(crate) address: &'static str,
    /// The first address.
    pub(crate) first: String,
    /// In how many stretches.
    pub(crate) spans: usize,
    /// Whether the mapping engine gave it; false where a driver that does not ask would have
    /// programmed it.
    pub(crate) asked: bool,
}

impl HandedDocument {
    /// What the spans of a mapping say; `None` of none.
    pub(crate) fn new(spans: &[Span], asked: bool) -> Option<Self> {
        let first = spans.first()?.address;
        let address = first.word();
        Some(Self { address, first: format!("{:#x}", first.as_u64()), spans: spans.len(), asked })
    }

    /// The same as a clause.
    pub(crate) fn words(&self) -> String {
        let kind = match self.address {
            "bus" => "bus address",
            "iova" => "IOVA",
            _ => "CPU-physical address",
        };
        let more = if self.spans > 1 { format!(" and {} more stretches", self.spans - 1) } else { String::new() };
        format!("{kind} {}{more}", self.first)
    }
}

/// What the destination's owner saw.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct OwnerDocument {
    /// Every byte arrived and nothing beside them changed.
    verified: bool,
    /// Bytes that were looked at.
    checked: u64,
    /// What came.
    delivery: DeliveryDocument,
}

impl OwnerDocument {
    pub(crate) fn new(checked: Bytes, delivery: &Delivery) -> Self {
        Self { verified: delivery.is_delivered(), checked: checked.as_u64(), delivery: delivery.into() }
    }
}

/// A fault that was asked for.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct FaultDocument {
    /// Its name.
    pub(crate) name: String,
    /// How often it struck.
    pub(crate) strikes: u64,
}

/// How fast bytes were moved.
#[derive(Serialize, JsonSchema, Clone, Debug)]
pub(crate) struct SpeedDocument {
    /// Seconds that the engine took.
    pub(crate) seconds: f64,
    /// Bytes a second.
    pub(crate) bytes_per_second: f64,
    /// Bytes a second that the processor copies, in this process and right after.
    pub(crate) memcpy_bytes_per_second: f64,
    /// The one as a part of the other.
    pub(crate) of_memcpy: f64,
}
