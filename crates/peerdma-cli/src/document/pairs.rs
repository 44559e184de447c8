//! Pairs and why: the documents of `matrix` and `route`.

use super::Source;
use peerdma::route::fabric::{Fate, Handed, Passage, Way};
use peerdma::route::kernel_view::Common;
use peerdma::route::knowledge::{self, Entry};
use peerdma::route::payload;
use peerdma::route::{Judge, PairVerdict, Reason, Target};
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
    /// Whether reads return the target's bytes: `permitted`, `refused` or `unknown`.
    #[schemars(extend("enum" = ["permitted", "refused", "unknown"]))]
    read: &'static str,
    /// Whether writes arrive.
    #[schemars(extend("enum" = ["permitted", "refused", "unknown"]))]
    write: &'static str,
    /// Whether atomic operations do.
    #[schemars(extend("enum" = ["permitted", "refused", "unknown"]))]
    atomic: &'static str,
    /// Which kind of address the initiator must be given: `bus`, `iova`, `cpu_physical`,
    /// `unknown` or `none`.
    #[schemars(extend("enum" = ["bus", "iova", "cpu_physical", "unknown", "none"]))]
    address: &'static str,
    /// How the IOMMU treats the initiator: `translated`, `identity` or `none`; null where not told.
    #[schemars(extend("enum" = ["translated", "identity", "none", null]))]
    iommu: Option<String>,
    /// What Linux decides.
    kernel: KernelDocument,
    /// What the hardware does, by the PCI Express specification.
    fabric: FabricDocument,
    /// Where the two differ, and what that means in practice; null where they agree.
    views_differ: Option<DifferenceDocument>,
    /// Why: Linux's reasons in its order, then the hardware's, then those of addresses and sizes.
    reasons: Vec<ReasonDocument>,
    /// PIX, PXB, PHB, NODE, SYS or X; only with --proximity, null where not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    proximity: Option<Option<&'static str>>,
    /// Every function whose ACS was looked at; only in `route`.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<Vec<StepDocument>>,
    /// The range asked for, the largest BAR where none was; only in `route`.
    #[serde(skip_serializing_if = "Option::is_none")]
    range: Option<RangeDocument>,
    /// What the kernel's boot parameters did to ports on the way; only in `route`.
    #[serde(skip_serializing_if = "Option::is_none")]
    boot: Option<Vec<String>>,
    /// What another kind of address than `address` leads to; only in `route`, null where none leads there.
    #[serde(skip_serializing_if = "Option::is_none")]
    wrong_address: Option<Option<String>>,
    /// Sizes of packets and the narrowest link; only in `route`.
    #[serde(skip_serializing_if = "Option::is_none")]
    transfer: Option<TransferDocument>,
    /// What was not read and is taken to be as usual; only in `route`.
    #[serde(skip_serializing_if = "Option::is_none")]
    assumed: Option<Vec<ReasonDocument>>,
    /// What is known of such machines, beside the verdict and never instead of it; only in `route`.
    #[serde(skip_serializing_if = "Option::is_none")]
    known: Option<Vec<KnownDocument>>,
}

/// What the hardware does with requests that carry the address of the route.
#[derive(Serialize, JsonSchema, Debug)]
struct FabricDocument {
    /// Writes.
    write: PassageDocument,
    /// Reads.
    read: PassageDocument,
    /// Atomic operations.
    atomic: PassageDocument,
    /// Bus addresses on the switch-direct route, of an initiator that VFIO owns and that gets
    /// them on request only; null for all others.
    on_request: Option<BothDocument>,
    /// Translated addresses, of an initiator with ATS enabled in a translating domain; null for
    /// all others.
    translated: Option<BothDocument>,
}

/// Writes and reads that carry another address than the route's.
#[derive(Serialize, JsonSchema, Debug)]
struct BothDocument {
    /// Writes.
    write: PassageDocument,
    /// Reads.
    read: PassageDocument,
}

impl From<&[Passage; 2]> for BothDocument {
    fn from([write, read]: &[Passage; 2]) -> Self {
        Self { write: write.into(), read: read.into() }
    }
}

/// One kind of request.
#[derive(Serialize, JsonSchema, Debug)]
struct PassageDocument {
    /// `arrives` (for reads and atomics with the completion), `lost`, `undefined` (the
    /// specification leaves it open) or `unknown`.
    #[schemars(extend("enum" = ["arrives", "lost", "undefined", "unknown"]))]
    fate: &'static str,
    /// `below_root` or `root_complex`; null where not known.
    #[schemars(extend("enum" = ["below_root", "root_complex", null]))]
    way: Option<&'static str>,
    /// The address it was followed with: `bus`, `iova`, `cpu_physical`, `translated`.
    #[schemars(extend("enum" = ["bus", "iova", "cpu_physical", "translated"]))]
    with: &'static str,
}

impl From<&Passage> for PassageDocument {
    fn from(passage: &Passage) -> Self {
        Self {
            fate: fate_word(passage.fate),
            way: passage.way.map(|way| match way {
                Way::BelowRoot => "below_root",
                Way::RootComplex => "root_complex",
            }),
            with: match passage.handed {
                Handed::Bus => "bus",
                Handed::Iova => "iova",
                Handed::CpuPhysical => "cpu_physical",
                Handed::Translated => "translated",
            },
        }
    }
}

/// The word for what becomes of a request.
pub(crate) const fn fate_word(fate: Fate) -> &'static str {
    match fate {
        Fate::Arrives => "arrives",
        Fate::Lost => "lost",
        Fate::Undefined => "undefined",
        Fate::Unknown => "unknown",
    }
}

/// A difference between the two views.
#[derive(Serialize, JsonSchema, Debug)]
struct DifferenceDocument {
    /// `refused_but_direct`, `refused_but_forwarded`, `host_bridge_but_direct`,
    /// `mapped_but_lost`, `mapped_but_half_lost` or `mapped_but_open`.
    code: &'static str,
    /// One sentence.
    meaning: String,
}

/// How a transfer behaves.
#[derive(Serialize, JsonSchema, Debug)]
struct TransferDocument {
    /// Largest payload in bytes that the initiator sends (MPS); null where not read.
    max_payload: Option<u64>,
    /// Largest payload that the target sends.
    target_max_payload: Option<u64>,
    /// Largest read in bytes that the initiator requests (MRRS).
    max_read_request: Option<u64>,
    /// Whether the initiator may mark requests as relaxed in order.
    relaxed_ordering: Option<bool>,
    /// Whether it may mark them as not snooped.
    no_snoop: Option<bool>,
    /// Functions on the way whose payload size was not read.
    payload_unread: Vec<String>,
    /// The link on the way that carries least, of those that are told.
    narrowest_link: Option<NarrowestDocument>,
}

/// A link.
#[derive(Serialize, JsonSchema, Debug)]
struct NarrowestDocument {
    /// The function at one end.
    function: String,
    /// Speed, such as `16 GT/s`.
    speed: String,
    /// Lanes.
    width: u8,
}

/// An entry of the knowledge base.
#[derive(Serialize, JsonSchema, Debug)]
struct KnownDocument {
    /// What was found, in a word.
    finding: &'static str,
    /// What was seen, and under which conditions.
    what: String,
    /// Who reported it.
    source: String,
}

impl From<Entry> for KnownDocument {
    fn from(entry: Entry) -> Self {
        Self { finding: entry.finding.word(), what: entry.what.to_string(), source: entry.source.to_string() }
    }
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
pub(crate) struct ReasonDocument {
    /// Which decision point.
    #[schemars(extend("enum" = [
        "kernel_config", "acs_redirect", "acs_unknown", "host_bridge", "cpu", "parent_unknown", "fabric_port",
        "root_complex", "iommu_mode", "address_width", "payload_size", "atomics", "assumed"
    ]))]
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

impl RangeDocument {
    fn of(target: &Target) -> Option<Self> {
        Some(Self {
            bar: target.bar()?,
            offset: target.offset().as_u64(),
            len: target.len().map(|len| len.as_u64()),
            cpu_address: target.cpu().map(|cpu| cpu.start().to_string()),
            bus_address: target.bus().map(|bus| bus.start().to_string()),
        })
    }
}

impl Pair {
    pub(crate) fn new(judge: &Judge<'_>, pair: &PairVerdict) -> Self {
        let address = |id: FunctionId| judge.topology().function(id).address().to_string();
        let decision = &pair.kernel;
        let meet = matches!(decision.common, Common::At(_) | Common::AtOrBelow(_));
        Self {
            initiator: address(pair.initiator),
            target: address(pair.target.function()),
            verdict: pair.verdict.word(),
            read: pair.read.word(),
            write: pair.write.word(),
            atomic: pair.atomic.word(),
            address: pair.address.kind().word(),
            iommu: pair.domain.mode.map(|mode| mode.to_string()),
            kernel: KernelDocument {
                map_type: decision.map_type.word(),
                distance: decision.distance,
                distance_is_lower_bound: !decision.hidden_below.is_empty(),
                acs_redirects: decision.redirects().filter(|_| meet).map(address).collect(),
                acs_unknown: decision.unread().map(address).collect(),
                table: judge.kernel().tables().label(),
            },
            fabric: FabricDocument {
                write: (&pair.fabric_write).into(),
                read: (&pair.fabric_read).into(),
                atomic: (&pair.fabric_atomic).into(),
                on_request: pair.on_request.as_ref().map(Into::into),
                translated: pair.translated.as_ref().map(Into::into),
            },
            views_differ: pair
                .difference
                .map(|difference| DifferenceDocument { code: difference.word(), meaning: difference.to_string() }),
            reasons: judge.reasons(pair).into_iter().map(Into::into).collect(),
            proximity: None,
            path: None,
            range: None,
            boot: None,
            wrong_address: None,
            transfer: None,
            assumed: None,
            known: None,
        }
    }

    pub(crate) fn with_proximity(mut self, word: Option<&'static str>) -> Self {
        self.proximity = Some(word);
        self
    }

    /// With everything that `route` tells beside the verdict.
    pub(crate) fn explained(
        mut self,
        judge: &Judge<'_>,
        pair: &PairVerdict,
        path: Vec<StepDocument>,
        boot: Vec<String>,
    ) -> Self {
        self.path = Some(path);
        self.range = RangeDocument::of(&pair.target);
        self.boot = Some(boot);
        self.wrong_address = Some(pair.wrong_address());
        self.transfer = Some(transfer(judge, pair));
        self.assumed = Some(judge.assumed(pair).into_iter().map(Into::into).collect());
        let known = knowledge::about(judge.topology(), pair.initiator, pair.target.function());
        self.known = Some(known.into_iter().map(Into::into).collect());
        self
    }
}

fn transfer(judge: &Judge<'_>, pair: &PairVerdict) -> TransferDocument {
    let topology = judge.topology();
    let express = |id: FunctionId| payload::in_force(topology, id);
    let (initiator, target) = (express(pair.initiator), express(pair.target.function()));
    let address = |id: FunctionId| topology.function(id).address().to_string();
    TransferDocument {
        max_payload: initiator.max_payload.map(|size| size.as_u64()),
        target_max_payload: target.max_payload.map(|size| size.as_u64()),
        max_read_request: initiator.max_read_request.map(|size| size.as_u64()),
        relaxed_ordering: initiator.relaxed_ordering,
        no_snoop: initiator.no_snoop,
        payload_unread: pair.payload.unread.iter().copied().map(address).collect(),
        narrowest_link: pair.payload.narrowest.map(|link| NarrowestDocument {
            function: address(link.function),
            speed: link.speed.to_string(),
            width: link.width,
        }),
    }
}
