//! The document of `trace`.

use super::{Pair, Source};
use schemars::JsonSchema;
use serde::Serialize;

/// Document of `trace`: one request in a machine that runs in the process.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct TraceDocument {
    /// Version of this schema.
    pub(crate) schema: u32,
    /// The platform, with what its registers told.
    pub(crate) source: Source,
    /// Seed of the order of what is free to choose.
    pub(crate) seed: u64,
    /// Who sends.
    pub(crate) from: String,
    /// To whom.
    pub(crate) to: String,
    /// `write`, `read` or `atomic`.
    #[schemars(extend("enum" = ["write", "read", "atomic"]))]
    pub(crate) kind: &'static str,
    /// What the verdict says; null where the target is RAM, for which no peer-to-peer rule applies.
    pub(crate) pair: Option<Pair>,
    /// The number that was put on the wire.
    pub(crate) address: String,
    /// `bus`, `iova` or `cpu_physical`: what the number was meant to be.
    #[schemars(extend("enum" = ["bus", "iova", "cpu_physical"]))]
    pub(crate) address_kind: &'static str,
    /// Whether the mapping engine gave it; false where a driver that does not ask would have
    /// programmed it.
    pub(crate) asked: bool,
    /// What the resolver's fabric view says becomes of such a request: `arrives`, `lost`,
    /// `undefined` or `unknown`; null where the target is RAM.
    #[schemars(extend("enum" = ["arrives", "lost", "undefined", "unknown", null]))]
    pub(crate) foretold: Option<&'static str>,
    /// Whether every request arrived where it was meant to, and was answered if it asked.
    pub(crate) arrived: bool,
    /// Whether that is what was foretold; null where nothing definite was.
    pub(crate) agrees: Option<bool>,
    /// What the requester was told instead of success; null where nothing.
    pub(crate) failure: Option<String>,
    /// Each request, in the order of sending; several where the length is more than a packet holds.
    pub(crate) requests: Vec<RequestDocument>,
}

/// One request.
#[derive(Serialize, JsonSchema, Clone, Debug)]
pub(crate) struct RequestDocument {
    /// Its number since the machine's start.
    pub(crate) number: u64,
    /// Whether it arrived where it was meant to.
    pub(crate) arrived: bool,
    /// What happened to it, in order.
    pub(crate) hops: Vec<HopDocument>,
}

/// One thing that happened to a request.
#[derive(Serialize, JsonSchema, Clone, Debug)]
pub(crate) struct HopDocument {
    /// `sent`, `went`, `overtook`, `at_function`, `in_memory`, `interrupt`, `page_requested`, `translated`,
    /// `all_ones`, `ended`, `completion_went`, `completion_ended`, `answered`, `failed`, `response_went`,
    /// `responded` or `other`.
    pub(crate) what: &'static str,
    /// Address of the port or function; null where it is none.
    pub(crate) function: Option<String>,
    /// The address on the wire from here on; null where nothing goes on.
    pub(crate) address: Option<String>,
    /// The requester ID from here on; null where nothing goes on.
    pub(crate) requester: Option<String>,
    /// The same in words.
    pub(crate) text: String,
}
