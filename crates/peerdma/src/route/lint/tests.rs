//! One claim a rule, and that innocent lines stay innocent.

use super::*;
use crate::pcie::acs::{Acs, AcsAbsent, AcsBits, AcsRegisters};
use crate::pcie::decode::HeaderType;
use crate::pcie::express::PortType;
use crate::pcie::{ClassCode, Fact, PciId};
use crate::topology::{Builder, FunctionInfo, Position};
use alloc::format;
use alloc::vec;

/// Root port 00:01.0, upstream port 01:00.0 without ACS, downstream ports 02:00.0 and 02:01.0.
fn machine(kernel: &str, cpu: &str) -> Topology {
    let mut builder = Builder::new();
    let ports = [
        ("00:01.0", Position::RootBus { bus: 0 }, PortType::RootPort, Some(0x1f)),
        ("01:00.0", Position::Below("00:01.0".parse().unwrap()), PortType::UpstreamPort, None),
        ("02:00.0", Position::Below("01:00.0".parse().unwrap()), PortType::DownstreamPort, Some(0x1f)),
        ("02:01.0", Position::Below("01:00.0".parse().unwrap()), PortType::DownstreamPort, Some(0x13)),
    ];
    for (address, position, port_type, capability) in ports {
        let mut info = FunctionInfo::new(address.parse().unwrap(), position);
        info.registers.id = Some(PciId { vendor: 0x10b5, device: 0x9797 });
        info.registers.class = Some(ClassCode::new(0x06_0400));
        info.registers.header = Some(HeaderType::Bridge);
        info.registers.port_type = Fact::Known(Some(port_type));
        info.registers.acs = match capability {
            None => Acs::Absent(AcsAbsent::Declared),
            Some(bits) => {
                let capability = AcsBits::from_bits_retain(bits);
                Acs::Present(AcsRegisters::standard(None, capability, AcsBits::empty(), vec![]))
            }
        };
        builder.function(info);
    }
    builder.machine().kernel = kernel.parse().ok();
    builder.machine().cpu = cpu.parse().ok();
    builder.build()
}

fn codes(line: &str) -> Vec<Code> {
    lint(line, None).iter().map(|finding| finding.code).collect()
}

fn codes_on(line: &str, kernel: &str, cpu: &str) -> Vec<Code> {
    lint(line, Some(&machine(kernel, cpu))).iter().map(|finding| finding.code).collect()
}

fn fix_of(line: &str, code: Code) -> String {
    let findings = lint(line, Some(&machine("7.2", "intel:6")));
    let finding = findings.iter().find(|finding| finding.code == code);
    finding.unwrap_or_else(|| panic!("{line}: {findings:?}")).fix.clone().unwrap_or_default()
}

#[test]
fn lines_of_working_machines_are_not_accused() {
    for line in [
        "",
        "BOOT_IMAGE=/vmlinuz-7.2 root=UUID=1-2 ro quiet splash vt.handoff=7",
        "intel_iommu=on iommu=pt pti=off pcie_aspm=off pci=noaer,nommconf,realloc=on",
        "intel-iommu=on,sm_on iommu.passthrough=1 iommu.strict=0",
        "amd_iommu=pgtbl_v2,force_enable amd_iommu_dump iommu=soft,noagp",
        "pci=disable_acs_redir=0000:00:01.0;00:1c.0/02.0/00.0;pci:8086:09a2:0:0 -- init-args pci",
        "pci=pcie_bus_peer2peer,config_acs=x0x00xx@0000:00:01.0;",
        "\"pci=disable_acs_redir=0000:00:01.0;pci:10b5:9797\" vfio_pci.ids=10de:2330,8086:09a2 hugepages=64",
    ] {
        assert_eq!(codes(line), [], "{line}");
    }
}

#[test]
fn a_comma_ends_a_list_and_the_whole_list_is_written_anew() {
    let line = "pci=noaer,disable_acs_redir=0000:00:01.0,0000:00:02.0,realloc,0000:00:03.0";
    assert_eq!(codes(line), [Code::ListCutByComma]);
    let whole = "pci=noaer,disable_acs_redir=0000:00:01.0;0000:00:02.0;0000:00:03.0,realloc";
    assert_eq!(fix_of(line, Code::ListCutByComma), whole, "the other options stay");
    let line = "pci=config_acs=x0x00xx@0000:00:01.0,x0x00xx@0000:00:02.0";
    assert_eq!(codes(line), [Code::ListCutByComma]);
    assert_eq!(codes("pci=disable_acs_redir=0000:00:01.0; 0000:00:02.0 quiet"), [Code::ListCutBySpace]);
}

#[test]
fn of_several_lists_the_last_counts_and_the_fix_merges_them() {
    // Ten of them, as in a README for an eight-GPU server.
    let line: Vec<String> = (0..10).map(|n| format!("pci=disable_acs_redir=0000:00:{n:02x}.0")).collect();
    let findings = lint(&line.join(" "), None);
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].code, Code::RepeatedList);
    assert!(findings[0].what.contains("only 0000:00:09.0 counts"), "{}", findings[0].what);
    assert_eq!(findings[0].fix.as_ref().unwrap().matches(';').count(), 9);
    assert_eq!(codes("pci=config_acs=0@00:01.0,config_acs=0@00:02.0"), [Code::RepeatedList]);
    let line = "pci=noats,disable_acs_redir=00:01.0,00:02.0 quiet pci=realloc,disable_acs_redir=00:03.0";
    let merged = "pci=noats,disable_acs_redir=00:01.0;00:02.0;00:03.0,realloc";
    assert_eq!(fix_of(line, Code::RepeatedList), merged, "one argument in place of both");
    assert_eq!(codes("pci=disable_acs_redir=00:01.0 pci=config_acs=0@00:02.0"), [], "one of each kind");
}

#[test]
fn what_the_kernel_cannot_read_ends_the_list() {
    for (list, code) in [
        ("disable_acs_redir=00:01.0;00:zz.0;00:02.0", Code::UnreadableElement),
        ("disable_acs_redir=00:01.0;;00:02.0", Code::UnreadableElement),
        ("disable_acs_redir=x0x00xx@00:01.0", Code::UnreadableElement),
        ("disable_acs_redir=pci:8086", Code::UnreadableElement),
        ("disable_acs_redir=00:01.0/", Code::UnreadableElement),
        ("disable_acs_redir=", Code::EmptyList),
        ("disable_acs_redir", Code::EmptyList),
        ("disable_acs_redir=00:01.0\\;00:02.0", Code::StrayCharacter),
        ("config_acs='x0x00xx@00:01.0", Code::StrayCharacter),
        ("config_acs=00:01.0", Code::FlagsMissing),
        ("config_acs=x0x00xx@00:01.0;00:02.0", Code::FlagsMissing),
        ("config_acs=2@00:01.0", Code::FlagsInvalid),
        ("config_acs=10000000@00:01.0", Code::FlagsInvalid),
        ("config_acs=xxxxxxx@00:01.0", Code::NothingChanges),
    ] {
        assert_eq!(codes(&format!("pci={list}")), [code], "{list}");
    }
    let what = &lint("pci=disable_acs_redir=00:zz.0;00:02.0;00:03.0", None)[0].what;
    assert!(what.ends_with("the 2 elements after it are not read either"), "{what}");
    assert_eq!(fix_of("pci=config_acs=00:01.0", Code::FlagsMissing), "x0x00xx@00:01.0");
}

#[test]
fn an_element_that_misses_on_this_machine_is_told() {
    let on = |line: &str| codes_on(line, "7.2", "intel:6");
    assert_eq!(on("pci=disable_acs_redir=00:01.0"), []);
    assert_eq!(on("pci=disable_acs_redir=00:05.0"), [Code::MatchesNothing]);
    assert_eq!(on("pci=disable_acs_redir=pci:8086:1234"), [Code::MatchesNothing]);
    // The list before the last is not looked at, as the kernel does not.
    assert_eq!(on("pci=disable_acs_redir=00:05.0 pci=disable_acs_redir=00:01.0"), [Code::RepeatedList]);
    // Subsystem IDs are not known, so a miss is not either.
    assert_eq!(on("pci=disable_acs_redir=pci:10b5:9797:1:2"), []);
    assert_eq!(on("pci=disable_acs_redir=00:01.0/00.0"), [Code::NoAcs]);
    assert_eq!(on("pci=disable_acs_redir=00:01.0/00.0/01.0"), [Code::NothingChanges]);
    assert_eq!(on("pci=config_acs=1xxxxxx@00:01.0"), [Code::NothingChanges]);
    assert_eq!(on("pci=config_acs=1xx1xxx@00:01.0"), [Code::BitsNotThere]);
    assert_eq!(on("pci=disable_acs_redir=00:01.0;pci:10b5:9797;00:01.0/00.0/00.0"), [Code::ShadowedElement]);
}

#[test]
fn both_parameters_on_one_port_leave_the_second_alone() {
    let line = "pci=disable_acs_redir=00:01.0/00.0/00.0,config_acs=xxxx1xx@pci:10b5:9797";
    assert_eq!(codes_on(line, "7.2", "intel:6"), [Code::ReplacedByConfigAcs]);
}

#[test]
fn a_bus_number_gets_the_path_that_stays_and_is_advice() {
    let line = "pci=config_acs=x0x00xx@02:00.0";
    assert_eq!(codes_on(line, "7.2", "intel:6"), [Code::BusNumber]);
    assert_eq!(fix_of(line, Code::BusNumber), "x0x00xx@0000:00:01.0/00.0/00.0");
    assert_eq!(Code::BusNumber.severity(), Severity::Advice);
    assert_eq!(codes("pci=disable_acs_redir=0000:02:00.0"), [Code::BusNumber]);
}

#[test]
fn a_kernel_that_lacks_or_misreads_a_parameter_is_told() {
    let one = "pci=config_acs=x0x00xx@00:01.0";
    assert_eq!(codes_on(one, "6.10.14", "intel:6"), [Code::KernelTooOld]);
    assert_eq!(codes_on(one, "6.11", "intel:6"), []);
    let two = "pci=config_acs=x0x00xx@00:01.0;x0x00xx@00:01.0/00.0/00.0";
    for (kernel, misread) in [
        ("6.11.5", true),
        ("6.12.22", true),
        ("6.12.40", false),
        ("6.12", false),
        ("6.14.1", true),
        ("6.15.0", false),
        ("7.2.13", false),
    ] {
        let expected = if misread { vec![Code::ListMisreadByKernel] } else { vec![] };
        assert_eq!(codes_on(two, kernel, "intel:6"), expected, "{kernel}");
        assert_eq!(codes_on(one, kernel, "intel:6"), [], "{kernel}");
    }
}

#[test]
fn folklore_is_told_from_parameters() {
    for (line, code) in [
        ("pci=noacs", Code::DoesNotExist),
        ("pcie_acs_override=downstream,multifunction", Code::DoesNotExist),
        ("amd_iommu=on", Code::DoesNotExist),
        ("intel_iommu=pt", Code::DoesNotExist),
        ("iommu=on", Code::DoesNotExist),
        ("iommu.passthrough=pt", Code::InvalidValue),
        ("iommu.passthrough", Code::InvalidValue),
        ("iommu.pasthrough=1", Code::Misspelt),
        ("intel_iomu=on", Code::Misspelt),
        ("pci=disable_acs_redirect=00:01.0", Code::Misspelt),
        ("pcie=config_acs=0@00:01.0", Code::Misspelt),
        ("intel_iommu=sm-on", Code::Misspelt),
        ("disable_acs_redir=00:01.0", Code::OutsidePci),
        ("quiet -- iommu=pt", Code::AfterDashes),
        ("\"pci=noaer quiet iommu=pt", Code::OpenQuote),
    ] {
        assert_eq!(codes(line), [code], "{line}");
    }
    assert_eq!(fix_of("disable_acs_redir=00:01.0", Code::OutsidePci), "pci=disable_acs_redir=00:01.0");
    assert_eq!(fix_of("iommu.pasthrough=1", Code::Misspelt), "iommu.passthrough=1");
}

#[test]
fn a_parameter_of_other_hardware_does_nothing_here() {
    assert_eq!(codes_on("intel_iommu=on", "7.2", "amd:0x19"), [Code::OtherHardware]);
    // QEMU's q35 has Intel's IOMMU whatever the CPU.
    let mut guest = machine("7.2", "amd:0x19").to_builder();
    guest.machine().in_guest = Fact::Known(true);
    let guest = guest.build();
    assert_eq!(lint("intel_iommu=on", Some(&guest)), []);
    assert_eq!(lint("intel_iommu=off iommu=pt", Some(&guest))[0].code, Code::IommuContradiction);
    assert_eq!(codes_on("iommu=pt", "7.2", "arm:0"), [Code::OtherHardware]);
    assert_eq!(codes_on("iommu=pt intel_iommu=on", "7.2", "intel:6"), []);
}

#[test]
fn settings_of_the_iommu_that_contradict_are_told() {
    for (line, code) in [
        ("iommu=pt iommu.passthrough=0", Code::IommuContradiction),
        ("intel_iommu=off iommu=pt", Code::IommuContradiction),
        ("pci=disable_acs_redir=00:01.0 iommu.passthrough=0", Code::TranslatedWhileCleared),
        ("pci=config_acs=x0x00xx@00:01.0 iommu=nopt", Code::TranslatedWhileCleared),
        ("pci=noats,config_acs=1xxxxxx@00:01.0", Code::DirectTranslatedWithoutAts),
        ("swiotlb=65536,force", Code::ForcedBouncing),
    ] {
        assert_eq!(codes(line), [code], "{line}");
    }
    for line in [
        "intel_iommu=off intel_iommu=on iommu=pt",
        "pci=config_acs=xx111x1@00:01.0 iommu=nopt",
        "pci=disable_acs_redir=00:01.0 iommu=pt",
        "swiotlb=65536",
    ] {
        assert_eq!(codes(line), [], "{line}");
    }
    assert_eq!(codes_on("amd_iommu=off intel_iommu=on iommu=pt", "7.2", "intel:6"), [Code::OtherHardware]);
}

/// NVIDIA/nodewright-packages#122: there the advice that helps elsewhere is wrong.
#[test]
fn passthrough_is_wrong_on_arm_before_6_11() {
    assert_eq!(codes_on("iommu.passthrough=1", "6.8.0", "arm:0"), [Code::PassthroughOnOldSmmu]);
    assert_eq!(codes_on("iommu.passthrough=1", "6.11.0", "arm:0"), []);
    assert_eq!(codes_on("iommu.passthrough=1", "6.8.0", "intel:6"), []);
}

proptest::proptest! {
    /// Lines come from strangers' captures.
    #[test]
    fn no_line_panics_or_takes_long(line in "(pci=|iommu=|[\"; ,@:.x01/-]|disable_acs_redir=|config_acs=|00|\\PC){0,60}") {
        let machine = machine("6.12.3", "intel:6");
        for finding in lint(&line, Some(&machine)) {
            proptest::prop_assert!(!finding.what.is_empty());
        }
        lint(&line, None);
    }
}
