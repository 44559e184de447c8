//! Linux's answers (7.2 `calc_map_type_and_dist`), row by row of a table of topologies,
//! and the oddities of the host-bridge list.

#![cfg(test)]

mod tree;

use peerdma::pcie::acs::AcsBits;
use peerdma::pcie::express::PortType;
use peerdma::pcie::{Fact, PciId};
use peerdma::route::kernel_view::MapType::{BusAddr, NotSupported, ThruHostBridge, Unknown};
use peerdma::route::kernel_view::{CachedView, Client, Common, Distance, KernelView, MapType};
use peerdma::topology::{Machine, Topology};
use tree::{Tree, at};

/// In no list.
const NOBODY: &str = "1022:1480";

fn decide(tree: Tree, provider: &str, client: &str) -> (MapType, u32) {
    decide_in(&tree.topology(), provider, client)
}

fn decide_in(topology: &Topology, provider: &str, client: &str) -> (MapType, u32) {
    let decision = KernelView::new(topology).decide(at(topology, provider), at(topology, client));
    (decision.map_type, decision.distance)
}

/// §11.1 row 1.
#[test]
fn a_function_without_redirect_reaches_itself_directly() {
    for cpu in ["unknown", "intel:6", "amd:0x19"] {
        assert_eq!(decide(Tree::switch(cpu, NOBODY), "03:00.0", "03:00.0"), (BusAddr, 0));
    }
}

/// §11.1 row 2.
#[test]
fn a_function_that_redirects_reaches_itself_through_a_zen_host_bridge() {
    let tree = Tree::switch("amd:0x17", NOBODY).acs("03:00.0", AcsBits::RR);
    assert_eq!(decide(tree, "03:00.0", "03:00.0"), (ThruHostBridge, 0));
}

/// §11.1 row 3.
#[test]
fn a_function_that_redirects_does_not_reach_itself_where_the_host_bridge_is_not_listed() {
    let tree = Tree::switch("intel:6", NOBODY).acs("03:00.0", AcsBits::RR);
    assert_eq!(decide(tree, "03:00.0", "03:00.0"), (NotSupported, 0));
}

/// §11.1 row 4.
#[test]
fn two_functions_below_a_redirecting_root_port_go_through_a_listed_host_bridge() {
    let tree = Tree::two_root_ports("intel:6", "8086:2030").acs("00:01.0", AcsBits::RR);
    assert_eq!(decide(tree, "01:00.0", "01:00.1"), (ThruHostBridge, 2));
}

/// §11.1 row 5.
#[test]
fn a_switch_with_clean_ports_forwards_whatever_the_host_bridge() {
    for cpu in ["unknown", "intel:6"] {
        assert_eq!(decide(Tree::switch(cpu, NOBODY), "03:00.0", "04:00.0"), (BusAddr, 4));
    }
}

/// §11.1 row 6.
#[test]
fn one_redirecting_downstream_port_sends_requests_up_to_a_host_bridge_that_refuses() {
    for port in ["02:00.0", "02:01.0"] {
        let tree = Tree::switch("intel:6", NOBODY).acs(port, AcsBits::RR);
        assert_eq!(decide(tree, "03:00.0", "04:00.0"), (NotSupported, 4));
    }
}

/// §11.1 row 7.
#[test]
fn sv_uf_and_dt_on_a_downstream_port_change_nothing() {
    let tree = Tree::switch("intel:6", NOBODY).acs("02:00.0", AcsBits::SV | AcsBits::UF | AcsBits::DT);
    assert_eq!(decide(tree, "03:00.0", "04:00.0"), (BusAddr, 4));
}

/// §11.1 row 8.
#[test]
fn egress_control_at_the_common_port_counts_and_any_google_host_bridge_forwards() {
    let tree = Tree::switch("arm:0", "1ae0:0042").acs("01:00.0", AcsBits::EC);
    assert_eq!(decide(tree, "03:00.0", "04:00.0"), (ThruHostBridge, 4));
}

/// §11.1 row 9.
#[test]
fn completion_redirect_at_the_client_alone_counts() {
    let tree = Tree::switch("intel:6", NOBODY).acs("04:00.0", AcsBits::CR);
    assert_eq!(decide(tree, "03:00.0", "04:00.0"), (NotSupported, 4));
}

/// Above the common port nothing is looked at.
#[test]
fn redirect_above_the_common_port_changes_nothing() {
    let tree = Tree::switch("intel:6", NOBODY).acs("00:01.0", AcsBits::REDIRECT);
    assert_eq!(decide(tree, "03:00.0", "04:00.0"), (BusAddr, 4));
}

/// §11.1 row 10.
#[test]
fn two_root_ports_of_one_host_bridge_pass_where_it_is_listed_for_itself_only() {
    assert_eq!(decide(Tree::two_root_ports("intel:6", "8086:3c00"), "01:00.0", "02:00.0"), (ThruHostBridge, 4));
}

fn two_host_bridges(cpu: &str, ids: [&str; 2]) -> Tree {
    Tree::two_root_ports(cpu, ids[0])
        .device("80:00.0")
        .id("80:00.0", ids[1])
        .port("80:01.0", 0x81, 0x81)
        .device("81:00.0")
}

/// §11.1 row 11.
#[test]
fn two_host_bridges_listed_for_themselves_only_refuse_each_other() {
    assert_eq!(decide(two_host_bridges("intel:6", ["8086:3c00"; 2]), "01:00.0", "81:00.0"), (NotSupported, 4));
}

/// §11.1 row 12.
#[test]
fn two_host_bridges_listed_without_condition_forward_between_them() {
    assert_eq!(decide(two_host_bridges("intel:6", ["8086:2030"; 2]), "01:00.0", "81:00.0"), (ThruHostBridge, 4));
}

/// §11.1 row 13.
#[test]
fn of_two_host_bridges_both_must_be_listed() {
    for ids in [["8086:2030", NOBODY], [NOBODY, "8086:2030"]] {
        assert_eq!(decide(two_host_bridges("intel:6", ids), "01:00.0", "81:00.0"), (NotSupported, 4));
    }
}

/// §11.1 row 14.
#[test]
fn zen_forwards_between_any_two_host_bridges() {
    for cpu in ["amd:0x17", "amd:0x1a"] {
        assert_eq!(decide(two_host_bridges(cpu, [NOBODY; 2]), "01:00.0", "81:00.0"), (ThruHostBridge, 4));
    }
    assert_eq!(decide(two_host_bridges("amd:0x16", [NOBODY; 2]), "01:00.0", "81:00.0"), (NotSupported, 4));
}

/// §11.1 row 15.
#[test]
fn hygon_is_not_zen_to_linux() {
    assert_eq!(decide(two_host_bridges("hygon:0x18", [NOBODY; 2]), "01:00.0", "81:00.0"), (NotSupported, 4));
}

fn root_bus_starting_with(address: &str, kind: PortType) -> Tree {
    let tree = Tree::new("intel:6", "7.2.13").device(address).id(address, "8086:2030");
    let tree = tree.edit(address, |info| info.registers.port_type = Fact::Known(Some(kind)));
    tree.port("00:1c.0", 1, 1).port("00:1d.0", 2, 2).device("01:00.0").device("02:00.0")
}

/// §11.1 row 16.
#[test]
fn a_root_bus_that_starts_with_an_integrated_endpoint_past_00_0_is_not_looked_up() {
    let tree = root_bus_starting_with("00:02.0", PortType::RootComplexIntegrated);
    assert_eq!(decide(tree, "01:00.0", "02:00.0"), (NotSupported, 4));
}

/// §11.1 row 17.
#[test]
fn a_root_bus_that_starts_with_a_root_port_past_00_0_is_looked_up_by_it() {
    let tree = root_bus_starting_with("00:03.0", PortType::RootPort);
    assert_eq!(decide(tree, "01:00.0", "02:00.0"), (ThruHostBridge, 4));
}

/// §11.1 row 18.
#[test]
fn a_client_without_pci_function_is_refused() {
    let topology = Tree::switch("amd:0x19", NOBODY).topology();
    let (view, mut cached) = (KernelView::new(&topology), CachedView::new());
    let gpu = at(&topology, "03:00.0");
    assert_eq!(cached.map_type(&view, gpu, Client::NotPci), NotSupported);
    assert_eq!(
        cached.map_type(&view, gpu, Client::ChildOf(at(&topology, "04:00.0"))),
        NotSupported,
        "no walk to the parent"
    );
    assert_eq!(cached.distance_many(&view, gpu, &[Client::NotPci]), Distance::Refused);
    assert_eq!(cached.distance_many(&view, gpu, &[]), Distance::Refused);
}

/// §11.1 row 19.
#[test]
fn the_child_of_a_pci_function_is_as_far_as_its_parent() {
    let topology = Tree::switch("amd:0x19", NOBODY).topology();
    let (view, mut cached) = (KernelView::new(&topology), CachedView::new());
    let (gpu, nic) = (at(&topology, "03:00.0"), at(&topology, "04:00.0"));
    assert_eq!(cached.distance_many(&view, gpu, &[Client::ChildOf(nic)]), Distance::Hops(4));
    assert_eq!(cached.distance_many(&view, gpu, &[Client::ChildOf(nic), Client::Function(gpu)]), Distance::Hops(4));
    assert_eq!(cached.distance_many(&view, gpu, &[Client::Function(nic), Client::NotPci]), Distance::Refused);
}

/// §11.1 row 20. The VF's own path says the root bus: Linux asks its physical function's.
#[test]
fn a_virtual_function_hangs_where_its_physical_one_does() {
    let below_a_port = |cpu| {
        let tree = Tree::two_root_ports(cpu, NOBODY);
        tree.edit("01:00.1", |info| {
            info.physfn = Some("01:00.0".parse().unwrap());
            info.position = peerdma::topology::Position::RootBus { bus: 0 };
        })
    };
    assert_eq!(decide(below_a_port("unknown"), "01:00.0", "01:00.1"), (BusAddr, 2));
    assert_eq!(decide(below_a_port("unknown"), "01:00.1", "01:00.0"), (BusAddr, 2));
    let on_the_root_bus = |cpu| {
        let tree = Tree::new(cpu, "").device("00:02.0").device("00:02.1");
        tree.edit("00:02.1", |info| info.physfn = Some("00:02.0".parse().unwrap()))
    };
    assert_eq!(decide(on_the_root_bus("amd:0x19"), "00:02.0", "00:02.1"), (ThruHostBridge, 2));
    assert_eq!(decide(on_the_root_bus("intel:6"), "00:02.0", "00:02.1"), (NotSupported, 2));
}

/// §11.1 row 21.
#[test]
fn functions_behind_a_pcie_to_pci_bridge_are_direct_peers() {
    let tree = Tree::new("intel:6", "").device("00:00.0").port("00:01.0", 1, 2).port("01:00.0", 2, 2);
    let tree = tree.edit("01:00.0", |info| info.registers.port_type = Fact::Known(Some(PortType::PciExpressToPci)));
    let tree = tree.acs("00:01.0", AcsBits::REDIRECT).device("02:00.0").device("02:01.0");
    assert_eq!(decide(tree, "02:00.0", "02:01.0"), (BusAddr, 2));
}

/// §11.1 row 22.
#[test]
fn behind_vmd_both_host_bridges_must_be_listed() {
    let vmd = |inner: &str| {
        let tree = Tree::two_root_ports("intel:6", "8086:09a2").device("00:05.5");
        let child = tree.device("10000:00:00.0").id("10000:00:00.0", inner).port("10000:00:02.0", 1, 1);
        child.device("10000:01:00.0")
    };
    assert_eq!(decide(vmd(NOBODY), "10000:01:00.0", "01:00.0"), (NotSupported, 4));
    assert_eq!(decide(vmd("8086:2033"), "10000:01:00.0", "01:00.0"), (ThruHostBridge, 4));
}

/// §11.1 row 23.
#[test]
fn an_acs_change_is_noticed_by_distance_only_which_then_refreshes_the_map_type() {
    let before = Tree::switch("intel:6", NOBODY).topology();
    let after = Tree::switch("intel:6", NOBODY).acs("02:00.0", AcsBits::RR).topology();
    let (gpu, nic) = (at(&before, "03:00.0"), Client::Function(at(&before, "04:00.0")));
    let (before, after) = (KernelView::new(&before), KernelView::new(&after));
    let mut cached = CachedView::new();
    assert_eq!(cached.map_type(&before, gpu, nic), BusAddr);
    assert_eq!(cached.map_type(&after, gpu, nic), BusAddr, "stale");
    assert_eq!(cached.distance_many(&after, gpu, &[nic]), Distance::Refused);
    assert_eq!(cached.map_type(&after, gpu, nic), NotSupported);
}

/// §1.2: distances, and the order in which Linux's hint lists what redirects.
#[test]
fn distances_count_hops_on_both_sides_and_redirects_start_at_the_provider() {
    let tree = Tree::switch("amd:0x19", NOBODY).device("01:00.1");
    let tree = ["04:00.0", "02:01.0", "01:00.0", "02:00.0", "03:00.0", "00:01.0"]
        .into_iter()
        .fold(tree, |tree, address| tree.acs(address, AcsBits::RR));
    let topology = tree.topology();
    let view = KernelView::new(&topology);
    let decision = view.decide(at(&topology, "03:00.0"), at(&topology, "04:00.0"));
    let redirects: Vec<_> = decision.redirects().collect();
    assert_eq!(
        redirects,
        ["03:00.0", "02:00.0", "01:00.0", "04:00.0", "02:01.0"].map(|address| at(&topology, address))
    );
    assert_eq!(decision.common, Common::At(at(&topology, "01:00.0")));
    assert_eq!(decide_in(&topology, "03:00.0", "01:00.1").1, 4, "up three, down one");
    assert_eq!(decide_in(&topology, "03:00.0", "00:00.0").1, 5, "whole ways up where they do not meet");
    assert_eq!(decide_in(&topology, "03:00.0", "02:00.0").1, 1);
}

// ---- The host-bridge list (§1.3) -----------------------------------------------------

fn between_ports(kernel: &'static str, cpu: &str, id: &str) -> MapType {
    let tree = Tree::new(cpu, kernel).device("00:00.0").id("00:00.0", id).device("00:02.0").device("00:03.0");
    decide(tree, "00:02.0", "00:03.0").0
}

#[test]
fn every_entry_counts_from_its_version_on() {
    let by_version: [(&[&str], &str); 3] = [
        (&["8086:3c00", "8086:3c01", "8086:2f00", "8086:2f01", "8086:2030", "8086:2031", "8086:2032"], "6.1"),
        (&["8086:0b25", "8086:0cfe", "8086:11fb", "8086:1212", "8086:1216", "8086:4940", "1ae0:ffff"], "7.2"),
        (&["10de:2f95", "10de:2f96", "10de:2f97", "10de:2f98"], "7.3"),
    ];
    for (nth, (ids, _)) in by_version.iter().enumerate() {
        for (other, (_, kernel)) in by_version.iter().enumerate() {
            for id in *ids {
                let expected = if other >= nth { ThruHostBridge } else { NotSupported };
                assert_eq!(between_ports(kernel, "intel:6", id), expected, "{id} in {kernel}");
            }
        }
    }
}

#[test]
fn between_two_lists_a_host_bridge_is_unknown_only_if_they_differ_for_it() {
    assert_eq!(between_ports("6.18.5", "intel:6", "8086:2030"), ThruHostBridge, "in both");
    assert_eq!(between_ports("6.18.5", "intel:6", NOBODY), NotSupported, "in neither");
    assert_eq!(between_ports("6.18.5", "intel:6", "8086:0b25"), Unknown);
    assert_eq!(between_ports("6.5", "intel:6", "8086:0b25"), NotSupported, "6.1 and 6.12 agree on everything");
}

#[test]
fn below_the_oldest_list_nothing_is_known_but_zen() {
    for id in [NOBODY, "8086:2030"] {
        assert_eq!(between_ports("5.15", "intel:6", id), Unknown);
        assert_eq!(between_ports("5.15", "amd:0x19", id), ThruHostBridge);
    }
}

#[test]
fn above_the_newest_list_and_without_a_version_the_newest_holds() {
    for kernel in ["9.0", ""] {
        assert_eq!(between_ports(kernel, "intel:6", "10de:2f95"), ThruHostBridge);
        assert_eq!(between_ports(kernel, "intel:6", NOBODY), NotSupported);
    }
}

#[test]
fn a_listed_host_bridge_makes_the_cpu_moot_and_an_unlisted_one_does_not() {
    assert_eq!(between_ports("7.2", "unknown", "8086:2030"), ThruHostBridge);
    assert_eq!(between_ports("7.2", "unknown", NOBODY), Unknown);
}

#[test]
fn a_host_bridge_whose_first_device_was_not_listed_is_unknown() {
    let tree = |cpu| {
        let on_unlisted_root = |address: &'static str| {
            move |tree: Tree| {
                let root = peerdma::topology::Position::RootBus { bus: 0x40 };
                tree.device(address).edit(address, |info| info.position = root)
            }
        };
        on_unlisted_root("42:00.0")(on_unlisted_root("41:00.0")(Tree::new(cpu, "7.2")))
    };
    assert_eq!(decide(tree("intel:6"), "41:00.0", "42:00.0"), (Unknown, 2));
    assert_eq!(decide(tree("amd:0x19"), "41:00.0", "42:00.0"), (ThruHostBridge, 2));
}

#[test]
fn an_unread_port_type_matters_only_past_00_0_and_only_for_a_listed_id() {
    let tree = |address: &str, id: &str| {
        let tree = root_bus_starting_with(address, PortType::RootPort).id(address, id);
        tree.edit(address, |info| info.registers.port_type = Fact::Unknown)
    };
    assert_eq!(decide(tree("00:03.0", "8086:2030"), "01:00.0", "02:00.0").0, Unknown);
    assert_eq!(decide(tree("00:03.0", NOBODY), "01:00.0", "02:00.0").0, NotSupported);
    assert_eq!(decide(tree("00:00.0", "8086:2030"), "01:00.0", "02:00.0").0, ThruHostBridge);
}

#[test]
fn a_name_that_stands_for_several_ids_is_known_if_all_of_them_agree() {
    let named = |devices: &[u16]| {
        let ids = devices.iter().map(|&device| PciId { vendor: 0x8086, device }).collect();
        Tree::two_root_ports("intel:6", NOBODY).edit("00:00.0", |info| {
            info.registers.id = None;
            info.ids_by_name = ids;
        })
    };
    assert_eq!(decide(named(&[0x2030, 0x3c00]), "01:00.0", "02:00.0").0, ThruHostBridge);
    assert_eq!(decide(named(&[0x1237, 0x29c0]), "01:00.0", "02:00.0").0, NotSupported);
    assert_eq!(decide(named(&[0x2030, 0x1237]), "01:00.0", "02:00.0").0, Unknown);
    assert_eq!(decide(named(&[]), "01:00.0", "02:00.0").0, Unknown);
}

#[test]
fn a_kernel_without_p2pdma_refuses_everything() {
    let topology = Tree::switch("amd:0x19", NOBODY).topology();
    let machine = Machine { p2pdma_configured: Fact::Known(false), ..topology.machine().clone() };
    assert_eq!(decide_in(&topology.with_machine(machine), "03:00.0", "04:00.0"), (NotSupported, 4));
}
