//! Directions: what the hardware does with writes and with reads, whatever Linux says.

use super::{Case, Check, Station, Status, Subject};
use crate::pcie::Fact;
use crate::route::fabric::{Fate, Passage, Way};
use crate::route::{Gate, PairVerdict, knowledge, root_complex};
use crate::topology::{FunctionId, HostBridgeId};
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

pub(super) fn check(case: &Case<'_>, checks: &mut Vec<Check>) {
    match &case.subject {
        Subject::Pair(pair) => checks.push(of_pair(case, pair)),
        Subject::Machine(functions) => of_machine(case, functions, checks),
    }
}

fn of_pair(case: &Case<'_>, pair: &PairVerdict) -> Check {
    let (write, read) = (&pair.fabric_write, &pair.fabric_read);
    let status = match (write.fate, read.fate) {
        (Fate::Lost, _) | (_, Fate::Lost) => Status::Fail,
        (Fate::Arrives, Fate::Arrives) if case.in_guest() => Status::Unknown,
        (Fate::Arrives, Fate::Arrives) => Status::Ok,
        _ => Status::Unknown,
    };
    let mut evidence = format!("write {}, read {}, atomic {}", words(write), words(read), words(&pair.fabric_atomic));
    let mut reasons: Vec<String> = Vec::new();
    let why = |passage| case.judge.hardware(pair, passage).reasons;
    let of_hardware = why(write).into_iter().chain(why(read));
    for reason in of_hardware.filter(|reason| reason.gate == Gate::RootComplex) {
        let said = format!("{} {}", reason.object, reason.evidence);
        if !reasons.contains(&said) {
            reasons.push(said);
        }
    }
    for said in reasons.iter().chain(&known(case, pair)) {
        evidence.push_str("; ");
        evidence.push_str(said);
    }
    let object = format!("{} -> {}", case.name(pair.initiator), case.name(pair.target.function()));
    let check = Check::new(Station::Direction, status, object, evidence);
    match (write.fate, read.fate) {
        (Fate::Arrives, Fate::Lost) => check.next("let the owner of the data write it: put instead of get"),
        (Fate::Lost, Fate::Lost) => check.next("copy through RAM, or put both below one switch"),
        (Fate::Lost, _) => check.next("let the initiator read: get instead of put"),
        (Fate::Arrives, Fate::Arrives) => check,
        _ => check.next("move bytes and compare them at their destination, in both directions"),
    }
}

/// Reports about hardware on the way.
fn known(case: &Case<'_>, pair: &PairVerdict) -> Vec<String> {
    let entries = knowledge::about(case.topology(), pair.initiator, pair.target.function());
    let through_root = pair.fabric_write.way == Some(Way::RootComplex);
    entries
        .iter()
        .filter(|entry| match entry.finding {
            knowledge::Finding::SpeedNote => true,
            finding => through_root && finding.delivers_writes().is_some(),
        })
        .map(|entry| format!("{} ({})", entry.what, entry.source))
        .collect()
}

fn words(passage: &Passage) -> &'static str {
    match (passage.fate, passage.way) {
        (Fate::Arrives, Some(Way::BelowRoot)) => "arrives below the root",
        (Fate::Arrives, Some(Way::RootComplex)) => "arrives through the root complex",
        (Fate::Arrives, None) => "arrives",
        (Fate::Lost, _) => "is lost",
        (Fate::Undefined, _) => "is undefined",
        (Fate::Unknown, _) => "is not known",
    }
}

/// What each root complex above the functions forwards.
fn of_machine(case: &Case<'_>, functions: &[FunctionId], checks: &mut Vec<Check>) {
    let hosts: BTreeSet<HostBridgeId> =
        functions.iter().filter_map(|&function| case.judge.kernel().host_bridge_above(function)).collect();
    if hosts.is_empty() {
        let evidence = "no host bridge above any function is known";
        checks.push(Check::new(Station::Direction, Status::Unknown, "root complex", evidence));
        return;
    }
    for host in hosts {
        let bridge = case.topology().host_bridge(host);
        let forwarding = root_complex::forwarding(case.topology(), Some(host), Some(host));
        let (status, what) = match (forwarding.writes, forwarding.reads) {
            // What root complex a virtual machine shows is the hypervisor's choice.
            (Fact::Known(true), Fact::Known(true)) if case.in_guest() => (Status::Unknown, "forwards writes and reads"),
            (Fact::Known(true), Fact::Known(true)) => (Status::Ok, "forwards writes and reads"),
            (Fact::Known(true), Fact::Known(false)) => (Status::Fail, "forwards writes, loses reads"),
            (Fact::Known(false), _) | (_, Fact::Known(false)) => (Status::Fail, "does not forward"),
            _ => (Status::Unknown, "what it forwards between its ports is not known"),
        };
        let mut evidence = String::from(what);
        for source in &forwarding.sources {
            evidence.push_str(&format!("; {source}"));
        }
        let object = format!("host bridge {:04x}:{:02x}", bridge.domain(), bridge.bus());
        let check = Check::new(Station::Direction, status, object, evidence);
        checks.push(match status {
            Status::Unknown => check.next("move bytes and compare them at their destination, in both directions"),
            _ => check,
        });
    }
}
