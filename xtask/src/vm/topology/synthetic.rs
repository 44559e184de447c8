//! A guest's topology without a guest, for tests: what a privileged capture of a model shows.
//!
//! Written from what guests were seen to show, independently of how the comparison reads it.

use super::model::Model;
use super::place::What;
use super::platform::{Exported, TwinAcs};
use peerdma::pcie::acs::{Acs, AcsAbsent, AcsBits, AcsRegisters};
use peerdma::pcie::decode::{BridgeBuses, HeaderType, Registers};
use peerdma::pcie::express::PortType;
use peerdma::pcie::{Fact, PciAddr, PciId};
use peerdma::topology::{Bar, Builder, FunctionInfo, Machine, Position, Topology};
use peerdma_emu::platform::Platform;

/// Functions as a capture shows them.
pub(super) struct Guest {
    pub(super) infos: Vec<FunctionInfo>,
    pub(super) machine: Machine,
}

/// QEMU's root port with a control word.
pub(super) fn acs(control: u16) -> Acs {
    let (capability, control) = (AcsBits::from_bits_retain(0x5f), AcsBits::from_bits_retain(control));
    Acs::Present(AcsRegisters::standard(Some(0x148), capability, control, Vec::new()))
}

impl Guest {
    pub(super) fn of(model: &Model) -> Self {
        let functions = model.functions();
        let mut guest = Self { infos: Vec::new(), machine: Machine::default() };
        guest.add("0000:00:00.0", "8086:29c0");
        guest.add("0000:00:02.0", "1af4:1003");
        guest.add("0000:00:1f.0", "8086:2918");
        for planned in &functions {
            let above = functions.iter().find(|other| {
                let steps = &planned.place.steps;
                other.place.root_bus == planned.place.root_bus && other.place.steps[..] == steps[..steps.len() - 1]
            });
            let position = match above {
                None => Position::RootBus { bus: planned.place.root_bus },
                Some(above) => Position::Below(above.address),
            };
            let mut info = FunctionInfo::new(planned.address, position);
            info.registers = registers(planned.what);
            if planned.what.is_bridge() {
                let below = functions.iter().filter(|other| {
                    other.place.root_bus == planned.place.root_bus
                        && other.place.steps.len() > planned.place.steps.len()
                        && other.place.steps.starts_with(&planned.place.steps)
                });
                let buses: Vec<u8> = below.map(|other| other.address.bus()).collect();
                info.registers.buses = Some(BridgeBuses {
                    primary: planned.address.bus(),
                    secondary: buses.iter().copied().min().unwrap_or(0),
                    subordinate: buses.iter().copied().max().unwrap_or(0),
                });
            }
            if let What::Endpoint(endpoint) = planned.what {
                let bars = endpoint.bars().into_iter();
                info.bars = bars
                    .map(|(index, size)| Bar {
                        index,
                        cpu: None,
                        bus: None,
                        size: Some(size),
                        prefetchable: index == 2,
                    })
                    .collect();
            }
            guest.infos.push(info);
        }
        guest
    }

    /// What the kernel and the command line of an export make of it.
    pub(super) fn boot(&mut self, exported: &Exported) {
        let family = match exported.cpu.as_str() {
            "qemu64" => "amd:0xf",
            other => panic!("the tests boot no {other}"),
        };
        self.machine.cpu = family.parse().ok();
        for twin in &exported.twins {
            if let TwinAcs::Control(control) = twin.acs {
                let [only] = twin.place.steps[..] else { panic!("{} is no root port", twin.name) };
                let address = PciAddr::new(0, twin.place.root_bus, only);
                self.at(&address.to_string()).registers.acs = acs(control.bits());
            }
        }
    }

    pub(super) fn add(&mut self, address: &str, id: &str) {
        let address: PciAddr = address.parse().unwrap();
        let (vendor, device) = id.split_once(':').unwrap();
        let number = |text| u16::from_str_radix(text, 16).unwrap();
        let mut info = FunctionInfo::new(address, Position::RootBus { bus: address.bus() });
        info.registers = Registers {
            id: Some(PciId { vendor: number(vendor), device: number(device) }),
            header: Some(HeaderType::Device),
            acs: Acs::Absent(AcsAbsent::NotExpress),
            port_type: Fact::Known(None),
            ..Registers::unread()
        };
        self.infos.push(info);
    }

    pub(super) fn at(&mut self, address: &str) -> &mut FunctionInfo {
        self.infos.iter_mut().find(|info| info.address.to_string() == address).unwrap()
    }

    /// Other bus numbers below the root buses.
    pub(super) fn renumber(&mut self, number: impl Fn(u8) -> u8) {
        let other = |address: PciAddr| PciAddr::new(address.domain(), number(address.bus()), address.devfn());
        for info in &mut self.infos {
            info.address = other(info.address);
            if let Position::Below(above) = &mut info.position {
                *above = other(*above);
            }
            if let Some(buses) = &mut info.registers.buses {
                *buses = BridgeBuses {
                    primary: number(buses.primary),
                    secondary: number(buses.secondary),
                    subordinate: number(buses.subordinate),
                };
            }
        }
    }

    pub(super) fn topology(&self) -> Topology {
        let mut builder = Builder::new();
        for info in &self.infos {
            builder.function(info.clone());
        }
        *builder.machine() = self.machine.clone();
        builder.build()
    }
}

fn registers(what: What<'_>) -> Registers {
    let (port_type, shown) = match what {
        What::RootPort { acs: true } => (Some(PortType::RootPort), acs(0)),
        What::RootPort { acs: false } => (Some(PortType::RootPort), Acs::Absent(AcsAbsent::WholeListRead)),
        What::Upstream => (Some(PortType::UpstreamPort), Acs::Absent(AcsAbsent::WholeListRead)),
        What::Downstream => (Some(PortType::DownstreamPort), Acs::Absent(AcsAbsent::WholeListRead)),
        What::ToPci => (Some(PortType::PciExpressToPci), Acs::Absent(AcsAbsent::WholeListRead)),
        What::Expander | What::Endpoint(_) => (None, Acs::Absent(AcsAbsent::NotExpress)),
    };
    Registers {
        id: Some(what.id()),
        header: Some(if what.is_bridge() { HeaderType::Bridge } else { HeaderType::Device }),
        port_type: Fact::Known(port_type),
        acs: shown,
        ..Registers::unread()
    }
}

/// A machine that QEMU can be all of: ports with ACS as booted, otherwise and absent, a switch,
/// a device of two functions, a bridge, two host bridges.
pub(super) fn platform() -> Platform {
    Platform::parse(include_str!("platform/exportable.toml"), "exportable.toml").unwrap()
}
