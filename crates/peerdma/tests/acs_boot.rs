//! What the kernel's `pci=` parameters write into ACS control words (Linux 7.2
//! `pci_enable_acs`, `__pci_config_acs`), row by row of a table of cases.

#![cfg(test)]

use peerdma::pcie::acs::AcsBits;
use peerdma::pcie::decode::{BridgeBuses, HeaderType};
use peerdma::pcie::express::PortType;
use peerdma::pcie::{Fact, PciId};
use peerdma::route::acs_boot::{AcsParameters, Before, DecidedBy};
use peerdma::topology::{Builder, FunctionInfo, Position, Topology};

/// 00:1c.0, a switch 01:00.0 with a port 02:03.0, and 03:00.1 below it, once more in domain 10000; all 8086:1234.
fn machine(id: u32) -> Topology {
    let mut builder = Builder::new();
    for domain in ["0000", "10000"] {
        for (address, secondary) in [("00:1c.0", 1), ("01:00.0", 2), ("02:03.0", 3), ("03:00.1", 0)] {
            let address = format!("{domain}:{address}").parse().unwrap();
            let mut info = FunctionInfo::new(address, Position::ByBusNumber);
            info.registers.id = Some(PciId { vendor: (id >> 16) as u16, device: id as u16 });
            if secondary != 0 {
                info.registers.header = Some(HeaderType::Bridge);
                info.registers.port_type = Fact::Known(Some(PortType::RootPort));
                info.registers.buses = Some(BridgeBuses { primary: address.bus(), secondary, subordinate: 3 });
            }
            builder.function(info);
        }
    }
    builder.build()
}

/// Capability SV TB RR CR UF, as in the table.
const TABLE: Before = Before {
    capability: AcsBits::from_bits_retain(0x1f),
    firmware: AcsBits::empty(),
    iommu_requested: true,
    external: false,
};
const NO_IOMMU: Before = Before { iommu_requested: false, ..TABLE };

/// The control word that 0000:02:03.0 gets.
fn control(line: &str, before: Before) -> u16 {
    control_of(0x8086_1234, "0000:02:03.0", line, before)
}

fn control_of(id: u32, address: &str, line: &str, before: Before) -> u16 {
    let topology = machine(id);
    let function = topology.at(address.parse().unwrap()).unwrap();
    AcsParameters::from_command_line(line).predict(&topology, function, before).control.bits()
}

/// §11.4 row 1.
#[test]
fn without_iommu_and_parameters_the_firmwares_word_stays() {
    assert_eq!(control("quiet", NO_IOMMU), 0x00);
    let firmware = AcsBits::from_bits_retain(0x5d);
    assert_eq!(control("pci=noaer", Before { firmware, ..NO_IOMMU }), 0x5d);
}

/// §11.4 row 2.
#[test]
fn an_iommu_driver_gets_sv_rr_cr_and_uf_as_far_as_there_are() {
    assert_eq!(control("", TABLE), 0x1d);
    assert_eq!(control("", Before { capability: AcsBits::SV | AcsBits::RR, ..TABLE }), 0x05);
    assert_eq!(control("", Before { capability: AcsBits::from_bits_retain(0x7f), ..TABLE }), 0x1d, "never EC or DT");
}

/// §11.4 row 3.
#[test]
fn translation_blocking_comes_on_for_untrusted_devices_and_without_ats() {
    assert_eq!(control("", Before { external: true, ..TABLE }), 0x1f);
    assert_eq!(control("pci=noats", TABLE), 0x1f);
    assert_eq!(control("pci=noats", NO_IOMMU), 0x00);
}

/// §11.4 row 4.
#[test]
fn disable_acs_redir_drops_the_kernels_own_enable_with_it() {
    assert_eq!(control("pci=disable_acs_redir=02:03.0", TABLE), 0x00);
    let firmware = AcsBits::from_bits_retain(0x7f);
    assert_eq!(
        control("pci=disable_acs_redir=02:03.0", Before { firmware, ..TABLE }),
        0x53,
        "clears RR, CR and EC only"
    );
}

/// §11.4 row 5.
#[test]
fn config_acs_sets_what_it_names_and_leaves_the_rest_to_the_firmware() {
    assert_eq!(control("pci=config_acs=xx111x1@02:03.0", TABLE), 0x1d);
    let firmware = AcsBits::TB | AcsBits::DT;
    assert_eq!(control("pci=config_acs=xx111x1@02:03.0", Before { firmware, ..TABLE }), 0x5f);
    assert_eq!(control("pci=config_acs=X0@02:03.0", TABLE), 0x00, "what it does not name loses the kernel's enable");
}

/// §11.4 row 6.
#[test]
fn config_acs_works_without_an_iommu() {
    assert_eq!(control("pci=config_acs=1@02:03.0", NO_IOMMU), 0x01);
}

/// §11.4 row 7.
#[test]
fn flags_that_cannot_be_read_leave_the_kernels_word() {
    for flags in ["2", "1y", "10000000", "-1", "0x1z"] {
        assert_eq!(control(&format!("pci=config_acs={flags}@02:03.0"), TABLE), 0x1d, "{flags}");
    }
    assert_eq!(control("pci=config_acs=02:03.0", TABLE), 0x1d, "no flags at all");
    assert_eq!(control("pci=config_acs=1@00:1c.0;2@02:03.0;1@02:03.0", TABLE), 0x1d, "nor is what follows read");
    assert_eq!(control("pci=config_acs=xx0000001@02:03.0", TABLE), 0x01, "an x above DT names nothing");
}

#[test]
fn a_comma_ends_the_list_and_a_semicolon_continues_it() {
    assert_eq!(control("pci=disable_acs_redir=00:1c.0;02:03.0", TABLE), 0x00);
    assert_eq!(control("pci=disable_acs_redir=00:1c.0,02:03.0", TABLE), 0x1d);
    assert_eq!(control("pci=noaer,disable_acs_redir=02:03.0,nomsi", TABLE), 0x00);
    assert_eq!(control("pci=config_acs=0@00:1c.0;1@02:03.0", TABLE), 0x01);
}

#[test]
fn of_two_parameters_of_a_kind_the_last_counts() {
    assert_eq!(control("pci=disable_acs_redir=02:03.0 pci=disable_acs_redir=00:1c.0", TABLE), 0x1d);
    assert_eq!(control("pci=disable_acs_redir=00:1c.0,disable_acs_redir=02:03.0", TABLE), 0x00);
    assert_eq!(control("pci=disable_acs_redir=02:03.0 pci=noaer", TABLE), 0x00, "of a kind");
}

#[test]
fn config_acs_replaces_what_disable_acs_redir_did_whatever_their_order() {
    let firmware = AcsBits::from_bits_retain(0x1d);
    for line in
        ["pci=config_acs=0@02:03.0,disable_acs_redir=02:03.0", "pci=disable_acs_redir=02:03.0 pci=config_acs=0@02:03.0"]
    {
        assert_eq!(control(line, Before { firmware, ..TABLE }), 0x1c, "RR and CR are the firmware's again");
    }
}

#[test]
fn the_answer_names_the_element_that_decided() {
    let topology = machine(0x8086_1234);
    let function = topology.at("02:03.0".parse().unwrap()).unwrap();
    let decided_by = |line: &str| AcsParameters::from_command_line(line).predict(&topology, function, TABLE).decided_by;
    assert_eq!(decided_by("quiet"), DecidedBy::Kernel);
    assert_eq!(decided_by("pci=disable_acs_redir=00:1c.0;02:03.0"), DecidedBy::DisableAcsRedir("02:03.0".into()));
    assert_eq!(
        decided_by("pci=config_acs=1@pci:0:0;0@02:03.0"),
        DecidedBy::ConfigAcs("1@pci:0:0".into()),
        "the first match"
    );
}

#[test]
fn devices_are_named_by_address_by_path_and_by_id() {
    for device in [
        "02:03.0",
        "0000:02:03.0",
        "2:3.0",
        "01:00.0/03.0",
        "0:00:1c.0/0.0/3.0",
        "pci:8086:1234",
        "pci:8086:0",
        "pci:0:0",
        "pci:0:1234:0:0",
    ] {
        assert_eq!(control(&format!("pci=disable_acs_redir={device}"), TABLE), 0x00, "{device}");
    }
    for device in [
        "02:03.1",
        "10000:02:03.0",
        "01:00.0/04.0",
        "00:1c.0/03.0",
        "03:00.0/02:03.0",
        "pci:8087:1234",
        "pci:8086:1235",
        "pci:8086",
        "pci:0:1234:8086:0",
        "02:03",
        "",
        "+2:03.0",
        "100:03.0",
    ] {
        assert_eq!(control(&format!("pci=disable_acs_redir={device}"), TABLE), 0x1d, "{device}");
    }
    assert_eq!(control_of(0x8086_1234, "10000:02:03.0", "pci=disable_acs_redir=10000:00:1c.0/0.0/3.0", TABLE), 0x00);
}

/// `pci_dev_str_match` fails on it, and the loop over the list ends there.
#[test]
fn a_device_that_cannot_be_read_ends_the_list() {
    for device in ["02:03", "pci:8086", "pci:80867:1", "01:00.0/x.0", "nonsense", ""] {
        assert_eq!(control(&format!("pci=disable_acs_redir={device};02:03.0"), TABLE), 0x1d, "{device}");
    }
    assert_eq!(control("pci=disable_acs_redir=02:03.0;nonsense", TABLE), 0x00);
    assert_eq!(control("pci=disable_acs_redir=100:00.0;02:03.0", TABLE), 0x00, "a bus that does not exist can be read");
}

#[test]
fn a_path_leads_up_from_a_virtual_functions_physical_one() {
    let mut builder = Builder::new();
    let mut port = FunctionInfo::new("00:01.0".parse().unwrap(), Position::RootBus { bus: 0 });
    port.registers.header = Some(HeaderType::Bridge);
    let pf = FunctionInfo::new("01:00.0".parse().unwrap(), Position::Below(port.address));
    let mut vf = FunctionInfo::new("02:00.4".parse().unwrap(), Position::RootBus { bus: 2 });
    vf.physfn = Some(pf.address);
    [port, pf, vf].into_iter().for_each(|info| builder.function(info));
    let topology = builder.build();
    let vf = topology.at("02:00.4".parse().unwrap()).unwrap();
    let parameters = AcsParameters::from_command_line("pci=disable_acs_redir=00:01.0/00.4");
    assert_eq!(parameters.predict(&topology, vf, TABLE).control, AcsBits::empty());
}

#[test]
fn quotes_and_double_dashes_are_read_as_the_kernel_reads_them() {
    assert_eq!(control("\"pci=disable_acs_redir=00:1c.0;02:03.0\"", TABLE), 0x00);
    assert_eq!(control("pci=\"disable_acs_redir=02:03.0\" quiet", TABLE), 0x00);
    assert_eq!(control("dyndbg=\"file pci.c +p\" pci=disable_acs_redir=02:03.0", TABLE), 0x00);
    assert_eq!(control("quiet -- pci=disable_acs_redir=02:03.0", TABLE), 0x1d, "that is for init");
}

/// Their hook works on the register itself, so SV and UF stay; flags are ignored.
#[test]
fn on_intel_ports_with_double_word_registers_any_match_clears_rr_cr_and_ec() {
    let spt = |line: &str| control_of(0x8086_a110, "0000:02:03.0", line, TABLE);
    assert_eq!(spt(""), 0x1d);
    assert_eq!(spt("pci=disable_acs_redir=02:03.0"), 0x11);
    assert_eq!(spt("pci=config_acs=1111111@02:03.0"), 0x11);
    assert_eq!(spt("pci=config_acs=2@02:03.0"), 0x1d, "flags that cannot be read match nothing");
    assert_eq!(control_of(0x8086_a110, "0000:03:00.1", "pci=config_acs=1@03:00.1", TABLE), 0x11, "type not read");
}

#[test]
fn switches_with_broken_source_validation_are_not_told_to_validate() {
    assert_eq!(control_of(0x111d_80b5, "0000:02:03.0", "", TABLE), 0x1c);
    assert_eq!(control_of(0x111d_80b5, "0000:02:03.0", "pci=config_acs=1@02:03.0", TABLE), 0x01, "unless asked");
}

#[test]
fn only_parameters_that_name_ports_say_so() {
    assert!(!AcsParameters::from_command_line("pci=noats,realloc").names_ports());
    assert!(AcsParameters::from_command_line("pci=realloc,config_acs=1@pci:0:0").names_ports());
}
