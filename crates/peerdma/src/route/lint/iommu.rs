//! IOMMU settings that contradict each other, or peer traffic.
//!
//! Linux 7.2 `iommu_setup` (`arch/x86/kernel/pci-dma.c`), `iommu_set_def_domain_type`,
//! `intel_iommu_setup`, `parse_amd_iommu_options`: each takes a list of words apart by
//! commas, and of two settings of one thing the later counts.

use super::lists::Lists;
use super::{Code, Finding, Line};
use crate::topology::CpuVendor;
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

/// One setting of one thing, with the argument that makes it.
#[derive(Clone, Copy)]
struct Setting<'l> {
    on: bool,
    argument: &'l str,
}

pub(super) fn check(line: &Line<'_>, lists: &Lists<'_>, findings: &mut Vec<Finding>) {
    let passthrough = passthrough(line);
    contradiction(&passthrough, "passthrough", findings);
    let offs = offs(line);
    let in_force = passthrough.last().copied();
    if let (Some(off), Some(mode)) = (offs, in_force.filter(|mode| mode.on)) {
        let what =
            format!("{} turns the IOMMU off, so there is nothing for {} to pass through", off.argument, mode.argument);
        let fix = format!("leave {} out, or {} where an IOMMU is wanted", mode.argument, off.argument);
        findings.push(Finding::new(Code::IommuContradiction, mode.argument, what).fix(fix));
    }
    if let (None, Some(mode)) = (offs, in_force.filter(|mode| !mode.on))
        && lists.clears_redirects()
    {
        // intel/compute-runtime#942: all ports clear, bytes lost until iommu=pt was added.
        let what = format!(
            "ports are cleared, so requests turn below the root by bus address, while {} keeps device addresses \
             translated: a driver that hands out anything but bus addresses loses every byte",
            mode.argument
        );
        findings.push(
            Finding::new(Code::TranslatedWhileCleared, mode.argument, what)
                .fix(passthrough_word(line.machine.vendor.as_ref())),
        );
    }
    // NVIDIA/nodewright-packages#122.
    if line.machine.is_arm()
        && line.machine.is_before(6, 11)
        && let (Some(mode), Some(kernel)) = (in_force.filter(|mode| mode.on), line.machine.kernel)
    {
        let what = format!(
            "before Linux 6.11 passthrough on SMMUv3 with ACS set was seen to leave GPUs without a usable context; this is {kernel}"
        );
        findings.push(
            Finding::new(Code::PassthroughOnOldSmmu, mode.argument, what)
                .fix("leave it out on this kernel, or boot 6.11 or later"),
        );
    }
    if let Some(element) = lists.direct_translated()
        && line.arguments.iter().flat_map(super::Argument::pci_options).any(|option| option == "noats")
    {
        let what = "DT lets translated requests turn below the root, and pci=noats keeps devices from making any";
        findings.push(Finding::new(Code::DirectTranslatedWithoutAts, element, what).fix("leave noats out"));
    }
    // Linux 7.2 `dma_direct_map_phys`: MMIO where bouncing is forced is an error.
    for (argument, value) in line.values("swiotlb") {
        if value.split(',').any(|word| word == "force") {
            let what = "every kernel mapping is bounced through RAM, and device memory cannot be, so mappings through \
                        the host bridge fail wherever addresses are not translated";
            findings.push(Finding::new(Code::ForcedBouncing, argument.text, what).fix("leave force out"));
        }
    }
}

/// How passthrough is asked for here.
pub(super) fn passthrough_word(vendor: Option<&CpuVendor>) -> &'static str {
    match vendor {
        Some(CpuVendor::Amd | CpuVendor::Intel | CpuVendor::Hygon) => "iommu=pt",
        _ => "iommu.passthrough=1",
    }
}

/// All settings of the default domain, in the line's order.
fn passthrough<'l>(line: &Line<'l>) -> Vec<Setting<'l>> {
    let mut settings = Vec::new();
    for argument in &line.arguments {
        let mut push = |on| settings.push(Setting { on, argument: argument.text });
        match (argument.name.as_str(), argument.value) {
            // Only x86 reads words here, each by its start.
            ("iommu", Some(value)) if !line.machine.is_arm() => {
                for word in value.split(',') {
                    if word.starts_with("pt") {
                        push(true);
                    } else if word.starts_with("nopt") {
                        push(false);
                    }
                }
            }
            ("iommu.passthrough", Some(value)) => {
                if let Some(on) = super::names::boolean(value) {
                    push(on);
                }
            }
            _ => {}
        }
    }
    settings
}

/// The setting that leaves the machine without IOMMU, if the last word of its kind does.
fn offs<'l>(line: &Line<'l>) -> Option<Setting<'l>> {
    let vendor = line.machine.iommu_vendor();
    let mut last: [Option<Setting<'l>>; 3] = [None; 3];
    for argument in &line.arguments {
        let slot = match argument.name.as_str() {
            "iommu" if !line.machine.is_arm() => 0,
            "intel_iommu" if !matches!(vendor, Some(CpuVendor::Amd | CpuVendor::Hygon | CpuVendor::Arm)) => 1,
            "amd_iommu" if !matches!(vendor, Some(CpuVendor::Intel | CpuVendor::Arm)) => 2,
            _ => continue,
        };
        for word in argument.value.unwrap_or_default().split(',') {
            match word {
                "off" => last[slot] = Some(Setting { on: false, argument: argument.text }),
                // AMD's off stays off: no word turns it on again.
                "on" if slot == 1 => last[slot] = None,
                _ => {}
            }
        }
    }
    last.into_iter().flatten().next()
}

fn contradiction(settings: &[Setting<'_>], thing: &str, findings: &mut Vec<Finding>) {
    let Some(last) = settings.last() else { return };
    if let Some(other) = settings.iter().find(|setting| setting.on != last.on) {
        let (is, was) = if last.on { ("on", "off") } else { ("off", "on") };
        let what = format!("turns {thing} {was}, and {} later turns it {is}; the last counts", last.argument);
        findings
            .push(Finding::new(Code::IommuContradiction, other.argument.to_string(), what).fix("keep one of the two"));
    }
}
