//! What reports say, of whom, and how far that reaches into a verdict.

#![expect(clippy::unwrap_used, reason = "helpers of tests: what they cannot do is a failed test")]

use peerdma::pcie::express::PortType;
use peerdma::pcie::{Fact, PciAddr, PciId};
use peerdma::route::knowledge::{Entry, Finding, Key, about, listed_by_linux, observed};
use peerdma::route::root_complex::{Forwarding, forwarding};
use peerdma::topology::{
    Builder, FunctionId, FunctionInfo, HostBridgeFacts, HostBridgeId, PeerForwarding, Position, Topology,
};

fn address(text: &str) -> PciAddr {
    text.parse().unwrap()
}

fn id(text: &str) -> PciId {
    let (vendor, device) = text.split_once(':').unwrap();
    PciId { vendor: u16::from_str_radix(vendor, 16).unwrap(), device: u16::from_str_radix(device, 16).unwrap() }
}

/// A host bridge with a switch of two ports, a device below each, on root bus `bus`.
fn hierarchy(builder: &mut Builder, bus: u8, root_complex: &str, switch: &str) {
    let mut add = |at: String, position, id_text: &str, port_type| {
        let mut info = FunctionInfo::new(address(&at), position);
        info.registers.id = Some(id(id_text));
        info.registers.port_type = Fact::Known(port_type);
        builder.function(info);
    };
    let at = |bus: u8, device: u8| format!("{bus:02x}:{device:02x}.0");
    let below = |bus: u8, device: u8| Position::Below(address(&at(bus, device)));
    add(at(bus, 0), Position::RootBus { bus }, root_complex, None);
    add(at(bus, 1), Position::RootBus { bus }, "8086:0001", Some(PortType::RootPort));
    add(at(bus + 1, 0), below(bus, 1), switch, Some(PortType::UpstreamPort));
    for port in 0..2 {
        add(at(bus + 2, port), below(bus + 1, 0), switch, Some(PortType::DownstreamPort));
        add(at(bus + 3 + port, 0), below(bus + 2, port), "10de:2330", Some(PortType::Endpoint));
    }
}

struct Machine {
    builder: Builder,
}

impl Machine {
    fn new(root_complexes: &[&str]) -> Self {
        let mut builder = Builder::new();
        for (bus, root_complex) in (0u8..).step_by(0x20).zip(root_complexes) {
            hierarchy(&mut builder, bus, root_complex, "10b5:8796");
        }
        Self { builder }
    }

    fn cpu(mut self, cpu: &str) -> Self {
        self.builder.machine().cpu = Some(cpu.parse().unwrap());
        self
    }

    fn named(mut self, name: &str) -> Self {
        self.builder.machine().name = Some(name.to_string());
        self
    }

    fn states(mut self, bus: u8, peer: PeerForwarding) -> Self {
        self.builder.host_bridge(0, bus, HostBridgeFacts { peer: Some(peer), ..HostBridgeFacts::default() });
        self
    }

    fn build(self) -> Topology {
        self.builder.build()
    }
}

fn hosts(topology: &Topology) -> Vec<HostBridgeId> {
    topology.host_bridges().map(|(id, _)| id).collect()
}

/// From the first host bridge to itself.
fn within(topology: &Topology) -> Forwarding {
    let host = hosts(topology)[0];
    forwarding(topology, Some(host), Some(host))
}

/// From the first host bridge to the second.
fn across(topology: &Topology) -> Forwarding {
    let hosts = hosts(topology);
    forwarding(topology, Some(hosts[0]), Some(hosts[1]))
}

fn known(forwarding: &Forwarding) -> (Option<bool>, Option<bool>) {
    (forwarding.writes.known(), forwarding.reads.known())
}

fn function(topology: &Topology, at: &str) -> FunctionId {
    topology.at(address(at)).unwrap()
}

fn findings(entries: &[Entry]) -> Vec<Finding> {
    entries.iter().map(|entry| entry.finding).collect()
}

#[test]
fn a_root_complex_that_answered_all_ones_is_known_to_lose_both_directions() {
    let forwarding = within(&Machine::new(&["8086:4c43"]).build());
    assert_eq!(known(&forwarding), (Some(false), Some(false)));
    assert!(forwarding.sources[0].to_string().contains("intel/compute-runtime#935"), "{:?}", forwarding.sources);
}

#[test]
fn one_that_works_when_patched_forwards_although_linux_does_not_list_it() {
    let topology = Machine::new(&["8086:6f00"]).cpu("intel:6").build();
    let forwarding = within(&topology);
    assert_eq!(known(&forwarding), (Some(true), Some(true)));
    assert!(forwarding.sources[0].to_string().contains("ROCm/ROCR-Runtime#355"), "{:?}", forwarding.sources);
}

/// Seen on one socket; what a second one does with it nobody has reported.
#[test]
fn a_good_report_does_not_reach_to_another_host_bridge_and_a_bad_one_does() {
    let good = across(&Machine::new(&["8086:6f00", "8086:6f00"]).cpu("intel:6").build());
    assert_eq!((known(&good), good.sources.len()), ((None, None), 0));
    for pair in [["8086:4c43", "8086:09a2"], ["8086:09a2", "8086:4c43"]] {
        assert_eq!(known(&across(&Machine::new(&pair).build())), (Some(false), Some(false)), "{pair:?}");
    }
}

#[test]
fn a_cpu_whose_root_complex_takes_writes_only_fails_reads_whatever_its_id() {
    let forwarding = within(&Machine::new(&["8086:7f00"]).cpu("intel:6:0xc6").build());
    assert_eq!(known(&forwarding), (Some(true), Some(false)));
    assert!(forwarding.sources[0].to_string().contains("open-gpu-kernel-modules#1253"), "{:?}", forwarding.sources);
    let other_model = within(&Machine::new(&["8086:7f00"]).cpu("intel:6:0xa7").build());
    assert_eq!(known(&other_model), (None, None), "a neighbour's report is not this model's");
    let no_model = within(&Machine::new(&["8086:7f00"]).cpu("intel:6").build());
    assert_eq!(known(&no_model), (None, None), "family 6 is most of Intel");
}

#[test]
fn a_platform_is_found_by_its_name_where_nobody_noted_an_id() {
    let forwarding = within(&Machine::new(&["8086:7f00"]).named("workstation, ARROW LAKE-S, Z890").build());
    assert_eq!(known(&forwarding), (Some(true), Some(false)));
    assert_eq!(known(&within(&Machine::new(&["8086:7f00"]).named("workstation").build())), (None, None));
}

#[test]
fn linux_s_list_and_rule_speak_where_nobody_reported() {
    let listed = across(&Machine::new(&["8086:09a2", "8086:2030"]).cpu("intel:6").build());
    assert_eq!(known(&listed), (Some(true), Some(true)));
    let same_only = Machine::new(&["8086:3c00", "8086:3c00"]).cpu("intel:6").build();
    assert_eq!(known(&within(&same_only)), (Some(true), Some(true)));
    assert_eq!(known(&across(&same_only)), (None, None), "listed within one host bridge only");
    let zen = across(&Machine::new(&["1022:1480", "1022:1480"]).cpu("amd:0x19").build());
    assert_eq!(known(&zen), (Some(true), Some(true)));
    let nobody = within(&Machine::new(&["8086:7f00"]).cpu("intel:6").build());
    assert_eq!((known(&nobody), nobody.sources.len()), ((None, None), 0));
}

/// Zen's rule opens every root complex of the CPU; what was seen of this ID outweighs it.
#[test]
fn a_report_of_this_very_id_outweighs_linux_and_both_are_named() {
    let forwarding = within(&Machine::new(&["8086:4c43"]).cpu("amd:0x19").build());
    assert_eq!(known(&forwarding), (Some(false), Some(false)));
    assert_eq!(forwarding.sources.len(), 2, "{:?}", forwarding.sources);
    assert!(forwarding.sources[1].to_string().starts_with("Linux takes every root complex"));
    let reads_only = within(&Machine::new(&["8086:09a2"]).cpu("intel:6:0xc6").build());
    assert_eq!(known(&reads_only), (Some(true), Some(false)));
    assert!(reads_only.sources[1].to_string().starts_with("Linux lists"), "{:?}", reads_only.sources);
}

#[test]
fn what_the_input_states_of_this_machine_outweighs_everything() {
    let topology = Machine::new(&["8086:4c43"]).cpu("amd:0x19").states(0, PeerForwarding::Forwards).build();
    let forwarding = within(&topology);
    assert_eq!(known(&forwarding), (Some(true), Some(true)));
    let sources: Vec<String> = forwarding.sources.iter().map(ToString::to_string).collect();
    assert_eq!(sources, ["the input states that host bridge 0000:00 forwards reads and writes"]);
}

#[test]
fn one_host_bridge_that_is_stated_to_lose_requests_settles_it_for_the_pair() {
    let machine = || Machine::new(&["8086:7f00", "8086:7f00"]).cpu("intel:6");
    let lost = across(&machine().states(0x20, PeerForwarding::Nothing).build());
    assert_eq!(known(&lost), (Some(false), Some(false)));
    let half = across(&machine().states(0, PeerForwarding::WritesOnly).build());
    assert_eq!(known(&half), (None, Some(false)));
    let one_good = across(&machine().states(0, PeerForwarding::Forwards).build());
    assert_eq!(known(&one_good), (None, None), "the other may lose it");
    let unknown_other = forwarding(&machine().build(), None, None);
    assert_eq!(known(&unknown_other), (None, None));
}

#[test]
fn entries_about_a_pair_come_from_its_root_complexes_switches_drivers_and_cpu() {
    let mut machine = Machine::new(&["8086:6f00", "8086:09a2"]).cpu("arm:0");
    let with_driver = |builder: &mut Builder, at: &str, driver: &str| {
        let mut info = FunctionInfo::new(address(at), Position::RootBus { bus: 0x40 });
        info.driver = Some(driver.to_string());
        builder.function(info);
    };
    with_driver(&mut machine.builder, "40:00.0", "amdgpu");
    let topology = machine.build();
    let (near, far, alone) =
        (function(&topology, "03:00.0"), function(&topology, "23:00.0"), function(&topology, "40:00.0"));

    let entries = about(&topology, near, far);
    assert_eq!(
        findings(&entries),
        [Finding::WorksWhenPatched, Finding::FirmwareNote, Finding::KernelNote, Finding::Forwards]
    );
    assert!(entries[3].source.contains("pci_p2pdma_whitelist"), "{}", entries[3]);

    let exported: Vec<Finding> = findings(&about(&topology, near, alone));
    assert!(exported.contains(&Finding::NoBusAddresses));
    let imported = findings(&about(&topology, alone, near));
    assert!(!imported.contains(&Finding::NoBusAddresses), "what a driver exports does not matter where it imports");
}

/// The switch turns the request around; what is above it is not on the way.
#[test]
fn switches_above_the_first_common_one_are_not_on_the_way() {
    let mut builder = Builder::new();
    hierarchy(&mut builder, 0, "8086:7f00", "1000:c030");
    let below = |at: &str, bridge: &str, id_text: &str, port_type| {
        let mut info = FunctionInfo::new(address(at), Position::Below(address(bridge)));
        info.registers.id = Some(id(id_text));
        info.registers.port_type = Fact::Known(Some(port_type));
        info
    };
    builder.function(below("10:00.0", "02:01.0", "104c:8232", PortType::UpstreamPort));
    for (port, end) in [("11:00.0", "12:00.0"), ("11:01.0", "13:00.0")] {
        builder.function(below(port, "10:00.0", "104c:8233", PortType::DownstreamPort));
        builder.function(below(end, port, "10de:2330", PortType::Endpoint));
    }
    let topology = builder.build();
    let about_pair = |a: &str, b: &str| findings(&about(&topology, function(&topology, a), function(&topology, b)));
    assert_eq!(about_pair("12:00.0", "13:00.0"), []);
    assert_eq!(about_pair("12:00.0", "03:00.0"), [Finding::SpeedNote]);
}

#[test]
fn linux_s_entries_are_the_table_that_decides() {
    let listed: Vec<Entry> = listed_by_linux().collect();
    assert_eq!(listed.len(), 10 + 11 + 4 + 1, "the newest list and the rule for AMD");
    let checked = |ids: &str| listed.iter().find(|entry| entry.key.to_string().ends_with(ids)).unwrap().checked.clone();
    assert_eq!(checked("8086:09a2"), "read in 6.1 and later");
    assert_eq!(checked("1ae0:*"), "read in 7.2 and later");
    assert_eq!(checked("10de:2f95"), "read in 7.3 and later");
    let within = listed.iter().filter(|entry| entry.what.contains("not to another host bridge")).count();
    assert_eq!(within, 4);
}

#[test]
fn every_report_names_its_source_and_stands_in_the_documentation() {
    let documentation = include_str!("../../../docs/knowledge.md");
    for entry in observed() {
        let cites = entry.source.contains('#') || entry.source.starts_with("Linux ");
        assert!(cites && !entry.checked.is_empty() && !entry.what.ends_with('.'), "{entry}");
        assert!(documentation.contains(&format!("| {} |", entry.key)), "{}", entry.key);
        assert!(documentation.contains(&*entry.source), "{}", entry.source);
        assert!(documentation.contains(&format!("`{}`", entry.finding.word())), "{}", entry.finding.word());
    }
}

#[test]
fn no_two_reports_of_one_key_contradict_each_other() {
    let routes = |key: &Key| matches!(key, Key::RootComplex(_) | Key::Cpu { .. } | Key::PlatformName(_));
    for one in observed().iter().filter(|entry| routes(&entry.key)) {
        for other in observed().iter().filter(|other| other.key == one.key) {
            let agree = |a: Option<bool>, b: Option<bool>| a.is_none() || b.is_none() || a == b;
            assert!(agree(one.finding.delivers_writes(), other.finding.delivers_writes()), "{one} / {other}");
            assert!(agree(one.finding.delivers_reads(), other.finding.delivers_reads()), "{one} / {other}");
        }
    }
}
