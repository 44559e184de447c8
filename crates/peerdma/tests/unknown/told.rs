//! What is told about a machine, and how the crate is told it.

use crate::list::UNLISTED;
use peerdma::pcie::acs::{Acs, AcsAbsent, AcsBits, AcsRegisters, AcsUnread};
use peerdma::pcie::decode::{BridgeBuses, HeaderType};
use peerdma::pcie::express::PortType;
use peerdma::pcie::{DevFn, PciAddr, PciId};
use peerdma::topology::{Builder, Cpu, FunctionInfo, Position, Topology};
use std::fmt;

/// How a function's place is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum At {
    Root(u8),
    Below(usize),
    ByBusNumber,
}

/// What is told about one function.
#[derive(Clone)]
pub(crate) struct Told {
    pub(crate) domain: u32,
    pub(crate) bus: u8,
    pub(crate) devfn: u8,
    pub(crate) at: At,
    /// Index of its physical function.
    pub(crate) physical: Option<usize>,
    /// Not told; told absent; told this control word.
    pub(crate) acs: Option<Option<u16>>,
    /// The ID, or what its name may stand for; empty where nothing is told.
    pub(crate) ids: Vec<(u16, u16)>,
    /// Not told; told to have no PCIe capability; told.
    pub(crate) port: Option<Option<PortType>>,
    /// For bridges: secondary and subordinate bus, where told.
    pub(crate) bridge: Option<Option<(u8, u8)>>,
}

impl Told {
    pub(crate) fn new(domain: u32, bus: u8, devfn: u8, at: At) -> Self {
        let (acs, port) = (Some(None), Some(Some(PortType::Endpoint)));
        Self { domain, bus, devfn, at, physical: None, acs, ids: vec![UNLISTED], port, bridge: None }
    }

    /// Whether its bus numbers allow `bus` below it.
    pub(crate) fn may_lead_to(&self, bus: u8) -> bool {
        match self.bridge {
            None => false,
            Some(None) => self.bus < bus,
            Some(Some((secondary, subordinate))) => secondary <= bus && bus <= subordinate,
        }
    }

    pub(crate) fn has_in_range(&self, domain: u32, bus: u8) -> bool {
        self.domain == domain && self.bridge.flatten().is_some() && self.may_lead_to(bus)
    }
}

/// Where a function hangs, as far as is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Home {
    Root(u8),
    Below(usize),
    /// Through unlisted bridges, or bridges without numbers, below this one.
    Within(usize),
    /// Anywhere in its domain.
    Somewhere,
}

#[derive(Clone, Default)]
pub(crate) struct Machine {
    pub(crate) functions: Vec<Told>,
    /// `amd:0x19`, `intel:6`, or not told.
    pub(crate) cpu: Option<&'static str>,
    pub(crate) kernel: Option<&'static str>,
    pub(crate) configured: Option<bool>,
}

/// One line per function: a failure is read by a person.
impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "cpu {:?} kernel {:?} configured {:?}", self.cpu, self.kernel, self.configured)?;
        for (index, told) in self.functions.iter().enumerate() {
            let (address, home) = (self.address(index), self.home(index));
            write!(f, "{index}: {address} {:?} = {home:?} acs {:02x?} ids {:04x?}", told.at, told.acs, told.ids)?;
            writeln!(f, " port {:?} bridge {:02x?} vf of {:?}", told.port, told.bridge, told.physical)?;
        }
        Ok(())
    }
}

impl Machine {
    pub(crate) fn home(&self, index: usize) -> Home {
        let told = &self.functions[self.functions[index].physical.unwrap_or(index)];
        match told.at {
            At::Root(bus) => return Home::Root(bus),
            At::Below(bridge) => return Home::Below(bridge),
            At::ByBusNumber => {}
        }
        let same_domain = |other: &&Told| other.domain == told.domain;
        let innermost = (0..self.functions.len())
            .filter(|&other| self.functions[other].has_in_range(told.domain, told.bus))
            .max_by_key(|&other| self.functions[other].bridge.flatten());
        match innermost {
            Some(bridge) if self.functions[bridge].bridge.flatten().is_some_and(|(first, _)| first == told.bus) => {
                Home::Below(bridge)
            }
            Some(bridge) => Home::Within(bridge),
            None => {
                let mut others = self.functions.iter().filter(same_domain);
                let open = others.any(|other| {
                    let enclosed = |range: &Told| range.has_in_range(told.domain, other.bus);
                    other.bridge == Some(None) && other.bus < told.bus && !self.functions.iter().any(enclosed)
                });
                if open { Home::Somewhere } else { Home::Root(told.bus) }
            }
        }
    }

    pub(crate) fn address(&self, index: usize) -> PciAddr {
        let told = &self.functions[index];
        PciAddr::new(told.domain, told.bus, DevFn::new(told.devfn))
    }

    pub(crate) fn topology(&self) -> Topology {
        let topology = self.build();
        assert_eq!(topology.contradictions(), []);
        topology
    }

    pub(crate) fn build(&self) -> Topology {
        let mut builder = Builder::new();
        for (index, told) in self.functions.iter().enumerate() {
            let mut info = FunctionInfo::new(
                self.address(index),
                match told.at {
                    At::Root(bus) => Position::RootBus { bus },
                    At::Below(bridge) => Position::Below(self.address(bridge)),
                    At::ByBusNumber => Position::ByBusNumber,
                },
            );
            info.physfn = told.physical.map(|physical| self.address(physical));
            let ids: Vec<PciId> = told.ids.iter().map(|&(vendor, device)| PciId { vendor, device }).collect();
            match ids[..] {
                [id] => info.registers.id = Some(id),
                _ => info.ids_by_name = ids,
            }
            info.registers.port_type = told.port.into();
            info.registers.acs = match told.acs {
                None => Acs::Unknown(AcsUnread::Denied),
                Some(None) => Acs::Absent(AcsAbsent::WholeListRead),
                Some(Some(control)) => {
                    let control = AcsBits::from_bits_retain(control);
                    Acs::Present(AcsRegisters::standard(Some(0x148), AcsBits::all(), control, vec![]))
                }
            };
            info.registers.header = Some(if told.bridge.is_some() { HeaderType::Bridge } else { HeaderType::Device });
            info.registers.buses = told.bridge.flatten().map(|(secondary, subordinate)| BridgeBuses {
                primary: told.bus,
                secondary,
                subordinate,
            });
            builder.function(info);
        }
        let machine = builder.machine();
        machine.cpu = self.cpu.map(|cpu| cpu.parse::<Cpu>().unwrap());
        machine.kernel = self.kernel.map(|kernel| kernel.parse().unwrap());
        machine.p2pdma_configured = self.configured.into();
        builder.build()
    }
}
