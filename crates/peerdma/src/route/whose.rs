//! What an address belongs to.
//!
//! One number can be three things: what the CPU puts on its bus, what travels below a
//! host bridge, and what an IOMMU translates. Each reading has a function of its own
//! here, with its own address type. A reading that found nothing says what was not read
//! and could have owned the address ([`Reading::missing`]); only with nothing missing is
//! nothing there.
//!
//! - The CPU's side is complete with the machine's memory map, which names everything
//!   that answers there.
//! - A bus is complete with the windows of its host bridge: outside them no address
//!   belongs to a device below.
//! - Reserved regions are complete with the IOMMU groups.

use super::Target;
use crate::addr::{AddrRange, Address, BusAddr, Bytes, Iova, PhysAddr};
use crate::topology::{FunctionId, HostBridgeId, HostWindow, IommuMode, MemoryRegion, Parent, Topology};
use alloc::string::String;
use alloc::vec::Vec;

/// Something at an address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owner {
    /// What it is.
    pub what: Thing,
    /// Whether all of the asked range lies in it, not a part only.
    pub all: bool,
}

/// What can be at an address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Thing {
    /// Memory of a function.
    Bar {
        /// Whose.
        function: FunctionId,
        /// Which, 0 to 5.
        bar: u8,
        /// Where in it the asked range starts; `None` if before it.
        offset: Option<Bytes>,
        /// All of it as the CPU addresses it, where known.
        cpu: Option<AddrRange<PhysAddr>>,
        /// All of it as it is addressed below its host bridge, where known.
        bus: Option<AddrRange<BusAddr>>,
    },
    /// What a port passes down.
    PortWindow {
        /// The port.
        port: FunctionId,
        /// Whether it is the prefetchable one.
        prefetchable: bool,
        /// All of it.
        bus: AddrRange<BusAddr>,
    },
    /// What a host bridge passes down.
    HostWindow {
        /// The host bridge.
        host: HostBridgeId,
        /// All of it, from both sides.
        window: HostWindow,
    },
    /// A stretch of the machine's memory map, RAM among them.
    Region(MemoryRegion),
    /// Addresses that the IOMMU does not translate as others.
    Reserved {
        /// The IOMMU group.
        group: u32,
        /// sysfs' word: `msi`, `direct`, `reserved`, …
        kind: String,
        /// All of it.
        range: AddrRange<Iova>,
    },
}

/// What was not read and may own an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Missing {
    /// The machine's memory map.
    MemoryMap,
    /// The windows of this host bridge.
    Windows(HostBridgeId),
    /// The size of a BAR whose start is known.
    BarSize(FunctionId, u8),
    /// The IOMMU groups with their reserved regions.
    Groups,
}

/// One reading of a number.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reading {
    /// What is there, from the outside in.
    pub owners: Vec<Owner>,
    /// What else could be there, for all that was read.
    pub missing: Vec<Missing>,
}

/// What the CPU finds at `asked`.
pub fn at_cpu(topology: &Topology, asked: AddrRange<PhysAddr>) -> Reading {
    let mut reading = Reading::default();
    for region in &topology.machine().memory_map {
        reading.add(&asked, &region.range, || Thing::Region(region.clone()));
    }
    for (host, bridge) in topology.host_bridges() {
        for &window in &bridge.facts().windows {
            reading.add(&asked, &window.cpu(), || Thing::HostWindow { host, window });
        }
    }
    for (host, bus) in below_host_bridges(topology, asked) {
        reading.add_ports(topology, Some(host), bus);
    }
    reading.add_bars(topology, &asked, None, |target| target.cpu());
    if topology.machine().memory_map.is_empty() {
        reading.missing.push(Missing::MemoryMap);
    } else {
        // A map of everything that answers leaves nothing for a BAR of unknown size.
        reading.missing.clear();
    }
    reading
}

/// What a request finds at `asked` that travels below `host`.
pub fn at_bus(topology: &Topology, host: HostBridgeId, asked: AddrRange<BusAddr>) -> Reading {
    let mut reading = Reading::default();
    let windows = &topology.host_bridge(host).facts().windows;
    for &window in windows {
        reading.add(&asked, &window.bus(), || Thing::HostWindow { host, window });
    }
    reading.add_ports(topology, Some(host), asked);
    reading.add_bars(topology, &asked, Some(host), |target| target.bus());
    if windows.is_empty() {
        reading.missing.push(Missing::Windows(host));
    }
    reading
}

/// What requests find at `asked` below the host bridges all together, for a sender that is not known.
pub(super) fn at_any_bus(topology: &Topology, asked: AddrRange<BusAddr>) -> Reading {
    let mut reading = Reading::default();
    for (host, bridge) in topology.host_bridges() {
        for &window in &bridge.facts().windows {
            reading.add(&asked, &window.bus(), || Thing::HostWindow { host, window });
        }
    }
    reading.add_ports(topology, None, asked);
    reading.add_bars(topology, &asked, None, |target| target.bus());
    reading
}

/// What an IOMMU keeps `asked` for.
pub fn at_iova(topology: &Topology, asked: AddrRange<Iova>) -> Reading {
    let mut reading = Reading::default();
    for group in topology.groups() {
        for region in &group.reserved {
            let kind = || region.kind.clone();
            reading.add(&asked, &region.range, || Thing::Reserved {
                group: group.id,
                kind: kind(),
                range: region.range,
            });
        }
    }
    let machine = topology.machine();
    let nothing_to_list = machine.groups_are_complete || machine.iommu == Some(IommuMode::None);
    if topology.groups().is_empty() && !nothing_to_list {
        reading.missing.push(Missing::Groups);
    }
    reading
}

/// Where `cpu` appears below host bridges: through each window that holds all of it.
pub fn below_host_bridges(
    topology: &Topology,
    cpu: AddrRange<PhysAddr>,
) -> impl Iterator<Item = (HostBridgeId, AddrRange<BusAddr>)> {
    topology.host_bridges().flat_map(move |(host, bridge)| {
        bridge.facts().windows.iter().filter_map(move |window| Some((host, window.to_bus(&cpu)?)))
    })
}

/// Where the CPU sees `bus` of a host bridge; `None` outside its windows.
pub fn above_host_bridge(
    topology: &Topology,
    host: HostBridgeId,
    bus: AddrRange<BusAddr>,
) -> Option<AddrRange<PhysAddr>> {
    topology.host_bridge(host).facts().windows.iter().find_map(|window| window.to_cpu(&bus))
}

impl Reading {
    /// Whether something is there.
    pub fn is_owned(&self) -> bool {
        !self.owners.is_empty()
    }

    /// Whether nothing is there for sure.
    pub fn is_free(&self) -> bool {
        self.owners.is_empty() && self.missing.is_empty()
    }

    fn add<A: Address>(&mut self, asked: &AddrRange<A>, has: &AddrRange<A>, what: impl FnOnce() -> Thing) {
        if overlap(asked, has) {
            self.owners.push(Owner { what: what(), all: has.contains_range(asked) });
        }
    }

    /// Windows of ports below `host`, or of all, which come in an order from the root down.
    fn add_ports(&mut self, topology: &Topology, host: Option<HostBridgeId>, asked: AddrRange<BusAddr>) {
        for (port, function) in topology.functions() {
            let windows = function.info().registers.windows;
            for (window, prefetchable) in [(windows.memory, false), (windows.prefetchable, true)] {
                let Some(bus) = window.known().flatten().filter(|bus| overlap(bus, &asked)) else { continue };
                if host.is_none() || host_of(topology, port) == host {
                    self.add(&asked, &bus, || Thing::PortWindow { port, prefetchable, bus });
                }
            }
        }
    }

    /// BARs below `host`, or of all functions, by one of their two sides.
    fn add_bars<A: Address>(
        &mut self,
        topology: &Topology,
        asked: &AddrRange<A>,
        host: Option<HostBridgeId>,
        side: impl Fn(&Target) -> Option<AddrRange<A>>,
    ) {
        for (function, facts) in topology.functions() {
            if facts.info().bars.is_empty() || (host.is_some() && host_of(topology, function) != host) {
                continue;
            }
            for bar in &facts.info().bars {
                let Ok(target) = Target::of_bar(topology, function, bar.index, None) else { continue };
                if target.len().is_none() {
                    self.missing.push(Missing::BarSize(function, bar.index));
                }
                let Some(range) = side(&target) else { continue };
                let offset = asked.start().as_u64().checked_sub(range.start().as_u64()).map(Bytes::new);
                self.add(asked, &range, || Thing::Bar {
                    function,
                    bar: bar.index,
                    offset,
                    cpu: target.cpu(),
                    bus: target.bus(),
                });
            }
        }
    }
}

fn overlap<A: Address>(one: &AddrRange<A>, other: &AddrRange<A>) -> bool {
    one.start() <= other.last() && other.start() <= one.last()
}

/// The host bridge at the top, where the way up is known.
pub(super) fn host_of(topology: &Topology, function: FunctionId) -> Option<HostBridgeId> {
    let mut at = function;
    loop {
        match topology.upstream(at) {
            Parent::Bridge(bridge) => at = bridge,
            Parent::Root(host) => return Some(host),
            Parent::Unknown { .. } => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pcie::Fact;
    use crate::pcie::decode::{BridgeWindows, HeaderType};
    use crate::topology::{Bar, Builder, FunctionInfo, HostBridgeFacts, IommuGroup, Position, ReservedRegion};
    use alloc::string::ToString;
    use alloc::vec;

    const OFFSET: u64 = 0x50_0000_0000;

    fn cpu(start: u64, len: u64) -> AddrRange<PhysAddr> {
        AddrRange::new(PhysAddr::new(start), Bytes::new(len)).unwrap()
    }

    fn bus(start: u64, len: u64) -> AddrRange<BusAddr> {
        AddrRange::new(BusAddr::new(start), Bytes::new(len)).unwrap()
    }

    fn iova(start: u64, len: u64) -> AddrRange<Iova> {
        AddrRange::new(Iova::new(start), Bytes::new(len)).unwrap()
    }

    /// A root port with a window and a device with one BAR, behind a host bridge whose
    /// window lies elsewhere for the CPU; beside it one of which nothing is known.
    fn machine(with_map: bool, bar_size: Option<u64>) -> Topology {
        let mut builder = Builder::new();
        let mut port = FunctionInfo::new("00:01.0".parse().unwrap(), Position::RootBus { bus: 0 });
        port.registers.header = Some(HeaderType::Bridge);
        port.registers.windows =
            BridgeWindows { memory: Fact::Known(Some(bus(0x9000_0000, 0x10_0000))), prefetchable: Fact::Known(None) };
        builder.function(port);
        let mut device = FunctionInfo::new("01:00.0".parse().unwrap(), Position::Below("00:01.0".parse().unwrap()));
        device.bars = vec![Bar {
            index: 2,
            cpu: None,
            bus: Some(BusAddr::new(0x9000_4000)),
            size: bar_size.map(Bytes::new),
            prefetchable: false,
        }];
        builder.function(device);
        builder.function(FunctionInfo::new("80:00.0".parse().unwrap(), Position::RootBus { bus: 0x80 }));
        let windows = vec![HostWindow::new(cpu(OFFSET + 0x9000_0000, 0x1000_0000), BusAddr::new(0x9000_0000)).unwrap()];
        builder.host_bridge(0, 0, HostBridgeFacts { windows, ..HostBridgeFacts::default() });
        let msi = ReservedRegion { range: iova(0xfee0_0000, 0x10_0000), kind: "msi".to_string() };
        builder.group(IommuGroup { id: 7, kind: Some("DMA".to_string()), reserved: vec![msi] });
        if with_map {
            builder.machine().memory_map =
                vec![MemoryRegion { range: cpu(0, 0x8000_0000), name: MemoryRegion::SYSTEM_RAM.to_string() }];
        }
        builder.build()
    }

    fn host(topology: &Topology, bus: u8) -> HostBridgeId {
        topology.host_bridges().find(|(_, host)| host.bus() == bus).unwrap().0
    }

    fn kinds(reading: &Reading) -> Vec<&'static str> {
        let word = |owner: &Owner| match owner.what {
            Thing::Bar { .. } => "bar",
            Thing::PortWindow { .. } => "port",
            Thing::HostWindow { .. } => "host",
            Thing::Region(_) => "region",
            Thing::Reserved { .. } => "reserved",
        };
        reading.owners.iter().map(word).collect()
    }

    #[test]
    fn one_byte_of_a_bar_is_found_from_both_sides_with_all_windows_around_it() {
        let topology = machine(true, Some(0x1000));
        let seen = at_cpu(&topology, cpu(OFFSET + 0x9000_4010, 1));
        assert_eq!(kinds(&seen), ["host", "port", "bar"]);
        let Thing::Bar { offset, cpu: from_cpu, bus: from_bus, bar, .. } = seen.owners[2].what else {
            panic!("{seen:?}")
        };
        assert_eq!((bar, offset), (2, Some(Bytes::new(0x10))));
        assert_eq!((from_cpu, from_bus), (Some(cpu(OFFSET + 0x9000_4000, 0x1000)), Some(bus(0x9000_4000, 0x1000))));
        let below = at_bus(&topology, host(&topology, 0), bus(0x9000_4010, 1));
        assert_eq!(kinds(&below), ["host", "port", "bar"]);
        assert!(below.owners.iter().all(|owner| owner.all));
    }

    /// The window is at another place for the CPU, so one number is two things.
    #[test]
    fn a_bus_address_is_not_a_cpu_address() {
        let topology = machine(true, Some(0x1000));
        assert!(at_cpu(&topology, cpu(0x9000_4010, 1)).is_free());
        assert!(at_bus(&topology, host(&topology, 0), bus(OFFSET + 0x9000_4010, 1)).is_free());
        let (found, there) = below_host_bridges(&topology, cpu(OFFSET + 0x9000_4010, 1)).next().unwrap();
        assert_eq!((found, there), (host(&topology, 0), bus(0x9000_4010, 1)));
        assert_eq!(above_host_bridge(&topology, found, there), Some(cpu(OFFSET + 0x9000_4010, 1)));
    }

    #[test]
    fn a_range_that_sticks_out_is_owned_in_part() {
        let topology = machine(true, Some(0x1000));
        let seen = at_bus(&topology, host(&topology, 0), bus(0x9000_3000, 0x2000));
        let bar = seen.owners.last().unwrap();
        assert!(!bar.all && matches!(bar.what, Thing::Bar { offset: None, .. }), "{bar:?}");
        assert!(seen.owners[0].all, "the window holds all of it");
        assert_eq!(kinds(&at_cpu(&topology, cpu(0x7fff_ffff, 2))), ["region"]);
    }

    #[test]
    fn without_a_memory_map_nothing_is_not_claimed() {
        let nowhere = cpu(0xa000_0000, 1);
        assert!(at_cpu(&machine(true, Some(0x1000)), nowhere).is_free());
        let unread = at_cpu(&machine(false, Some(0x1000)), nowhere);
        assert_eq!((unread.is_owned(), unread.missing.as_slice()), (false, &[Missing::MemoryMap][..]));
    }

    #[test]
    fn below_a_host_bridge_whose_windows_were_not_read_nothing_is_not_claimed() {
        let topology = machine(true, Some(0x1000));
        let there = host(&topology, 0x80);
        assert_eq!(at_bus(&topology, there, bus(0x1000, 1)).missing, [Missing::Windows(there)]);
        assert_eq!(at_bus(&topology, there, bus(0x9000_4010, 1)).owners, [], "that BAR is below the other one");
        assert!(at_bus(&topology, host(&topology, 0), bus(0x1000, 1)).is_free());
    }

    #[test]
    fn a_bar_of_unknown_size_may_reach_anywhere() {
        let topology = machine(false, None);
        let device = topology.at("01:00.0".parse().unwrap()).unwrap();
        let reading = at_bus(&topology, host(&topology, 0), bus(0x9800_0000, 1));
        assert_eq!(reading.missing, [Missing::BarSize(device, 2)]);
    }

    #[test]
    fn the_msi_window_is_a_reserved_region_and_no_groups_are_no_answer() {
        let topology = machine(true, Some(0x1000));
        let reading = at_iova(&topology, iova(0xfee0_0000, 4));
        assert!(matches!(&reading.owners[0].what, Thing::Reserved { group: 7, kind, .. } if kind == "msi"));
        assert!(at_iova(&topology, iova(0x1000, 1)).is_free());
        assert_eq!(at_iova(&Builder::new().build(), iova(0x1000, 1)).missing, [Missing::Groups]);
        let mut none = Builder::new();
        none.machine().iommu = Some(IommuMode::None);
        assert!(at_iova(&none.build(), iova(0x1000, 1)).is_free());
    }
}
