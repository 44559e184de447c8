//! How much a process may pin.

use peerdma::addr::Bytes;
use rustix::process::{Resource, getrlimit};
use rustix::thread::{CapabilitySet, capabilities};
use std::fmt;

/// How much may be pinned; counted per user by io_uring, whoever of his processes pinned it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Limit {
    /// `CAP_IPC_LOCK`, or the limit is unlimited: nothing is refused.
    None,
    /// `RLIMIT_MEMLOCK`, the soft one.
    Memlock(Bytes),
}

impl Limit {
    /// That of the calling thread, now.
    ///
    /// A ring keeps what its thread was allowed when it was made (Linux 6.18 `io_uring_create`): a process that gave
    /// `CAP_IPC_LOCK` up afterwards is not counted by rings of before.
    pub fn of_this_thread() -> Self {
        match getrlimit(Resource::Memlock).current {
            Some(limit) if !is_bypassed() => Self::Memlock(Bytes::new(limit)),
            _ => Self::None,
        }
    }

    /// The number, where there is one.
    pub const fn bytes(self) -> Option<Bytes> {
        match self {
            Self::None => None,
            Self::Memlock(limit) => Some(limit),
        }
    }
}

/// Whether the calling thread has `CAP_IPC_LOCK` where it counts: in the initial user namespace (Linux 6.18 `capable`).
///
/// The root of a namespace of its own, as in a container without privilege, has the capability and is held to the limit.
pub(crate) fn is_bypassed() -> bool {
    let capable = capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
    // A kernel without user namespaces has no such file, and the initial one only.
    capable && std::fs::read_to_string("/proc/self/uid_map").map_or(true, |map| is_initial(&map))
}

/// The initial namespace maps all users to themselves; one that does the same passes for it.
fn is_initial(map: &str) -> bool {
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("no limit"),
            Self::Memlock(limit) => write!(f, "RLIMIT_MEMLOCK {limit}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_of_its_own_namespace_is_held_to_the_limit() {
        assert!(is_initial("         0          0 4294967295\n"));
        assert!(!is_initial("         0       1000          1\n"));
        assert!(!is_initial("0 100000 65536\n"));
        assert!(!is_initial(""));
    }
}
