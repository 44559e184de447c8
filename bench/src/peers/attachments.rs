//! What everybody writes first to take memory away: a lock and a condition for each importer.

use std::sync::{Condvar, Mutex, PoisonError};

/// Attachments of one buffer, each of which says whether it is used.
#[derive(Debug)]
pub struct Attachments(Vec<Attachment>);

#[derive(Debug, Default)]
struct Attachment {
    state: Mutex<State>,
    left: Condvar,
}

#[derive(Debug, Default)]
struct State {
    generation: u64,
    users: u64,
}

impl Attachments {
    /// So many, none of which is used.
    pub fn new(number: usize) -> Self {
        Self((0..number).map(|_| Attachment::default()).collect())
    }

    /// Goes in and out.
    pub fn access(&self, nth: usize) {
        let one = &self.0[nth];
        let change = |by: fn(u64) -> u64| {
            let mut state = one.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.users = by(state.users);
            state.users
        };
        change(|users| users + 1);
        if change(|users| users - 1) == 0 {
            one.left.notify_all();
        }
    }

    /// Ends what was mapped before, and waits until nobody uses it.
    pub fn revoke(&self, nth: usize, generation: u64) {
        let one = &self.0[nth];
        let mut state = one.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.generation = generation;
        while state.users > 0 {
            state = one.left.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
