//! What became of bytes that an engine was to move.

use peerdma::addr::Bytes;
use std::fmt;

/// Bytes that are mapped, in the guest and here: a page.
pub(super) const LEN: Bytes = Bytes::new(4096);
/// Words that are moved where no mapping is.
pub(super) const WORDS: u64 = 4;
/// What stands at the destination before.
pub(super) const MARK: u64 = 0x1111_1111_1111_1111;
/// Where the destination of a copy within a BAR is.
pub(super) const BESIDE: u64 = 0x2000;

/// What the owner of the destination sees.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Landed {
    /// Every byte that was sent.
    All,
    /// What was there before.
    Nothing,
    /// Neither.
    Something,
}

impl fmt::Display for Landed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "every byte arrives",
            Self::Nothing => "nothing arrives",
            Self::Something => "other bytes arrive",
        })
    }
}

/// What became of a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Came {
    /// The rules refuse the pair, and nothing was touched.
    Refused,
    /// It was made.
    Landed(Landed),
}

impl fmt::Display for Came {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("the pair is refused"),
            Self::Landed(landed) => landed.fmt(f),
        }
    }
}

/// Compares what is found with what was sent and what was there before.
pub(super) fn judge<T: PartialEq>(found: &[T], sent: &[T], before: &[T]) -> Landed {
    if found == sent {
        Landed::All
    } else if found == before {
        Landed::Nothing
    } else {
        Landed::Something
    }
}
