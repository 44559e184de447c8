//! Grants: what the bound drivers hand out and take, as far as it is visible from outside.
//!
//! A driver's word is worth little (NVIDIA/nccl#2335), so the best that is said here is
//! that two drivers are known to go together.

use super::{Case, Check, Station, Status, Subject};
use crate::pcie::Fact;
use crate::route::compat::{self, Exporter, Importer, Memory, Outcome};
use crate::route::domain::Owner;
use crate::route::knowledge::{self, Finding};
use crate::route::lint::passthrough_parameter;
use crate::route::{PairVerdict, Verdict};
use crate::topology::{FunctionId, FunctionInfo};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

const VERIFY: &str = "move bytes and compare them at their destination, in both directions";

pub(super) fn check(case: &Case<'_>, checks: &mut Vec<Check>) {
    match &case.subject {
        Subject::Pair(pair) => of_pair(case, pair, checks),
        Subject::Machine(functions) => checks.push(of_machine(case, functions)),
    }
}

fn of_pair(case: &Case<'_>, pair: &PairVerdict, checks: &mut Vec<Check>) {
    let info = |id| case.topology().function(id).info();
    let (here, there) = (info(pair.initiator), info(pair.target.function()));
    let object = format!("{} -> {}", here.address, there.address);
    let of = |status, evidence: String| Check::new(Station::Grant, status, object.clone(), evidence);
    let (Some(importer), Some(exporter)) = (here.driver.as_deref(), there.driver.as_deref()) else {
        let without = if here.driver.is_none() { here.address } else { there.address };
        checks.push(
            of(Status::Unknown, format!("no driver is bound to {without}")).next("bind its driver and look again"),
        );
        return;
    };
    checks.extend(address_kind(case, pair, &object));
    checks.push(match (exporter_of(there), importer_of(here)) {
        (Some(from), Some(to)) => match compat::outcome(case.topology().machine().kernel, from, to) {
            Fact::Known(Outcome::Works { memory: Memory::MovedToSystem, note, .. }) => {
                of(Status::Fail, format!("{} and {}: {note}", from.name(), to.name())).next("peerdma compat")
            }
            Fact::Known(Outcome::Works { lifetime, note, .. }) => {
                of(Status::Ok, format!("{} and {} go together, {}: {note}", from.name(), to.name(), lifetime.word()))
            }
            Fact::Known(Outcome::Refused { error, why }) => {
                of(Status::Fail, format!("{} and {}: {error}: {why}", from.name(), to.name())).next("peerdma compat")
            }
            Fact::Unknown => of(
                Status::Unknown,
                format!("what {} and {} come to is not known for this kernel", from.name(), to.name()),
            )
            .next(VERIFY),
        },
        _ => {
            of(Status::Unknown, format!("what {importer} and {exporter} grant each other is not visible from outside"))
                .next(VERIFY)
        }
    });
}

/// A driver known to hand out one kind of address, where the route takes another.
fn address_kind(case: &Case<'_>, pair: &PairVerdict, object: &str) -> Option<Check> {
    let translated = pair.domain.owner == Owner::Kernel && pair.domain.translates() == Some(true);
    let entries = knowledge::about(case.topology(), pair.initiator, pair.target.function());
    let bad = entries.iter().find(|entry| match entry.finding {
        Finding::NoBusAddresses => pair.verdict == Verdict::Direct && translated,
        Finding::BusAddressesOnly => pair.verdict == Verdict::HostBridge && translated,
        _ => false,
    })?;
    let evidence = format!("the target's driver {} ({})", bad.what, bad.source);
    Some(
        Check::new(Station::Grant, Status::Fail, object, evidence)
            .next(format!("boot with {}", passthrough_parameter(case.topology().machine()))),
    )
}

fn exporter_of(info: &FunctionInfo) -> Option<Exporter> {
    match info.driver.as_deref()? {
        _ if info.is_vfio_owned() => Some(Exporter::Vfio),
        "amdgpu" => Some(Exporter::Amdgpu),
        "xe" => Some(Exporter::Xe),
        _ => None,
    }
}

fn importer_of(info: &FunctionInfo) -> Option<Importer> {
    match info.driver.as_deref()? {
        _ if info.is_vfio_owned() => Some(Importer::Iommufd),
        "mlx5_core" => Some(Importer::Mlx5Mr),
        "bnxt_en" => Some(Importer::BnxtRe),
        "efa" => Some(Importer::Efa),
        "mana" => Some(Importer::Mana),
        "ionic" => Some(Importer::Ionic),
        "amdgpu" | "xe" => Some(Importer::Gpu),
        _ => None,
    }
}

fn of_machine(case: &Case<'_>, functions: &[FunctionId]) -> Check {
    let mut drivers: BTreeMap<&str, usize> = BTreeMap::new();
    let mut without: Vec<String> = Vec::new();
    for &function in functions {
        let info = case.topology().function(function).info();
        match info.driver.as_deref() {
            Some(driver) => *drivers.entry(driver).or_default() += 1,
            None => without.push(info.address.to_string()),
        }
    }
    let object = format!("{} functions", functions.len());
    let bound: Vec<String> = drivers.iter().map(|(driver, count)| format!("{count} {driver}")).collect();
    let bound = if bound.is_empty() { "none bound".to_string() } else { bound.join(", ") };
    match without.first() {
        None if !functions.is_empty() => {
            Check::new(Station::Grant, Status::Ok, object, format!("drivers are bound: {bound}"))
        }
        None => Check::new(Station::Grant, Status::Unknown, object, "no function to look at"),
        Some(first) => {
            let evidence = format!("drivers: {bound}; {} without, {first} first", without.len());
            Check::new(Station::Grant, Status::Unknown, object, evidence).next("bind a driver, or name two functions")
        }
    }
}
