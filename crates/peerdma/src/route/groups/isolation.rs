//! Whether a function keeps its requests from its neighbours: Linux's `pci_acs_enabled`.

use super::quirks::{self, Verdict};
use super::{bridges_above, mates};
use crate::pcie::Fact;
use crate::pcie::acs::{self, Acs, AcsBits};
use crate::pcie::express::PortType;
use crate::topology::{FunctionId, Parent, Topology};

/// What Linux asks for before it takes a function to isolate (`REQ_ACS_FLAGS`).
pub(super) const REQUIRED: AcsBits = AcsBits::SV.union(AcsBits::RR).union(AcsBits::CR).union(AcsBits::UF);

/// Whether Linux takes `function` to isolate (`pci_acs_enabled` with SV, RR, CR and UF).
///
/// A quirk for its ID comes first. Downstream and root ports need the capability, and of
/// the four bits those that it offers set: one that it does not offer counts as wired on.
/// Endpoints and upstream ports are asked the same only as part of a multifunction device,
/// and pass else. Conventional functions and bridges to conventional buses never do.
pub fn isolates(topology: &Topology, function: FunctionId) -> Fact<bool> {
    let entry = topology.function(function);
    // Linux does not mark virtual functions as parts of a multifunction device.
    if entry.physical().is_some() {
        return Fact::Known(true);
    }
    let registers = &entry.info().registers;
    let by_registers = || match registers.port_type {
        Fact::Unknown => Fact::Unknown,
        Fact::Known(None) => Fact::Known(false),
        Fact::Known(Some(kind)) => match kind {
            PortType::PciExpressToPci | PortType::PciToPciExpress | PortType::RootComplexEventCollector => {
                Fact::Known(false)
            }
            PortType::RootPort | PortType::DownstreamPort => bits_set(topology, function),
            PortType::Endpoint
            | PortType::LegacyEndpoint
            | PortType::UpstreamPort
            | PortType::RootComplexIntegrated => match is_multifunction(topology, function) {
                true => bits_set(topology, function),
                false => Fact::Known(true),
            },
            PortType::Reserved(_) => Fact::Known(true),
        },
    };
    let Some(id) = registers.id else {
        // A quirk that is not known of can only turn a no into a yes.
        return match by_registers() {
            Fact::Known(true) => Fact::Known(true),
            _ => Fact::Unknown,
        };
    };
    let on_root_bus = matches!(topology.upstream(function), Parent::Root(_));
    match quirks::ask(id, registers.port_type, on_root_bus && is_multifunction(topology, function)) {
        Verdict::Isolates => Fact::Known(true),
        Verdict::CannotTell => Fact::Unknown,
        Verdict::Silent => by_registers(),
    }
}

/// Whether every function from `port` up to the root isolates (`pci_acs_path_enabled`).
pub fn isolates_up_to_root(topology: &Topology, port: FunctionId) -> Fact<bool> {
    let mut all = Fact::Known(true);
    let mut top = port;
    for bridge in core::iter::once(port).chain(bridges_above(topology, port)) {
        match isolates(topology, bridge) {
            Fact::Known(true) => {}
            Fact::Known(false) => return Fact::Known(false),
            Fact::Unknown => all = Fact::Unknown,
        }
        top = bridge;
    }
    match topology.upstream(top) {
        Parent::Unknown { .. } => Fact::Unknown,
        Parent::Root(_) | Parent::Bridge(_) => all,
    }
}

/// Whether Linux counts the function as one of several in its slot: bit 7 of its header
/// type, or found behind function 0.
///
/// Where the bit was not read, as in `lspci` text, whether another function of the slot
/// is listed decides.
pub(super) fn is_multifunction(topology: &Topology, function: FunctionId) -> bool {
    let entry = topology.function(function);
    if entry.physical().is_some() {
        return false;
    }
    let has_mates = || mates(topology, function).next().is_some();
    entry.address().devfn().function() != 0 || entry.info().registers.multifunction.unwrap_or_else(has_mates)
}

/// `pci_acs_flags_enabled`, and `pci_quirk_intel_spt_pch_acs` for root ports whose
/// control word lies elsewhere.
fn bits_set(topology: &Topology, function: FunctionId) -> Fact<bool> {
    let registers = &topology.function(function).info().registers;
    match &registers.acs {
        Acs::Absent(_) => Fact::Known(false),
        Acs::Unknown(_) => Fact::Unknown,
        Acs::Present(acs) => {
            let mut required = REQUIRED & acs.capability;
            if registers.id.is_some_and(acs::has_broken_source_validation) {
                required -= AcsBits::SV;
            }
            let control = if acs::linux_reads_wrong_word(registers.id, registers.port_type) {
                acs.control
            } else {
                Fact::Known(acs.control_read_by_linux)
            };
            control.map(|control| control.contains(required))
        }
    }
}
