//! From a platform file to a machine that runs.

use super::describe::{self, Placed};
use super::{Delivery, Machine, Part, Stretch};
use crate::config::Space;
use crate::device::dma::DmaEngine;
use crate::device::gpu::{self, Gpu};
use crate::device::nic::{Network, Nic};
use crate::device::nvme::{BlockSize, Media, Nvme};
use crate::device::plain::Plain;
use crate::device::{Device, accel::Accel};
use crate::fabric::{Above, Fabric, Host, HostId, HostWindow, Node, Root, Tree};
use crate::iommu::{Attachment, Iommu};
use crate::memory::{Frames, Memory, Striped};
use crate::platform::{Function, HostBridge, IommuKind, Model, Platform, PlatformError};
use crate::wire::INTERRUPTS;
use peerdma::addr::{AddrRange, BusAddr, Bytes, PhysAddr};
use peerdma::topology::{CpuVendor, IommuMode};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Frames that are set aside for page tables: 16 MiB.
const TABLE_FRAMES: u64 = 4096;
/// The least RAM that a machine runs with, in one piece: page tables, and three times as much for buffers.
const LEAST_RAM: Bytes = Bytes::new(4 * (TABLE_FRAMES << 12));
/// Media of a drive that nobody gives other: 1 GiB, which takes memory as it is written.
const MEDIA: Bytes = Bytes::new(1 << 30);
/// Channels of a GPU or accelerator, pairs of queues of a NIC.
const QUEUES: u16 = 64;
/// ACS P2P Request Redirect, Completion Redirect, Egress Control and Direct Translated P2P.
const PEER_CONTROLS: u16 = 0x6c;
/// What a NIC holds of messages on their way.
const STAGING: Bytes = Bytes::new(16 << 20);
/// Memory of a GPU whose file states none: as much as its largest BAR shows, and this at least.
const LEAST_MEMORY: u64 = 1 << 20;
/// Where messages of interrupts go on a machine with Arm processors: a page of an interrupt controller
/// that no RAM lies under.
const ARM_INTERRUPTS: (BusAddr, BusAddr) = (BusAddr::new(0x0808_0000), BusAddr::new(0x0808_ffff));

/// Why a platform cannot be run.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BuildError {
    /// The platform cannot run: it states no RAM, or too little outside of its host bridges' windows.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// A device was given for a function that the platform does not have.
    #[error("the platform has no function {name}; its functions are {known}")]
    NoSuchFunction {
        /// The name that was given.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// Two names were given media or a device, or a function that is no drive was given media.
    #[error("{name} is no NVMe controller that media could be put into")]
    NoDrive {
        /// The function.
        name: String,
    },
    /// Ports of the network have 16 bits, and adapters without a device of their own one each.
    #[error("{name} finds no port of the network: all 65536 are taken; give it a device that is on another network")]
    NoPort {
        /// The adapter.
        name: String,
    },
}

/// Puts something before a stretch of RAM.
type RamSeen<'p> = Box<dyn Fn(AddrRange<PhysAddr>, Arc<dyn Memory>) -> Arc<dyn Memory> + 'p>;

/// A machine in the making.
///
/// ```
/// use peerdma_emu::machine::{Builder, Delivery};
/// use peerdma_emu::platform::Platform;
///
/// let platform = Platform::built_in("two-socket").unwrap();
/// let machine = Builder::new(&platform).seed(7).delivery(Delivery::Queued).build()?;
/// assert!(machine.named("gpu0").is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Builder<'p> {
    platform: &'p Platform,
    delivery: Delivery,
    seed: u64,
    devices: BTreeMap<String, Box<dyn Device>>,
    media: BTreeMap<String, Media>,
    ram: Option<RamSeen<'p>>,
    /// The port of the network that the next NIC takes; none when all are taken.
    port: Option<u16>,
}

impl<'p> Builder<'p> {
    /// The machine that a platform describes, with devices of the models that it names, queued
    /// delivery and seed 0.
    pub fn new(platform: &'p Platform) -> Self {
        Self {
            platform,
            delivery: Delivery::Queued,
            seed: 0,
            devices: BTreeMap::new(),
            media: BTreeMap::new(),
            ram: None,
            port: Some(0),
        }
    }

    /// With choices that follow from another seed.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// With writes that arrive at another time.
    #[must_use]
    pub fn delivery(mut self, delivery: Delivery) -> Self {
        self.delivery = delivery;
        self
    }

    /// With a device of one's own behind the registers of the function of this name.
    #[must_use]
    pub fn device(mut self, name: &str, device: Box<dyn Device>) -> Self {
        self.devices.insert(name.to_string(), device);
        self
    }

    /// With other media in the NVMe controller of this name.
    #[must_use]
    pub fn media(mut self, name: &str, media: Media) -> Self {
        self.media.insert(name.to_string(), media);
        self
    }

    /// With something before each stretch of RAM, but for page tables: a watch, or a fault. As many bytes as it is given.
    #[must_use]
    pub fn ram_behind(mut self, seen: impl Fn(AddrRange<PhysAddr>, Arc<dyn Memory>) -> Arc<dyn Memory> + 'p) -> Self {
        self.ram = Some(Box::new(seen));
        self
    }

    /// Builds the machine. Nothing is mapped and nothing runs yet.
    ///
    /// What translates for a function is as the platform says: a function under a translating
    /// IOMMU reaches nothing until an address space is attached to it.
    ///
    /// # Errors
    /// [`BuildError`], which names what the platform lacks or does not have.
    pub fn build(mut self) -> Result<Machine, BuildError> {
        self.check_names()?;
        let tables = tables(self.platform)?;
        let mut memory = stretches(self.platform, &tables);
        if let Some(seen) = &self.ram {
            for stretch in memory.iter_mut().filter(|stretch| stretch.range != tables.range()) {
                stretch.memory = seen(stretch.range, stretch.memory.clone());
            }
        }
        let (tree, parts) = self.tree()?;
        let iommu = iommu(self.platform, &tree);
        let hosts = self.platform.host_bridges().iter().map(|host| host_of(self.platform, host)).collect();
        let ranges = memory.iter().map(|stretch| stretch.range).collect();
        let fabric = Fabric::new(tree, Root::new(hosts, ranges, iommu));
        let mut machine = Machine::new(fabric, parts, memory, self.delivery, self.seed);
        machine.tables = Some(tables);
        Ok(machine)
    }

    fn check_names(&self) -> Result<(), BuildError> {
        let known = || {
            let names: Vec<&str> = self.platform.functions().iter().map(|function| function.name.as_str()).collect();
            names.join(", ")
        };
        for name in self.devices.keys().chain(self.media.keys()) {
            let function = self.platform.function_named(name);
            let function = function.ok_or_else(|| BuildError::NoSuchFunction { name: name.clone(), known: known() })?;
            if self.media.contains_key(name) && function.model != Model::Nvme {
                return Err(BuildError::NoDrive { name: name.clone() });
            }
        }
        Ok(())
    }

    /// Nodes and what stands at them.
    fn tree(&mut self) -> Result<(Tree, Vec<Part>), BuildError> {
        let mut tree = Tree::new(self.platform.host_bridges().len());
        let network = Network::new();
        let (mut ids, mut parts) = (Vec::new(), Vec::new());
        for Placed { name, address, above, description, .. } in describe::describe(self.platform) {
            let above = match above {
                describe::Above::Root(host) => Some(Above::Root(HostId::new(host.index()))),
                describe::Above::Port(position) => ids.get(position).copied().flatten().map(Above::Port),
            };
            let config = Arc::new(Space::new(&description));
            // A function with controls over requests between functions has such requests to control
            // (PCIe 6.0 §6.12.1.2); others send all they have out on the link.
            let controls = description.acs.as_ref().is_some_and(|acs| acs.capability & PEER_CONTROLS != 0);
            let peers_inside =
                name.as_deref().is_some_and(|name| self.platform.function_named(name).is_some()) && controls;
            // Parents come first, so each is there.
            let id = above.and_then(|above| tree.add(Node { address, config, above, peers_inside, group: None }));
            ids.push(id);
            if id.is_some() {
                let function = name.as_deref().and_then(|name| self.platform.function_named(name));
                parts.push(match function {
                    Some(function) => self.part(function, &network)?,
                    None => Part { name, device: None, mask_bits: 64, tdi: None },
                });
            }
        }
        Ok((tree, parts))
    }

    fn part(&mut self, function: &Function, network: &Arc<Network>) -> Result<Part, BuildError> {
        let device = match self.devices.remove(&function.name) {
            Some(own) => own,
            None => self.model(function, network)?,
        };
        let (name, mask_bits, tdi) = (Some(function.name.clone()), function.mask_bits, function.tdi);
        Ok(Part { name, device: Some(device), mask_bits, tdi })
    }

    fn model(&mut self, function: &Function, network: &Arc<Network>) -> Result<Box<dyn Device>, BuildError> {
        Ok(match function.model {
            Model::Gpu => {
                // Beside the registers the largest BAR shows VRAM, as cards differ in where it is.
                let bars = function.bars.iter().filter(|bar| bar.index != gpu::REGISTERS_BAR);
                let vram = bars.max_by_key(|bar| bar.bus.len()).map_or(gpu::VRAM_BAR, |bar| bar.index);
                Box::new(Gpu::new(device_memory(function), QUEUES).at_bar(vram))
            }
            Model::Nvme => {
                let media = self.media.remove(&function.name);
                let media = media.unwrap_or_else(|| Media::new(Arc::new(Striped::new(MEDIA)), BlockSize::Short));
                let drive = Nvme::new(media);
                // A BAR beside the registers shows a controller memory buffer.
                match function.bars.iter().find(|bar| bar.index >= 2) {
                    Some(bar) => Box::new(drive.with_cmb(bar.index, device_memory(function))),
                    None => Box::new(drive),
                }
            }
            Model::Nic => {
                // Ports are numbered in the file's order, so that each is free.
                let no_port = || BuildError::NoPort { name: function.name.clone() };
                let port = self.port.ok_or_else(no_port)?;
                self.port = port.checked_add(1);
                Box::new(Nic::new(network, port, Arc::new(Striped::new(STAGING)), QUEUES).map_err(|_| no_port())?)
            }
            Model::Dma => Box::new(DmaEngine::new()),
            Model::Accel => Box::new(Accel::new(QUEUES)),
            Model::Plain => {
                let bars = function.bars.iter();
                let plain =
                    bars.fold(Plain::new(), |plain, bar| plain.with(bar.index, Arc::new(Striped::new(bar.bus.len()))));
                Box::new(plain)
            }
        })
    }
}

/// Memory of a device: what the file states, or as much as its largest BAR shows.
fn device_memory(function: &Function) -> Arc<dyn Memory> {
    let largest = function.bars.iter().map(|bar| bar.bus.len().as_u64()).max().unwrap_or(0).max(LEAST_MEMORY);
    Arc::new(Striped::new(function.memory.unwrap_or(Bytes::new(largest))))
}

/// 16 MiB at the end of the first piece of RAM that is large enough.
fn tables(platform: &Platform) -> Result<Frames, PlatformError> {
    let piece = platform.ram_of(LEAST_RAM)?;
    let base = (piece.last().as_u64() & !0xfff) - (TABLE_FRAMES << 12);
    let frames = Frames::new(PhysAddr::new(base), TABLE_FRAMES as usize);
    Ok(frames.expect("16 MiB at a frame's address are inside a piece of RAM that is four times as long"))
}

/// RAM at its addresses, with page tables in a stretch of their own.
fn stretches(platform: &Platform, tables: &Frames) -> Vec<Stretch> {
    let own = tables.range();
    let mut stretches = vec![Stretch { range: own, memory: Arc::new(tables.clone()) }];
    for ram in platform.ram() {
        let (first, last) = (ram.range.start(), ram.range.last());
        let parts = if ram.range.contains_range(&own) {
            let before = own.start().as_u64().checked_sub(1).map(|end| (first, PhysAddr::new(end)));
            let after = own.last().as_u64().checked_add(1).map(|start| (PhysAddr::new(start), last));
            [before, after]
        } else {
            [Some((first, last)), None]
        };
        for range in parts.into_iter().flatten().filter_map(|(first, last)| AddrRange::from_inclusive(first, last)) {
            stretches.push(Stretch { range, memory: Arc::new(Striped::new(range.len())) });
        }
    }
    stretches
}

/// The IOMMU, with each function attached as the platform says.
fn iommu(platform: &Platform, tree: &Tree) -> Option<Arc<Iommu>> {
    let stated = platform.iommu().filter(|iommu| iommu.kind != IommuKind::None && iommu.mode != IommuMode::None)?;
    let iommu = Iommu::new(stated.kind);
    for function in platform.functions() {
        // No IOMMU for one function of a machine that has one is what passing through is.
        let attachment = match function.iommu_mode.unwrap_or(stated.mode) {
            IommuMode::Translated => Attachment::Blocked,
            IommuMode::Identity | IommuMode::None => Attachment::Identity,
        };
        let requester = tree.at(function.address).map(|node| tree.requester_at_root(node));
        iommu.attach(requester.unwrap_or(function.address), attachment);
        if function.ats {
            iommu.allow_ats(function.address, true);
            iommu.allow_pri(function.address, function.pasid_bits.is_some());
        }
    }
    Some(Arc::new(iommu))
}

fn host_of(platform: &Platform, host: &HostBridge) -> Host {
    let windows = host.windows.iter().map(|window| HostWindow { cpu: window.cpu, bus: window.bus }).collect();
    let arm = platform.cpu().is_some_and(|cpu| cpu.vendor == CpuVendor::Arm);
    let (first, last) = if arm { ARM_INTERRUPTS } else { INTERRUPTS };
    Host {
        segment: host.segment,
        root_bus: host.root_bus,
        windows,
        peer: host.peer,
        interrupts: AddrRange::from_inclusive(first, last),
        replaces_requester: host.replaces_requester,
        between_ports: host.between_ports,
        splits: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An adapter that found no port became a function without registers, and nobody was told.
    #[test]
    fn an_adapter_for_which_no_port_is_left_is_refused_by_name() {
        let platform = Platform::built_in("two-socket").unwrap();
        let last = Builder { port: Some(u16::MAX), ..Builder::new(&platform) };
        assert_eq!(last.build().unwrap_err(), BuildError::NoPort { name: "nic1".to_string() });
        // One that has a device of its own takes none.
        let one = Builder { port: Some(u16::MAX), ..Builder::new(&platform) };
        assert!(one.device("nic1", Box::new(Plain::new())).build().is_ok());
    }
}
