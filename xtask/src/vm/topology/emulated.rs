//! The machine that the emulator makes of a platform file, against the guest made of it.
//!
//! Both sides were found by reading registers: the emulated one by [`discover`], the guest by
//! Linux. So this holds what the emulator writes into config space against a kernel's idea
//! of a machine: parents, ACS words, BARs, groups, and Linux's verdict of every ordered pair.
//!
//! Compared as far as the file says: where it leaves ACS open, the guest may be either way,
//! and of BARs those count that QEMU's devices have too. Of addresses, only the caller knows
//! whether the file numbers buses as firmware does.
//!
//! [`discover`]: peerdma_emu::discover

use super::compare::{Verdict, by_place};
use super::platform::{Exported, Twin, TwinAcs};
use peerdma::addr::Bytes;
use peerdma::pcie::acs::{Acs, AcsBits};
use peerdma::pcie::decode::HeaderType;
use peerdma::pcie::{Fact, PciAddr};
use peerdma::route::groups;
use peerdma::route::kernel_view::KernelView;
use peerdma::topology::{Function, FunctionId, Machine, Parent, Topology};

/// One thing in which the emulated machine is not the guest.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Unlike {
    #[error("{name}: a scan of the emulated machine does not find it at {address}, or the guest does not show it")]
    Missing { name: String, address: PciAddr },
    #[error("{name}: parent {emulated} in the emulated machine, {guest} in the guest")]
    Parent { name: String, emulated: String, guest: String },
    #[error("{name}: header {emulated:?} in the emulated machine, {guest:?} in the guest")]
    Header { name: String, emulated: Option<HeaderType>, guest: Option<HeaderType> },
    #[error("{name}: ACS {emulated} in the emulated machine, {guest} in the guest")]
    Acs { name: String, emulated: String, guest: String },
    #[error("{name}: the emulated machine has no BAR of {size}, as the guest's BAR {index} is")]
    Bar { name: String, index: u8, size: Bytes },
    #[error("{one} and {other}: by the emulated machine's registers {emulated} IOMMU group, in the guest {guest}")]
    Group { one: String, other: String, emulated: &'static str, guest: &'static str },
    #[error("{initiator} to memory of {target}: in the emulated machine {emulated}, in the guest {guest}")]
    Verdict { target: String, initiator: String, emulated: Verdict, guest: Verdict },
}

/// What was compared.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Compared {
    /// What differs; the machines are the same where this is empty.
    pub(crate) unlike: Vec<Unlike>,
    /// Ordered pairs whose verdict was held against the guest's.
    pub(crate) pairs: usize,
    /// Ports and functions of the file.
    pub(crate) functions: usize,
}

/// A port or function of the file in both machines.
struct Both<'a> {
    twin: &'a Twin,
    emulated: FunctionId,
    guest: FunctionId,
}

/// Holds `emulated`, found in the emulated machine, against a privileged capture of the guest.
pub(crate) fn compare(emulated: &Topology, exported: &Exported, guest: &Topology) -> Compared {
    // The guest's kernel and CPU on both sides: whether that is the file's CPU is the other comparison's to ask.
    let known = guest.machine();
    let machine = Machine {
        cpu: known.cpu.clone(),
        kernel: known.kernel,
        p2pdma_configured: known.p2pdma_configured,
        ..emulated.machine().clone()
    };
    let emulated = &emulated.clone().with_machine(machine);
    let mut compared = Compared::default();
    let shown = by_place(guest);
    let mut both = Vec::new();
    for twin in &exported.twins {
        match (emulated.at(twin.file), shown.get(&twin.place)) {
            (Some(emulated), Some(&guest)) => both.push(Both { twin, emulated, guest }),
            _ => compared.unlike.push(Unlike::Missing { name: twin.name.clone(), address: twin.file }),
        }
    }
    for one in &both {
        registers(one, emulated, guest, &both, &mut compared.unlike);
    }
    compared.functions = both.len();
    // Registers that were made up where the file leaves them open decide about pairs as well.
    if exported.twins.iter().all(|twin| twin.acs != TwinAcs::Any) {
        shared_groups(&both, emulated, guest, &mut compared.unlike);
        compared.pairs = verdicts(&both, emulated, guest, &mut compared.unlike);
    }
    compared
}

fn registers(one: &Both<'_>, emulated: &Topology, guest: &Topology, both: &[Both<'_>], unlike: &mut Vec<Unlike>) {
    let name = || one.twin.name.clone();
    let parents =
        (parent(emulated, one.emulated, both, |both| both.emulated), parent(guest, one.guest, both, |both| both.guest));
    if parents.0 != parents.1 {
        unlike.push(Unlike::Parent { name: name(), emulated: parents.0, guest: parents.1 });
    }
    let (here, there) = (emulated.function(one.emulated), guest.function(one.guest));
    let headers = (here.info().registers.header, there.info().registers.header);
    if headers.0 != headers.1 {
        unlike.push(Unlike::Header { name: name(), emulated: headers.0, guest: headers.1 });
    }
    if one.twin.acs != TwinAcs::Any && !same_acs(here, there) {
        unlike.push(Unlike::Acs { name: name(), emulated: acs_words(here), guest: acs_words(there) });
    }
    for &(index, size) in &one.twin.bars {
        if !here.info().bars.iter().any(|bar| bar.size == Some(size)) {
            unlike.push(Unlike::Bar { name: name(), index, size });
        }
    }
}

/// The parent by its name in the file, or the number of its root bus.
fn parent(
    topology: &Topology,
    function: FunctionId,
    both: &[Both<'_>],
    side: impl Fn(&Both<'_>) -> FunctionId,
) -> String {
    match topology.function(function).parent() {
        Parent::Bridge(bridge) => match both.iter().find(|one| side(one) == bridge) {
            Some(one) => one.twin.name.clone(),
            None => topology.function(bridge).address().to_string(),
        },
        Parent::Root(host) => format!("root bus {:#04x}", topology.host_bridge(host).bus()),
        Parent::Unknown { .. } => "unknown".to_string(),
    }
}

/// Whether the same bits are in effect, and where both have the capability, can be.
///
/// A capability with nothing set is to Linux as none, and QEMU's switches have none.
fn same_acs(emulated: &Function, guest: &Function) -> bool {
    let of = |function: &Function| match &function.info().registers.acs {
        Acs::Present(registers) => Some((registers.control_read_by_linux, Some(registers.capability))),
        Acs::Absent(_) => Some((AcsBits::empty(), None)),
        Acs::Unknown(_) => None,
    };
    match (of(emulated), of(guest)) {
        (Some((here, able)), Some((there, there_able))) => {
            here == there && able.zip(there_able).is_none_or(|(here, there)| here == there)
        }
        _ => false,
    }
}

fn acs_words(function: &Function) -> String {
    match &function.info().registers.acs {
        Acs::Present(found) => format!("able to {}, set to {}", found.capability, found.control_read_by_linux),
        Acs::Absent(_) => "absent".to_string(),
        Acs::Unknown(_) => "not read".to_string(),
    }
}

/// Groups of the emulated machine are predicted from its registers, those of the guest are the
/// kernel's own; without an IOMMU it has none.
fn shared_groups(both: &[Both<'_>], emulated: &Topology, guest: &Topology, unlike: &mut Vec<Unlike>) {
    let predicted = groups::predict(emulated);
    for (at, one) in both.iter().enumerate() {
        for other in &both[at + 1..] {
            let group = |both: &Both<'_>| guest.function(both.guest).info().iommu_group;
            let (Some(here), Some(there)) = (group(one), group(other)) else { continue };
            let guest = here == there;
            if let Fact::Known(emulated) = predicted.share(one.emulated, other.emulated)
                && emulated != guest
            {
                let word = |shared| if shared { "one" } else { "not one" };
                let (one, other) = (one.twin.name.clone(), other.twin.name.clone());
                unlike.push(Unlike::Group { one, other, emulated: word(emulated), guest: word(guest) });
            }
        }
    }
}

/// Linux's verdict of every ordered pair, from the registers of either machine.
fn verdicts(both: &[Both<'_>], emulated: &Topology, guest: &Topology, unlike: &mut Vec<Unlike>) -> usize {
    let (here, there) = (KernelView::new(emulated), KernelView::new(guest));
    let verdict = |view: &KernelView<'_>, target, initiator| {
        let decision = view.decide(target, initiator);
        Verdict { map_type: decision.map_type, distance: decision.distance }
    };
    let mut pairs = 0;
    for target in both {
        for initiator in both {
            let emulated = verdict(&here, target.emulated, initiator.emulated);
            let guest = verdict(&there, target.guest, initiator.guest);
            pairs += 1;
            if emulated != guest {
                let (target, initiator) = (target.twin.name.clone(), initiator.twin.name.clone());
                unlike.push(Unlike::Verdict { target, initiator, emulated, guest });
            }
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::super::from_platform;
    use super::super::synthetic::{self, Guest};
    use super::*;
    use peerdma_emu::host::Kernel;
    use peerdma_emu::machine::Builder;
    use std::sync::Arc;

    /// The emulated machine of the test platform, and what a guest made of it shows.
    fn machines() -> (Topology, Exported, Guest) {
        let platform = synthetic::platform();
        let machine = Arc::new(Builder::new(&platform).build().unwrap());
        let exported = from_platform(&platform).unwrap();
        let mut guest = Guest::of(&exported.model);
        guest.boot(&exported);
        (Kernel::boot(machine, &platform).topology().clone(), exported, guest)
    }

    #[test]
    fn an_emulated_machine_is_the_guest_that_the_export_foretells() {
        let (emulated, exported, guest) = machines();
        let compared = compare(&emulated, &exported, &guest.topology());
        assert_eq!(compared, Compared { unlike: Vec::new(), pairs: 17 * 17, functions: 17 });
    }

    #[test]
    fn another_word_at_a_port_is_told_and_so_is_every_verdict_that_it_turns() {
        let (emulated, exported, mut guest) = machines();
        guest.at("0000:00:05.0").registers.acs = synthetic::acs(0x1d);
        let told: Vec<String> =
            compare(&emulated, &exported, &guest.topology()).unlike.iter().map(Unlike::to_string).collect();
        assert!(told[0].starts_with("rp-b: ACS able to"), "{told:?}");
        let pair = "b0 to memory of b1: in the emulated machine BUS_ADDR at distance 2, in the guest NOT_SUPPORTED";
        assert!(told.iter().any(|line| line.starts_with(pair)), "{told:?}");
    }

    #[test]
    fn a_function_that_either_machine_lacks_and_groups_that_differ_are_told() {
        let (emulated, exported, mut guest) = machines();
        for info in &mut guest.infos {
            info.iommu_group = Some(1);
        }
        guest.infos.retain(|info| info.address.to_string() != "0000:00:09.0");
        let told: Vec<String> =
            compare(&emulated, &exported, &guest.topology()).unlike.iter().map(Unlike::to_string).collect();
        assert!(told[0].starts_with("integrated: a scan of the emulated machine"), "{told:?}");
        let group = "rp-a and rp-b: by the emulated machine's registers not one IOMMU group, in the guest one";
        assert!(told.contains(&group.to_string()), "{told:?}");
    }
}
