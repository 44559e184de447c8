//! BARs: whether they have an address, show all of the memory, and lie within reach.

use super::{Case, Check, Station, Status, Subject};
use crate::addr::Bytes;
use crate::route::verdict::Address;
use crate::route::{Gate, PairVerdict};
use crate::topology::{Bar, FunctionId, FunctionInfo, Origin};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

pub(super) fn check(case: &Case<'_>, checks: &mut Vec<Check>) {
    let before = checks.len();
    match &case.subject {
        Subject::Pair(pair) => {
            let target = pair.target.function();
            of_function(case, target, checks);
            if checks.len() == before {
                checks.push(fine_bars(case, target));
            }
            checks.push(reach(case, pair));
        }
        Subject::Machine(functions) => {
            for &function in *functions {
                of_function(case, function, checks);
            }
            if checks.len() == before {
                checks.push(all_fine(case, functions));
            }
        }
    }
}

/// What is wrong with a function's BARs.
fn of_function(case: &Case<'_>, function: FunctionId, checks: &mut Vec<Check>) {
    let info = case.topology().function(function).info();
    for bar in &info.bars {
        let object = format!("{} bar{}", info.address, bar.index);
        // Linux 7.2 `IORESOURCE_UNSET`, `IORESOURCE_DISABLED`: sysfs tells the size and no place.
        if matches!(info.origin, Origin::Sysfs | Origin::Capture)
            && bar.cpu.is_none()
            && let Some(size) = bar.size
        {
            let evidence = format!("{size}, and no address is assigned to it");
            checks.push(
                Check::new(Station::Bars, Status::Fail, object, evidence)
                    .next("enable above-4G decoding in firmware, or boot with pci=realloc"),
            );
            continue;
        }
        checks.extend(too_small(info, bar, object));
    }
}

fn size_of(bar: &Bar) -> Option<Bytes> {
    bar.size.or(bar.cpu.map(|range| range.len()))
}

/// A BAR that shows less than there is, or than it could.
fn too_small(info: &FunctionInfo, bar: &Bar, object: String) -> Option<Check> {
    let size = size_of(bar)?;
    let largest_bar = info.bars.iter().filter_map(size_of).max();
    let resizable = info.registers.resizable.iter().find(|resizable| resizable.index == bar.index);
    let largest = resizable.and_then(|resizable| resizable.sizes.last().copied()).filter(|&largest| largest > size);
    // Device memory lies behind the largest BAR, or the one that can be resized.
    let shows_memory = resizable.is_some() || info.registers.resizable.is_empty() && Some(size) == largest_bar;
    let memory = info.device_memory.filter(|&memory| shows_memory && memory > size);
    let next = match largest {
        Some(largest) => format!("enable Resizable BAR in firmware; this one goes up to {largest}"),
        None => "enable Resizable BAR or large BARs in firmware, if the device has them".into(),
    };
    match (memory, largest) {
        (Some(memory), _) => {
            let evidence = format!("shows {size} of {memory}: the rest cannot be reached by other devices");
            Some(Check::new(Station::Bars, Status::Fail, object, evidence).next(next))
        }
        (None, Some(largest)) if info.device_memory.is_none() => {
            let evidence = format!("{size}, and could be {largest}; how much memory is behind it is not told");
            Some(Check::new(Station::Bars, Status::Unknown, object, evidence).next(next))
        }
        _ => None,
    }
}

fn fine_bars(case: &Case<'_>, function: FunctionId) -> Check {
    let info = case.topology().function(function).info();
    let object = case.name(function);
    if info.bars.is_empty() {
        let evidence = "the input shows no memory BAR of the target";
        return Check::new(Station::Bars, Status::Unknown, object, evidence)
            .next("read the machine itself, or a peerdma capture of it");
    }
    let sizes: Vec<String> = info
        .bars
        .iter()
        .map(|bar| match size_of(bar) {
            Some(size) => format!("bar{} {size}", bar.index),
            None => format!("bar{} of unknown size", bar.index),
        })
        .collect();
    Check::new(Station::Bars, Status::Ok, object, sizes.join(", "))
}

fn all_fine(case: &Case<'_>, functions: &[FunctionId]) -> Check {
    let known = functions.iter().filter(|&&id| !case.topology().function(id).info().bars.is_empty()).count();
    let object = format!("{} functions", functions.len());
    if known == 0 {
        return Check::new(Station::Bars, Status::Unknown, object, "the input shows no memory BAR of any")
            .next("read the machine itself, or a peerdma capture of it");
    }
    let evidence = format!("{known} show BARs, none known to lack an address or to be smaller than what is behind it");
    Check::new(Station::Bars, Status::Ok, object, evidence)
}

/// Whether the initiator can form the address.
fn reach(case: &Case<'_>, pair: &PairVerdict) -> Check {
    let object = case.name(pair.initiator);
    let reasons = case.judge.reasons(pair);
    if let Some(reason) = reasons.into_iter().find(|reason| reason.gate == Gate::AddressWidth) {
        let check = Check::new(Station::Bars, Status::Fail, object, reason.evidence);
        return Check { next: reason.fix, ..check };
    }
    let info = case.topology().function(pair.initiator).info();
    let ok = |evidence: String| Check::new(Station::Bars, Status::Ok, object.clone(), evidence);
    let unknown = |evidence: &str| Check::new(Station::Bars, Status::Unknown, object.clone(), evidence);
    match (pair.address, info.dma_mask_bits) {
        (Address::Iova, _) => ok("is handed IOVAs, which are chosen within its reach".into()),
        (Address::None, _) => unknown("no address leads to the target, so none was held against its width"),
        (Address::Bus(Some(_)) | Address::CpuPhysical(Some(_)), Some(bits))
            if info.driver.is_some() || info.origin == Origin::Platform =>
        {
            ok(format!("forms addresses of {bits} bits, which reach the target"))
        }
        (Address::Bus(Some(_)) | Address::CpuPhysical(Some(_)), _) => {
            unknown("how wide its addresses are is not told: that is its driver's DMA mask")
                .next("bind its driver and look again")
        }
        _ => unknown("the target's address is not told, so none was held against its width"),
    }
}
