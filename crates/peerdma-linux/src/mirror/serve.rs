//! Hearing messages and bringing pages.

use super::error::ServeError;
use super::{Mirror, Shared};
use crate::sys::process_memory;
use crate::uffd::{Message, Uffd};
use peerdma::access::{Access, Prot};
use peerdma::mirror::{Answer, Brought, DeviceTable, Fault, Finished, Parked, RangeId, Ticket, Token, Wanted};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// Messages that are heard while the gate is closed, before contexts go on.
const AT_ONCE: usize = 64;

/// How long a context may take to leave before a message is read.
const LEAVING: Duration = Duration::from_secs(30);

/// The bit that tells requests of the device's own queue from those of contexts.
const OF_DEVICE: u64 = 1 << 63;

/// What one call of [`Mirror::serve`] came to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Served {
    /// Messages that were heard, in their order.
    pub heard: Vec<Message>,
    /// Page requests of contexts that were taken.
    pub requests: usize,
    /// Pinned ranges of which a part has ended: the pins hold other pages than the process has there now.
    pub diverged: Vec<RangeId>,
}

impl Served {
    fn is_nothing(&self) -> bool {
        self.heard.is_empty() && self.requests == 0
    }
}

impl<T: DeviceTable + Send> Mirror<T> {
    /// Hears messages and answers page requests that wait, or waits for some until `until`; what that came to.
    ///
    /// Others may use every other method meanwhile. Whoever changes watched memory waits in the kernel until somebody does this.
    ///
    /// # Errors
    /// [`ServeError::StillInUse`] if a context has not left within half a minute: call again, and see what keeps it.
    pub fn serve(&self, until: Instant) -> Result<Served, ServeError> {
        loop {
            self.shared.queue.awake();
            // Before the look: who rings after it is seen by the next.
            self.shared.bell.silence();
            let served = self.poll()?;
            let idle = self.shared.queue.fall_asleep();
            if !served.is_nothing() || Instant::now() >= until {
                // From here on the descriptor tells; what came meanwhile has rung no bell.
                if !idle {
                    self.shared.bell.ring();
                }
                return Ok(served);
            }
            if idle {
                let left = until.saturating_duration_since(Instant::now());
                readable(self.shared.ready.as_fd(), left)?;
            }
        }
    }

    /// The same without waiting, and without asking to be woken: for whoever looks all the time, also beside one who
    /// [serves](Self::serve).
    ///
    /// # Errors
    /// As [`serve`](Self::serve).
    pub fn poll(&self) -> Result<Served, ServeError> {
        // Whether somebody sleeps, and whether the bell has rung, is left as it is: it is not this one's to wake up.
        let mut served = Served::default();
        if let Some(uffd) = &self.shared.uffd
            && readable(uffd.as_fd(), Duration::ZERO)?
        {
            self.shared.hear(uffd, &mut served)?;
        }
        self.shared.reopen();
        served.requests = self.poll_requests();
        Ok(served)
    }

    /// Answers page requests of contexts that wait, and hears no messages; how many there were. Makes no system call where
    /// there are none.
    pub fn poll_requests(&self) -> usize {
        let mut asked = [None; super::MOST_CONTEXTS as usize];
        let mut next = asked.iter_mut();
        let requests = self.shared.queue.serve(|token, wanted| {
            if let Some(place) = next.next() {
                *place = Some((token, wanted));
            }
        });
        asked.into_iter().flatten().for_each(|(token, wanted)| self.shared.answer(token, wanted));
        requests
    }

    /// A page request of the device's own, as one that its IOMMU has queued. [`DeviceTable::answer`] is told the answer, with
    /// this token (below 2^63): now mostly, or when what happens there just now is over.
    ///
    /// Not to be called from inside a context, whom an invalidation may wait for.
    pub fn request(&self, token: Token, wanted: Wanted) {
        self.shared.answer(Token(token.0 | OF_DEVICE), wanted);
    }
}

impl<T: DeviceTable> Shared<T> {
    /// Stops the device, reads what is to be read, and has the table forget.
    fn hear(&self, uffd: &Uffd, served: &mut Served) -> Result<(), ServeError> {
        let quiet = self.quiet(Instant::now() + LEAVING)?;
        // What the device has sent arrives before anybody is let go on.
        self.inner().table.quiesce();
        let mut parked: Vec<Parked> = Vec::new();
        let mut outcome = Ok(());
        while served.heard.len() < AT_ONCE {
            let heard = match uffd.next() {
                Ok(Some(heard)) => heard,
                Ok(None) => break,
                Err(error) => {
                    outcome = Err(error.into());
                    break;
                }
            };
            // Whoever caused it goes on from here; the gate is what keeps the device from what it does next.
            served.heard.push(heard.message);
            if let Some(event) = heard.message.event() {
                let mut inner = self.inner();
                inner.foreign.values_mut().for_each(|foreign| foreign.kept.heard(&event));
                let invalidation = inner.begin(&event);
                served.diverged.extend(&invalidation.diverged);
                parked.extend(inner.end(invalidation));
            }
        }
        drop(quiet);
        self.answer_all(parked);
        outcome
    }

    pub(super) fn answer_all(&self, parked: Vec<Parked>) {
        parked.into_iter().for_each(|parked| self.answer(parked.token, parked.wanted));
    }

    /// Brings a page and answers whoever asked, or leaves that to the end of an invalidation.
    pub(super) fn answer(&self, token: Token, mut wanted: Wanted) {
        loop {
            let mut inner = self.inner();
            let ticket = match inner.state.fault(wanted, token) {
                Fault::Bring(ticket) => ticket,
                Fault::Parked => return,
                Fault::Answer(answer) => return self.respond(&mut inner.table, token, answer),
            };
            drop(inner);
            let brought = touch(&ticket);
            let mut inner = self.inner();
            let answer = match inner.state.finish(ticket, brought) {
                Finished::Map { page, prot } => match inner.table.map(page, prot) {
                    true => Answer::Success,
                    false => {
                        inner.state.not_mapped(page);
                        Answer::Failure
                    }
                },
                Finished::Answer(answer) => answer,
                // Each time something else has happened to the range, so that this ends.
                Finished::Again(again) => {
                    wanted = again;
                    continue;
                }
            };
            return self.respond(&mut inner.table, token, answer);
        }
    }

    fn respond(&self, table: &mut T, token: Token, answer: Answer) {
        match token.0 & OF_DEVICE {
            // A context that has gone waits for no answer.
            0 => drop(self.queue.respond(token, answer)),
            _ => table.answer(Token(token.0 & !OF_DEVICE), answer),
        }
    }
}

/// Touches a page as the CPU would, without changing it.
fn touch(ticket: &Ticket) -> Brought {
    loop {
        return match process_memory::populate(ticket.page(), ticket.access() == Access::Write) {
            Ok(()) => Brought::Page(match ticket.access() {
                Access::Read => Prot::Read,
                Access::Write => Prot::ReadWrite,
            }),
            Err(Errno::INTR | Errno::AGAIN) => continue,
            // Not mapped (which the kernel calls ENOMEM), or not for this, or a file has no such page.
            Err(Errno::NOMEM | Errno::FAULT | Errno::INVAL) => Brought::Denied,
            Err(_) => Brought::Failed,
        };
    }
}

/// Waits for a descriptor; whether there is something to read.
fn readable(fd: BorrowedFd<'_>, longest: Duration) -> io::Result<bool> {
    let timeout = Timespec::try_from(longest).map_err(io::Error::other)?;
    match poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&timeout)) {
        Ok(count) => Ok(count > 0),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
