//! Sets of outcomes that some way of filling in the missing facts leads to.

/// A set of the answers yes and no.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Possible(u8);

impl Possible {
    pub(super) const NONE: Self = Self(0);
    pub(super) const YES: Self = Self(1);
    pub(super) const NO: Self = Self(2);
    pub(super) const YES_OR_NO: Self = Self(3);

    pub(super) const fn of(answer: bool) -> Self {
        if answer { Self::YES } else { Self::NO }
    }

    /// The set as two bits.
    pub(super) const fn bits(self) -> u8 {
        self.0
    }

    pub(super) const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) const fn may(self, answer: Self) -> bool {
        self.0 & answer.0 != 0
    }

    /// Both of two independent questions answered with yes.
    pub(super) const fn and(self, other: Self) -> Self {
        let yes = if self.may(Self::YES) && other.may(Self::YES) { Self::YES } else { Self::NONE };
        let no = if self.may(Self::NO) || other.may(Self::NO) { Self::NO } else { Self::NONE };
        yes.or(no)
    }
}
