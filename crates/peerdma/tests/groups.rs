//! IOMMU groups from ACS, row by row: Linux 7.2 `pci_device_group`, `pci_acs_enabled`.

#![cfg(test)]

mod tree;

use peerdma::pcie::acs::{Acs, AcsAbsent, AcsBits, AcsRegisters, AcsUnread};
use peerdma::pcie::express::PortType;
use peerdma::pcie::{Fact, PciAddr};
use peerdma::route::groups::{self, Groups};
use peerdma::topology::Topology;
use tree::{Tree, at};

const ISOLATING: AcsBits = AcsBits::SV.union(AcsBits::RR).union(AcsBits::CR).union(AcsBits::UF);

fn of_type(tree: Tree, address: &str, kind: Option<PortType>) -> Tree {
    tree.edit(address, |info| info.registers.port_type = Fact::Known(kind))
}

fn acs(tree: Tree, address: &str, capability: u16, control: u16) -> Tree {
    let bits = AcsBits::from_bits_retain;
    let registers = AcsRegisters::standard(Some(0x148), bits(capability), bits(control), vec![]);
    tree.edit(address, |info| info.registers.acs = Acs::Present(registers))
}

/// A root port with `control`, a switch without ACS of two downstream ports, an endpoint below each.
fn switch(control: AcsBits) -> Tree {
    let tree = Tree::switch("intel:6", "8086:29c0").acs("00:01.0", control);
    let tree = of_type(tree, "01:00.0", Some(PortType::UpstreamPort));
    let tree = of_type(tree, "02:00.0", Some(PortType::DownstreamPort));
    of_type(tree, "02:01.0", Some(PortType::DownstreamPort))
}

/// The predicted groups as addresses without the domain, groups of one left out.
fn shared(topology: &Topology) -> Vec<String> {
    let groups = groups::predict(topology);
    let name = |id| topology.function(id).address().to_string()[5..].to_string();
    let several = groups.iter().filter(|(_, members)| members.len() > 1);
    several.map(|(_, members)| members.iter().map(|&id| name(id)).collect::<Vec<_>>().join(" ")).collect()
}

fn group_is_known(topology: &Topology, address: &str) -> bool {
    groups::predict(topology).of(at(topology, address)) != Fact::Unknown
}

/// Seen in QEMU with Linux 7.2: requests cross inside that switch all the same.
#[test]
fn a_switch_without_acs_below_a_port_with_acs_gives_each_downstream_port_a_group() {
    assert_eq!(shared(&switch(ISOLATING).topology()), ["02:00.0 03:00.0", "02:01.0 04:00.0"]);
}

#[test]
fn below_a_port_without_acs_everything_is_one_group_with_the_port() {
    let all = ["00:01.0 01:00.0 02:00.0 02:01.0 03:00.0 04:00.0"];
    assert_eq!(shared(&switch(AcsBits::empty()).topology()), all);
    let without = switch(ISOLATING).edit("00:01.0", |info| info.registers.acs = Acs::Absent(AcsAbsent::WholeListRead));
    assert_eq!(shared(&without.topology()), all);
}

#[test]
fn all_four_of_sv_rr_cr_and_uf_are_wanted_and_no_other() {
    for bit in [AcsBits::SV, AcsBits::RR, AcsBits::CR, AcsBits::UF] {
        assert_eq!(shared(&switch(ISOLATING - bit).topology()).len(), 1, "{bit}");
    }
    assert_eq!(shared(&switch(ISOLATING | AcsBits::TB | AcsBits::DT | AcsBits::EC).topology()).len(), 2);
}

#[test]
fn bits_that_the_capability_does_not_offer_count_as_set() {
    assert_eq!(shared(&acs(switch(ISOLATING), "00:01.0", 0x0d, 0x0d).topology()).len(), 2, "no UF to be had");
    assert_eq!(shared(&acs(switch(ISOLATING), "00:01.0", 0x00, 0x00).topology()).len(), 2, "nothing to be had");
    assert_eq!(shared(&acs(switch(ISOLATING), "00:01.0", 0x1d, 0x0d).topology()).len(), 1, "UF to be had, and clear");
}

#[test]
fn downstream_ports_that_isolate_let_their_endpoints_be_alone() {
    let tree = switch(ISOLATING).acs("02:00.0", ISOLATING);
    assert_eq!(shared(&tree.topology()), ["02:01.0 04:00.0"]);
}

#[test]
fn functions_of_one_device_are_together_unless_they_isolate_themselves() {
    let two = |tree: Tree| tree.device("03:00.1").topology();
    let with_ports = || switch(ISOLATING).acs("02:00.0", ISOLATING).acs("02:01.0", ISOLATING);
    assert_eq!(shared(&two(with_ports())), ["03:00.0 03:00.1"]);
    let isolated = with_ports().device("03:00.1").acs("03:00.1", ISOLATING);
    assert_eq!(shared(&isolated.topology()), Vec::<String>::new(), "nobody is left for 03:00.0 to be with");
    let three = with_ports().device("03:00.1").acs("03:00.1", ISOLATING).device("03:00.2");
    assert_eq!(shared(&three.topology()), ["03:00.0 03:00.2"]);
}

/// A switch whose upstream port has a management function beside it is asked for ACS
/// there too, and so loses what the root port isolates.
#[test]
fn an_upstream_port_with_a_second_function_is_asked_for_acs() {
    let tree = switch(ISOLATING).device("01:00.1");
    assert_eq!(shared(&tree.topology()), ["01:00.0 01:00.1 02:00.0 02:01.0 03:00.0 04:00.0"]);
    let by_its_header = switch(ISOLATING).edit("01:00.0", |info| info.registers.multifunction = Some(true));
    assert_eq!(shared(&by_its_header.topology()), ["01:00.0 02:00.0 02:01.0 03:00.0 04:00.0"]);
}

#[test]
fn behind_a_conventional_bridge_everything_is_in_the_bridges_group() {
    for kind in [Some(PortType::PciExpressToPci), None] {
        let tree = Tree::new("intel:6", "7.2").port("00:01.0", 1, 3).acs("00:01.0", ISOLATING);
        let tree = of_type(tree.port("01:00.0", 2, 3), "01:00.0", kind);
        let tree = of_type(tree.device("02:01.0"), "02:01.0", None);
        let tree = of_type(tree.device("02:02.0"), "02:02.0", None);
        assert_eq!(shared(&tree.topology()), ["01:00.0 02:01.0 02:02.0"], "{kind:?}");
    }
}

#[test]
fn conventional_functions_of_one_slot_of_the_root_bus_are_together() {
    let mut tree = Tree::new("intel:6", "7.2");
    for address in ["00:1f.0", "00:1f.2", "00:1f.3", "00:1e.0"] {
        tree = of_type(tree.device(address), address, None);
    }
    assert_eq!(shared(&tree.topology()), ["00:1f.0 00:1f.2 00:1f.3"]);
}

#[test]
fn virtual_functions_are_alone_below_a_port_that_isolates_and_with_it_below_one_that_does_not() {
    let sriov = |control| {
        let tree = Tree::new("intel:6", "7.2").port("00:01.0", 1, 1).acs("00:01.0", control).device("01:00.0");
        let physical: Option<PciAddr> = Some("01:00.0".parse().unwrap());
        let vf = |tree: Tree, address: &str| tree.device(address).edit(address, |info| info.physfn = physical);
        vf(vf(tree, "01:00.1"), "01:00.2").topology()
    };
    assert_eq!(shared(&sriov(ISOLATING)), Vec::<String>::new());
    assert_eq!(shared(&sriov(AcsBits::empty())), ["00:01.0 01:00.0 01:00.1 01:00.2"]);
}

#[test]
fn quirks_stand_in_for_words_that_are_not_there() {
    // Without ACS, as a root port of Ampere's; as one of nobody's.
    let port = |id: &str| {
        let tree = Tree::new("arm:0", "7.2").port("00:01.0", 1, 1).id("00:01.0", id).device("01:00.0");
        shared(&tree.topology()).len()
    };
    assert_eq!(port("1def:e005"), 0);
    assert_eq!(port("1def:e004"), 1);
    // Two functions of a NIC that Linux knows to be apart.
    let nic = |id: &str| {
        let tree = Tree::new("intel:6", "7.2").port("00:01.0", 1, 1).acs("00:01.0", ISOLATING);
        let tree = tree.device("01:00.0").device("01:00.1").id("01:00.0", id).id("01:00.1", id);
        shared(&tree.topology()).len()
    };
    assert_eq!(nic("8086:1521"), 0);
    assert_eq!(nic("8086:1525"), 1);
}

/// Source Validation of these switches does not work, so Linux asks for the other three.
#[test]
fn source_validation_is_not_asked_of_switches_where_it_is_broken() {
    let tree = |id: &str| {
        let tree = switch(ISOLATING).id("02:00.0", id).acs("02:00.0", ISOLATING - AcsBits::SV);
        shared(&tree.topology()).contains(&"02:00.0 03:00.0".to_string())
    };
    assert!(tree("111d:80b6") && !tree("111d:80b5"));
}

/// The word that decides is the one the hardware obeys, although p2pdma reads another.
#[test]
fn ports_with_double_words_are_asked_at_the_right_place() {
    let spt = |control: u16| {
        let bits = AcsBits::from_bits_retain;
        let registers = AcsRegisters {
            offset: Some(0x140),
            capability: bits(0x5f),
            control: Fact::Known(bits(control)),
            control_read_by_linux: bits(0),
            egress: vec![],
        };
        let tree = Tree::new("intel:6", "7.2").port("00:1c.0", 1, 1).id("00:1c.0", "8086:a110").device("01:00.0");
        shared(&tree.edit("00:1c.0", |info| info.registers.acs = Acs::Present(registers)).topology()).len()
    };
    assert_eq!((spt(0x1d), spt(0x00)), (0, 1));
}

#[test]
fn what_hinges_on_an_unread_word_is_unknown_and_nothing_else() {
    let unread = |address: &str| {
        switch(ISOLATING).edit(address, |info| info.registers.acs = Acs::Unknown(AcsUnread::Denied)).topology()
    };
    let at_root_port = unread("00:01.0");
    for (address, known) in [("00:01.0", true), ("01:00.0", false), ("02:00.0", false), ("03:00.0", false)] {
        assert_eq!(group_is_known(&at_root_port, address), known, "{address}");
    }
    let at_downstream_port = unread("02:00.0");
    for (address, known) in [("02:00.0", true), ("03:00.0", false), ("04:00.0", true)] {
        assert_eq!(group_is_known(&at_downstream_port, address), known, "{address}");
    }
    // The root port sends everything into its group, whatever is below it.
    let moot = switch(AcsBits::empty())
        .edit("02:00.0", |info| info.registers.acs = Acs::Unknown(AcsUnread::Denied))
        .topology();
    assert_eq!(shared(&moot).len(), 1);
    assert_eq!(groups::predict(&moot).unknown().count(), 0);
}

#[test]
fn an_unread_word_of_one_function_leaves_its_slot_open() {
    let tree = switch(ISOLATING).acs("02:00.0", ISOLATING).device("03:00.1");
    let topology = tree.edit("03:00.1", |info| info.registers.acs = Acs::Unknown(AcsUnread::Denied)).topology();
    assert!(!group_is_known(&topology, "03:00.1"));
}

fn merged(before: &Topology, after: &Topology) -> Vec<Vec<Vec<String>>> {
    let (before_groups, after_groups) = (groups::predict(before), groups::predict(after));
    let name = |&id: &_| before.function(id).address().to_string()[5..].to_string();
    groups::merged(&before_groups, &after_groups)
        .iter()
        .map(|merged| merged.parts.iter().map(|part| part.iter().map(name).collect()).collect())
        .collect()
}

#[test]
fn clearing_redirection_at_a_port_puts_its_endpoint_into_the_ports_group() {
    let before = switch(ISOLATING).acs("02:00.0", ISOLATING).acs("02:01.0", ISOLATING).topology();
    let after = switch(ISOLATING).acs("02:00.0", AcsBits::SV | AcsBits::UF).acs("02:01.0", ISOLATING).topology();
    assert_eq!(merged(&before, &after), [[["02:00.0"], ["03:00.0"]]]);
    assert!(merged(&after, &before).is_empty());
    assert!(merged(&before, &before).is_empty());
}

#[test]
fn groups_as_told_are_those_of_the_numbers() {
    let tree = Tree::two_root_ports("intel:6", "8086:29c0");
    let tree =
        tree.edit("01:00.0", |info| info.iommu_group = Some(7)).edit("01:00.1", |info| info.iommu_group = Some(7));
    let topology = tree.edit("02:00.0", |info| info.iommu_group = Some(3)).topology();
    let told: Groups = groups::told(&topology);
    assert_eq!(told.share(at(&topology, "01:00.0"), at(&topology, "01:00.1")), Fact::Known(true));
    assert_eq!(told.share(at(&topology, "01:00.0"), at(&topology, "02:00.0")), Fact::Known(false));
    assert_eq!(told.share(at(&topology, "01:00.0"), at(&topology, "00:01.0")), Fact::Unknown);
}

/// Chains of bridges as long as bus numbers allow, and functions behind VMD.
#[test]
fn deep_trees_and_other_domains_are_no_trouble() {
    let mut tree = Tree::new("intel:6", "7.2").port("00:00.0", 1, 255);
    for bus in 1..255u8 {
        tree = tree.port(&format!("{bus:02x}:00.0"), bus + 1, 255);
    }
    let topology = tree.device("ff:00.0").device("10000:00:01.0").topology();
    assert_eq!(shared(&topology).len(), 1, "no port has ACS");
    assert!(!group_is_known(&topology, "10000:00:01.0"));
}
