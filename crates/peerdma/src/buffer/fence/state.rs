//! What can become of what a device was told to do.

use alloc::sync::Arc;
use core::fmt;
use thiserror::Error;

/// A fence's number on its timeline, counted from 1; later ones retire later.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default)]
pub struct Sequence(u64);

impl Sequence {
    /// The one of that number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why what a device was told to do did not come about, though the device is done with it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[non_exhaustive]
pub enum Failure {
    /// An access was refused: by the IOMMU, on the way, or by the target.
    Fault,
    /// The device said so.
    Device,
    /// It was taken back before the device began.
    Cancelled,
    /// The device was reset meanwhile.
    Reset,
    /// The device went away.
    Gone,
}

impl Failure {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Fault, Self::Device, Self::Cancelled, Self::Reset, Self::Gone];

    /// The words of an error.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Fault => "an access was refused",
            Self::Device => "the device reported an error",
            Self::Cancelled => "it was cancelled before it began",
            Self::Reset => "the device was reset meanwhile",
            Self::Gone => "the device went away",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sentence())
    }
}

/// What is known of what a fence stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum FenceState {
    /// The device may still be at it.
    Outstanding,
    /// Whoever would have said that the device is done is gone. Nobody will, and the device may still be at it.
    Abandoned,
    /// The device is done.
    Retired,
    /// The device is done, and it did not come about.
    Failed(Failure),
}

impl FenceState {
    /// Whether the device is done with the memory, well or not.
    pub const fn is_retired(self) -> bool {
        matches!(self, Self::Retired | Self::Failed(_))
    }

    /// Whether anything can still change by itself.
    pub const fn is_settled(self) -> bool {
        !matches!(self, Self::Outstanding)
    }

    pub(super) const fn to_byte(self) -> u8 {
        match self {
            Self::Outstanding => 0,
            Self::Abandoned => 1,
            Self::Retired => 2,
            Self::Failed(failure) => 3 + failure as u8,
        }
    }

    pub(super) fn of_byte(byte: u8) -> Self {
        match byte {
            0 => Self::Outstanding,
            1 => Self::Abandoned,
            2 => Self::Retired,
            failed => {
                let failure = Failure::ALL.get(usize::from(failed) - 3);
                Self::Failed(*failure.expect("only bytes of states are stored"))
            }
        }
    }
}

/// A fence by name, for whoever is told of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FenceName {
    /// What its timeline is called.
    pub timeline: Arc<str>,
    /// Its number there.
    pub sequence: Sequence,
}

impl fmt::Display for FenceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fence {} of {:?}", self.sequence, self.timeline)
    }
}

/// A device is done with something that did not come about.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{fence} retired with a failure: {failure}; what it was to write is not there")]
pub struct FailedFence {
    /// Which.
    pub fence: FenceName,
    /// Why.
    pub failure: Failure,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_is_read_as_it_was_stored() {
        let failed = Failure::ALL.map(FenceState::Failed);
        let plain = [FenceState::Outstanding, FenceState::Abandoned, FenceState::Retired];
        for state in plain.into_iter().chain(failed) {
            assert_eq!(FenceState::of_byte(state.to_byte()), state);
        }
    }
}
