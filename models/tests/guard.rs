//! A user goes into a gate while a revoker closes it, in every way that the memory model permits.
//!
//! Here a load may overtake a store, as processors do and as shuttle does not. So a gate whose barrier
//! does nothing on either side must be caught; a model that does not catch it would prove nothing.

#![cfg(peerdma_loom)]
#![expect(clippy::unwrap_used, reason = "helpers of models")]

use loom::cell::UnsafeCell;
use loom::thread;
use peerdma::buffer::guard::{BarrierRefused, Gate, HeavyFence, Portable, Slot};
use std::sync::Arc;

/// What is taken away. Loom panics where one access to it is not ordered against another.
type Memory = Arc<UnsafeCell<u64>>;

fn use_it(memory: &Memory) {
    memory.with(|_| ());
}

fn move_it(memory: &Memory) {
    memory.with_mut(|_| ());
}

/// Uses the memory if it is let in; otherwise maps anew, if the gate has opened again, and uses it then.
fn user<F: HeavyFence>(gate: &Gate<F>, mut slot: Slot<F>, memory: &Memory) -> Slot<F> {
    if let Ok(_guard) = slot.enter() {
        use_it(memory);
    } else if let Ok(next) = gate.opening() {
        slot.renew(&next).unwrap();
        if let Ok(_guard) = slot.enter() {
            use_it(memory);
        }
    }
    slot
}

fn one_user_and_one_revoker<F: HeavyFence + Copy + Send + Sync + 'static>(fence: F) {
    loom::model(move || {
        let (gate, memory) = (Gate::new(fence), Memory::default());
        let slot = gate.opening().unwrap().slot("user");
        let other = {
            let (gate, memory) = (gate.clone(), Arc::clone(&memory));
            thread::spawn(move || user(&gate, slot, &memory))
        };
        // No loop: whether somebody is inside is looked at once, at every moment that there is.
        if let Ok(drained) = gate.close().try_drained() {
            move_it(&memory);
            drained.open().unwrap();
        }
        other.join().unwrap();
    });
}

#[test]
fn nobody_is_inside_when_the_gate_says_so() {
    one_user_and_one_revoker(Portable);
}

/// A slot that comes into being while the gate closes is either seen or refused.
#[test]
fn a_slot_that_is_registered_meanwhile_is_not_missed() {
    loom::model(|| {
        let (gate, memory) = (Gate::new(Portable), Memory::default());
        let opening = gate.opening().unwrap();
        let other = {
            let (gate, memory) = (gate.clone(), Arc::clone(&memory));
            thread::spawn(move || user(&gate, opening.slot("late"), &memory))
        };
        if gate.close().try_drained().is_ok() {
            move_it(&memory);
        }
        other.join().unwrap();
    });
}

/// Two users, so that a barrier with one is no excuse for the other.
#[test]
fn every_user_is_waited_for() {
    loom::model(|| {
        let (gate, memory) = (Gate::new(Portable), Memory::default());
        let opening = gate.opening().unwrap();
        let enter = |name| {
            let (mut slot, memory) = (opening.slot(name), Arc::clone(&memory));
            thread::spawn(move || {
                if let Ok(_guard) = slot.enter() {
                    use_it(&memory);
                }
                slot
            })
        };
        let users = [enter("one"), enter("two")];
        if gate.close().try_drained().is_ok() {
            move_it(&memory);
        }
        let slots = users.map(|user| user.join().unwrap());
        drop(slots);
    });
}

/// A barrier of which halves are missing.
#[derive(Clone, Copy)]
struct Half {
    light: bool,
    heavy: bool,
}

impl HeavyFence for Half {
    fn light(&self) {
        if self.light {
            Portable.light();
        }
    }

    fn heavy(&self) -> Result<(), BarrierRefused> {
        if self.heavy { Portable.heavy() } else { Ok(()) }
    }
}

#[test]
#[should_panic(expected = "Causality violation")]
fn without_a_barrier_the_memory_is_moved_under_a_user() {
    one_user_and_one_revoker(Half { light: false, heavy: false });
}

/// What `membarrier` makes up for, and nothing else does.
#[test]
#[should_panic(expected = "Causality violation")]
fn without_the_users_half_the_memory_is_moved_under_a_user() {
    one_user_and_one_revoker(Half { light: false, heavy: true });
}

#[test]
#[should_panic(expected = "Causality violation")]
fn without_the_revokers_half_the_memory_is_moved_under_a_user() {
    one_user_and_one_revoker(Half { light: true, heavy: false });
}
