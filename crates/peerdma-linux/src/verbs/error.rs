//! Why something is not had, registered, connected or posted.

use super::domain::DmabufSupport;
use super::endpoint::Endpoint;
use super::queue::Unconnected;
use crate::held::Held;
use crate::pin::{Limit, Refusal, explained};
use peerdma::addr::{AddrRange, Bytes, Iova, ProcVa};
use peerdma::pin::ChargeError;
use rustix::io::Errno;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};

/// Why adapters cannot be listed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DevicesError {
    /// The kernel's part is not there.
    #[error("this kernel has no RDMA for programs; load the module ib_uverbs, and the adapter's own")]
    NoKernel,
    /// Something forbids it.
    #[error("listing RDMA adapters is not permitted ({errno}); is /sys/class/infiniband_verbs readable here?")]
    NotPermitted {
        /// What the library answers.
        errno: Errno,
    },
    /// Anything else.
    #[error("the library lists no RDMA adapters ({errno})")]
    Other {
        /// What it answers.
        errno: Errno,
    },
}

impl DevicesError {
    pub(super) fn new(errno: Errno) -> Self {
        match errno {
            Errno::NOSYS | Errno::NOENT => Self::NoKernel,
            Errno::PERM | Errno::ACCESS => Self::NotPermitted { errno },
            errno => Self::Other { errno },
        }
    }
}

/// Why an adapter does not do, open or have what was asked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectError {
    /// Its file may not be opened.
    #[error("not permitted to open {} of {device} ({errno}); be a user, or of a group, who may read and write it", file.display())]
    NotPermitted {
        /// The adapter.
        device: String,
        /// Its file.
        file: PathBuf,
        /// The answer.
        errno: Errno,
    },
    /// The adapter is not there any more.
    #[error("{device} has gone ({errno}); list the adapters anew")]
    Gone {
        /// The adapter.
        device: String,
        /// The answer.
        errno: Errno,
    },
    /// What was asked for is not there, or is more than there is.
    #[error("cannot {doing} of {device}: it has no such thing, or not as much ({errno}); ask for its limits")]
    Beyond {
        /// What was to be done.
        doing: &'static str,
        /// The adapter.
        device: String,
        /// The answer.
        errno: Errno,
    },
    /// Anything else.
    #[error("cannot {doing} of {device} ({errno})")]
    Other {
        /// What was to be done.
        doing: &'static str,
        /// The adapter.
        device: String,
        /// The answer.
        errno: Errno,
    },
}

impl ObjectError {
    pub(super) fn new(device: &str, doing: &'static str, errno: Errno) -> Self {
        let device = device.to_string();
        match errno {
            Errno::NODEV | Errno::IO | Errno::NXIO => Self::Gone { device, errno },
            Errno::INVAL | Errno::NOMEM => Self::Beyond { doing, device, errno },
            errno => Self::Other { doing, device, errno },
        }
    }

    pub(super) fn opening(device: &str, file: &Path, errno: Errno) -> Self {
        match errno {
            Errno::PERM | Errno::ACCESS => Self::NotPermitted { device: device.into(), file: file.into(), errno },
            errno => Self::new(device, "open the context", errno),
        }
    }
}

/// Why memory is not registered. Nothing is charged or pinned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// The ledger refuses, and the kernel was not asked.
    #[error(transparent)]
    Charge(#[from] ChargeError),
    /// The kernel refuses by its limit for locked memory.
    #[error(
        "{device} does not get {len}: this process has {pinned} pinned, and {limit}; raise the limit (peerdma memlock prints \
         how), or release some"
    )]
    Memlock {
        /// The adapter.
        device: String,
        /// What was to be registered.
        len: Bytes,
        /// What the kernel says that the process has pinned already (`VmPin`).
        pinned: Bytes,
        /// The limit.
        limit: Limit,
    },
    /// Neither limit nor ledger is in the way: the machine or the adapter has no more.
    #[error("{device} does not get {len}: the kernel or the adapter is out of memory or regions; ask for its limits")]
    Exhausted {
        /// The adapter.
        device: String,
        /// What was to be registered.
        len: Bytes,
    },
    /// Dma-bufs are not registered here.
    #[error("{device} does not get the dma-buf: {support}")]
    NoDmabuf {
        /// The adapter.
        device: String,
        /// Who does not.
        support: DmabufSupport,
    },
    /// Offset and address are not at the same place in their pages.
    #[error("offset {offset:#x} and address {iova} lie at different places in their pages of {page}; choose another address", offset = offset.as_u64())]
    Unaligned {
        /// Where the part begins.
        offset: Bytes,
        /// Where the adapter is to see it.
        iova: Iova,
        /// The page size.
        page: Bytes,
    },
    /// It has no bytes, or passes the last address.
    #[error("{len} from {iova} are no range of addresses")]
    Range {
        /// How many.
        len: Bytes,
        /// From where.
        iova: Iova,
    },
    /// Something forbids it.
    #[error(
        "{device} does not get {len}: not permitted ({errno}); may this process open the adapter's file for writing, and is RLIMIT_MEMLOCK above 0?"
    )]
    NotPermitted {
        /// The adapter.
        device: String,
        /// What was to be registered.
        len: Bytes,
        /// The answer.
        errno: Errno,
    },
    /// The memory is none that can be pinned.
    #[error("{device} does not get {range}: {part} {why}")]
    Memory {
        /// The adapter.
        device: String,
        /// What was to be registered.
        range: AddrRange<ProcVa>,
        /// The part that is wrong.
        part: AddrRange<ProcVa>,
        /// What is wrong with it.
        why: Refusal,
    },
    /// The file is no dma-buf, or none of that length, or its exporter refuses the adapter.
    #[error(
        "{device} does not get {len} of the dma-buf ({errno}); is it one, as long, writable, and within the adapter's reach?"
    )]
    Dmabuf {
        /// The adapter.
        device: String,
        /// How much.
        len: Bytes,
        /// The answer.
        errno: Errno,
    },
    /// Anything else.
    #[error("{device} does not get {len} ({errno})")]
    Other {
        /// The adapter.
        device: String,
        /// What was to be registered.
        len: Bytes,
        /// The answer.
        errno: Errno,
    },
}

impl RegisterError {
    pub(super) fn of_memory(device: &str, range: AddrRange<ProcVa>, errno: Errno) -> Self {
        let (device, len) = (device.to_string(), range.len());
        match errno {
            Errno::NOMEM => match Limit::of_this_thread() {
                Limit::None => Self::Exhausted { device, len },
                limit => Self::Memlock { device, len, pinned: pinned(), limit },
            },
            Errno::PERM | Errno::ACCESS => Self::NotPermitted { device, len, errno },
            Errno::FAULT | Errno::INVAL => {
                let (part, why) = explained(range, errno);
                Self::Memory { device, range, part, why }
            }
            errno => Self::Other { device, len, errno },
        }
    }

    pub(super) fn of_dmabuf(device: &str, len: Bytes, errno: Errno) -> Self {
        let device = device.to_string();
        match errno {
            Errno::NOMEM => Self::Exhausted { device, len },
            Errno::PERM => Self::NotPermitted { device, len, errno },
            errno => Self::Dmabuf { device, len, errno },
        }
    }
}

/// What the kernel says that this process has pinned.
fn pinned() -> Bytes {
    let held = Held::read(Path::new("/proc")).unwrap_or_default();
    let own = held.processes.iter().find(|process| process.pid == std::process::id());
    own.map_or(Bytes::ZERO, |own| own.pinned)
}

/// Why a queue pair has no peer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// There is no way to the peer's address.
    #[error(
        "{device} finds no way from {own} to {peer} ({errno}); are both ports up, with addresses of one network or a route?"
    )]
    NoWay {
        /// The adapter.
        device: String,
        /// This side's address.
        own: Ipv6Addr,
        /// The peer's.
        peer: Ipv6Addr,
        /// The answer.
        errno: Errno,
    },
    /// The adapter does not take what was asked for.
    #[error(
        "{device} does not connect to queue pair {queue} of {peer} ({errno}); are GID, packet size and reads within its limits?"
    )]
    Refused {
        /// The adapter.
        device: String,
        /// The peer's queue pair.
        queue: u32,
        /// The peer's address.
        peer: Ipv6Addr,
        /// The answer.
        errno: Errno,
    },
}

impl ConnectError {
    pub(super) fn new(device: &str, own: &Endpoint, peer: &Endpoint, errno: Errno) -> Self {
        let device = device.to_string();
        match errno {
            Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::TIMEDOUT | Errno::NODATA | Errno::NETDOWN => {
                Self::NoWay { device, own: own.gid, peer: peer.gid, errno }
            }
            errno => Self::Refused { device, queue: peer.queue, peer: peer.gid, errno },
        }
    }
}

/// A queue pair that was not connected.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub struct NotConnected {
    /// The queue pair, which may have got half of the way.
    pub queue: Box<Unconnected>,
    /// Why.
    pub why: ConnectError,
}

/// Why work is not posted.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PostError {
    /// The peer's range is shorter.
    #[error("{len} do not fit the peer's {remote}; take a shorter part")]
    Beyond {
        /// This side.
        len: Bytes,
        /// The peer's.
        remote: Bytes,
    },
    /// One piece of work has less than 4 GiB.
    #[error("{len} are more than one piece of work moves; post several")]
    TooLong {
        /// How long it is.
        len: Bytes,
    },
    /// The queue is full.
    #[error("queue pair {queue} of {device} is full; take completions first, or make it deeper")]
    Full {
        /// The adapter.
        device: String,
        /// The queue pair.
        queue: u32,
    },
    /// The adapter does not take it.
    #[error(
        "queue pair {queue} of {device} does not take it ({errno}); is it connected, and the message within the port's limit?"
    )]
    Refused {
        /// The adapter.
        device: String,
        /// The queue pair.
        queue: u32,
        /// The answer.
        errno: Errno,
    },
}

impl PostError {
    pub(super) fn refused(device: &str, queue: u32, errno: Errno) -> Self {
        let device = device.to_string();
        match errno {
            Errno::NOMEM | Errno::AGAIN => Self::Full { device, queue },
            errno => Self::Refused { device, queue, errno },
        }
    }
}

/// A completion queue that says nothing any more.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "completions of {device} cannot be taken ({errno}); it has gone, or the queue ran over: make a new one, with its queue pairs"
)]
pub struct WaitError {
    /// The adapter.
    pub device: String,
    /// The answer.
    pub errno: Errno,
}
