use crate::platform::Platform;
use peerdma::pcie::acs::Acs;
use peerdma::route::kernel_view::{KernelView, MapType};
use std::collections::BTreeMap;

/// Every ordered pair of named functions: (target, initiator) to map type and distance.
fn verdicts(platform: &Platform) -> BTreeMap<(String, String), (MapType, u32)> {
    let topology = platform.topology();
    let view = KernelView::new(&topology);
    let mut verdicts = BTreeMap::new();
    for target in platform.functions() {
        for initiator in platform.functions() {
            if target.name == initiator.name {
                continue;
            }
            let id = |address| topology.at(address).unwrap();
            let decision = view.decide(id(target.address), id(initiator.address));
            let pair = (target.name.clone(), initiator.name.clone());
            verdicts.insert(pair, (decision.map_type, decision.distance));
        }
    }
    verdicts
}

#[test]
fn every_built_in_platform_parses_and_is_described_in_one_line() {
    assert_eq!(
        Platform::built_in_names().map(|(name, _)| name).collect::<Vec<_>>(),
        ["two-socket", "shared-switch", "client", "arm-slots"]
    );
    for (name, description) in Platform::built_in_names() {
        let text = Platform::built_in_text(name).unwrap();
        let platform = Platform::parse(text, name).unwrap();
        assert_eq!(Platform::built_in(name), Some(platform.clone()));
        assert!(platform.topology().contradictions().is_empty(), "{name}");
        assert!(!description.contains('\n') && description.len() < 120, "{name}");
    }
    assert_eq!(Platform::built_in("no-such"), None);
}

#[test]
fn two_socket_crosses_in_the_switch_goes_up_between_sockets_and_refuses_the_chipset() {
    let platform = Platform::built_in("two-socket").unwrap();
    let socket = |name: &str| match name {
        "gpu0" | "nic0" | "nvme0" | "nvme1" => 0,
        "gpu1" | "nic1" | "nvme2" | "nvme3" => 1,
        "nvme4" => 2,
        other => panic!("{other}"),
    };
    let verdicts = verdicts(&platform);
    assert_eq!(verdicts.len(), 9 * 8);
    for ((target, initiator), verdict) in verdicts {
        let expected = match (socket(&target), socket(&initiator)) {
            (2, _) | (_, 2) => (MapType::NotSupported, 6),
            (a, b) if a == b => (MapType::BusAddr, 4),
            _ => (MapType::ThruHostBridge, 8),
        };
        assert_eq!(verdict, expected, "{initiator} to {target}");
    }
}

#[test]
fn client_refuses_because_its_host_bridge_is_not_listed() {
    let verdicts = verdicts(&Platform::built_in("client").unwrap());
    assert_eq!(verdicts.len(), 2);
    assert!(verdicts.values().all(|verdict| *verdict == (MapType::NotSupported, 4)), "{verdicts:?}");
}

#[test]
fn arm_slots_refuses_every_pair_and_keeps_each_slot_in_a_segment() {
    let platform = Platform::built_in("arm-slots").unwrap();
    let verdicts = verdicts(&platform);
    assert_eq!(verdicts.len(), 6);
    assert!(verdicts.values().all(|(map_type, _)| *map_type == MapType::NotSupported), "{verdicts:?}");
    let mut segments: Vec<u32> = platform.functions().iter().map(|function| function.address.domain()).collect();
    segments.dedup();
    assert_eq!(segments, [0, 1, 2]);
    for port in platform.ports() {
        let Acs::Present(registers) = &port.acs else { panic!("{}", port.name) };
        assert!(registers.control_read_by_linux.redirects());
    }
}

/// The kernel would set RR and CR on switch ports of a translated machine, so a
/// platform that says they are clear has to say how.
#[test]
fn two_socket_boots_with_the_parameter_that_leaves_its_switches_clear() {
    use peerdma::pcie::acs::AcsBits;
    use peerdma::route::acs_boot::{AcsParameters, Before};
    let platform = Platform::built_in("two-socket").unwrap();
    let topology = platform.topology();
    let line = topology.machine().command_line.clone().unwrap();
    let parameters = AcsParameters::from_command_line(&line);
    for port in platform.ports() {
        let Acs::Present(registers) = &port.acs else { continue };
        let (capability, firmware) = (registers.capability, AcsBits::empty());
        let before = Before { capability, firmware, iommu_requested: true, external: false };
        let predicted = parameters.predict(&topology, topology.at(port.address).unwrap(), before);
        assert_eq!(predicted.control, registers.control_read_by_linux, "{}", port.name);
    }
}
