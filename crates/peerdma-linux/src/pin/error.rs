//! Why a ring cannot be had, and why memory is not pinned.

use super::holders::Holders;
use super::limit::Limit;
use super::why::Refusal;
use peerdma::addr::{AddrRange, Bytes, ProcVa};
use rustix::io::Errno;
use std::error::Error;
use std::io;

/// Why there is no ring to hold pins in.
///
/// There is no second way to pin without privilege, and none is taken silently: where a text offers
/// [`mlock`](crate::mlock), that keeps memory in RAM and lets it move.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RingError {
    /// The sysctl forbids it.
    #[error(
        "io_uring is disabled for this process (kernel.io_uring_disabled = {value}); set it to 0, {}or use mlock, \
         which keeps memory in RAM but lets its pages move",
        if *.value == 1 { "run in the group kernel.io_uring_group, " } else { "" }
    )]
    Disabled {
        /// 1: for all but privileged processes and one group; 2: for all.
        value: u32,
    },
    /// Something refuses the call, and the sysctl is not it.
    #[error(
        "io_uring_setup is refused ({errno}){}; allow io_uring_setup, io_uring_register and io_uring_enter, or use \
         mlock, which keeps memory in RAM but lets its pages move",
        if *.filtered { ": this process runs under a seccomp filter, as in most containers" } else { ", by a security module" }
    )]
    Refused {
        /// What the call answered.
        errno: Errno,
        /// Whether the process runs under a seccomp filter.
        filtered: bool,
    },
    /// The kernel has no io_uring.
    #[error(
        "this kernel has no io_uring (CONFIG_IO_URING); use mlock, which keeps memory in RAM but lets its pages move"
    )]
    NotOffered,
    /// The kernel's io_uring has no tables of buffers that can be filled slot by slot.
    #[error("this kernel's io_uring has no sparse buffer tables of {slots} slots (Linux 5.19); use a newer one")]
    TooOld {
        /// How many were asked for.
        slots: u32,
    },
    /// The ring's own pages are over the limit.
    #[error("the ring itself needs two pages of {limit}, and they are not left{holders}; raise the limit")]
    Limit {
        /// The limit.
        limit: Limit,
        /// Who has how much of it.
        holders: Holders,
    },
    /// There is no memory for the ring.
    #[error("the kernel has no memory left for a ring, and no limit applies; free some")]
    NoMemory,
    /// Whoever keeps the books refuses.
    #[error("no ring is made: {0}")]
    NotAdmitted(Box<dyn Error + Send + Sync>),
    /// No more descriptors, or none in the system.
    #[error("no descriptor is left for the ring ({errno}); close some, or raise RLIMIT_NOFILE")]
    Descriptors {
        /// `EMFILE` for the process, `ENFILE` for the system.
        errno: Errno,
    },
    /// The thread that serves the ring could not be started.
    #[error("the thread that serves the ring cannot be started; raise the limit of threads")]
    Thread(#[source] io::Error),
    /// Anything else.
    #[error("the kernel makes no ring ({errno}); see io_uring_setup(2)")]
    Kernel {
        /// What it answered.
        errno: Errno,
    },
}

impl RingError {
    /// Tells what an answer of `io_uring_setup` means.
    pub(super) fn of_setup(errno: Errno) -> Self {
        match errno {
            Errno::PERM => Self::refused(errno, Signs::of_this_thread()),
            Errno::NOSYS => Self::absent(Signs::of_this_thread()),
            Errno::NOMEM => match Limit::of_this_thread() {
                Limit::None => Self::NoMemory,
                limit => Self::Limit { limit, holders: Holders::now() },
            },
            Errno::MFILE | Errno::NFILE => Self::Descriptors { errno },
            Errno::ACCESS => Self::Refused { errno, filtered: Signs::of_this_thread().filtered },
            errno => Self::Kernel { errno },
        }
    }

    /// Linux 6.18 `io_uring_allowed` and a filter both say `EPERM`; the sysctl tells them apart.
    pub(super) fn refused(errno: Errno, signs: Signs) -> Self {
        match signs.disabled {
            Some(value @ 1..) => Self::Disabled { value },
            _ => Self::Refused { errno, filtered: signs.filtered },
        }
    }

    /// A filter may pretend that there is no such call.
    pub(super) fn absent(signs: Signs) -> Self {
        match (signs.disabled, signs.filtered) {
            (_, true) => Self::Refused { errno: Errno::NOSYS, filtered: true },
            _ => Self::NotOffered,
        }
    }

    /// Tells what an answer of the registration of the table means.
    pub(super) fn of_table(slots: u32, errno: Errno) -> Self {
        match errno {
            Errno::INVAL => Self::TooOld { slots },
            Errno::PERM | Errno::NOSYS => Self::of_setup(errno),
            errno => Self::Kernel { errno },
        }
    }
}

/// What else is known when the kernel refuses a ring.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signs {
    /// `kernel.io_uring_disabled`, if it can be read (Linux 6.6).
    pub(super) disabled: Option<u32>,
    /// Whether the thread runs under a seccomp filter.
    pub(super) filtered: bool,
}

impl Signs {
    fn of_this_thread() -> Self {
        let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok();
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
        let seccomp = status.lines().find_map(|line| line.strip_prefix("Seccomp:"));
        Self {
            disabled: disabled.and_then(|value| value.trim().parse().ok()),
            filtered: seccomp.is_some_and(|mode| mode.trim() == "2"),
        }
    }
}

/// Why memory is not pinned. Nothing of it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PinError {
    /// No bytes.
    #[error("a pin of no bytes at {start} holds nothing; pin one at least")]
    Empty {
        /// Where.
        start: ProcVa,
    },
    /// The range wraps around the end of the address space.
    #[error("{len} from {start} wrap around the end of the address space; check the length")]
    Wraps {
        /// Where it starts.
        start: ProcVa,
        /// How long it would be.
        len: Bytes,
    },
    /// The part does not lie in the memory it was asked of.
    #[error("{len} at offset {offset:#x} do not lie in {memory}; ask for a part of it", offset = .offset.as_u64())]
    Outside {
        /// The memory.
        memory: AddrRange<ProcVa>,
        /// Where the part starts.
        offset: Bytes,
        /// How long it is.
        len: Bytes,
    },
    /// Some of the memory is none that can be pinned.
    #[error("{range} is not pinned: {at} {why}")]
    Refused {
        /// What was to be pinned.
        range: AddrRange<ProcVa>,
        /// The part that cannot be; the first of them.
        at: AddrRange<ProcVa>,
        /// What is wrong with it.
        why: Refusal,
    },
    /// The limit is reached.
    #[error(
        "{range} is not pinned: the kernel counts {charge} for it at least, over what is left of {limit}, which all \
         processes of this user share{holders}; raise the limit, or release some"
    )]
    Limit {
        /// What was to be pinned.
        range: AddrRange<ProcVa>,
        /// What it is charged at least.
        charge: Bytes,
        /// The limit.
        limit: Limit,
        /// Who has how much of it.
        holders: Holders,
    },
    /// There is no memory.
    #[error("{range} is not pinned: the kernel has no memory left for it, and no limit applies; free some")]
    NoMemory {
        /// What was to be pinned.
        range: AddrRange<ProcVa>,
    },
    /// Whoever keeps the books refuses.
    #[error("{range} is not pinned: {source}")]
    NotAdmitted {
        /// What was to be pinned.
        range: AddrRange<ProcVa>,
        /// Why not.
        source: Box<dyn Error + Send + Sync>,
    },
    /// All slots are taken, and there is no other ring.
    #[error("{range} is not pinned: all slots are taken, and another ring cannot be made")]
    NoRing {
        /// What was to be pinned.
        range: AddrRange<ProcVa>,
        /// Why not.
        source: RingError,
    },
    /// The pins are those of the parent of this process.
    #[error("{range} is not pinned: the pinner belongs to the process that this one was forked from; make one here")]
    Forked {
        /// What was to be pinned.
        range: AddrRange<ProcVa>,
    },
    /// The kernel refuses, for a reason of its own.
    #[error(
        "{range} is not pinned: the kernel refuses ({errno}); see IORING_REGISTER_BUFFERS_UPDATE in io_uring_register(2)"
    )]
    Kernel {
        /// What was to be pinned.
        range: AddrRange<ProcVa>,
        /// What it answered.
        errno: Errno,
    },
}
