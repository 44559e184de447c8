//! The kernel: its configuration, its command line, what is loaded.

use super::{Case, Check, Station, Status, Subject};
use crate::pcie::Fact;
use crate::route::lint::{Code, Severity, lint};
use crate::topology::FunctionId;
use alloc::format;
use alloc::string::String;
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
    peermem(case, checks);
    command_line(case, checks);
}

/// Options that decide only where a certain driver is at one end.
fn driver_options(case: &Case<'_>, checks: &mut Vec<Check>) {
    let machine = case.topology().machine();
    let ends = case.ends();
    let has = |wanted: fn(&str) -> bool| {
        ends.iter().any(|&end| case.topology().function(end).info().driver.as_deref().is_some_and(wanted))
    };
    let mut option = |name: &str, without: &str, next: &str| {
        let value = machine.kernel_config.get(name).map(|value| value.as_str());
        let of = |status, evidence: &str| Check::new(Station::Kernel, status, name, evidence);
        checks.push(match value {
            Some("m") => of(Status::Ok, &as_module(machine.modules.as_deref(), name)),
            Some("y") => of(Status::Ok, "y"),
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

/// An option that is built as a module of its own name.
fn as_module(loaded: Option<&[String]>, option: &str) -> String {
    let module = option.trim_start_matches("CONFIG_").to_ascii_lowercase();
    match loaded {
        None => "m".into(),
        Some(loaded) if loaded.contains(&module) => format!("m, {module} is loaded"),
        Some(_) => format!("m, {module} is not loaded yet"),
    }
}

/// NVIDIA's driver gives memory to RDMA through a module of its own, or as a dma-buf.
fn peermem(case: &Case<'_>, checks: &mut Vec<Check>) {
    let driver = |id: FunctionId| case.topology().function(id).info().driver.as_deref();
    let takes = |id: FunctionId| {
        let rdma = ["mlx5_core", "bnxt_en", "ice", "irdma", "efa", "ionic", "mana"];
        driver(id).is_some_and(|driver| rdma.contains(&driver))
    };
    let gives = |id: FunctionId| driver(id) == Some("nvidia");
    let is_asked = match &case.subject {
        Subject::Pair(pair) => takes(pair.initiator) && gives(pair.target.function()),
        Subject::Machine(ends) => ends.iter().any(|&id| takes(id)) && ends.iter().any(|&id| gives(id)),
    };
    let Some(modules) = case.topology().machine().modules.as_ref().filter(|_| is_asked) else { return };
    let module = "nvidia_peermem";
    checks.push(if modules.iter().any(|name| name == module) {
        Check::new(Station::Kernel, Status::Ok, module, "is loaded")
    } else {
        let evidence =
            "is not loaded: registering GPU memory needs it, or a dma-buf, which only the open modules export";
        Check::new(Station::Kernel, Status::Unknown, module, evidence).next("modprobe nvidia_peermem")
    });
}

/// What the command line does not do although it says so.
fn command_line(case: &Case<'_>, checks: &mut Vec<Check>) {
    let Some(line) = &case.topology().machine().command_line else { return };
    let findings: Vec<_> = lint(line, Some(case.topology()))
        .into_iter()
        .filter(|finding| finding.severity() == Severity::Finding)
        .collect();
    // Parameters that no kernel or no machine like this has do no harm.
    let harmless = |code| matches!(code, Code::DoesNotExist | Code::OtherHardware);
    let mut serious = findings.iter().filter(|finding| !harmless(finding.code));
    let object = "command line";
    checks.push(match serious.next() {
        None if findings.is_empty() => Check::new(Station::Kernel, Status::Ok, object, "does what it says"),
        None => {
            let idle: Vec<&str> = findings.iter().map(|finding| finding.argument.as_str()).collect();
            let evidence = format!("does no harm; to no effect: {}", idle.join(", "));
            Check::new(Station::Kernel, Status::Ok, object, evidence).next("peerdma lint-cmdline says why")
        }
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
