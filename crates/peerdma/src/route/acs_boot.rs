//! What Linux writes into an ACS control word at boot, from its `pci=` parameters.
//!
//! Linux 7.2 `pci_enable_acs`, `__pci_config_acs`, `pci_dev_str_match`. Three steps:
//! where an IOMMU driver asked for ACS the kernel sets SV, RR, CR, UF as far as the
//! function has them; then `disable_acs_redir=` and after it `config_acs=` each
//! replace the whole word for the functions they match, starting from what the
//! *firmware* had left, so bits they do not name fall back to the firmware's and
//! the kernel's own enable is lost.

use crate::pcie::acs::AcsBits;
use crate::pcie::{DevFn, PciAddr, PciId};
use crate::topology::{FunctionId, Parent, Topology};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// The `pci=` parameters about ACS on one command line.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AcsParameters {
    disable_redir: Option<String>,
    config: Option<String>,
    no_ats: bool,
}

/// What is known about a function's ACS before the kernel writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Before {
    /// Capability word.
    pub capability: AcsBits,
    /// Control word as firmware left it.
    pub firmware: AcsBits,
    /// Whether an IOMMU driver asked for ACS (`pci_request_acs`).
    pub iommu_requested: bool,
    /// Whether firmware marks the port external-facing or the device untrusted.
    pub external: bool,
}

/// Which parameter decided the word that is written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DecidedBy {
    /// No parameter: the kernel's own enable, or the firmware's word unchanged.
    Kernel,
    /// `disable_acs_redir=`, by this element of its list.
    DisableAcsRedir(String),
    /// `config_acs=`, by this element of its list.
    ConfigAcs(String),
}

/// A predicted control word.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Predicted {
    /// The word.
    pub control: AcsBits,
    /// What decided it.
    pub decided_by: DecidedBy,
}

impl AcsParameters {
    /// Reads them off a kernel command line.
    ///
    /// Inside one `pci=` the options are separated by commas, so a list of devices
    /// must use semicolons. Of several options of one kind the last counts, since
    /// the kernel keeps one pointer each. Quotes around an argument are taken off
    /// as the kernel does.
    pub fn from_command_line(line: &str) -> Self {
        let mut parameters = Self::default();
        for argument in arguments(line) {
            let Some(options) = argument.strip_prefix("pci=") else { continue };
            for option in options.trim_matches('"').split(',') {
                if let Some(list) = option.strip_prefix("disable_acs_redir=") {
                    parameters.disable_redir = Some(list.to_string());
                } else if let Some(list) = option.strip_prefix("config_acs=") {
                    parameters.config = Some(list.to_string());
                } else if option == "noats" {
                    parameters.no_ats = true;
                }
            }
        }
        parameters
    }

    /// Whether any parameter names ports.
    pub fn names_ports(&self) -> bool {
        self.disable_redir.is_some() || self.config.is_some()
    }

    /// The word Linux writes into the control register of `function`.
    pub fn predict(&self, topology: &Topology, function: FunctionId, before: Before) -> Predicted {
        let mut control = before.firmware;
        if before.iommu_requested {
            let mut wanted = AcsBits::SV | AcsBits::RR | AcsBits::CR | AcsBits::UF;
            if before.external || self.no_ats {
                wanted |= AcsBits::TB;
            }
            control |= before.capability & wanted;
        }
        let mut decided_by = DecidedBy::Kernel;
        if let Some(device) = self
            .disable_redir
            .iter()
            .flat_map(|list| list.split(';'))
            .find(|device| matches(topology, function, device))
        {
            control = before.firmware.difference(AcsBits::REDIRECT);
            decided_by = DecidedBy::DisableAcsRedir(device.to_string());
        }
        for element in self.config.iter().flat_map(|list| list.split(';')) {
            // The kernel stops at the first element that it cannot read.
            let Some((flags, device)) = element.split_once('@') else { break };
            let Some((mask, value)) = flag_word(flags) else { break };
            if matches(topology, function, device) {
                control = before.firmware.difference(mask) | (value & mask);
                decided_by = DecidedBy::ConfigAcs(element.to_string());
                break;
            }
        }
        Predicted { control, decided_by }
    }
}

/// Splits a command line at spaces outside double quotes.
fn arguments(line: &str) -> Vec<&str> {
    let (mut parts, mut start, mut quoted) = (Vec::new(), 0, false);
    for (at, byte) in line.bytes().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            b' ' | b'\t' | b'\n' if !quoted => {
                parts.push(&line[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&line[start..]);
    parts.into_iter().map(|part| part.trim_matches('"')).filter(|part| !part.is_empty()).collect()
}

/// Reads `xx111x1`: the last character is bit 0; `x` leaves a bit alone.
fn flag_word(flags: &str) -> Option<(AcsBits, AcsBits)> {
    let (mut mask, mut value) = (0u16, 0u16);
    for (bit, character) in flags.bytes().rev().enumerate() {
        if bit > 6 {
            return None;
        }
        match character {
            b'0' => mask |= 1 << bit,
            b'1' => {
                mask |= 1 << bit;
                value |= 1 << bit;
            }
            b'x' | b'X' => {}
            _ => return None,
        }
    }
    Some((AcsBits::from_bits_retain(mask), AcsBits::from_bits_retain(value)))
}

/// `pci_dev_str_match`: `pci:vendor:device[:subvendor:subdevice]` or `[domain:]bus:device.function[/device.function]*`.
fn matches(topology: &Topology, function: FunctionId, text: &str) -> bool {
    match text.strip_prefix("pci:") {
        Some(ids) => matches_ids(topology, function, ids),
        None => matches_path(topology, function, text),
    }
}

fn matches_ids(topology: &Topology, function: FunctionId, text: &str) -> bool {
    let mut numbers = text.split(':').map(|part| u16::from_str_radix(part, 16));
    let (Some(Ok(vendor)), Some(Ok(device))) = (numbers.next(), numbers.next()) else { return false };
    let wildcard_or = |wanted: u16, have: u16| wanted == 0 || wanted == have;
    // Subsystem IDs are not decoded here; a text that asks for one other than the wildcard is taken not to match.
    let subsystem_free = numbers.all(|number| number == Ok(0));
    match topology.function(function).info().registers.id {
        Some(PciId { vendor: v, device: d }) => subsystem_free && wildcard_or(vendor, v) && wildcard_or(device, d),
        None => vendor == 0 && device == 0 && subsystem_free,
    }
}

fn matches_path(topology: &Topology, function: FunctionId, text: &str) -> bool {
    let mut parts: Vec<&str> = text.split('/').collect();
    let mut at = function;
    while parts.len() > 1 {
        // Every element but the first is device.function below the one before it.
        let Some(wanted) = parts.pop().and_then(devfn) else { return false };
        if topology.function(at).address().devfn() != wanted {
            return false;
        }
        match topology.function(at).parent() {
            Parent::Bridge(above) => at = above,
            _ => return false,
        }
    }
    parts[0].parse::<PciAddr>().is_ok_and(|address| address == topology.function(at).address())
}

fn devfn(text: &str) -> Option<DevFn> {
    let (device, function) = text.split_once('.')?;
    DevFn::from_parts(u8::from_str_radix(device, 16).ok()?, u8::from_str_radix(function, 16).ok()?)
}
