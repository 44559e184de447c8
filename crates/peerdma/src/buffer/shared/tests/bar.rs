//! Buffers of one memory.

use super::*;

fn offer(at: u64) -> Offer {
    Offer::new(ram(at, 0x1000), Stays::UNTIL_REVOKED, Place::Ram).expect("there are ranges")
}

#[test]
fn every_buffer_of_a_bar_hears_of_what_happens_to_it_and_one_that_is_born_meanwhile_is_born_revoked() {
    let bar = Bar::new(Answers::YES);
    let (rings, bells) = (bar.export("rings", offer(0)).unwrap(), bar.export("bells", offer(0x1000)).unwrap());
    let nics = [Arc::new(Nic::default()), Arc::new(Nic::default())];
    let seats = [
        attach(&rings, &nics[0], Lifetime::Revocable).unwrap(),
        attach(&bells, &nics[1], Lifetime::Revocable).unwrap(),
    ];
    for (nic, seat) in nics.iter().zip(&seats) {
        nic.hold(Some(seat.map().unwrap()));
    }
    let outer = bar.disturb(Disturbance::FunctionReset).unwrap().wait(LONG).unwrap();
    let born = bar.export("born", offer(0x2000)).unwrap();
    assert_eq!(born.phase(), Phase::Revoked);
    let inner = bar.disturb(Disturbance::FunctionReset).unwrap().wait(LONG).unwrap();
    // Two resets end as two, for whoever was there when they began.
    outer.done();
    assert!([&rings, &bells, &born].iter().all(|buffer| buffer.phase() == Phase::Revoked));
    inner.done();
    assert!([&rings, &bells, &born].iter().all(|buffer| buffer.phase() == Phase::Live));
    for nic in &nics {
        assert_eq!(*nic.told.lock().unwrap(), ["let go: function-reset", "may map"]);
    }
    assert_eq!(bar.buffers().len(), 3);
    drop(born);
    assert_eq!(bar.buffers().len(), 2);
}

#[test]
fn what_a_reset_leaves_is_what_later_buffers_are_born_with() {
    let bar = Bar::new(Answers::YES);
    let buffer = bar.export("first", offer(0)).unwrap();
    let off = Answers { decoding: false, powered: true };
    bar.disturb(Disturbance::Reset).unwrap().wait(LONG).unwrap().done_answering(off);
    let second = bar.export("second", offer(0x1000)).unwrap();
    assert_eq!((buffer.phase(), second.phase()), (Phase::Revoked, Phase::Revoked));
    // Decoding is turned off and on again: what was found is replaced.
    let decoding = bar.disturb(Disturbance::DecodeOff).unwrap().wait(LONG).unwrap();
    decoding.done_answering(Answers::YES);
    assert_eq!((buffer.phase(), second.phase()), (Phase::Live, Phase::Live));
    assert_eq!(bar.export("third", offer(0x2000)).unwrap().phase(), Phase::Live);
}

#[test]
fn a_refusal_is_one_for_all_and_what_was_given_up_changes_nothing_for_the_unborn() {
    let bar = Bar::new(Answers::YES);
    let free = bar.export("free", offer(0)).unwrap();
    let stays = Offer::new(ram(0x1000, 0x1000), Stays::ALWAYS, Place::Ram).unwrap();
    let held = bar.export("held", stays).unwrap();
    let (nic, pinning) = (Arc::new(Nic::default()), Arc::new(Nic { keeps_mapping: true, ..Nic::default() }));
    let _free = attach(&free, &nic, Lifetime::Revocable).unwrap();
    let seat = attach(&held, &pinning, Lifetime::Pinned).unwrap();
    pinning.hold(Some(seat.map().unwrap()));
    assert!(matches!(bar.disturb(Disturbance::Reset), Err(Refused::Promised { .. })));
    assert_eq!((free.phase(), held.phase()), (Phase::Live, Phase::Live));
    drop(bar.disturb(Disturbance::Close).unwrap());
    assert_eq!(bar.export("late", offer(0x3000)).unwrap().phase(), Phase::Live);
}

#[test]
fn nothing_is_exported_of_memory_that_is_gone() {
    let closed = Bar::new(Answers::YES);
    closed.disturb(Disturbance::Close).unwrap().wait(LONG).unwrap().done();
    assert!(matches!(closed.export("late", offer(0)), Err(Refused::Dead { .. })));
    let pulled = Bar::new(Answers::YES);
    let news = pulled.disturb(Disturbance::Removal).unwrap();
    assert!(matches!(pulled.export("late", offer(0)), Err(Refused::Dead { .. })));
    drop(news);
    assert!(matches!(pulled.export("late", offer(0)), Err(Refused::Dead { .. })));
}

/// Answers were taken from the memory, and what was under way was joined afterwards: a buffer came out live although
/// decoding had been turned off in between, or stayed out of reach although it had been turned on.
#[test]
fn exports_beside_what_changes_the_registers_come_out_as_the_registers_say() {
    let off = Answers { decoding: false, powered: true };
    for _ in 0..200 {
        for (before, after, phase) in [(Answers::YES, off, Phase::Revoked), (off, Answers::YES, Phase::Live)] {
            let bar = Bar::new(before);
            let announced = bar.disturb(Disturbance::Reset).unwrap().wait(LONG).unwrap();
            let exported: Vec<_> = thread::scope(|scope| {
                let exports = scope.spawn(|| (0..8).map(|at| bar.export("one", offer(at << 12)).unwrap()).collect());
                announced.done_answering(after);
                exports.join().unwrap()
            });
            assert!(exported.iter().all(|buffer| buffer.phase() == phase), "{before:?} to {after:?}: {exported:?}");
        }
    }
}

#[test]
fn nothing_is_kept_of_what_is_over() {
    let bar = Bar::new(Answers::YES);
    let before = bar.under_way();
    for _ in 0..100 {
        drop(bar.disturb(Disturbance::Reset).unwrap());
        bar.disturb(Disturbance::Reset).unwrap().wait(LONG).unwrap().done();
    }
    let open = bar.disturb(Disturbance::Lock).unwrap();
    assert_eq!((before, bar.under_way()), (0, 1));
    drop(open);
    assert_eq!(bar.under_way(), 0);
}

#[test]
fn exports_beside_resets_are_within_reach_when_all_is_over() {
    let bar = Bar::new(Answers::YES);
    let buffers = thread::scope(|scope| {
        let exports =
            scope.spawn(|| (0..200).map(|at| bar.export("one", offer(at << 12)).unwrap()).collect::<Vec<_>>());
        for _ in 0..2 {
            scope.spawn(|| (0..100).for_each(|_| bar.disturb(Disturbance::Reset).unwrap().wait(LONG).unwrap().done()));
        }
        exports.join().unwrap()
    });
    assert!(buffers.iter().all(|buffer| buffer.phase() == Phase::Live));
}
