//! The route: what both views say of a pair, or of all pairs of a machine.

use super::{Case, Check, Station, Status, Subject};
use crate::route::{Gate, PairVerdict, Target, Verdict};
use crate::topology::FunctionId;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Gates of a verdict's reasons that other stations show.
const ELSEWHERE: [Gate; 4] = [Gate::IommuMode, Gate::AddressWidth, Gate::Assumed, Gate::Atomics];

pub(super) fn check(case: &Case<'_>, checks: &mut Vec<Check>) {
    match &case.subject {
        Subject::Pair(pair) => checks.push(of_pair(case, pair)),
        Subject::Machine(functions) => checks.push(of_machine(case, functions)),
    }
}

fn of_pair(case: &Case<'_>, pair: &PairVerdict) -> Check {
    let object = arrow(case, pair.initiator, pair.target.function());
    let reasons: Vec<_> =
        case.judge.reasons(pair).into_iter().filter(|reason| !ELSEWHERE.contains(&reason.gate)).collect();
    let mut evidence = String::from(words(pair.verdict));
    for reason in &reasons {
        evidence.push_str(&format!("; {} {}: {}", reason.gate, reason.object, reason.evidence));
    }
    let check = Check::new(Station::Route, status(case, pair.verdict), object, evidence);
    let next = match pair.verdict {
        Verdict::Direct | Verdict::HostBridge if case.in_guest() => Some("run peerdma on the host".into()),
        Verdict::Direct | Verdict::HostBridge => None,
        _ => reasons.into_iter().find_map(|reason| reason.fix),
    };
    Check { next, ..check }
}

fn of_machine(case: &Case<'_>, functions: &[FunctionId]) -> Check {
    let mut counts = [0usize; 4];
    let mut first: Option<(FunctionId, FunctionId)> = None;
    for &initiator in functions {
        for &other in functions.iter().filter(|&&other| other != initiator) {
            let verdict = case.judge.judge(initiator, &Target::largest_bar(case.topology(), other)).verdict;
            counts[rank(verdict)] += 1;
            // The first refused pair, or without any the first unknown one.
            if verdict == Verdict::Refused && counts[rank(verdict)] == 1
                || verdict == Verdict::Unknown && counts[rank(Verdict::Refused)] == 0 && counts[rank(verdict)] == 1
            {
                first = Some((initiator, other));
            }
        }
    }
    let [direct, host_bridge, unknown, refused] = counts;
    let object = format!("{} pairs", counts.iter().sum::<usize>());
    if functions.len() < 2 {
        return Check::new(
            Station::Route,
            Status::Unknown,
            object,
            "fewer than two display, network, storage or accelerator functions",
        )
        .next("name two functions: peerdma doctor FROM TO");
    }
    let evidence = format!("{direct} direct, {host_bridge} host_bridge, {refused} refused, {unknown} unknown");
    let worst = match (refused, unknown) {
        (0, 0) => Verdict::Direct,
        (0, _) => Verdict::Unknown,
        _ => Verdict::Refused,
    };
    let check = Check::new(Station::Route, status(case, worst), object, evidence);
    match first {
        Some((from, to)) => check.next(format!("peerdma doctor {} {}", case.name(from), case.name(to))),
        None if case.in_guest() => check.next("run peerdma on the host"),
        None => check,
    }
}

/// In a virtual machine a good route is nobody's evidence.
fn status(case: &Case<'_>, verdict: Verdict) -> Status {
    match verdict {
        Verdict::Refused => Status::Fail,
        Verdict::Unknown => Status::Unknown,
        Verdict::Direct | Verdict::HostBridge if case.in_guest() => Status::Unknown,
        Verdict::Direct | Verdict::HostBridge => Status::Ok,
    }
}

const fn rank(verdict: Verdict) -> usize {
    match verdict {
        Verdict::Direct => 0,
        Verdict::HostBridge => 1,
        Verdict::Unknown => 2,
        Verdict::Refused => 3,
    }
}

const fn words(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Direct => "direct: below the root",
        Verdict::HostBridge => "host_bridge: up to the host bridge and down again",
        Verdict::Refused => "refused",
        Verdict::Unknown => "unknown",
    }
}

fn arrow(case: &Case<'_>, from: FunctionId, to: FunctionId) -> String {
    format!("{} -> {}", case.name(from), case.name(to))
}
