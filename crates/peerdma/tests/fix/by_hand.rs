//! Machines by hand, and what fixes them.

use crate::tree::{Tree, at};
use crate::{both, candidates};
use peerdma::pcie::Fact;
use peerdma::pcie::acs::{Acs, AcsBits, AcsRegisters, AcsUnread};
use peerdma::pcie::express::PortType;
use peerdma::route::fix::{Outcome, Plan, plan, selector, setpci};
use peerdma::route::{AddressKind, Target, Verdict};
use peerdma::topology::{HostBridgeFacts, IommuMode, PeerForwarding, Topology};

pub(crate) const KERNELS: AcsBits = AcsBits::SV.union(AcsBits::RR).union(AcsBits::CR).union(AcsBits::UF);

/// A switch of two downstream ports with `control`, below a root port with the kernel's bits.
pub(crate) fn switch(cpu: &str, control: AcsBits) -> Tree {
    let tree = Tree::switch(cpu, "8086:29c0").acs("00:01.0", KERNELS);
    let kind =
        |tree: Tree, address: &str, kind| tree.edit(address, |info| info.registers.port_type = Fact::Known(Some(kind)));
    let tree = kind(tree, "01:00.0", PortType::UpstreamPort);
    let tree = kind(kind(tree, "02:00.0", PortType::DownstreamPort), "02:01.0", PortType::DownstreamPort);
    tree.acs("02:00.0", control).acs("02:01.0", control)
}

pub(crate) fn with(topology: &Topology, iommu: IommuMode, peer: Option<PeerForwarding>) -> Topology {
    let mut builder = topology.to_builder();
    builder.machine().iommu = Some(iommu);
    builder.host_bridge(0, 0, HostBridgeFacts { peer, ..HostBridgeFacts::default() });
    builder.build()
}

fn planned(topology: &Topology, pairs: &[(&str, &str)], direct_only: bool) -> Plan {
    let pairs: Vec<_> =
        pairs.iter().map(|(from, to)| (at(topology, from), Target::largest_bar(topology, at(topology, to)))).collect();
    plan(topology, &pairs, &both(direct_only))
}

fn ports(topology: &Topology, plan: &Plan) -> Vec<String> {
    let name = |id| topology.function(id).address().to_string()[5..].to_string();
    plan.ports()
        .iter()
        .map(|port| format!("{} -{} +{}", name(port.function), words(port.clear()), words(port.set())))
        .collect()
}

fn words(bits: AcsBits) -> String {
    bits.iter_names().map(|(name, _)| name).collect::<Vec<_>>().join(",")
}

#[test]
fn both_downstream_ports_are_cleared_and_the_root_port_is_left_alone() {
    let topology = switch("intel:6", KERNELS).topology();
    let plan = planned(&topology, &[("03:00.0", "04:00.0")], false);
    assert_eq!(ports(&topology, &plan), ["02:00.0 -RR,CR +", "02:01.0 -RR,CR +"]);
    assert!(plan.proven_smallest);
    assert_eq!(plan.pairs[0].now.verdict, Verdict::Refused);
    assert_eq!(plan.pairs[0].then.verdict, Verdict::Direct);
    assert_eq!(plan.pairs[0].then.address.kind(), AddressKind::Bus);
    assert_eq!(candidates(&topology).len(), 3);
}

#[test]
fn a_second_pair_shares_the_ports_of_the_first() {
    let topology = switch("intel:6", KERNELS).port("02:02.0", 5, 5).device("05:00.0");
    let topology = topology.edit("00:01.0", |info| {
        let buses = info.registers.buses.as_mut().unwrap();
        buses.subordinate = 5;
    });
    let topology = topology.edit("01:00.0", |info| info.registers.buses.as_mut().unwrap().subordinate = 5);
    let topology = topology.acs("02:02.0", KERNELS).topology();
    let plan = planned(&topology, &[("03:00.0", "04:00.0"), ("04:00.0", "03:00.0"), ("03:00.0", "05:00.0")], false);
    let expected = ["02:00.0 -RR,CR +", "02:01.0 -RR,CR +", "02:02.0 -RR,CR +"];
    assert_eq!(ports(&topology, &plan), expected);
}

#[test]
fn what_is_permitted_needs_nothing_unless_only_the_direct_route_will_do() {
    let topology = switch("amd:0x19", KERNELS).topology();
    let topology = with(&topology, IommuMode::Translated, None);
    let plan = planned(&topology, &[("03:00.0", "04:00.0")], false);
    assert_eq!((plan.outcome.clone(), plan.pairs[0].now.verdict), (Outcome::NotNeeded, Verdict::HostBridge));
    let plan = planned(&topology, &[("03:00.0", "04:00.0")], true);
    assert_eq!(plan.ports().len(), 2);
}

/// A request that a downstream port sends up comes back to the root port it came through;
/// without Upstream Forwarding nothing says where it goes (PCIe 6.0 §6.12.1.1).
#[test]
fn one_bit_at_the_root_port_is_less_than_two_ports_of_the_switch() {
    let tree = switch("amd:0x19", KERNELS).acs("00:01.0", KERNELS - AcsBits::UF);
    let topology = with(&tree.topology(), IommuMode::Identity, None);
    let plan = planned(&topology, &[("03:00.0", "04:00.0")], false);
    assert_eq!(ports(&topology, &plan), ["00:01.0 - +UF"]);
    assert_eq!(plan.pairs[0].then.verdict, Verdict::HostBridge);
    let plan = planned(&topology, &[("03:00.0", "04:00.0")], true);
    assert_eq!(plan.ports().len(), 2);
}

#[test]
fn where_the_ends_meet_nowhere_and_the_host_bridge_does_not_forward_there_is_none() {
    let tree = Tree::two_root_ports("intel:6", "8086:29c0").acs("00:01.0", KERNELS).acs("00:02.0", KERNELS);
    let topology = tree.topology();
    let plan = planned(&topology, &[("01:00.0", "02:00.0")], false);
    let Outcome::Impossible { why } = plan.outcome else { panic!("{:?}", plan.outcome) };
    assert!(why.iter().any(|reason| reason.evidence.contains("not in the whitelist")), "{why:?}");
}

#[test]
fn wired_bits_and_misread_words_are_named_as_what_stands_in_the_way() {
    let bits = AcsBits::from_bits_retain;
    let wired = AcsRegisters::standard(None, bits(0x1f), bits(0x20), vec![0]);
    let topology =
        switch("intel:6", KERNELS).edit("02:00.0", |info| info.registers.acs = Acs::Present(wired)).topology();
    let plan = planned(&topology, &[("03:00.0", "04:00.0")], false);
    let Outcome::Impossible { why } = plan.outcome else { panic!("{:?}", plan.outcome) };
    assert!(why[0].object == "0000:02:00.0" && why[0].evidence.contains("wired"), "{why:?}");

    let misread = AcsRegisters {
        offset: Some(0x140),
        capability: bits(0x5f),
        control: Fact::Known(bits(0)),
        control_read_by_linux: bits(0x04),
        egress: vec![],
    };
    let tree = Tree::two_root_ports("intel:6", "8086:29c0").id("00:01.0", "8086:a110");
    let topology = tree.edit("00:01.0", |info| info.registers.acs = Acs::Present(misread)).topology();
    let plan = planned(&topology, &[("01:00.0", "01:00.1")], false);
    let Outcome::Impossible { why } = plan.outcome else { panic!("{:?}", plan.outcome) };
    assert!(why[0].object == "0000:00:01.0" && why[0].evidence.contains("beside"), "{why:?}");
}

#[test]
fn a_port_that_was_not_read_is_a_missing_fact_and_no_impossibility() {
    let tree = switch("intel:6", KERNELS).edit("02:00.0", |info| info.registers.acs = Acs::Unknown(AcsUnread::Denied));
    let topology = tree.topology();
    let plan = planned(&topology, &[("03:00.0", "04:00.0")], false);
    let Outcome::FactsMissing { reasons } = plan.outcome else { panic!("{:?}", plan.outcome) };
    assert!(reasons.iter().any(|reason| reason.object == "0000:02:00.0"), "{reasons:?}");
}

/// A CPU that is not told may forward, and then the pair is permitted as it is.
#[test]
fn ports_that_may_not_be_needed_are_not_proven_smallest() {
    let mut machine = switch("intel:6", KERNELS).topology().machine().clone();
    machine.cpu = None;
    let topology = switch("intel:6", KERNELS).topology().with_machine(machine);
    let plan = planned(&topology, &[("03:00.0", "04:00.0")], false);
    assert_eq!((plan.pairs[0].now.verdict, plan.ports().len()), (Verdict::Unknown, 2));
    assert!(!plan.proven_smallest);
}

#[test]
fn no_pairs_need_nothing() {
    let topology = switch("intel:6", KERNELS).topology();
    assert_eq!(planned(&topology, &[], true).outcome, Outcome::NotNeeded);
}

#[test]
fn paths_start_at_the_root_bus_and_setpci_leaves_other_bits_alone() {
    let topology = switch("intel:6", KERNELS).topology();
    assert_eq!(selector(&topology, at(&topology, "02:01.0")).unwrap(), "0000:00:01.0/00.0/01.0");
    assert_eq!(selector(&topology, at(&topology, "00:01.0")).unwrap(), "0000:00:01.0");
    let plan = planned(&topology, &[("03:00.0", "04:00.0")], false);
    assert_eq!(setpci(&topology, &plan.ports()[0]), "setpci -s 0000:02:00.0 ECAP_ACS+0x6.w=0:c");
}
