//! Topologies with names, each for one thing that decides a verdict.
//!
//! - `default`: a switch beside plain root ports, with every kind of device.
//! - `pxb`: four host bridges, three of them each with a port that stands for it.
//! - `multifunction`: what shares a device and so meets at the port above it.
//! - `deep`: switches three deep, ways of every length.
//! - `sriov`: virtual functions, which hang where their physical one does.
//! - `importers`: a graphics device whose driver imports dma-bufs, with memory to import near and far.

use super::model::{Draft, Endpoint, Expander, Model, OnLink, OnRootBus, Placed, Switch};
use super::words::{
    alone, at, bare_port, functions, ivshmem, nvme, nvme_cmb, port, switch, test_device, to_pci, with_acs, without_acs,
};
use Endpoint::{Edu, Gpu, Igb};

/// Every name that [`named`] knows.
pub(crate) const NAMES: [&str; 6] = ["default", "pxb", "multifunction", "deep", "sriov", IMPORTERS];

/// The one whose pairs no kernel is asked about by calculation: a driver of its is asked, by importing.
pub(crate) const IMPORTERS: &str = "importers";

/// The topology of this name.
pub(crate) fn named(name: &str) -> Option<Model> {
    let draft = match name {
        "default" => default(),
        "pxb" => pxb(),
        "multifunction" => multifunction(),
        "deep" => deep(),
        "sriov" => sriov(),
        IMPORTERS => importers(),
        _ => return None,
    };
    // That each of them is legal is tested, so `None` is an unknown name.
    draft.check().ok()
}

/// One switch with two NVMe drives with memory, an engine and a memory, and each of them again
/// on a root port of its own; an engine on the root bus.
///
/// No conventional bus: QEMU's virtio IOMMU knows no device below a bridge to one, and Linux
/// gives up all of that IOMMU for it.
fn default() -> Draft {
    let inside = [nvme_cmb(64), nvme_cmb(64), Edu, ivshmem(16)];
    let q35 = vec![
        at(4, 0, port(switch(inside.map(alone)))),
        at(5, 0, port(alone(nvme_cmb(64)))),
        at(6, 0, port(alone(Edu))),
        at(7, 0, port(alone(ivshmem(16)))),
        at(8, 0, port(alone(test_device(1)))),
        at(9, 0, OnRootBus::Endpoint(Edu)),
        at(0xb, 0, bare_port(functions([Edu, ivshmem(1)]))),
    ];
    Draft { q35, expanders: Vec::new() }
}

/// Ports with and without ACS below each of four host bridges, on whose buses different ports
/// come first; an integrated device beside them.
fn pxb() -> Draft {
    let q35 = vec![
        at(4, 0, port(alone(Edu))),
        at(5, 0, bare_port(alone(nvme_cmb(16)))),
        at(6, 0, OnRootBus::Endpoint(ivshmem(1))),
    ];
    let first_at_zero = vec![
        at(0, 0, with_acs(switch([alone(Edu), alone(ivshmem(4)), alone(nvme())]))),
        at(1, 0, without_acs(alone(Edu))),
        at(1, 1, with_acs(alone(ivshmem(1)))),
    ];
    let without_acs_first = vec![at(0, 0, without_acs(alone(Edu))), at(2, 0, with_acs(functions([ivshmem(1), Edu])))];
    let first_past_zero = vec![
        at(3, 0, with_acs(alone(ivshmem(1)))),
        at(4, 0, with_acs(alone(nvme_cmb(16)))),
        at(5, 0, with_acs(Vec::new())),
    ];
    Draft {
        q35,
        expanders: vec![
            Expander { device: 0x10, bus: 0x40, ports: first_at_zero },
            Expander { device: 0x11, bus: 0x80, ports: without_acs_first },
            Expander { device: 0x12, bus: 0xc0, ports: first_past_zero },
        ],
    }
}

/// Devices of several functions below ports with ACS and without, below a switch's port, beside
/// a switch's upstream port, and on the root bus; root ports that share a device.
fn multifunction() -> Draft {
    let beside_a_switch: Vec<Placed<OnLink>> = vec![
        at(0, 0, OnLink::Endpoint(Edu)),
        at(0, 1, OnLink::Switch(Switch { ports: vec![at(0, 0, alone(nvme())), at(0, 1, alone(ivshmem(1)))] })),
    ];
    let q35 = vec![
        at(4, 0, port(functions([nvme_cmb(16), nvme_cmb(16), Edu, ivshmem(1)]))),
        at(5, 0, bare_port(functions([Edu, ivshmem(1), nvme()]))),
        at(6, 0, port(switch([functions([Edu, ivshmem(1), Edu]), alone(nvme_cmb(16)), Vec::new()]))),
        at(7, 0, port(beside_a_switch)),
        at(8, 0, OnRootBus::Endpoint(Edu)),
        at(8, 1, OnRootBus::Endpoint(ivshmem(1))),
        at(9, 0, port(alone(Edu))),
        at(9, 1, bare_port(alone(ivshmem(1)))),
        at(9, 2, port(functions([Edu, Edu, Edu, Edu, Edu, Edu, Edu, Edu]))),
        at(0xa, 0, port(to_pci([Edu, ivshmem(1)]))),
    ];
    Draft { q35, expanders: Vec::new() }
}

/// A switch in a switch in a switch, devices on every level, and a bridge at the bottom.
fn deep() -> Draft {
    let third = || switch([alone(Edu), alone(ivshmem(1)), to_pci([Edu, Edu])]);
    let second = || switch([third(), alone(nvme_cmb(16)), functions([Edu, ivshmem(1)])]);
    let first = switch([second(), alone(Edu), alone(nvme())]);
    let other = switch([switch([alone(Edu), alone(ivshmem(1))]), alone(Edu)]);
    let q35 = vec![
        at(4, 0, port(first)),
        at(5, 0, bare_port(other)),
        at(6, 0, port(alone(Edu))),
        at(7, 0, OnRootBus::Endpoint(ivshmem(1))),
    ];
    Draft { q35, expanders: Vec::new() }
}

/// Physical functions on root ports, below a switch and below another host bridge, with plain
/// devices beside them to reach.
fn sriov() -> Draft {
    let physical = |virtual_functions| Endpoint::NvmeSriov { virtual_functions };
    let q35 = vec![
        at(4, 0, port(alone(physical(3)))),
        at(5, 0, bare_port(alone(physical(2)))),
        at(6, 0, port(switch([alone(physical(2)), alone(Edu), alone(ivshmem(1))]))),
        at(7, 0, port(alone(Igb))),
        at(8, 0, port(alone(nvme_cmb(16)))),
        at(9, 0, OnRootBus::Endpoint(Edu)),
        at(0xa, 0, port(functions([Edu, ivshmem(1)]))),
    ];
    let second = vec![at(0, 0, with_acs(alone(physical(3)))), at(1, 0, without_acs(alone(Edu)))];
    Draft { q35, expanders: vec![Expander { device: 0x10, bus: 0x80, ports: second }] }
}

/// The first switch of `default` with a graphics device in the second drive's place, and another memory on a root port
/// of its own, so that one kernel driver has memory to import below its own switch and across root ports.
fn importers() -> Draft {
    let inside = [nvme_cmb(64), Gpu, Edu, ivshmem(16)];
    let q35 = vec![at(4, 0, port(switch(inside.map(alone)))), at(5, 0, port(alone(ivshmem(16))))];
    Draft { q35, expanders: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::super::place::{Place, What};
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_name_is_a_legal_model_and_no_other_word_is() {
        for name in NAMES {
            assert!(named(name).is_some(), "{name}");
        }
        assert!(named("no-such").is_none());
    }

    /// Counted without virtual functions, q35's own and what the rest of the machine adds.
    #[test]
    fn together_they_have_more_than_2000_ordered_pairs_of_functions() {
        let mut pairs = 0;
        for name in NAMES {
            let model = named(name).unwrap();
            let functions = model.expected_functions();
            let devices = model.functions().iter().filter(|planned| !planned.what.is_bridge()).count();
            assert!(devices >= 11 || name == IMPORTERS, "{name}: {devices}");
            pairs += functions * (functions - 1);
        }
        assert!(pairs > 2000, "{pairs}");
    }

    #[test]
    fn default_is_numbered_as_the_guest_was_seen_to_number_it() {
        let model = named("default").unwrap();
        let shown: Vec<String> = model
            .functions()
            .iter()
            .filter(|planned| matches!(planned.what, What::Endpoint(_)))
            .map(|planned| format!("{} {}", planned.address, planned.what))
            .collect();
        assert_eq!(
            shown[..9],
            [
                "0000:00:09.0 edu",
                "0000:03:00.0 nvme",
                "0000:04:00.0 nvme",
                "0000:05:00.0 edu",
                "0000:06:00.0 ivshmem-plain",
                "0000:07:00.0 nvme",
                "0000:08:00.0 edu",
                "0000:09:00.0 ivshmem-plain",
                "0000:0a:00.0 pci-testdev",
            ]
        );
    }

    #[test]
    fn deep_has_ways_of_every_length_from_a_root_port_to_eight_steps() {
        let model = named("deep").unwrap();
        assert!(model.expected_functions() >= 30);
        let lengths: BTreeSet<usize> = model.functions().iter().map(|planned| planned.place.steps.len()).collect();
        assert_eq!(lengths, (1..=9).collect());
    }

    #[test]
    fn sriov_counts_virtual_functions_apart() {
        let model = named("sriov").unwrap();
        assert_eq!(model.expected_virtual_functions(), 10);
        let places: BTreeSet<Place> = model.functions().into_iter().map(|planned| planned.place).collect();
        assert_eq!(places.len(), model.expected_functions());
    }
}
