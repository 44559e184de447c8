//! From a platform file to what each function's registers say at power-on.
//!
//! A file may leave open what hardware cannot. What it does not state is chosen here, once, so
//! that the registers of an emulated machine say it:
//!
//! | in the file | in the registers |
//! |---|---|
//! | `acs = "unknown"` | no ACS capability |
//! | `id` of a port or function | vendor 0001 ([`NEUTRAL_VENDOR`]), which no kernel has quirks for |
//! | atomics of a port | routed and not blocked; a bridge to conventional PCI, which has none, routes none |
//! | atomics of a function | sent, and answered in all sizes |
//! | `relaxed_ordering`, `no_snoop` | enabled, as a reset leaves them |
//! | `link` | as the other end states it, else 16 GT/s with 16 lanes; down where nothing is below |
//! | largest payload that is supported | 512 bytes, or as programmed if that is more |
//!
//! Not in the file at all, and here: power management everywhere but in the first device of a
//! host bridge; up to 32 message interrupts of everything that has a model; page requests,
//! enabled, of functions with ATS and PASIDs.

use crate::config::{
    AcsDescription, BarDescription, Buses, Description, ExpressDescription, Header, LinkDescription, NEUTRAL_VENDOR,
    PasidDescription,
};
use crate::platform::{Bar, Function, HostBridge, HostBridgeId, LinkState, Model, Parent, Platform, Port, PortKind};
use peerdma::addr::Bytes;
use peerdma::pcie::acs::{self, Acs};
use peerdma::pcie::express::{AtomicSizes, LinkSpeed, PortType};
use peerdma::pcie::{ClassCode, DevFn, Fact, PciAddr, PciId};
use std::collections::BTreeMap;

/// Class of the device that stands for a host bridge: a system peripheral.
const FIRST_DEVICE: ClassCode = ClassCode::new(0x08_8000);
/// Largest payload that a function supports unless it is programmed to more.
const SUPPORTED: Bytes = Bytes::new(512);
/// Messages of a function that interrupts.
const MESSAGES: u16 = 32;

/// What a node of the tree hangs below.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Above {
    /// On the root bus of this host bridge.
    Root(HostBridgeId),
    /// On the bus right below the node at this position of the list.
    Port(usize),
}

/// A function in its place in the tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Placed {
    /// Its name in the file; the first device of a host bridge has none.
    pub name: Option<String>,
    /// Its address.
    pub address: PciAddr,
    /// What it hangs below.
    pub above: Above,
    /// What it behaves like; `None` of a port and of the first device of a host bridge.
    pub model: Option<Model>,
    /// What its registers say.
    pub description: Description,
}

/// Describes every function of a platform, parents before their children.
///
/// First come the first devices of host bridges, then the ports, then the functions; the latter
/// in the file's order.
pub fn describe(platform: &Platform) -> Vec<Placed> {
    let mut placed = Vec::new();
    for (host, id) in platform.host_bridges().iter().zip(platform.host_bridge_ids()) {
        placed.extend(host.first_device.map(|device| first_device(host, id, device)));
    }
    let links = Links::new(platform);
    let mut order: Vec<usize> = (0..platform.ports().len()).collect();
    // Bus numbers grow downwards, so their order has parents before their children.
    order.sort_by_key(|&port| (platform.ports()[port].address.bus(), port));
    let mut positions = vec![0; platform.ports().len()];
    let above = |parent: Parent, positions: &[usize]| match parent {
        Parent::HostBridge(host) => Above::Root(host),
        Parent::Port(port) => Above::Port(positions[port.index()]),
    };
    for index in order {
        let port = &platform.ports()[index];
        positions[index] = placed.len();
        placed.push(Placed {
            name: Some(port.name.clone()),
            address: port.address,
            above: above(port.parent, &positions),
            model: None,
            description: describe_port(port, links.of_port(port, index)),
        });
    }
    for function in platform.functions() {
        placed.push(Placed {
            name: Some(function.name.clone()),
            address: function.address,
            above: above(function.parent, &positions),
            model: Some(function.model),
            description: describe_function(function, links.above(function.parent)),
        });
    }
    mark_multifunction(&mut placed);
    placed
}

/// Sets the bit that says that a slot has several functions.
///
/// Only where they share a device number: functions that ARI numbers past 7 are told by ARI.
fn mark_multifunction(placed: &mut [Placed]) {
    let slot = |address: PciAddr| (address.domain(), address.bus(), address.devfn().device());
    let mut functions: BTreeMap<_, usize> = BTreeMap::new();
    for one in placed.iter() {
        *functions.entry(slot(one.address)).or_default() += 1;
    }
    for one in placed {
        one.description.multifunction = functions.get(&slot(one.address)).is_some_and(|&count| count > 1);
    }
}

fn first_device(host: &HostBridge, id: HostBridgeId, device: PciId) -> Placed {
    Placed {
        name: None,
        address: PciAddr::new(host.segment, host.root_bus, DevFn::new(0)),
        above: Above::Root(id),
        model: None,
        description: Description {
            id: device,
            class: FIRST_DEVICE,
            memory_enabled: true,
            bus_master: true,
            ..Description::default()
        },
    }
}

fn describe_port(port: &Port, link: Option<LinkDescription>) -> Description {
    let port_type = port.kind.port_type();
    let (device, routes) = match port.kind {
        PortKind::Root => (1, true),
        PortKind::Upstream => (2, true),
        PortKind::Downstream => (3, true),
        PortKind::PciePci => (4, false),
    };
    let (secondary, subordinate) = port.below.map_or((0, 0), |below| (below.secondary, below.subordinate));
    Description {
        id: port.id.unwrap_or(PciId { vendor: NEUTRAL_VENDOR, device }),
        header: Header::Bridge,
        buses: Some(Buses { primary: port.address.bus(), secondary, subordinate }),
        memory_window: port.windows.memory.known().flatten(),
        prefetchable_window: port.windows.prefetchable.known().flatten(),
        express: Some(ExpressDescription {
            port_number: port.number,
            max_payload_supported: port.mps.max(SUPPORTED),
            max_payload: port.mps,
            atomic_routing: port.atomics.routing.unwrap_or(routes),
            atomic_egress_blocked: port.atomics.egress_blocked.unwrap_or(false),
            link,
            ..ExpressDescription::reset(port_type)
        }),
        acs: describe_acs(&port.acs, port.id, Some(port_type)),
        ..Description::express(port_type)
    }
}

fn describe_function(function: &Function, link: Option<LinkDescription>) -> Description {
    let port_type = match function.parent {
        Parent::HostBridge(_) => PortType::RootComplexIntegrated,
        Parent::Port(_) => PortType::Endpoint,
    };
    let device = match function.model {
        Model::Gpu => 0x10,
        Model::Nvme => 0x11,
        Model::Nic => 0x12,
        Model::Dma => 0x13,
        Model::Plain => 0x14,
        Model::Accel => 0x15,
    };
    let completes = if function.atomics.completer.unwrap_or(true) { AtomicSizes::ALL } else { AtomicSizes::NONE };
    Description {
        id: function.id.unwrap_or(PciId { vendor: NEUTRAL_VENDOR, device }),
        class: function.class,
        bars: function.bars.iter().map(describe_bar).collect(),
        message_interrupts: if function.model == Model::Plain { 0 } else { MESSAGES },
        express: function.payload.map(|payload| ExpressDescription {
            max_payload_supported: payload.max.max(SUPPORTED),
            max_payload: payload.max,
            max_read_request: payload.max_read_request,
            relaxed_ordering: function.ordering.relaxed.unwrap_or(true),
            no_snoop: function.ordering.no_snoop.unwrap_or(true),
            atomic_requester: function.atomics.requester.unwrap_or(true),
            atomic_completer: completes,
            link,
            ..ExpressDescription::reset(port_type)
        }),
        acs: describe_acs(&function.acs, function.id, function.payload.map(|_| port_type)),
        ats: function.ats.then_some(true),
        pri: (function.ats && function.pasid_bits.is_some()).then_some(true),
        pasid: function.pasid_bits.map(|width| PasidDescription { enabled: true, width }),
        ..Description::express(port_type)
    }
}

fn describe_bar(bar: &Bar) -> BarDescription {
    BarDescription {
        index: bar.index,
        address: bar.bus.start(),
        size: bar.bus.len(),
        prefetchable: bar.prefetchable,
        is_64_bit: bar.prefetchable,
        resizable: bar.resizable.clone(),
    }
}

fn describe_acs(stated: &Acs, id: Option<PciId>, port_type: Option<PortType>) -> Option<AcsDescription> {
    let registers = stated.registers()?;
    Some(AcsDescription {
        capability: registers.capability.bits(),
        control: registers.control.known().map_or(0, |control| control.bits()),
        egress: registers.egress.clone(),
        double_words: acs::linux_reads_wrong_word(id, Fact::Known(port_type)),
    })
}

/// The links below ports, each from whichever end states it.
struct Links(Vec<Option<LinkDescription>>);

impl Links {
    fn new(platform: &Platform) -> Self {
        let mut stated: Vec<Option<LinkState>> = platform.ports().iter().map(|port| port.link).collect();
        let ends = platform.ports().iter().map(|port| (port.kind, port.parent, port.link));
        // A downstream port above states the link below itself, which is no end of the one above.
        let ends = ends.filter(|(kind, ..)| matches!(kind, PortKind::Upstream | PortKind::PciePci));
        let functions = platform.functions().iter().map(|function| (function.parent, function.link));
        for (parent, link) in ends.map(|(_, parent, link)| (parent, link)).chain(functions) {
            if let Parent::Port(port) = parent {
                stated[port.index()] = stated[port.index()].or(link);
            }
        }
        let links = platform.ports().iter().zip(stated).map(|(port, stated)| {
            let is_link = matches!(port.kind, PortKind::Root | PortKind::Downstream) && port.below.is_some();
            is_link.then(|| describe_link(stated)).flatten()
        });
        Self(links.collect())
    }

    /// The link that a port's registers tell of: below a root or downstream port, above any other.
    fn of_port(&self, port: &Port, index: usize) -> Option<LinkDescription> {
        match port.kind {
            PortKind::Root | PortKind::Downstream => self.0[index],
            PortKind::Upstream | PortKind::PciePci => self.above(port.parent),
        }
    }

    fn above(&self, parent: Parent) -> Option<LinkDescription> {
        match parent {
            Parent::HostBridge(_) => None,
            Parent::Port(port) => self.0[port.index()],
        }
    }
}

fn describe_link(stated: Option<LinkState>) -> Option<LinkDescription> {
    match stated {
        Some(LinkState { speed, width }) => Some(LinkDescription { speed, width }),
        None => LinkSpeed::from_field(4).map(|speed| LinkDescription { speed, width: 16 }),
    }
}
