//! How a configuration request finds its function on an emulated machine.

use super::ConfigAccess;
use crate::config::Width;
use crate::fabric::{Fabric, NodeId};
use crate::machine::Machine;
use peerdma::addr::Bytes;
use peerdma::pcie::PciAddr;

/// The function that a configuration request to `address` reaches, by the bus numbers in the
/// bridges' registers (PCIe 6.0 §7.3.3); `None` where nobody takes it.
///
/// A function takes its device and function number from where it is wired, and its bus number
/// from the bridge above, whatever that bridge's secondary bus is said to be. Below a bridge that
/// sleeps, or that holds what is below it in reset, nobody answers.
pub fn reached(fabric: &Fabric, address: PciAddr) -> Option<NodeId> {
    let (tree, root) = (fabric.tree(), fabric.root());
    let wired_here = |&node: &NodeId| tree.node(node).address.devfn() == address.devfn();
    let leads_there = |node: NodeId| {
        let config = tree.config(node);
        let (secondary, subordinate) = config.buses_below()?;
        let passes = config.is_awake() && !config.holds_below_in_reset();
        (passes && (secondary..=subordinate).contains(&address.bus())).then_some((node, secondary))
    };
    let mut hosts = root.hosts().filter(|&host| root.host(host).segment == address.domain());
    // Host bridges of one segment share no bus, but a program may write overlapping numbers.
    hosts.find_map(|host| {
        if root.host(host).root_bus == address.bus() {
            return tree.on_root_bus(host).find(wired_here);
        }
        let (mut bridge, mut secondary) = tree.on_root_bus(host).find_map(leads_there)?;
        while secondary != address.bus() {
            // Each turn goes one level down, so it ends.
            (bridge, secondary) = tree.below(bridge).find_map(leads_there)?;
        }
        tree.below(bridge).find(wired_here)
    })
}

impl ConfigAccess for Machine {
    fn read(&self, address: PciAddr, offset: u16, width: Width) -> u32 {
        reached(self.fabric(), address).map_or(width.ones(), |node| self.cpu().config_read(node, offset, width))
    }

    fn write(&self, address: PciAddr, offset: u16, width: Width, value: u32) {
        if let Some(node) = reached(self.fabric(), address) {
            self.cpu().config_write(node, offset, width, value);
        }
    }

    /// Told by the function itself, so that devices may move bytes meanwhile.
    fn bar_size(&self, address: PciAddr, index: u8, _is_64_bit: bool) -> Option<Bytes> {
        let node = reached(self.fabric(), address)?;
        self.fabric().tree().config(node).bar(index).map(|range| range.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Space;
    use crate::discover::discover;
    use crate::fabric::{Above, HostId, Node, Root, Tree};
    use crate::machine::{Delivery, describe};
    use crate::platform::{self, Platform};
    use std::sync::Arc;

    /// The machine of a platform, without devices and memory.
    fn machine(platform: &Platform) -> Machine {
        let placed = describe::describe(platform);
        let mut tree = Tree::new(platform.host_bridges().len());
        let mut nodes: Vec<NodeId> = Vec::new();
        for one in &placed {
            let above = match one.above {
                describe::Above::Root(host) => Above::Root(HostId::new(host.index())),
                describe::Above::Port(port) => Above::Port(nodes[port]),
            };
            let config = Arc::new(Space::new(&one.description));
            nodes.push(
                tree.add(Node { address: one.address, config, above, peers_inside: false, group: None }).unwrap(),
            );
        }
        let hosts = platform.host_bridges().iter().map(|host| crate::fabric::Host {
            segment: host.segment,
            root_bus: host.root_bus,
            windows: Vec::new(),
            peer: platform::PeerForwarding::None,
            interrupts: None,
            replaces_requester: false,
            between_ports: false,
            splits: false,
        });
        let fabric = Fabric::new(tree, Root::new(hosts.collect(), Vec::new(), None));
        Machine::new(fabric, Vec::new(), Vec::new(), Delivery::Queued, 1)
    }

    #[test]
    fn a_scan_of_the_machine_finds_what_the_file_states() {
        for (name, _) in Platform::built_in_names() {
            let platform = Platform::built_in(name).unwrap();
            let (found, stated) = (discover(&machine(&platform), &platform), platform.topology());
            let addresses: Vec<_> = found.functions().map(|(_, function)| function.address()).collect();
            assert!(stated.functions().map(|(_, function)| function.address()).eq(addresses), "{name}");
            for ((_, found), (_, stated)) in found.functions().zip(stated.functions()) {
                assert_eq!((found.parent(), &found.info().bars), (stated.parent(), &stated.info().bars), "{name}");
                assert_eq!(found.info().registers.buses, stated.info().registers.buses, "{name}");
            }
        }
    }

    #[test]
    fn requests_follow_the_bus_numbers_that_were_written() {
        let platform = Platform::built_in("client").unwrap();
        let machine = machine(&platform);
        let function = platform.functions().iter().find(|function| function.address.bus() != 0).unwrap();
        let platform::Parent::Port(port) = function.parent else { panic!("{:?}", function.parent) };
        let port = platform.port(port).address;
        let moved = PciAddr::new(function.address.domain(), 0x7e, function.address.devfn());
        let id = machine.read(function.address, 0, Width::Four);
        machine.write(port, 0x18, Width::Four, 0x007f_7e00);
        assert_eq!(machine.read(function.address, 0, Width::Two), 0xffff);
        assert_eq!(machine.read(moved, 0, Width::Four), id);
        let found = discover(&machine, &platform);
        assert!(found.at(moved).is_some() && found.at(function.address).is_none());

        machine.write(port, 0x3e, Width::Two, 1 << 6);
        assert_eq!(machine.read(moved, 0, Width::Four), 0xffff_ffff, "held in reset");
        machine.write(port, 0x3e, Width::Two, 0);
        machine.write(port, 0x44, Width::Two, 3);
        assert_eq!(machine.read(moved, 0, Width::One), 0xff, "the port sleeps");
        machine.write(port, 0x44, Width::Two, 0);
        assert_eq!(machine.read(moved, 0, Width::Four), id);
    }
}
