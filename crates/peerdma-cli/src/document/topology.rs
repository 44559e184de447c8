//! The tree: the document of `topo`.

use super::{SCHEMA, Source};
use crate::input::Loaded;
use peerdma::pcie::acs::Acs;
use peerdma::pcie::decode::HeaderType;
use peerdma::route::kernel_view::KernelView;
use peerdma::topology::{Function, FunctionId, Parent, Topology};
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;

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
    /// `dddd:bb:dd.f`.
    address: String,
    /// Address of the bridge above; null on a root bus or where unknown.
    parent: Option<String>,
    /// `root_bus`, `bridge` or `unknown`.
    position: &'static str,
    /// Physical function of a virtual one.
    physical_function: Option<String>,
    /// `vendor:device`; several where only a name is known, none where nothing is.
    ids: Vec<String>,
    /// Class code, six hexadecimal digits; null where not read.
    class: Option<String>,
    /// `device`, `bridge`, `cardbus`, `other`; null where not read.
    header: Option<&'static str>,
    /// PCIe port type in words; null without the capability or where not read.
    port_type: Option<String>,
    /// Vendor and device in words.
    label: Option<String>,
    /// Names of its subsystems' devices, such as `nvme0`.
    names: Vec<String>,
    /// Bound driver.
    driver: Option<String>,
    /// NUMA node.
    numa_node: Option<u32>,
    /// IOMMU group.
    iommu_group: Option<u32>,
    /// Access Control Services.
    acs: AcsDocument,
    /// Link.
    link: LinkDocument,
    /// Largest payload programmed, bytes.
    max_payload: Option<u64>,
    /// Largest payload supported, bytes.
    max_payload_supported: Option<u64>,
    /// Largest read request programmed, bytes.
    max_read_request: Option<u64>,
    /// Memory BARs.
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
    /// Lanes.
    width: Option<u8>,
    /// Tenths of GT/s.
    max_speed: Option<u16>,
    /// Lanes.
    max_width: Option<u8>,
    /// Up, but below what this end could do.
    degraded: bool,
}

#[derive(Serialize, JsonSchema, Debug)]
struct BarDocument {
    /// Index, 0 to 5.
    bar: u8,
    /// Bytes.
    size: Option<u64>,
    /// First address as the CPU sees it.
    cpu_address: Option<String>,
    /// First address below the host bridge.
    bus_address: Option<String>,
    /// Whether reads have no side effects.
    prefetchable: bool,
}

#[derive(Serialize, JsonSchema, Debug)]
struct GroupDocument {
    /// Its number.
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
