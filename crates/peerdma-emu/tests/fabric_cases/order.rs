//! Orders of arrival, over many seeds.

use crate::data::{Case, Data};
use crate::whole::{Whole, end_of};
use peerdma_emu::machine::{Event, Happened};
use std::collections::BTreeSet;

/// Seeds tried; two orders that are both possible show in the first few.
const SEEDS: u64 = 60;
const STEPS: u64 = 10_000;

/// Whether the first TLP of a case arrived before the second, over all seeds.
pub(crate) fn orders(data: &Data, case: &Case, also: &[(&str, &str)], skip_proof: bool) -> BTreeSet<bool> {
    (0..SEEDS).map(|seed| first_is_first(data, case, also, skip_proof, seed)).collect()
}

fn first_is_first(data: &Data, case: &Case, also: &[(&str, &str)], skip_proof: bool, seed: u64) -> bool {
    let order = case.order.as_ref().unwrap();
    let whole = Whole::new(data, case, &case.send[0], also, seed);
    let mut sent = Vec::new();
    for (nth, one) in case.send.iter().enumerate() {
        if skip_proof && Some(nth) == order.proof {
            continue;
        }
        whole.order(one);
        sent.push(nth);
        // Who sends next has seen nothing of what the others sent; that it was sent is all.
        let sender = whole.wiring.node(&one.from);
        if case.send.iter().any(|other| other.from != one.from) && nth == 0 {
            whole.machine.step_device(sender);
        }
    }
    assert!(whole.machine.settle(STEPS), "case {}", case.id);
    let events = whole.machine.log().take();
    // In the order in which they were sent, which is that of the case.
    let numbers: Vec<u64> = numbers(&events);
    assert_eq!(numbers.len(), sent.len(), "case {}", case.id);
    let number = |nth: usize| numbers[sent.iter().position(|other| *other == nth).unwrap()];
    let arrival = |nth: usize, completion: bool| {
        let number = number(nth);
        let is = |event: &Event| {
            let arrived = if completion { event.what == Happened::Answered } else { end_of(event.what).is_some() };
            event.request == number && arrived
        };
        events.iter().position(is).unwrap()
    };
    arrival(order.first, false) < arrival(order.second, order.completion)
}

fn numbers(events: &[Event]) -> Vec<u64> {
    let sent = |event: &Event| matches!(event.what, Happened::Sent { .. }).then_some(event.request);
    events.iter().filter_map(sent).collect()
}
