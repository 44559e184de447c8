//! Why memory is out of reach just now: everything that has begun and not ended.

use super::disturbance::{DISTURBANCES, Disturbance, Duration};
use core::fmt;

/// Disturbances that have begun and not ended. Memory is within reach when there are none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Causes {
    /// How many of each; of a state at most one.
    counts: [u16; Disturbance::COUNT],
}

/// Whether a device's memory answers: what its registers say after a deed that may have changed them.
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
            Duration::State | Duration::Final => *count = 1,
            Duration::Deed => match count.checked_add(1) {
                Some(more) => *count = more,
                None => return false,
            },
        }
        true
    }

    /// Ends one; false if none had begun.
    pub(super) fn end(&mut self, disturbance: Disturbance) -> bool {
        let count = &mut self.counts[disturbance as usize];
        let had = *count > 0;
        *count = count.saturating_sub(1);
        had
    }

    /// Takes over what the registers say.
    pub(super) fn set(&mut self, answers: Answers) {
        self.counts[Disturbance::DecodeOff as usize] = u16::from(!answers.decoding);
        self.counts[Disturbance::PowerDown as usize] = u16::from(!answers.powered);
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
    fn registers_that_do_not_answer_are_causes() {
        let causes = Causes::of(Answers { decoding: false, powered: false });
        assert_eq!(causes.to_string(), "decode-off and power-down");
        assert!(Causes::of(Answers::YES).is_none());
    }
}
