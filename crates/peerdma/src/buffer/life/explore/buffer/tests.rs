//! The explorations of one buffer.

use super::super::super::disturbance::DISTURBANCES;
use super::super::super::phase::Phase;
use super::super::super::table::{TRANSITIONS, Trigger};
use super::super::super::{Answers, Causes, Disturbance, Event};
use super::super::closure::Closure;
use super::{Bounds, Buffer};
use crate::buffer::Lifetime;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

const OFF: Answers = Answers { decoding: false, powered: true };
const IN_D3: Answers = Answers { decoding: true, powered: false };
const NEITHER: Answers = Answers { decoding: false, powered: false };

type Cells = BTreeSet<(Phase, Trigger, Phase)>;

/// Explores, asks what can be reached from where, and tells which transitions were met.
fn explored(name: &str, bounds: &Bounds) -> Result<Cells, String> {
    // With decoding off or in D3 a buffer is born revoked; all that holds of others holds of it.
    let can_end = |answers: &Answers| Causes::of(*answers).iter().all(|cause| bounds.disturbances.contains(&cause));
    let births = [Answers::YES, OFF, IN_D3, NEITHER].into_iter().filter(can_end);
    let closure = Closure::of(name, births.map(|answers| Buffer::born(bounds, answers)).collect(), 400_000)?;

    let quiet = |buffer: &Buffer<'_>| buffer.life.phase().is_quiet();
    let ends = closure.can_reach(quiet, |edge| Buffer::lets_go(&edge.by));
    closure.all("importers and fences alone can make a disturbed buffer quiet", |number, buffer| {
        buffer.life.phase().is_reachable() || ends[number]
    })?;
    let lives = closure.can_reach(|buffer| buffer.life.phase() == Phase::Live, |_| true);
    closure.all("what is called gone never lives again, and what is not can", |number, buffer| {
        buffer.life.alive().is_ok() == lives[number]
    })?;
    let phase = |number: usize| closure.states[number].life.phase();
    Ok(closure.edges.iter().map(|edge| (phase(edge.from), Trigger::of(edge.by), phase(edge.to))).collect())
}

/// All disturbances, two at a time: what the table says is what happens, all of it and nothing else.
#[test]
fn the_table_of_transitions_is_what_exploration_meets() {
    let bounds = Bounds {
        lifetimes: vec![Lifetime::Revocable, Lifetime::Movable],
        disturbances: DISTURBANCES.iter().map(|about| about.disturbance).collect(),
        begun: 2,
        mappings: 1,
        late: false,
        answers: vec![None, Some(Answers::YES), Some(NEITHER)],
    };
    let mut met = explored("all disturbances, two at a time", &bounds).unwrap();
    // The few rows that a late answer alone can meet.
    met.extend(explored("late answers", &late_answers()).unwrap());
    let cells = |row: &super::super::super::table::Transition| {
        row.on.iter().map(|&on| (row.from, on, row.to)).collect::<Vec<_>>()
    };
    let table: Cells = TRANSITIONS.iter().flat_map(cells).collect();
    let show = |cells: Vec<&(Phase, Trigger, Phase)>| -> Vec<String> {
        cells.iter().map(|(from, on, to)| format!("{from} on {on} to {to}")).collect()
    };
    assert_eq!(show(met.difference(&table).collect()), Vec::<String>::new(), "met, and no row of the table");
    assert_eq!(show(table.difference(&met).collect()), Vec::<String>::new(), "rows of the table, and never met");
}

fn late_answers() -> Bounds {
    Bounds {
        lifetimes: vec![Lifetime::Revocable, Lifetime::Movable],
        disturbances: vec![Disturbance::Reset, Disturbance::Move, Disturbance::Close],
        begun: 2,
        mappings: 1,
        late: true,
        answers: vec![None],
    }
}

/// Answers to notices and ends of waits arrive after others have begun.
#[test]
fn late_answers_are_taken_for_nothing() {
    explored("late answers", &late_answers()).unwrap();
}

/// Pins refuse what can be refused, put off a close, and hear of a removal; two mappings each.
#[test]
fn every_promise_is_kept_to_importers_with_two_mappings() {
    let bounds = Bounds {
        lifetimes: vec![Lifetime::Pinned, Lifetime::Revocable],
        disturbances: vec![Disturbance::PowerDown, Disturbance::Close, Disturbance::Removal, Disturbance::Move],
        begun: 3,
        mappings: 2,
        late: false,
        answers: vec![None, Some(Answers::YES), Some(IN_D3)],
    };
    explored("pins", &bounds).unwrap();
}

/// Registers may say anything at the end of anything.
#[test]
fn registers_never_lift_what_somebody_has_begun() {
    let bounds = Bounds {
        lifetimes: vec![Lifetime::Revocable, Lifetime::Revocable],
        disturbances: vec![Disturbance::DecodeOff, Disturbance::PowerDown, Disturbance::Reset, Disturbance::Lock],
        begun: 3,
        mappings: 1,
        late: false,
        answers: vec![None, Some(Answers::YES), Some(OFF), Some(IN_D3), Some(NEITHER)],
    };
    explored("registers", &bounds).unwrap();
}

#[test]
fn letting_go_is_what_importers_do_of_themselves() {
    let who = super::who(0);
    assert!(Buffer::lets_go(&Event::Unmap(who)) && Buffer::lets_go(&Event::HungUp(who)));
    assert!(!Buffer::lets_go(&Event::Map(who)) && !Buffer::lets_go(&Event::Begin(Disturbance::Reset)));
}
