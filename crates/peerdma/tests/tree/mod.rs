//! Trees for tests, written as a person would: addresses and bus numbers.

use peerdma::pcie::acs::{Acs, AcsAbsent, AcsBits, AcsRegisters};
use peerdma::pcie::decode::{BridgeBuses, HeaderType};
use peerdma::pcie::express::PortType;
use peerdma::pcie::{Fact, PciAddr, PciId};
use peerdma::topology::{Builder, Cpu, FunctionId, FunctionInfo, Position, Topology};

/// A machine in the making. Functions have no ACS and an ID in no list unless told.
pub(crate) struct Tree {
    cpu: Option<Cpu>,
    kernel: &'static str,
    functions: Vec<FunctionInfo>,
}

impl Tree {
    /// `cpu` as on a command line, or `unknown`; `kernel` likewise, or empty for none told.
    pub(crate) fn new(cpu: &str, kernel: &'static str) -> Self {
        Self { cpu: cpu.parse().ok(), kernel, functions: vec![] }
    }

    /// 00:00.0 with `id`; a port with two functions below it, a port with one.
    pub(crate) fn two_root_ports(cpu: &str, id: &str) -> Self {
        let ports = Self::new(cpu, "7.2.13").device("00:00.0").id("00:00.0", id).port("00:01.0", 1, 1);
        ports.port("00:02.0", 2, 2).device("01:00.0").device("01:00.1").device("02:00.0")
    }

    /// 00:00.0 with `id`; 00:01.0, a switch of 01:00.0, 02:00.0, 02:01.0, and 03:00.0 and 04:00.0 below it.
    pub(crate) fn switch(cpu: &str, id: &str) -> Self {
        let root = Self::new(cpu, "7.2.13").device("00:00.0").id("00:00.0", id).port("00:01.0", 1, 4);
        let switch = root.port("01:00.0", 2, 4).port("02:00.0", 3, 3).port("02:01.0", 4, 4);
        switch.device("03:00.0").device("04:00.0")
    }

    pub(crate) fn device(mut self, address: &str) -> Self {
        let mut info = FunctionInfo::new(address.parse().unwrap(), Position::ByBusNumber);
        info.registers.header = Some(HeaderType::Device);
        info.registers.id = Some(PciId { vendor: 0x10de, device: 0x2330 });
        info.registers.port_type = Fact::Known(Some(PortType::Endpoint));
        info.registers.acs = Acs::Absent(AcsAbsent::WholeListRead);
        self.functions.push(info);
        self
    }

    pub(crate) fn port(self, address: &str, secondary: u8, subordinate: u8) -> Self {
        self.device(address).edit(address, |info| {
            let primary = info.address.bus();
            info.registers.header = Some(HeaderType::Bridge);
            info.registers.port_type = Fact::Known(Some(PortType::RootPort));
            info.registers.buses = Some(BridgeBuses { primary, secondary, subordinate });
        })
    }

    pub(crate) fn id(self, address: &str, id: &str) -> Self {
        let (vendor, device) = id.split_once(':').unwrap();
        let number = |text| u16::from_str_radix(text, 16).unwrap();
        let id = PciId { vendor: number(vendor), device: number(device) };
        self.edit(address, |info| info.registers.id = Some(id))
    }

    /// Gives a function an ACS capability at 0x148 with this control word.
    pub(crate) fn acs(self, address: &str, control: AcsBits) -> Self {
        let registers = AcsRegisters::standard(Some(0x148), AcsBits::from_bits_retain(0x7f), control, vec![]);
        self.edit(address, |info| info.registers.acs = Acs::Present(registers))
    }

    pub(crate) fn edit(mut self, address: &str, change: impl FnOnce(&mut FunctionInfo)) -> Self {
        let address: PciAddr = address.parse().unwrap();
        change(self.functions.iter_mut().find(|info| info.address == address).unwrap());
        self
    }

    pub(crate) fn topology(self) -> Topology {
        let mut builder = Builder::new();
        self.functions.into_iter().for_each(|info| builder.function(info));
        builder.machine().cpu = self.cpu;
        builder.machine().kernel = self.kernel.parse().ok();
        let topology = builder.build();
        assert_eq!(topology.contradictions(), []);
        topology
    }
}

pub(crate) fn at(topology: &Topology, address: &str) -> FunctionId {
    topology.at(address.parse().unwrap()).unwrap()
}
