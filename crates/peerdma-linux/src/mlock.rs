//! Memory that stays in RAM, and may move: `mlock`.
//!
//! Not a pin, and never taken for one. A locked page is not swapped out, but the kernel still moves it: into huge pages
//! (`khugepaged`, `MADV_COLLAPSE`), between NUMA nodes, out of CMA and of memory that is taken offline, and for
//! compaction where `vm.compact_unevictable_allowed` is 1, as is usual (Linux 7.2 `isolate_migratepages_block`,
//! `collapse_huge_page`). A device that was told where such a page lay writes to somebody else's memory after that.
//! What it is good for is time: no access waits for a disk.
//!
//! Its limit is counted apart from that of pins: per process, where pins are counted per user.
//!
//! Not here: [`crate::pin`].

use crate::pin::{Limit, Steady};
use crate::sys::lock;
use peerdma::addr::{AddrRange, Bytes, ProcVa};
use rustix::io::Errno;
use std::sync::{Arc, Mutex, PoisonError};

/// What this process has locked by values of this module. The kernel does not count how often a page is locked
/// (Linux 6.18 `apply_vma_lock_flags`), so that one unlock would undo another's lock.
static LOCKED: Mutex<Vec<AddrRange<ProcVa>>> = Mutex::new(Vec::new());

/// Memory that is not swapped out while this lives.
///
/// *What holding this does not tell you*: where its pages are. They move, and a device that has their address is not
/// told. A forked child has the memory, and not the lock.
///
/// ```
/// use peerdma::addr::Bytes;
/// use peerdma_linux::{memory::Pages, mlock::Locked};
/// use std::sync::Arc;
///
/// let pages = Arc::new(Pages::zeroed(Bytes::new(4096))?);
/// let locked = Locked::new(Arc::clone(&pages))?;
/// assert_eq!(locked.range().start(), pages.address());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "memory is locked while the value lives"]
pub struct Locked<M: Steady> {
    memory: Arc<M>,
    /// The process that locked it; a forked child has not.
    process: u32,
}

/// Why memory is not locked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// The limit has no room for it, or is zero.
    #[error(
        "{range} is not locked: {len} go over what this process has left of {limit}; raise the limit, or lock less"
    )]
    Limit {
        /// What was to be locked.
        range: AddrRange<ProcVa>,
        /// How long it is.
        len: Bytes,
        /// The limit.
        limit: Limit,
    },
    /// Not all of it has pages: some is not mapped, or lies past the end of its file, or there is no memory for it.
    #[error("{range} is not locked: not all of it can be brought to RAM; map all of it, or free memory")]
    NoPages {
        /// What was to be locked.
        range: AddrRange<ProcVa>,
    },
    /// Anything else.
    #[error("{range} is not locked: the kernel refuses ({errno}); see mlock(2)")]
    Kernel {
        /// What was to be locked.
        range: AddrRange<ProcVa>,
        /// What it answered.
        errno: Errno,
    },
}

impl<M: Steady> Locked<M> {
    /// Locks memory; all of its pages are in RAM when this returns.
    ///
    /// # Errors
    /// [`LockError::Limit`]: raise `RLIMIT_MEMLOCK`. [`LockError::NoPages`]: map it, or free memory. Nothing is locked then that
    /// was not before.
    pub fn new(memory: Arc<M>) -> Result<Self, LockError> {
        let range = memory.range();
        // Held across the call, so that no unlock of an overlapping range comes in between.
        let mut locked = LOCKED.lock().unwrap_or_else(PoisonError::into_inner);
        let before = own_locked();
        if let Err(errno) = lock::lock(range) {
            // The kernel marks mappings before it brings pages, and leaves them marked (Linux 6.18 `do_mlock`).
            range.outside(&locked).into_iter().for_each(|rest| _ = lock::unlock(rest));
            return Err(refusal(range, errno, before));
        }
        locked.push(range);
        Ok(Self { memory, process: std::process::id() })
    }

    /// What is locked.
    pub fn range(&self) -> AddrRange<ProcVa> {
        self.memory.range()
    }

    /// The memory.
    pub fn memory(&self) -> &Arc<M> {
        &self.memory
    }
}

/// What this process has locked, by `/proc`; nothing where that cannot be read.
fn own_locked() -> Bytes {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmLck:")?.trim().strip_suffix("kB")?.trim().parse().ok());
    Bytes::new(kib.map_or(0, |kib: u64| kib.saturating_mul(1024)))
}

/// Linux 6.18 `do_mlock` answers ENOMEM for the limit, for a hole and for pages that cannot be had; without any limit, EPERM.
fn refusal(range: AddrRange<ProcVa>, errno: Errno, before: Bytes) -> LockError {
    let limit = Limit::of_this_thread();
    let over = |most: Bytes| before.checked_add(range.len()).is_none_or(|sum| sum > most);
    match errno {
        Errno::PERM => LockError::Limit { range, len: range.len(), limit },
        Errno::NOMEM | Errno::AGAIN if limit.bytes().is_some_and(over) => {
            LockError::Limit { range, len: range.len(), limit }
        }
        Errno::NOMEM | Errno::AGAIN => LockError::NoPages { range },
        errno => LockError::Kernel { range, errno },
    }
}

impl<M: Steady> Drop for Locked<M> {
    fn drop(&mut self) {
        // A thread of the parent's may have had the lock at the fork, and what it counts is not locked here.
        if self.process != std::process::id() {
            return;
        }
        let range = self.range();
        let mut locked = LOCKED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = locked.iter().position(|other| *other == range) {
            locked.swap_remove(at);
        }
        for rest in range.outside(&locked) {
            // An error would mean that the range is not mapped; there is nobody to tell.
            let _ = lock::unlock(rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Pages, page_size};

    /// What the kernel says is locked of a range.
    fn locked_of(range: AddrRange<ProcVa>) -> bool {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let head = format!("{:x}-", range.start().as_u64());
        let flags = smaps.split(&head).nth(1).and_then(|rest| rest.lines().find(|line| line.starts_with("VmFlags:")));
        flags.unwrap().split_whitespace().any(|flag| flag == "lo")
    }

    /// Mapped, and past the end of its file.
    #[derive(Debug)]
    struct Cut(crate::sys::disturb::Disturbed);

    impl crate::pin::sealed::Sealed for Cut {}

    impl Steady for Cut {
        fn range(&self) -> AddrRange<ProcVa> {
            self.0.range()
        }
    }

    /// It stayed locked, with nobody to unlock it.
    #[test]
    fn what_cannot_be_locked_whole_is_not_locked_in_part() {
        let file = rustix::fs::memfd_create("cut", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, page_size().as_u64()).unwrap();
        let prot = rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE;
        let len = Bytes::new(4 * page_size().as_u64());
        let mapped =
            crate::sys::disturb::Disturbed::of_file(std::os::fd::AsFd::as_fd(&file), len, false, prot).unwrap();
        let cut = Arc::new(Cut(mapped));
        let refused = Locked::new(Arc::clone(&cut)).unwrap_err();
        assert!(matches!(refused, LockError::NoPages { .. }), "{refused}");
        assert!(!locked_of(cut.range()));
    }

    #[test]
    fn memory_locked_twice_stays_locked_until_both_have_gone() {
        let pages = Arc::new(Pages::zeroed(Bytes::new(4 * page_size().as_u64())).unwrap());
        let (first, second) = (Locked::new(Arc::clone(&pages)).unwrap(), Locked::new(Arc::clone(&pages)).unwrap());
        assert!(locked_of(pages.range()));
        drop(first);
        assert!(locked_of(pages.range()), "the second still has it");
        drop(second);
        assert!(!locked_of(pages.range()));
    }
}
