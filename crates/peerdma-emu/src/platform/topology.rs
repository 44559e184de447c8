//! From a platform to the topology that every question is asked of.

use super::model::{Function, HostBridge, Parent, Port};
use super::words::{Model, PortKind};
use super::{Iommu, Kernel, Platform};
use peerdma::pcie::acs::{Acs, AcsAbsent};
use peerdma::pcie::caps::ListEnd;
use peerdma::pcie::decode::{BarRegister, BridgeBuses, BridgeWindows, Command, HeaderType, Registers};
use peerdma::pcie::express::{Express, PortType};
use peerdma::pcie::virt::{Ats, Pasid, ResizableBar};
use peerdma::pcie::{ClassCode, DevFn, Fact, PciAddr, PciId};
use peerdma::topology::{Bar, Builder, FunctionInfo, IommuMode, Origin, Position, Topology};

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
        for function in self.functions() {
            builder.function(self.function_info(function));
        }
        let machine = builder.machine();
        machine.cpu = self.cpu().cloned();
        machine.kernel = self.kernel().and_then(|Kernel { version, .. }| *version);
        machine.command_line = self.kernel().and_then(|Kernel { cmdline, .. }| cmdline.clone());
        machine.iommu = self.iommu().map(|Iommu { mode, .. }: &Iommu| -> IommuMode { *mode });
        builder.build()
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
            express: Express { max_payload: Some(port.mps), port_number: Some(port.number), ..Express::default() },
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
        finish(
            &mut info,
            Some(&function.name),
            noun(function.model).to_string(),
            self.host_bridge(function.host_bridge),
        );
        info
    }
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
        command: Some(Command { memory: true, bus_master: true }),
        buses: None,
        windows: BridgeWindows::default(),
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
