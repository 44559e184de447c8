//! Lists of ports, held against the machine that they are for.
//!
//! An element that misses is silent in Linux: nothing tells that a bus number is
//! mistyped, that a port has no ACS capability, or that a bit is not implemented.

use super::lists::{Kind, List, Lists};
use super::{Code, Finding};
use crate::pcie::acs::{self, Acs, AcsBits};
use crate::route::acs_boot::{ConfigElement, Matcher, is_device};
use crate::route::fix::selector;
use crate::topology::{FunctionId, FunctionInfo, Parent, Topology};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// What one readable element of a list comes to on a machine.
struct Aim<'l> {
    element: &'l str,
    device: &'l str,
    /// Bits it writes, and their values.
    mask: AcsBits,
    value: AcsBits,
    matched: Vec<FunctionId>,
}

pub(super) fn check(lists: &Lists<'_>, topology: &Topology, findings: &mut Vec<Finding>) {
    let aims = Kind::ALL.map(|kind| lists.effective(kind).map(|list| aims(list, topology)).unwrap_or_default());
    for (kind, aims) in Kind::ALL.into_iter().zip(&aims) {
        let mut taken: BTreeSet<FunctionId> = BTreeSet::new();
        for aim in aims {
            check_aim(kind, aim, &taken, topology, findings);
            taken.extend(&aim.matched);
        }
    }
    let [disabled, configured] = &aims;
    let mut replacing: BTreeMap<FunctionId, &Aim<'_>> = BTreeMap::new();
    for aim in configured {
        for &id in &aim.matched {
            replacing.entry(id).or_insert(aim);
        }
    }
    for aim in disabled {
        if let Some((id, other)) = aim.matched.iter().find_map(|id| Some((id, replacing.get(id)?))) {
            let what = format!(
                "config_acs={} names {} too, and starts from the firmware's word again, so this element does nothing there",
                other.element,
                topology.function(*id).address()
            );
            let fix = "clear the redirecting bits with 0 in the flags of config_acs=";
            findings.push(Finding::new(Code::ReplacedByConfigAcs, aim.element, what).fix(fix));
        }
    }
}

/// The elements that the kernel reads, with the functions that each is.
fn aims<'l>(list: &List<'l>, topology: &Topology) -> Vec<Aim<'l>> {
    let read = |element: &'l str| {
        let (device, mask, value) = match list.kind {
            Kind::DisableRedir => (element, AcsBits::REDIRECT, AcsBits::empty()),
            Kind::Config => {
                let config = ConfigElement::read(element)?;
                (config.device, config.mask, config.value)
            }
        };
        let matches = |&id: &FunctionId| Matcher { topology, function: id }.matches(device) == Some(true);
        is_device(device).then(|| Aim {
            element,
            device,
            mask,
            value,
            matched: topology.functions().map(|(id, _)| id).filter(matches).collect(),
        })
    };
    list.elements().map_while(read).collect()
}

fn check_aim(
    kind: Kind,
    aim: &Aim<'_>,
    taken: &BTreeSet<FunctionId>,
    topology: &Topology,
    findings: &mut Vec<Finding>,
) {
    let infos: Vec<&FunctionInfo> = aim.matched.iter().map(|&id| topology.function(id).info()).collect();
    let Some(first) = infos.first() else {
        if can_tell_misses(aim.device, topology) {
            let what = format!("none of the machine's {} functions is {}", topology.functions().len(), aim.device);
            findings.push(
                Finding::new(Code::MatchesNothing, aim.element, what)
                    .fix("peerdma topo lists ports with their addresses"),
            );
        }
        return;
    };
    let named = match infos.len() {
        1 => first.address.to_string(),
        more => format!("each of the {more} functions that it is"),
    };
    if aim.matched.iter().all(|id| taken.contains(id)) {
        let what = format!("an earlier element is {named} too, and the first match counts");
        findings.push(Finding::new(Code::ShadowedElement, aim.element, what));
        return;
    }
    if infos.iter().all(|info| matches!(info.registers.acs, Acs::Absent(_))) {
        let what = format!("{named} has no ACS capability, so there is nothing to write");
        findings.push(Finding::new(Code::NoAcs, aim.element, what));
        return;
    }
    let hooked = infos.iter().all(|info| acs::linux_reads_wrong_word(info.registers.id, info.registers.port_type));
    if kind == Kind::Config && hooked && (aim.mask, aim.value) != (AcsBits::REDIRECT, AcsBits::empty()) {
        let what = format!("{named} is a port whose hook clears RR, CR and EC for any match and obeys no flags");
        findings.push(Finding::new(Code::FlagsNotObeyed, aim.element, what));
    } else if let Some(lacking) = bits_that_none_has(aim, &infos) {
        findings.push(lacking);
    }
    if let (Some(path), [id]) = (path_instead(aim, topology), aim.matched.as_slice()) {
        let what =
            format!("a card more or less changes bus numbers, and {} with them", topology.function(*id).address());
        findings.push(Finding::new(Code::BusNumber, aim.element, what).fix(path));
    }
}

/// What an element asks for that no capability of its functions has.
fn bits_that_none_has(aim: &Aim<'_>, infos: &[&FunctionInfo]) -> Option<Finding> {
    let capability = |info: &&FunctionInfo| info.registers.acs.registers().map(|registers| registers.capability);
    let capabilities: Vec<AcsBits> = infos.iter().map(capability).collect::<Option<_>>()?;
    let any = capabilities.iter().fold(AcsBits::empty(), |all, capability| all | *capability);
    let wanted = aim.mask & AcsBits::from_bits_retain(0x7f);
    if !wanted.is_empty() && (wanted & any).is_empty() {
        let what = format!("the capability ({any}) has none of the bits that this writes, so nothing changes");
        return Some(Finding::new(Code::NothingChanges, aim.element, what));
    }
    let lacking = aim.value - any;
    (!lacking.is_empty()).then(|| {
        let what = format!("asks for {}, which the capability ({any}) lacks; they stay 0", names(lacking));
        Finding::new(Code::BitsNotThere, aim.element, what)
    })
}

/// The names of the bits that are set.
fn names(bits: AcsBits) -> String {
    let all = bits.to_string();
    let set = all.as_bytes().chunks(3).filter(|chunk| chunk.get(2) == Some(&b'+'));
    set.filter_map(|chunk| core::str::from_utf8(&chunk[..2]).ok()).collect::<Vec<_>>().join(" ")
}

/// Whether the input shows enough of the machine for a miss to be one.
fn can_tell_misses(device: &str, topology: &Topology) -> bool {
    let mut functions = topology.functions().map(|(_, function)| function);
    match device.strip_prefix("pci:") {
        // Subsystem IDs are not decoded, and an unread ID may be the one.
        Some(ids) => {
            let subsystem_free = ids.split(':').skip(2).all(|id| id.bytes().all(|digit| digit == b'0'));
            subsystem_free && functions.all(|function| function.info().registers.id.is_some())
        }
        None if device.contains('/') => functions.all(|function| !matches!(function.parent(), Parent::Unknown { .. })),
        None => true,
    }
}

/// The element with the path from the root bus, if it has a bus number that may change.
fn path_instead(aim: &Aim<'_>, topology: &Topology) -> Option<String> {
    let [id] = aim.matched.as_slice() else { return None };
    if aim.device.starts_with("pci:") || aim.device.contains('/') {
        return None;
    }
    let path = selector(topology, *id)?;
    let flags = aim.element.split_once('@').map_or(String::new(), |(flags, _)| format!("{flags}@"));
    path.contains('/').then(|| format!("{flags}{path}"))
}

/// Without the machine only bus 0 is sure to stay.
pub(super) fn advise_without_machine(lists: &Lists<'_>, findings: &mut Vec<Finding>) {
    for element in Kind::ALL.into_iter().filter_map(|kind| lists.effective(kind)).flat_map(List::elements) {
        let device = element.split_once('@').map_or(element, |(_, device)| device);
        let on_bus_0 = device.rsplit_once(':').is_some_and(|(buses, _)| {
            let bus = buses.rsplit_once(':').map_or(buses, |(_, bus)| bus);
            bus.trim_start_matches("0x").bytes().all(|digit| digit == b'0')
        });
        if is_device(device) && !device.starts_with("pci:") && !device.contains('/') && !on_bus_0 {
            let what = "a card more or less changes bus numbers; a path of device numbers from the root bus on stays";
            let fix = "give the machine (--from or --sysfs-root) to see the path";
            findings.push(Finding::new(Code::BusNumber, element, what).fix(fix));
        }
    }
}
