//! What is read of a function, register by register.

use super::*;
use peerdma::addr::Bytes;
use peerdma::pcie::Fact;
use peerdma::pcie::acs::AcsBits;
use peerdma::pcie::express::{AtomicSizes, PortType};

fn info(lines: &[&str]) -> FunctionInfo {
    of("PCI bridge: Intel Corporation Device 352a", lines)
}

fn of(head: &str, lines: &[&str]) -> FunctionInfo {
    let lines: String = lines.iter().map(|line| format!("\t{line}\n")).collect();
    function(&topology(&format!("01:00.0 {head}\n{lines}\n")), "01:00.0").info().clone()
}

#[test]
fn express_is_read_from_both_sets_of_registers() {
    let info = info(&[
        "Control: I/O- Mem+ BusMaster- SpecCycle-",
        "Capabilities: [40] Express (v2) Downstream Port (Slot+), MSI 00",
        "\tDevCap:\tMaxPayload 512 bytes, PhantFunc 0",
        "\tDevCtl:\tCorrErr+ NonFatalErr+ FatalErr+ UnsupReq+",
        "\t\tRlxdOrd+ ExtTag- PhantFunc- AuxPwr- NoSnoop-",
        "\t\tMaxPayload 256 bytes, MaxReadReq 4096 bytes",
        "\tLnkCap:\tPort #16, Speed 32GT/s, Width x16, ASPM not supported",
        "\tLnkSta:\tSpeed 16GT/s (downgraded), Width x8 (downgraded)",
        "\t\t AtomicOpsCap: Routing+ 32bit- 64bit+ 128bitCAS-",
        "\t\t AtomicOpsCtl: ReqEn- EgressBlck+",
    ]);
    let express = info.registers.express;
    assert_eq!(info.registers.port_type, Fact::Known(Some(PortType::DownstreamPort)));
    assert_eq!(express.max_payload_supported, Some(Bytes::new(512)));
    assert_eq!((express.max_payload, express.max_read_request), (Some(Bytes::new(256)), Some(Bytes::new(4096))));
    assert_eq!((express.relaxed_ordering, express.no_snoop, express.port_number), (Some(true), Some(false), Some(16)));
    assert_eq!(
        (express.atomic_routing, express.atomic_egress_blocked, express.atomic_requester),
        (Some(true), Some(true), Some(false))
    );
    assert_eq!(express.atomic_completer, Some(AtomicSizes { of_8_bytes: true, ..AtomicSizes::NONE }));
    assert_eq!(express.link.speed.unwrap().to_string(), "16 GT/s");
    assert_eq!((express.link.width, express.link.max_width), (Some(8), Some(16)));
    assert!(express.link.is_degraded());
    let command = info.registers.command.unwrap();
    assert!(command.memory && !command.bus_master);
}

#[test]
fn every_wording_of_a_port_type_is_known() {
    for (words, port_type) in [
        ("(v2) Endpoint, MSI 00", PortType::Endpoint),
        ("Legacy Endpoint, MSI 00", PortType::LegacyEndpoint),
        ("(v2) Root Port (Slot+), IntMsgNum 0", PortType::RootPort),
        ("(v1) Upstream Port, MSI 00", PortType::UpstreamPort),
        ("(v2) PCI-Express to PCI/PCI-X Bridge, MSI 00", PortType::PciExpressToPci),
        ("(v2) PCIe to PCI/PCI-X bridge, MSI 00", PortType::PciExpressToPci),
        ("(v2) PCI/PCI-X to PCI-Express Bridge (Slot-), MSI 00", PortType::PciToPciExpress),
        ("(v2) Root Complex Integrated Endpoint, MSI 00", PortType::RootComplexIntegrated),
        ("(v2) Root Complex Event Collector, MSI 00", PortType::RootComplexEventCollector),
        ("(v2) Unknown type 3, MSI 00", PortType::Reserved(3)),
    ] {
        let line = format!("Capabilities: [40] Express {words}");
        assert_eq!(info(&[&line]).registers.port_type, Fact::Known(Some(port_type)), "{words}");
    }
    assert_eq!(info(&["Capabilities: [40] Express (v2) Teleporter"]).registers.port_type, Fact::Unknown);
    assert_eq!(info(&["Capabilities: [40] Express (v"]).registers.port_type, Fact::Unknown);
}

#[test]
fn a_port_type_is_none_only_where_all_capabilities_are_shown() {
    let pm = "Capabilities: [40] Power Management version 3";
    assert_eq!(info(&["Flags: fast devsel", pm]).registers.port_type, Fact::Known(None));
    assert_eq!(info(&[pm]).registers.port_type, Fact::Unknown);
    assert_eq!(info(&["Flags: fast devsel", "Capabilities: <access denied>"]).registers.port_type, Fact::Unknown);
}

#[test]
fn virtualisation_is_read_where_its_registers_are_shown() {
    let registers = info(&[
        "Control: I/O- Mem+ BusMaster+",
        "Capabilities: [180 v1] Single Root I/O Virtualization (SR-IOV)",
        "\tIOVCtl:\tEnable+ Migration- Interrupt- MSE+ ARIHierarchy+",
        "\tInitial VFs: 8, Total VFs: 8, Number of VFs: 2, Function Dependency Link: 00",
        "\tVF offset: 256, stride: 2, Device ID: 101e",
        "\tRegion 0: Memory at 0000218002000000 (64-bit, prefetchable)",
        "Capabilities: [200 v1] Address Translation Service (ATS)",
        "\tATSCtl:\tEnable-, Smallest Translation Unit: 00",
        "Capabilities: [210 v1] Page Request Interface (PRI)",
        "\tPRICtl: Enable+ Reset-",
        "Capabilities: [220 v1] Process Address Space ID (PASID)",
        "\tPASIDCap: Exec- Priv-, Max PASID Width: 14",
        "\tPASIDCtl: Enable+ Exec- Priv-",
        "Capabilities: [240 v1] Physical Resizable BAR",
        "\tBAR 1: current size: 64GB, supported: 64MB 128MB 64GB",
        "Capabilities: [280 v1] Virtual Resizable BAR",
        "\tBAR 2: current size: 16MB, supported: 16MB",
    ])
    .registers;
    let sriov = registers.sriov.known().unwrap().unwrap();
    assert_eq!(sriov.vf_offsets().collect::<Vec<_>>(), [256, 258]);
    assert!(!registers.ats.known().unwrap().unwrap().enabled);
    assert!(registers.pri.known().unwrap().unwrap().enabled);
    assert_eq!(registers.pasid.known().unwrap().unwrap().width, 20);
    assert_eq!(registers.resizable.len(), 1);
    assert_eq!((registers.resizable[0].index, registers.resizable[0].size), (1, Bytes::new(64 << 30)));
    assert_eq!(registers.resizable[0].sizes.len(), 3);
    let express = "Capabilities: [40] Express Endpoint, MSI 00";
    let named =
        info(&["Flags: fast devsel", express, "Capabilities: [180] Single Root I/O Virtualization (SR-IOV)"]).registers;
    assert_eq!((named.sriov, named.ats), (Fact::Unknown, Fact::Unknown));
}

#[test]
fn linux_and_lspci_read_the_wrong_word_of_some_intel_root_ports() {
    let lines = [
        "Control: I/O- Mem+",
        "Capabilities: [40] Express (v2) Root Port (Slot+), MSI 00",
        "Capabilities: [140 v1] Access Control Services",
        "\tACSCap:\tSrcValid+ TransBlk+ ReqRedir+ CmpltRedir+ UpstreamFwd+ EgressCtrl- DirectTrans-",
        "\tACSCtl:\tSrcValid- TransBlk- ReqRedir+ CmpltRedir- UpstreamFwd- EgressCtrl- DirectTrans-",
    ];
    let control = |head: &str| of(head, &lines).registers.acs.registers().unwrap().clone();
    let spt = control("PCI bridge [0604]: Intel Corporation Root Port [8086:a110]");
    assert_eq!((spt.control, spt.control_read_by_linux), (Fact::Unknown, AcsBits::RR));
    assert_eq!(control("PCI bridge: Intel Corporation Device a110").control, Fact::Unknown, "by name");
    let other = control("PCI bridge [0604]: Intel Corporation Root Port [8086:352a]");
    assert_eq!((other.control, other.offset), (Fact::Known(AcsBits::RR), Some(0x140)));
}

#[test]
fn windows_and_bars_are_read_unless_they_are_closed() {
    let bridge = info(&[
        "Bus: primary=00, secondary=01, subordinate=06, sec-latency=0",
        "Memory behind bridge: fda00000-fe1fffff [size=8M] [32-bit]",
        "Prefetchable memory behind bridge: 0000218000000000-00002180ffffffff [size=4G] [64-bit]",
    ]);
    let windows = bridge.registers.windows;
    assert_eq!(windows.memory.known().unwrap().unwrap().last().as_u64(), 0xfe1f_ffff);
    assert_eq!(windows.prefetchable.known().unwrap().unwrap().start().as_u64(), 0x2180_0000_0000);
    for closed in ["fff00000-000fffff [disabled]", "fff00000-000fffff", "[disabled] [32-bit]", "None"] {
        let line = format!("Memory behind bridge: {closed}");
        assert_eq!(info(&[&line]).registers.windows.memory, Fact::Known(None), "{closed}");
    }
    let bars = info(&[
        "Region 0: Memory at <ignored> (64-bit, prefetchable) [disabled] [size=32M]",
        "Region 2: [virtual] Memory at fe000000 (32-bit, non-prefetchable) [size=4K]",
        "Region 3: Memory at <unassigned> (32-bit, non-prefetchable) [disabled]",
        "Region 4: I/O ports at e000 [size=128]",
        "Region 5: Memory at fd000000 (32-bit, non-prefetchable)",
        "Region 9: Memory at fd000000 (32-bit, non-prefetchable) [size=4K]",
    ])
    .bars;
    assert_eq!(bars.iter().map(|bar| bar.index).collect::<Vec<_>>(), [0, 2, 3, 5]);
    assert_eq!((bars[0].cpu, bars[0].size, bars[0].prefetchable), (None, Some(Bytes::new(32 << 20)), true));
    assert_eq!(bars[1].cpu.unwrap().start().as_u64(), 0xfe00_0000);
    assert_eq!(bars[3].cpu, None, "without a size it may be the register's address");
}

#[test]
fn header_types_are_told_by_bus_numbers_then_by_class() {
    let header = |head: &str, lines: &[&str]| of(head, lines).registers.header;
    let buses = "Bus: primary=00, secondary=05, subordinate=06, sec-latency=0";
    assert_eq!(header("PCI bridge: x", &[buses]), Some(HeaderType::Bridge));
    assert_eq!(header("CardBus bridge: x", &[buses]), Some(HeaderType::CardBus));
    assert_eq!(header("PCI bridge: x", &["Flags: fast devsel"]), None);
    assert_eq!(header("Unheard of: x", &["Flags: fast devsel"]), Some(HeaderType::Device));
    assert_eq!(header("3D controller: x", &[]), Some(HeaderType::Device));
    assert_eq!(header("Unheard of: x", &[]), None);
    assert_eq!(header("PCI bridge: x", &["!!! Invalid class 0604 for header type 00"]), Some(HeaderType::Device));
    assert_eq!(of("PCI bridge: x", &["Bus: primary=00, secondary=0, subordinate=06"]).registers.buses, None);
}

#[test]
fn what_people_look_for_is_kept() {
    let info = of(
        "Non-Volatile memory controller: Some Vendor Some Drive (rev 01) (prog-if 02 [NVM Express])",
        &[
            "Flags: bus master, fast devsel, latency 0, IRQ 24, NUMA node 1, IOMMU group 12",
            "Kernel driver in use: nvme",
        ],
    );
    assert_eq!((info.numa_node, info.iommu_group, info.driver.as_deref()), (Some(1), Some(12), Some("nvme")));
    assert_eq!(info.label.as_deref(), Some("Some Vendor Some Drive"));
    assert_eq!(info.registers.class, Some(ClassCode::new(0x010802)));
    let info = of("3D controller [0302]: NVIDIA Corporation Device [10de:2330]", &["NUMA node: 0", "IOMMU group: 7"]);
    assert_eq!((info.numa_node, info.iommu_group), (Some(0), Some(7)));
    assert_eq!(info.label.as_deref(), Some("NVIDIA Corporation Device 2330"));
    assert_eq!(of("0302: 10de:2330", &[]).label, None);
}

#[test]
fn a_name_stands_for_its_candidates_and_a_number_for_itself() {
    let names = PciNames::from_pci_ids("1022  AMD\n\t14a4  Root Complex\n\t14d8  Root Complex\n");
    let read = |text: &str| {
        let topology = read(text, &names).unwrap().builder.build();
        function(&topology, "00:00.0").info().candidate_ids().iter().map(PciId::to_string).collect::<Vec<_>>()
    };
    assert_eq!(read("00:00.0 Host bridge: AMD Root Complex (rev 01)\n"), ["1022:14a4", "1022:14d8"]);
    assert_eq!(read("00:00.0 Host bridge [0600]: AMD Root Complex [1022:14d8] (rev 01)\n"), ["1022:14d8"]);
    assert!(read("00:00.0 Host bridge: AMD Other Complex\n").is_empty());
}
