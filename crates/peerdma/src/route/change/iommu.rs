//! How the IOMMU treats devices after a change, and what a command line says about it.

use crate::pcie::Fact;
use crate::route::acs_boot;
use crate::route::{Gate, Reason};
use crate::topology::{Builder, CpuVendor, IommuMode, Machine, Topology};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// Gives all devices one mode; `None` for unknown.
pub(super) fn set_mode(builder: &mut Builder, mode: Option<IommuMode>) {
    if mode == Some(IommuMode::None) {
        builder.groups_mut().clear();
        builder.functions_mut().for_each(|info| info.iommu_group = None);
    }
    let kind: Option<String> = match mode {
        Some(IommuMode::Translated) => Some("DMA".to_string()),
        Some(IommuMode::Identity) => Some("identity".to_string()),
        Some(IommuMode::None) | None => None,
    };
    let has_groups = !builder.groups_mut().is_empty();
    builder.groups_mut().iter_mut().for_each(|group| group.kind.clone_from(&kind));
    let machine = builder.machine();
    machine.iommu = mode;
    // Without any group the absence of one says nothing about a machine whose IOMMU is on.
    machine.groups_are_complete &= has_groups || mode == Some(IommuMode::None);
}

/// What a command line says about the IOMMU.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Arguments {
    /// `iommu=off`.
    off: bool,
    /// `intel_iommu=on` or `off`.
    intel: Option<bool>,
    /// `amd_iommu=off`.
    amd_off: bool,
    /// `iommu=pt` and `nopt`, `iommu.passthrough=`; the last counts, since each sets the
    /// default (Linux 7.2 `iommu_set_def_domain_type`, x86 `iommu_setup`).
    passthrough: Option<bool>,
}

impl Arguments {
    pub(super) fn read(line: &str) -> Self {
        let mut read = Self::default();
        for argument in acs_boot::arguments(line) {
            let Some((name, value)) = argument.split_once('=') else { continue };
            let value = value.trim_matches('"');
            match name.replace('-', "_").as_str() {
                "iommu" => value.split(',').for_each(|word| match word {
                    "off" => read.off = true,
                    "pt" => read.passthrough = Some(true),
                    "nopt" => read.passthrough = Some(false),
                    _ => {}
                }),
                "iommu.passthrough" => read.passthrough = truth(value).or(read.passthrough),
                "intel_iommu" => value.split(',').for_each(|word| match word {
                    "on" => read.intel = Some(true),
                    "off" => read.intel = Some(false),
                    _ => {}
                }),
                "amd_iommu" => read.amd_off |= value.split(',').any(|word| word == "off"),
                _ => {}
            }
        }
        read
    }

    /// Whether they switch the machine's IOMMU off.
    fn switch_off(self, machine: &Machine) -> Fact<bool> {
        let by_intel = (self.intel == Some(false)).then(|| drives(machine, &CpuVendor::Intel));
        let by_amd = self.amd_off.then(|| drives(machine, &CpuVendor::Amd));
        match (self.off, by_intel, by_amd) {
            (true, ..) | (_, Some(Fact::Known(true)), _) | (.., Some(Fact::Known(true))) => Fact::Known(true),
            (_, Some(Fact::Unknown), _) | (.., Some(Fact::Unknown)) => Fact::Unknown,
            _ => Fact::Known(false),
        }
    }
}

/// `kstrtobool`.
fn truth(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "on" | "1" => Some(true),
        "off" | "0" => Some(false),
        word if word.starts_with(['y', 't']) => Some(true),
        word if word.starts_with(['n', 'f']) => Some(false),
        _ => None,
    }
}

/// Whether the IOMMU, if there is one, is of this vendor. A virtual machine has whatever
/// its monitor shows.
fn drives(machine: &Machine, vendor: &CpuVendor) -> Fact<bool> {
    match (&machine.cpu, machine.in_guest) {
        (Some(_), Fact::Known(true)) | (None, _) => Fact::Unknown,
        (Some(cpu), _) => Fact::Known(cpu.vendor == *vendor),
    }
}

/// An IOMMU before a boot and after it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Iommu {
    /// Whether one is in use now, and its driver has asked for ACS.
    pub(super) now: Fact<bool>,
    /// Whether one will be.
    pub(super) then: Fact<bool>,
}

/// What becomes of the IOMMU with another command line, and of its mode.
pub(super) fn boot(topology: &Topology, builder: &mut Builder, line: &str, assumed: &mut Vec<Reason>) -> Iommu {
    let machine = topology.machine();
    let present = machine.command_line.as_deref();
    let (before, after) = (Arguments::read(present.unwrap_or_default()), Arguments::read(line));
    let now = in_use(topology, before, present.is_some());
    let then = will_be_in_use(machine, before, after, now);
    let mode = match then {
        Fact::Known(false) => Some(IommuMode::None),
        Fact::Unknown => None,
        Fact::Known(true) => match after.passthrough {
            Some(true) => Some(IommuMode::Identity),
            Some(false) => Some(IommuMode::Translated),
            None if now == then && present.is_some() && before.passthrough.is_none() => return Iommu { now, then },
            None => match config(machine, "CONFIG_IOMMU_DEFAULT_PASSTHROUGH") {
                Fact::Known(true) => Some(IommuMode::Identity),
                Fact::Known(false) => Some(IommuMode::Translated),
                Fact::Unknown => None,
            },
        },
    };
    if now != Fact::Known(true) && then == Fact::Known(true) {
        assumed.push(Reason {
            gate: Gate::Assumed,
            object: "iommu".into(),
            evidence: "the command line switches it on, and the machine is taken to have one that firmware announces"
                .into(),
            fix: None,
        });
    }
    set_mode(builder, mode);
    Iommu { now, then }
}

/// Whether an IOMMU is in use on the machine as it is.
fn in_use(topology: &Topology, before: Arguments, line_is_known: bool) -> Fact<bool> {
    let machine = topology.machine();
    let some_group = topology.functions().any(|(_, function)| function.info().iommu_group.is_some());
    match machine.iommu {
        _ if some_group => Fact::Known(true),
        Some(IommuMode::Translated | IommuMode::Identity) => Fact::Known(true),
        Some(IommuMode::None) => Fact::Known(false),
        None if machine.groups_are_complete => Fact::Known(false),
        None if line_is_known && before.switch_off(machine) == Fact::Known(true) => Fact::Known(false),
        None => Fact::Unknown,
    }
}

fn will_be_in_use(machine: &Machine, before: Arguments, after: Arguments, now: Fact<bool>) -> Fact<bool> {
    match after.switch_off(machine) {
        Fact::Known(true) => return Fact::Known(false),
        Fact::Unknown => return if now == Fact::Known(false) { now } else { Fact::Unknown },
        Fact::Known(false) => {}
    }
    let intel = drives(machine, &CpuVendor::Intel);
    let switched_on = after.intel == Some(true) && intel != Fact::Known(false);
    match now {
        // It may have been this very option that switched it on.
        Fact::Known(true) if before.intel == Some(true) && after.intel.is_none() && intel != Fact::Known(false) => {
            match config(machine, "CONFIG_INTEL_IOMMU_DEFAULT_ON") {
                Fact::Known(on) if intel == Fact::Known(true) => Fact::Known(on),
                Fact::Known(true) => Fact::Known(true),
                _ => Fact::Unknown,
            }
        }
        Fact::Known(true) => now,
        _ if switched_on && before.intel != Some(true) => Fact::Known(true),
        Fact::Known(false) if before.switch_off(machine) == Fact::Known(false) => now,
        _ => Fact::Unknown,
    }
}

fn config(machine: &Machine, option: &str) -> Fact<bool> {
    machine.kernel_config.get(option).map(|value| value == "y").into()
}
