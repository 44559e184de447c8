//! ACS words after a boot with another command line, against what real kernels wrote.
//!
//! Three guests of `guests/` are one machine booted with three command lines. From the
//! capture of each, the words of the other two are predicted.

#![expect(clippy::unwrap_used, reason = "the fixtures are ours, and a test may stop at a damaged one")]

mod captures;

use captures::{names_with, topology};
use peerdma::pcie::Fact;
use peerdma::pcie::acs::AcsBits;
use peerdma::route::change::{Change, apply, left_by_boot};
use peerdma::route::groups::{predict, told};
use peerdma::topology::{FunctionId, Topology};

/// All guests that are this machine, in order.
const GUESTS: [&str; 3] = ["multifunction-config", "multifunction-disable", "multifunction-intel"];

/// A guest as it booted.
fn booted(guest: &str) -> Topology {
    topology(&format!("{guest}.0"), "root")
}

fn control(topology: &Topology, function: FunctionId) -> Option<AcsBits> {
    topology.function(function).info().registers.acs.registers()?.control.known()
}

fn same_function(from: &Topology, to: &Topology, function: FunctionId) -> FunctionId {
    to.at(from.function(function).address()).unwrap()
}

#[test]
fn bits_said_to_be_forced_are_what_the_other_boot_left() {
    let mut captured = names_with(".0.root.peerdma");
    captured.retain(|guest| guest.starts_with("multifunction-"));
    assert_eq!(captured, GUESTS);
    let (mut forced, mut open) = (0, 0);
    for (from, to) in GUESTS.iter().flat_map(|from| GUESTS.iter().map(move |to| (from, to))) {
        let (before, after) = (booted(from), booted(to));
        let line = after.machine().command_line.clone().unwrap();
        for (id, _) in before.functions() {
            let Some(left) = control(&after, same_function(&before, &after, id)) else { continue };
            let predicted = left_by_boot(&before, &line, id);
            let name = before.function(id).address();
            assert!(left.contains(predicted.set), "{from} to {to}: {name} {left}, predicted {predicted:?}");
            assert!(!left.intersects(predicted.clear), "{from} to {to}: {name} {left}, predicted {predicted:?}");
            forced += (predicted.set | predicted.clear).bits().count_ones();
            open += predicted.open.bits().count_ones();
        }
    }
    assert!(forced > open * 4, "{forced} forced, {open} open");
}

/// Whatever firmware left, the kernel sets SV, RR, CR and UF where nobody keeps it from it.
#[test]
fn without_parameters_the_kernels_own_words_come_back_and_with_them_the_groups() {
    let after = booted("multifunction-intel");
    let line = after.machine().command_line.clone().unwrap();
    for from in ["multifunction-disable", "multifunction-config"] {
        let here = booted(from);
        let changed = apply(&here, &[Change::CommandLine(line.clone())]).unwrap();
        for (id, function) in after.functions() {
            let then = same_function(&after, &changed.topology, id);
            let (Some(ours), Some(kernels)) = (control(&changed.topology, then), control(&after, id)) else { continue };
            // Bits that the parameter forced hide what firmware left there, and that is said.
            let open = left_by_boot(&here, &line, then).open;
            assert!(open.contains(ours ^ kernels), "{from}: {} {ours}, {kernels}", function.address());
            let said = changed.assumed.iter().any(|reason| reason.object == function.address().to_string());
            assert!(ours == kernels || said, "{from}: {}", function.address());
        }
        let (predicted, kernels) = (predict(&changed.topology), told(&after));
        for (one, _) in after.functions() {
            for (other, _) in after.functions().filter(|_| kernels.of(one) != Fact::Unknown) {
                assert_eq!(predicted.share(one, other), kernels.share(one, other), "{from}");
            }
        }
    }
}
