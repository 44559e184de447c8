//! What Linux writes into an ACS control word at boot, from its `pci=` parameters.
//!
//! Linux 7.2 `pci_enable_acs`, `__pci_config_acs`, `pci_dev_str_match`. Three steps:
//! where an IOMMU driver asked for ACS the kernel sets SV, RR, CR, UF as far as the
//! function has them; then `disable_acs_redir=` and after it `config_acs=` each
//! replace the whole word for the functions they match, starting from what the
//! *firmware* had left, so bits they do not name fall back to the firmware's and
//! the kernel's own enable is lost.
//!
//! Intel's root ports with double-word registers go another way: a vendor hook
//! enables, and a match of either parameter runs a hook that clears RR, CR and EC,
//! whatever bits the parameter asks for. For them [`Before`] and [`Predicted`] mean
//! the register that the hardware obeys, not the word that Linux reads elsewhere.

mod kernels;

pub(super) use kernels::{CONFIG_ACS_SINCE, DISABLE_ACS_REDIR_SINCE, computes_wrong_word};

use crate::pcie::acs::{self, AcsBits};
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
    /// as the kernel does, and what follows `--` is for init.
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

    /// The list of `disable_acs_redir=`.
    pub fn disable_redir(&self) -> Option<&str> {
        self.disable_redir.as_deref()
    }

    /// The list of `config_acs=`.
    pub fn config(&self) -> Option<&str> {
        self.config.as_deref()
    }

    /// Whether any parameter names ports.
    pub fn names_ports(&self) -> bool {
        self.disable_redir.is_some() || self.config.is_some()
    }

    /// The word Linux writes into the control register of `function`.
    pub fn predict(&self, topology: &Topology, function: FunctionId, before: Before) -> Predicted {
        let registers = &topology.function(function).info().registers;
        let hooked = acs::linux_reads_wrong_word(registers.id, registers.port_type);
        let mut control = before.firmware;
        if before.iommu_requested {
            let mut wanted = AcsBits::SV | AcsBits::RR | AcsBits::CR | AcsBits::UF;
            if before.external || self.no_ats {
                wanted |= AcsBits::TB;
            }
            if registers.id.is_some_and(acs::has_broken_source_validation) {
                wanted -= AcsBits::SV;
            }
            control |= before.capability & wanted;
        }
        let mut decided_by = DecidedBy::Kernel;
        let at = Matcher { topology, function };
        if let Some(device) =
            at.first_match(self.disable_redir.iter().flat_map(|list| list.split(';')), |&device| device)
        {
            let from = if hooked { control } else { before.firmware };
            control = from - AcsBits::REDIRECT;
            decided_by = DecidedBy::DisableAcsRedir(device.to_string());
        }
        // The kernel stops at the first element whose flags it cannot read.
        let elements = self.config.iter().flat_map(|list| list.split(';')).map_while(ConfigElement::read);
        if let Some(element) = at.first_match(elements, |element| element.device) {
            control = if hooked {
                control - AcsBits::REDIRECT
            } else {
                (before.firmware - element.mask) | (element.value & element.mask)
            };
            decided_by = DecidedBy::ConfigAcs(element.text.to_string());
        }
        Predicted { control, decided_by }
    }
}

/// The kernel's arguments: what stands before `--`.
pub(super) fn arguments(line: &str) -> Vec<&str> {
    words(line).into_iter().take_while(|&part| part != "--").collect()
}

/// Splits a command line at spaces outside double quotes.
pub(super) fn words(line: &str) -> Vec<&str> {
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

/// One `flags@device` of `config_acs=`.
#[derive(Clone, Copy)]
pub(super) struct ConfigElement<'t> {
    text: &'t str,
    pub(super) device: &'t str,
    pub(super) mask: AcsBits,
    pub(super) value: AcsBits,
}

impl<'t> ConfigElement<'t> {
    pub(super) fn read(text: &'t str) -> Option<Self> {
        let (flags, device) = text.split_once('@')?;
        let (mask, value) = flag_word(flags)?;
        Some(Self { text, device, mask, value })
    }
}

/// Reads `xx111x1`: the last character is bit 0; `x` leaves a bit alone, also one
/// above DT, which no register has.
fn flag_word(flags: &str) -> Option<(AcsBits, AcsBits)> {
    let (mut mask, mut value) = (AcsBits::empty(), AcsBits::empty());
    for (nth, character) in flags.bytes().rev().enumerate() {
        let bit = (nth < 7).then(|| AcsBits::from_bits_retain(1 << nth));
        match (character, bit) {
            (b'0', Some(bit)) => mask |= bit,
            (b'1', Some(bit)) => {
                mask |= bit;
                value |= bit;
            }
            (b'x' | b'X', _) => {}
            _ => return None,
        }
    }
    Some((mask, value))
}

/// Compares the devices of a list with one function.
pub(super) struct Matcher<'t> {
    pub(super) topology: &'t Topology,
    pub(super) function: FunctionId,
}

impl Matcher<'_> {
    /// The first element whose device is the function; none past one that cannot be read.
    fn first_match<'e, T>(&self, elements: impl IntoIterator<Item = T>, device: impl Fn(&T) -> &'e str) -> Option<T> {
        for element in elements {
            if self.matches(device(&element))? {
                return Some(element);
            }
        }
        None
    }

    /// `pci_dev_str_match`: `pci:vendor:device[:subvendor:subdevice]` or
    /// `[domain:]bus:device.function[/device.function]*`; `None` if it is neither.
    pub(super) fn matches(&self, text: &str) -> Option<bool> {
        match text.strip_prefix("pci:") {
            Some(ids) => self.matches_ids(ids),
            None => self.matches_path(text),
        }
    }

    fn matches_ids(&self, text: &str) -> Option<bool> {
        let numbers = text.split(':').map(|part| u16::try_from(hex(part)?).ok()).collect::<Option<Vec<u16>>>()?;
        let (vendor, device, subsystem_free) = match numbers[..] {
            [vendor, device] => (vendor, device, true),
            // Subsystem IDs are not decoded here; a text that asks for one other than the wildcard is taken not to match.
            [vendor, device, subvendor, subdevice] => (vendor, device, subvendor == 0 && subdevice == 0),
            _ => return None,
        };
        let wildcard_or = |wanted: u16, have: Option<u16>| wanted == 0 || have == Some(wanted);
        let id: Option<PciId> = self.topology.function(self.function).info().registers.id;
        let (have_vendor, have_device) = (id.map(|id| id.vendor), id.map(|id| id.device));
        Some(subsystem_free && wildcard_or(vendor, have_vendor) && wildcard_or(device, have_device))
    }

    /// Walks from the last element of the path, the function itself, up to the first.
    fn matches_path(&self, text: &str) -> Option<bool> {
        let (mut rest, mut at) = (text, self.function);
        while let Some((above, last)) = rest.rsplit_once('/') {
            if self.topology.function(at).address().devfn() != devfn(last)? {
                return Some(false);
            }
            let Parent::Bridge(bridge) = self.topology.upstream(at) else { return Some(false) };
            (rest, at) = (above, bridge);
        }
        let (buses, last) = rest.rsplit_once(':')?;
        let (domain, bus) = match buses.split_once(':') {
            Some((domain, bus)) => (hex(domain)?, hex(bus)?),
            None => (0, hex(buses)?),
        };
        let devfn = devfn(last)?;
        let wanted = u8::try_from(bus).ok().map(|bus| PciAddr::new(domain, bus, devfn));
        Some(wanted == Some(self.topology.function(at).address()))
    }
}

/// Whether the kernel can read a device's text to its end, whatever function it is compared with.
pub(super) fn is_device(text: &str) -> bool {
    if let Some(ids) = text.strip_prefix("pci:") {
        let all_ids = ids.split(':').all(|part| hex(part).is_some_and(|id| id <= 0xffff));
        return all_ids && matches!(ids.split(':').count(), 2 | 4);
    }
    let mut parts = text.split('/');
    let Some((buses, last)) = parts.next().and_then(|first| first.rsplit_once(':')) else { return false };
    let buses_are_read = match buses.split_once(':') {
        Some((domain, bus)) => hex(domain).is_some() && hex(bus).is_some(),
        None => hex(buses).is_some(),
    };
    buses_are_read && devfn(last).is_some() && parts.all(|part| devfn(part).is_some())
}

/// As the kernel packs them, bits beyond the fields dropped (`PCI_DEVFN`).
fn devfn(text: &str) -> Option<DevFn> {
    let (device, function) = text.split_once('.')?;
    Some(DevFn::new(((hex(device)? & 0x1f) << 3 | hex(function)? & 7) as u8))
}

/// Digits only; `from_str_radix` alone would also take a sign.
fn hex(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let all_digits = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    all_digits.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
}
