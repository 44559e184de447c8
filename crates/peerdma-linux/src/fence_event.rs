//! Fences as a descriptor, for programs that wait with `poll`.

use crate::bell::Bell;
use peerdma::buffer::fence::{FenceSet, Signal};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A descriptor that becomes readable, and stays so, when nothing more is to be expected of a set of fences.
///
/// That is when all have retired or were abandoned; [`FenceSet::state`] says which. It is an eventfd, so it may be
/// waited for together with others.
///
/// ```
/// use peerdma::buffer::fence::{FenceSet, Timeline};
/// use peerdma_linux::fence_event::FenceEvent;
/// use rustix::event::{PollFd, PollFlags, Timespec, poll};
///
/// let nic = Timeline::new("nic queue 0");
/// let sent = FenceSet::from(nic.issue());
/// let event = FenceEvent::of(&sent)?;
/// let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
/// assert_eq!(poll(&mut [PollFd::new(&event, PollFlags::IN)], Some(&at_once))?, 0);
/// nic.retire_to(nic.issued())?;
/// assert_eq!(poll(&mut [PollFd::new(&event, PollFlags::IN)], Some(&at_once))?, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct FenceEvent(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bell: Bell,
    /// Fences of which something is to be expected, and one until all of them are registered with.
    left: AtomicUsize,
}

impl FenceEvent {
    /// A descriptor for these fences, readable at once if nothing is to be expected of them.
    ///
    /// Fences that are put into the set later are no part of it.
    ///
    /// # Errors
    /// What eventfd(2) answers, mostly that the process has too many descriptors open.
    pub fn of(set: &FenceSet) -> io::Result<Self> {
        let fences: Vec<_> = set.outstanding().cloned().collect();
        let shared = Arc::new(Shared { bell: Bell::new()?, left: AtomicUsize::new(fences.len() + 1) });
        let signal: Arc<dyn Signal> = Arc::clone(&shared) as _;
        fences.iter().for_each(|fence| fence.notify(&signal));
        shared.settled();
        Ok(Self(shared))
    }
}

impl Signal for Shared {
    fn settled(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.bell.ring();
        }
    }
}

impl AsFd for FenceEvent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.bell.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use peerdma::buffer::fence::{Failure, Timeline};
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    fn is_readable(event: &FenceEvent) -> io::Result<bool> {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        Ok(poll(&mut [PollFd::new(event, PollFlags::IN)], Some(&at_once))? == 1)
    }

    #[test]
    fn the_descriptor_is_readable_when_the_last_of_several_is_settled() -> io::Result<()> {
        let (one, two) = (Timeline::new("one"), Timeline::new("two"));
        let both: FenceSet = [one.issue(), two.issue()].into_iter().collect();
        let event = FenceEvent::of(&both)?;
        one.fail_all(Failure::Reset);
        assert!(!is_readable(&event)?);
        drop(two);
        assert!(is_readable(&event)? && is_readable(&event)?, "and stays so");
        Ok(())
    }

    #[test]
    fn nothing_to_wait_for_is_readable_at_once() -> io::Result<()> {
        assert!(is_readable(&FenceEvent::of(&FenceSet::new())?)?);
        let timeline = Timeline::new("queue");
        let set = FenceSet::from(timeline.issue());
        drop(timeline);
        assert!(is_readable(&FenceEvent::of(&set)?)?, "nobody will retire it");
        Ok(())
    }
}
