mod model;

use super::*;
use core::cell::Cell;
use core::mem;
#[cfg(feature = "std")]
use core::time::Duration;

/// A barrier that somebody refuses until told otherwise.
#[derive(Default)]
struct Refusing(Cell<bool>);

impl HeavyFence for &Refusing {
    fn light(&self) {}

    fn heavy(&self) -> Result<(), BarrierRefused> {
        if self.0.get() { Ok(()) } else { Err(BarrierRefused { code: 12 }) }
    }
}

#[test]
fn a_closed_gate_lets_nobody_in_and_says_which_generation_is_over() {
    let gate = Gate::new(Portable);
    let mut slot = gate.opening().unwrap().slot("user");
    let drained = gate.close().try_drained().unwrap();
    let closed = slot.enter().unwrap_err();
    assert_eq!((closed.generation.number(), closed.now), (1, GateState::Closed(drained.generation())));
    assert_eq!(closed.to_string(), "generation 1 of this memory is over: the gate is closed; map anew when it opens");
    assert_eq!(gate.opening().unwrap_err(), closed);
}

/// The importer that missed a whole move: the gate is open again, and its mapping leads to the old place.
#[test]
fn a_slot_of_an_earlier_generation_stays_out_although_the_gate_is_open() {
    let gate = Gate::new(Portable);
    let old = gate.opening().unwrap();
    let mut slot = old.slot("user");
    let new = gate.close().try_drained().unwrap().open().unwrap();
    let closed = slot.enter().unwrap_err();
    assert_eq!(closed.to_string(), "generation 1 of this memory is over: generation 2 is open; map anew");
    assert!(old.is_over() && !new.is_over());
    slot.renew(&new).unwrap();
    assert!(slot.enter().is_ok());
    assert_eq!(slot.generation(), new.generation());
}

#[test]
fn whoever_is_inside_is_named_until_out() {
    let gate = Gate::new(Portable);
    let opening = gate.opening().unwrap();
    let (mut inside, mut outside) = (opening.slot("inside"), opening.slot("outside"));
    drop(outside.enter().unwrap());
    let guard = inside.enter().unwrap();
    let closing = gate.close().try_drained().unwrap_err();
    let named: Vec<_> = closing.outstanding().into_iter().map(|user| (user.slot, user.name.to_string())).collect();
    assert_eq!(named, [(SlotId(0), "inside".to_string())]);
    drop(guard);
    assert!(closing.try_drained().is_ok());
}

/// A user in a loop stores its word at every try, and each look might meet that.
#[test]
fn a_user_who_was_seen_outside_once_is_not_waited_for_again() {
    let gate = Gate::new(Portable);
    let opening = gate.opening().unwrap();
    let (mut looping, mut inside) = (opening.slot("looping"), opening.slot("inside"));
    let guard = inside.enter().unwrap();
    let closing = gate.close().try_drained().unwrap_err();
    // What a look meets between the store and the load of a user that is about to be refused.
    assert!(looping.enter().is_err());
    looping.hold_word();
    drop(guard);
    assert!(closing.try_drained().is_ok());
}

#[test]
fn a_slot_of_another_gate_is_refused() {
    let (gate, other) = (Gate::new(Portable), Gate::new(Portable));
    let mut slot = gate.opening().unwrap().slot("user");
    assert_eq!(slot.renew(&other.opening().unwrap()), Err(OtherGate { slot: slot.id() }));
    assert!(slot.enter().is_ok(), "and is as it was");
}

#[test]
fn closing_twice_waits_for_the_same_generation_and_opens_once() {
    let gate = Gate::new(Portable);
    let mut slot = gate.opening().unwrap().slot("user");
    let guard = slot.enter().unwrap();
    let (one, two) = (gate.close(), gate.clone().close());
    assert_eq!((one.generation(), one.outstanding()), (two.generation(), two.outstanding()));
    drop(guard);
    let (one, two) = (one.try_drained().unwrap(), two.try_drained().unwrap());
    let next = one.open().unwrap();
    let refused = two.open().unwrap_err();
    assert_eq!((refused.ended.number(), refused.now), (1, GateState::Open(next.generation())));
    assert_eq!(gate.state(), GateState::Open(next.generation()));
}

#[test]
fn a_slot_that_is_dropped_is_not_waited_for() {
    let gate = Gate::new(Portable);
    let mut slot = gate.opening().unwrap().slot("forgetful");
    mem::forget(slot.enter().unwrap());
    let closing = gate.close().try_drained().unwrap_err();
    drop(slot);
    assert!(closing.try_drained().is_ok(), "the guard borrowed the slot, so what it guarded has ended");
}

#[test]
fn a_barrier_that_is_refused_leaves_everybody_inside() {
    let fence = Refusing::default();
    let gate = Gate::new(&fence);
    let slot = gate.opening().unwrap().slot("outside, for all anybody knows");
    let closing = gate.close();
    assert_eq!(closing.barrier_refused(), Some(BarrierRefused { code: 12 }));
    let closing = closing.try_drained().unwrap_err();
    assert_eq!(closing.outstanding().len(), 1);
    drop(slot);
    let closing = closing.try_drained().unwrap_err();
    fence.0.set(true);
    assert!(closing.try_drained().is_ok());
}

#[cfg(feature = "std")]
#[test]
fn waiting_ends_in_time_and_names_those_inside() {
    let gate = Gate::new(Portable);
    let opening = gate.opening().unwrap();
    let mut slots: Vec<_> = (0..6).map(|nth| opening.slot(&format!("queue {nth}"))).collect();
    let guards: Vec<_> = slots.iter_mut().map(|slot| slot.enter().unwrap()).collect();
    let late = gate.close().wait_at_most(Duration::from_millis(1)).unwrap_err();
    assert_eq!(
        late.to_string(),
        "\"queue 0\" (slot 0), \"queue 1\" (slot 1), \"queue 2\" (slot 2), \"queue 3\" (slot 3) and 2 more may still \
         use the memory of generation 1; stop them, or wait longer"
    );
    drop(guards);
    assert!(late.closing.wait_at_most(Duration::MAX).is_ok());
}

/// The user's plain word is what the guard is for: no other access of it may be under way.
#[cfg(feature = "std")]
#[test]
fn memory_is_not_changed_under_a_thread_that_is_inside() {
    use crate::sync::atomic::{AtomicU64, Ordering};
    use std::sync::Arc;

    let gate = Gate::new(Portable);
    let (place, moves) = (Arc::new(AtomicU64::new(0)), 200);
    let mut opening = gate.opening().unwrap();
    let users: Vec<_> = (0..2)
        .map(|nth| {
            let (gate, place) = (gate.clone(), Arc::clone(&place));
            let mut slot = opening.slot(&format!("user {nth}"));
            std::thread::spawn(move || {
                loop {
                    if let Ok(_guard) = slot.enter() {
                        let before = place.load(Ordering::Relaxed);
                        core::hint::spin_loop();
                        assert_eq!(before, place.load(Ordering::Relaxed), "it moved under a guard");
                        if before == moves {
                            return;
                        }
                    } else if let Ok(next) = gate.opening() {
                        slot.renew(&next).unwrap();
                    }
                }
            })
        })
        .collect();
    for _ in 0..moves {
        let drained = gate.close().wait_at_most(Duration::from_secs(60)).unwrap();
        place.fetch_add(1, Ordering::Relaxed);
        opening = drained.open().unwrap();
    }
    assert_eq!(opening.generation().number(), moves + 1);
    users.into_iter().for_each(|user| user.join().unwrap());
}
