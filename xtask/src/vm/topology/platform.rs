//! A platform file as a guest, as far as QEMU can be that machine.
//!
//! What decides Linux's verdicts is expressed exactly or refused by name: the tree, ACS of
//! every port, what stands for each host bridge, the CPU. What does not decide them is
//! expressed as well as QEMU's devices allow, and what is left out is a [`Warning`].
//! After the boot [`compare`](super::compare) holds the guest against the file.
//!
//! ACS: only QEMU's root ports have it, always with the same capability. The control word
//! that Linux writes there at boot follows from the IOMMU; any other word is reached with
//! `pci=config_acs=` on the command line, since firmware leaves 0. Rejected: `setpci` in the
//! guest, which IOMMU groups and the kernel's remembered verdicts would not follow.
//!
//! Not here: what the file says about moving bytes (`peer`, payload sizes, masks, RAM).

mod acs;
mod devices;
mod refusal;
mod surroundings;
#[cfg(test)]
mod tests;

pub(super) use acs::ROOT_PORT_CAPABILITY;
pub(crate) use refusal::{Refusal, Refusals, Warning};

use super::model::{Draft, Endpoint, Expander, Model, OWN_DEVICES, OnLink, OnRootBus, Placed, RootPort, Switch};
use super::place::Place;
use crate::vm::machine::Iommu;
use peerdma::addr::Bytes;
use peerdma::pcie::acs::AcsBits;
use peerdma::pcie::{DevFn, PciAddr};
use peerdma_emu::platform::{Function, HostBridge, Parent, Platform, Port, PortKind};

/// A guest that stands for a platform file.
#[derive(Clone, Debug)]
pub(crate) struct Exported {
    /// What is on its buses.
    pub(crate) model: Model,
    /// Its processor, as QEMU names it.
    pub(crate) cpu: String,
    /// Its IOMMU.
    pub(crate) iommu: Iommu,
    /// What its kernel's command line needs beside what every guest's has.
    pub(crate) cmdline: Vec<String>,
    /// What the file says and the guest does not show, one line each.
    pub(crate) warnings: Vec<Warning>,
    /// Where the guest shows the file's ports and functions.
    pub(crate) twins: Vec<Twin>,
}

/// A port or function of a platform file and its stand-in in the guest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Twin {
    /// Its name in the file.
    pub(crate) name: String,
    /// Its address in the file.
    pub(crate) file: PciAddr,
    /// Its place in the guest.
    pub(crate) place: Place,
    /// Control word that the guest must show; `None` where the file does not know.
    pub(crate) acs: TwinAcs,
    /// BARs of the guest that stand for some of the file's, by first register.
    pub(crate) bars: Vec<(u8, Bytes)>,
}

/// What a guest must show of a function's ACS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TwinAcs {
    /// No such capability.
    Absent,
    /// The capability, with this control word.
    Control(AcsBits),
    /// Whatever it is, since the file says that it was not read.
    Any,
}

/// Expresses a platform in QEMU's devices.
///
/// # Errors
/// Everything about the file that QEMU cannot be, by the file's own names: see [`Refusal`].
pub(crate) fn from_platform(platform: &Platform) -> Result<Exported, Refusals> {
    let mut export = Export::new(platform);
    let draft = export.draft();
    let cpu = export.cpu();
    export.left_out();
    let mut cmdline = export.iommu_words();
    if !export.config_acs.is_empty() {
        cmdline.push(format!("pci=config_acs={}", export.config_acs.join(";")));
    }
    let Export { refusals, warnings, twins, iommu, .. } = export;
    // What is refused was left out, so the rest of the tree may lack what the file has.
    if !refusals.is_empty() {
        return Err(Refusals(refusals));
    }
    match draft.check() {
        Ok(model) => Ok(Exported { model, cpu, iommu, cmdline, warnings, twins }),
        Err(illegal) => Err(Refusals(vec![Refusal::Illegal(illegal)])),
    }
}

struct Export<'p> {
    platform: &'p Platform,
    iommu: Iommu,
    /// What Linux writes into a root port's control word without being told.
    boot_control: AcsBits,
    config_acs: Vec<String>,
    refusals: Vec<Refusal>,
    warnings: Vec<Warning>,
    twins: Vec<Twin>,
}

impl<'p> Export<'p> {
    fn new(platform: &'p Platform) -> Self {
        let mut export = Self {
            platform,
            iommu: Iommu::None,
            boot_control: AcsBits::empty(),
            config_acs: Vec::new(),
            refusals: Vec::new(),
            warnings: Vec::new(),
            twins: Vec::new(),
        };
        export.choose_iommu();
        export
    }

    fn draft(&mut self) -> Draft {
        let platform = self.platform;
        let mut hosts: Vec<(usize, &HostBridge)> = platform.host_bridges().iter().enumerate().collect();
        hosts.sort_by_key(|(_, host)| (host.segment, host.root_bus));
        let mut draft = Draft::default();
        for (index, host) in hosts {
            self.host(host);
            let (ports, integrated) = self.root_bus(index, host);
            if host.root_bus == 0 {
                let ports = ports.into_iter().map(|port| Placed { at: port.at, what: OnRootBus::Port(port.what) });
                draft.q35.extend(ports.chain(integrated));
            } else {
                draft.expanders.push(Expander { device: 0, bus: host.root_bus, ports });
            }
        }
        let mut taken: Vec<u8> = draft.q35.iter().map(|placed| placed.at.device()).collect();
        for expander in draft.expanders.iter_mut().rev() {
            // Where none is free, device 0 stays and is refused as q35's own.
            expander.device = free_device(&taken, true).unwrap_or(0);
            taken.push(expander.device);
        }
        draft
    }

    /// Everything on one root bus: ports, and devices integrated there.
    fn root_bus(&mut self, index: usize, host: &HostBridge) -> (Vec<Placed<RootPort>>, Vec<Placed<OnRootBus>>) {
        let platform = self.platform;
        let here = |parent: Parent| matches!(parent, Parent::HostBridge(id) if id.index() == index);
        let ports: Vec<&Port> = platform.ports().iter().filter(|port| here(port.parent)).collect();
        let functions: Vec<&Function> = platform.functions().iter().filter(|one| here(one.parent)).collect();
        let all: Vec<(&str, PciAddr)> = ports
            .iter()
            .map(|port| (port.name.as_str(), port.address))
            .chain(functions.iter().map(|function| (function.name.as_str(), function.address)))
            .collect();
        let seats = if host.root_bus == 0 { self.seats(&all) } else { Vec::new() };
        let seat = |address: PciAddr| {
            let moved = seats.iter().find(|(from, _)| *from == address.devfn().device());
            let device = moved.map_or(address.devfn().device(), |&(_, to)| to);
            DevFn::from_parts(device, address.devfn().function()).unwrap_or(address.devfn())
        };
        let (mut placed, mut integrated) = (Vec::new(), Vec::new());
        for port in ports {
            let at = seat(port.address);
            let place = Place::on(host.root_bus, at);
            let acs = self.root_port_acs(port, &place);
            let below = self.link(port, &place);
            placed.push(Placed { at, what: RootPort { acs, below } });
        }
        for function in functions {
            let at = seat(function.address);
            if host.root_bus != 0 {
                let (name, address) = (function.name.clone(), function.address);
                self.refusals.push(Refusal::Integrated { name, address });
            }
            let endpoint = self.function(function, Place::on(host.root_bus, at), false);
            integrated.push(Placed { at, what: OnRootBus::Endpoint(endpoint) });
        }
        (placed, integrated)
    }

    /// Other device numbers for devices of bus 0 whose own QEMU's machine needs. No verdict
    /// depends on them, since 00.0 stands for that host bridge whatever else is there.
    fn seats(&mut self, all: &[(&str, PciAddr)]) -> Vec<(u8, u8)> {
        let mut taken: Vec<u8> = all.iter().map(|(_, address)| address.devfn().device()).collect();
        let mut seats: Vec<(u8, u8)> = Vec::new();
        for &(name, address) in all {
            let device = address.devfn().device();
            if !OWN_DEVICES.contains(&device) {
                continue;
            }
            let known = seats.iter().find(|(from, _)| *from == device).map(|&(_, to)| to);
            // Where none is free, the number stays and is refused as q35's own.
            let Some(to) = known.or_else(|| free_device(&taken, false)) else { continue };
            taken.push(to);
            seats.push((device, to));
            self.warnings.push(Warning::Moved { name: name.to_string(), from: address, device: to });
        }
        seats
    }

    /// What is at the end of a port's link.
    fn link(&mut self, port: &Port, place: &Place) -> Vec<Placed<OnLink>> {
        let platform = self.platform;
        let is_here = |parent: Parent| matches!(parent, Parent::Port(id) if platform.port(id).address == port.address);
        let mut placed = Vec::new();
        for below in platform.ports().iter().filter(|below| is_here(below.parent)) {
            let (at, place) = (below.address.devfn(), place.below(below.address.devfn()));
            let acs =
                self.other_acs(kind_of(below.kind), &below.name, below.address, &below.acs, device_of(below.kind));
            self.twin(&below.name, below.address, &place, acs, Vec::new());
            let what = if below.kind == PortKind::PciePci {
                OnLink::ToPci(self.conventional(below, &place))
            } else {
                OnLink::Switch(self.switch(below, &place))
            };
            placed.push(Placed { at, what });
        }
        for function in platform.functions().iter().filter(|function| is_here(function.parent)) {
            let at = function.address.devfn();
            if at.device() != 0 {
                self.refusals.push(Refusal::Ari { name: function.name.clone(), address: function.address });
                continue;
            }
            let endpoint = self.function(function, place.below(at), false);
            placed.push(Placed { at, what: OnLink::Endpoint(endpoint) });
        }
        placed
    }

    fn switch(&mut self, upstream: &Port, place: &Place) -> Switch {
        let platform = self.platform;
        let is_here =
            |parent: Parent| matches!(parent, Parent::Port(id) if platform.port(id).address == upstream.address);
        let mut ports = Vec::new();
        for port in platform.ports().iter().filter(|port| is_here(port.parent)) {
            let (at, place) = (port.address.devfn(), place.below(port.address.devfn()));
            let acs = self.other_acs("switch port", &port.name, port.address, &port.acs, device_of(port.kind));
            self.twin(&port.name, port.address, &place, acs, Vec::new());
            ports.push(Placed { at, what: self.link(port, &place) });
        }
        Switch { ports }
    }

    fn conventional(&mut self, bridge: &Port, place: &Place) -> Vec<Placed<Endpoint>> {
        let platform = self.platform;
        let is_here =
            |parent: Parent| matches!(parent, Parent::Port(id) if platform.port(id).address == bridge.address);
        let functions = platform.functions().iter().filter(|function| is_here(function.parent));
        let placed = functions.map(|function| {
            let at = function.address.devfn();
            Placed { at, what: self.function(function, place.below(at), true) }
        });
        placed.collect()
    }

    fn twin(&mut self, name: &str, file: PciAddr, place: &Place, acs: TwinAcs, bars: Vec<(u8, Bytes)>) {
        self.twins.push(Twin { name: name.to_string(), file, place: place.clone(), acs, bars });
    }
}

/// What QEMU has for a port.
const fn device_of(kind: PortKind) -> &'static str {
    match kind {
        PortKind::Root => "pcie-root-port",
        PortKind::Upstream => "x3130-upstream",
        PortKind::Downstream => "xio3130-downstream",
        PortKind::PciePci => "pcie-pci-bridge",
    }
}

/// What messages call a port.
const fn kind_of(kind: PortKind) -> &'static str {
    match kind {
        PortKind::Root => "root port",
        PortKind::Upstream | PortKind::Downstream => "switch port",
        PortKind::PciePci => "bridge",
    }
}

/// A device number of bus 0 that neither the file nor QEMU's machine has: the lowest, or the highest.
fn free_device(taken: &[u8], from_the_end: bool) -> Option<u8> {
    let is_free = |device: &u8| !taken.contains(device) && !OWN_DEVICES.contains(device);
    if from_the_end { (0..32).rev().find(is_free) } else { (0..32).find(is_free) }
}
