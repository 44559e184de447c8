//! What a page of the space is, in two bits.

use super::word::span;

/// What becomes of a page, as two bits in two planes of the tree.
///
/// An allocated range is a head and the rests after it, so that its length need not be
/// written anywhere: it ends where something else than a rest stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::iova) enum State {
    /// Nobody's, to be handed out.
    Free,
    /// The first page of an allocated range.
    Head,
    /// A further page of an allocated range.
    Rest,
    /// Handed out to nobody: not usable, excluded, or guard space.
    Barred,
}

impl State {
    /// Its two bits, each repeated 64 times: the plane `open`, the plane `mark`.
    #[inline(always)]
    pub(super) const fn planes(self) -> (u64, u64) {
        match self {
            Self::Free => (u64::MAX, 0),
            Self::Head => (0, u64::MAX),
            Self::Rest => (0, 0),
            Self::Barred => (u64::MAX, u64::MAX),
        }
    }

    /// The state that the lowest bits of the planes say.
    pub(super) const fn of(open: u64, mark: u64) -> Self {
        match (open & 1, mark & 1) {
            (1, 0) => Self::Free,
            (0, 1) => Self::Head,
            (0, 0) => Self::Rest,
            _ => Self::Barred,
        }
    }

    /// What follows a page of this state in a stretch that is written as a whole.
    pub(super) const fn after(self) -> Self {
        match self {
            Self::Head => Self::Rest,
            other => other,
        }
    }
}

/// Pages that are nobody's, of the bits of both planes.
#[inline(always)]
pub(super) const fn free(open: u64, mark: u64) -> u64 {
    open & !mark
}

/// A question about pages, answered for 64 at once from their bits in both planes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::iova) enum Is {
    /// Free.
    Free,
    /// Anything but free.
    NotFree,
    /// Allocated to somebody.
    Taken,
    /// The first of a range.
    Head,
    /// Anything but a further page of a range.
    NotRest,
}

impl Is {
    /// The pages of which it is true.
    pub(super) const fn among(self, open: u64, mark: u64) -> u64 {
        match self {
            Self::Free => free(open, mark),
            Self::NotFree => !free(open, mark),
            Self::Taken => !open,
            Self::Head => !open & mark,
            Self::NotRest => open | mark,
        }
    }

    /// Whether it is true of a state.
    pub(super) const fn of(self, state: State) -> bool {
        let (open, mark) = state.planes();
        self.among(open, mark) & span(0, 0) != 0
    }
}
