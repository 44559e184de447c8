//! The JSON documents, which are the machine interface; `--schema` publishes them.
//!
//! Fields are added, never renamed or removed, while [`SCHEMA`] stays.

use crate::input::Loaded;
use crate::select::TargetRange;
use peerdma::pcie::Fact;
use peerdma::pcie::acs::Acs;
use peerdma::pcie::decode::HeaderType;
use peerdma::route::kernel_view::{Common, Decision, KernelView};
use peerdma::route::{Reason, Verdict};
use peerdma::topology::{Function, FunctionId, Parent, Topology};
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;

/// Version of the documents.
pub(crate) const SCHEMA: u32 = 1;

/// Where the facts came from.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct Source {
    /// `live`, `sysfs`, `archive`, `capture`, `lspci` or `platform`.
    kind: &'static str,
    /// Path or platform name; null for this machine.
    path: Option<String>,
    /// `vendor:family`, null where not told.
    cpu: Option<String>,
    /// Kernel version whose rules were applied, null where not told (the newest table was).
    kernel: Option<String>,
    /// Whether all of config space could be read; null where the input does not tell.
    privileged: Option<bool>,
    /// What the reader of the input should know: contradictions, skipped parts.
    notes: Vec<String>,
}

impl Source {
    pub(crate) fn new(loaded: &Loaded) -> Self {
        let machine = loaded.topology.machine();
        Self {
            kind: loaded.kind.word(),
            path: loaded.path.clone(),
            cpu: machine.cpu.as_ref().map(|cpu| format!("{}:{}", cpu.vendor, cpu.family)),
            kernel: machine.kernel.map(|version| version.to_string()),
            privileged: loaded.privileged,
            notes: loaded.notes.clone(),
        }
    }
}

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

/// Document of `topo`.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct TopologyDocument {
    /// Version of this schema.
    schema: u32,
    /// Where the facts came from.
    source: Source,
    /// Host bridges.
    host_bridges: Vec<HostBridgeDocument>,
    /// Functions, in order of addresses.
    functions: Vec<FunctionDocument>,
    /// IOMMU groups.
    iommu_groups: Vec<GroupDocument>,
}

#[derive(Serialize, JsonSchema, Debug)]
struct HostBridgeDocument {
    /// `dddd:bb` of its root bus.
    root_bus: String,
    /// The first device of the root bus, which stands for it in Linux's whitelist.
    first_device: Option<String>,
}

/// One function.
#[derive(Serialize, JsonSchema, Debug)]
struct FunctionDocument {
    address: String,
    /// Address of the bridge above; null on a root bus or where unknown.
    parent: Option<String>,
    /// `root_bus`, `bridge` or `unknown`.
    position: &'static str,
    /// Physical function of a virtual one.
    physical_function: Option<String>,
    /// `vendor:device`; several where only a name is known, none where nothing is.
    ids: Vec<String>,
    class: Option<String>,
    /// `device`, `bridge`, `cardbus`, `other`; null where not read.
    header: Option<&'static str>,
    port_type: Option<String>,
    label: Option<String>,
    names: Vec<String>,
    driver: Option<String>,
    numa_node: Option<u32>,
    iommu_group: Option<u32>,
    acs: AcsDocument,
    link: LinkDocument,
    /// Largest payload programmed, bytes.
    max_payload: Option<u64>,
    /// Largest payload supported, bytes.
    max_payload_supported: Option<u64>,
    /// Largest read request programmed, bytes.
    max_read_request: Option<u64>,
    bars: Vec<BarDocument>,
    /// Where its registers were read.
    source: String,
}

#[derive(Serialize, JsonSchema, Debug)]
struct AcsDocument {
    /// `present`, `absent` or `unknown`.
    state: &'static str,
    /// Capability word, hexadecimal.
    capability: Option<String>,
    /// Control word that the hardware obeys, hexadecimal; null where not read.
    control: Option<String>,
    /// Word that Linux reads as the control word.
    control_read_by_linux: Option<String>,
    /// The same in one sentence, with where it was read.
    evidence: String,
}

#[derive(Serialize, JsonSchema, Debug)]
struct LinkDocument {
    /// Tenths of GT/s.
    speed: Option<u16>,
    width: Option<u8>,
    /// Tenths of GT/s.
    max_speed: Option<u16>,
    max_width: Option<u8>,
    /// Up, but below what this end could do.
    degraded: bool,
}

#[derive(Serialize, JsonSchema, Debug)]
struct BarDocument {
    bar: u8,
    /// Bytes.
    size: Option<u64>,
    cpu_address: Option<String>,
    bus_address: Option<String>,
    prefetchable: bool,
}

#[derive(Serialize, JsonSchema, Debug)]
struct GroupDocument {
    id: u32,
    /// Type of the default domain.
    kind: Option<String>,
    /// `first-last kind`, addresses inclusive.
    reserved: Vec<String>,
    /// Functions in it.
    functions: Vec<String>,
}

impl TopologyDocument {
    pub(crate) fn new(loaded: &Loaded, view: &KernelView<'_>) -> Self {
        let topology = &loaded.topology;
        let mut members: BTreeMap<u32, Vec<String>> = BTreeMap::new();
        for (_, function) in topology.functions() {
            if let Some(group) = function.info().iommu_group {
                members.entry(group).or_default().push(function.address().to_string());
            }
        }
        Self {
            schema: SCHEMA,
            source: Source::new(loaded),
            host_bridges: topology
                .host_bridges()
                .map(|(_, host)| HostBridgeDocument {
                    root_bus: format!("{:04x}:{:02x}", host.domain(), host.bus()),
                    first_device: host.first_device().map(|id| topology.function(id).address().to_string()),
                })
                .collect(),
            functions: topology
                .functions()
                .map(|(id, function)| function_document(topology, view, id, function))
                .collect(),
            iommu_groups: topology
                .groups()
                .iter()
                .map(|group| GroupDocument {
                    id: group.id,
                    kind: group.kind.clone(),
                    reserved: group.reserved.iter().map(|region| format!("{} {}", region.range, region.kind)).collect(),
                    functions: members.remove(&group.id).unwrap_or_default(),
                })
                .collect(),
        }
    }
}

fn function_document(
    topology: &Topology,
    view: &KernelView<'_>,
    id: FunctionId,
    function: &Function,
) -> FunctionDocument {
    let info = function.info();
    let registers = &info.registers;
    let link = info.link_state();
    let (position, parent) = match function.parent() {
        Parent::Root(_) => ("root_bus", None),
        Parent::Bridge(bridge) => ("bridge", Some(topology.function(bridge).address().to_string())),
        Parent::Unknown { .. } => ("unknown", None),
    };
    let hex = |word: u16| format!("{word:#06x}");
    let acs = registers.acs.registers();
    FunctionDocument {
        address: info.address.to_string(),
        parent,
        position,
        physical_function: function.physical().map(|id| topology.function(id).address().to_string()),
        ids: info.candidate_ids().iter().map(ToString::to_string).collect(),
        class: registers.class.map(|class| class.to_string()),
        header: registers.header.map(|header| match header {
            HeaderType::Device => "device",
            HeaderType::Bridge => "bridge",
            HeaderType::CardBus => "cardbus",
            HeaderType::Other(_) => "other",
        }),
        port_type: registers.port_type.known().flatten().map(|port_type| port_type.to_string()),
        label: info.label.clone(),
        names: info.names.clone(),
        driver: info.driver.clone(),
        numa_node: info.numa_node,
        iommu_group: info.iommu_group,
        acs: AcsDocument {
            state: match registers.acs {
                Acs::Present(_) => "present",
                Acs::Absent(_) => "absent",
                Acs::Unknown(_) => "unknown",
            },
            capability: acs.map(|acs| hex(acs.capability.bits())),
            control: acs.and_then(|acs| acs.control.known()).map(|control| hex(control.bits())),
            control_read_by_linux: acs.map(|acs| hex(acs.control_read_by_linux.bits())),
            evidence: view.acs_evidence(id),
        },
        link: LinkDocument {
            speed: link.speed.map(|speed| speed.tenths()),
            width: link.width,
            max_speed: link.max_speed.map(|speed| speed.tenths()),
            max_width: link.max_width,
            degraded: link.is_degraded(),
        },
        max_payload: registers.express.max_payload.map(|bytes| bytes.as_u64()),
        max_payload_supported: registers.express.max_payload_supported.map(|bytes| bytes.as_u64()),
        max_read_request: registers.express.max_read_request.map(|bytes| bytes.as_u64()),
        bars: info
            .bars
            .iter()
            .map(|bar| BarDocument {
                bar: bar.index,
                size: bar.size.map(|size| size.as_u64()),
                cpu_address: bar.cpu.map(|range| range.start().to_string()),
                bus_address: bar.bus.map(|address| address.to_string()),
                prefetchable: bar.prefetchable,
            })
            .collect(),
        source: info.origin.to_string(),
    }
}

/// Document of `capture`.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct CaptureDocument {
    /// Version of this schema.
    pub(crate) schema: u32,
    /// File written, `-` for standard output.
    pub(crate) file: String,
    /// Its size in bytes.
    pub(crate) bytes: usize,
    /// Functions in it.
    pub(crate) functions: usize,
    /// Whether all of config space could be read; null where nothing was.
    pub(crate) privileged: Option<bool>,
    /// Whether serial numbers and MAC addresses were taken out.
    pub(crate) redacted: bool,
}

/// The known value of a fact as JSON's null or not.
pub(crate) fn nullable(fact: Fact<bool>) -> Option<bool> {
    fact.known()
}
