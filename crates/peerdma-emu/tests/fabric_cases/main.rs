//! The 94 cases of the resolver's data file, on the emulated fabric.
//!
//! The file says what a fabric does with single TLPs in words that belong to nobody's program. The
//! resolver has its own answers; nothing is shared but the file and the types that it is read into. Here each
//! case's registers are written into configuration spaces, and its TLPs travel twice: by hand
//! through [`peerdma_emu::fabric`], and, where a device could send them, through a whole machine
//! with queues and bytes that arrive.

#![expect(clippy::unwrap_used, clippy::panic, reason = "the harness of tests")]

mod changes;
#[expect(dead_code, reason = "what is about Linux, and what only readers of the file need, is the resolver's test's")]
#[path = "../../../peerdma/tests/fabric_cases/data.rs"]
mod data;
mod hops;
mod order;
mod registers;
mod sender;
mod whole;
mod wiring;
mod words;

use data::{Case, Data, Tlp};
use hops::Became;
use std::collections::BTreeSet;

/// What a TLP became that is not what its case says.
fn complaints(case: &Case, nth: usize, sent: &Tlp, became: &Became) -> Vec<String> {
    let mut list = Vec::new();
    let mut complain = |what: &str, seen: &str, expected: &[String]| {
        let (id, says) = (&case.id, &case.says);
        list.push(format!("case {id} ({says}), TLP {nth}: {what} {seen}, expected {expected:?}"));
    };
    if !words::is_among(&became.outcome, &sent.outcome) {
        complain("became", &became.outcome, &sent.outcome);
    }
    if let Some(expected) = &sent.completion {
        let text = became.completion.as_deref().unwrap_or("not at all");
        if !words::is_among(text, expected) {
            complain("was answered", text, expected);
        }
    }
    if let Some(expected) = &sent.sees {
        let text = became.sees.unwrap_or("nothing");
        if !expected.iter().any(|expected| expected == text) {
            complain("told", text, expected);
        }
    } else if sent.what == "MWr" && became.sees.is_some() {
        complain("told", became.sees.unwrap_or_default(), &[]);
    }
    if let Some(expected) = sent.completions.filter(|&expected| expected != became.completions) {
        complain("completions", &became.completions.to_string(), &[expected.to_string()]);
    }
    list
}

#[test]
fn hop_by_hop_every_case_becomes_what_the_specification_says() {
    let data = Data::read();
    let mut all = Vec::new();
    for case in data.case.iter().filter(|case| case.id != "59") {
        for (nth, sent) in case.send.iter().enumerate() {
            all.extend(complaints(case, nth, sent, &hops::send(&data, case, sent)));
        }
    }
    assert!(all.is_empty(), "{} complaints:\n{}", all.len(), all.join("\n"));
}

#[test]
fn in_a_whole_machine_every_case_becomes_the_same_and_the_bytes_are_where_it_says() {
    let data = Data::read();
    let (mut all, mut sent_by_hand_alone) = (Vec::new(), BTreeSet::new());
    for case in &data.case {
        for (nth, sent) in case.send.iter().enumerate() {
            if whole::can_send(sent) {
                all.extend(complaints(case, nth, sent, &whole::send(&data, case, sent, 7)));
            } else {
                sent_by_hand_alone.insert(case.id.as_str());
            }
        }
    }
    assert!(all.is_empty(), "{} complaints:\n{}", all.len(), all.join("\n"));
    // Forged IDs and completions that nobody asked for are nothing that a device of ours sends.
    assert_eq!(sent_by_hand_alone, ["17", "18", "19", "20", "21", "22", "23", "60", "63"].into());
}

#[test]
fn a_write_that_a_root_complex_splits_arrives_in_pieces_that_each_fit() {
    let data = Data::read();
    let case = data.case("85");
    assert_eq!(hops::send(&data, case, &case.send[0]).pieces, 2);
    assert_eq!(whole::send(&data, case, &case.send[0], 1).pieces, 2);
}

#[test]
fn a_long_write_through_a_root_complex_that_splits_arrives_whole() {
    let data = Data::read();
    let case = data.case("85");
    assert!(whole::arrives(&data, case, &case.send[0], 0x4321));
    // Without splitting nothing of it does.
    assert!(!whole::arrives(&data, case, &case.send[1], 0x4321));
}

#[test]
fn what_nothing_orders_arrives_in_both_orders() {
    let data = Data::read();
    for id in ["91", "93", "94"] {
        let case = data.case(id);
        assert_eq!(case.order.as_ref().unwrap().is, "free");
        assert_eq!(order::orders(&data, case, &[], false), [false, true].into(), "case {id}: {}", case.says);
    }
}

#[test]
fn what_a_read_proves_to_be_there_is_there_before_what_follows() {
    let data = Data::read();
    let case = data.case("92");
    assert_eq!(case.order.as_ref().unwrap().is, "ordered");
    assert_eq!(order::orders(&data, case, &[], false), [true].into(), "case 92: {}", case.says);
    // Without the read both orders are there, so that it is the read which does it.
    assert_eq!(order::orders(&data, case, &[], true), [false, true].into());
}

#[test]
fn no_order_but_those_of_cases_91_to_94_is_asked_for() {
    let data = Data::read();
    let asked: Vec<&str> = data.case.iter().filter(|case| case.order.is_some()).map(|case| case.id.as_str()).collect();
    assert_eq!(asked, ["91", "92", "93", "94"]);
}

#[test]
fn completion_redirect_at_the_completers_own_port_restores_the_order_of_case_94() {
    let data = Data::read();
    assert_eq!(order::orders(&data, data.case("94"), &[("DSP0", "CR")], false), [true].into());
    // At the requester's port, which the case as first written named, it restores nothing.
    assert_eq!(order::orders(&data, data.case("94"), &[("DSP1", "CR")], false), [false, true].into());
}

#[test]
fn all_94_cases_are_there() {
    let ids: BTreeSet<String> = Data::read().case.into_iter().map(|case| case.id).collect();
    assert_eq!(ids, (1..=94).map(|id| format!("{id:02}")).collect());
}
