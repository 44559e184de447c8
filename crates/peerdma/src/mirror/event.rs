//! What happens to a process's addresses.

use crate::access::Prot;
use crate::addr::{AddrRange, Bytes, ProcVa};
use core::fmt;

/// When a mirror is told, beside the change itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Told {
    /// Before it, so that the device is stopped in time.
    Before,
    /// After it: for a moment the device's table led to what was not the process's promise any more.
    After,
    /// Not at all.
    Never,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Before => "before",
            Self::After => "after",
            Self::Never => "never",
        })
    }
}

/// What happens to a range of a process's addresses.
///
/// Ranges are of whole pages, of any memory, registered or not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum Event {
    /// What stands there is thrown away, and the addresses stay (`MADV_DONTNEED`, `MADV_FREE`, `MADV_REMOVE`).
    Discard(AddrRange<ProcVa>),
    /// The addresses are no memory any more, or another's (`munmap`, `mmap` with `MAP_FIXED`).
    Unmap(AddrRange<ProcVa>),
    /// The memory is at other addresses now (`mremap`).
    Remap {
        /// Where it was.
        from: AddrRange<ProcVa>,
        /// Where it is.
        to: ProcVa,
        /// How long it is there, which may be more or less.
        len: Bytes,
    },
    /// Other accesses are permitted (`mprotect`); `None`: none.
    Protect {
        /// Where.
        at: AddrRange<ProcVa>,
        /// What is permitted from now on.
        prot: Option<Prot>,
    },
    /// The process has a child, with which it shares its private pages until one of the two writes.
    Fork,
}

impl Event {
    /// When userfaultfd tells of it, for memory that others may change (Linux 7.2 `mm/userfaultfd.c`).
    ///
    /// What goes through whoever owns the memory is told before, always.
    pub const fn told_by_userfaultfd(&self) -> Told {
        match self {
            Self::Discard(_) => Told::Before,
            Self::Unmap(_) | Self::Remap { .. } | Self::Fork => Told::After,
            Self::Protect { .. } => Told::Never,
        }
    }
}
