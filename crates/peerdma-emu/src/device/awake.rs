//! Which functions of a machine have something to do, kept where that changes.
//!
//! Whoever gives a function something to do says so here: its registers when they are written,
//! by the fabric or by a network that knows no machine, and the machine when it resets it or a
//! page request is answered. Nobody looks for work, so that what a step costs does not grow
//! with the machine.
//!
//! Rejected: asking every function at every step, whose cost is the machine's size, and a list
//! that is sorted, as the seed chooses among those awake and any order will do for that. The
//! order here follows from what happened alone, so that a run with the same seed repeats.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// The functions of one machine that have something to do, by position.
///
/// # Concurrency
/// Its lock is taken last of all and held for a moment, but by threads that sleep.
#[derive(Debug)]
pub(crate) struct Awake {
    set: Mutex<Set>,
    /// Rung for threads that sleep.
    bell: Condvar,
}

/// Positions in any order, with where each stands, so that all changes and choices take the same time.
#[derive(Debug)]
struct Set {
    list: Vec<u32>,
    /// Where in the list a function stands; [`NOWHERE`] while it sleeps.
    places: Vec<u32>,
    /// Steps that have begun and not ended.
    stepping: usize,
    /// Threads that wait for the bell.
    sleepers: usize,
}

const NOWHERE: u32 = u32::MAX;

impl Set {
    /// Whether it slept before.
    fn insert(&mut self, function: usize) -> bool {
        let Some(place) = self.places.get_mut(function).filter(|place| **place == NOWHERE) else { return false };
        *place = self.list.len() as u32;
        self.list.push(function as u32);
        true
    }

    fn remove(&mut self, function: usize) {
        let Some(place) = self.places.get_mut(function).filter(|place| **place != NOWHERE) else { return };
        let empty = std::mem::replace(place, NOWHERE);
        self.list.swap_remove(empty as usize);
        // The last of the list stands there now, if it was another.
        if let Some(moved) = self.list.get(empty as usize)
            && let Some(place) = self.places.get_mut(*moved as usize)
        {
            *place = empty;
        }
    }

    fn contains(&self, function: usize) -> bool {
        self.places.get(function).is_some_and(|place| *place != NOWHERE)
    }
}

impl Awake {
    /// For so many functions, all asleep.
    pub(crate) fn new(functions: usize) -> Arc<Self> {
        let set = Set { list: Vec::new(), places: vec![NOWHERE; functions], stepping: 0, sleepers: 0 };
        Arc::new(Self { set: Mutex::new(set), bell: Condvar::new() })
    }

    fn set(&self) -> MutexGuard<'_, Set> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that a function has something to do.
    pub(crate) fn wake(&self, function: usize) {
        let mut set = self.set();
        if set.insert(function) && set.sleepers > 0 {
            self.bell.notify_all();
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.set().list.len()
    }

    /// One of them, by a number below [`len`](Self::len).
    pub(crate) fn at(&self, index: usize) -> Option<usize> {
        self.set().list.get(index).map(|function| *function as usize)
    }

    /// Whether any function is awake or in a step.
    ///
    /// Asked at one moment: what a step gives to another function wakes that before the step ends.
    pub(crate) fn any_busy(&self) -> bool {
        let set = self.set();
        !set.list.is_empty() || set.stepping > 0
    }

    /// Begins a step: what comes from here on wakes the function again. Ends when dropped.
    pub(crate) fn step(&self, function: usize) -> Stepping<'_> {
        let mut set = self.set();
        set.remove(function);
        set.stepping += 1;
        Stepping { awake: self, function, more: false }
    }

    /// Sleeps until a function is awake or `stop` is set; whether it is awake.
    pub(crate) fn wait(&self, function: usize, stop: &AtomicBool) -> bool {
        let mut set = self.set();
        loop {
            if stop.load(Ordering::Acquire) {
                return false;
            }
            if set.contains(function) {
                return true;
            }
            set.sleepers += 1;
            set = self.bell.wait(set).unwrap_or_else(PoisonError::into_inner);
            set.sleepers -= 1;
        }
    }

    /// Sets `stop` and wakes the threads that wait for it.
    pub(crate) fn stop(&self, stop: &AtomicBool) {
        // Under the lock, so that nobody looks before and sleeps after.
        let set = self.set();
        stop.store(true, Ordering::Release);
        self.bell.notify_all();
        drop(set);
    }
}

/// A step that has begun.
#[derive(Debug)]
pub(crate) struct Stepping<'a> {
    awake: &'a Awake,
    function: usize,
    more: bool,
}

impl Stepping<'_> {
    /// Ends the step of a function that has more to do.
    pub(crate) fn with_more(mut self) {
        self.more = true;
    }
}

impl Drop for Stepping<'_> {
    fn drop(&mut self) {
        let mut set = self.awake.set();
        set.stepping -= 1;
        if self.more && set.insert(self.function) && set.sleepers > 0 {
            self.awake.bell.notify_all();
        }
    }
}

/// Wakes one function of one machine.
#[derive(Clone, Debug)]
pub(crate) struct Waker {
    awake: Arc<Awake>,
    function: usize,
}

impl Waker {
    pub(crate) fn new(awake: &Arc<Awake>, function: usize) -> Self {
        Self { awake: awake.clone(), function }
    }

    /// Says that it has something to do.
    pub(crate) fn wake(&self) {
        self.awake.wake(self.function);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Whatever wakes and steps in whatever order, those awake are those that were woken since their last step.
    #[test]
    fn who_was_woken_is_awake_once_until_it_is_stepped() {
        let awake = Awake::new(16);
        let mut model = BTreeSet::new();
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..2000 {
            let function = random.usize(..18);
            match random.u8(..3) {
                0 => {
                    awake.wake(function);
                    model.extend((function < 16).then_some(function));
                }
                1 => {
                    drop(awake.step(function));
                    model.remove(&function);
                }
                _ => {
                    awake.step(function).with_more();
                    model.extend((function < 16).then_some(function));
                }
            }
            let now: Vec<usize> = (0..awake.len()).filter_map(|index| awake.at(index)).collect();
            assert_eq!(now.len(), model.len(), "nobody twice");
            assert_eq!(now.into_iter().collect::<BTreeSet<_>>(), model);
            assert_eq!(awake.any_busy(), !model.is_empty());
        }
    }

    #[test]
    fn a_function_that_is_woken_while_it_is_stepped_is_awake_afterwards() {
        let awake = Awake::new(1);
        awake.wake(0);
        let step = awake.step(0);
        assert!(awake.at(0).is_none() && awake.any_busy());
        awake.wake(0);
        drop(step);
        assert_eq!(awake.at(0), Some(0));
    }

    #[test]
    fn a_thread_that_sleeps_wakes_with_its_function_and_with_the_end() {
        let (awake, stop) = (Awake::new(2), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| awake.wait(1, &stop));
            let other = scope.spawn(|| awake.wait(0, &stop));
            awake.wake(1);
            assert_eq!(sleeper.join().ok(), Some(true));
            awake.stop(&stop);
            assert_eq!(other.join().ok(), Some(false));
        });
    }
}
