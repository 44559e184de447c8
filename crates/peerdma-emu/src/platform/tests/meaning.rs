use super::{EVERY_KEY, edited};
use crate::platform::{
    Buses, IommuKind, Model, Payload, PeerForwarding, Platform, PortKind, RegisterProblem, TdiState,
};
use peerdma::addr::{Bytes, PhysAddr};
use peerdma::pcie::acs::{Acs, AcsAbsent, AcsBits, AcsUnread};
use peerdma::pcie::decode::{BridgeBuses, HeaderType};
use peerdma::pcie::express::PortType;
use peerdma::pcie::virt::{Ats, Pasid};
use peerdma::pcie::{ClassCode, Fact};
use peerdma::topology::{CpuVendor, FunctionInfo, IommuMode, Origin};

const SMALLEST: &str = r#"
schema = 1
[[host_bridge]]
name = "hb0"
windows = [{ cpu = 0x9000_0000, bus = 0x9000_0000, size = "256MiB" }]
[[port]]
name = "rp0"
parent = "hb0"
kind = "root"
bdf = "00:01.0"
[[function]]
name = "fn0"
parent = "rp0"
bdf = "01:00.0"
bars = [{ n = 0, size = "4KiB" }]
"#;

fn every_key() -> Platform {
    Platform::parse(EVERY_KEY, "every-key.toml").unwrap()
}

/// A function's or port's description in the topology, by name.
fn info(platform: &Platform, name: &str) -> FunctionInfo {
    let topology = platform.topology();
    let mut found = topology.functions().filter(|(_, function)| function.info().names == [name]);
    let (_, function) = found.next().unwrap();
    function.info().clone()
}

#[test]
fn every_key_is_accepted_and_reaches_the_model() {
    let platform = every_key();
    let cpu = platform.cpu().unwrap();
    assert_eq!(platform.name(), Some("a machine with every key"));
    assert_eq!((&cpu.vendor, cpu.family, cpu.model), (&CpuVendor::Amd, 0x19, Some(0x61)));
    let kernel = platform.kernel().unwrap();
    assert_eq!(kernel.version.unwrap().series(), (6, 12));
    assert_eq!(kernel.cmdline.as_deref(), Some("amd_iommu=on iommu=pt"));
    let iommu = platform.iommu().unwrap();
    assert_eq!((iommu.kind, iommu.mode), (IommuKind::Amd, IommuMode::Identity));
    let [ram] = platform.ram() else { panic!("{:?}", platform.ram()) };
    assert_eq!((ram.range.start(), ram.range.len(), ram.node), (PhysAddr::new(1 << 32), Bytes::new(64 << 30), Some(2)));

    let host = platform.host_bridge_named("hb").unwrap();
    assert_eq!((host.segment, host.root_bus, host.last_bus, host.node), (0x10001, 0x20, 0x3f, Some(2)));
    assert_eq!(host.first_device.unwrap().to_string(), "1022:14a4");
    assert_eq!(host.peer, PeerForwarding::WritesOnly);
    assert_eq!((host.replaces_requester, host.between_ports), (true, true));
    assert_eq!(host.windows[1].cpu.len(), Bytes::new(256 << 20));

    let accel = platform.function_named("accel0").unwrap();
    assert_eq!((accel.model, accel.class), (Model::Accel, ClassCode::new(0x120001)));
    assert_eq!((accel.memory, accel.mask_bits, accel.tdi), (Some(Bytes::new(16 << 30)), 57, Some(TdiState::Locked)));
    assert_eq!((accel.ats, accel.pasid_bits), (true, Some(16)));
    let payload = Payload { max: Bytes::new(512), max_read_request: Bytes::new(1024) };
    assert_eq!(accel.payload, Some(payload));
    assert_eq!((accel.ordering.relaxed, accel.ordering.no_snoop), (Some(true), Some(false)));
    assert_eq!((accel.atomics.requester, accel.atomics.completer), (Some(true), Some(false)));
    assert_eq!((accel.driver.as_deref(), accel.iommu_mode), (Some("vfio-pci"), Some(IommuMode::Translated)));
    assert_eq!((accel.link.unwrap().speed.tenths(), accel.link.unwrap().width), (25, 4));
    let root = platform.port_named("root").unwrap();
    assert_eq!((root.number, root.atomics.routing, root.atomics.egress_blocked), (3, Some(true), Some(true)));
    let [small, large] = accel.bars.as_slice() else { panic!("{:?}", accel.bars) };
    assert_eq!((small.index, small.prefetchable, large.index, large.prefetchable), (0, false, 4, true));
    assert_eq!(large.resizable, [Bytes::new(8 << 30), Bytes::new(16 << 30)]);
}

#[test]
fn what_is_left_out_has_its_documented_default() {
    let platform = Platform::parse(SMALLEST, "f").unwrap();
    assert!(platform.cpu().is_none() && platform.kernel().is_none() && platform.iommu().is_none());
    let host = platform.host_bridge_named("hb0").unwrap();
    assert_eq!((host.segment, host.root_bus, host.last_bus, host.node), (0, 0, 0xff, None));
    assert_eq!((host.first_device, host.peer), (None, PeerForwarding::Unknown));
    assert_eq!((host.replaces_requester, host.between_ports), (false, false));
    let port = platform.port_named("rp0").unwrap();
    assert_eq!((port.id, port.mps), (None, Bytes::new(128)));
    assert_eq!(port.acs, Acs::Absent(AcsAbsent::Declared));
    let function = platform.function_named("fn0").unwrap();
    assert_eq!((function.model, function.class), (Model::Plain, ClassCode::new(0xff0000)));
    let payload = Payload { max: Bytes::new(128), max_read_request: Bytes::new(512) };
    assert_eq!(function.payload, Some(payload));
    assert_eq!((function.ats, function.pasid_bits, function.mask_bits), (false, None, 64));
    assert_eq!((function.memory, function.tdi), (None, None));
    assert_eq!((function.driver.as_deref(), function.iommu_mode, function.link), (None, None, None));
    assert_eq!((function.ordering, function.atomics), Default::default());
    assert_eq!((platform.name(), port.link, port.number), (None, None, 1));

    let machine = platform.topology().machine().clone();
    assert_eq!((machine.name, machine.cpu, machine.kernel, machine.iommu), (None, None, None, None));
    assert!(platform.topology().groups().is_empty() && !machine.groups_are_complete);
    assert_eq!(machine.p2pdma_configured, Fact::Unknown);
}

#[test]
fn each_model_has_a_class_unless_the_file_states_one() {
    for (model, class) in [
        ("gpu", 0x030200),
        ("nvme", 0x010802),
        ("nic", 0x020000),
        ("dma", 0x080100),
        ("accel", 0x120000),
        ("plain", 0xff0000),
    ] {
        let text = edited(SMALLEST, "bdf = \"01:00.0\"", &format!("bdf = \"01:00.0\"\nmodel = \"{model}\""));
        let platform = Platform::parse(&text, "f").unwrap();
        assert_eq!(platform.function_named("fn0").unwrap().class, ClassCode::new(class), "{model}");
    }
}

#[test]
fn the_topology_says_what_the_file_says() {
    let platform = every_key();
    let topology = platform.topology();
    assert!(topology.contradictions().is_empty());
    assert_eq!(topology.machine().iommu, Some(IommuMode::Identity));
    assert_eq!(topology.machine().command_line.as_deref(), Some("amd_iommu=on iommu=pt"));
    for (_, function) in topology.functions() {
        assert_eq!((function.info().origin, function.info().numa_node), (Origin::Platform, Some(2)));
        assert_eq!(function.address().domain(), 0x10001);
    }

    let accel = info(&platform, "accel0");
    assert_eq!(accel.label.as_deref(), Some("accelerator 1e36:0001"));
    assert_eq!(accel.registers.port_type, Fact::Known(Some(PortType::Endpoint)));
    assert_eq!(accel.registers.ats, Fact::Known(Some(Ats { enabled: true })));
    assert_eq!(accel.registers.pasid, Fact::Known(Some(Pasid { enabled: true, width: 16 })));
    assert_eq!(accel.registers.express.max_payload, Some(Bytes::new(512)));
    assert_eq!(accel.registers.express.max_read_request, Some(Bytes::new(1024)));
    assert_eq!(accel.registers.resizable[0].size, Bytes::new(8 << 30));
    assert_eq!(accel.dma_mask_bits, Some(57));
    assert!(accel.registers.bars[1].is_64_bit && !accel.registers.bars[0].is_64_bit);

    let dma = info(&platform, "dma0");
    assert_eq!(dma.registers.port_type, Fact::Known(Some(PortType::RootComplexIntegrated)));
    assert_eq!((dma.registers.id, dma.label.as_deref()), (None, Some("DMA engine")));

    let up = info(&platform, "up");
    assert_eq!(up.registers.acs, Acs::Unknown(AcsUnread::Declared));
    assert_eq!(up.registers.header, Some(HeaderType::Bridge));
    let buses = BridgeBuses { primary: 0x21, secondary: 0x22, subordinate: 0x24 };
    assert_eq!(up.registers.buses, Some(buses));
}

#[test]
fn below_a_pcie_to_pci_bridge_there_is_no_pci_express() {
    let old = info(&every_key(), "old");
    assert_eq!(old.registers.port_type, Fact::Known(None));
    assert_eq!((old.registers.express.max_payload, old.registers.express.max_read_request), (None, None));
    assert_eq!(old.registers.acs, Acs::Absent(AcsAbsent::Declared));
    assert_eq!(info(&every_key(), "to-pci").registers.port_type, Fact::Known(Some(PortType::PciExpressToPci)));
}

#[test]
fn the_first_device_stands_at_00_0_and_is_nothing_else() {
    let topology = every_key().topology();
    let (_, host) = topology.host_bridges().next().unwrap();
    let first = topology.function(host.first_device().unwrap());
    assert_eq!(first.address().to_string(), "10001:20:00.0");
    let info = first.info();
    assert_eq!(info.registers.id.unwrap().to_string(), "1022:14a4");
    assert_eq!(info.registers.class, Some(ClassCode::new(0x088000)));
    assert_eq!(info.registers.acs, Acs::Absent(AcsAbsent::Declared));
    assert!(info.names.is_empty() && info.bars.is_empty());
}

#[test]
fn without_a_first_device_the_lowest_port_is_the_first() {
    let topology = Platform::parse(SMALLEST, "f").unwrap().topology();
    let (_, host) = topology.host_bridges().next().unwrap();
    assert_eq!(topology.function(host.first_device().unwrap()).address().to_string(), "0000:00:01.0");
}

#[test]
fn ports_know_the_buses_below_them_and_a_port_with_nothing_below_has_none() {
    let text = format!("{SMALLEST}[[port]]\nname = \"rp1\"\nparent = \"hb0\"\nkind = \"root\"\nbdf = \"00:02.0\"\n");
    let platform = Platform::parse(&text, "f").unwrap();
    let below = platform.port_named("rp0").unwrap().below.unwrap();
    assert_eq!((below.secondary, below.subordinate), (1, 1));
    assert_eq!(platform.port_named("rp1").unwrap().below, None);
    let empty = BridgeBuses { primary: 0, secondary: 0, subordinate: 0 };
    assert_eq!(info(&platform, "rp1").registers.buses, Some(empty));
    assert!(platform.topology().contradictions().is_empty());
}

#[test]
fn parents_may_come_after_their_children() {
    let (head, tail) = SMALLEST.split_once("[[port]]").unwrap();
    let (port, function) = tail.split_once("[[function]]").unwrap();
    let turned = format!("{head}[[function]]{function}[[port]]{port}");
    assert_eq!(Platform::parse(&turned, "f"), Platform::parse(SMALLEST, "f"));
    // Downstream before upstream before root.
    let mut ports: Vec<&str> = EVERY_KEY.split("\n[[").collect();
    ports.reverse();
    let head = ports.pop().unwrap();
    let turned = format!("{head}\n[[{}", ports.join("\n[["));
    let platform = Platform::parse(&turned, "f").unwrap();
    assert_eq!(platform.topology(), every_key().topology());
}

#[test]
fn cpu_addresses_differ_from_bus_addresses_by_the_windows_offset() {
    let accel = info(&every_key(), "accel0");
    let bar = accel.bars.iter().find(|bar| bar.index == 4).unwrap();
    assert_eq!(bar.bus.unwrap().as_u64(), 0x4000_0000_0000);
    assert_eq!(bar.cpu.unwrap().start(), PhysAddr::new(0x6000_0000_0000));
    assert_eq!(bar.cpu.unwrap().len(), Bytes::new(8 << 30));
}

#[test]
fn linux_reads_no_control_bits_on_root_ports_with_double_word_registers() {
    let with_id = |id: &str| {
        let acs = format!("kind = \"root\"\nid = \"{id}\"\nacs = {{ cap = 0x5f, ctl = 0x1d }}");
        let platform = Platform::parse(&edited(SMALLEST, "kind = \"root\"", &acs), "f").unwrap();
        let Acs::Present(registers) = platform.port_named("rp0").unwrap().acs.clone() else { panic!("no ACS") };
        registers
    };
    let spt = with_id("8086:a110");
    assert_eq!(spt.control, Fact::Known(AcsBits::from_bits_retain(0x1d)));
    assert!(spt.linux_misreads() && spt.control_read_by_linux.is_empty());
    assert!(!with_id("8086:352a").linux_misreads());
}

#[test]
fn enhanced_control_bits_need_the_enhanced_capability() {
    let down = every_key().port_named("down").unwrap().acs.clone();
    assert_eq!(down.registers().unwrap().control, Fact::Known(AcsBits::from_bits_retain(0x1a5f)));
    let error = Platform::parse(&edited(EVERY_KEY, "cap = 0xff, ctl = 0x1a5f", "cap = 0x7f, ctl = 0x1a5f"), "f");
    assert_eq!(error.unwrap_err().problem(), &RegisterProblem::AcsControl { control: 0x1a00, capability: 0x7f }.into());
}

#[test]
fn ports_count_as_devices_unless_they_share_one() {
    let platform = Platform::built_in("two-socket").unwrap();
    let numbers = ["a0", "a1", "a2", "a3"].map(|name| platform.port_named(name).unwrap().number);
    assert_eq!(numbers, [0, 4, 8, 12]);
    let shared = format!("{SMALLEST}[[port]]\nname = \"rp1\"\nparent = \"hb0\"\nkind = \"root\"\nbdf = \"00:01.1\"\n");
    let platform = Platform::parse(&shared, "f").unwrap();
    assert_eq!(["rp0", "rp1"].map(|name| platform.port_named(name).unwrap().number), [0, 1]);
    assert_eq!(info(&platform, "rp1").registers.express.port_number, Some(1));
}

/// A function's own mode wants to be seen where a real machine shows it: in its group.
#[test]
fn modes_stated_one_by_one_become_groups_and_the_machine_s_mode_fills_the_rest() {
    let text = edited(EVERY_KEY, "mask_bits = 32\n", "mask_bits = 32\niommu_mode = \"none\"\n");
    let platform = Platform::parse(&text, "f").unwrap();
    let topology = platform.topology();
    let kind = |name: &str| {
        let group = info(&platform, name).iommu_group?;
        topology.groups().iter().find(|one| one.id == group).unwrap().kind.clone()
    };
    assert_eq!(kind("accel0").as_deref(), Some("DMA"));
    assert_eq!(kind("dma0").as_deref(), Some("identity"));
    assert_eq!(kind("old"), None);
    assert!(topology.machine().groups_are_complete);
    let ids: Vec<u32> = topology.groups().iter().map(|group| group.id).collect();
    assert_eq!(ids, [0, 1], "two functions never share one");
}

#[test]
fn drivers_links_ordering_and_atomics_stand_where_a_scan_would_find_them() {
    let platform = every_key();
    let accel = info(&platform, "accel0");
    assert!(accel.is_vfio_owned());
    let express = accel.registers.express;
    assert_eq!((express.relaxed_ordering, express.no_snoop), (Some(true), Some(false)));
    assert_eq!(express.atomic_requester, Some(true));
    assert_eq!((express.link.speed.unwrap().to_string().as_str(), express.link.width), ("2.5 GT/s", Some(4)));
    let root = info(&platform, "root").registers.express;
    assert_eq!((root.port_number, root.atomic_routing, root.atomic_egress_blocked), (Some(3), Some(true), Some(true)));
    assert_eq!(root.link.width, Some(8));
    assert_eq!(info(&platform, "down").registers.express.atomic_routing, None, "not stated, so not known");
    assert_eq!(platform.topology().machine().name.as_deref(), Some("a machine with every key"));
}

#[test]
fn kinds_and_words_write_themselves_as_they_read() {
    assert_eq!(
        PortKind::ALL.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        "root upstream downstream pcie-pci"
    );
    let peers: Vec<_> = PeerForwarding::ALL.iter().map(|peer| peer.word()).collect();
    assert_eq!(peers, ["forwards", "writes_only", "all_ones", "none", "unknown"]);
    assert_eq!(Buses { first: 1, last: 0x7f }.to_string(), "01-7f");
}

#[test]
fn an_iommu_that_is_there_may_be_off() {
    let one_mode = edited(EVERY_KEY, "iommu_mode = \"translated\"\n", "");
    let text = edited(&one_mode, "mode = \"identity\"", "mode = \"none\"");
    let iommu = *Platform::parse(&text, "f").unwrap().iommu().unwrap();
    assert_eq!((iommu.kind, iommu.mode), (IommuKind::Amd, IommuMode::None));
    let none = one_mode.replace("kind = \"amd\"\nmode = \"identity\"", "kind = \"none\"");
    assert_eq!(Platform::parse(&none, "f").unwrap().topology().machine().iommu, Some(IommuMode::None));
}

/// The documentation's example must work as it stands.
#[test]
fn the_example_in_the_documentation_parses() {
    let documentation = include_str!("../../../../../docs/platform.md");
    let mut examples = 0;
    for block in documentation.split("```toml\n").skip(1) {
        let (text, _) = block.split_once("```").unwrap();
        let platform = Platform::parse(text, "docs/platform.md").unwrap();
        assert!(!platform.functions().is_empty());
        examples += 1;
    }
    assert!(examples > 0);
}

/// Every key of the schema stands in the documentation's table and in `every-key.toml`.
#[test]
fn every_key_is_documented() {
    let documentation = include_str!("../../../../../docs/platform.md");
    let keys = EVERY_KEY.lines().filter(|line| !line.starts_with('#'));
    let keys = keys.flat_map(|line| line.split(['{', ','])).filter_map(|part| Some(part.split_once(" = ")?.0.trim()));
    for key in keys {
        assert!(documentation.contains(&format!("`{key}`")), "{key}");
    }
}
