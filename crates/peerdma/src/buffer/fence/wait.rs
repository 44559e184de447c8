//! Waiting for fences, for those who may block.

use super::set::FenceSet;
use super::state::{FailedFence, FenceName, FenceState};
use super::timeline::{Fence, Signal};
use crate::sync::blocking::{Condvar, Deadline, Mutex};
use alloc::sync::Arc;
use core::time::Duration;
use thiserror::Error;

/// How what was waited for ended.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use = "a failure means that what was to be written is not there"]
pub enum Retired {
    /// All of it came about.
    Well,
    /// The devices are done, and this did not come about; others may not have either.
    WithFailure(FailedFence),
}

/// The devices may still be at it.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum NotRetired {
    /// The time is over.
    #[error("{fence} and {more} more are outstanding after {} ms; wait longer, or stop the device", .waited.as_millis())]
    Late {
        /// The first of them.
        fence: FenceName,
        /// How many besides.
        more: usize,
        /// For how long was waited.
        waited: Duration,
    },
    /// Nobody will say when the device is done.
    #[error(
        "{fence} was abandoned: its timeline was dropped, and nobody will say that the device is done; reset the device and write the fence off"
    )]
    Abandoned {
        /// The first of them.
        fence: FenceName,
    },
}

/// Where one thread waits for several fences.
#[derive(Default)]
struct Bell {
    /// Held by the waiter from a look at the fences to its wait, so that no ring comes in between.
    looking: Mutex<()>,
    rung: Condvar,
}

impl Signal for Bell {
    fn settled(&self) {
        drop(self.looking.lock());
        self.rung.notify_all();
    }
}

impl FenceSet {
    /// Waits until all of them have retired, for `longest` at most.
    ///
    /// Blocks. Whoever retires them must be able to meanwhile: the caller holds no lock that it needs.
    ///
    /// # Errors
    /// [`NotRetired`]: then the memory is not to be touched.
    ///
    /// ```
    /// use core::time::Duration;
    /// use peerdma::buffer::fence::{FenceSet, Retired, Timeline};
    ///
    /// let nic = Timeline::new("nic queue 0");
    /// let sent = FenceSet::from(nic.issue());
    /// assert!(sent.wait_at_most(Duration::from_millis(1)).is_err());
    /// let interrupt = std::thread::spawn(move || nic.retire_to(nic.issued()));
    /// assert_eq!(sent.wait_at_most(Duration::from_secs(60))?, Retired::Well);
    /// # interrupt.join().unwrap()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_at_most(&self, longest: Duration) -> Result<Retired, NotRetired> {
        let bell = Arc::new(Bell::default());
        let signal: Arc<dyn Signal> = Arc::clone(&bell) as _;
        self.notify(&signal);
        let deadline = Deadline::after(longest);
        let mut looking = bell.looking.lock();
        loop {
            // What a state says may have changed when the fence is looked for; then look again.
            let error = match self.state() {
                FenceState::Retired => return Ok(Retired::Well),
                FenceState::Failed(_) => return Ok(self.failure().map_or(Retired::Well, Retired::WithFailure)),
                FenceState::Abandoned => self
                    .first_that(|fence| fence.state() == FenceState::Abandoned)
                    .map(|fence| NotRetired::Abandoned { fence }),
                FenceState::Outstanding => match deadline.left() {
                    Some(left) => {
                        looking = bell.rung.wait_at_most(looking, left).0;
                        None
                    }
                    None => self.first_that(|fence| !fence.is_retired()).map(|fence| {
                        let more = self.outstanding().count().saturating_sub(1);
                        NotRetired::Late { fence, more, waited: longest }
                    }),
                },
            };
            if let Some(error) = error {
                return Err(error);
            }
        }
    }

    fn first_that(&self, is: impl Fn(&Fence) -> bool) -> Option<FenceName> {
        self.as_slice().iter().find(|fence| is(fence)).map(Fence::name)
    }
}

impl Fence {
    /// Waits until it has retired, as [`FenceSet::wait_at_most`] does.
    ///
    /// # Errors
    /// [`NotRetired`]: then the memory is not to be touched.
    pub fn wait_at_most(&self, longest: Duration) -> Result<Retired, NotRetired> {
        FenceSet::from(self.clone()).wait_at_most(longest)
    }
}
