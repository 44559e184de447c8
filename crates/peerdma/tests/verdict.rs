//! The verdict: what both views, the initiator's domain, its address width and payload
//! sizes amount to.

#![cfg(test)]

mod tree;

use peerdma::addr::{BusAddr, Bytes};
use peerdma::pcie::acs::AcsBits;
use peerdma::pcie::express::PortType;
use peerdma::pcie::{Fact, PciAddr};
use peerdma::route::verdict::{AddressKind, Difference};
use peerdma::route::{Gate, Judge, Need, PairVerdict, Permission, Target, Verdict};
use peerdma::topology::{
    Bar, Builder, FunctionInfo, HostBridgeFacts, IommuMode, Machine, Origin, PeerForwarding, Topology,
};
use tree::{Tree, at};

const NOBODY: &str = "1022:1480";
const LISTED: &str = "8086:2030";

/// A switch with real port types and a BAR at each device; redirection as told.
fn switch(cpu: &str, id: &str, redirecting: &[&str]) -> Tree {
    let typed = |address, port_type| {
        move |tree: Tree| tree.edit(address, |info| info.registers.port_type = Fact::Known(Some(port_type)))
    };
    let mut tree = Tree::switch(cpu, id);
    tree = typed("01:00.0", PortType::UpstreamPort)(tree);
    tree = typed("02:00.0", PortType::DownstreamPort)(tree);
    tree = typed("02:01.0", PortType::DownstreamPort)(tree);
    for (address, bus) in [("03:00.0", 0x9000_0000), ("04:00.0", 0x9100_0000)] {
        tree = tree.edit(address, |info| give_bar(info, bus));
    }
    // The root port turns requests round where it is told to forward upstream.
    tree = tree.acs("00:01.0", AcsBits::UF);
    for &port in redirecting {
        tree = tree.acs(port, AcsBits::RR);
    }
    tree
}

fn give_bar(info: &mut FunctionInfo, bus: u64) {
    let size = Bytes::new(1 << 20);
    let cpu = peerdma::addr::AddrRange::new(peerdma::addr::PhysAddr::new(bus), size);
    info.bars = vec![Bar { index: 0, cpu, bus: Some(BusAddr::new(bus)), size: Some(size), prefetchable: false }];
}

fn with_mode(topology: Topology, iommu: Option<IommuMode>) -> Topology {
    let machine = Machine { iommu, ..topology.machine().clone() };
    topology.with_machine(machine)
}

fn with_peer(topology: &Topology, peer: PeerForwarding) -> Topology {
    let mut builder: Builder = topology.to_builder();
    builder.host_bridge(0, 0, HostBridgeFacts { peer: Some(peer), ..HostBridgeFacts::default() });
    builder.build()
}

fn judge(topology: &Topology) -> PairVerdict {
    judge_pair(topology, "03:00.0", "04:00.0")
}

fn judge_pair(topology: &Topology, initiator: &str, target: &str) -> PairVerdict {
    let target = Target::largest_bar(topology, at(topology, target));
    Judge::new(topology).judge(at(topology, initiator), &target)
}

const MODES: [Option<IommuMode>; 4] =
    [None, Some(IommuMode::Translated), Some(IommuMode::Identity), Some(IommuMode::None)];

#[test]
fn a_clear_switch_is_direct_with_bus_addresses_in_every_mode() {
    for mode in MODES {
        let pair = judge(&with_mode(switch("intel:6", NOBODY, &[]).topology(), mode));
        assert_eq!((pair.verdict, pair.address.kind()), (Verdict::Direct, AddressKind::Bus), "{mode:?}");
        assert_eq!((pair.read, pair.write), (Permission::Permitted, Permission::Permitted));
        assert_eq!(pair.difference, None);
        assert_eq!(pair.address.to_string(), "bus 0x91000000-0x910fffff");
    }
}

/// The commonest silent corruption: the route is right and the driver hands out IOVAs.
#[test]
fn a_direct_route_below_a_translating_iommu_says_that_clear_bits_are_not_enough() {
    let topology = with_mode(switch("intel:6", NOBODY, &[]).topology(), Some(IommuMode::Translated));
    let (judge, pair) = (Judge::new(&topology), judge(&topology));
    let reason = judge.reasons(&pair).into_iter().find(|reason| reason.gate == Gate::IommuMode).unwrap();
    assert!(reason.evidence.contains("clear ACS bits alone do not help"), "{reason}");
    assert!(reason.fix.unwrap().contains("iommu=pt"));
    assert!(pair.wrong_address().unwrap().contains("upwards"));
}

#[test]
fn through_the_host_bridge_the_mode_decides_the_address_and_never_the_verdict() {
    let kinds = [AddressKind::Unknown, AddressKind::Iova, AddressKind::CpuPhysical, AddressKind::CpuPhysical];
    for (mode, kind) in MODES.into_iter().zip(kinds) {
        let pair = judge(&with_mode(switch("intel:6", LISTED, &["02:00.0", "02:01.0"]).topology(), mode));
        assert_eq!((pair.verdict, pair.address.kind()), (Verdict::HostBridge, kind), "{mode:?}");
        assert_eq!(pair.permits(Need::Both), Permission::Permitted, "{mode:?}");
    }
}

#[test]
fn what_linux_refuses_is_refused_and_a_switch_that_would_deliver_is_told_beside_it() {
    // Linux counts the target's port; the request leaves through the initiator's.
    let topology = with_mode(switch("intel:6", NOBODY, &["02:01.0"]).topology(), Some(IommuMode::Identity));
    let pair = judge(&topology);
    assert_eq!((pair.verdict, pair.address.kind()), (Verdict::Refused, AddressKind::None));
    assert_eq!(pair.permits(Need::Write), Permission::Refused);
    assert_eq!(pair.difference, Some(Difference::RefusedButDirect));
}

#[test]
fn a_redirecting_target_port_leaves_an_untranslated_request_to_the_switch() {
    let topology = with_mode(switch("intel:6", LISTED, &["02:01.0"]).topology(), Some(IommuMode::Identity));
    let pair = judge(&topology);
    assert_eq!(pair.verdict, Verdict::HostBridge);
    assert_eq!(pair.difference, Some(Difference::HostBridgeButDirect));
    let translated = judge(&with_mode(topology, Some(IommuMode::Translated)));
    assert_eq!(translated.difference, None, "an IOVA goes up");
}

#[test]
fn an_initiator_that_vfio_owns_goes_through_the_host_bridge_and_may_ask_for_the_direct_route() {
    for (id, directions) in [(LISTED, Permission::Permitted), (NOBODY, Permission::Unknown)] {
        let tree = switch("intel:6", id, &[]).edit("03:00.0", |info| info.driver = Some("vfio-pci".into()));
        let pair = judge(&with_mode(tree.topology(), Some(IommuMode::Identity)));
        assert_eq!((pair.verdict, pair.address.kind()), (Verdict::HostBridge, AddressKind::Iova));
        assert_eq!((pair.write, pair.read), (directions, directions), "{id}");
        let [write, read] = pair.on_request.unwrap();
        assert_eq!(
            (write.fate, read.fate),
            (peerdma::route::fabric::Fate::Arrives, peerdma::route::fabric::Fate::Arrives)
        );
    }
}

#[test]
fn an_initiator_that_vfio_owns_is_warned_of_merged_writes() {
    let owned = |driver: &str| {
        let topology =
            switch("intel:6", LISTED, &[]).edit("03:00.0", |info| info.driver = Some(driver.into())).topology();
        let reasons = Judge::new(&topology).reasons(&judge(&topology));
        reasons.iter().any(|reason| reason.evidence.contains("merged"))
    };
    assert!(owned("vfio-pci"));
    assert!(!owned("nvme"));
}

#[test]
fn a_root_complex_that_only_takes_writes_is_host_bridge_with_reads_refused() {
    let topology = Tree::two_root_ports("amd:0x19", NOBODY).topology();
    let pair = judge_pair(&with_peer(&topology, PeerForwarding::WritesOnly), "01:00.0", "02:00.0");
    assert_eq!(pair.verdict, Verdict::HostBridge);
    assert_eq!((pair.read, pair.write), (Permission::Refused, Permission::Permitted));
    assert_eq!(pair.permits(Need::Write), Permission::Permitted);
    assert_eq!(pair.permits(Need::Both), Permission::Refused);
    assert_eq!(pair.difference, Some(Difference::MappedButHalfLost));
}

#[test]
fn a_root_complex_that_loses_both_directions_is_refused_although_linux_maps() {
    for peer in [PeerForwarding::AllOnes, PeerForwarding::Nothing] {
        let topology = with_peer(&Tree::two_root_ports("amd:0x19", NOBODY).topology(), peer);
        let pair = judge_pair(&topology, "01:00.0", "02:00.0");
        assert_eq!((pair.verdict, pair.difference), (Verdict::Refused, Some(Difference::MappedButLost)), "{peer}");
    }
}

/// 44 bits of mask against a BAR at 0x380000000000: the mapping succeeds, the device cuts the address.
#[test]
fn an_address_wider_than_the_initiator_forms_is_refused_unless_an_iommu_translates() {
    let tree = switch("intel:6", LISTED, &[]).edit("04:00.0", |info| give_bar(info, 0x3800_0000_0000)).edit(
        "03:00.0",
        |info| {
            info.dma_mask_bits = Some(44);
            info.driver = Some("amdgpu".into());
        },
    );
    let pair = judge(&tree.topology());
    assert_eq!((pair.verdict, pair.too_narrow), (Verdict::Refused, Some((44, 46))));
    let redirected = switch("intel:6", LISTED, &["02:00.0"]).edit("04:00.0", |info| give_bar(info, 0x3800_0000_0000));
    let redirected = redirected.edit("03:00.0", |info| {
        info.dma_mask_bits = Some(44);
        info.origin = Origin::Platform;
    });
    let pair = judge(&with_mode(redirected.topology(), Some(IommuMode::Translated)));
    assert_eq!((pair.verdict, pair.too_narrow), (Verdict::HostBridge, None));
}

#[test]
fn the_mask_of_a_device_without_a_driver_is_the_kernel_s_default_and_says_nothing() {
    let tree = switch("intel:6", LISTED, &[]).edit("04:00.0", |info| give_bar(info, 0x3800_0000_0000));
    let pair = judge(&tree.edit("03:00.0", |info| info.dma_mask_bits = Some(32)).topology());
    assert_eq!((pair.verdict, pair.too_narrow), (Verdict::Direct, None));
}

#[test]
fn a_payload_that_a_port_does_not_take_refuses_below_a_switch_and_warns_through_the_root() {
    let sized = |mut tree: Tree, sizes: &[(&str, u64)]| {
        for &(address, size) in sizes {
            tree = tree.edit(address, |info| info.registers.express.max_payload = Some(Bytes::new(size)));
        }
        tree
    };
    let sizes = [("03:00.0", 512), ("02:00.0", 512), ("02:01.0", 512), ("04:00.0", 256)];
    let topology = sized(switch("intel:6", LISTED, &[]), &sizes).topology();
    let pair = judge(&topology);
    assert_eq!((pair.verdict, pair.write, pair.read), (Verdict::Direct, Permission::Refused, Permission::Permitted));
    let reason = Judge::new(&topology).reasons(&pair).into_iter().find(|reason| reason.gate == Gate::PayloadSize);
    assert!(reason.unwrap().fix.unwrap().contains("pcie_bus_peer2peer"));
    let through_root = sized(switch("intel:6", LISTED, &["02:00.0", "02:01.0"]), &sizes).topology();
    let pair = judge(&through_root);
    assert_eq!((pair.verdict, pair.write), (Verdict::HostBridge, Permission::Permitted));
    assert!(Judge::new(&through_root).reasons(&pair).iter().any(|reason| reason.gate == Gate::PayloadSize));
}

#[test]
fn an_unread_word_leaves_the_verdict_unknown_and_names_the_port() {
    let tree = switch("intel:6", NOBODY, &[]).edit("02:00.0", |info| {
        info.registers.acs = peerdma::pcie::acs::Acs::Unknown(peerdma::pcie::acs::AcsUnread::Cut(64));
    });
    let topology = tree.topology();
    let pair = judge(&topology);
    assert_eq!((pair.verdict, pair.permits(Need::Both)), (Verdict::Unknown, Permission::Unknown));
    let named: PciAddr = "02:00.0".parse().unwrap();
    assert!(Judge::new(&topology).reasons(&pair).iter().any(|reason| reason.object == named.to_string()));
}

/// Zen forwards, and the root port is not told to: what the hardware does with the turn is
/// not defined, although Linux maps it.
#[test]
fn a_turn_in_a_root_port_without_upstream_forwarding_is_not_called_permitted() {
    let tree = switch("amd:0x19", NOBODY, &["02:00.0", "02:01.0"]).acs("00:01.0", AcsBits::empty());
    let topology = with_mode(tree.topology(), Some(IommuMode::Identity));
    let pair = judge(&topology);
    assert_eq!((pair.verdict, pair.difference), (Verdict::Unknown, Some(Difference::MappedButOpen)));
    let unknown_mode = judge(&with_mode(topology, None));
    assert_eq!(unknown_mode.verdict, Verdict::HostBridge, "IOVAs never turn in the port");
}
