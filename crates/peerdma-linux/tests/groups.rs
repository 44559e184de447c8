//! Predicted IOMMU groups against those that real kernels formed.
//!
//! The captures of `guests/` hold the group of every function. Round 0 of a guest is
//! taken as it booted. In later rounds somebody wrote to ACS registers, and groups
//! stayed as they were formed, so there the prediction is held against round 0's words.

#![expect(clippy::unwrap_used, reason = "the fixtures are ours, and a test may stop at a damaged one")]

mod captures;

use captures::{names_with, topology};
use peerdma::pcie::Fact;
use peerdma::route::groups::{Groups, predict};
use peerdma::topology::{FunctionId, Topology};
use std::collections::BTreeMap;

/// Names of all rounds, `GUEST.ROUND`, that `user` captured.
fn rounds(user: &str) -> Vec<String> {
    names_with(&format!(".{user}.peerdma"))
}

/// The kernel's groups; functions that its IOMMU does not cover are left out.
fn kernels(topology: &Topology) -> Vec<(FunctionId, u32)> {
    topology.functions().filter_map(|(id, function)| Some((id, function.info().iommu_group?))).collect()
}

/// Whether two functions share a group by the prediction wherever they do in the kernel:
/// every pair, and how many pairs the prediction leaves open.
fn compare(round: &str, topology: &Topology, groups: &Groups) -> (usize, usize) {
    let kernels = kernels(topology);
    let (mut compared, mut open) = (0, 0);
    for (n, &(one, group)) in kernels.iter().enumerate() {
        for &(other, others) in &kernels[n + 1..] {
            match groups.share(one, other) {
                Fact::Unknown => open += 1,
                Fact::Known(share) => {
                    compared += 1;
                    let name = |id| topology.function(id).address();
                    assert_eq!(share, group == others, "{round}: {} and {}", name(one), name(other));
                }
            }
        }
    }
    (compared, open)
}

#[test]
fn every_group_of_every_guest_is_predicted_from_its_acs_words() {
    let mut guests = BTreeMap::new();
    for round in rounds("root").iter().filter(|round| round.ends_with(".0")) {
        let topology = topology(round, "root");
        let groups = predict(&topology);
        let (compared, open) = compare(round, &topology, &groups);
        assert_eq!(open, 0, "{round}: root reads every word");
        if compared > 0 {
            let kernels: std::collections::BTreeSet<u32> = kernels(&topology).into_iter().map(|(_, id)| id).collect();
            guests.insert(round.clone(), (compared, kernels.len()));
        }
    }
    // Guests without an IOMMU have no groups to compare with.
    assert!(guests.len() >= 9, "{guests:?}");
    assert!(guests.values().any(|&(_, groups)| groups <= 10) && guests.values().any(|&(_, groups)| groups >= 25));
}

#[test]
fn groups_of_a_running_machine_stay_as_the_first_words_made_them() {
    let mut stale = 0;
    for round in rounds("root").iter().filter(|round| !round.ends_with(".0")) {
        let (guest, _) = round.rsplit_once('.').unwrap();
        let booted = topology(&format!("{guest}.0"), "root");
        let later = topology(round, "root");
        // Rescanning may add and remove functions; the words written are compared all the same.
        if booted.functions().map(|(_, f)| f.address()).ne(later.functions().map(|(_, f)| f.address())) {
            continue;
        }
        compare(round, &later, &predict(&booted));
        let (now, then) = (predict(&later), predict(&booted));
        stale += usize::from(!kernels(&later).is_empty() && now != then);
    }
    assert!(stale > 0, "some round shows groups that its ACS words would not give");
}

#[test]
fn from_a_users_captures_no_group_is_claimed_that_the_kernel_contradicts() {
    let (mut compared, mut open) = (0, 0);
    for round in rounds("user").iter().filter(|round| round.ends_with(".0")) {
        let topology = topology(round, "user");
        let (more, left) = compare(round, &topology, &predict(&topology));
        compared += more;
        open += left;
    }
    assert!(compared > 0 && open > 0, "{compared} compared, {open} open");
}
