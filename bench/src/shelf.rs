//! Machines of many equal host bridges, for what is asked about pairs.
//!
//! Below each host bridge hang 4 root ports, below each of those a switch of 4 ports, and
//! below each of those a switch of 4 ports with an endpoint each: 64 endpoints on level 6.
//! ACS redirects on a quarter of the bridges, drawn by a fixed sequence. Of four host
//! bridges Linux lists three for traffic to others.

use peerdma::pcie::acs::{Acs, AcsAbsent, AcsBits, AcsRegisters};
use peerdma::pcie::decode::{BridgeBuses, HeaderType};
use peerdma::pcie::express::PortType;
use peerdma::pcie::{DevFn, Fact, PciAddr, PciId};
use peerdma::topology::{Builder, FunctionId, FunctionInfo, Position, Topology};

/// Endpoints below one host bridge.
pub const ENDPOINTS_PER_HOST: u32 = 64;

/// Switch levels below a root port.
const SWITCHES: u8 = 2;

/// A machine, and its endpoints in ascending order of addresses.
pub struct Shelf {
    /// The machine.
    pub topology: Topology,
    /// The endpoints.
    pub endpoints: Vec<FunctionId>,
}

/// Builds a machine of `hosts` host bridges, each in a domain of its own.
pub fn shelf(hosts: u32) -> Shelf {
    let mut builder = Builder::new();
    let mut draw = Draw(0x2545_f491);
    for domain in 0..hosts {
        let mut root = function(PciAddr::new(domain, 0, DevFn::new(0)), Position::RootBus { bus: 0 });
        let device = if domain % 4 == 3 { 0x7d00 } else { 0x09a2 };
        root.registers.id = Some(PciId { vendor: 0x8086, device });
        builder.function(root);
        let mut bus = 1;
        for port in 1..=4u8 {
            let address = PciAddr::new(domain, 0, DevFn::new(port << 3));
            below(&mut builder, address, Position::RootBus { bus: 0 }, &mut bus, SWITCHES, &mut draw);
        }
    }
    let machine = builder.machine();
    machine.cpu = "intel:6".parse().ok();
    machine.kernel = "7.2".parse().ok();
    let topology = builder.build();
    let is_endpoint = |info: &FunctionInfo| !info.is_bridge() && info.address.bus() != 0;
    let endpoints =
        topology.functions().filter(|(_, function)| is_endpoint(function.info())).map(|(id, _)| id).collect();
    Shelf { topology, endpoints }
}

/// A port at `address`, and below it `switches` levels of switches and then an endpoint.
/// `free` is the next bus number to hand out.
fn below(builder: &mut Builder, address: PciAddr, at: Position, free: &mut u8, switches: u8, draw: &mut Draw) {
    let mut next_bus = || {
        *free += 1;
        *free - 1
    };
    let (secondary, below_it) = (next_bus(), Position::Below(address));
    let on = |bus, slot: u8| PciAddr::new(address.domain(), bus, DevFn::new(slot << 3));
    if switches == 0 {
        builder.function(function(on(secondary, 0), below_it));
    } else {
        let (upstream, inner) = (on(secondary, 0), next_bus());
        for slot in 0..4 {
            below(builder, on(inner, slot), Position::Below(upstream), free, switches - 1, draw);
        }
        builder.function(bridge(upstream, below_it, inner, *free - 1, draw));
    }
    builder.function(bridge(address, at, secondary, *free - 1, draw));
}

fn function(address: PciAddr, at: Position) -> FunctionInfo {
    let mut info = FunctionInfo::new(address, at);
    info.registers.header = Some(HeaderType::Device);
    info.registers.id = Some(PciId { vendor: 0x10de, device: 0x2330 });
    info.registers.port_type = Fact::Known(Some(PortType::Endpoint));
    info.registers.acs = Acs::Absent(AcsAbsent::WholeListRead);
    info
}

fn bridge(address: PciAddr, at: Position, secondary: u8, subordinate: u8, draw: &mut Draw) -> FunctionInfo {
    let mut info = function(address, at);
    info.registers.header = Some(HeaderType::Bridge);
    info.registers.port_type = Fact::Known(Some(PortType::RootPort));
    info.registers.buses = Some(BridgeBuses { primary: address.bus(), secondary, subordinate });
    let control = if draw.next().is_multiple_of(4) { AcsBits::RR | AcsBits::CR } else { AcsBits::SV };
    info.registers.acs = Acs::Present(AcsRegisters::standard(Some(0x148), AcsBits::all(), control, vec![]));
    info
}

/// Marsaglia's xorshift: the same sequence on every machine.
struct Draw(u32);

impl Draw {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0
    }
}
