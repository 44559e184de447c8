//! The 94 cases of `cases.toml`, each followed by numbers.
//!
//! The file says what a fabric does with single TLPs in words that belong to nobody's
//! program; here the fabric's view must meet it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "the harness of tests")]

mod data;
mod guest;
mod machine;
mod pairs;
mod random;
mod words;

use data::{Case, Data, Tlp};
use machine::Machine;
use peerdma::addr::{BusAddr, Bytes};
use peerdma::pcie::{Fact, PciAddr};
use peerdma::route::fabric::journey::{Ending, Journey, Outcome, Request, Seen, fewest_completions};
use peerdma::route::fabric::ordering::{Flow, Order, Sent, ordered, proves};
use peerdma::route::fabric::{At, Kind};
use peerdma::route::kernel_view::KernelView;
use std::collections::BTreeSet;

/// What became of one TLP of a case.
struct Followed {
    machine: Machine,
    journey: Journey,
    flow: Flow,
    by: PciAddr,
}

fn follow(data: &Data, case: &Case, send: &Tlp) -> Followed {
    let machine = Machine::new(data, case, send);
    let fabric = machine.fabric(case);
    let from = machine.id(&send.from);
    let own = machine.topology.function(from).address();
    let address = send.address.unwrap_or_else(|| {
        let to = machine.function(send.to.as_deref().unwrap());
        to.bars[0].1 + send.offset
    });
    let (kind, flow) = match send.what.as_str() {
        "MWr" => (Kind::Write, Flow::Posted),
        "MRd" => (Kind::Read, Flow::NonPosted),
        "FetchAdd" | "Swap" | "CAS" => (Kind::Atomic, Flow::NonPosted),
        "CplD" => {
            let to = machine.topology.function(machine.id(send.to.as_deref().unwrap())).address();
            let request = fabric.complete(from, to, Bytes::new(4), send.relaxed);
            let journey = Journey { request, completion: None, seen: Seen::Nothing };
            // The completer's ID, which no port looks at.
            let by = send.completer.as_deref().map_or(own, |id| id.parse().unwrap());
            return Followed { journey, flow: Flow::Completion, by, machine };
        }
        other => panic!("case {}: no TLP {other}", case.id),
    };
    let request = Request {
        kind,
        at: match send.at() {
            "00" => At::Untranslated,
            "01" => At::TranslationRequest,
            "10" => At::Translated,
            other => panic!("case {}: no AT {other}", case.id),
        },
        from,
        requester: send.rid.as_deref().map_or(own, |rid| rid.parse().unwrap()),
        address: BusAddr::new(address),
        len: Bytes::new(send.len()),
    };
    let journey = if send.relaxed { fabric.send_and_answer_relaxed(&request) } else { fabric.send(&request) };
    Followed { journey, flow, by: own, machine }
}

fn check(case: &Case, nth: usize, send: &Tlp, followed: &Followed) -> Result<(), String> {
    let machine = &followed.machine;
    let complain = |what: &str, seen: &str, expected: &[String]| {
        Err(format!("case {} ({}), TLP {nth}: {what} {seen}, expected {expected:?}", case.id, case.says))
    };
    let text = words::outcome(machine, &followed.journey.request);
    if !words::is_among(machine, &text, &send.outcome) {
        return complain("became", &text, &send.outcome);
    }
    let completion = followed.journey.completion.map(|completion| words::outcome(machine, &completion));
    if let Some(expected) = &send.completion {
        let text = completion.unwrap_or_default();
        if !words::is_among(machine, &text, expected) {
            return complain("was answered", &text, expected);
        }
    }
    let seen = followed.journey.seen;
    match &send.sees {
        Some(expected) if !words::may_see(seen, expected) => complain("told", &format!("{seen:?}"), expected),
        None if followed.flow == Flow::Posted && seen != Seen::Nothing => {
            complain("told", &format!("{seen:?}"), &["nothing".into()])
        }
        _ => Ok(()),
    }
}

fn check_order(case: &Case, followed: &[Followed]) -> Result<(), String> {
    let Some(order) = &case.order else { return Ok(()) };
    let sent = |nth: usize, completion: bool| {
        let one = &followed[nth];
        let (flow, outcome): (Flow, Outcome) = match one.journey.completion {
            Some(outcome) if completion => (Flow::Completion, outcome),
            _ => (one.flow, one.journey.request),
        };
        Sent { flow, outcome, relaxed: false, id_based: false, by: one.by }
    };
    let (first, second) = (sent(order.first, false), sent(order.second, order.completion));
    let is_ordered = match order.proof {
        None => ordered(&first, &second) == Order::Ordered,
        // The doorbell is rung when the read is done, which proves the first to be there.
        Some(read) => {
            assert!(ordered(&first, &second) == Order::Free, "case {}: the read is needless", case.id);
            proves(&sent(read, false), &first)
        }
    };
    if is_ordered == (order.is == "ordered") { Ok(()) } else { Err(format!("case {} is not {}", case.id, order.is)) }
}

#[test]
fn every_case_becomes_what_the_specification_says() {
    let data = Data::read();
    let mut complaints = Vec::new();
    for case in &data.case {
        let followed: Vec<Followed> = case.send.iter().map(|send| follow(&data, case, send)).collect();
        let checks = case.send.iter().zip(&followed).enumerate();
        complaints.extend(checks.filter_map(|(nth, (send, followed))| check(case, nth, send, followed).err()));
        complaints.extend(check_order(case, &followed).err());
    }
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
}

#[test]
fn all_94_cases_are_there_and_each_says_what_it_rests_on() {
    let data = Data::read();
    let ids: BTreeSet<String> = data.case.iter().map(|case| case.id.clone()).collect();
    assert_eq!(ids, (1..=94).map(|id| format!("{id:02}")).collect());
    assert_eq!(data.case.len(), 94);
    for case in &data.case {
        assert!(!case.rules.is_empty() && !case.send.is_empty() && !case.says.is_empty(), "case {}", case.id);
        for send in &case.send {
            assert!(!send.outcome.is_empty(), "case {}", case.id);
            // Where an outcome is left to the implementation, the case says so.
            let open = send.outcome.iter().filter(|text| text.as_str() != "RC").count() > 1;
            assert!(!open || case.judgement.is_some(), "case {}", case.id);
        }
    }
}

#[test]
fn where_linux_differs_it_counts_a_redirection_that_the_request_never_meets() {
    let data = Data::read();
    let differing: Vec<&Case> = data.case.iter().filter(|case| case.linux_differs).collect();
    assert_eq!(differing.len(), 11);
    for case in differing {
        for send in &case.send {
            let followed = follow(&data, case, send);
            let (from, to) = (followed.machine.id(&send.from), followed.machine.id(send.to.as_deref().unwrap()));
            let decision = KernelView::new(&followed.machine.topology).decide(to, from);
            assert_eq!(decision.goes_up, Fact::Known(true), "case {}", case.id);
            assert!(!followed.journey.request.through_root, "case {}", case.id);
        }
    }
}

#[test]
fn no_case_depends_on_a_register_that_the_file_does_not_state() {
    let data = Data::read();
    for case in &data.case {
        for send in &case.send {
            let followed = follow(&data, case, send);
            let ends = [Some(followed.journey.request), followed.journey.completion];
            let not_stated = |outcome: Outcome| matches!(outcome.end, Ending::NotStated(_));
            assert!(!ends.into_iter().flatten().any(not_stated), "case {}", case.id);
        }
    }
}

#[test]
fn a_long_read_brings_as_many_completions_as_the_completer_must_cut() {
    let data = Data::read();
    let counted = data.case.iter().flat_map(|case| case.send.iter().map(move |send| (case, send)));
    let mut seen = 0;
    for (case, send) in counted {
        let (Some(expected), Some(to)) = (send.completions, &send.to) else { continue };
        let machine = Machine::new(&data, case, send);
        let completer = machine.topology.function(machine.id(to)).info();
        let most = completer.registers.express.max_payload.unwrap();
        let address = BusAddr::new(machine.function(to).bars[0].1);
        assert_eq!(fewest_completions(address, Bytes::new(send.len()), most, Bytes::new(128)), expected);
        seen += 1;
    }
    assert_eq!(seen, 1, "case 84");
}

#[test]
fn completion_redirect_at_the_completers_own_port_restores_the_order_of_case_94() {
    let data = Data::read();
    let case = data.case("94");
    let mut sends: Vec<Followed> = Vec::new();
    for send in &case.send {
        let mut changed = send.clone();
        let redirected = data::Change { acs: vec!["CR".into()], ..data::Change::default() };
        changed.set.insert("DSP0".into(), redirected);
        sends.push(follow(&data, case, &changed));
    }
    let write = Sent {
        flow: Flow::Posted,
        outcome: sends[0].journey.request,
        relaxed: false,
        id_based: false,
        by: sends[0].by,
    };
    let completion = sends[1].journey.completion.unwrap();
    // Both arrive at B by the root complex now; the IOMMU translates only the request.
    assert!(completion.through_root && write.outcome.end == completion.end);
    let completion = Sent { flow: Flow::Completion, outcome: completion, ..write };
    assert_eq!(ordered(&write, &completion), Order::Ordered);
}
