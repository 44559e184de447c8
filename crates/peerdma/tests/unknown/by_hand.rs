//! Machines by hand, with every ACS word clear, set and not told.

use crate::compare::{Seen, check_pair, check_places};
use crate::told::{At, Machine, Told};
use peerdma::route::kernel_view::{KernelView, MapType};

/// Checks all 3^n ways of telling the ACS words of `varied`, for pairs of `ends`.
fn check_all_acs(mut machine: Machine, varied: &[usize], ends: &[usize]) {
    let topology = machine.topology();
    check_places(&machine, &topology);
    let mut seen = Seen::default();
    for number in 0..3usize.pow(varied.len() as u32) {
        let mut digits = number;
        for &index in varied {
            machine.functions[index].acs = [None, Some(Some(0x53)), Some(Some(0x04))][digits % 3];
            digits /= 3;
        }
        let topology = machine.topology();
        let view = KernelView::new(&topology);
        for pair in ends.iter().flat_map(|&provider| ends.iter().map(move |&client| (provider, client))) {
            check_pair(&machine, &topology, &view, pair, &mut seen);
        }
    }
    assert!(seen.unknown > 0 && seen.unknown < seen.pairs, "{seen:?}");
}

/// CPUs and kernels that make the gate open, closed and unknown.
fn with_gates(functions: &[Told], check: impl Fn(Machine)) {
    for (cpu, kernel) in [(Some("amd:0x19"), None), (Some("intel:6"), Some("7.2.13")), (None, Some("6.18"))] {
        check(Machine { functions: functions.to_vec(), cpu, kernel, configured: None });
    }
}

fn bridge(bus: u8, devfn: u8, at: At, buses: Option<(u8, u8)>) -> Told {
    Told { bridge: Some(buses), ..Told::new(0, bus, devfn, at) }
}

#[test]
fn a_switch_with_two_endpoints() {
    let functions = [
        bridge(0, 0x08, At::Root(0), Some((1, 4))),
        bridge(1, 0, At::ByBusNumber, Some((2, 4))),
        bridge(2, 0, At::ByBusNumber, Some((3, 3))),
        bridge(2, 0x08, At::ByBusNumber, Some((4, 4))),
        Told::new(0, 3, 0, At::ByBusNumber),
        Told::new(0, 4, 0, At::ByBusNumber),
    ];
    with_gates(&functions, |machine| check_all_acs(machine, &[0, 1, 2, 3, 4, 5], &[0, 3, 4, 5]));
}

#[test]
fn two_root_ports_and_an_integrated_endpoint() {
    let mut functions = [
        Told::new(0, 0, 0, At::Root(0)),
        bridge(0, 0x08, At::Root(0), Some((1, 1))),
        bridge(0, 0x10, At::Root(0), Some((2, 2))),
        Told::new(0, 1, 0, At::Below(1)),
        Told::new(0, 1, 1, At::Below(1)),
        Told::new(0, 2, 0, At::Below(2)),
    ];
    functions[0].ids = vec![(0x8086, 0x0b25)];
    with_gates(&functions, |machine| check_all_acs(machine, &[1, 2, 3, 4, 5], &[0, 1, 3, 4, 5]));
}

#[test]
fn virtual_functions_with_and_without_a_known_physical_one() {
    let mut functions = [
        bridge(0, 0x08, At::Root(0), Some((1, 4))),
        Told::new(0, 1, 0, At::Below(0)),
        Told::new(0, 2, 0, At::Below(0)),
        Told::new(0, 3, 0, At::ByBusNumber),
        Told::new(0, 4, 0, At::ByBusNumber),
    ];
    functions[2].physical = Some(1);
    functions[4].physical = Some(3);
    with_gates(&functions, |machine| check_all_acs(machine, &[0, 1, 2, 3, 4], &[0, 1, 2, 3, 4]));
}

#[test]
fn functions_lost_below_a_port_beside_a_bridge_without_numbers() {
    let functions = [
        bridge(0, 0x08, At::Root(0), Some((1, 4))),
        bridge(1, 0, At::Below(0), None),
        Told::new(0, 2, 0, At::Below(1)),
        Told::new(0, 3, 0, At::ByBusNumber),
        Told::new(0, 4, 0, At::ByBusNumber),
    ];
    with_gates(&functions, |machine| check_all_acs(machine, &[0, 1, 2, 3, 4], &[1, 2, 3, 4]));
}

#[test]
fn functions_that_may_hang_anywhere() {
    let functions = [
        Told::new(0, 0, 0, At::Root(0)),
        bridge(0, 0x08, At::Root(0), None),
        Told::new(0, 1, 0, At::Below(1)),
        bridge(4, 0, At::ByBusNumber, Some((5, 6))),
        Told::new(0, 5, 0, At::ByBusNumber),
        Told::new(0, 6, 0, At::ByBusNumber),
        Told::new(0, 7, 0, At::ByBusNumber),
    ];
    with_gates(&functions, |machine| check_all_acs(machine, &[2, 3, 6], &[0, 2, 4, 6]));
}

/// Host bridges that Linux lists only for pairs below one and the same: whether a
/// function of unknown place can be below this one decides.
#[test]
fn functions_that_may_hang_anywhere_but_not_in_another_domain_nor_above_a_higher_root_bus() {
    for (domain, root) in [(1, 0), (0, 0x80), (1, 0x80)] {
        let mut functions = [
            Told::new(domain, root, 0, At::Root(root)),
            Told { bridge: Some(None), ..Told::new(domain, root, 0x08, At::Root(root)) },
            Told::new(domain, root + 1, 0, At::Below(1)),
            bridge(0, 0x08, At::Root(0), None),
            Told::new(0, 0x40, 0, At::ByBusNumber),
        ];
        functions[0].ids = vec![(0x8086, 0x3c00)];
        with_gates(&functions, |machine| check_all_acs(machine, &[1, 2, 3, 4], &[0, 1, 2, 3, 4]));
    }
}

/// The bus of 04:00.0 is claimed by two bridges below 00:01.0, one of which is wrong. It may
/// meet 03:00.0 at an unlisted bridge below the port, whose own redirect then does not count.
#[test]
fn what_is_contradicted_may_meet_others_below_the_port_too() {
    let mut machine = Machine {
        functions: vec![
            bridge(0, 0x08, At::Root(0), Some((1, 4))),
            bridge(1, 0x08, At::ByBusNumber, Some((4, 4))),
            bridge(1, 0x10, At::ByBusNumber, Some((4, 4))),
            Told::new(0, 3, 0, At::ByBusNumber),
            Told::new(0, 4, 0, At::ByBusNumber),
        ],
        cpu: Some("amd:0x19"),
        ..Machine::default()
    };
    machine.functions[0].acs = Some(Some(0x04));
    let topology = machine.build();
    let at = |index: usize| topology.at(machine.address(index)).unwrap();
    assert_eq!(topology.contradictions().len(), 1);
    let view = KernelView::new(&topology);
    for (provider, client) in [(3, 4), (4, 3)] {
        assert_eq!(view.decide(at(provider), at(client)).map_type, MapType::Unknown);
    }
}
