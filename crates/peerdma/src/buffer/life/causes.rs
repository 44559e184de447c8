//! Why memory is out of reach just now: everything that has begun and not ended.

use super::disturbance::{DISTURBANCES, Disturbance, Duration};
use core::fmt;

/// Disturbances that have begun and not ended. Memory is within reach when there are none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Causes {
    /// How many authors of each; of a state also [`FOUND`].
    counts: [u16; Disturbance::COUNT],
}

/// Set in a state's count if the registers said so.
///
/// It is kept apart from the authors because registers that still answer do not contradict them: whoever
/// is about to write D3 has begun before the function leaves D0, and a reset that ends in
/// between must not lift what the other is about to do.
const FOUND: u16 = 1 << 15;

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
    ///
    /// Two authors of one state are two, since the memory has to stay untouched until both are done.
    pub(in crate::buffer) fn begin(&mut self, disturbance: Disturbance) -> bool {
        let count = &mut self.counts[disturbance as usize];
        if disturbance == Disturbance::Removal {
            // It cannot be refused and never ends, so it need not be counted.
            *count = 1;
            return true;
        }
        let fits = *count & !FOUND < FOUND - 1;
        *count += u16::from(fits);
        fits
    }

    /// Ends one; false if none had begun. A state that only registers told of is over, until they say otherwise.
    ///
    /// What somebody had begun ends first: who gives up waiting to turn decoding off has not
    /// turned on what was off before.
    pub(super) fn end(&mut self, disturbance: Disturbance) -> bool {
        let count = &mut self.counts[disturbance as usize];
        let had = *count > 0;
        *count = if *count == FOUND { 0 } else { count.saturating_sub(1) };
        had
    }

    /// Takes over what the registers say, and leaves alone what somebody is about to do to them.
    pub(super) fn set(&mut self, answers: Answers) {
        let said = [(Disturbance::DecodeOff, !answers.decoding), (Disturbance::PowerDown, !answers.powered)];
        for (state, found) in said {
            let count = &mut self.counts[state as usize];
            *count = (*count & !FOUND) | if found { FOUND } else { 0 };
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
    fn what_two_have_begun_ends_when_both_have_ended() {
        for disturbance in [Disturbance::DecodeOff, Disturbance::Reset, Disturbance::Close] {
            let mut causes = Causes::NONE;
            assert!(causes.begin(disturbance) && causes.begin(disturbance));
            assert!(causes.end(disturbance) && causes.has(disturbance));
            assert!(causes.end(disturbance) && causes.is_none());
            assert!(!causes.end(disturbance));
        }
    }

    #[test]
    fn there_is_an_end_to_counting() {
        let mut causes = Causes::of(Answers { decoding: false, powered: true });
        assert_eq!((0..70_000).take_while(|_| causes.begin(Disturbance::DecodeOff)).count(), 32_767);
        assert!((0..70_000).all(|_| causes.begin(Disturbance::Removal)), "news is never refused");
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
    fn registers_that_do_not_answer_are_causes() {
        let causes = Causes::of(Answers { decoding: false, powered: false });
        assert_eq!(causes.to_string(), "decode-off and power-down");
        assert!(Causes::of(Answers::YES).is_none());
    }
}
