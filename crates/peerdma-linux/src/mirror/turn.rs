//! Whose turn it is to stop the device: one at a time, and nobody waits longer than it means to.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

/// A lock that is waited for until a moment, which the standard library's is not.
#[derive(Debug, Default)]
pub(super) struct Turn {
    taken: Mutex<bool>,
    free: Condvar,
}

/// It is this one's turn until this is dropped.
#[derive(Debug)]
#[must_use = "the turn is over at once"]
pub(super) struct Mine<'a>(&'a Turn);

impl Turn {
    /// Waits for the turn; `None` once it is late.
    pub(super) fn take(&self, until: Instant) -> Option<Mine<'_>> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let longest = until.saturating_duration_since(Instant::now());
        let waited = self.free.wait_timeout_while(taken, longest, |taken| *taken);
        let (mut taken, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let mine = !*taken;
        *taken = true;
        mine.then(|| Mine(self))
    }

    /// Takes the turn if nobody has it. Never waits for whoever does.
    pub(super) fn try_take(&self) -> Option<Mine<'_>> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = !*taken;
        *taken = true;
        mine.then(|| Mine(self))
    }
}

impl Drop for Mine<'_> {
    fn drop(&mut self) {
        *self.0.taken.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.0.free.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_turn_that_somebody_has_is_waited_for_no_longer_than_said_and_then_goes_to_the_next() {
        let turn = Turn::default();
        let mine = turn.try_take().unwrap();
        assert!(turn.try_take().is_none());
        assert!(turn.take(Instant::now() + Duration::from_millis(5)).is_none());
        std::thread::scope(|scope| {
            let next = scope.spawn(|| turn.take(Instant::now() + Duration::from_secs(60)).is_some());
            drop(mine);
            assert!(next.join().unwrap());
        });
        assert!(turn.take(Instant::now()).is_some(), "free, although it is late");
    }
}
