//! The three counters that `RLIMIT_MEMLOCK` is held against.

use core::fmt;

/// A counter of the kernel's. Nothing that is charged to one counts in another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Counter {
    /// `mm->locked_vm` of one address space; `/proc/PID/status` shows it as `VmLck`.
    MmLocked,
    /// `user->locked_vm`: all processes of one user together. Nothing shows it.
    UserLocked,
    /// `mm->pinned_vm` of one address space; `/proc/PID/status` shows it as `VmPin`.
    MmPinned,
}

/// Who shares a counter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Basis {
    /// Each process has its own.
    Process,
    /// All processes of a user have one.
    User,
}

impl Counter {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::MmLocked, Self::UserLocked, Self::MmPinned];

    /// Its name in the kernel's source.
    pub const fn word(self) -> &'static str {
        match self {
            Self::MmLocked => "mm->locked_vm",
            Self::UserLocked => "user->locked_vm",
            Self::MmPinned => "mm->pinned_vm",
        }
    }

    /// Who shares it.
    pub const fn basis(self) -> Basis {
        match self {
            Self::MmLocked | Self::MmPinned => Basis::Process,
            Self::UserLocked => Basis::User,
        }
    }
}

impl Basis {
    /// `process` or `user`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::User => "user",
        }
    }
}

impl fmt::Display for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl fmt::Display for Basis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
