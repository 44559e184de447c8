//! The reason chain: which gate, which object, what was read, what would change it.

#![cfg(test)]

mod tree;

use peerdma::pcie::acs::{Acs, AcsAbsent, AcsBits, AcsRegisters, AcsUnread};
use peerdma::pcie::express::PortType;
use peerdma::pcie::{Fact, PciId};
use peerdma::route::kernel_view::{KernelView, MapType};
use peerdma::route::{Gate, Reason};
use peerdma::topology::{Machine, Origin, Topology};
use tree::{Tree, at};

const NOBODY: &str = "1022:1480";

fn reasons(tree: Tree, provider: &str, client: &str) -> (MapType, Vec<Reason>) {
    reasons_in(&tree.topology(), provider, client)
}

fn reasons_in(topology: &Topology, provider: &str, client: &str) -> (MapType, Vec<Reason>) {
    let view = KernelView::new(topology);
    let decision = view.decide(at(topology, provider), at(topology, client));
    (decision.map_type, view.reasons(&decision))
}

/// Gates and objects, in order.
fn chain(reasons: &[Reason]) -> Vec<(Gate, &str)> {
    reasons.iter().map(|reason| (reason.gate, reason.object.as_str())).collect()
}

fn fix(reason: &Reason) -> &str {
    reason.fix.as_deref().unwrap_or_default()
}

fn hide_acs(tree: Tree, address: &str, why: AcsUnread, origin: Origin) -> Tree {
    tree.edit(address, |info| (info.registers.acs, info.origin) = (Acs::Unknown(why), origin))
}

#[test]
fn a_direct_route_needs_no_reason() {
    assert_eq!(reasons(Tree::switch("unknown", NOBODY), "03:00.0", "04:00.0"), (MapType::BusAddr, vec![]));
}

#[test]
fn a_refusal_names_the_port_the_register_the_bits_and_the_host_bridge() {
    let tree = Tree::switch("intel:6", NOBODY)
        .acs("02:00.0", AcsBits::RR | AcsBits::CR | AcsBits::SV)
        .edit("02:00.0", |info| info.origin = Origin::Sysfs);
    let (map_type, reasons) = reasons(tree, "03:00.0", "04:00.0");
    assert_eq!(map_type, MapType::NotSupported);
    let expected = [(Gate::AcsRedirect, "0000:02:00.0"), (Gate::Cpu, "cpu"), (Gate::HostBridge, "0000:00")];
    assert_eq!(chain(&reasons), expected);
    assert_eq!(
        reasons[0].evidence,
        "ACS control SV+TB-RR+CR+UF-EC-DT- = 0x000d at config 0x14e (sysfs config space): RR, CR set"
    );
    assert!(fix(&reasons[0]).contains("pci=disable_acs_redir=0000:02:00.0 "), "{}", reasons[0]);
    assert_eq!(reasons[1].evidence, "GenuineIntel family 0x6: not AMD family 0x17 or later, so the whitelist decides");
    assert_eq!(reasons[2].evidence, "first device 0000:00:00.0 1022:1480; not in the whitelist of Linux 7.2");
}

#[test]
fn redirects_come_in_linuxs_order_and_the_common_port_is_said_to_be_one() {
    let tree = Tree::switch("amd:0x19", NOBODY).acs("02:01.0", AcsBits::EC).acs("01:00.0", AcsBits::RR);
    let (map_type, reasons) = reasons(tree, "03:00.0", "04:00.0");
    assert_eq!(map_type, MapType::ThruHostBridge);
    let expected = [(Gate::AcsRedirect, "0000:01:00.0"), (Gate::AcsRedirect, "0000:02:01.0"), (Gate::Cpu, "cpu")];
    assert_eq!(chain(&reasons), expected);
    assert!(reasons[0].evidence.contains("only turn here"), "{}", reasons[0]);
    assert!(!reasons[1].evidence.contains("turn"), "{}", reasons[1]);
    assert!(reasons[2].evidence.starts_with("AuthenticAMD family 0x19: "), "{}", reasons[2]);
}

/// Requests to a function's own child do not turn there: they end there.
#[test]
fn a_port_that_is_an_end_itself_is_not_said_to_be_the_turn() {
    let tree = Tree::switch("amd:0x19", NOBODY).acs("02:00.0", AcsBits::RR);
    let (_, reasons) = reasons(tree, "02:00.0", "03:00.0");
    assert!(!reasons[0].evidence.contains("turn"), "{}", reasons[0]);
}

#[test]
fn a_route_through_the_host_bridge_names_what_let_it_through() {
    let (map_type, reasons) = reasons(Tree::two_root_ports("unknown", "8086:3c00"), "01:00.0", "02:00.0");
    assert_eq!(map_type, MapType::ThruHostBridge);
    assert_eq!(chain(&reasons), [(Gate::HostBridge, "0000:00")]);
    assert_eq!(reasons[0].evidence, "first device 0000:00:00.0 8086:3c00; in the whitelist of Linux 7.2");
}

#[test]
fn of_two_host_bridges_the_one_that_refuses_is_named() {
    let tree = Tree::two_root_ports("intel:6", "8086:2030").device("80:00.0").id("80:00.0", "8086:3c00");
    let (map_type, reasons) = reasons(tree.device("80:01.0"), "01:00.0", "80:01.0");
    assert_eq!(map_type, MapType::NotSupported);
    assert_eq!(chain(&reasons), [(Gate::Cpu, "cpu"), (Gate::HostBridge, "0000:80")]);
    assert!(reasons[1].evidence.ends_with("only for pairs below this one host bridge"), "{}", reasons[1]);
}

#[test]
fn an_unread_acs_word_is_named_with_the_way_to_read_it() {
    let unread = [
        (AcsUnread::Cut(0x40), Origin::Sysfs, "the list goes on at 0x040", "run as root"),
        (AcsUnread::Cut(0x100), Origin::Capture, "the list goes on at 0x100", "sudo peerdma capture"),
        (AcsUnread::Denied, Origin::LspciText, "<access denied>", "sudo lspci -vvv"),
        (AcsUnread::TextEnds, Origin::LspciText, "the text ends inside", "keep all of it"),
        (AcsUnread::Contradicted, Origin::LspciText, "twice, differently", "one moment"),
        (AcsUnread::Declared, Origin::Platform, "acs = \"unknown\"", "platform file"),
        (AcsUnread::NeverSeen, Origin::PathOnly, "none of its registers", "all of config space"),
        (AcsUnread::TextTooTerse, Origin::LspciText, "not of a privileged lspci -vv", "sudo lspci"),
    ];
    for (why, origin, evidence, way) in unread {
        let tree = hide_acs(Tree::switch("amd:0x19", NOBODY), "02:01.0", why, origin);
        let (map_type, reasons) = reasons(tree, "03:00.0", "04:00.0");
        assert_eq!(map_type, MapType::Unknown);
        assert_eq!(chain(&reasons), [(Gate::AcsUnknown, "0000:02:01.0")]);
        assert!(reasons[0].evidence.contains(evidence), "{}", reasons[0]);
        assert!(fix(&reasons[0]).contains(way), "{}", reasons[0]);
    }
}

#[test]
fn what_is_unread_beside_a_redirect_is_no_reason() {
    let tree = hide_acs(Tree::switch("unknown", NOBODY), "02:01.0", AcsUnread::Denied, Origin::LspciText);
    let (map_type, reasons) = reasons(tree.acs("02:00.0", AcsBits::CR), "03:00.0", "04:00.0");
    assert_eq!(map_type, MapType::Unknown);
    let expected = [(Gate::AcsRedirect, "0000:02:00.0"), (Gate::Cpu, "cpu"), (Gate::HostBridge, "0000:00")];
    assert_eq!(chain(&reasons), expected, "the gate is what is not known");
    assert!(fix(&reasons[1]).contains("--cpu VENDOR:FAMILY"), "{}", reasons[1]);
}

#[test]
fn a_hidden_bridge_is_named_by_the_bus_that_nothing_leads_to() {
    let lost = || Tree::new("amd:0x19", "").port("00:01.0", 1, 3).device("01:00.0").device("03:00.0");
    let (map_type, found) = reasons(lost(), "01:00.0", "03:00.0");
    assert_eq!((map_type, chain(&found)), (MapType::Unknown, vec![(Gate::ParentUnknown, "0000:03:00.0")]));
    assert!(found[0].evidence.starts_with("bus 03 lies inside the range of 0000:00:01.0"), "{}", found[0]);
    assert!(fix(&found[0]).contains("lspci -vvv -PP"), "{}", found[0]);

    let open = lost().edit("00:01.0", |info| info.registers.buses = None);
    let (map_type, found) = reasons(open, "01:00.0", "03:00.0");
    assert_eq!(map_type, MapType::Unknown);
    assert_eq!(chain(&found)[..2], [(Gate::ParentUnknown, "0000:01:00.0"), (Gate::ParentUnknown, "0000:03:00.0")]);
    assert!(found[1].evidence.contains("which bridge leads to bus 03"), "{}", found[1]);
}

/// A virtual function hangs where its physical one does, so that one's bus is what is missing.
#[test]
fn a_virtual_functions_hidden_bridge_is_that_of_its_physical_one() {
    let tree = Tree::new("amd:0x19", "").port("00:01.0", 1, 4).device("01:00.0").device("03:00.0").device("04:00.0");
    let tree = tree.edit("04:00.0", |info| info.physfn = Some("03:00.0".parse().unwrap()));
    let (_, reasons) = reasons(tree, "01:00.0", "04:00.0");
    assert_eq!(chain(&reasons), [(Gate::ParentUnknown, "0000:04:00.0")]);
    assert!(reasons[0].evidence.starts_with("bus 03 lies inside"), "{}", reasons[0]);
}

/// The bridge above 03:00.0 is hidden, but the two meet nowhere in any case.
#[test]
fn a_hidden_bridge_that_decides_nothing_is_no_reason() {
    let tree = Tree::new("unknown", "").device("00:00.0").port("00:01.0", 1, 3).device("03:00.0").device("00:02.0");
    let (map_type, reasons) = reasons(tree, "00:02.0", "03:00.0");
    assert_eq!(map_type, MapType::Unknown);
    assert_eq!(chain(&reasons), [(Gate::Cpu, "cpu"), (Gate::HostBridge, "0000:00")]);
}

#[test]
fn a_host_bridge_that_is_not_known_is_a_reason_with_the_bus_that_hides_it() {
    let tree =
        Tree::new("intel:6", "").device("00:00.0").id("00:00.0", "8086:2030").port("00:01.0", 1, 1).device("05:00.0");
    let tree = tree.edit("00:01.0", |info| info.registers.buses = None);
    let (map_type, reasons) = reasons(tree, "00:00.0", "05:00.0");
    assert_eq!(map_type, MapType::Unknown);
    let expected =
        [(Gate::ParentUnknown, "0000:05:00.0"), (Gate::Cpu, "cpu"), (Gate::HostBridge, "unknown host bridge")];
    assert_eq!(chain(&reasons), expected);
}

/// Above 03:00.0, which goes up to reach itself, the way to the host bridge is hidden.
#[test]
fn a_host_bridge_hidden_above_the_common_function_is_a_reason_too() {
    let tree = Tree::new("intel:6", "").port("00:01.0", 1, 1).port("03:00.0", 4, 4).device("04:00.0");
    let tree = tree.edit("00:01.0", |info| info.registers.buses = None).acs("03:00.0", AcsBits::RR);
    let (map_type, reasons) = reasons(tree, "03:00.0", "04:00.0");
    assert_eq!(map_type, MapType::Unknown);
    assert_eq!(chain(&reasons)[..2], [(Gate::AcsRedirect, "0000:03:00.0"), (Gate::ParentUnknown, "0000:03:00.0")]);
}

/// The evidence about the host bridge of 00:00.0 and its fix, for a pair on its root bus.
fn host_bridge_reason(kernel: &'static str, change: impl FnOnce(Tree) -> Tree) -> (MapType, String, String) {
    let tree = Tree::new("intel:6", kernel).device("00:00.0").device("00:05.0").device("00:06.0");
    let (map_type, reasons) = reasons(change(tree), "00:05.0", "00:06.0");
    let host = reasons.iter().find(|reason| reason.gate == Gate::HostBridge).unwrap();
    assert_eq!(host.object, "0000:00");
    (map_type, host.evidence.clone(), fix(host).into())
}

#[test]
fn what_is_missing_about_a_host_bridge_is_said_and_how_to_get_it() {
    let of_name = |ids: &'static [u16]| {
        move |tree: Tree| {
            tree.edit("00:00.0", |info| {
                info.registers.id = None;
                info.ids_by_name = ids.iter().map(|&device| PciId { vendor: 0x8086, device }).collect();
            })
        }
    };
    let (map_type, evidence, fix) = host_bridge_reason("7.2", of_name(&[0x2030, 0x1237]));
    assert_eq!(map_type, MapType::Unknown);
    assert!(evidence.starts_with("first device 0000:00:00.0 8086:2030 or 8086:1237; whether"), "{evidence}");
    assert!(fix.contains("lspci -nn"), "{fix}");

    // Between two lists that agree, the name is what is missing and not the version.
    let (_, evidence, fix) = host_bridge_reason("6.5", of_name(&[]));
    assert!(evidence.contains("of unknown ID; whether it is in the whitelist of Linux 6.1 and of 6.12"), "{evidence}");
    assert!(fix.contains("lspci -nn"), "{fix}");

    let (_, evidence, fix) = host_bridge_reason("6.18", |tree| tree.id("00:00.0", "8086:0b25"));
    assert!(evidence.contains("the whitelists of Linux 6.12 and 7.2 differ for it"), "{evidence}");
    assert!(fix.contains("--kernel"), "{fix}");

    let (_, evidence, fix) = host_bridge_reason("5.15", |tree| tree);
    assert!(evidence.contains("older than the oldest whitelist known here, that of Linux 6.1"), "{evidence}");
    assert!(fix.contains("--kernel"), "{fix}");

    let past_00_0 = |kind: Fact<Option<PortType>>| {
        move |_: Tree| {
            let tree = Tree::new("intel:6", "7.2").device("00:03.0").id("00:03.0", "8086:2030");
            let tree = tree.edit("00:03.0", |info| info.registers.port_type = kind);
            tree.device("00:05.0").device("00:06.0")
        }
    };
    let (map_type, evidence, fix) = host_bridge_reason("", past_00_0(Fact::Unknown));
    assert_eq!(map_type, MapType::Unknown);
    assert!(evidence.contains("its port type was not read"), "{evidence}");
    assert!(fix.contains("run as root"), "{fix}");

    let (map_type, evidence, fix) = host_bridge_reason("", past_00_0(Fact::Known(None)));
    assert_eq!((map_type, fix.as_str()), (MapType::NotSupported, ""));
    assert!(evidence.contains("00:03.0, neither device 00.0 nor a root port"), "{evidence}");
}

/// Below the oldest list even "nothing to look up" is not an answer, so it carries a fix too.
#[test]
fn an_old_kernel_is_named_before_a_host_bridge_that_has_nothing_to_look_up() {
    let tree = Tree::new("intel:6", "5.15").device("00:05.0").device("00:06.0");
    let (map_type, reasons) = reasons(tree, "00:05.0", "00:06.0");
    assert_eq!(map_type, MapType::Unknown);
    assert!(reasons[1].evidence.contains("older than") && fix(&reasons[1]).contains("--kernel"), "{}", reasons[1]);
}

#[test]
fn a_kernel_without_p2pdma_is_the_only_reason() {
    let topology = Tree::two_root_ports("intel:6", NOBODY).topology();
    let machine = Machine { p2pdma_configured: Fact::Known(false), ..topology.machine().clone() };
    let (map_type, reasons) = reasons_in(&topology.with_machine(machine), "01:00.0", "02:00.0");
    assert_eq!((map_type, chain(&reasons)), (MapType::NotSupported, vec![(Gate::KernelConfig, "kernel")]));
    assert!(fix(&reasons[0]).contains("CONFIG_PCI_P2PDMA=y"));
}

/// Clearing what Linux reads there is not possible, and what the hardware obeys is said beside it.
#[test]
fn a_word_that_linux_reads_at_the_wrong_place_is_shown_with_the_right_one() {
    let registers = AcsRegisters {
        offset: Some(0x140),
        capability: AcsBits::from_bits_retain(0x1f),
        control: Fact::Known(AcsBits::SV),
        control_read_by_linux: AcsBits::RR,
        egress: vec![],
    };
    let tree = Tree::two_root_ports("amd:0x19", NOBODY);
    let tree = tree.edit("00:01.0", |info| info.registers.acs = Acs::Present(registers));
    let (_, reasons) = reasons(tree, "01:00.0", "01:00.1");
    assert!(reasons[0].evidence.contains("= 0x0004 at config 0x146"), "{}", reasons[0]);
    assert!(reasons[0].evidence.contains("the hardware obeys SV+TB-RR-CR-UF-EC-DT- = 0x0001 two bytes further"));
    assert!(fix(&reasons[0]).contains("does not change its verdict"), "{}", reasons[0]);
}

#[test]
fn the_evidence_about_a_function_says_why_it_has_no_acs() {
    for (why, words) in [
        (AcsAbsent::WholeListRead, "the extended list was read to its end"),
        (AcsAbsent::NoCapabilityList, "no capability list"),
        (AcsAbsent::NotExpress, "neither PCIe nor PCI-X 266/533"),
        (AcsAbsent::SpaceEndsAt256, "ends at 256 bytes"),
        (AcsAbsent::NotListed, "privileged lspci -vv"),
        (AcsAbsent::Declared, "acs = \"none\""),
    ] {
        let tree = Tree::switch("unknown", NOBODY).edit("02:00.0", |info| info.registers.acs = Acs::Absent(why));
        let topology = tree.topology();
        let evidence = KernelView::new(&topology).acs_evidence(at(&topology, "02:00.0"));
        assert!(evidence.starts_with("no ACS capability: ") && evidence.contains(words), "{evidence}");
    }
}

#[test]
fn a_reason_reads_as_one_line() {
    let (_, reasons) = reasons(Tree::two_root_ports("intel:6", NOBODY), "01:00.0", "02:00.0");
    assert_eq!(
        reasons[1].to_string(),
        "host_bridge 0000:00: first device 0000:00:00.0 1022:1480; not in the whitelist of Linux 7.2"
    );
}
