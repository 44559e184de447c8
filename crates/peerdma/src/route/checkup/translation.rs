//! The IOMMU: how the initiator's addresses are treated, and which kind it must be given.

use super::{Case, Check, Station, Status, Subject};
use crate::route::domain::{Domain, Owner};
use crate::route::verdict::AddressKind;
use crate::route::{Gate, PairVerdict, Verdict};
use crate::topology::{FunctionId, IommuMode};
use alloc::format;
use alloc::vec::Vec;

pub(super) fn check(case: &Case<'_>, checks: &mut Vec<Check>) {
    match &case.subject {
        Subject::Pair(pair) => checks.push(of_pair(case, pair)),
        Subject::Machine(functions) => checks.push(of_machine(case, functions)),
    }
}

fn of_pair(case: &Case<'_>, pair: &PairVerdict) -> Check {
    let object = case.name(pair.initiator);
    // Linux 7.2 `force_dma_unencrypted`: every mapping of a confidential guest is bounced.
    if case.in_confidential_guest() && pair.verdict == Verdict::HostBridge {
        let evidence = "in a guest with confidential memory every mapping through a host bridge is bounced, which device \
                        memory cannot be, so it fails";
        return Check::new(Station::Iommu, Status::Fail, object, evidence)
            .next("only switch-direct pairs can be mapped there, and nothing checks those");
    }
    let kind = pair.address.kind();
    let reason = case.judge.reasons(pair).into_iter().find(|reason| reason.gate == Gate::IommuMode);
    let (evidence, fix) = match reason {
        Some(reason) => (reason.evidence, reason.fix),
        None => (pair.domain.evidence.clone(), None),
    };
    let evidence = match pair.wrong_address() {
        Some(wrong) => format!("give it {kind} addresses: {evidence}; {wrong}"),
        None => evidence,
    };
    let status = match (kind, pair.domain.mode) {
        (AddressKind::Unknown, _) | (AddressKind::None, None) => Status::Unknown,
        // Right only for drivers that follow Linux's peer-to-peer rules (intel/compute-runtime#942).
        (AddressKind::Bus, Some(IommuMode::Translated) | None) if !follows_rules(case, pair) => Status::Unknown,
        _ => Status::Ok,
    };
    let fix = fix.filter(|_| status != Status::Ok);
    Check { next: fix, ..Check::new(Station::Iommu, status, object, evidence) }
}

/// Whether the target's driver is one that hands out addresses by Linux's rules.
fn follows_rules(case: &Case<'_>, pair: &PairVerdict) -> bool {
    let info = case.topology().function(pair.target.function()).info();
    // NVMe's controller memory buffer and VFIO's exports both ask p2pdma for each importer.
    info.is_vfio_owned() || info.driver.as_deref() == Some("nvme")
}

fn of_machine(case: &Case<'_>, functions: &[FunctionId]) -> Check {
    let (mut translated, mut identity, mut none, mut vfio, mut unknown) = (0, 0, 0, 0, 0);
    let mut first_unknown = None;
    for &function in functions {
        let domain = Domain::of(case.topology(), function);
        match (domain.owner, domain.mode) {
            (Owner::Vfio, _) => vfio += 1,
            (Owner::Kernel, Some(IommuMode::Translated)) => translated += 1,
            (Owner::Kernel, Some(IommuMode::Identity)) => identity += 1,
            (Owner::Kernel, Some(IommuMode::None)) => none += 1,
            (Owner::Kernel, None) => {
                unknown += 1;
                first_unknown.get_or_insert(domain.evidence);
            }
        }
    }
    let object = format!("{} functions", functions.len());
    if functions.is_empty() {
        return Check::new(Station::Iommu, Status::Unknown, object, "no function to look at");
    }
    let counts = format!(
        "{translated} translated, {identity} identity, {none} without IOMMU, {vfio} owned by VFIO, {unknown} not told"
    );
    match first_unknown {
        Some(evidence) => Check::new(Station::Iommu, Status::Unknown, object, format!("{counts}: {evidence}"))
            .next("look at /sys/kernel/iommu_groups/*/type, or give --iommu"),
        None if case.in_confidential_guest() => {
            let evidence = format!("{counts}; in a guest with confidential memory mappings through host bridges fail");
            Check::new(Station::Iommu, Status::Fail, object, evidence)
        }
        None => Check::new(Station::Iommu, Status::Ok, object, counts),
    }
}
