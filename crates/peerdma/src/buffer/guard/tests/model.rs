//! A gate beside the sentence that it is to keep, one step after the other.

use super::super::*;
use core::mem;
use proptest::prelude::*;

const SLOTS: usize = 3;

#[derive(Clone, Debug)]
enum Step {
    Enter(usize),
    Leave(usize),
    Renew(usize),
    Close,
    Look(usize),
    Open(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let slot = 0..SLOTS;
    prop_oneof![
        3 => slot.clone().prop_map(Step::Enter),
        2 => slot.clone().prop_map(Step::Leave),
        2 => slot.clone().prop_map(Step::Renew),
        1 => Just(Step::Close),
        2 => slot.clone().prop_map(Step::Look),
        2 => slot.prop_map(Step::Open),
    ]
}

proptest! {
    /// Whoever holds `Drained` has the memory alone; whoever is inside belongs to the generation that is open or
    /// was the last.
    #[test]
    fn nobody_is_inside_a_generation_that_has_drained(steps in prop::collection::vec(step(), 1..80)) {
        let gate = Gate::new(Portable);
        let first = gate.opening().unwrap();
        let mut slots: Vec<_> = (0..SLOTS).map(|nth| first.slot(&format!("user {nth}"))).collect();
        let mut inside: [Option<Generation>; SLOTS] = [None; SLOTS];
        let (mut closings, mut drained) = (Vec::new(), Vec::new());
        let (mut open, mut now) = (true, first.generation());
        for step in steps {
            match step {
                Step::Enter(nth) if inside[nth].is_none() => {
                    let good = open && slots[nth].generation() == now;
                    let entered = slots[nth].enter();
                    prop_assert_eq!(entered.is_ok(), good);
                    if let Ok(guard) = entered {
                        // Stays inside; the next try of the slot ends that, as a dropped guard would.
                        mem::forget(guard);
                        inside[nth] = Some(now);
                    }
                }
                Step::Leave(nth) => {
                    drop(slots[nth].enter());
                    inside[nth] = None;
                }
                Step::Renew(nth) if inside[nth].is_none() => match gate.opening() {
                    Ok(opening) => {
                        prop_assert!(open && opening.generation() == now);
                        slots[nth].renew(&opening).unwrap();
                    }
                    Err(closed) => prop_assert!(!open && closed.generation == now),
                },
                Step::Close => {
                    closings.push(gate.close());
                    open = false;
                }
                Step::Look(nth) if nth < closings.len() => {
                    let closing = closings.swap_remove(nth);
                    let left = inside.iter().filter(|at| **at == Some(closing.generation())).count();
                    match closing.try_drained() {
                        Ok(proof) => {
                            prop_assert_eq!(left, 0);
                            drained.push(proof);
                        }
                        Err(closing) => {
                            prop_assert_eq!(closing.outstanding().len(), left);
                            closings.push(closing);
                        }
                    }
                }
                Step::Open(nth) if nth < drained.len() => {
                    let proof = drained.swap_remove(nth);
                    let last = !open && proof.generation() == now;
                    let opened = proof.open();
                    prop_assert_eq!(opened.is_ok(), last);
                    if let Ok(opening) = opened {
                        prop_assert!(opening.generation() > now && inside.iter().all(Option::is_none));
                        (open, now) = (true, opening.generation());
                    }
                }
                _ => {}
            }
            let state = if open { GateState::Open(now) } else { GateState::Closed(now) };
            prop_assert_eq!(gate.state(), state);
        }
    }
}
