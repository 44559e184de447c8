//! From a platform to the topology that every question is asked of.

use super::model::{Function, HostBridge, LinkState, Parent, Port, Ram};
use super::words::{Model, PeerForwarding as Peer, PortKind};
use super::{Iommu, Kernel, Platform};
use peerdma::pcie::acs::{Acs, AcsAbsent};
use peerdma::pcie::caps::ListEnd;
use peerdma::pcie::decode::{BarRegister, BridgeBuses, BridgeWindows, Command, HeaderType, Registers};
use peerdma::pcie::express::{AtomicSizes, Express, Link, PortType};
use peerdma::pcie::virt::{Ats, Pasid, ResizableBar};
use peerdma::pcie::{ClassCode, DevFn, Fact, PciAddr, PciId};
use peerdma::topology::{
    Bar, Builder, FunctionInfo, HostBridgeFacts, HostWindow, IommuGroup, IommuMode, MemoryRegion, Origin,
    PeerForwarding, Position, Topology,
};

const BRIDGE: ClassCode = ClassCode::new(0x06_0400);
const SYSTEM_PERIPHERAL: ClassCode = ClassCode::new(0x08_8000);

impl PortKind {
    /// The kind as the PCI Express capability says it.
    pub const fn port_type(self) -> PortType {
        match self {
            Self::Root => PortType::RootPort,
            Self::Upstream => PortType::UpstreamPort,
            Self::Downstream => PortType::DownstreamPort,
            Self::PciePci => PortType::PciExpressToPci,
        }
    }
}

impl Platform {
    /// The machine as a topology, in which every register that the file states is read.
    pub fn topology(&self) -> Topology {
        let mut builder = Builder::new();
        for host in self.host_bridges() {
            if let Some(id) = host.first_device {
                builder.function(first_device(host, id));
            }
        }
        for port in self.ports() {
            builder.function(self.port_info(port));
        }
        let groups = self.groups();
        for (function, group) in self.functions().iter().zip(&groups) {
            let mut info = self.function_info(function);
            info.iommu_group = group.as_ref().map(|group| group.id);
            builder.function(info);
        }
        let groups_are_complete = self.states_modes_one_by_one();
        groups.into_iter().flatten().for_each(|group| builder.group(group));
        for host in self.host_bridges() {
            builder.host_bridge(host.segment, host.root_bus, host_facts(host));
        }
        let machine = builder.machine();
        machine.name = self.name().map(str::to_string);
        machine.groups_are_complete = groups_are_complete;
        machine.cpu = self.cpu().cloned();
        machine.kernel = self.kernel().and_then(|Kernel { version, .. }| *version);
        machine.command_line = self.kernel().and_then(|Kernel { cmdline, .. }| cmdline.clone());
        machine.memory_map = self.ram().iter().map(ram_region).collect();
        machine.iommu = self.iommu().map(|Iommu { mode, .. }: &Iommu| -> IommuMode { *mode });
        builder.build()
    }

    fn states_modes_one_by_one(&self) -> bool {
        self.functions().iter().any(|function| function.iommu_mode.is_some())
    }

    /// Each function's IOMMU group, one of its own, numbered by address since the file's
    /// order means nothing. There are none where one mode holds for the whole machine.
    fn groups(&self) -> Vec<Option<IommuGroup>> {
        let one_by_one = self.states_modes_one_by_one();
        let mut addresses: Vec<PciAddr> = self.functions().iter().map(|function| function.address).collect();
        addresses.sort_unstable();
        let group = |function: &Function| {
            let mode = function.iommu_mode.or(self.iommu().map(|iommu| iommu.mode)).filter(|_| one_by_one)?;
            let kind = match mode {
                IommuMode::Translated => "DMA",
                IommuMode::Identity => "identity",
                IommuMode::None => return None,
            };
            let id = addresses.partition_point(|&address| address < function.address) as u32;
            Some(IommuGroup { id, kind: Some(kind.to_string()), reserved: Vec::new() })
        };
        self.functions().iter().map(group).collect()
    }

    fn position(&self, parent: Parent) -> Position {
        match parent {
            Parent::HostBridge(host) => Position::RootBus { bus: self.host_bridge(host).root_bus },
            Parent::Port(port) => Position::Below(self.port(port).address),
        }
    }

    fn port_info(&self, port: &Port) -> FunctionInfo {
        let mut info = FunctionInfo::new(port.address, self.position(port.parent));
        let (secondary, subordinate) = port.below.map_or((0, 0), |below| (below.secondary, below.subordinate));
        info.registers = Registers {
            header: Some(HeaderType::Bridge),
            buses: Some(BridgeBuses { primary: port.address.bus(), secondary, subordinate }),
            windows: port.windows,
            port_type: Fact::Known(Some(port.kind.port_type())),
            express: Express {
                max_payload: Some(port.mps),
                port_number: Some(port.number),
                atomic_routing: port.atomics.routing,
                atomic_egress_blocked: port.atomics.egress_blocked,
                link: link(port.link),
                ..Express::default()
            },
            ..registers(port.id, BRIDGE, port.acs.clone())
        };
        finish(&mut info, Some(&port.name), port.kind.port_type().to_string(), self.host_bridge(port.host_bridge));
        info
    }

    fn function_info(&self, function: &Function) -> FunctionInfo {
        let mut info = FunctionInfo::new(function.address, self.position(function.parent));
        let port_type = match (function.payload, function.parent) {
            (None, _) => None,
            (Some(_), Parent::HostBridge(_)) => Some(PortType::RootComplexIntegrated),
            (Some(_), Parent::Port(_)) => Some(PortType::Endpoint),
        };
        let resizable = function.bars.iter().filter(|bar| !bar.resizable.is_empty());
        info.registers = Registers {
            port_type: Fact::Known(port_type),
            express: Express {
                max_payload: function.payload.map(|payload| payload.max),
                max_read_request: function.payload.map(|payload| payload.max_read_request),
                relaxed_ordering: function.ordering.relaxed,
                no_snoop: function.ordering.no_snoop,
                atomic_requester: function.atomics.requester,
                atomic_completer: function
                    .atomics
                    .completer
                    .map(|completes| if completes { AtomicSizes::ALL } else { AtomicSizes::NONE }),
                link: link(function.link),
                ..Express::default()
            },
            bars: function.bars.iter().map(bar_register).collect(),
            ats: Fact::Known(function.ats.then_some(Ats { enabled: true })),
            pasid: Fact::Known(function.pasid_bits.map(|width| Pasid { enabled: true, width })),
            resizable: resizable
                .map(|bar| ResizableBar { index: bar.index, size: bar.bus.len(), sizes: bar.resizable.clone() })
                .collect(),
            ..registers(function.id, function.class, function.acs.clone())
        };
        info.bars = function
            .bars
            .iter()
            .map(|bar| Bar {
                index: bar.index,
                cpu: Some(bar.cpu),
                bus: Some(bar.bus.start()),
                size: Some(bar.bus.len()),
                prefetchable: bar.prefetchable,
            })
            .collect();
        info.dma_mask_bits = Some(function.mask_bits);
        info.device_memory = function.memory;
        info.driver.clone_from(&function.driver);
        finish(
            &mut info,
            Some(&function.name),
            noun(function.model).to_string(),
            self.host_bridge(function.host_bridge),
        );
        info
    }
}

fn host_facts(host: &HostBridge) -> HostBridgeFacts {
    HostBridgeFacts {
        // A checked window fits on both sides.
        windows: host.windows.iter().filter_map(|window| HostWindow::new(window.cpu, window.bus.start())).collect(),
        peer: match host.peer {
            Peer::Forwards => Some(PeerForwarding::Forwards),
            Peer::WritesOnly => Some(PeerForwarding::WritesOnly),
            Peer::AllOnes => Some(PeerForwarding::AllOnes),
            Peer::None => Some(PeerForwarding::Nothing),
            Peer::Unknown => None,
        },
        name: Some(host.name.clone()),
    }
}

fn link(stated: Option<LinkState>) -> Link {
    Link { speed: stated.map(|link| link.speed), width: stated.map(|link| link.width), ..Link::default() }
}

fn ram_region(ram: &Ram) -> MemoryRegion {
    MemoryRegion { range: ram.range, name: MemoryRegion::SYSTEM_RAM.to_string() }
}

/// The device that stands for a host bridge: an ID at 00.0 without capabilities.
fn first_device(host: &HostBridge, id: PciId) -> FunctionInfo {
    let address = PciAddr::new(host.segment, host.root_bus, DevFn::new(0));
    let mut info = FunctionInfo::new(address, Position::RootBus { bus: host.root_bus });
    info.registers = Registers {
        extended_end: ListEnd::NoList,
        ..registers(Some(id), SYSTEM_PERIPHERAL, Acs::Absent(AcsAbsent::Declared))
    };
    finish(&mut info, None, format!("first device of {}", host.name), host);
    info
}

/// A device's registers with everything in them known to be absent.
///
/// Memory and bus mastering are enabled: a file describes a machine that runs.
fn registers(id: Option<PciId>, class: ClassCode, acs: Acs) -> Registers {
    Registers {
        id,
        class: Some(class),
        header: Some(HeaderType::Device),
        multifunction: None,
        command: Some(Command { memory: true, bus_master: true }),
        buses: None,
        windows: BridgeWindows::CLOSED,
        bars: Vec::new(),
        port_type: Fact::Known(None),
        express: Express::default(),
        acs,
        sriov: Fact::Known(None),
        ats: Fact::Known(None),
        pri: Fact::Known(None),
        pasid: Fact::Known(None),
        resizable: Vec::new(),
        extended_end: ListEnd::Complete,
    }
}

fn bar_register(bar: &super::Bar) -> BarRegister {
    BarRegister {
        index: bar.index,
        memory: Some(bar.bus.start()),
        prefetchable: bar.prefetchable,
        is_64_bit: bar.prefetchable,
    }
}

/// What all functions of a platform file share.
fn finish(info: &mut FunctionInfo, name: Option<&str>, noun: String, host: &HostBridge) {
    info.origin = Origin::Platform;
    info.names = name.map(str::to_string).into_iter().collect();
    info.label = Some(match info.registers.id {
        Some(id) => format!("{noun} {id}"),
        None => noun,
    });
    info.numa_node = host.node;
}

const fn noun(model: Model) -> &'static str {
    match model {
        Model::Gpu => "GPU",
        Model::Nvme => "NVMe controller",
        Model::Nic => "NIC",
        Model::Dma => "DMA engine",
        Model::Plain => "plain device",
        Model::Accel => "accelerator",
    }
}
