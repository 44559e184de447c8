//! The machine of the data file, as configuration space and back.

use crate::data::{Case, Change, Data, Function, Root, Tlp};
use peerdma::addr::{AddrRange, BusAddr, Bytes, Iova, PhysAddr};
use peerdma::pcie::PciAddr;
use peerdma::pcie::config::{ConfigBytes, ConfigSize};
use peerdma::pcie::decode::Registers;
use peerdma::route::fabric::Kind;
use peerdma::route::fabric::journey::{Iommu, RootComplex, StatedFabric};
use peerdma::topology::{
    Bar, Builder, FunctionId, FunctionInfo, HostBridgeFacts, HostWindow, PeerForwarding, Position, Topology,
};

/// The machine as one TLP of a case finds it.
pub(crate) struct Machine {
    pub(crate) functions: Vec<Function>,
    pub(crate) topology: Topology,
    root: Root,
    mappings: Mappings,
}

struct Mappings {
    identity: bool,
    /// Requester, IOVA, CPU address, length.
    map: Vec<(PciAddr, u64, u64, u64)>,
    trusted: Vec<PciAddr>,
}

impl Iommu for Mappings {
    fn translate(&self, requester: PciAddr, address: Iova, _kind: Kind) -> Option<PhysAddr> {
        let address = address.as_u64();
        if self.identity {
            return Some(PhysAddr::new(address));
        }
        self.map.iter().find_map(|&(who, iova, cpu, len)| {
            let offset = address.checked_sub(iova).filter(|&offset| who == requester && offset < len)?;
            Some(PhysAddr::new(cpu + offset))
        })
    }

    fn trusts(&self, requester: PciAddr) -> bool {
        self.trusted.contains(&requester)
    }
}

/// Changes a function after its registers were read.
pub(crate) type Edit<'e> = &'e dyn Fn(&str, &mut FunctionInfo);

impl Machine {
    /// The machine without any case, changed by `edit` and with other facts of its host bridge.
    pub(crate) fn edited(data: &Data, spare: &[&str], edit: Edit<'_>, peer: Option<PeerForwarding>) -> Topology {
        let there = |function: &&Function| !function.spare || spare.contains(&function.name.as_str());
        let functions: Vec<Function> = data.function.iter().filter(there).cloned().collect();
        topology(&functions, &data.root(None), edit, peer)
    }

    pub(crate) fn new(data: &Data, case: &Case, tlp: &Tlp) -> Self {
        let functions = data.functions(case, tlp, apply);
        let root = data.root(Some((case, tlp)));
        let topology = topology(&functions, &root, &|_, _| {}, None);
        let address =
            |name: &str| functions.iter().find(|function| function.name == name).unwrap().address.parse().unwrap();
        // Mappings of functions that are not there are nobody's.
        let map = root.map.iter().filter(|(name, ..)| functions.iter().any(|function| function.name == *name));
        let mappings = Mappings {
            identity: root.iommu == "identity",
            map: map.map(|(name, iova, cpu, len)| (address(name), *iova, *cpu, *len)).collect(),
            trusted: root.trusted.iter().map(|name| address(name)).collect(),
        };
        Self { functions, topology, root, mappings }
    }

    pub(crate) fn function(&self, name: &str) -> &Function {
        self.functions.iter().find(|function| function.name == name).unwrap_or_else(|| panic!("no function {name}"))
    }

    pub(crate) fn id(&self, name: &str) -> FunctionId {
        self.topology.at(self.function(name).address.parse().unwrap()).unwrap()
    }

    pub(crate) fn name(&self, id: FunctionId) -> &str {
        let address = self.topology.function(id).address();
        let named = self.functions.iter().find(|function| function.address.parse() == Ok(address));
        &named.unwrap().name
    }

    /// The ports of the switch below RP0.
    pub(crate) fn is_outer_switch(&self, name: &str) -> bool {
        name == "USP" || self.function(name).above.as_deref() == Some("USP")
    }

    pub(crate) fn fabric(&self, case: &Case) -> StatedFabric<'_> {
        let range = |&(start, len): &(u64, u64)| AddrRange::new(PhysAddr::new(start), Bytes::new(len)).unwrap();
        let (start, len) = self.root.interrupts;
        let root = RootComplex {
            iommu: (self.root.iommu != "off").then_some(&self.mappings),
            memory: self.root.memory.iter().map(range).collect(),
            interrupts: AddrRange::new(BusAddr::new(start), Bytes::new(len)),
            peer: match self.root.peer.as_str() {
                "forwards" => PeerForwarding::Forwards,
                "writes only" => PeerForwarding::WritesOnly,
                "nothing" => PeerForwarding::Nothing,
                other => panic!("root.peer {other}"),
            },
            replaces_requester: self.root.replaces_requester,
            between_ports: self.root.between_ports,
            splits: self.root.splits,
        };
        let mut fabric = StatedFabric::new(&self.topology, root);
        case.inside.iter().for_each(|name| fabric.routes_inside(self.id(name)));
        case.groups.iter().for_each(|(name, group)| fabric.function_group(self.id(name), *group));
        fabric
    }
}

fn apply(function: &mut Function, change: &Change) {
    if !change.acs.is_empty() {
        // Functions inside a device have RR, CR, EC and DT; ports have all.
        let [mut capability, mut control] = function.acs.unwrap_or([0x006c, 0]);
        for bit in &change.acs {
            match bit.as_str() {
                "ENH" => capability |= 1 << 7,
                other => control |= control_bit(other),
            }
        }
        function.acs = Some([capability, control]);
    }
    function.vector.extend(&change.vector);
    let mut switch = |bit: u16, on: Option<bool>| match on {
        Some(true) => function.command |= bit,
        Some(false) => function.command &= !bit,
        None => {}
    };
    switch(2, change.memory);
    switch(4, change.bus_master);
    if let Some(address) = &change.address {
        function.address.clone_from(address);
    }
    function.buses = change.buses.or(function.buses);
    function.memory = change.memory_window.or(function.memory);
    if let Some(bars) = &change.bars {
        function.bars.clone_from(bars);
    }
    if let Some(bytes) = change.max_payload {
        let field = (bytes / 128).trailing_zeros() as u16;
        function.device_control = function.device_control & !0xe0 | field << 5;
    }
    match change.atomic_routing {
        Some(true) => function.device_capabilities_2 |= 1 << 6,
        Some(false) => function.device_capabilities_2 &= !(1 << 6),
        None => {}
    }
    if change.atomic_egress_blocking == Some(true) {
        function.device_control_2 |= 1 << 7;
    }
    function.virtual_of = change.virtual_of.clone().or(function.virtual_of.take());
}

fn control_bit(name: &str) -> u16 {
    match name.split_once('=') {
        Some(("DSP-MT", value)) => value.parse::<u16>().unwrap() << 8,
        Some(("USP-MT", value)) => value.parse::<u16>().unwrap() << 10,
        _ => match ["SV", "TB", "RR", "CR", "UF", "EC", "DT"].iter().position(|bit| *bit == name) {
            Some(bit) => 1 << bit,
            None if name == "URR" => 1 << 12,
            None => panic!("ACS has no bit {name}"),
        },
    }
}

fn topology(functions: &[Function], root: &Root, edit: Edit<'_>, peer: Option<PeerForwarding>) -> Topology {
    let mut builder = Builder::new();
    let address = |name: &str| -> PciAddr {
        functions.iter().find(|function| function.name == name).unwrap().address.parse().unwrap()
    };
    for function in functions {
        let position = match &function.above {
            None => Position::RootBus { bus: 0 },
            Some(above) => Position::Below(address(above)),
        };
        let mut info = FunctionInfo::new(address(&function.name), position);
        info.registers = Registers::decode(&ConfigBytes::new(config(function), ConfigSize::Kernel(4096)));
        info.physfn = function.virtual_of.as_deref().map(address);
        info.bars = (function.bars.iter())
            .map(|&(index, bus, size)| Bar {
                index,
                cpu: None,
                bus: Some(BusAddr::new(bus)),
                size: Some(Bytes::new(size)),
                prefetchable: false,
            })
            .collect();
        edit(&function.name, &mut info);
        builder.function(info);
    }
    let window = |&(cpu, bus, len): &(u64, u64, u64)| {
        HostWindow::new(AddrRange::new(PhysAddr::new(cpu), Bytes::new(len)).unwrap(), BusAddr::new(bus)).unwrap()
    };
    let windows = root.windows.iter().map(window).collect();
    builder.host_bridge(0, 0, HostBridgeFacts { windows, peer, ..HostBridgeFacts::default() });
    let topology = builder.build();
    assert_eq!(topology.contradictions(), []);
    topology
}

/// The function's configuration space: Express at 40h, ACS at 100h.
fn config(function: &Function) -> Vec<u8> {
    let mut bytes = vec![0u8; 4096];
    let mut put = |at: usize, len: usize, value: u64| bytes[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
    put(0x00, 4, 0x0001_1b36);
    put(0x04, 2, function.command.into());
    put(0x06, 2, 0x10);
    put(0x34, 1, 0x40);
    if let Some(buses) = function.buses {
        put(0x08, 4, 0x0604_0000);
        put(0x0e, 1, 1);
        buses.iter().enumerate().for_each(|(n, &bus)| put(0x18 + n, 1, bus.into()));
    } else {
        put(0x08, 4, 0x1200_0000);
        for &(index, address, _) in &function.bars {
            put(0x10 + 4 * usize::from(index), 8, address | 0x4);
        }
    }
    if let Some(memory) = function.memory {
        memory.iter().enumerate().for_each(|(n, &word)| put(0x20 + 2 * n, 2, word.into()));
    }
    if let Some([base, limit, upper_base, upper_limit]) = function.prefetchable {
        put(0x24, 2, base.into());
        put(0x26, 2, limit.into());
        put(0x28, 4, upper_base.into());
        put(0x2c, 4, upper_limit.into());
    }
    match function.port_type {
        Some(port_type) => {
            put(0x40, 2, 0x0010);
            put(0x42, 2, u64::from(port_type) << 4 | 2);
            put(0x44, 4, 2);
            put(0x48, 2, function.device_control.into());
            put(0x4c, 4, u64::from(function.port_number) << 24);
            put(0x64, 4, function.device_capabilities_2.into());
            put(0x68, 2, function.device_control_2.into());
        }
        None => put(0x34, 1, 0),
    }
    if let Some([capability, control]) = function.acs {
        put(0x100, 4, 0x0001_000d);
        put(0x104, 2, capability.into());
        put(0x106, 2, control.into());
        let mut vector = [0u8; 32];
        function.vector.iter().for_each(|bit| vector[usize::from(bit / 8)] |= 1 << (bit % 8));
        vector.iter().enumerate().for_each(|(n, &byte)| put(0x108 + n, 1, byte.into()));
    }
    bytes
}
