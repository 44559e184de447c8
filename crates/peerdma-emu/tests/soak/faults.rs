//! Faults of buffers: somebody does not keep to the rules, and memory is what notices.

use crate::platform;
use peerdma_emu::faults::{ArmError, Fault, Plan, Spot, When};
use peerdma_emu::sharing::set::{Kind, with_set};

/// Runs with a fault armed at both GPUs; how often it struck, and whether memory objected.
fn run(fault: Option<Fault>, seed: u64) -> (u64, bool) {
    let kinds = [Kind::WritingOn, Kind::Tables, Kind::OnDemandRegion, Kind::Blocks];
    let ran = with_set(&platform(), seed, &kinds, |set| {
        for name in ["gpu0", "gpu1"] {
            let (Some(fault), Some(node)) = (fault, set.machine.named(name)) else { continue };
            let plan = Plan::new(fault).at(Spot::Node(node)).when(When::AfterRequests(500));
            set.machine.arm(plan).expect("its memory is lent");
        }
        for _ in 0..20_000 {
            match set.random.u8(..10) {
                0 => set.disturb(true),
                // What an importer meets besides is not asked.
                1..=4 => drop(set.step_one()),
                _ => drop(set.machine.step()),
            }
        }
        let strikes = set.machine.armed().iter().map(|armed| armed.strikes).sum();
        (strikes, set.witnesses.iter().any(|witness| !witness.found().is_empty()))
    });
    ran.expect("the platform has everything that it takes")
}

#[test]
fn memory_objects_to_each_fault_of_buffers_and_to_nothing_without_one() {
    for fault in [Fault::Revoked, Fault::Migrated, Fault::LateUnmap] {
        let objected = (0..3).find(|&seed| {
            let (strikes, objected) = run(Some(fault), seed);
            assert_eq!(strikes, 2, "{fault}, seed {seed}");
            objected
        });
        assert!(objected.is_some(), "{fault}");
    }
    assert_eq!(run(None, 0), (0, false));
}

#[test]
fn a_fault_of_buffers_strikes_where_memory_is_lent_and_nowhere_else() {
    let refused = with_set(&platform(), 1, &[Kind::WritingOn], |set| {
        let node = set.machine.named("nic0").expect("the platform has one");
        set.machine.arm(Plan::new(Fault::Revoked).at(Spot::Node(node)))
    });
    assert!(matches!(refused, Ok(Err(ArmError::WrongPlace { .. }))), "{refused:?}");
}
