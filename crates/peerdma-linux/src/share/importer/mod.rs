//! The side that maps.

mod errors;
mod mapped;

use super::exporter::knock;
use super::memory;
use super::packet;
use crate::sys::map::{Mapping, ReadOnly};
pub use errors::{AttachError, Ended, MapError, WriteError};
pub use mapped::Mapped;
use mapped::View;
use peerdma::access::Prot;
use peerdma::buffer::life::{Generation, NoticeId};
use peerdma::buffer::terms::{Methods, Place};
use peerdma::buffer::wire::{Declare, Descriptors, Heard, ImporterSession, Offer, RequestId, Terms, Violation};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// An attachment to another process's memory. Dropping it ends it: its control descriptor is closed.
///
/// Notices come through [`next`](Self::next), and the descriptor becomes readable when there may be one. An importer
/// that does not look cannot be told, and is in the way of whatever its exporter is about to do.
#[derive(Debug)]
pub struct Importer {
    session: ImporterSession,
    control: OwnedFd,
    memory: OwnedFd,
    offer: Offer,
    terms: Terms,
    place: Place,
    heard: VecDeque<Heard>,
    /// Requests that nobody waits for any more; a mapping that is granted all the same is given back at once.
    withdrawn: Vec<RequestId>,
}

impl Importer {
    /// Attaches to whoever shares memory at this path.
    ///
    /// Blocks until `until` at most.
    ///
    /// # Errors
    /// [`AttachError::Refused`], with the rule and what to do about it; nothing was handed out then. The others say whom to
    /// look at.
    pub fn attach(path: &Path, declare: Declare, until: Instant) -> Result<Self, AttachError> {
        let connection = connect(path, until)?;
        let mut session = ImporterSession::new();
        let (mut offered, mut declare) = (None, Some(declare));
        loop {
            flush(&mut session, connection.as_fd(), until)?;
            let Some((heard, descriptors)) = hear(&mut session, connection.as_fd(), until)? else {
                return Err(AttachError::Late);
            };
            match heard {
                Heard::Offered(offer) => {
                    offered = Some(offer);
                    if let Some(declare) = declare.take() {
                        session.declare(declare).map_err(Ended::from)?;
                    }
                }
                Heard::Refused(refusal) => {
                    let (rule, why) = (refusal.rule.to_string(), refusal.why.to_string());
                    return Err(AttachError::Refused { rule, why });
                }
                Heard::Attached(terms) => {
                    // The session counted them, and let terms through only after an offer.
                    let (Ok([memory, control]), Some(offer)) = (<[OwnedFd; 2]>::try_from(descriptors), offered) else {
                        return Err(Ended::Violation(Violation::Late { due: "an offer with descriptors" }).into());
                    };
                    memory::check(memory.as_fd(), &terms)
                        .map_err(|why| AttachError::Memory { why: why.to_string() })?;
                    let (place, heard, withdrawn) = (terms.place, VecDeque::new(), Vec::new());
                    return Ok(Self { session, control, memory, offer, terms, place, heard, withdrawn });
                }
                Heard::Goodbye(ending) => return Err(Ended::Goodbye { ending }.into()),
                _ => {}
            }
        }
    }

    /// What was settled.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// What the exporter offered.
    pub fn offer(&self) -> &Offer {
        &self.offer
    }

    /// Where the memory lies now.
    pub fn place(&self) -> Place {
        self.place
    }

    /// Whether mapping has a chance: nothing was heard that forbids it.
    pub fn may_map(&self) -> bool {
        self.session.may_ask()
    }

    /// The memory, for who maps it otherwise: for a device, or in a process that it is passed to. It begins at
    /// [`Terms::start`].
    ///
    /// Ask with [`grant`](Self::grant) first, so that the exporter counts it.
    pub fn memory(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }

    /// Asks the exporter to count one more mapping, which may be made then, by whatever means.
    ///
    /// Notices that come meanwhile are kept for [`next`](Self::next): one to let go may be among them.
    ///
    /// # Errors
    /// [`MapError`]; there is nothing to take back then.
    pub fn grant(&mut self, until: Instant) -> Result<(Generation, Prot), MapError> {
        let asked = match self.session.ask() {
            Ok(asked) => asked,
            Err(why) => return Err(Ended::from(why).into()),
        };
        self.flush(until)?;
        loop {
            let Some(heard) = self.receive(until)? else {
                self.withdrawn.push(asked);
                return Err(MapError::Late);
            };
            match heard {
                Heard::Granted { request, generation, prot } if request == asked => return Ok((generation, prot)),
                Heard::Denied { request, phase, why } if request == asked => {
                    return Err(MapError::Denied { phase, why });
                }
                other => self.keep(other, until)?,
            }
            // Whoever talks all the time and does not answer is not listened to any longer than one that is silent.
            if Instant::now() >= until {
                self.withdrawn.push(asked);
                return Err(MapError::Late);
            }
        }
    }

    /// Maps the whole of the memory into this process.
    ///
    /// A BAR ([`Carrier::Device`](peerdma::buffer::wire::Carrier)) does not answer after a notice to let go, and an access then may end the process
    /// with SIGBUS: unmap when told, before anything else.
    ///
    /// # Errors
    /// [`MapError::Denied`] while it is out of reach: map after the notice that it may be mapped.
    pub fn map(&mut self, until: Instant) -> Result<Mapped, MapError> {
        if !self.terms.methods.contains(Methods::CPU) {
            return Err(MapError::NotForCpu { methods: self.terms.methods });
        }
        let (generation, prot) = self.grant(until)?;
        let (len, start) =
            (usize::try_from(self.terms.size.as_u64()).map_err(|_| Errno::NOMEM), self.terms.start.as_u64());
        let view = len.and_then(|len| match prot {
            Prot::Read => ReadOnly::of_file(self.memory.as_fd(), start, len).map(View::ReadOnly),
            // Pages that can be written and not read are none of a CPU's.
            Prot::Write | Prot::ReadWrite => Mapping::of_file(self.memory.as_fd(), start, len).map(View::ReadWrite),
        });
        match view {
            Ok(view) => Ok(Mapped { view, generation }),
            Err(error) => {
                self.gave_back(until)?;
                Err(MapError::Kernel(error.into()))
            }
        }
    }

    /// Takes a mapping down and tells the exporter.
    ///
    /// # Errors
    /// [`Ended`]; the mapping is taken down all the same.
    pub fn unmap(&mut self, mapped: Mapped) -> Result<(), Ended> {
        drop(mapped);
        self.gave_back(Instant::now() + Duration::from_secs(10))
    }

    /// Says that a mapping which [`grant`](Self::grant) allowed is gone, and that nothing uses it any more.
    ///
    /// # Errors
    /// [`Ended`].
    pub fn gave_back(&mut self, until: Instant) -> Result<(), Ended> {
        self.session.unmapped(1)?;
        self.flush(until)
    }

    /// Says that it has taken note of a notice: whatever it does from now on, it does knowing.
    ///
    /// # Errors
    /// [`Ended`].
    pub fn note(&mut self, notice: NoticeId) -> Result<(), Ended> {
        self.session.note(notice)?;
        self.flush(Instant::now() + Duration::from_secs(10))
    }

    /// What the exporter says next, waiting until `until` at most; `None` if nothing came.
    ///
    /// # Errors
    /// [`Ended`]: nothing more will come.
    pub fn next(&mut self, until: Instant) -> Result<Option<Heard>, Ended> {
        loop {
            if let Some(heard) = self.heard.pop_front() {
                return Ok(Some(heard));
            }
            match self.receive(until)? {
                Some(heard) => self.keep(heard, until)?,
                None => return Ok(None),
            }
            if self.heard.is_empty() && Instant::now() >= until {
                return Ok(None);
            }
        }
    }

    /// Goes, with nothing mapped.
    ///
    /// # Errors
    /// [`Ended::OutOfTurn`] while something is mapped: unmap first.
    pub fn detach(mut self, until: Instant) -> Result<(), Ended> {
        self.session.goodbye()?;
        self.flush(until)
    }

    fn keep(&mut self, heard: Heard, until: Instant) -> Result<(), Ended> {
        match heard {
            Heard::Granted { request, .. } => {
                self.withdrawn.retain(|withdrawn| *withdrawn != request);
                self.gave_back(until)?;
            }
            Heard::Denied { request, .. } => self.withdrawn.retain(|withdrawn| *withdrawn != request),
            other => self.heard.push_back(other),
        }
        Ok(())
    }

    fn receive(&mut self, until: Instant) -> Result<Option<Heard>, Ended> {
        let Some((heard, mut descriptors)) = hear(&mut self.session, self.control.as_fd(), until)? else {
            return Ok(None);
        };
        match &heard {
            Heard::Moved { place, descriptors: along } => {
                self.place = *place;
                if let Some(memory) = descriptors.pop().filter(|_| *along == Descriptors::Memory) {
                    if let Err(why) = memory::check(memory.as_fd(), &self.terms) {
                        let violation = Violation::Untrue { kind: "moved", what: why.to_string() };
                        self.session.cut(&violation);
                        let _ = self.flush(until);
                        return Err(violation.into());
                    }
                    self.memory = memory;
                }
            }
            Heard::Goodbye(ending) => return Err(Ended::Goodbye { ending: *ending }),
            _ => {}
        }
        Ok(Some(heard))
    }

    fn flush(&mut self, until: Instant) -> Result<(), Ended> {
        flush(&mut self.session, self.control.as_fd(), until)
    }
}

impl AsFd for Importer {
    /// The control descriptor. Passed to another process, it keeps the attachment alive until all copies are closed.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.control.as_fd()
    }
}

fn connect(path: &Path, until: Instant) -> Result<OwnedFd, AttachError> {
    loop {
        match knock(path) {
            Ok(socket) => return Ok(socket),
            // Its backlog is full.
            Err(Errno::AGAIN) if Instant::now() < until => thread::sleep(Duration::from_millis(5)),
            Err(Errno::AGAIN) => return Err(AttachError::Late),
            Err(error) => return Err(AttachError::Nobody { path: path.to_path_buf(), source: error.into() }),
        }
    }
}

/// Sends everything that is to be said.
fn flush(session: &mut ImporterSession, socket: BorrowedFd<'_>, until: Instant) -> Result<(), Ended> {
    while let Some(message) = session.outgoing() {
        match packet::send(socket, &message.encode(), &[]) {
            Ok(()) => session.sent(),
            Err(Errno::AGAIN) => {
                if !await_socket(socket, PollFlags::OUT, until)? {
                    return Err(Ended::Busy);
                }
            }
            // What it said last may tell why, and is read first.
            Err(Errno::PIPE | Errno::CONNRESET) => return Ok(()),
            Err(error) => return Err(Ended::Io(error.into())),
        }
    }
    Ok(())
}

/// Takes one message.
fn hear(
    session: &mut ImporterSession,
    socket: BorrowedFd<'_>,
    until: Instant,
) -> Result<Option<(Heard, Vec<OwnedFd>)>, Ended> {
    loop {
        match packet::receive(socket) {
            Ok(Some(packet)) => match session.receive(&packet.bytes, packet.sent) {
                Ok(heard) => return Ok(Some((heard, packet.descriptors))),
                Err(violation) => {
                    // It is told why, if it still listens.
                    let _ = flush(session, socket, Instant::now());
                    return Err(violation.into());
                }
            },
            Ok(None) => return Err(Ended::HungUp),
            Err(Errno::AGAIN) => {
                if !await_socket(socket, PollFlags::IN, until)? {
                    return Ok(None);
                }
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(Ended::Io(error.into())),
        }
    }
}

/// Whether the socket became ready in time.
fn await_socket(socket: BorrowedFd<'_>, what: PollFlags, until: Instant) -> Result<bool, Ended> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::from_borrowed_fd(socket, what)], Some(&timeout)) {
            Ok(0) if Instant::now() >= until => return Ok(false),
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(Ended::Io(io::Error::from(error))),
        }
    }
}
