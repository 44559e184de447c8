//! Why memory is out of reach just now: everything that has begun and not ended.

use super::disturbance::{DISTURBANCES, Disturbance, Duration};
use core::fmt;

/// Disturbances that have begun and not ended. Memory is within reach when there are none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Causes {
    /// How many of each; of a state [`BEGUN`] and [`FOUND`].
    counts: [u16; Disturbance::COUNT],
}

/// Somebody has begun this state and not yet said what became of it.
///
/// It is kept apart from [`FOUND`] because registers that still answer do not contradict it: whoever
/// is about to write D3 has begun before the function leaves D0, and a reset that ends in
/// between must not lift what the other is about to do.
const BEGUN: u16 = 1;
/// The registers said so.
const FOUND: u16 = 2;

/// Whether a device's memory answers: what its registers say after a deed that may have changed them.
///
/// They hold for all states that nobody is about to change. Read them after the deed, and hand them
/// over before anybody may write those registers again, as the kernel does under `memory_lock`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Answers {
    /// Memory decoding is on.
    pub decoding: bool,
    /// The function is in D0.
    pub powered: bool,
}

impl Answers {
    /// Memory that answers.
    pub const YES: Self = Self { decoding: true, powered: true };
}

impl Causes {
    /// None: memory is within reach.
    pub const NONE: Self = Self { counts: [0; Disturbance::COUNT] };

    /// Why memory that answers so is out of reach.
    pub fn of(answers: Answers) -> Self {
        let mut causes = Self::NONE;
        causes.set(answers);
        causes
    }

    /// Whether memory is within reach.
    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }

    /// Whether this one has begun and not ended.
    pub fn has(&self, disturbance: Disturbance) -> bool {
        self.counts[disturbance as usize] > 0
    }

    /// Whether one of them is for good.
    pub fn are_final(&self) -> bool {
        self.iter().any(|cause| cause.about().duration == Duration::Final)
    }

    /// Whether all of them only move memory, which exists all the while.
    pub fn are_moves(&self) -> bool {
        !self.is_none() && self.iter().all(Disturbance::is_move)
    }

    /// Each of them once, in the order of the enumeration.
    pub fn iter(&self) -> impl Iterator<Item = Disturbance> + '_ {
        DISTURBANCES.iter().map(|about| about.disturbance).filter(|disturbance| self.has(*disturbance))
    }

    /// Begins one. False if there are more of the kind than can be counted.
    pub(super) fn begin(&mut self, disturbance: Disturbance) -> bool {
        let count = &mut self.counts[disturbance as usize];
        match disturbance.about().duration {
            Duration::State => *count |= BEGUN,
            // It cannot be refused and never ends, so it need not be counted.
            Duration::Final if disturbance == Disturbance::Removal => *count = 1,
            // Two may give the memory up, and one of them think better of it.
            Duration::Final | Duration::Deed => match count.checked_add(1) {
                Some(more) => *count = more,
                None => return false,
            },
        }
        true
    }

    /// Ends one; false if none had begun.
    ///
    /// What somebody had begun ends first: who gives up waiting to turn decoding off has not
    /// turned on what was off before.
    pub(super) fn end(&mut self, disturbance: Disturbance) -> bool {
        let count = &mut self.counts[disturbance as usize];
        let had = *count > 0;
        *count = match disturbance.about().duration {
            Duration::State if *count & BEGUN != 0 => *count & !BEGUN,
            Duration::State => 0,
            Duration::Deed | Duration::Final => count.saturating_sub(1),
        };
        had
    }

    /// Takes over what the registers say, and leaves alone what somebody is about to do to them.
    pub(super) fn set(&mut self, answers: Answers) {
        let said = [(Disturbance::DecodeOff, !answers.decoding), (Disturbance::PowerDown, !answers.powered)];
        for (state, found) in said {
            let flags = &mut self.counts[state as usize];
            *flags = (*flags & BEGUN) | if found { FOUND } else { 0 };
        }
    }
}

impl fmt::Display for Causes {
    /// Writes `reset and decode-off`, or `none`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_none() {
            return f.write_str("none");
        }
        for (index, cause) in self.iter().enumerate() {
            write!(f, "{}{cause}", if index == 0 { "" } else { " and " })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Causes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_said_twice_ends_once_and_a_deed_begun_twice_ends_twice() {
        let mut causes = Causes::NONE;
        for disturbance in [Disturbance::DecodeOff, Disturbance::Reset] {
            assert!(causes.begin(disturbance) && causes.begin(disturbance));
        }
        assert!(causes.end(Disturbance::DecodeOff) && !causes.has(Disturbance::DecodeOff));
        assert!(causes.end(Disturbance::Reset) && causes.has(Disturbance::Reset));
        assert!(causes.end(Disturbance::Reset) && causes.is_none());
        assert!(!causes.end(Disturbance::Reset));
    }

    #[test]
    fn registers_lift_what_registers_said_and_not_what_somebody_is_about_to_do() {
        let mut causes = Causes::of(Answers { decoding: false, powered: true });
        assert!(causes.begin(Disturbance::PowerDown));
        causes.set(Answers::YES);
        assert_eq!(causes.to_string(), "power-down");
        assert!(causes.end(Disturbance::PowerDown));
        causes.set(Answers { decoding: true, powered: false });
        assert_eq!(causes.to_string(), "power-down", "done, and the registers say so");
        causes.set(Answers::YES);
        assert!(causes.is_none());
    }

    #[test]
    fn who_gives_up_turning_off_what_is_off_has_not_turned_it_on() {
        let mut causes = Causes::of(Answers { decoding: false, powered: true });
        assert!(causes.begin(Disturbance::DecodeOff) && causes.end(Disturbance::DecodeOff));
        assert!(causes.has(Disturbance::DecodeOff));
        assert!(causes.end(Disturbance::DecodeOff) && causes.is_none(), "turned on");
    }

    #[test]
    fn memory_given_up_by_two_is_given_up_until_both_think_better_of_it() {
        let mut causes = Causes::NONE;
        assert!(causes.begin(Disturbance::Close) && causes.begin(Disturbance::Close));
        assert!(causes.end(Disturbance::Close) && causes.has(Disturbance::Close));
        assert!(causes.end(Disturbance::Close) && causes.is_none());
        assert!((0..70_000).all(|_| causes.begin(Disturbance::Removal)), "news is never refused");
    }

    #[test]
    fn registers_that_do_not_answer_are_causes() {
        let causes = Causes::of(Answers { decoding: false, powered: false });
        assert_eq!(causes.to_string(), "decode-off and power-down");
        assert!(Causes::of(Answers::YES).is_none());
    }
}
