//! Document of `whose`.

use super::Source;
use peerdma::addr::{AddrRange, Address};
use peerdma::route::whose::{Missing, Owner, Reading, Thing};
use peerdma::topology::{HostBridgeId, MemoryRegion, Topology};
use schemars::JsonSchema;
use serde::Serialize;

/// Document of `whose`.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct WhoseDocument {
    /// Version of this schema.
    pub(crate) schema: u32,
    /// Where the facts came from.
    pub(crate) source: Source,
    /// What was asked for.
    pub(crate) asked: RangeDocument,
    /// `something`, `nothing` or `unknown`.
    pub(crate) answer: &'static str,
    /// One a kind of address, and for bus addresses one a host bridge.
    pub(crate) readings: Vec<ReadingDocument>,
}

/// A range of addresses, both ends inclusive.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct RangeDocument {
    first: String,
    last: String,
}

/// The number read as one kind of address.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct ReadingDocument {
    /// `cpu`, `bus` or `iova`.
    #[serde(rename = "as")]
    pub(crate) kind: &'static str,
    /// Domain and root bus of the host bridge below which it is a bus address, else null.
    pub(crate) host_bridge: Option<String>,
    /// What is there, from the outside in.
    pub(crate) owners: Vec<OwnerDocument>,
    /// The same bytes from the other side of a host bridge's window.
    pub(crate) also: Vec<AlsoDocument>,
    /// What was not read and may own the address.
    pub(crate) missing: Vec<String>,
}

/// Something at an address.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct OwnerDocument {
    /// `bar`, `port_window`, `host_window`, `ram`, `region` or `reserved`.
    kind: &'static str,
    /// A function's address, a host bridge's domain and root bus, a region's name, or `group N`.
    object: String,
    /// Names of the function, what the input calls the host bridge, or the word of the reserved region.
    names: Vec<String>,
    /// Index of the BAR, else null.
    bar: Option<u8>,
    /// Bytes from the BAR's start, else null.
    offset: Option<u64>,
    /// Whether a port's window is the prefetchable one, else null.
    prefetchable: Option<bool>,
    /// All of it as the CPU addresses it, where known.
    cpu: Option<RangeDocument>,
    /// All of it as it is addressed below its host bridge, where known.
    bus: Option<RangeDocument>,
    /// All of it as devices address it, for reserved regions.
    iova: Option<RangeDocument>,
    /// Whether all of the asked range lies in it.
    all: bool,
}

/// An address of the same bytes.
#[derive(Serialize, JsonSchema, Debug)]
pub(crate) struct AlsoDocument {
    /// `cpu` or `bus`.
    #[serde(rename = "as")]
    pub(crate) kind: &'static str,
    /// The host bridge whose window it is seen through.
    pub(crate) host_bridge: String,
    /// Where it starts.
    pub(crate) address: String,
}

impl RangeDocument {
    pub(crate) fn new<A: Address>(range: AddrRange<A>) -> Self {
        Self { first: range.start().to_string(), last: range.last().to_string() }
    }
}

impl ReadingDocument {
    pub(crate) fn new(
        topology: &Topology,
        kind: &'static str,
        host: Option<HostBridgeId>,
        reading: &Reading,
        also: Vec<AlsoDocument>,
    ) -> Self {
        Self {
            kind,
            host_bridge: host.map(|host| host_bridge(topology, host)),
            owners: reading.owners.iter().map(|owner| OwnerDocument::new(topology, owner)).collect(),
            also,
            missing: reading.missing.iter().map(|missing| lacking(topology, *missing)).collect(),
        }
    }
}

impl OwnerDocument {
    fn new(topology: &Topology, owner: &Owner) -> Self {
        let all = owner.all;
        let plain = |kind, object| Self {
            kind,
            object,
            names: Vec::new(),
            bar: None,
            offset: None,
            prefetchable: None,
            cpu: None,
            bus: None,
            iova: None,
            all,
        };
        match &owner.what {
            &Thing::Bar { function, bar, offset, cpu, bus } => {
                let info = topology.function(function).info();
                Self {
                    names: info.names.clone(),
                    bar: Some(bar),
                    offset: offset.map(|offset| offset.as_u64()),
                    cpu: cpu.map(RangeDocument::new),
                    bus: bus.map(RangeDocument::new),
                    ..plain("bar", info.address.to_string())
                }
            }
            &Thing::PortWindow { port, prefetchable, bus } => {
                let info = topology.function(port).info();
                Self {
                    names: info.names.clone(),
                    prefetchable: Some(prefetchable),
                    bus: Some(RangeDocument::new(bus)),
                    ..plain("port_window", info.address.to_string())
                }
            }
            &Thing::HostWindow { host, window } => Self {
                names: topology.host_bridge(host).facts().name.iter().cloned().collect(),
                cpu: Some(RangeDocument::new(window.cpu())),
                bus: Some(RangeDocument::new(window.bus())),
                ..plain("host_window", host_bridge(topology, host))
            },
            Thing::Region(region) => {
                let kind = if region.name == MemoryRegion::SYSTEM_RAM { "ram" } else { "region" };
                Self { cpu: Some(RangeDocument::new(region.range)), ..plain(kind, region.name.clone()) }
            }
            Thing::Reserved { group, kind, range } => Self {
                names: vec![kind.clone()],
                iova: Some(RangeDocument::new(*range)),
                ..plain("reserved", format!("group {group}"))
            },
        }
    }
}

/// Domain and root bus, `0000:40`.
pub(crate) fn host_bridge(topology: &Topology, host: HostBridgeId) -> String {
    let host = topology.host_bridge(host);
    format!("{:04x}:{:02x}", host.domain(), host.bus())
}

/// What was not read, and how it could be.
pub(crate) fn lacking(topology: &Topology, missing: Missing) -> String {
    match missing {
        Missing::MemoryMap => "the machine's memory map was not read (/proc/iomem, as root)".to_string(),
        Missing::Windows(host) => {
            format!("the windows of host bridge {} were not read", host_bridge(topology, host))
        }
        Missing::BarSize(function, bar) => {
            format!("the size of bar{bar} of {} was not read", topology.function(function).address())
        }
        Missing::Groups => "the IOMMU groups were not read".to_string(),
    }
}
