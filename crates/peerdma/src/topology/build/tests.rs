//! Trees out of lists, and lists that contradict themselves.

use super::*;
use crate::pcie::ClassCode;
use crate::pcie::decode::{BridgeBuses, HeaderType};
use crate::pcie::virt::SrIov;
use alloc::string::ToString;

fn address(text: &str) -> PciAddr {
    text.parse().unwrap()
}

fn listed(text: &str) -> FunctionInfo {
    let mut info = FunctionInfo::new(address(text), Position::ByBusNumber);
    info.registers.header = Some(HeaderType::Device);
    info
}

fn bridge(text: &str, buses: Option<(u8, u8)>) -> FunctionInfo {
    let mut info = listed(text);
    info.registers.header = Some(HeaderType::Bridge);
    info.registers.class = Some(ClassCode::new(0x060400));
    info.registers.buses =
        buses.map(|(secondary, subordinate)| BridgeBuses { primary: info.address.bus(), secondary, subordinate });
    info
}

fn build(functions: impl IntoIterator<Item = FunctionInfo>) -> Topology {
    let mut builder = Builder::new();
    for info in functions {
        builder.function(info);
    }
    builder.build()
}

fn parent(topology: &Topology, text: &str) -> Parent {
    topology.upstream(topology.at(address(text)).unwrap())
}

#[test]
fn without_paths_the_bridge_with_that_secondary_bus_is_the_parent() {
    let topology = build([bridge("00:01.0", Some((1, 3))), listed("01:00.0"), listed("03:00.0"), listed("80:00.0")]);
    let port = topology.at(address("00:01.0")).unwrap();
    assert_eq!(parent(&topology, "01:00.0"), Parent::Bridge(port));
    assert_eq!(parent(&topology, "03:00.0"), Parent::Unknown { enclosing: Some(port) });
    assert!(matches!(parent(&topology, "80:00.0"), Parent::Root(_)));
    assert_eq!(topology.host_bridges().len(), 2);
}

#[test]
fn a_function_on_a_bus_of_its_own_is_the_vf_that_a_pf_yields() {
    let mut pf = listed("01:00.0");
    pf.registers.sriov =
        Fact::Known(Some(SrIov { enabled: true, num_vfs: 2, total_vfs: 8, first_offset: 0x100, stride: 2 }));
    let functions =
        || [bridge("00:01.0", Some((1, 3))), pf.clone(), listed("02:00.0"), listed("02:00.2"), listed("02:00.4")];
    let topology = build(functions());
    let port = topology.at(address("00:01.0")).unwrap();
    for vf in ["02:00.0", "02:00.2"] {
        assert_eq!(parent(&topology, vf), Parent::Bridge(port));
    }
    assert_eq!(parent(&topology, "02:00.4"), Parent::Unknown { enclosing: Some(port) }, "past the VF count");
}

#[test]
fn a_bridge_that_hides_its_numbers_makes_higher_buses_unknown() {
    let topology = build([bridge("00:01.0", None), listed("00:02.0"), listed("01:00.0")]);
    assert_eq!(parent(&topology, "01:00.0"), Parent::Unknown { enclosing: None });
    assert!(matches!(parent(&topology, "00:02.0"), Parent::Root(_)));
}

#[test]
fn a_bridge_with_impossible_numbers_makes_higher_buses_unknown_too() {
    let topology = build([bridge("02:00.0", Some((1, 4))), listed("03:00.0")]);
    assert_eq!(parent(&topology, "03:00.0"), Parent::Unknown { enclosing: None });
    assert!(matches!(topology.contradictions(), [Contradiction::SecondaryNotBelow { bus: 1, .. }]));
}

#[test]
fn a_vf_whose_pf_is_not_listed_hangs_where_the_pf_would() {
    let mut vf = listed("02:00.0");
    vf.physfn = Some(address("01:00.0"));
    let topology = build([bridge("00:01.0", Some((1, 2))), vf]);
    let port = topology.at(address("00:01.0")).unwrap();
    assert_eq!(parent(&topology, "02:00.0"), Parent::Bridge(port));
    assert!(matches!(topology.contradictions(), [Contradiction::PhysicalFunctionMissing { .. }]));
}

#[test]
fn a_bridge_that_leads_to_a_bus_outweighs_a_pf_that_yields_a_function_there() {
    let mut pf = listed("01:00.0");
    pf.registers.sriov =
        Fact::Known(Some(SrIov { enabled: true, num_vfs: 1, total_vfs: 1, first_offset: 0x100, stride: 0 }));
    let topology = build([bridge("00:01.0", Some((1, 1))), pf, bridge("00:02.0", Some((2, 2))), listed("02:00.0")]);
    assert_eq!(parent(&topology, "02:00.0"), Parent::Bridge(topology.at(address("00:02.0")).unwrap()));
}

#[test]
fn ten_thousand_hostile_functions_are_built_in_no_time() {
    let sriov = SrIov { enabled: true, num_vfs: u16::MAX, total_vfs: u16::MAX, first_offset: 1, stride: 1 };
    let functions = (0..10_000u32).map(|n| {
        let at = address("00:00.0").routing_id_plus(6 * n).unwrap();
        let mut info = bridge(&at.to_string(), Some((at.bus().saturating_add(1), 0xff)));
        info.registers.sriov = Fact::Known(Some(sriov));
        info
    });
    let topology = build(functions);
    assert_eq!(topology.functions().len(), 10_000);
}

#[test]
fn what_lies_inside_a_range_claimed_twice_is_below_nobody_known() {
    let topology = build([bridge("00:01.0", Some((1, 3))), bridge("00:02.0", Some((1, 1))), listed("02:00.0")]);
    assert_eq!(parent(&topology, "02:00.0"), Parent::Unknown { enclosing: None });
}

#[test]
fn a_bus_claimed_twice_belongs_to_nobody_and_is_reported() {
    let topology = build([bridge("00:01.0", Some((1, 1))), bridge("00:02.0", Some((1, 1))), listed("01:00.0")]);
    assert_eq!(parent(&topology, "01:00.0"), Parent::Unknown { enclosing: None });
    assert!(matches!(topology.contradictions(), [Contradiction::BusClaimedTwice { bus: 1, .. }]));
}

#[test]
fn a_bridge_is_above_only_if_it_sits_on_a_lower_bus_of_the_domain() {
    for function in ["00:02.0", "0001:01:00.0"] {
        let mut below = listed(function);
        below.position = Position::Below(address("00:01.0"));
        let topology = build([below, bridge("00:01.0", None)]);
        assert_eq!(parent(&topology, function), Parent::Unknown { enclosing: None });
        let not_above = |contradiction: &Contradiction| matches!(contradiction, Contradiction::NotAbove { .. });
        assert!(topology.contradictions().iter().any(not_above));
    }
}

#[test]
fn a_ring_through_a_virtual_function_is_cut_open_and_reported() {
    let (mut vf, mut pf) = (bridge("01:00.0", None), bridge("02:00.0", None));
    vf.physfn = Some(pf.address);
    pf.position = Position::Below(vf.address);
    let topology = build([vf, pf]);
    assert!(matches!(topology.contradictions(), [Contradiction::HangsBelowItself(_)]));
    for (id, _) in topology.functions() {
        let mut at = id;
        for _ in 0..4 {
            match topology.upstream(at) {
                Parent::Bridge(above) => at = above,
                _ => break,
            }
        }
        assert!(!matches!(topology.upstream(at), Parent::Bridge(_)));
    }
}

#[test]
fn a_function_described_twice_differently_loses_its_registers() {
    let mut first = listed("00:02.0");
    first.registers.id = Some(crate::pcie::PciId { vendor: 0x10de, device: 0x2330 });
    let mut other = first.clone();
    other.registers.class = Some(ClassCode::new(0x020000));
    let topology = build([first, other, listed("00:03.0"), listed("00:03.0")]);
    assert_eq!(topology.contradictions(), [Contradiction::DescribedTwice(address("00:02.0"))]);
    let registers = &topology.function(topology.at(address("00:02.0")).unwrap()).info().registers;
    assert_eq!((registers.id, registers.header), (None, Some(HeaderType::Device)));
    assert_eq!(registers.acs, Acs::Unknown(AcsUnread::Contradicted));
    assert!(matches!(parent(&topology, "00:02.0"), Parent::Root(_)), "both put it in one place");
}

#[test]
fn a_function_described_in_two_places_is_in_neither() {
    let mut other = listed("01:00.0");
    other.position = Position::RootBus { bus: 1 };
    let topology = build([bridge("00:01.0", Some((1, 1))), listed("01:00.0"), other]);
    assert_eq!(parent(&topology, "01:00.0"), Parent::Unknown { enclosing: None });
}

#[test]
fn the_first_device_is_the_lowest_on_the_root_bus_itself() {
    let topology = build([listed("00:1f.0"), listed("00:02.0")]);
    let (_, host) = topology.host_bridges().next().unwrap();
    assert_eq!(host.first_device(), topology.at(address("00:02.0")));
}

/// `whatif` builds one topology from another; a change that changes nothing must change nothing.
#[test]
fn a_topology_rebuilt_from_itself_is_itself() {
    let mut builder = Builder::new();
    builder.function(bridge("00:01.0", Some((1, 3))));
    builder.function(bridge("01:00.0", Some((2, 2))));
    builder.function(listed("02:00.0"));
    let mut virtual_function = listed("02:00.1");
    virtual_function.physfn = Some(address("02:00.0"));
    builder.function(virtual_function);
    // Bus 3 lies inside the range of 00:01.0, but nobody leads to it.
    builder.function(listed("03:00.0"));
    builder.host_bridge(0, 0, HostBridgeFacts { name: Some("hb0".to_string()), ..HostBridgeFacts::default() });
    let topology = builder.build();
    let again = topology.to_builder().build();
    for ((id, one), (_, other)) in topology.functions().zip(again.functions()) {
        assert_eq!((one.parent(), one.physical()), (other.parent(), other.physical()), "{}", one.address());
        assert_eq!(topology.upstream(id), again.upstream(id));
    }
    assert_eq!(topology.host_bridges().collect::<Vec<_>>(), again.host_bridges().collect::<Vec<_>>());
    assert_eq!(again.to_builder().build(), again, "stated places are a fixed point");
}
