//! For which addresses around one a request takes the same way.
//!
//! A way changes where something begins or ends that any place on it compares the address with:
//! a BAR of a neighbour, a window, an interrupt range. Each place has its own numbers, as a root complex
//! changes the address; so what is found is counted from the address as it is there.
//! Too little is found rather than too much: a longer transfer is then found its way again.

use super::Machine;
use crate::fabric::{Above, Egress, NodeId};
use peerdma::addr::BusAddr;
use peerdma::pcie::express::PortType;

/// Windows of bridges begin and end at multiples of this (PCIe 6.0 §7.5.1.3.8).
const BLOCK: u64 = 1 << 20;
/// But for what VGA Enable adds (§7.5.1.3.13).
const VGA: (u64, u64) = (0xa_0000, 0xb_ffff);

/// First and last address around one, as it was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reach {
    address: u64,
    holds: (u64, u64),
}

impl Reach {
    /// All that there are.
    pub(super) const fn new(address: u64) -> Self {
        Self { address, holds: (0, u64::MAX) }
    }

    /// Ends where a range begins or ends, of addresses as they are where `now` is the address.
    pub(super) fn apart(&mut self, now: BusAddr, first: u64, last: u64) {
        let now = now.as_u64();
        let (mut below, mut above) = (u64::MAX, u64::MAX);
        if now < first {
            above = first - now - 1;
        } else if now > last {
            below = now - last - 1;
        } else {
            (below, above) = (now - first, last - now);
        }
        self.holds.0 = self.holds.0.max(self.address.saturating_sub(below));
        self.holds.1 = self.holds.1.min(self.address.saturating_add(above));
    }

    /// First and last address.
    pub(super) const fn holds(&self) -> (u64, u64) {
        self.holds
    }
}

impl Machine {
    /// What a device compares before a request leaves it: BARs of its other functions.
    pub(super) fn reach_of_device(&self, reach: &mut Reach, from: NodeId) {
        let tree = self.fabric.tree();
        let now = BusAddr::new(reach.address);
        reach.apart(now, now.as_u64() & !(BLOCK - 1), now.as_u64() | (BLOCK - 1));
        if tree.node(from).peers_inside {
            tree.device_of(from).filter(|&other| other != from).for_each(|other| self.apart_of_bars(reach, now, other));
        }
    }

    /// What the end of an egress compares: windows, and BARs of whoever stands beside the way.
    pub(super) fn reach_of_hop(&self, reach: &mut Reach, egress: Egress, now: BusAddr) {
        let tree = self.fabric.tree();
        reach.apart(now, now.as_u64() & !(BLOCK - 1), now.as_u64() | (BLOCK - 1));
        reach.apart(now, VGA.0, VGA.1);
        match egress {
            Egress::Up(node) => {
                if let Above::Port(port) = tree.node(node).above {
                    self.apart_of_bars(reach, now, port);
                    let is_link =
                        matches!(tree.config(port).port_type(), Some(PortType::RootPort | PortType::DownstreamPort));
                    let bus = if is_link { tree.node(port).above } else { Above::Port(port) };
                    if let Above::Port(upstream) = bus {
                        self.apart_of_bars(reach, now, upstream);
                        tree.below(upstream).for_each(|beside| self.apart_of_bars(reach, now, beside));
                    }
                }
                self.reach_of_root(reach, now);
            }
            Egress::Down(port) => {
                for node in tree.below(port) {
                    self.apart_of_bars(reach, now, node);
                    if tree.config(node).port_type() == Some(PortType::UpstreamPort) {
                        tree.below(node).for_each(|inside| self.apart_of_bars(reach, now, inside));
                    }
                }
            }
            Egress::Into(_) => {}
            Egress::Memory(_) => self.reach_of_root(reach, now),
        }
    }

    /// What root complexes compare, by addresses of any of their sides.
    fn reach_of_root(&self, reach: &mut Reach, now: BusAddr) {
        let root = self.fabric.root();
        for id in root.hosts() {
            let host = root.host(id);
            for window in &host.windows {
                reach.apart(now, window.cpu.start().as_u64(), window.cpu.last().as_u64());
                reach.apart(now, window.bus.start().as_u64(), window.bus.last().as_u64());
            }
            if let Some(interrupts) = &host.interrupts {
                reach.apart(now, interrupts.start().as_u64(), interrupts.last().as_u64());
            }
            let on_bus = self.fabric.tree().on_root_bus(id);
            on_bus.for_each(|node| self.apart_of_bars(reach, now, node));
        }
    }

    fn apart_of_bars(&self, reach: &mut Reach, now: BusAddr, node: NodeId) {
        let config = self.fabric.tree().config(node);
        for bar in config.bar_indices().filter_map(|index| config.bar(index)) {
            reach.apart(now, bar.start().as_u64(), bar.last().as_u64());
        }
    }
}
