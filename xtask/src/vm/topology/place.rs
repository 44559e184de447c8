//! Where each function of a model stands, in terms that firmware cannot change.
//!
//! Bus numbers below a root bus are handed out by firmware, so a place is the number of the
//! root bus and the device and function numbers from there down. The order in which SeaBIOS
//! hands bus numbers out is known too (depth first, by device and function number), hence an
//! address can be foretold, for scripts that want to name a device. Comparisons use places.

use super::model::{Draft, Endpoint, Model, OnLink, OnRootBus, Placed, RootPort};
use peerdma::pcie::{DevFn, PciAddr, PciId};
use peerdma::topology::{FunctionId, Parent, Topology};
use std::fmt;

/// A root bus and the steps from it down to a function.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub(crate) struct Place {
    /// Number of the root bus.
    pub(crate) root_bus: u8,
    /// Device and function numbers, the function's own last; never empty.
    pub(crate) steps: Vec<DevFn>,
}

impl Place {
    /// A place on a root bus.
    pub(crate) fn on(root_bus: u8, at: DevFn) -> Self {
        Self { root_bus, steps: vec![at] }
    }

    /// A place right below this one.
    #[must_use]
    pub(crate) fn below(&self, at: DevFn) -> Self {
        let mut steps = self.steps.clone();
        steps.push(at);
        Self { root_bus: self.root_bus, steps }
    }

    /// The place of a function of a topology; `None` in another domain than 0, and where the
    /// way up to the root bus is not known.
    pub(crate) fn of(topology: &Topology, function: FunctionId) -> Option<Self> {
        let (mut at, mut steps) = (function, Vec::new());
        let root_bus = loop {
            let shown = topology.function(at);
            if shown.address().domain() != 0 || steps.len() > usize::from(u8::MAX) {
                return None;
            }
            steps.push(shown.address().devfn());
            match shown.parent() {
                Parent::Bridge(bridge) => at = bridge,
                Parent::Root(host) => break topology.host_bridge(host).bus(),
                Parent::Unknown { .. } => return None,
            }
        };
        steps.reverse();
        Some(Self { root_bus, steps })
    }
}

impl fmt::Display for Place {
    /// Writes `00/04.0/00.0`, as paths in sysfs descend.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}", self.root_bus)?;
        for step in &self.steps {
            write!(f, "/{:02x}.{}", step.device(), step.function())?;
        }
        Ok(())
    }
}

/// What the guest shall find at a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum What<'m> {
    /// What stands for a further host bridge on bus 0.
    Expander,
    /// A root port, with ACS or without.
    RootPort {
        /// Whether it has the capability.
        acs: bool,
    },
    /// Upstream port of a switch.
    Upstream,
    /// Downstream port of a switch.
    Downstream,
    /// Bridge to conventional PCI.
    ToPci,
    /// A device.
    Endpoint(&'m Endpoint),
}

impl What<'_> {
    /// Vendor and device that QEMU gives it.
    pub(crate) fn id(self) -> PciId {
        let (vendor, device) = match self {
            Self::Expander => (0x1b36, 0x000b),
            Self::RootPort { .. } => (0x1b36, 0x000c),
            Self::Upstream => (0x104c, 0x8232),
            Self::Downstream => (0x104c, 0x8233),
            Self::ToPci => (0x1b36, 0x000e),
            Self::Endpoint(endpoint) => return endpoint.id(),
        };
        PciId { vendor, device }
    }

    /// QEMU's name of it.
    pub(crate) fn device(self) -> &'static str {
        match self {
            Self::Expander => "pxb-pcie",
            Self::RootPort { .. } => "pcie-root-port",
            Self::Upstream => "x3130-upstream",
            Self::Downstream => "xio3130-downstream",
            Self::ToPci => "pcie-pci-bridge",
            Self::Endpoint(Endpoint::Edu) => "edu",
            Self::Endpoint(Endpoint::Ivshmem { .. }) => "ivshmem-plain",
            Self::Endpoint(Endpoint::Nvme { .. } | Endpoint::NvmeSriov { .. }) => "nvme",
            Self::Endpoint(Endpoint::TestDevice { .. }) => "pci-testdev",
            Self::Endpoint(Endpoint::Igb) => "igb",
            Self::Endpoint(Endpoint::Gpu) => "virtio-gpu-pci",
        }
    }

    /// Whether it has a bus below.
    pub(crate) fn is_bridge(self) -> bool {
        !matches!(self, Self::Expander | Self::Endpoint(_))
    }
}

impl fmt::Display for What<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.device())
    }
}

/// One function of a model.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Planned<'m> {
    /// Where.
    pub(crate) place: Place,
    /// What.
    pub(crate) what: What<'m>,
    /// The address that SeaBIOS gives it.
    pub(crate) address: PciAddr,
}

impl Model {
    /// Every function that the guest shall find, besides q35's own and virtual ones: parents
    /// before children, by address.
    pub(crate) fn functions(&self) -> Vec<Planned<'_>> {
        walk(self.draft())
    }

    /// How many virtual functions there are once each NVMe controller has all it can.
    pub(crate) fn expected_virtual_functions(&self) -> usize {
        let each = self.functions().into_iter().map(|planned| match planned.what {
            What::Endpoint(endpoint) => usize::from(endpoint.virtual_functions()),
            _ => 0,
        });
        each.sum()
    }

    /// How many functions the guest shall find, besides q35's own and virtual ones.
    #[cfg(test)]
    pub(crate) fn expected_functions(&self) -> usize {
        self.functions().len()
    }
}

/// Walks a tree as SeaBIOS does. Bus numbers wrap where a tree needs more than there are,
/// which only an unchecked one does.
pub(super) fn walk(draft: &Draft) -> Vec<Planned<'_>> {
    let mut walk = Walk { found: Vec::new(), last_bus: 0 };
    walk.q35(&draft.q35);
    for expander in &draft.expanders {
        if let Some(at) = DevFn::from_parts(expander.device, 0) {
            walk.found.push(Planned { place: Place::on(0, at), what: What::Expander, address: PciAddr::new(0, 0, at) });
        }
        walk.last_bus = expander.bus;
        for placed in by_address(&expander.ports) {
            walk.port(Place::on(expander.bus, placed.at), &placed.what);
        }
    }
    walk.found.sort_by(|a, b| (a.address, &a.place).cmp(&(b.address, &b.place)));
    walk.found
}

struct Walk<'m> {
    found: Vec<Planned<'m>>,
    last_bus: u8,
}

impl<'m> Walk<'m> {
    fn q35(&mut self, functions: &'m [Placed<OnRootBus>]) {
        for placed in by_address(functions) {
            let place = Place::on(0, placed.at);
            match &placed.what {
                OnRootBus::Endpoint(endpoint) => self.note(0, place, What::Endpoint(endpoint)),
                OnRootBus::Port(port) => self.port(place, port),
            }
        }
    }

    fn port(&mut self, place: Place, port: &'m RootPort) {
        self.note(place.root_bus, place.clone(), What::RootPort { acs: port.acs });
        self.link(&place, &port.below);
    }

    fn link(&mut self, parent: &Place, below: &'m [Placed<OnLink>]) {
        let bus = self.next_bus();
        for placed in by_address(below) {
            let place = parent.below(placed.at);
            match &placed.what {
                OnLink::Endpoint(endpoint) => self.note(bus, place, What::Endpoint(endpoint)),
                OnLink::Switch(switch) => {
                    self.note(bus, place.clone(), What::Upstream);
                    let inside = self.next_bus();
                    for port in by_address(&switch.ports) {
                        let place = place.below(port.at);
                        self.note(inside, place.clone(), What::Downstream);
                        self.link(&place, &port.what);
                    }
                }
                OnLink::ToPci(devices) => {
                    self.note(bus, place.clone(), What::ToPci);
                    let inside = self.next_bus();
                    for device in by_address(devices) {
                        self.note(inside, place.below(device.at), What::Endpoint(&device.what));
                    }
                }
            }
        }
    }

    fn next_bus(&mut self) -> u8 {
        self.last_bus = self.last_bus.wrapping_add(1);
        self.last_bus
    }

    fn note(&mut self, bus: u8, place: Place, what: What<'m>) {
        let at = place.steps.last().copied().unwrap_or(DevFn::new(0));
        self.found.push(Planned { place, what, address: PciAddr::new(0, bus, at) });
    }
}

/// In the order in which firmware meets them.
fn by_address<T>(functions: &[Placed<T>]) -> Vec<&Placed<T>> {
    let mut sorted: Vec<_> = functions.iter().collect();
    sorted.sort_by_key(|placed| placed.at);
    sorted
}

#[cfg(test)]
mod tests {
    use super::super::words::{alone, at, port, switch};
    use super::*;

    /// Firmware goes by device number, whatever order a tree was written down in.
    #[test]
    fn the_order_of_writing_changes_no_address() {
        let (one, other) = (at(4, 0, port(switch([alone(Endpoint::Edu)]))), at(5, 0, port(alone(Endpoint::Igb))));
        let model = |q35| Draft { q35, expanders: Vec::new() }.check().unwrap();
        let (forth, back) = (model(vec![one.clone(), other.clone()]), model(vec![other, one]));
        let shown = |model: &Model| -> Vec<String> {
            model
                .functions()
                .iter()
                .map(|planned| format!("{} {} {}", planned.address, planned.place, planned.what))
                .collect()
        };
        assert_eq!(shown(&forth), shown(&back));
        assert_eq!(shown(&forth)[4..], ["0000:03:00.0 00/04.0/00.0/00.0/00.0 edu", "0000:04:00.0 00/05.0/00.0 igb"]);
    }
}
