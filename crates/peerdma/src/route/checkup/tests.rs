//! Gates of machines in which one of them is shut.

use super::*;
use crate::addr::{AddrRange, BusAddr, Bytes, Iova, PhysAddr};
use crate::pcie::acs::{Acs, AcsAbsent};
use crate::pcie::decode::{BridgeWindows, HeaderType};
use crate::pcie::express::PortType;
use crate::pcie::virt::ResizableBar;
use crate::pcie::{ClassCode, PciId};
use crate::route::checkup::fault::{SentKind, meaning};
use crate::topology::{
    Bar, Builder, FunctionInfo, HostBridgeFacts, HostWindow, IommuGroup, IommuMode, MemoryRegion, Origin,
    PeerForwarding, Position, ReservedRegion,
};
use alloc::vec;

fn port(address: &str, position: Position, port_type: PortType) -> FunctionInfo {
    let mut info = FunctionInfo::new(address.parse().unwrap(), position);
    info.registers.id = Some(PciId { vendor: 0x10b5, device: 0x9797 });
    info.registers.class = Some(ClassCode::new(0x06_0400));
    info.registers.header = Some(HeaderType::Bridge);
    info.registers.port_type = Fact::Known(Some(port_type));
    info.registers.acs = Acs::Absent(AcsAbsent::Declared);
    info.registers.windows = BridgeWindows::default();
    info
}

fn device(address: &str, below: &str, class: u32, start: u64, size: u64) -> FunctionInfo {
    let mut info = FunctionInfo::new(address.parse().unwrap(), Position::Below(below.parse().unwrap()));
    info.origin = Origin::Sysfs;
    info.registers.id = Some(PciId { vendor: 0x144d, device: 0xa80a });
    info.registers.class = Some(ClassCode::new(class));
    info.registers.header = Some(HeaderType::Device);
    info.registers.port_type = Fact::Known(Some(PortType::Endpoint));
    info.registers.acs = Acs::Absent(AcsAbsent::Declared);
    info.dma_mask_bits = Some(64);
    info.driver = Some("nvme".to_string());
    info.bars = vec![Bar {
        index: 0,
        cpu: AddrRange::new(PhysAddr::new(start), Bytes::new(size)),
        bus: Some(BusAddr::new(start)),
        size: Some(Bytes::new(size)),
        prefetchable: true,
    }];
    info
}

/// Two drives below one switch, a GPU on a root port of its own.
fn machine(change: impl FnOnce(&mut Vec<FunctionInfo>, &mut Builder)) -> Topology {
    let below = |address: &str| Position::Below(address.parse().unwrap());
    let mut functions = vec![
        port("00:01.0", Position::RootBus { bus: 0 }, PortType::RootPort),
        port("01:00.0", below("00:01.0"), PortType::UpstreamPort),
        port("02:00.0", below("01:00.0"), PortType::DownstreamPort),
        port("02:01.0", below("01:00.0"), PortType::DownstreamPort),
        port("00:02.0", Position::RootBus { bus: 0 }, PortType::RootPort),
        device("03:00.0", "02:00.0", 0x01_0802, 0x40_0000_0000, 0x4000),
        device("04:00.0", "02:01.0", 0x01_0802, 0x41_0000_0000, 0x4000),
        device("05:00.0", "00:02.0", 0x03_0200, 0x50_0000_0000, 256 << 20),
    ];
    let mut builder = Builder::new();
    builder.machine().p2pdma_configured = Fact::Known(true);
    builder.machine().cpu = "amd:0x19".parse().ok();
    builder.machine().kernel = "7.2.13".parse().ok();
    builder.machine().iommu = Some(IommuMode::Identity);
    change(&mut functions, &mut builder);
    for info in functions {
        builder.function(info);
    }
    builder.build()
}

fn of_pair(topology: &Topology, from: &str, to: &str) -> Vec<Check> {
    let id = |address: &str| topology.at(address.parse().unwrap()).unwrap();
    let target = Target::largest_bar(topology, id(to));
    examine(&Judge::new(topology), Scope::Pair(id(from), &target))
}

fn status(checks: &[Check], station: Station) -> Status {
    checks.iter().filter(|check| check.station == station).map(|check| check.status).max().unwrap()
}

fn text(checks: &[Check], station: Station) -> String {
    let of: Vec<String> = checks
        .iter()
        .filter(|check| check.station == station)
        .map(|check| alloc::format!("{} {} {:?}", check.object, check.evidence, check.next))
        .collect();
    of.join("\n")
}

#[test]
fn every_gate_is_asked_in_order_and_a_good_pair_opens_all_but_the_grant() {
    let topology = machine(|_, _| {});
    let checks = of_pair(&topology, "03:00.0", "04:00.0");
    let stations: Vec<Station> = checks.iter().map(|check| check.station).collect();
    assert!(stations.is_sorted());
    for station in Station::ALL {
        let expected = if station == Station::Grant { Status::Unknown } else { Status::Ok };
        assert_eq!(status(&checks, station), expected, "{}", text(&checks, station));
    }
    let functions: Vec<FunctionId> = topology.functions().map(|(id, _)| id).skip(5).collect();
    let checks = examine(&Judge::new(&topology), Scope::Machine(&functions));
    for station in Station::ALL {
        assert_eq!(status(&checks, station), Status::Ok, "{}", text(&checks, station));
    }
}

#[test]
fn a_kernel_without_p2pdma_fails_at_the_first_gate() {
    let topology = machine(|_, builder| builder.machine().p2pdma_configured = Fact::Known(false));
    let checks = of_pair(&topology, "03:00.0", "04:00.0");
    assert_eq!(checks[0].status, Status::Fail);
    assert_eq!(status(&checks, Station::Route), Status::Fail);
    let unread = machine(|_, builder| builder.machine().p2pdma_configured = Fact::Unknown);
    assert_eq!(of_pair(&unread, "03:00.0", "04:00.0")[0].status, Status::Unknown);
}

#[test]
fn a_command_line_that_does_not_do_what_it_says_fails_and_folklore_does_not() {
    for (line, expected) in [
        ("pci=disable_acs_redir=0000:00:01.0,0000:00:02.0", Status::Fail),
        ("amd_iommu=on pci=noacs", Status::Ok),
        ("iommu=pt", Status::Ok),
    ] {
        let topology = machine(|_, builder| builder.machine().command_line = Some(line.to_string()));
        let checks = of_pair(&topology, "03:00.0", "04:00.0");
        assert_eq!(status(&checks, Station::Kernel), expected, "{line}");
    }
}

#[test]
fn parameters_to_no_effect_are_named_and_do_no_harm() {
    let topology = machine(|_, builder| builder.machine().command_line = Some("quiet pci=noacs".to_string()));
    let said = text(&of_pair(&topology, "03:00.0", "04:00.0"), Station::Kernel);
    assert!(said.contains("to no effect: pci=noacs"), "{said}");
}

#[test]
fn modules_are_looked_at_by_the_first_gate() {
    let with = |modules: &[&str]| {
        machine(|functions, builder| {
            functions[5].driver = Some("mlx5_core".to_string());
            functions[6].driver = Some("nvidia".to_string());
            builder.machine().modules = Some(modules.iter().map(|name| name.to_string()).collect());
        })
    };
    for (modules, expected) in [(&["nvidia_peermem"][..], Status::Ok), (&["nvidia"][..], Status::Unknown)] {
        let topology = with(modules);
        assert_eq!(status(&of_pair(&topology, "03:00.0", "04:00.0"), Station::Kernel), expected);
        // The other way round nothing is registered.
        assert_eq!(status(&of_pair(&topology, "04:00.0", "03:00.0"), Station::Kernel), Status::Ok);
    }
}

#[test]
fn no_function_at_all_opens_no_gate_of_functions() {
    let checks = examine(&Judge::new(&machine(|_, _| {})), Scope::Machine(&[]));
    for station in [Station::Bars, Station::Route, Station::Iommu, Station::Direction, Station::Grant] {
        assert_eq!(status(&checks, station), Status::Unknown, "{station:?}");
    }
}

/// On Arm nobody reads `iommu=`.
#[test]
fn passthrough_is_asked_for_by_the_word_that_the_machine_reads() {
    let topology = machine(|functions, builder| {
        builder.machine().cpu = "arm:0".parse().ok();
        builder.machine().iommu = Some(IommuMode::Translated);
        functions[6].driver = Some("amdgpu".to_string());
    });
    let said = text(&of_pair(&topology, "03:00.0", "04:00.0"), Station::Grant);
    assert!(said.contains("boot with iommu.passthrough=1"), "{said}");
}

#[test]
fn a_bar_of_256_mib_before_24_gib_fails_and_one_that_could_grow_is_not_called_fine() {
    let with_memory = machine(|functions, _| functions[7].device_memory = Some(Bytes::new(24 << 30)));
    let checks = of_pair(&with_memory, "03:00.0", "05:00.0");
    assert_eq!(status(&checks, Station::Bars), Status::Fail);
    assert!(text(&checks, Station::Bars).contains("shows 256 MiB of 24 GiB"));
    let growing = machine(|functions, _| {
        let sizes = vec![Bytes::new(256 << 20), Bytes::new(32 << 30)];
        functions[7].registers.resizable = vec![ResizableBar { index: 0, size: Bytes::new(256 << 20), sizes }];
    });
    let checks = of_pair(&growing, "03:00.0", "05:00.0");
    assert_eq!(status(&checks, Station::Bars), Status::Unknown);
    assert!(text(&checks, Station::Bars).contains("goes up to 32 GiB"));
}

#[test]
fn a_bar_without_an_address_fails() {
    let topology = machine(|functions, _| functions[7].bars[0].cpu = None);
    let checks = of_pair(&topology, "03:00.0", "05:00.0");
    assert_eq!(status(&checks, Station::Bars), Status::Fail);
    assert!(text(&checks, Station::Bars).contains("pci=realloc"));
}

/// ROCm/ROCR-Runtime#355: 44 bits against a BAR far above.
#[test]
fn a_bar_above_the_initiator_s_mask_fails_at_the_second_gate() {
    let topology = machine(|functions, _| functions[5].dma_mask_bits = Some(32));
    let checks = of_pair(&topology, "03:00.0", "05:00.0");
    assert_eq!(status(&checks, Station::Bars), Status::Fail, "{}", text(&checks, Station::Bars));
    let unbound = machine(|functions, _| {
        functions[5].dma_mask_bits = Some(32);
        functions[5].driver = None;
    });
    assert_eq!(status(&of_pair(&unbound, "03:00.0", "05:00.0"), Station::Bars), Status::Unknown);
}

/// NVIDIA/open-gpu-kernel-modules#1253.
#[test]
fn a_root_complex_that_only_takes_writes_fails_at_the_fifth_gate() {
    let topology = machine(|_, builder| {
        let facts = HostBridgeFacts { peer: Some(PeerForwarding::WritesOnly), ..HostBridgeFacts::default() };
        builder.host_bridge(0, 0, facts);
    });
    let checks = of_pair(&topology, "03:00.0", "05:00.0");
    assert_eq!(status(&checks, Station::Route), Status::Ok, "{}", text(&checks, Station::Route));
    assert_eq!(status(&checks, Station::Direction), Status::Fail);
    assert!(text(&checks, Station::Direction).contains("put instead of get"));
}

/// intel/compute-runtime#942: all ports clear, and only iommu=pt helps.
#[test]
fn a_direct_route_in_a_translated_domain_is_not_called_fine() {
    let topology = machine(|functions, builder| {
        builder.machine().iommu = Some(IommuMode::Translated);
        functions[6].driver = Some("xyz".to_string());
    });
    let checks = of_pair(&topology, "03:00.0", "04:00.0");
    assert_eq!(status(&checks, Station::Route), Status::Ok);
    assert_eq!(status(&checks, Station::Iommu), Status::Unknown);
    assert!(text(&checks, Station::Iommu).contains("iommu=pt"), "{}", text(&checks, Station::Iommu));
    let untold = machine(|functions, builder| {
        builder.machine().iommu = None;
        functions[6].driver = Some("xyz".to_string());
    });
    assert_eq!(status(&of_pair(&untold, "03:00.0", "04:00.0"), Station::Iommu), Status::Unknown);
    let by_the_rules = machine(|_, builder| builder.machine().iommu = Some(IommuMode::Translated));
    assert_eq!(status(&of_pair(&by_the_rules, "03:00.0", "04:00.0"), Station::Iommu), Status::Ok);
}

#[test]
fn drivers_that_do_not_go_together_fail_at_the_last_gate() {
    let with = |importer: &'static str, exporter: &'static str| {
        machine(move |functions, _| {
            functions[5].driver = Some(importer.to_string());
            functions[6].driver = Some(exporter.to_string());
        })
    };
    for (importer, exporter, expected) in [
        ("efa", "vfio-pci", Status::Fail),
        ("mlx5_core", "vfio-pci", Status::Ok),
        ("mlx5_core", "amdgpu", Status::Ok),
        ("e1000e", "amdgpu", Status::Unknown),
    ] {
        let checks = of_pair(&with(importer, exporter), "03:00.0", "04:00.0");
        assert_eq!(status(&checks, Station::Grant), expected, "{importer} {exporter}");
    }
}

#[test]
fn in_a_virtual_machine_no_route_is_called_fine() {
    let guest = machine(|_, builder| builder.machine().in_guest = Fact::Known(true));
    let checks = of_pair(&guest, "03:00.0", "04:00.0");
    assert_eq!(
        (status(&checks, Station::Route), status(&checks, Station::Direction)),
        (Status::Unknown, Status::Unknown)
    );
    let functions: Vec<FunctionId> = guest.functions().map(|(id, _)| id).skip(5).collect();
    let checks = examine(&Judge::new(&guest), Scope::Machine(&functions));
    assert_eq!(status(&checks, Station::Direction), Status::Unknown);
    assert_eq!(caveats(&guest).len(), 1);
    let confidential = machine(|_, builder| {
        builder.machine().in_guest = Fact::Known(true);
        builder.machine().in_confidential_guest = Fact::Known(true);
    });
    assert_eq!(status(&of_pair(&confidential, "03:00.0", "05:00.0"), Station::Iommu), Status::Fail);
    assert!(caveats(&confidential)[0].contains("pass unchecked"));
    assert!(caveats(&machine(|_, _| {}))[0].contains("not told"));
    let host = machine(|_, builder| builder.machine().in_guest = Fact::Known(false));
    assert_eq!(caveats(&host), Vec::<String>::new());
}

#[test]
fn a_faulting_number_is_told_apart_from_an_iova() {
    let topology = machine(|functions, builder| {
        functions[5].iommu_group = Some(7);
        let msi = AddrRange::new(Iova::new(0xfee0_0000), Bytes::new(0x10_0000)).unwrap();
        let reserved = vec![ReservedRegion { range: msi, kind: "msi".to_string() }];
        builder.group(IommuGroup { id: 7, kind: Some("DMA".to_string()), reserved });
        let ram = AddrRange::new(PhysAddr::new(0), Bytes::new(0x8000_0000)).unwrap();
        builder.machine().memory_map = vec![MemoryRegion { range: ram, name: MemoryRegion::SYSTEM_RAM.to_string() }];
    });
    let drive = topology.at("03:00.0".parse().unwrap());
    let of = |number| meaning(&topology, drive, Iova::new(number));
    let other = of(0x41_0000_0010);
    assert_eq!((other.kind, other.owner), (SentKind::BusAndCpuPhysical, topology.at("04:00.0".parse().unwrap())));
    assert!(other.words.contains("0000:04:00.0 bar0"), "{}", other.words);
    assert!(of(0x40_0000_0010).words.contains("its own"));
    assert_eq!(of(0xfee0_0000).kind, SentKind::Reserved);
    assert_eq!(of(0x1000).kind, SentKind::Ram);
    assert_eq!(of(0x7777_0000_0000).kind, SentKind::Iova);
    assert_eq!(meaning(&topology, None, Iova::new(u64::MAX)).kind, SentKind::Iova);
}

/// A window at an offset makes two numbers of one place.
#[test]
fn behind_a_window_at_an_offset_bus_and_cpu_addresses_are_two() {
    let topology = machine(|functions, builder| {
        functions[7].bars[0].cpu = None;
        functions[7].bars[0].bus = Some(BusAddr::new(0x9000_0000));
        let cpu = AddrRange::new(PhysAddr::new(0x50_9000_0000), Bytes::new(0x2000_0000)).unwrap();
        let windows = vec![HostWindow::new(cpu, BusAddr::new(0x9000_0000)).unwrap()];
        builder.host_bridge(0, 0, HostBridgeFacts { windows, ..HostBridgeFacts::default() });
    });
    let drive = topology.at("03:00.0".parse().unwrap());
    let of = |number| meaning(&topology, drive, Iova::new(number)).kind;
    assert_eq!(of(0x9000_1000), SentKind::Bus);
    assert_eq!(of(0x50_9000_1000), SentKind::CpuPhysical);
    // A stream ID names no device, so every host bridge is looked below.
    assert_eq!(meaning(&topology, None, Iova::new(0x9000_1000)).kind, SentKind::Bus);
    assert_eq!(meaning(&topology, None, Iova::new(0xafff_1000)).kind, SentKind::Window);
    assert_eq!(of(0x9fff_0000 + 0x1000_0000), SentKind::Window);
}
