//! Machines described in a file.
//!
//! A platform file is TOML; `docs/platform.md` says what each key means and who uses
//! it. Reading goes one way: [`Platform::parse`] takes text, checks types (`raw`),
//! the surroundings (`hosts`), how ports hang together (`tree`), what functions say
//! about themselves (`device`, `acs`), and gives BARs their addresses (`place`).
//! The first thing found wrong is a [`PlatformError`] with file and line.
//!
//! ```
//! use peerdma::route::kernel_view::{KernelView, MapType};
//! use peerdma_emu::platform::Platform;
//!
//! let platform = Platform::built_in("two-socket").unwrap();
//! let topology = platform.topology();
//! let at = |name| topology.at(platform.function_named(name).unwrap().address).unwrap();
//! let decision = KernelView::new(&topology).decide(at("gpu0"), at("nic0"));
//! assert_eq!(decision.map_type, MapType::BusAddr);
//! ```

mod acs;
mod built_in;
mod device;
mod error;
mod hosts;
mod links;
mod model;
mod number;
mod place;
mod problem;
mod ram;
mod raw;
mod topology;
mod tree;
mod words;

#[cfg(test)]
pub(crate) mod random;
#[cfg(test)]
mod tests;

pub use error::{Location, PlatformError};
pub use model::{
    Bar, BusesBelow, Function, FunctionAtomics, HostBridge, HostBridgeId, Iommu, Kernel, LinkState, Ordering, Parent,
    Payload, Port, PortAtomics, PortId, Ram, Window,
};
pub use problem::{Buses, LinkProblem, Problem, RegisterProblem, SurroundingsProblem, TreeProblem};
pub use words::{IommuKind, ModeWord, Model, PeerForwarding, PortKind, TdiState};

use device::Device;
use error::Source;
use links::Links;
use peerdma::topology::Cpu;
use place::{NoRoom, Placement, Request};
use ram::WrittenAt;
use serde::Deserialize;
use tree::Tree;

/// A machine, as a platform file describes it.
///
/// What holding this tells you: every name is used once; ports and functions form
/// trees below host bridges, with bus numbers that grow downwards and nest; every
/// address is taken once; every BAR has addresses of its own inside a window of its
/// host bridge and inside the windows of all ports above it.
///
/// Two are equal that describe the same machine, whatever the files and wherever in them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Platform {
    name: Option<String>,
    cpu: Option<Cpu>,
    kernel: Option<Kernel>,
    iommu: Option<Iommu>,
    ram: Vec<Ram>,
    host_bridges: Vec<HostBridge>,
    ports: Vec<Port>,
    functions: Vec<Function>,
    written_at: WrittenAt,
}

impl Platform {
    /// Reads a platform file; `file` is its name, for messages.
    ///
    /// # Errors
    /// The first thing that is wrong with the file, with its line: see [`Problem`].
    pub fn parse(text: &str, file: &str) -> Result<Self, PlatformError> {
        let source = Source { file, text };
        let raw = read(source)?;
        let host_bridges = hosts::host_bridges(source, &raw.host_bridge)?;
        let tree = Tree::new(source, &raw, &host_bridges)?;
        let iommu = raw.iommu.as_ref().map(|iommu| hosts::iommu(source, &iommu.0)).transpose()?;
        let devices = devices(source, &raw, &tree, iommu.as_ref())?;
        let links = Links::new(source, &raw, &tree, &host_bridges)?;
        let placement = room(source, &raw, &tree, &host_bridges, &devices)?;
        Ok(Self {
            name: raw.platform.as_ref().map(|named| hosts::name(source, &named.0)).transpose()?,
            cpu: raw.cpu.as_ref().map(|cpu| hosts::cpu(source, &cpu.0)).transpose()?,
            kernel: raw.kernel.as_ref().map(|kernel| hosts::kernel(source, &kernel.0)).transpose()?,
            iommu,
            ram: hosts::ram(source, &raw.ram)?,
            ports: ports(source, &raw, &tree, &placement, &links)?,
            functions: functions(source, &raw, &tree, devices, &placement, &links, &host_bridges)?,
            host_bridges,
            written_at: WrittenAt::new(source, &raw.ram),
        })
    }

    /// What the machine is called, where stated.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The CPU; `None` where the file does not say, which leaves some verdicts unknown.
    pub fn cpu(&self) -> Option<&Cpu> {
        self.cpu.as_ref()
    }

    /// The kernel; `None` where the file does not say.
    pub fn kernel(&self) -> Option<&Kernel> {
        self.kernel.as_ref()
    }

    /// The IOMMU; `None` where the file does not say whether there is one.
    pub fn iommu(&self) -> Option<&Iommu> {
        self.iommu.as_ref()
    }

    /// System memory, in the file's order, no two stretches overlapping.
    pub fn ram(&self) -> &[Ram] {
        &self.ram
    }

    /// Host bridges, in the file's order.
    pub fn host_bridges(&self) -> &[HostBridge] {
        &self.host_bridges
    }

    /// Ports, in the file's order.
    pub fn ports(&self) -> &[Port] {
        &self.ports
    }

    /// Functions, in the file's order.
    pub fn functions(&self) -> &[Function] {
        &self.functions
    }

    /// IDs of all host bridges, in the file's order.
    pub fn host_bridge_ids(&self) -> impl ExactSizeIterator<Item = HostBridgeId> + use<> {
        (0..self.host_bridges.len()).map(HostBridgeId)
    }

    /// The host bridge with this ID.
    ///
    /// # Panics
    /// If the ID is another platform's and past this one's end.
    pub fn host_bridge(&self, id: HostBridgeId) -> &HostBridge {
        &self.host_bridges[id.index()]
    }

    /// The port with this ID.
    ///
    /// # Panics
    /// If the ID is another platform's and past this one's end.
    pub fn port(&self, id: PortId) -> &Port {
        &self.ports[id.index()]
    }

    /// The host bridge of this name.
    pub fn host_bridge_named(&self, name: &str) -> Option<&HostBridge> {
        self.host_bridges.iter().find(|host| host.name == name)
    }

    /// The port of this name.
    pub fn port_named(&self, name: &str) -> Option<&Port> {
        self.ports.iter().find(|port| port.name == name)
    }

    /// The function of this name.
    pub fn function_named(&self, name: &str) -> Option<&Function> {
        self.functions.iter().find(|function| function.name == name)
    }
}

fn read(source: Source<'_>) -> Result<raw::File, PlatformError> {
    let parsed = toml::Deserializer::parse(source.text).and_then(raw::File::deserialize);
    // A file of another schema has other keys; the schema is what is wrong with it.
    let schema = match &parsed {
        Ok(file) => Some(file.schema.clone()),
        Err(_) => toml::from_str::<raw::Head>(source.text).ok().map(|head| head.schema),
    };
    match (schema, parsed) {
        (Some(schema), _) if schema.get_ref().0 != 1 => {
            Err(source.error(&schema.span(), Problem::Schema { found: schema.get_ref().0 }))
        }
        (_, Ok(file)) => Ok(file),
        (_, Err(error)) => Err(source.syntax(&error)),
    }
}

fn devices(
    source: Source<'_>,
    raw: &raw::File,
    tree: &Tree,
    iommu: Option<&Iommu>,
) -> Result<Vec<Device>, PlatformError> {
    let functions = raw.function.iter().zip(&tree.functions);
    let devices = functions.map(|(function, place)| {
        let conventional = match place.parent {
            Parent::Port(port) if raw.port[port.0].kind == PortKind::PciePci => {
                Some(function.parent.get_ref().as_str())
            }
            _ => None,
        };
        Device::new(source, function, conventional, iommu)
    });
    devices.collect()
}

/// Finds room for every BAR.
fn room(
    source: Source<'_>,
    raw: &raw::File,
    tree: &Tree,
    hosts: &[HostBridge],
    devices: &[Device],
) -> Result<Placement, PlatformError> {
    let (mut requests, mut specs) = (Vec::new(), Vec::new());
    for (index, (device, place)) in devices.iter().zip(&tree.functions).enumerate() {
        for bar in &device.bars {
            let (size, prefetchable) = (bar.size, bar.prefetchable);
            requests.push(Request { parent: place.parent, host: place.host, size, prefetchable });
            specs.push((index, bar));
        }
    }
    let parents: Vec<Parent> = tree.ports.iter().map(|place| place.parent).collect();
    place::place(hosts, &parents, &tree.parents_first, &requests).map_err(|full| {
        let NoRoom { request, needed, prefetchable } = full;
        let (function, bar) = specs[request];
        let problem = RegisterProblem::NoRoom {
            function: raw.function[function].name.get_ref().clone(),
            index: bar.index,
            size: bar.size,
            needed,
            host_bridge: hosts[requests[request].host.0].name.clone(),
            prefetchable,
        };
        source.error(&bar.at, problem)
    })
}

fn ports(
    source: Source<'_>,
    raw: &raw::File,
    tree: &Tree,
    placement: &Placement,
    links: &Links,
) -> Result<Vec<Port>, PlatformError> {
    let numbers = links::numbers(source, raw, tree)?;
    let ports = raw.port.iter().zip(&tree.ports).enumerate().map(|(index, (port, place))| {
        let id = port.id.map(|id| id.0);
        Ok(Port {
            name: port.name.get_ref().clone(),
            parent: place.parent,
            host_bridge: place.host,
            kind: port.kind,
            address: place.address,
            id,
            mps: number::payload(source, "mps", port.mps.as_ref(), device::RESET_MPS)?,
            acs: acs::registers(source, port.acs.as_ref(), id, Some(port.kind.port_type()))?,
            link: links.ports[index],
            atomics: port.atomics.as_ref().map_or_else(PortAtomics::default, |atomics| {
                let raw::PortAtomics { routing, egress_blocked } = atomics.0;
                PortAtomics { routing, egress_blocked }
            }),
            number: numbers[index],
            below: tree.below[index],
            windows: placement.windows[index],
        })
    });
    ports.collect()
}

fn functions(
    source: Source<'_>,
    raw: &raw::File,
    tree: &Tree,
    devices: Vec<Device>,
    placement: &Placement,
    links: &Links,
    hosts: &[HostBridge],
) -> Result<Vec<Function>, PlatformError> {
    let mut addresses = placement.bars.iter();
    let places = tree.functions.iter().zip(&links.functions);
    let functions = raw.function.iter().zip(places).zip(devices).map(|((function, (place, &link)), device)| {
        let windows = &hosts[place.host.0].windows;
        // `room` asked for exactly these BARs in this order, and found each inside a window.
        let bars = device.bars.into_iter().zip(addresses.by_ref()).filter_map(|(bar, &bus)| {
            let cpu = windows.iter().find_map(|window| window.to_cpu(&bus))?;
            Some(Bar { index: bar.index, prefetchable: bar.prefetchable, bus, cpu, resizable: bar.resizable })
        });
        let bars = bars.collect();
        let id = function.id.map(|id| id.0);
        Ok(Function {
            name: function.name.get_ref().clone(),
            parent: place.parent,
            host_bridge: place.host,
            address: place.address,
            id,
            class: device.class,
            model: device::model(function),
            bars,
            memory: device.memory,
            acs: acs::registers(source, function.acs.as_ref(), id, None)?,
            ats: device.ats,
            pasid_bits: device.pasid_bits,
            payload: device.payload,
            ordering: device.ordering,
            atomics: device.atomics,
            link,
            mask_bits: device.mask_bits,
            driver: device.driver,
            iommu_mode: device.iommu_mode,
            tdi: device.tdi,
        })
    });
    functions.collect()
}
