//! What a buffer's life must not get wrong, one story each; `explore` tries all of them at once.

use super::*;
use crate::buffer::{Enforcement, Lifetime};
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

const NIC: AttachmentId = AttachmentId::new(1);
const GPU: AttachmentId = AttachmentId::new(2);

fn attach(who: AttachmentId, lifetime: Lifetime) -> Event {
    Event::Attach { who, lifetime, enforcement: Enforcement::Cooperative }
}

fn end(disturbance: Disturbance) -> Event {
    Event::End { disturbance, answers: None }
}

/// A buffer that both have mapped.
fn mapped_by_both(lifetime: Lifetime) -> Result<Life, Refused> {
    let mut life = Life::new();
    for who in [NIC, GPU] {
        life.step(attach(who, lifetime))?;
        life.step(Event::Map(who))?;
    }
    Ok(life)
}

/// Whom the actions tell, with the notice's number.
fn told(actions: &[Action]) -> Vec<(AttachmentId, NoticeId)> {
    actions
        .iter()
        .filter_map(|action| if let Action::Tell { who, id, .. } = action { Some((*who, *id)) } else { None })
        .collect()
}

/// All take note; whoever holds a mapping unmaps; fences retire.
fn let_all_go(life: &mut Life, notices: &[(AttachmentId, NoticeId)]) -> Result<(), Refused> {
    for (who, id) in notices {
        life.step(Event::Noted(*who, *id))?;
    }
    life.step(Event::FencesRetired(life.generation()))?;
    let holders: Vec<_> = life.attached().filter(|seat| seat.mappings > 0).map(|seat| seat.who).collect();
    for who in holders {
        life.step(Event::Unmap(who))?;
    }
    Ok(())
}

/// Rejected: one count of all waits. Those of the first may retire while the second still waits for others.
#[test]
fn fences_of_a_wait_that_was_given_up_say_nothing_of_the_next() {
    let mut life = Life::new();
    life.step(attach(NIC, Lifetime::Revocable)).unwrap();
    let mut began = || {
        let notices = told(&life.step(Event::Begin(Disturbance::Reset)).unwrap());
        notices.into_iter().for_each(|(who, id)| drop(life.step(Event::Noted(who, id)).unwrap()));
        let generation = life.generation();
        assert_eq!(life.phase(), Phase::Invalidating);
        (life.clone(), generation, drop(life.step(end(Disturbance::Reset)).unwrap()))
    };
    let ((_, first, ()), (mut second, generation, ())) = (began(), began());
    assert_ne!(first, generation);
    assert_eq!(second.step(Event::FencesRetired(first)).unwrap(), []);
    assert_eq!(second.phase(), Phase::Invalidating);
    assert_eq!(second.step(Event::FencesRetired(generation)).unwrap(), [Action::Quiet]);
}

/// An importer that never unmaps blocks a reset; it must not be skipped.
#[test]
fn reset_waits_for_the_slowest_unmap() {
    let mut life = mapped_by_both(Lifetime::Revocable).unwrap();
    let notices = told(&life.step(Event::Begin(Disturbance::Reset)).unwrap());
    for (who, id) in notices {
        life.step(Event::Noted(who, id)).unwrap();
    }
    assert_eq!(life.phase(), Phase::Invalidating);
    life.step(Event::FencesRetired(life.generation())).unwrap();
    assert_eq!(life.step(Event::Unmap(NIC)).unwrap(), []);
    assert_eq!(life.phase(), Phase::Draining);
    assert_eq!(life.outstanding(), [Outstanding { who: Some(GPU), what: Still::Mapped(1) }]);
    assert_eq!(life.step(Event::HungUp(GPU)).unwrap(), [Action::Quiet]);
    assert_eq!(life.phase(), Phase::Revoked);
}

/// Two authors: one waits to put the function into D3, the other's reset ends in between. Registers
/// then say D0 still, and taken for the end of the first disturbance they let importers map
/// memory that is about to stop answering.
#[test]
fn registers_read_after_a_reset_do_not_lift_what_another_is_about_to_do() {
    let mut life = mapped_by_both(Lifetime::Revocable).unwrap();
    let notices = told(&life.step(Event::Begin(Disturbance::Reset)).unwrap());
    life.step(Event::Begin(Disturbance::PowerDown)).unwrap();
    let_all_go(&mut life, &notices).unwrap();
    let reset_is_done = Event::End { disturbance: Disturbance::Reset, answers: Some(Answers::YES) };
    assert_eq!(life.step(reset_is_done).unwrap(), []);
    assert_eq!(life.phase(), Phase::Revoked);
    let in_d3 = Answers { decoding: true, powered: false };
    life.step(Event::End { disturbance: Disturbance::PowerDown, answers: Some(in_d3) }).unwrap();
    assert_eq!(life.phase(), Phase::Revoked, "done, and the registers say that it lasts");
    life.step(Event::Begin(Disturbance::FunctionReset)).unwrap();
    life.step(Event::End { disturbance: Disturbance::FunctionReset, answers: Some(Answers::YES) }).unwrap();
    assert_eq!(life.phase(), Phase::Restored, "a reset puts the function into D0, and the registers say so");
}

/// A reset that turns memory decoding off leaves the buffer out of reach until it is on again.
#[test]
fn what_a_reset_turned_off_keeps_the_buffer_revoked() {
    let mut life = Life::new();
    life.step(Event::Begin(Disturbance::Reset)).unwrap();
    life.step(Event::FencesRetired(life.generation())).unwrap();
    let off = Answers { decoding: false, powered: true };
    life.step(Event::End { disturbance: Disturbance::Reset, answers: Some(off) }).unwrap();
    assert_eq!((life.phase(), life.causes().to_string().as_str()), (Phase::Revoked, "decode-off"));
    assert_eq!(life.step(end(Disturbance::DecodeOff)).unwrap(), [Action::Reachable]);
    assert_eq!(life.phase(), Phase::Live);
}

/// Who waits for memory that dies while it is away sleeps for ever, unless its death wakes.
#[test]
fn who_waits_for_memory_to_come_back_is_woken_by_its_death() {
    let mut life = Life::new();
    life.step(attach(NIC, Lifetime::Revocable)).unwrap();
    let notices = told(&life.step(Event::Begin(Disturbance::Reset)).unwrap());
    let_all_go(&mut life, &notices).unwrap();
    let actions = life.step(Event::Begin(Disturbance::Removal)).unwrap();
    assert!(actions.contains(&Action::Reachable));
    assert!(matches!(actions[..], [.., Action::Tell { who: NIC, notice: Notice::Gone, .. }]));
    assert_eq!(life.phase(), Phase::Dead);
}

/// An importer that has taken note may map while a slower one has not, so its threads are woken then.
#[test]
fn each_importer_maps_as_soon_as_it_has_taken_note() {
    let mut life = mapped_by_both(Lifetime::Revocable).unwrap();
    let notices = told(&life.step(Event::Begin(Disturbance::Reset)).unwrap());
    let_all_go(&mut life, &notices).unwrap();
    let called = life.step(end(Disturbance::Reset)).unwrap();
    assert!(called.contains(&Action::Reachable));
    let called = told(&called);
    let Some((who, id)) = called.first().copied() else { panic!("nobody was called") };
    assert_eq!(life.step(Event::Noted(who, id)).unwrap(), [Action::Reachable]);
    assert!(life.may_map(who) && life.phase() == Phase::Restored);
    life.step(Event::Map(who)).unwrap();
}

/// Memory that is being given up may be kept after all; nobody is told that it is gone before it is.
#[test]
fn memory_is_called_dead_only_when_it_can_no_longer_be_had_back() {
    let mut life = mapped_by_both(Lifetime::Pinned).unwrap();
    let notices = told(&life.step(Event::Begin(Disturbance::Close)).unwrap());
    assert!(matches!(life.step(Event::Map(NIC)), Err(Refused::OutOfReach { .. })));
    life.step(end(Disturbance::Close)).unwrap();
    assert_eq!(life.phase(), Phase::Restored);
    let again = told(&life.step(Event::Begin(Disturbance::Close)).unwrap());
    assert_ne!(notices, again);
    let_all_go(&mut life, &again).unwrap();
    assert_eq!(life.phase(), Phase::Dead);
    assert!(matches!(life.step(Event::Map(NIC)), Err(Refused::Dead { .. })));
    assert_eq!(life.step(end(Disturbance::Close)), Err(Refused::NotBegun { disturbance: Disturbance::Close }));
}

/// The number of an attachment that is gone should not be used again; if it is, its late answers still count for nothing.
#[test]
fn an_answer_of_an_attachment_that_is_gone_is_not_taken_for_its_successors() {
    let mut life = Life::new();
    life.step(attach(NIC, Lifetime::Revocable)).unwrap();
    let old = told(&life.step(Event::Begin(Disturbance::Reset)).unwrap());
    life.step(Event::HungUp(NIC)).unwrap();
    life.step(end(Disturbance::Reset)).unwrap();
    life.step(attach(NIC, Lifetime::Revocable)).unwrap();
    life.step(Event::Begin(Disturbance::Reset)).unwrap();
    for (who, id) in old {
        assert_eq!(life.step(Event::Noted(who, id)).unwrap(), []);
    }
    assert!(matches!(life.outstanding()[..], [Outstanding { who: Some(NIC), what: Still::ToNote(_) }]));
}

#[test]
fn a_promise_that_memory_stays_refuses_what_nothing_forces_and_names_the_holders() {
    let mut life = mapped_by_both(Lifetime::Pinned).unwrap();
    let before = life.clone();
    for about in DISTURBANCES.iter().filter(|about| about.pinned == AgainstPins::Refused) {
        let disturbance = about.disturbance;
        let refused = Refused::Promised { disturbance, holders: vec![NIC, GPU] };
        assert_eq!(life.step(Event::Begin(disturbance)), Err(refused));
    }
    assert_eq!(life, before);
    assert!(!told(&life.step(Event::Begin(Disturbance::Removal)).unwrap()).is_empty(), "news is not refused");
}
