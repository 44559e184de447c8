//! The kernel: its configuration, its command line, what is loaded.

use super::{Case, Check, Station, Status};
use crate::pcie::Fact;
use crate::route::lint::{Code, Severity, lint};
use alloc::format;
use alloc::vec::Vec;

pub(super) fn check(case: &Case<'_>, checks: &mut Vec<Check>) {
    let machine = case.topology().machine();
    let option = "CONFIG_PCI_P2PDMA";
    let of = |status, evidence: &str| Check::new(Station::Kernel, status, option, evidence);
    checks.push(match machine.p2pdma_configured {
        Fact::Known(true) => of(Status::Ok, "y"),
        Fact::Known(false) => {
            of(Status::Fail, "not y: every peer mapping is refused").next("boot a kernel with CONFIG_PCI_P2PDMA=y")
        }
        Fact::Unknown => of(Status::Unknown, "the kernel's configuration was not read").next(format!(
            "look for {option} in /boot/config-$(uname -r) or /proc/config.gz, and put that file beside a copied sys"
        )),
    });
    driver_options(case, checks);
    command_line(case, checks);
}

/// Options that decide only where a certain driver is at one end.
fn driver_options(case: &Case<'_>, checks: &mut Vec<Check>) {
    let machine = case.topology().machine();
    let ends = case.scope.ends();
    let has = |wanted: fn(&str) -> bool| {
        ends.iter().any(|&end| case.topology().function(end).info().driver.as_deref().is_some_and(wanted))
    };
    let mut option = |name: &str, without: &str, next: &str| {
        let value = machine.kernel_config.get(name).map(|value| value.as_str());
        let of = |status, evidence: &str| Check::new(Station::Kernel, status, name, evidence);
        checks.push(match value {
            Some("y" | "m") => of(Status::Ok, value.unwrap_or_default()),
            Some(_) => of(Status::Fail, without).next(next),
            None => of(Status::Unknown, "the kernel's configuration was not read"),
        });
    };
    if has(|driver| driver == "amdgpu") {
        // siderolabs/pkgs#1488.
        option(
            "CONFIG_HSA_AMD_P2P",
            "off: amdgpu gives no GPU's memory to another device",
            "boot a kernel with CONFIG_HSA_AMD_P2P=y",
        );
    }
    if ends.iter().any(|&end| case.topology().function(end).info().is_vfio_owned()) {
        option(
            "CONFIG_IOMMUFD",
            "off: VFIO maps through type1 alone, as cacheable memory",
            "boot a kernel with CONFIG_IOMMUFD",
        );
    }
}

/// What the command line does not do although it says so.
fn command_line(case: &Case<'_>, checks: &mut Vec<Check>) {
    let Some(line) = &case.topology().machine().command_line else { return };
    // Parameters that no kernel or no machine like this has do no harm.
    let harmless = |code| matches!(code, Code::DoesNotExist | Code::OtherHardware);
    let findings = lint(line, Some(case.topology()));
    let mut serious =
        findings.iter().filter(|finding| finding.severity() == Severity::Finding && !harmless(finding.code));
    let object = "command line";
    checks.push(match serious.next() {
        None => Check::new(Station::Kernel, Status::Ok, object, "does what it says"),
        Some(first) => {
            let more = match serious.count() {
                0 => "",
                _ => "; there is more, peerdma lint-cmdline lists it",
            };
            let evidence = format!("{}: {}: {}{more}", first.code, first.argument, first.what);
            let check = Check::new(Station::Kernel, Status::Fail, object, evidence);
            match &first.fix {
                Some(fix) => check.next(format!("write {fix}")),
                None => check.next("peerdma lint-cmdline"),
            }
        }
    });
}
