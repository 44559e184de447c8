//! The change as parameters of the kernel.

use crate::both;
use crate::by_hand::{KERNELS, switch};
use crate::tree::at;
use peerdma::pcie::acs::AcsBits;
use peerdma::route::change::{Change, apply};
use peerdma::route::fix::{BootParameters, PortChange, grub_default_line, plan};
use peerdma::route::{Judge, Target, Verdict};
use peerdma::topology::{IommuMode, Topology};

fn machine(kernel: &str, line: Option<&str>) -> Topology {
    let mut machine = switch("intel:6", KERNELS).topology().machine().clone();
    machine.kernel = kernel.parse().ok();
    machine.command_line = line.map(str::to_string);
    machine.iommu = Some(IommuMode::Translated);
    switch("intel:6", KERNELS).topology().with_machine(machine)
}

fn parameters(topology: &Topology) -> BootParameters {
    let target = Target::largest_bar(topology, at(topology, "04:00.0"));
    let plan = plan(topology, &[(at(topology, "03:00.0"), target)], &both(false));
    BootParameters::for_ports(topology, plan.ports(), &plan.pairs).unwrap()
}

#[test]
fn all_other_bits_are_kept_by_name_and_the_boot_leaves_what_is_wanted() {
    let topology = machine("7.2.13", Some("quiet intel_iommu=on"));
    let parameters = parameters(&topology);
    let config = parameters.preferred().unwrap();
    // DT, EC, UF, CR, RR, TB, SV of a capability that offers all seven.
    assert_eq!(config.argument, "pci=config_acs=0010001@0000:00:01.0/00.0/00.0;0010001@0000:00:01.0/00.0/01.0");
    assert_eq!(config.line.as_deref().unwrap(), format!("quiet intel_iommu=on {}", config.argument));
    let left = config.leaves[0];
    assert_eq!((left.set, left.open), (AcsBits::SV | AcsBits::UF, AcsBits::empty()));
    let disable = parameters.disable_acs_redir.as_ref().unwrap();
    assert_eq!(disable.argument, "pci=disable_acs_redir=0000:00:01.0/00.0/00.0;0000:00:01.0/00.0/01.0");
    let left = disable.leaves[0];
    // DT is firmware's today, and clear.
    assert_eq!((left.set, left.clear), (AcsBits::empty(), AcsBits::REDIRECT | AcsBits::DT));
    assert!(left.open.contains(AcsBits::SV | AcsBits::UF), "firmware's, not the kernel's");
}

#[test]
fn booting_with_the_line_permits_the_pair() {
    let topology = machine("7.2.13", Some("quiet intel_iommu=on pci=realloc,disable_acs_redir=0000:00:01.0"));
    let parameters = parameters(&topology);
    for parameter in [Some(&parameters.config_acs), parameters.disable_acs_redir.as_ref()].into_iter().flatten() {
        let line = parameter.line.clone().unwrap();
        let after = apply(&topology, &[Change::CommandLine(line)]).unwrap().topology;
        let target = Target::largest_bar(&after, at(&after, "04:00.0"));
        let verdict = Judge::new(&after).judge(at(&after, "03:00.0"), &target).verdict;
        assert_eq!(verdict, Verdict::Direct, "{}", parameter.argument);
    }
}

#[test]
fn lists_on_the_present_line_are_taken_over_since_one_of_each_counts() {
    let line = "a=\"b c\" pci=realloc,disable_acs_redir=0000:00:02.0;pci:1b36:000c,noats quiet -- pci=x";
    let topology = machine("7.2.13", Some(line));
    let parameters = parameters(&topology);
    let disable = parameters.disable_acs_redir.as_ref().unwrap();
    let list = "0000:00:01.0/00.0/00.0;0000:00:01.0/00.0/01.0;0000:00:02.0;pci:1b36:000c";
    assert_eq!(
        disable.line.as_deref().unwrap(),
        format!("a=\"b c\" pci=realloc,noats quiet pci=disable_acs_redir={list} -- pci=x")
    );
    assert_eq!(disable.replaces.as_deref(), Some("disable_acs_redir=0000:00:02.0;pci:1b36:000c"));
    // The other list stays where it is.
    let config = parameters.config_acs.line.as_deref().unwrap();
    assert!(
        config.starts_with("a=\"b c\" pci=realloc,disable_acs_redir=0000:00:02.0;pci:1b36:000c,noats quiet"),
        "{config}"
    );
    assert_eq!(parameters.config_acs.replaces, None);
}

/// Where both name a port, `config_acs=` decides.
#[test]
fn a_list_that_would_undo_the_change_makes_the_other_parameter_insufficient() {
    let topology = machine("7.2.13", Some("intel_iommu=on pci=config_acs=xx111x1@pci:0:0"));
    let parameters = parameters(&topology);
    assert!(!parameters.disable_acs_redir.as_ref().unwrap().suffices);
    assert!(parameters.config_acs.suffices, "the first match counts, and the new ones stand first");
}

/// Two functions of one device meet at the port above, where Upstream Forwarding decides; the
/// kernel's own is lost with `disable_acs_redir=`.
#[test]
fn a_pair_that_turns_round_needs_the_parameter_that_keeps_upstream_forwarding() {
    let topology = switch("amd:0x19", KERNELS).device("03:00.1").topology();
    let mut machine = topology.machine().clone();
    machine.kernel = "6.8".parse().ok();
    machine.command_line = Some("intel_iommu=on iommu=pt".into());
    machine.iommu = Some(IommuMode::Identity);
    let topology = topology.with_machine(machine);
    let pair = (at(&topology, "03:00.0"), Target::largest_bar(&topology, at(&topology, "03:00.1")));
    let plan = plan(&topology, &[pair], &both(true));
    assert_eq!(plan.pairs[0].then.verdict, Verdict::Direct, "{:?}", plan.outcome);
    let parameters = BootParameters::for_ports(&topology, plan.ports(), &plan.pairs).unwrap();
    assert!(parameters.config_acs.suffices);
    let disable = parameters.disable_acs_redir.as_ref().unwrap();
    assert!(disable.leaves[0].open.contains(AcsBits::UF) && !disable.suffices);
    assert_eq!(parameters.preferred(), None, "6.8 has the other one only");
}

#[test]
fn the_kernels_version_decides_which_parameter_there_is() {
    let preferred = |kernel: &str| {
        let parameters = parameters(&machine(kernel, Some("intel_iommu=on")));
        parameters.preferred().map(|parameter| parameter.argument.split('=').nth(1).unwrap().to_string())
    };
    assert_eq!(preferred("6.12.23").as_deref(), Some("config_acs"));
    assert_eq!(preferred("6.10.14").as_deref(), Some("disable_acs_redir"));
    assert_eq!(preferred("4.19").as_deref(), Some("disable_acs_redir"));
    assert_eq!(preferred("4.18"), None);
}

/// Most kernels in use know the older parameter only, and ignore the newer one in silence.
#[test]
fn a_kernel_of_unknown_version_gets_the_parameter_that_more_kernels_know() {
    let parameters = parameters(&machine("unknown", Some("intel_iommu=on")));
    assert!(parameters.preferred().unwrap().argument.starts_with("pci=disable_acs_redir="));
    assert!(parameters.notes.iter().any(|note| note.contains("known from 6.11 on")), "{:?}", parameters.notes);
}

#[test]
fn kernels_that_compute_wrong_words_have_no_parameter_that_does_it_for_sure() {
    let on = |kernel: &str| parameters(&machine(kernel, Some("intel_iommu=on")));
    let wrong = on("6.12.22");
    assert_eq!(wrong.preferred(), None);
    assert!(wrong.notes.iter().any(|note| note.contains("what firmware left")), "{:?}", wrong.notes);
    let untold = on("6.12");
    assert!(untold.preferred().is_some() && untold.notes.iter().any(|note| note.contains("--kernel 6.12.30")));
}

/// The line goes into a file that a shell reads as root, and may come out of a stranger's capture.
#[test]
fn what_the_kernel_cannot_read_is_not_taken_over_from_the_present_line() {
    let line = "pci=disable_acs_redir=0000:00:02.0;$(reboot);0000:00:03.0 pci=config_acs=0@00:02.0;`reboot`";
    let parameters = parameters(&machine("7.2.13", Some(line)));
    let disable = &parameters.disable_acs_redir.as_ref().unwrap().argument;
    assert!(disable.ends_with(";0000:00:02.0"), "{disable}");
    assert!(parameters.config_acs.argument.ends_with(";0@00:02.0"), "{}", parameters.config_acs.argument);
}

#[test]
fn bits_to_set_leave_only_config_acs() {
    let topology = machine("7.2.13", Some("intel_iommu=on"));
    let port = PortChange::new(at(&topology, "00:01.0"), AcsBits::empty(), AcsBits::TB);
    let parameters = BootParameters::for_ports(&topology, &[port], &[]).unwrap();
    assert_eq!(parameters.disable_acs_redir, None);
    assert_eq!(parameters.config_acs.argument, "pci=config_acs=0011111@0000:00:01.0");
    assert_eq!(BootParameters::for_ports(&topology, &[], &[]), None);
}

#[test]
fn an_unknown_line_is_said_to_be_unknown() {
    let parameters = parameters(&machine("7.2.13", None));
    assert_eq!(parameters.config_acs.line, None);
    assert!(parameters.notes[0].contains("not known"));
}

/// A `;` ends a command in GRUB's language.
#[test]
fn semicolons_are_escaped_for_grub() {
    let line = grub_default_line("pci=disable_acs_redir=a;b");
    assert_eq!(line, r#"GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX pci=disable_acs_redir=a\;b""#);
}
