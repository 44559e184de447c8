//! The side that maps.

use super::exporter::knock;
use super::memory;
use super::packet;
use crate::memory::BeyondPages;
use crate::sys::map::{Mapping, Outside, ReadOnly};
use peerdma::access::Prot;
use peerdma::addr::Bytes;
use peerdma::buffer::life::{Generation, NoticeId, Phase};
use peerdma::buffer::terms::{Methods, Place};
use peerdma::buffer::wire::{
    Declare, Descriptors, Ending, Heard, ImporterSession, Offer, OutOfTurn, RequestId, Terms, Violation,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// Why an attachment is over. What was mapped stays mapped and readable; nobody tells anything about it any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Ended {
    /// The exporter closed its end: it ended, or was killed.
    #[error("the exporter is gone without a word; what is mapped stays readable, and may be stale")]
    HungUp,
    /// The exporter said goodbye.
    #[error("the exporter ended the attachment ({ending})")]
    Goodbye {
        /// Why.
        ending: Ending,
    },
    /// The exporter broke the rules of the protocol.
    #[error("the exporter {0}")]
    Violation(#[from] Violation),
    /// The exporter does not take what it is told in time.
    #[error("the exporter takes no messages; it is stopped, or does not serve")]
    Busy,
    /// What is to be said cannot be said now.
    #[error(transparent)]
    OutOfTurn(#[from] OutOfTurn),
    /// The socket fails.
    #[error("cannot speak with the exporter")]
    Io(#[from] io::Error),
}

/// Why nobody was attached to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// Nobody listens there.
    #[error("nobody shares memory at {}", path.display())]
    Nobody {
        /// The path.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The exporter refuses.
    #[error("refused ({rule}): {why}")]
    Refused {
        /// The word of the rule.
        rule: String,
        /// Object, evidence and next step, in the exporter's words.
        why: String,
    },
    /// The moment has passed.
    #[error("no answer from the exporter in time; it is stopped, or does not serve")]
    Late,
    /// The memory that came cannot be mapped safely.
    #[error("the memory that came is not mapped: {why}")]
    Memory {
        /// Why not.
        why: String,
    },
    /// The attachment was over before it began.
    #[error(transparent)]
    Ended(#[from] Ended),
}

/// Why memory was not mapped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// The exporter does not grant it now.
    #[error("not mapped, as the buffer is {phase}: {why}")]
    Denied {
        /// Where the buffer is in its life.
        phase: Phase,
        /// Why, in the exporter's words.
        why: String,
    },
    /// Terms are for no mapping by a CPU.
    #[error("the terms are for {methods}; attach for the CPU to map it here")]
    NotForCpu {
        /// What they are for.
        methods: Methods,
    },
    /// The moment has passed; the request is withdrawn.
    #[error("no answer from the exporter in time; it is stopped, or does not serve")]
    Late,
    /// The kernel does not map it.
    #[error("cannot map the memory")]
    Kernel(#[source] io::Error),
    /// The attachment is over.
    #[error(transparent)]
    Ended(#[from] Ended),
}

/// Memory of an exporter, mapped into this process. Give it to [`Importer::unmap`] when nothing uses it any more.
///
/// Dropping it takes it down too, but the exporter is not told, and counts it until the attachment ends.
#[derive(Debug)]
#[must_use = "the exporter counts it until it is given to `unmap`"]
pub struct Mapped {
    view: View,
    generation: Generation,
}

#[derive(Debug)]
enum View {
    ReadWrite(Mapping),
    ReadOnly(ReadOnly),
}

/// Bytes were to be written that may only be read, or that are not there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The memory is for reading.
    #[error("the terms are for reading; attach for writing to write")]
    ReadOnly,
    /// It does not have them.
    #[error(transparent)]
    Beyond(#[from] BeyondPages),
}

impl Mapped {
    /// Its length.
    pub fn len(&self) -> Bytes {
        match &self.view {
            View::ReadWrite(mapping) => mapping.len(),
            View::ReadOnly(mapping) => mapping.len(),
        }
    }

    /// Always false; memory that is shared is one page at least.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// What it belongs to.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Copies bytes out.
    ///
    /// # Errors
    /// [`BeyondPages`], with nothing read.
    pub fn read(&self, offset: Bytes, into: &mut [u8]) -> Result<(), BeyondPages> {
        let beyond = self.beyond(offset, into.len());
        let at = usize::try_from(offset.as_u64()).map_err(|_| beyond)?;
        let read = match &self.view {
            View::ReadWrite(mapping) => mapping.read(at, into),
            View::ReadOnly(mapping) => mapping.read(at, into),
        };
        read.map_err(|Outside| beyond)
    }

    /// Copies bytes in.
    ///
    /// # Errors
    /// [`WriteError`], with nothing written.
    pub fn write(&self, offset: Bytes, from: &[u8]) -> Result<(), WriteError> {
        let beyond = self.beyond(offset, from.len());
        let at = usize::try_from(offset.as_u64()).map_err(|_| beyond)?;
        match &self.view {
            View::ReadWrite(mapping) => Ok(mapping.write(at, from).map_err(|Outside| beyond)?),
            View::ReadOnly(_) => Err(WriteError::ReadOnly),
        }
    }

    fn beyond(&self, offset: Bytes, len: usize) -> BeyondPages {
        BeyondPages { offset, len: Bytes::new(len as u64), size: self.len() }
    }
}

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
                    memory::check(memory.as_fd(), terms.size)
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

    /// The memory, for who maps it otherwise: for a device, or in a process that it is passed to.
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
        }
    }

    /// Maps the whole of the memory into this process.
    ///
    /// # Errors
    /// [`MapError::Denied`] while it is out of reach: map after the notice that it may be mapped.
    pub fn map(&mut self, until: Instant) -> Result<Mapped, MapError> {
        if !self.terms.methods.contains(Methods::CPU) {
            return Err(MapError::NotForCpu { methods: self.terms.methods });
        }
        let (generation, prot) = self.grant(until)?;
        let len = usize::try_from(self.terms.size.as_u64()).map_err(|_| Errno::NOMEM);
        let view = len.and_then(|len| match prot {
            Prot::Read => ReadOnly::of_file(self.memory.as_fd(), 0, len).map(View::ReadOnly),
            // Pages that can be written and not read are none of a CPU's.
            Prot::Write | Prot::ReadWrite => Mapping::of_file(self.memory.as_fd(), 0, len).map(View::ReadWrite),
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
                    if let Err(why) = memory::check(memory.as_fd(), self.terms.size) {
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
