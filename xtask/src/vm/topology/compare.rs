//! A guest's own account of its topology, held against what it was started as.
//!
//! [`model_differences`] asks whether every function of a model is there, in its place, as
//! QEMU's device, with ACS and BARs as QEMU gives them, and nothing else is.
//! [`differences`] asks further whether the guest is the machine of a platform file: control
//! words, BARs, CPU, and Linux's verdict and distance of every ordered pair of the file's
//! functions, each computed from the file and from the guest.
//!
//! Functions are matched by place, not by address: firmware numbers buses as it likes. The
//! kernel is the guest's on both sides, since a file's is not what runs.
//!
//! Not here: the kernel's own answers. This compares two inputs of peerdma; the suite compares
//! peerdma with the kernel.

use super::model::{Endpoint, Model, OWN_DEVICES};
use super::place::{Place, Planned, What};
use super::platform::{Exported, ROOT_PORT_CAPABILITY, Twin, TwinAcs};
use peerdma::addr::Bytes;
use peerdma::pcie::PciAddr;
use peerdma::pcie::acs::{Acs, AcsBits};
use peerdma::pcie::decode::HeaderType;
use peerdma::route::kernel_view::{KernelView, MapType};
use peerdma::topology::{Cpu, Function, FunctionId, Machine, Topology};
use peerdma_emu::platform::Platform;
use std::collections::BTreeMap;

/// One thing that is not as it should be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Difference {
    #[error("{place}: {device} is not there")]
    Missing { place: Place, device: &'static str },
    #[error("{address}: nothing was put there, and the guest shows {shown}")]
    Extra { address: PciAddr, shown: String },
    #[error("{place}: {expected} was put there, and the guest shows {shown}")]
    Device { place: Place, expected: String, shown: String },
    #[error("{place}: the header shall be {expected}, and is {shown}")]
    Header { place: Place, expected: &'static str, shown: String },
    #[error("{place}: ACS shall be {expected}, and is {shown}")]
    Acs { place: Place, expected: String, shown: String },
    #[error("{place}: BAR {index} shall have {expected}, and {shown}")]
    Bar { place: Place, index: u8, expected: Bytes, shown: String },
    #[error("CPU: the file says {file}, and the guest shows {guest}")]
    Cpu { file: String, guest: String },
    #[error("{initiator} to memory of {target}: by the file {file}, by the guest {guest}")]
    Verdict { target: String, initiator: String, file: Verdict, guest: Verdict },
}

/// Linux's map type and distance for a pair.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Verdict {
    /// Map type.
    pub(crate) map_type: MapType,
    /// Distance in hops.
    pub(crate) distance: u32,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at distance {}", self.map_type, self.distance)
    }
}

/// How the guest differs from the model that it was started with; empty if it does not.
///
/// `guest` is what a privileged capture shows. Virtual functions are left out of account.
pub(crate) fn model_differences(model: &Model, guest: &Topology) -> Vec<Difference> {
    let shown = by_place(guest);
    let planned: BTreeMap<Place, Planned<'_>> =
        model.functions().into_iter().map(|planned| (planned.place.clone(), planned)).collect();
    let mut differences = Vec::new();
    for (place, planned) in &planned {
        match shown.get(place) {
            None => {
                let device = planned.what.device();
                differences.push(Difference::Missing { place: place.clone(), device });
            }
            Some(&id) => function(place, planned.what, guest.function(id), &mut differences),
        }
    }
    for (id, function) in guest.functions() {
        let expected = function.physical().is_some()
            || Place::of(guest, id).is_some_and(|place| planned.contains_key(&place) || is_own(&place));
        if !expected {
            let shown = name_of(function);
            differences.push(Difference::Extra { address: function.address(), shown });
        }
    }
    differences
}

/// How the guest differs from the platform that it was exported from; empty if it does not.
///
/// `guest` is what a privileged capture shows.
pub(crate) fn differences(platform: &Platform, exported: &Exported, guest: &Topology) -> Vec<Difference> {
    let mut differences = model_differences(&exported.model, guest);
    let shown = by_place(guest);
    for twin in &exported.twins {
        // What is missing was said above.
        let Some(&id) = shown.get(&twin.place) else { continue };
        let function = guest.function(id);
        control(twin, function, &mut differences);
        bars(&twin.place, &twin.bars, function, &mut differences);
    }
    let file_cpu = platform.cpu();
    let guest_cpu = guest.machine().cpu.as_ref();
    // QEMU's processors have models of their own; no verdict of Linux hangs on one.
    let deciding = |cpu: &Cpu| (cpu.vendor.clone(), cpu.family);
    if file_cpu.is_some() && file_cpu.map(deciding) != guest_cpu.map(deciding) {
        let word = |cpu: Option<&Cpu>| cpu.map_or("no CPU".to_string(), Cpu::to_string);
        differences.push(Difference::Cpu { file: word(file_cpu), guest: word(guest_cpu) });
    }
    verdicts(platform, exported, guest, &shown, &mut differences);
    differences
}

/// Functions of the guest by place, virtual ones aside.
pub(super) fn by_place(guest: &Topology) -> BTreeMap<Place, FunctionId> {
    let physical = guest.functions().filter(|(_, function)| function.physical().is_none());
    physical.filter_map(|(id, _)| Some((Place::of(guest, id)?, id))).collect()
}

/// q35's own devices and those of the rest of the machine.
fn is_own(place: &Place) -> bool {
    let device = place.steps.first().map(|at| at.device());
    place.root_bus == 0 && place.steps.len() == 1 && device.is_some_and(|device| OWN_DEVICES.contains(&device))
}

fn name_of(function: &Function) -> String {
    function.info().registers.id.map_or("a function without an ID".to_string(), |id| id.to_string())
}

/// One function against QEMU's device.
fn function(place: &Place, what: What<'_>, shown: &Function, differences: &mut Vec<Difference>) {
    let registers = &shown.info().registers;
    if registers.id != Some(what.id()) {
        let expected = format!("{} ({})", what.device(), what.id());
        differences.push(Difference::Device { place: place.clone(), expected, shown: name_of(shown) });
        return;
    }
    let (header, expected) =
        if what.is_bridge() { (HeaderType::Bridge, "a bridge's") } else { (HeaderType::Device, "a device's") };
    if registers.header != Some(header) {
        let shown = format!("{:?}", registers.header);
        differences.push(Difference::Header { place: place.clone(), expected, shown });
    }
    let expected = match what {
        What::RootPort { acs: true } => Some(ROOT_PORT_CAPABILITY),
        _ => None,
    };
    let is_as_expected = match (&registers.acs, expected) {
        (Acs::Present(found), Some(capability)) => found.capability == capability,
        (Acs::Absent(_), None) => true,
        _ => false,
    };
    if !is_as_expected {
        let expected = match expected {
            Some(capability) => format!("there, able to {capability}"),
            None => "absent".to_string(),
        };
        differences.push(Difference::Acs { place: place.clone(), expected, shown: acs_words(&registers.acs) });
    }
    if let What::Endpoint(endpoint) = what {
        bars(place, &Endpoint::bars(endpoint), shown, differences);
    }
}

fn acs_words(acs: &Acs) -> String {
    match acs {
        Acs::Present(found) => {
            format!("there, able to {}, set to {}", found.capability, found.control_read_by_linux)
        }
        Acs::Absent(_) => "absent".to_string(),
        Acs::Unknown(_) => "not read".to_string(),
    }
}

/// A control word against the file's.
fn control(twin: &Twin, shown: &Function, differences: &mut Vec<Difference>) {
    let acs = &shown.info().registers.acs;
    let (expected, is_as_expected) = match (twin.acs, acs) {
        (TwinAcs::Any, _) => return,
        (TwinAcs::Absent, Acs::Absent(_)) => return,
        (TwinAcs::Absent, _) => ("absent".to_string(), false),
        (TwinAcs::Control(control), Acs::Present(found)) => (words(control), found.control_read_by_linux == control),
        (TwinAcs::Control(control), _) => (words(control), false),
    };
    if !is_as_expected {
        differences.push(Difference::Acs { place: twin.place.clone(), expected, shown: acs_words(acs) });
    }
}

fn words(control: AcsBits) -> String {
    format!("set to {control}")
}

fn bars(place: &Place, expected: &[(u8, Bytes)], shown: &Function, differences: &mut Vec<Difference>) {
    for &(index, expected) in expected {
        let found = shown.info().bars.iter().find(|bar| bar.index == index);
        let size = found.and_then(|bar| bar.size.or_else(|| bar.cpu.map(|range| range.len())));
        if size != Some(expected) {
            let shown = size.map_or("is not there".to_string(), |size| format!("has {size}"));
            differences.push(Difference::Bar { place: place.clone(), index, expected, shown });
        }
    }
}

/// Every ordered pair of the file's functions, decided from the file and from the guest.
fn verdicts(
    platform: &Platform,
    exported: &Exported,
    guest: &Topology,
    shown: &BTreeMap<Place, FunctionId>,
    differences: &mut Vec<Difference>,
) {
    let file = platform.topology();
    let known = guest.machine();
    let cpu = platform.cpu().or(known.cpu.as_ref()).cloned();
    let machine =
        Machine { cpu, kernel: known.kernel, p2pdma_configured: known.p2pdma_configured, ..file.machine().clone() };
    let file = file.with_machine(machine);
    let (by_file, by_guest) = (KernelView::new(&file), KernelView::new(guest));
    let pairs: Vec<(&Twin, FunctionId, FunctionId)> =
        exported.twins.iter().filter_map(|twin| Some((twin, file.at(twin.file)?, *shown.get(&twin.place)?))).collect();
    let verdict = |view: &KernelView<'_>, target, initiator| {
        let decision = view.decide(target, initiator);
        Verdict { map_type: decision.map_type, distance: decision.distance }
    };
    for (target, target_file, target_guest) in &pairs {
        for (initiator, initiator_file, initiator_guest) in &pairs {
            let file = verdict(&by_file, *target_file, *initiator_file);
            let guest = verdict(&by_guest, *target_guest, *initiator_guest);
            // What the file leaves open, the guest may be either way.
            if file != guest && file.map_type != MapType::Unknown {
                let (target, initiator) = (target.name.clone(), initiator.name.clone());
                differences.push(Difference::Verdict { target, initiator, file, guest });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::named::{NAMES, named};
    use super::super::synthetic::{self, Guest};
    use super::super::{from_platform, random::random};
    use super::*;

    fn shown_by(difference: &[Difference]) -> Vec<String> {
        difference.iter().map(Difference::to_string).collect()
    }

    #[test]
    fn a_guest_that_shows_its_model_does_not_differ() {
        let models = NAMES.iter().filter_map(|name| named(name)).chain((0..50).map(random));
        for model in models {
            let guest = Guest::of(&model).topology();
            assert_eq!(shown_by(&model_differences(&model, &guest)), [""; 0]);
        }
    }

    /// Numbers are the firmware's: a guest that counts in twos is the same machine.
    #[test]
    fn other_bus_numbers_are_no_difference() {
        let model = named("deep").unwrap();
        let mut guest = Guest::of(&model);
        guest.renumber(|bus| bus * 2);
        assert_eq!(shown_by(&model_differences(&model, &guest.topology())), [""; 0]);
    }

    #[test]
    fn a_function_that_firmware_left_out_is_missed_by_its_place() {
        let model = named("default").unwrap();
        let mut guest = Guest::of(&model);
        guest.infos.retain(|info| info.address.to_string() != "0000:05:00.0");
        let differences = shown_by(&model_differences(&model, &guest.topology()));
        assert_eq!(differences, ["00/04.0/00.0/02.0/00.0: edu is not there"]);
    }

    #[test]
    fn what_nobody_put_there_is_told_by_its_address() {
        let model = named("pxb").unwrap();
        let mut guest = Guest::of(&model);
        guest.add("0000:00:0d.0", "1af4:1003");
        guest.add("0000:00:1f.5", "8086:2922");
        let differences = shown_by(&model_differences(&model, &guest.topology()));
        assert_eq!(differences, ["0000:00:0d.0: nothing was put there, and the guest shows 1af4:1003"]);
    }

    #[test]
    fn a_root_port_that_kept_its_acs_and_a_bar_of_another_size_are_told() {
        let model = named("multifunction").unwrap();
        let mut guest = Guest::of(&model);
        let port = guest.at("0000:00:05.0");
        port.registers.acs = synthetic::acs(0x1d);
        let memory = guest.infos.iter_mut().find(|info| info.bars.iter().any(|bar| bar.index == 2)).unwrap();
        memory.bars.retain(|bar| bar.index != 2);
        let differences = shown_by(&model_differences(&model, &guest.topology()));
        assert_eq!(differences.len(), 2, "{differences:?}");
        assert!(
            differences[0].starts_with("00/05.0: ACS shall be absent, and is there, able to SV+"),
            "{differences:?}"
        );
        assert_eq!(differences[1], "00/08.1: BAR 2 shall have 1 MiB, and is not there");
    }

    /// A user's capture shows no ACS; it must not pass for the machine that it cannot show.
    #[test]
    fn a_capture_without_privilege_differs_in_every_port() {
        let model = named("deep").unwrap();
        let mut guest = Guest::of(&model);
        for info in &mut guest.infos {
            info.registers.acs = Acs::Unknown(peerdma::pcie::acs::AcsUnread::Cut(64));
        }
        let differences = model_differences(&model, &guest.topology());
        assert_eq!(differences.len(), model.expected_functions());
    }

    #[test]
    fn a_control_word_other_than_the_file_s_is_told_and_so_is_every_verdict_that_it_turns() {
        let platform = synthetic::platform();
        let exported = from_platform(&platform).unwrap();
        let mut guest = Guest::of(&exported.model);
        guest.boot(&exported);
        assert_eq!(shown_by(&differences(&platform, &exported, &guest.topology())), [""; 0]);
        // The port above two functions of one device, which the file says does not redirect.
        guest.at("0000:00:05.0").registers.acs = synthetic::acs(0x1d);
        let told = shown_by(&differences(&platform, &exported, &guest.topology()));
        assert!(told[0].starts_with("00/05.0: ACS shall be set to SV+TB-RR-CR-UF+EC-DT-"), "{told:?}");
        assert!(
            told.contains(
                &"b0 to memory of b1: by the file BUS_ADDR at distance 2, by the guest NOT_SUPPORTED at distance 2"
                    .to_string()
            ),
            "{told:?}"
        );
    }

    #[test]
    fn another_cpu_than_the_file_s_is_told() {
        let platform = synthetic::platform();
        let exported = from_platform(&platform).unwrap();
        let mut guest = Guest::of(&exported.model);
        guest.boot(&exported);
        guest.machine.cpu = "amd:0x17".parse().ok();
        let told = shown_by(&differences(&platform, &exported, &guest.topology()));
        assert!(told.contains(
            &"CPU: the file says AuthenticAMD family 0xf, and the guest shows AuthenticAMD family 0x17".into()
        ));
        // A model that the file does not state is QEMU's to choose.
        guest.machine.cpu = "amd:0xf:0x6b".parse().ok();
        let told = shown_by(&differences(&platform, &exported, &guest.topology()));
        assert!(!told.iter().any(|line| line.starts_with("CPU")), "{told:?}");
    }
}
