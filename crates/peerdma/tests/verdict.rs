//! The verdict: what both views, the initiator's domain, its address width and payload
//! sizes amount to.

#![cfg(test)]

mod tree;

use peerdma::addr::{AddrRange, BusAddr, Bytes, PhysAddr};
use peerdma::pcie::acs::AcsBits;
use peerdma::pcie::express::PortType;
use peerdma::pcie::{Fact, PciAddr};
use peerdma::route::verdict::{AddressKind, Difference};
use peerdma::route::{Gate, Judge, Need, PairVerdict, Permission, Target, Verdict};
use peerdma::topology::{
    Bar, Builder, FunctionInfo, HostBridgeFacts, IommuMode, Machine, MemoryRegion, Origin, PeerForwarding, Topology,
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
    let cpu = AddrRange::new(PhysAddr::new(bus), size);
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

/// A client CPU's IOMMU takes 39 bits; a monitor that keeps BARs where they are cannot map one beyond.
#[test]
fn a_bar_beyond_the_iommu_s_aperture_is_told_to_whoever_chooses_iovas() {
    let told = |bits, driver: &str| {
        let tree = switch("intel:6", LISTED, &[]).edit("04:00.0", |info| give_bar(info, 0x60_0000_0000_u64 << 2));
        let topology = tree.edit("03:00.0", |info| info.driver = Some(driver.into())).topology();
        let machine = Machine { iommu_address_bits: bits, ..topology.machine().clone() };
        let topology = topology.with_machine(machine);
        let pair = judge(&topology);
        assert_ne!(pair.verdict, Verdict::Refused, "a lower IOVA does");
        Judge::new(&topology).reasons(&pair).iter().any(|reason| reason.gate == Gate::AddressWidth)
    };
    assert!(told(Some(39), "vfio-pci"));
    assert!(!told(Some(48), "vfio-pci") && !told(None, "vfio-pci"));
    assert!(!told(Some(39), "nvme"), "the kernel chooses one that fits");
}

/// Two functions below one root port that turns requests round: without redirection Linux
/// hands out bus addresses, and those that leave the device meet the IOMMU.
#[test]
fn a_bus_address_that_comes_up_to_a_translating_iommu_is_not_called_permitted() {
    let tree = Tree::two_root_ports("amd:0x19", NOBODY).acs("00:01.0", AcsBits::UF);
    let tree = tree.edit("01:00.1", |info| give_bar(info, 0x9000_0000));
    let topology = tree.topology();
    let verdict = |mode| judge_pair(&with_mode(topology.clone(), Some(mode)), "01:00.0", "01:00.1").verdict;
    assert_eq!(verdict(IommuMode::Identity), Verdict::Direct);
    assert_eq!(
        verdict(IommuMode::Translated),
        Verdict::Unknown,
        "unless the device routes inside, which is its own affair"
    );
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

/// What an unprivileged reader sees of a switch below a root complex that loses everything:
/// the switch may still deliver bus addresses.
#[test]
fn a_lossy_root_complex_refuses_nothing_while_the_route_may_be_the_switch_s_own() {
    let unread = |tree: Tree| {
        tree.edit("02:00.0", |info| {
            info.registers.acs = peerdma::pcie::acs::Acs::Unknown(peerdma::pcie::acs::AcsUnread::Cut(64));
        })
    };
    for (mode, peer) in MODES
        .into_iter()
        .flat_map(|mode| [PeerForwarding::AllOnes, PeerForwarding::WritesOnly].map(|peer| (mode, peer)))
    {
        let topology = with_mode(with_peer(&unread(switch("intel:6", NOBODY, &[])).topology(), peer), mode);
        let pair = judge(&topology);
        assert_eq!((pair.verdict, pair.read), (Verdict::Unknown, Permission::Unknown), "{mode:?} {peer}");
        // Past the switch for sure: nothing is open any more.
        let redirected = unread(switch("intel:6", NOBODY, &["02:01.0"])).topology();
        let pair = judge(&with_mode(with_peer(&redirected, peer), mode));
        assert_eq!((pair.verdict, pair.read), (Verdict::Refused, Permission::Refused), "{mode:?} {peer}");
    }
}

#[test]
fn the_direct_route_is_named_also_where_iovas_of_vfio_are_lost() {
    let tree = switch("intel:6", NOBODY, &[]).edit("03:00.0", |info| info.driver = Some("vfio-pci".into()));
    let topology = with_peer(&tree.topology(), PeerForwarding::AllOnes);
    let pair = judge(&topology);
    assert_eq!((pair.verdict, pair.address.kind()), (Verdict::Refused, AddressKind::None));
    let reasons = Judge::new(&topology).reasons(&pair);
    let named = |reason: &peerdma::route::Reason| reason.fix.as_ref().is_some_and(|fix| fix.contains("on request"));
    assert!(reasons.iter().any(named), "{reasons:?}");
}

#[test]
fn a_bus_address_with_the_numbers_of_ram_is_told_unless_the_domain_translates() {
    let at_offset = |redirecting: &[&str]| {
        let tree = switch("intel:6", LISTED, redirecting).edit("04:00.0", |info| {
            let cpu = PhysAddr::new(0x50_9100_0000);
            info.bars[0].cpu = AddrRange::new(cpu, Bytes::new(1 << 20));
        });
        let mut builder = tree.topology().to_builder();
        let range = AddrRange::new(PhysAddr::new(0), Bytes::new(0x9108_0000)).unwrap();
        builder.machine().memory_map = vec![MemoryRegion { range, name: MemoryRegion::SYSTEM_RAM.into() }];
        builder.build()
    };
    let told = |topology: &Topology| {
        let reasons = Judge::new(topology).reasons(&judge(topology));
        reasons.iter().any(|reason| reason.evidence.contains("RAM at 0x91000000-0x9107ffff"))
    };
    let direct = with_mode(at_offset(&[]), Some(IommuMode::None));
    assert_eq!(judge(&direct).verdict, Verdict::Direct);
    assert!(told(&direct));
    assert!(!told(&with_mode(direct, Some(IommuMode::Translated))));
    let through_root = judge(&with_mode(at_offset(&["02:00.0", "02:01.0"]), Some(IommuMode::Identity)));
    assert!(through_root.wrong_address().unwrap().contains("the RAM at 0x91000000"), "{through_root:?}");
    assert!(!told(&with_mode(switch("intel:6", LISTED, &[]).topology(), Some(IommuMode::None))));
}

#[test]
fn why_atomics_are_not_known_is_said_in_one_reason() {
    let topology = switch("intel:6", NOBODY, &[]).topology();
    let (judge, pair) = (Judge::new(&topology), judge(&topology));
    assert_eq!((pair.verdict, pair.atomic), (Verdict::Direct, Permission::Unknown));
    let reasons = judge.reasons(&pair);
    let of_atomics: Vec<_> = reasons.iter().filter(|reason| reason.gate == Gate::Atomics).collect();
    assert_eq!(of_atomics.len(), 1, "{reasons:?}");
    assert!(of_atomics[0].fix.is_some());
}

#[test]
fn what_becomes_of_an_iova_on_a_direct_route_is_said_as_far_as_the_root_complex_is_known() {
    let cases = [
        (Some(PeerForwarding::Forwards), "down, which this one does"),
        (Some(PeerForwarding::WritesOnly), "for writes and not for reads"),
        (Some(PeerForwarding::AllOnes), "the bytes are lost"),
        (None, "not known to do"),
    ];
    for (peer, words) in cases {
        let topology = switch("intel:6", NOBODY, &[]).topology();
        let topology = peer.map_or(topology.clone(), |peer| with_peer(&topology, peer));
        let pair = judge(&with_mode(topology, Some(IommuMode::Translated)));
        assert!(pair.wrong_address().unwrap().contains(words), "{peer:?}: {:?}", pair.wrong_address());
    }
}
