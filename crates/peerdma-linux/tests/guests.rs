//! What real kernels decided, replayed from captures taken beside their answers.
//!
//! `guests/GUEST.ROUND.{root,user}.peerdma` were written by `peerdma capture` in guests of
//! `cargo xtask vm test pairs --write-fixtures`, and `GUEST.ROUND.kernel.gz` by the module
//! under `vm/oracle` in the same state of the same guest: one line `PROVIDER CLIENT
//! distance_many=… dist=… type=…` per ordered pair, where type is Linux's
//! `enum pci_p2pdma_map_type`. Nothing in them comes from a real machine.
//!
//! The reader of the kernel's lines is written anew here rather than shared with the
//! suite, which refuses damaged files; here the files are the repository's own.

#![expect(clippy::unwrap_used, clippy::panic, reason = "the fixtures are ours, and a test may stop at a damaged one")]

mod captures;

use captures::{folder, names_with, topology};
use flate2::read::GzDecoder;
use peerdma::pcie::PciAddr;
use peerdma::route::kernel_view::{Decision, KernelView, MapType};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;

/// Fewest pairs that are replayed; the suite promises as many.
const PAIRS: usize = 2000;

/// Names of all rounds, `GUEST.ROUND`.
fn rounds() -> Vec<String> {
    names_with(".kernel.gz")
}

/// Provider, client, map type, hops.
type KernelDecision = (PciAddr, PciAddr, MapType, u32);

fn kernel(round: &str) -> Vec<KernelDecision> {
    let mut text = String::new();
    GzDecoder::new(File::open(folder().join(format!("{round}.kernel.gz"))).unwrap()).read_to_string(&mut text).unwrap();
    text.lines().filter(|line| line.contains(" type=")).map(decision).collect()
}

fn decision(line: &str) -> KernelDecision {
    let words: Vec<&str> = line.split(' ').collect();
    let [provider, client, _, distance, map_type] = words.as_slice() else { panic!("{line}") };
    let map_type = match *map_type {
        "type=2" => MapType::NotSupported,
        "type=3" => MapType::BusAddr,
        "type=4" => MapType::ThruHostBridge,
        _ => panic!("{line}"),
    };
    let distance = distance.strip_prefix("dist=").unwrap().parse().unwrap();
    (provider.parse().unwrap(), client.parse().unwrap(), map_type, distance)
}

/// Holds every decision of a round against the kernel's; how many were of two functions.
fn replay(round: &str, user: &str, agrees: impl Fn(&Decision, MapType, u32) -> bool) -> usize {
    let topology = topology(round, user);
    let view = KernelView::new(&topology);
    let kernel = kernel(round);
    let functions = topology.functions().len();
    // Ours are as many: none of them goes without a comparison.
    assert_eq!(kernel.len(), functions.pow(2), "{round}");
    for &(provider, client, map_type, distance) in &kernel {
        let ours = view.decide(topology.at(provider).unwrap(), topology.at(client).unwrap());
        assert!(
            agrees(&ours, map_type, distance),
            "{round}, {user}'s capture, {client} to {provider}: ours {} at {}, the kernel's {map_type} at {distance}",
            ours.map_type,
            ours.distance
        );
    }
    functions * (functions - 1)
}

#[test]
fn from_roots_captures_every_decision_is_the_kernels() {
    let pairs: usize = rounds()
        .iter()
        .map(|round| {
            replay(round, "root", |ours, map_type, distance| {
                ours.map_type == map_type && ours.distance == distance && ours.hidden_below.is_empty()
            })
        })
        .sum();
    assert!(pairs >= PAIRS, "{pairs}");
}

#[test]
fn from_a_users_captures_nothing_is_claimed_that_the_kernel_contradicts() {
    for round in rounds() {
        replay(&round, "user", |ours, map_type, distance| {
            let bounded = ours.distance <= distance && !ours.hidden_below.is_empty();
            (ours.map_type == map_type || ours.map_type == MapType::Unknown) && (ours.distance == distance || bounded)
        });
    }
}

/// Fixtures that are all alike would prove little: each answer occurs, and most guests
/// answer differently after somebody wrote to their ACS registers.
#[test]
fn the_guests_differ_in_what_decides() {
    let mut kinds = BTreeSet::new();
    let (mut guests, mut changed) = (BTreeSet::new(), BTreeSet::new());
    for round in rounds() {
        let (guest, number) = round.rsplit_once('.').unwrap();
        kinds.extend(kernel(&round).iter().map(|(_, _, map_type, _)| map_type.word()));
        guests.insert(guest.to_string());
        if number != "0" && kernel(&round) != kernel(&format!("{guest}.0")) {
            changed.insert(guest.to_string());
        }
    }
    assert_eq!(kinds.len(), 3, "{kinds:?}");
    assert!(changed.len() * 2 > guests.len(), "{changed:?} of {guests:?}");
}
