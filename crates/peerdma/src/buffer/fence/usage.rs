//! What a fence stands for, and who has to wait for it.

use crate::access::Access;
use core::fmt;

/// What a device does with a buffer until a fence retires.
///
/// In the order of how many wait for it: waiting for one kind includes all before it (Linux 7.2
/// `enum dma_resv_usage`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Usage {
    /// Memory management: the memory is being moved or cleared. Everybody waits for it, always.
    Kernel,
    /// It writes. Readers and writers wait for it.
    Write,
    /// It reads. Writers wait for it.
    Read,
    /// It must not be taken the memory away from, and nobody else need wait: updates of page tables,
    /// and use that is put in order otherwise.
    Bookkeeping,
}

impl Usage {
    /// All of them, from the one that all wait for.
    pub const ALL: [Self; 4] = [Self::Kernel, Self::Write, Self::Read, Self::Bookkeeping];

    /// What a new access is.
    pub const fn of(access: Access) -> Self {
        match access {
            Access::Read => Self::Read,
            Access::Write => Self::Write,
        }
    }

    /// What a new access waits for: a writer for readers, a reader for writers, and each for all before.
    ///
    /// As Linux 7.2 `dma_resv_usage_rw`.
    ///
    /// ```
    /// use peerdma::access::Access;
    /// use peerdma::buffer::fence::Usage;
    ///
    /// assert_eq!(Usage::awaited_by(Access::Write), Usage::Read);
    /// assert_eq!(Usage::awaited_by(Access::Read), Usage::Write);
    /// ```
    pub const fn awaited_by(access: Access) -> Self {
        match access {
            Access::Read => Self::Write,
            Access::Write => Self::Read,
        }
    }

    /// The word used in text and JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Write => "write",
            Self::Read => "read",
            Self::Bookkeeping => "bookkeeping",
        }
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
