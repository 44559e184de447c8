//! Names and values that no kernel has, and near misses of those that it has.
//!
//! Lists of names are those of Linux 7.2 `Documentation/admin-guide/kernel-parameters.txt`
//! and of the functions that read them; a few words of older kernels are in them so that
//! nobody is accused who boots one.

use super::{Argument, Code, Finding, Line};
use crate::topology::CpuVendor;
use alloc::format;
use alloc::vec::Vec;

/// A parameter that people pass on and no kernel reads.
struct Folklore {
    name: &'static str,
    what: &'static str,
    fix: &'static str,
}

/// Whole parameters.
const NO_PARAMETERS: [Folklore; 1] = [Folklore {
    // intel/compute-runtime#935.
    name: "pcie_acs_override",
    what: "belongs to a patch that is in no released kernel; it changes IOMMU groups only, never an ACS register",
    fix: "pci=disable_acs_redir= or pci=config_acs= with the ports concerned",
}];

/// Options of `pci=`.
const NO_PCI_OPTIONS: [Folklore; 1] = [Folklore {
    // NVIDIA/nccl#2079.
    name: "noacs",
    what: "no kernel has it",
    fix: "pci=disable_acs_redir= with the ports concerned; peerdma fix finds them",
}];

/// Values: parameter, word.
const NO_VALUES: [(&str, Folklore); 7] = [
    // mondoohq/cnspec#3891.
    (
        "amd_iommu",
        Folklore {
            name: "on",
            what: "AMD's driver takes no such word; it is on unless told off, so this is harmless",
            fix: "leave it out",
        },
    ),
    ("amd_iommu", Folklore { name: "pt", what: "AMD's driver takes no such word", fix: "iommu=pt" }),
    ("intel_iommu", Folklore { name: "pt", what: "Intel's driver takes no such word", fix: "intel_iommu=on iommu=pt" }),
    (
        "intel_iommu",
        Folklore { name: "passthrough", what: "Intel's driver takes no such word", fix: "intel_iommu=on iommu=pt" },
    ),
    (
        "iommu",
        Folklore {
            name: "on",
            what: "there is no such word",
            fix: "intel_iommu=on on Intel; on AMD nothing is needed",
        },
    ),
    ("iommu", Folklore { name: "passthrough", what: "there is no such word", fix: "iommu=pt or iommu.passthrough=1" }),
    ("iommu", Folklore { name: "identity", what: "there is no such word", fix: "iommu=pt or iommu.passthrough=1" }),
];

/// Words that the IOMMU parameters take, each read by its start.
const WORDS: [(&str, &[&str]); 3] = [
    (
        "iommu",
        &[
            "off",
            "force",
            "noforce",
            "biomerge",
            "panic",
            "nopanic",
            "merge",
            "nomerge",
            "forcesac",
            "allowdac",
            "nodac",
            "usedac",
            "soft",
            "pt",
            "nopt",
            "noagp",
            "noaperture",
            "fullflush",
            "nofullflush",
            "memaper",
            "leak",
            "calgary",
            "group_mf",
            "novmerge",
            "vmerge",
        ],
    ),
    (
        "intel_iommu",
        &[
            "on",
            "off",
            "igfx_off",
            "forcedac",
            "strict",
            "sp_off",
            "sm_on",
            "sm_off",
            "tboot_noforce",
            "nobounce",
            "ecs_off",
            "eager_map",
        ],
    ),
    (
        "amd_iommu",
        &[
            "fullflush",
            "off",
            "force_isolation",
            "force_enable",
            "pgtbl_v1",
            "pgtbl_v2",
            "irtcachedis",
            "nohugepages",
            "v2_pgsizes_only",
            "isolate",
            "share",
        ],
    ),
];

/// Parameters whose near misses are told.
const PARAMETERS: [&str; 5] = ["intel_iommu", "amd_iommu", "iommu.passthrough", "iommu.strict", "iommu.forcedac"];
/// Options of `pci=` whose near misses are told.
const PCI_OPTIONS: [&str; 4] = ["disable_acs_redir", "config_acs", "pcie_bus_peer2peer", "resource_alignment"];

pub(super) fn check(line: &Line<'_>, findings: &mut Vec<Finding>) {
    if line.text.bytes().filter(|&byte| byte == b'"').count() % 2 == 1
        && let Some(at) = line.text.rfind('"')
    {
        let start = line.text[..at].rfind([' ', '\t', '\n']).map_or(0, |space| space + 1);
        let argument = line.text[start..].split_whitespace().next().unwrap_or_default();
        let what = "the quote is not closed, so everything after it is one argument";
        findings.push(Finding::new(Code::OpenQuote, argument, what).fix("close it, or leave it out"));
    }
    for argument in &line.arguments {
        check_name(argument, findings);
        for option in argument.pci_options() {
            check_pci_option(option, findings);
        }
        check_value(argument, line, findings);
    }
    for argument in line.after_dashes.iter().filter(|argument| is_known(argument) && argument.value.is_some()) {
        let what = "stands behind --, where arguments are handed to init and the kernel reads none";
        findings.push(Finding::new(Code::AfterDashes, argument.text, what).fix("put it before the --"));
    }
}

fn is_known(argument: &Argument<'_>) -> bool {
    PARAMETERS.contains(&argument.name.as_str()) || matches!(argument.name.as_str(), "pci" | "iommu")
}

fn check_name(argument: &Argument<'_>, findings: &mut Vec<Finding>) {
    if let Some(no) = NO_PARAMETERS.iter().find(|no| no.name == argument.name) {
        findings.push(Finding::new(Code::DoesNotExist, argument.text, no.what).fix(no.fix));
    } else if argument.as_list_outside_pci().is_some() {
        let what = "is an option of pci=; alone the kernel hands it to init";
        findings.push(Finding::new(Code::OutsidePci, argument.text, what).fix(format!("pci={}", argument.text)));
    } else if let Some(value) = argument.value
        && argument.name != "pci"
        && argument.name.len() <= 5
        && ["disable_acs_redir=", "config_acs="].iter().any(|option| value.starts_with(option))
    {
        let what = format!("there is no parameter {}", argument.name);
        findings.push(Finding::new(Code::Misspelt, argument.text, what).fix(format!("pci={value}")));
    } else if !is_known(argument)
        && let Some(meant) = near(&argument.name, &PARAMETERS)
    {
        let value = argument.value.map(|value| format!("={value}")).unwrap_or_default();
        let what = format!("there is no parameter {}", argument.name);
        findings.push(Finding::new(Code::Misspelt, argument.text, what).fix(format!("{meant}{value}")));
    }
}

fn check_pci_option(option: &str, findings: &mut Vec<Finding>) {
    let (name, value) = match option.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (option, None),
    };
    let argument = format!("pci={option}");
    if let Some(no) = NO_PCI_OPTIONS.iter().find(|no| no.name == name) {
        findings.push(Finding::new(Code::DoesNotExist, argument, no.what).fix(no.fix));
    } else if matches!(name, "disable_acs_redir" | "config_acs") && value.is_none() {
        let what = "without = and a list of ports there is no such option";
        findings.push(Finding::new(Code::EmptyList, argument, what));
    } else if !PCI_OPTIONS.contains(&name)
        && let Some(meant) = near(name, &PCI_OPTIONS)
    {
        let value = value.map(|value| format!("={value}")).unwrap_or_default();
        let what = format!("pci= has no option {name}");
        findings.push(Finding::new(Code::Misspelt, argument, what).fix(format!("pci={meant}{value}")));
    }
}

fn check_value(argument: &Argument<'_>, line: &Line<'_>, findings: &mut Vec<Finding>) {
    let name = argument.name.as_str();
    if matches!(name, "iommu.passthrough" | "iommu.strict" | "iommu.forcedac") {
        if argument.value.and_then(boolean).is_none() {
            let what = "takes 0 or 1; anything else leaves the default";
            let fix = matches!(argument.value, Some("pt" | "passthrough")).then(|| format!("{name}=1"));
            findings.push(Finding { fix, ..Finding::new(Code::InvalidValue, argument.text, what) });
        }
        return;
    }
    let Some((_, words)) = WORDS.iter().find(|(parameter, _)| *parameter == name) else { return };
    let other = match (name, line.machine.iommu_vendor()) {
        ("iommu" | "intel_iommu" | "amd_iommu", Some(CpuVendor::Arm)) => Some("Arm"),
        ("intel_iommu", Some(CpuVendor::Amd | CpuVendor::Hygon)) => Some("AMD"),
        ("amd_iommu", Some(CpuVendor::Intel)) => Some("Intel"),
        _ => None,
    };
    if let Some(other) = other {
        let what = format!("{name}= is not read on {other} machines, so it does nothing here");
        let finding = Finding::new(Code::OtherHardware, argument.text, what);
        let asks_passthrough =
            name == "iommu" && argument.value.is_some_and(|value| value.split(',').any(|word| word == "pt"));
        // Before 6.11 passthrough is not what one wants on Arm.
        let useful = asks_passthrough && !line.machine.is_before(6, 11);
        findings.push(if useful { finding.fix("iommu.passthrough=1") } else { finding });
        return;
    }
    // Other architectures take other words.
    if matches!(line.machine.vendor, Some(CpuVendor::Other(_))) {
        return;
    }
    for word in argument.value.unwrap_or_default().split(',') {
        if let Some((_, no)) = NO_VALUES.iter().find(|(parameter, no)| *parameter == name && no.name == word) {
            findings.push(Finding::new(Code::DoesNotExist, argument.text, no.what).fix(no.fix));
        } else if word.len() >= 2
            && !words.iter().any(|known| word.starts_with(known))
            && let Some(meant) = words.iter().find(|known| known.len() >= 2 && distance(word, known) == 1)
        {
            let what = format!("{name}= takes no word {word}");
            findings.push(Finding::new(Code::Misspelt, argument.text, what).fix(format!("{name}={meant}")));
        }
    }
}

/// As the kernel reads a truth value (`kstrtobool`): by its first letter, two for on and off.
pub(super) fn boolean(value: &str) -> Option<bool> {
    let mut letters = value.bytes().map(|byte| byte.to_ascii_lowercase());
    match (letters.next()?, letters.next()) {
        (b'y' | b't' | b'e' | b'1', _) | (b'o', Some(b'n')) => Some(true),
        (b'n' | b'f' | b'd' | b'0', _) | (b'o', Some(b'f')) => Some(false),
        _ => None,
    }
}

/// The known name that `name` is a slip away from: one letter, and one more for every eight.
fn near<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    if known.contains(&name) {
        return None;
    }
    let slips = |known: &&&str| (1..=1 + known.len() / 8).contains(&distance(name, known));
    known.iter().find(slips).copied()
}

/// Letters to add, take away or change to come from one to the other (Levenshtein).
///
/// Long texts are never near.
fn distance(one: &str, other: &str) -> usize {
    const LONGEST: usize = 24;
    if one.len() > LONGEST || other.len() > LONGEST {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (above, a) in one.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = above + 1;
        for (left, b) in other.bytes().enumerate() {
            let changed = diagonal + usize::from(a != b);
            diagonal = row[left + 1];
            row[left + 1] = changed.min(row[left] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distance_counts_letters() {
        assert_eq!(distance("config_acs", "config_acs"), 0);
        assert_eq!(distance("disable_acs_redirect", "disable_acs_redir"), 3);
        assert_eq!(distance("", "pt"), 2);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance(&"x".repeat(100), "x"), usize::MAX);
    }

    #[test]
    fn truth_values_are_read_as_the_kernel_does() {
        for (text, value) in [
            ("1", Some(true)),
            ("yes", Some(true)),
            ("on", Some(true)),
            ("0", Some(false)),
            ("off", Some(false)),
            ("N", Some(false)),
            ("pt", None),
            ("", None),
            ("o", None),
        ] {
            assert_eq!(boolean(text), value, "{text}");
        }
    }
}
