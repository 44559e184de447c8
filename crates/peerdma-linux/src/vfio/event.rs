//! Where an interrupt arrives: an eventfd.

use peerdma::dma::Errno;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use super::error::errno;

/// An eventfd that counts interrupts until somebody takes the count.
///
/// One that the caller has already, such as a KVM irqfd's, serves as well: interrupts go to any
/// [`BorrowedFd`].
///
/// # Examples
/// ```
/// use peerdma_linux::vfio::InterruptEvent;
/// use std::time::Duration;
///
/// let event = InterruptEvent::new()?;
/// assert_eq!(event.take()?, 0);
/// assert_eq!(event.wait(Duration::from_millis(1))?, None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct InterruptEvent(OwnedFd);

/// The kernel did not make or read an eventfd.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{doing} of an eventfd refused with {errno}")]
pub struct EventError {
    /// Which call.
    pub doing: &'static str,
    /// The kernel's answer.
    pub errno: Errno,
}

impl InterruptEvent {
    /// A new one, which nobody has signalled.
    ///
    /// # Errors
    /// [`EventError`], mostly EMFILE: too many descriptors are open.
    pub fn new() -> Result<Self, EventError> {
        let made = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        made.map(Self).map_err(|error| EventError { doing: "making", errno: errno(error) })
    }

    /// How many have come since the last time; 0 at once if none has. Never blocks, unless the descriptor was made by
    /// somebody else to do so.
    ///
    /// # Errors
    /// [`EventError`] for a descriptor that is no eventfd.
    pub fn take(&self) -> Result<u64, EventError> {
        let mut count = [0; 8];
        loop {
            match rustix::io::read(&self.0, &mut count) {
                Ok(8) => return Ok(u64::from_ne_bytes(count)),
                Ok(_) => return Err(EventError { doing: "reading", errno: Errno::EINVAL }),
                Err(rustix::io::Errno::AGAIN) => return Ok(0),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(EventError { doing: "reading", errno: errno(error) }),
            }
        }
    }

    /// Blocks until one has come, for at most `patience`, and takes the count; `None` if none has.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub fn wait(&self, patience: Duration) -> Result<Option<u64>, EventError> {
        let until = Instant::now() + patience;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let left =
                Timespec { tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() };
            match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&left)) {
                Ok(0) => return Ok(None),
                // Somebody else may have taken it in between.
                Ok(_) => match self.take()? {
                    0 => {}
                    count => return Ok(Some(count)),
                },
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(EventError { doing: "polling", errno: errno(error) }),
            }
        }
    }
}

impl From<OwnedFd> for InterruptEvent {
    /// Takes an eventfd that somebody else made.
    fn from(eventfd: OwnedFd) -> Self {
        Self(eventfd)
    }
}

impl From<InterruptEvent> for OwnedFd {
    fn from(event: InterruptEvent) -> Self {
        event.0
    }
}

impl AsFd for InterruptEvent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_is_counted_until_it_is_taken() {
        let event = InterruptEvent::new().unwrap();
        for _ in 0..3 {
            rustix::io::write(&event.0, &1_u64.to_ne_bytes()).unwrap();
        }
        assert_eq!(event.wait(Duration::from_secs(60)), Ok(Some(3)));
        assert_eq!((event.take(), event.wait(Duration::ZERO)), (Ok(0), Ok(None)));
    }

    #[test]
    fn a_descriptor_of_something_else_is_an_error() {
        let null = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        assert!(InterruptEvent::from(null).take().is_err());
    }
}
