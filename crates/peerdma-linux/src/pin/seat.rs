//! Who makes a ring's calls.
//!
//! A ring without a descriptor can only be used by the thread that made it: that thread does nothing else, and ends
//! when the last handle is gone. A ring with a descriptor is used by whoever comes, one at a time.

use super::error::RingError;
use super::options::{Ring as Choice, RingKind};
use crate::sys::uring::Ring;
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};

/// What the thread needs of a stack, with room; a process that locks all of its memory pays for it.
const STACK: usize = 256 << 10;

type Job = Box<dyn FnOnce(&mut Ring) + Send>;

/// The thread that served the ring is gone; it ends by itself only in a forked child, where no thread but one is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Gone;

/// A ring with its table, and the way to it.
#[derive(Debug)]
pub(super) struct Seat {
    way: Way,
    /// The process that made it; threads do not survive a fork.
    process: u32,
}

#[derive(Debug)]
enum Way {
    /// `jobs` is taken when the seat is dropped, which ends the thread.
    Thread {
        jobs: Option<Sender<Job>>,
        thread: Option<JoinHandle<()>>,
    },
    Lock(Mutex<Ring>),
}

impl Seat {
    /// Makes a ring with a table of `slots` slots.
    pub(super) fn open(choice: Choice, slots: u32) -> Result<(Self, RingKind), RingError> {
        let process = std::process::id();
        match choice {
            Choice::Descriptor => Ok((Self { way: Self::with_descriptor(slots)?, process }, RingKind::Descriptor)),
            Choice::Best => match Self::registered_only(slots)? {
                Some(way) => Ok((Self { way, process }, RingKind::RegisteredOnly)),
                // Linux before 6.5 knows no such rings and calls the flags invalid.
                None => Self::open(Choice::Descriptor, slots),
            },
        }
    }

    fn with_descriptor(slots: u32) -> Result<Way, RingError> {
        let mut ring = Ring::with_descriptor().map_err(RingError::of_setup)?;
        ring.register_table(slots).map_err(|errno| RingError::of_table(slots, errno))?;
        Ok(Way::Lock(Mutex::new(ring)))
    }

    fn registered_only(slots: u32) -> Result<Option<Way>, RingError> {
        let (jobs, work) = mpsc::channel::<Job>();
        let (say, said) = mpsc::channel();
        let serve = move || {
            let made = Ring::registered_only().map_err(|errno| (errno, None)).and_then(|mut ring| {
                ring.register_table(slots).map_err(|errno| (errno, Some(slots)))?;
                Ok(ring)
            });
            match made {
                Ok(mut ring) => {
                    // Whoever waits for it is there; it would not have come this far otherwise.
                    let _ = say.send(Ok(()));
                    drop(say);
                    serve(&mut ring, &work);
                }
                Err(error) => drop(say.send(Err(error))),
            }
        };
        let thread = thread::Builder::new()
            .name("peerdma pins".into())
            .stack_size(STACK)
            .spawn(serve)
            .map_err(RingError::Thread)?;
        match said.recv() {
            Ok(Ok(())) => Ok(Some(Way::Thread { jobs: Some(jobs), thread: Some(thread) })),
            Ok(Err((Errno::INVAL, None))) => Ok(None),
            Ok(Err((errno, None))) => Err(RingError::of_setup(errno)),
            Ok(Err((errno, Some(slots)))) => Err(RingError::of_table(slots, errno)),
            Err(_) => Err(RingError::of_setup(Errno::IO)),
        }
    }

    /// Has a call made, and waits for its answer.
    pub(super) fn call<R: Send + 'static>(&self, job: impl FnOnce(&mut Ring) -> R + Send + 'static) -> Result<R, Gone> {
        if self.process != std::process::id() {
            return Err(Gone);
        }
        match &self.way {
            Way::Lock(ring) => Ok(job(&mut ring.lock().unwrap_or_else(PoisonError::into_inner))),
            Way::Thread { jobs, .. } => {
                let (answer, answered) = mpsc::channel();
                // The one who waits below cannot have gone.
                let job: Job = Box::new(move |ring| drop(answer.send(job(ring))));
                jobs.as_ref().ok_or(Gone)?.send(job).map_err(|_| Gone)?;
                answered.recv().map_err(|_| Gone)
            }
        }
    }

    /// Another descriptor of the ring; none where it has none at all.
    pub(super) fn descriptor(&self) -> Option<std::io::Result<OwnedFd>> {
        match &self.way {
            Way::Lock(ring) => {
                let ring = ring.lock().unwrap_or_else(PoisonError::into_inner);
                ring.descriptor().map(|fd| fd.as_fd().try_clone_to_owned())
            }
            Way::Thread { .. } => None,
        }
    }
}

fn serve(ring: &mut Ring, work: &Receiver<Job>) {
    while let Ok(job) = work.recv() {
        job(ring);
    }
    // Charges come back now; the end of the ring alone would return them some milliseconds later.
    let _ = ring.unregister_table();
}

impl Drop for Seat {
    fn drop(&mut self) {
        let here = self.process == std::process::id();
        match &mut self.way {
            Way::Thread { jobs, thread } => {
                let (jobs, thread) = (jobs.take(), thread.take());
                if !here {
                    // In a forked child there is no such thread, and the channel may be locked by one that is not there.
                    std::mem::forget((jobs, thread));
                    return;
                }
                drop(jobs);
                if let Some(thread) = thread {
                    let _ = thread.join();
                }
            }
            // Whoever else holds the ring, by a descriptor of its own, keeps what is pinned.
            Way::Lock(_) => (),
        }
    }
}
