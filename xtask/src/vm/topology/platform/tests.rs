use super::super::synthetic;
use super::*;

/// The test platform with a text in it replaced.
fn with(from: &str, to: &str) -> Platform {
    let text = include_str!("exportable.toml");
    assert!(text.contains(from), "{from}");
    Platform::parse(&text.replacen(from, to, 1), "changed.toml").unwrap()
}

fn refusals(platform: &Platform) -> Vec<String> {
    from_platform(platform).unwrap_err().0.iter().map(Refusal::to_string).collect()
}

fn warnings(exported: &Exported) -> Vec<String> {
    exported.warnings.iter().map(Warning::to_string).collect()
}

#[test]
fn a_platform_that_qemu_can_be_exports_with_its_control_words_on_the_command_line() {
    let exported = from_platform(&synthetic::platform()).unwrap();
    assert_eq!((exported.cpu.as_str(), exported.iommu), ("qemu64", Iommu::Intel));
    assert_eq!(exported.cmdline, ["iommu.passthrough=0", "pci=config_acs=0010001@0000:00:05.0;0000000@0000:40:01.0"]);
    // Nothing of the file is lost on the way, and the second host bridge adds a function.
    assert_eq!(exported.twins.len(), 17);
    assert_eq!(exported.model.expected_functions(), 18);
}

/// The control words must come out of Linux's own rule as the file states them.
#[test]
fn the_command_line_makes_linux_write_what_the_file_says() {
    use peerdma::route::acs_boot::{AcsParameters, Before};
    let exported = from_platform(&synthetic::platform()).unwrap();
    let topology = synthetic::Guest::of(&exported.model).topology();
    let parameters = AcsParameters::from_command_line(&exported.cmdline.join(" "));
    let before = Before {
        capability: ROOT_PORT_CAPABILITY,
        firmware: AcsBits::empty(),
        iommu_requested: exported.iommu != Iommu::None,
        external: false,
    };
    let mut checked = 0;
    for twin in &exported.twins {
        let TwinAcs::Control(control) = twin.acs else { continue };
        let address = PciAddr::new(0, twin.place.root_bus, twin.place.steps[0]);
        let predicted = parameters.predict(&topology, topology.at(address).unwrap(), before);
        assert_eq!(predicted.control, control, "{}", twin.name);
        checked += 1;
    }
    assert_eq!(checked, 3);
}

#[test]
fn what_the_guest_shows_otherwise_is_warned_of() {
    let exported = from_platform(&synthetic::platform()).unwrap();
    assert_eq!(
        warnings(&exported),
        [
            "rp-a (0000:00:01.0) is at device 0x04 in the guest, whose own devices need its place",
            "down0 (0000:02:00.0) has ACS with nothing set; QEMU's xio3130-downstream has no ACS, which to Linux is the same",
            "host bridge hb1: what stands for it has no ID; in the guest nothing listed does",
            "host bridge's first device: the guest shows QEMU's own or none (hb0)",
            "[[ram]] is not used: the guest has the memory that it is given",
        ]
    );
}

#[test]
fn a_bit_set_in_a_switch_port_or_a_device_is_refused_by_name() {
    let switch = with("acs = { cap = 0x5f, ctl = 0 }", "acs = { cap = 0x5f, ctl = 0x0c }");
    assert_eq!(
        refusals(&switch),
        ["switch port down0 (0000:02:00.0) sets ACS RR CR: QEMU's xio3130-downstream has no ACS capability"]
    );
    let device = with("name = \"b0\"", "name = \"b0\"\nacs = { cap = 0x5f, ctl = 0x40 }");
    assert_eq!(refusals(&device), ["function b0 (0000:05:00.0) sets ACS DT: QEMU's edu has no ACS capability"]);
}

#[test]
fn a_root_port_of_another_capability_is_refused() {
    let platform = with("acs = { cap = 0x5f, ctl = 0x1d }", "acs = { cap = 0x1f, ctl = 0x1d }");
    assert_eq!(
        refusals(&platform),
        ["root port rp-a (0000:00:01.0) has ACS capability 0x001f, and QEMU's pcie-root-port 0x005f or none"]
    );
}

#[test]
fn without_an_iommu_the_word_that_an_iommu_brings_has_to_be_asked_for() {
    let platform = with("kind = \"vtd\"\nmode = \"translated\"", "kind = \"none\"");
    let exported = from_platform(&platform).unwrap();
    assert_eq!(exported.iommu, Iommu::None);
    // And the one that is 0 need not be.
    assert_eq!(exported.cmdline, ["pci=config_acs=0011101@0000:00:04.0;0010001@0000:00:05.0"]);
}

/// Linux asks for ACS whatever mode it gives the IOMMU, so control words do not change.
#[test]
fn an_amd_iommu_passes_through_and_brings_the_same_control_words() {
    let exported = from_platform(&with("kind = \"vtd\"", "kind = \"amd\"")).unwrap();
    assert_eq!(exported.iommu, Iommu::Amd);
    assert_eq!(exported.cmdline, ["iommu=pt", "pci=config_acs=0010001@0000:00:05.0;0000000@0000:40:01.0"]);
    assert!(warnings(&exported)[0].starts_with("the AMD IOMMU passes addresses through"));
}

#[test]
fn every_x86_cpu_has_its_family_and_others_are_refused() {
    let cpu = |vendor: &str, family: &str| {
        let stated = format!("vendor = \"{vendor}\"\nfamily = {family}");
        from_platform(&with("vendor = \"amd\"\nfamily = 0x0f", &stated)).map(|exported| exported.cpu)
    };
    assert_eq!(cpu("amd", "0x17").unwrap(), "EPYC");
    assert_eq!(cpu("amd", "0x19").unwrap(), "EPYC,family=25");
    assert_eq!(cpu("amd", "0x16").unwrap(), "qemu64,family=22");
    assert_eq!(cpu("GenuineIntel", "6").unwrap(), "Nehalem");
    assert_eq!(cpu("hygon", "0x18").unwrap(), "Dhyana");
    assert_eq!(cpu("arm", "0").unwrap_err().0, [Refusal::Cpu { vendor: "Arm".into() }]);
    assert_eq!(cpu("intel", "0x10f").unwrap_err().0, [Refusal::CpuFamily { family: 0x10f }]);
}

#[test]
fn a_host_bridge_that_linux_lists_is_refused_unless_the_cpu_decides() {
    let listed = |text: Platform| from_platform(&text).map(|_| ());
    let refused = listed(with("8086:29c0", "8086:09a2")).unwrap_err();
    assert!(
        refused
            .to_string()
            .starts_with("host bridge hb0: 8086:09a2 stands for it, which Linux 6.1 lists as forwarding"),
        "{refused}"
    );
    // Listed for pairs below itself alone, which there are here.
    assert!(listed(with("8086:29c0", "8086:2f00")).is_err());
    let text = include_str!("exportable.toml").replacen("8086:29c0", "8086:09a2", 1);
    let zen = Platform::parse(&text.replacen("0x0f", "0x17", 1), "zen.toml").unwrap();
    assert_eq!(listed(zen), Ok(()));
}

#[test]
fn other_segments_offsets_and_functions_by_ari_are_refused() {
    let segment = with("buses = [0x40, 0x7f]", "buses = [0x40, 0x7f]\nsegment = 1");
    assert_eq!(refusals(&segment)[0], "host bridge hb1: segment 0x1, and QEMU's q35 has segment 0 only");
    let offset = with("cpu = 0xd000_0000", "cpu = 0x20_d000_0000");
    assert_eq!(
        refusals(&offset),
        ["host bridge hb1: bus address 0xd0000000 is 0x20d0000000 to the CPU, and q35 passes addresses down unchanged"]
    );
    let ari = with("bdf = \"41:00.1\"", "bdf = \"41:01.0\"");
    assert_eq!(
        refusals(&ari),
        ["function d1 (0000:41:01.0): below a link QEMU takes device 0 only, not functions numbered by ARI"]
    );
}

#[test]
fn a_device_without_function_0_is_refused_before_qemu_hides_it() {
    let platform = with("bdf = \"05:00.0\"", "bdf = \"05:00.2\"");
    assert_eq!(
        refusals(&platform),
        ["as QEMU would number it, 00/05.0/00.2 has no function 0 beside it, so no guest would look for it; put \
          something at function 0"]
    );
}

#[test]
fn acs_that_the_file_does_not_know_is_whatever_the_guest_boots_with() {
    let platform = with("acs = { cap = 0x5f, ctl = 0x1d }", "acs = \"unknown\"");
    let exported = from_platform(&platform).unwrap();
    assert_eq!(exported.twins.iter().find(|twin| twin.name == "rp-a").unwrap().acs, TwinAcs::Any);
    assert!(warnings(&exported)[1].starts_with("rp-a (0000:00:01.0): the file does not know its ACS"));
}

#[test]
fn bars_are_stood_for_where_a_device_of_that_size_exists() {
    let exported = from_platform(&synthetic::platform()).unwrap();
    let bars = |name: &str| exported.twins.iter().find(|twin| twin.name == name).unwrap().bars.clone();
    assert_eq!(bars("a1"), [(0, Bytes::new(16 << 10)), (2, Bytes::new(64 << 20))]);
    assert_eq!(bars("b1"), [(2, Bytes::new(16 << 20))]);
    let large = with("n = 2, size = \"16MiB\"", "n = 2, size = \"1GiB\"");
    let exported = from_platform(&large).unwrap();
    assert!(warnings(&exported).contains(&"some BARs: the guest shows QEMU's own or none (b1)".to_string()));
}

mod built_in {
    use super::*;

    fn built_in(name: &str) -> Result<Exported, Refusals> {
        from_platform(&Platform::built_in(name).unwrap())
    }

    #[test]
    fn client_exports() {
        let exported = built_in("client").unwrap();
        assert_eq!((exported.cpu.as_str(), exported.iommu), ("Nehalem", Iommu::Intel));
        assert_eq!(exported.model.expected_functions(), 4);
        assert_eq!(exported.cmdline, ["iommu.passthrough=0"]);
    }

    #[test]
    fn servers_are_refused_for_their_listed_host_bridges_alone() {
        for (server, sockets) in [("two-socket", &["socket0", "socket1"][..]), ("shared-switch", &["socket0"])] {
            let refused = built_in(server).unwrap_err().0;
            let hosts: Vec<&str> = refused
                .iter()
                .map(|refusal| match refusal {
                    Refusal::ListedHostBridge { name, .. } => name.as_str(),
                    _ => "",
                })
                .collect();
            assert_eq!(hosts, sockets, "{server}");
        }
    }

    #[test]
    fn arm_slots_is_refused_for_cpu_iommu_segments_and_offsets() {
        let refused = built_in("arm-slots").unwrap_err().to_string();
        for words in [
            "CPU Arm: QEMU's q35 is an x86 machine",
            "IOMMU smmu: QEMU's q35 has vtd, amd or none",
            "host bridge slot2: segment 0x2",
            "host bridge slot0: bus address 0x40000000 is 0x200040000000 to the CPU",
        ] {
            assert!(refused.contains(words), "{words}\n{refused}");
        }
    }

    /// One more whose test is here breaks the list until somebody says how it fares.
    #[test]
    fn every_built_in_platform_is_spoken_for() {
        let names: Vec<&str> = Platform::built_in_names().map(|(name, _)| name).collect();
        assert_eq!(names, ["two-socket", "shared-switch", "client", "arm-slots"]);
    }
}
