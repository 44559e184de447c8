//! Machines after a change: [`peerdma::route::change`].

#![cfg(test)]

#[expect(dead_code, reason = "not every helper of the trees is needed here")]
mod tree;

use peerdma::pcie::Fact;
use peerdma::pcie::acs::{Acs, AcsBits, AcsRegisters, AcsUnread};
use peerdma::route::change::{Change, ChangeError, Changed, apply};
use peerdma::route::domain::Domain;
use peerdma::route::kernel_view::{KernelView, MapType};
use peerdma::topology::{IommuGroup, IommuMode, Topology};
use tree::{Tree, at};

const KERNELS: AcsBits = AcsBits::SV.union(AcsBits::RR).union(AcsBits::CR).union(AcsBits::UF);
const CAPABILITY: u16 = 0x5f;

fn bits(word: u16) -> AcsBits {
    AcsBits::from_bits_retain(word)
}

/// The switch, with `capability` and `control` at its downstream ports.
fn switch(control: u16) -> Tree {
    let registers = AcsRegisters::standard(Some(0x148), bits(CAPABILITY), bits(control), vec![]);
    let with = |tree: Tree, address: &str| {
        let registers = registers.clone();
        tree.edit(address, |info| info.registers.acs = Acs::Present(registers))
    };
    with(with(Tree::switch("intel:6", "8086:29c0"), "02:00.0"), "02:01.0")
}

fn acs(topology: &Topology, address: &str, clear: AcsBits, set: AcsBits) -> Change {
    Change::Acs { function: at(topology, address), clear, set }
}

fn control(topology: &Topology, address: &str) -> u16 {
    let info = topology.function(at(topology, address)).info();
    info.registers.acs.registers().unwrap().control.known().unwrap().bits()
}

fn decide(topology: &Topology, provider: &str, client: &str) -> MapType {
    KernelView::new(topology).decide(at(topology, provider), at(topology, client)).map_type
}

#[test]
fn nothing_changed_is_the_same_machine() {
    let topology = switch(0x1d).topology();
    let Changed { topology: same, assumed } = apply(&topology, &[]).unwrap();
    assert_eq!(assumed, []);
    assert_eq!(control(&same, "02:00.0"), 0x1d);
    for (id, function) in topology.functions() {
        assert_eq!(function.parent(), same.function(id).parent());
        assert_eq!(function.info().registers, same.function(id).info().registers);
    }
}

#[test]
fn cleared_bits_are_clear_and_the_others_stay() {
    let topology = switch(0x1d).topology();
    assert_eq!(decide(&topology, "03:00.0", "04:00.0"), MapType::NotSupported);
    let clear = |address| acs(&topology, address, AcsBits::REDIRECT, AcsBits::empty());
    let one = apply(&topology, &[clear("02:00.0")]).unwrap().topology;
    assert_eq!((control(&one, "02:00.0"), control(&one, "02:01.0")), (0x11, 0x1d));
    assert_eq!(decide(&one, "03:00.0", "04:00.0"), MapType::NotSupported);
    let both = apply(&topology, &[clear("02:00.0"), clear("02:01.0")]).unwrap().topology;
    assert_eq!(decide(&both, "03:00.0", "04:00.0"), MapType::BusAddr);
}

#[test]
fn bits_that_are_not_there_cannot_be_set_and_the_error_shows_the_capability() {
    let topology = switch(0).topology();
    let error = apply(&topology, &[acs(&topology, "02:00.0", AcsBits::empty(), AcsBits::EC)]).unwrap_err();
    assert_eq!(error.to_string(), "0000:02:00.0 cannot set EC: its capability word is 0x005f");
    let none = apply(&topology, &[acs(&topology, "03:00.0", AcsBits::RR, AcsBits::empty())]).unwrap_err();
    assert!(matches!(none, ChangeError::NoAcs { .. }), "{none}");
    let both = apply(&topology, &[acs(&topology, "02:00.0", AcsBits::RR, AcsBits::RR)]).unwrap_err();
    assert!(matches!(both, ChangeError::BothWays { .. }), "{both}");
}

#[test]
fn a_bit_that_is_set_without_being_offered_is_wired() {
    let registers = AcsRegisters::standard(None, bits(0x1f), bits(0x3d), vec![]);
    let topology = switch(0).edit("02:00.0", |info| info.registers.acs = Acs::Present(registers)).topology();
    let error = apply(&topology, &[acs(&topology, "02:00.0", AcsBits::REDIRECT, AcsBits::empty())]).unwrap_err();
    assert!(matches!(error, ChangeError::HardWired { bits: AcsBits::EC, .. }), "{error}");
}

#[test]
fn an_unread_word_is_known_not_to_redirect_only_once_all_three_bits_are_cleared() {
    let tree = switch(0).edit("02:00.0", |info| info.registers.acs = Acs::Unknown(AcsUnread::Denied));
    let topology = tree.topology();
    let after = |clear, set| apply(&topology, &[acs(&topology, "02:00.0", clear, set)]).unwrap();
    for (clear, set) in [(AcsBits::RR | AcsBits::CR, AcsBits::empty()), (AcsBits::REDIRECT, AcsBits::UF)] {
        let changed = after(clear, set);
        assert_eq!(decide(&changed.topology, "03:00.0", "04:00.0"), MapType::Unknown);
        assert_eq!(changed.assumed.len(), 1);
    }
    let changed = after(AcsBits::REDIRECT, AcsBits::empty());
    assert_eq!(decide(&changed.topology, "03:00.0", "04:00.0"), MapType::BusAddr);
    assert!(changed.assumed[0].evidence.contains("other bits"), "{:?}", changed.assumed);
}

/// §12 row 5: Linux reads another word than the hardware obeys.
#[test]
fn on_ports_with_double_words_linuxs_word_stays() {
    let registers = AcsRegisters {
        offset: Some(0x140),
        capability: bits(0x5f),
        control: Fact::Known(bits(0x1d)),
        control_read_by_linux: bits(0x04),
        egress: vec![],
    };
    let tree = Tree::two_root_ports("intel:6", "8086:29c0").id("00:01.0", "8086:a110");
    let topology = tree.edit("00:01.0", |info| info.registers.acs = Acs::Present(registers)).topology();
    let changed = apply(&topology, &[acs(&topology, "00:01.0", AcsBits::REDIRECT, AcsBits::empty())]).unwrap();
    assert_eq!(control(&changed.topology, "00:01.0"), 0x11);
    assert_eq!(decide(&changed.topology, "01:00.0", "01:00.1"), MapType::NotSupported);
    assert!(changed.assumed[0].evidence.contains("another word"));
}

fn with_groups(tree: Tree, kind: &str, driver: Option<&str>) -> Topology {
    let driver = driver.map(str::to_string);
    let topology = tree
        .edit("03:00.0", |info| {
            info.iommu_group = Some(4);
            info.driver = driver;
        })
        .topology();
    let mut builder = topology.to_builder();
    builder.group(IommuGroup { id: 4, kind: Some(kind.to_string()), reserved: vec![] });
    builder.build()
}

fn mode(topology: &Topology) -> Option<IommuMode> {
    Domain::of(topology, at(topology, "03:00.0")).mode
}

#[test]
fn a_mode_for_the_whole_machine_goes_over_the_types_of_groups_but_not_over_vfio() {
    let topology = with_groups(switch(0), "DMA-FQ", None);
    assert_eq!(mode(&topology), Some(IommuMode::Translated));
    for wanted in [IommuMode::Identity, IommuMode::None, IommuMode::Translated] {
        assert_eq!(mode(&apply(&topology, &[Change::Iommu(wanted)]).unwrap().topology), Some(wanted));
    }
    let vfio = with_groups(switch(0), "DMA", Some("vfio-pci"));
    let after = apply(&vfio, &[Change::Iommu(IommuMode::Identity)]).unwrap().topology;
    assert_eq!(mode(&after), Some(IommuMode::Translated));
}

fn boot(topology: &Topology, line: &str) -> Changed {
    apply(topology, &[Change::CommandLine(line.to_string())]).unwrap()
}

fn with_line(topology: Topology, line: &str) -> Topology {
    let mut machine = topology.machine().clone();
    machine.command_line = Some(line.to_string());
    topology.with_machine(machine)
}

#[test]
fn command_lines_change_the_mode() {
    let here = with_line(with_groups(switch(0), "DMA-FQ", None), "quiet intel_iommu=on");
    for (line, expected) in [
        ("quiet intel_iommu=on", Some(IommuMode::Translated)),
        ("intel_iommu=on iommu=pt", Some(IommuMode::Identity)),
        ("intel_iommu=on iommu.passthrough=1", Some(IommuMode::Identity)),
        ("intel_iommu=on iommu=pt iommu.passthrough=0", Some(IommuMode::Translated)),
        ("intel_iommu=on iommu.strict=1", Some(IommuMode::Translated)),
        ("intel_iommu=sm_on,on iommu=pt", Some(IommuMode::Identity)),
        ("intel_iommu=off", Some(IommuMode::None)),
        ("intel_iommu=on iommu=off", Some(IommuMode::None)),
        // Another vendor's.
        ("intel_iommu=on amd_iommu=off", Some(IommuMode::Translated)),
        // What switched it on is gone, and the kernel's own default is not known.
        ("quiet", None),
        // Behind the end of the kernel's arguments.
        ("intel_iommu=on -- iommu=pt", Some(IommuMode::Translated)),
    ] {
        assert_eq!(mode(&boot(&here, line).topology), expected, "{line}");
    }
}

#[test]
fn what_a_parameter_forces_is_forced_and_what_comes_from_firmware_stays_and_is_said() {
    // The kernel asked for SV, RR, CR and UF here, so firmware's bits cannot be seen.
    let here = with_line(with_groups(switch(0x1d), "DMA", None), "intel_iommu=on");
    let changed = boot(&here, "intel_iommu=on pci=disable_acs_redir=0000:02:00.0");
    assert_eq!(control(&changed.topology, "02:00.0"), 0x11);
    assert_eq!(control(&changed.topology, "02:01.0"), 0x1d);
    let said: Vec<&str> = changed.assumed.iter().map(|reason| reason.object.as_str()).collect();
    assert_eq!(said, ["0000:02:00.0"]);
    assert!(changed.assumed[0].evidence.starts_with("SV, UF"), "{:?}", changed.assumed);
    // All bits named: nothing is left to firmware.
    let changed = boot(&here, "intel_iommu=on pci=config_acs=0x10001@0000:02:00.0");
    assert_eq!(control(&changed.topology, "02:00.0"), 0x11);
    assert_eq!(changed.assumed, []);
}

/// Table 11.4, rows 1 to 4, seen backwards: without an IOMMU the word is firmware's own.
#[test]
fn firmwares_bits_are_seen_where_the_present_line_lets_them_through() {
    let mut machine = switch(0x10).topology().machine().clone();
    machine.iommu = Some(IommuMode::None);
    let here = with_line(switch(0x10).topology().with_machine(machine), "quiet");
    let changed = boot(&here, "quiet pci=disable_acs_redir=0000:02:00.0");
    assert_eq!((control(&changed.topology, "02:00.0"), changed.assumed.len()), (0x10, 0));
    // Switched on, the kernel adds its four bits to firmware's one.
    let changed = boot(&here, "intel_iommu=on");
    assert_eq!(control(&changed.topology, "02:00.0"), KERNELS.bits());
    // With the parameter they are not added.
    let changed = boot(&here, "intel_iommu=on pci=disable_acs_redir=0000:02:00.0");
    assert_eq!((control(&changed.topology, "02:00.0"), control(&changed.topology, "02:01.0")), (0x10, 0x1d));
}

#[test]
fn taking_a_parameter_away_brings_the_kernels_own_bits_back() {
    let here = with_line(with_groups(switch(0x00), "DMA", None), "intel_iommu=on pci=disable_acs_redir=0000:02:00.0");
    let changed = boot(&here, "intel_iommu=on");
    assert_eq!(control(&changed.topology, "02:00.0"), KERNELS.bits());
}

#[test]
fn a_boot_undoes_what_was_written_since_the_last_and_says_so() {
    let here = with_line(with_groups(switch(0x00), "DMA", None), "intel_iommu=on");
    let changed = boot(&here, "intel_iommu=on iommu=pt");
    assert_eq!(control(&changed.topology, "02:00.0"), KERNELS.bits());
    assert_eq!(changed.assumed.len(), 2, "{:?}", changed.assumed);
    assert!(changed.assumed[0].evidence.starts_with("SV, RR, CR, UF are not what the present boot wrote"));
}

#[test]
fn an_unread_port_that_a_line_names_is_known_not_to_redirect() {
    let tree = switch(0).edit("02:00.0", |info| info.registers.acs = Acs::Unknown(AcsUnread::Denied));
    let here = with_line(tree.topology(), "quiet");
    let changed = boot(&here, "quiet pci=disable_acs_redir=0000:02:00.0");
    assert_eq!(decide(&changed.topology, "03:00.0", "04:00.0"), MapType::BusAddr);
    assert_eq!(decide(&boot(&here, "quiet").topology, "03:00.0", "04:00.0"), MapType::Unknown);
}

fn moved(topology: &Topology, function: &str, below: &str) -> Result<Changed, ChangeError> {
    apply(topology, &[Change::Move { function: at(topology, function), below: at(topology, below) }])
}

/// Two switches below two root ports, `03:00.0` and `04:00.0` below the first, `08:00.0` below the second.
fn two_switches() -> Topology {
    let first = Tree::switch("intel:6", "8086:29c0").port("00:02.0", 5, 8);
    let second = first.port("05:00.0", 6, 8).port("06:00.0", 7, 7).port("06:01.0", 8, 8);
    second.device("08:00.0").topology()
}

#[test]
fn a_function_takes_its_route_along_to_another_switch() {
    let topology = two_switches();
    assert_eq!(decide(&topology, "03:00.0", "08:00.0"), MapType::NotSupported);
    let changed = moved(&topology, "03:00.0", "06:00.0").unwrap();
    assert_eq!(decide(&changed.topology, "03:00.0", "08:00.0"), MapType::BusAddr);
    assert_eq!(decide(&changed.topology, "03:00.0", "04:00.0"), MapType::NotSupported);
    assert!(changed.assumed[0].evidence.contains("bus number"));
    for port in ["06:00.0", "05:00.0", "00:02.0", "02:00.0", "00:01.0"] {
        let windows = changed.topology.function(at(&topology, port)).info().registers.windows;
        assert!(!windows.all_read(), "{port}");
    }
    // Up to a lower bus number, too.
    let back = moved(&topology, "08:00.0", "00:01.0");
    assert!(matches!(back, Err(ChangeError::Occupied { .. })), "01:00.0 is there: {back:?}");
    let topology = Tree::switch("intel:6", "8086:29c0").port("00:02.0", 5, 5).device("05:00.0").port("00:03.0", 6, 6);
    let topology = topology.topology();
    let up = moved(&topology, "05:00.0", "00:03.0").unwrap().topology;
    assert_eq!(up.contradictions(), []);
}

#[test]
fn a_bridge_takes_along_what_is_below_it_and_a_physical_function_its_virtual_ones() {
    let topology = two_switches();
    let changed = moved(&topology, "02:01.0", "05:00.0");
    assert!(matches!(changed, Err(ChangeError::Occupied { .. })), "06:01.0 is there: {changed:?}");
    let tree = Tree::switch("intel:6", "8086:29c0").port("00:02.0", 5, 5).device("03:00.1");
    let physical = Some("03:00.0".parse().unwrap());
    let topology = tree.edit("03:00.1", |info| info.physfn = physical).topology();
    let changed = moved(&topology, "03:00.0", "00:02.0").unwrap().topology;
    assert_eq!(changed.upstream(at(&topology, "03:00.1")), changed.upstream(at(&topology, "03:00.0")));
    assert_eq!(decide(&changed, "03:00.0", "03:00.1"), MapType::BusAddr);
    let changed = moved(&topology, "01:00.0", "00:02.0").unwrap().topology;
    assert_eq!(decide(&changed, "03:00.0", "04:00.0"), MapType::BusAddr);
}

#[test]
fn impossible_moves_are_refused_by_name() {
    let tree = Tree::switch("intel:6", "8086:29c0").device("03:00.1");
    let physical = Some("03:00.0".parse().unwrap());
    let topology = tree.edit("03:00.1", |info| info.physfn = physical).topology();
    let error = |function, below| moved(&topology, function, below).unwrap_err();
    assert!(matches!(error("03:00.0", "04:00.0"), ChangeError::NotABridge { .. }));
    assert!(matches!(error("01:00.0", "02:00.0"), ChangeError::BelowItself { .. }));
    assert!(matches!(error("01:00.0", "01:00.0"), ChangeError::BelowItself { .. }));
    assert!(matches!(error("03:00.1", "02:01.0"), ChangeError::Virtual { .. }));
    assert!(matches!(error("03:00.0", "02:01.0"), ChangeError::Occupied { .. }));
}

#[test]
fn another_kernel_and_another_cpu_are_taken_as_given() {
    let topology = switch(0x1d).topology();
    let changes = [Change::Cpu("amd:0x19".parse().unwrap()), Change::Kernel("6.1".parse().unwrap())];
    let after = apply(&topology, &changes).unwrap().topology;
    assert_eq!(decide(&after, "03:00.0", "04:00.0"), MapType::ThruHostBridge);
    assert_eq!(after.machine().kernel.unwrap().series(), (6, 1));
}
