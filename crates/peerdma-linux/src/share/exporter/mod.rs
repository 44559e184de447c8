//! The side that has the memory.

mod admit;
mod device;
mod happened;
mod mailbox;
mod seat;
mod serve;

use super::lend::Lend;
use super::listener::Listener;
use super::memory::{Memory, MemoryError};
use crate::bell::Bell;
pub(super) use admit::knock;
pub use device::WaitDeedError;
pub use happened::{Guest, Happened};
use peerdma::access::MemAttrs;
use peerdma::addr::Bytes;
use peerdma::buffer::life::{Answers, AttachmentId, Disturbance};
use peerdma::buffer::shared::{Buffer, Disturbed, Disturbing, Late, Wake, WhyNot};
use peerdma::buffer::terms::{Methods, Place, Stays};
use peerdma::buffer::wire::{Descriptors, Export, Text};
use peerdma::buffer::{Control, Enforcement};
use peerdma::chunk::{Chunk, Chunks};
use peerdma::dma::{Owner, Peers};
use rustix::event::epoll;
use seat::Seat;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What an exporter says of its buffer, besides the memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shared {
    /// The buffer's name, for people.
    pub name: String,
    /// The least enforcement that is accepted. With [`Enforcement::Kernel`] nobody attaches, as nothing in the kernel
    /// takes a memfd from who has mapped it.
    pub floor: Enforcement,
    /// What may happen to it.
    pub stays: Stays,
    /// Whether one importer at a time may have it in full.
    pub control: Control,
}

impl Shared {
    /// Memory that may be taken away, for importers that say when they have let go.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_string(),
            floor: Enforcement::Cooperative,
            stays: Stays::UNTIL_REVOKED,
            control: Control::Use,
        }
    }
}

/// Why a disturbance may not happen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The moment has passed, and somebody holds on.
    #[error(transparent)]
    Late(#[from] Late),
    /// The sockets fail, which importers cannot bring about.
    #[error("cannot speak with importers")]
    Io(#[from] io::Error),
}

/// Why bytes did not move.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MoveError {
    /// Something else was announced.
    #[error("the memory was taken away for {announced}; announce a move to move it")]
    NotAMove {
        /// What was announced.
        announced: Disturbance,
    },
    /// It is another buffer that was taken away, or not this one alone.
    #[error("what was taken away is not {name} alone; announce a move to this exporter's own buffer")]
    NotThis {
        /// This exporter's buffer.
        name: String,
    },
    /// There is no memory to move to.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Somebody who has attached stands against it.
    #[error(transparent)]
    Refused(#[from] WhyNot),
}

/// Memory, the path where it is found, and everybody in other processes who has attached.
///
/// What it shares is [`Memory`] of this process, or a [`Bar`](super::Bar) of a device.
///
/// Whatever the importers do, nothing here blocks longer than it is told to, and memory for their messages is bounded.
pub struct Exporter<M: Lend = Memory> {
    listener: Listener,
    memory: M,
    buffer: Buffer,
    export: Export,
    epoll: OwnedFd,
    bell: Arc<Bell>,
    seats: BTreeMap<u64, Seat>,
    next_key: u64,
    happened: VecDeque<Happened>,
    /// What importers are told of how long somebody waits for them.
    waits_until: Option<Instant>,
}

/// A signal may come to another thread, or between asking and waiting, and then wakes nobody; importers of this process
/// may let go only when they are asked.
const ASKED_WITHIN: Duration = Duration::from_millis(50);

impl Exporter {
    /// Shares `memory` at the listener's path. Nobody attaches before [`serve`](Self::serve) is called.
    ///
    /// # Errors
    /// Descriptors that the kernel does not give.
    pub fn new(listener: Listener, memory: Memory, shared: Shared) -> io::Result<Self> {
        let export = Export {
            name: Text::new(&shared.name),
            prot: memory.prot(),
            stays: shared.stays,
            methods: Methods::CPU | Methods::DMA,
            floor: shared.floor,
            strongest: Enforcement::Cooperative,
            control: shared.control,
        };
        let offer = export.offer(ranges(&memory)?, Place::Ram).map_err(io::Error::other)?;
        let buffer = Buffer::new(&shared.name, offer, Answers::YES);
        Self::over(listener, memory, buffer, export)
    }

    /// The memory, for the exporter's own use.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Moves the bytes to other memory, which importers get when they are told that they may map.
    ///
    /// # Errors
    /// [`MoveError`]; nothing has changed, the memory is where it was, and the disturbance over.
    pub fn move_memory(&mut self, quiet: Disturbed) -> Result<(), MoveError> {
        if quiet.what() != Disturbance::Move {
            return Err(MoveError::NotAMove { announced: quiet.what() });
        }
        if !quiet.is_of(&self.buffer) {
            return Err(MoveError::NotThis { name: self.buffer.name().to_string() });
        }
        let memory = self.memory.copied()?;
        let to =
            ranges(&memory).map_err(|source| MemoryError::Kernel { size: memory.len(), doing: "chunk", source })?;
        // What stands against it is known here at the latest, and what is told follows from what was recorded.
        quiet.moved(to, Place::Ram, &Peers::none()).map_err(|not| not.why)?;
        self.memory = memory;
        // Their notices that they may map wait in mailboxes, which this thread empties later.
        for seat in self.seats.values_mut().filter(|seat| seat.session.is_attached()) {
            let said = seat.session.moved(Place::Ram, Descriptors::Memory);
            assert_eq!(said, Ok(()), "an attached importer with nothing mapped can be told");
        }
        Ok(())
    }
}

impl<M: Lend> Exporter<M> {
    fn over(listener: Listener, memory: M, buffer: Buffer, export: Export) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let bell = Arc::new(Bell::new()?);
        let watch =
            |fd: BorrowedFd<'_>, key| epoll::add(&epoll, fd, epoll::EventData::new_u64(key), epoll::EventFlags::IN);
        watch(listener.as_fd(), serve::LISTENER)?;
        watch(bell.as_fd(), serve::BELL)?;
        Ok(Self {
            listener,
            memory,
            buffer,
            export,
            epoll,
            bell,
            seats: BTreeMap::new(),
            next_key: serve::FIRST_SEAT,
            happened: VecDeque::new(),
            waits_until: None,
        })
    }

    /// The buffer: importers of this process attach to it, and disturbances are announced to it.
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// Where it is found.
    pub fn listener(&self) -> &Listener {
        &self.listener
    }

    /// Everybody in other processes who has attached, those included that were cut off and linger.
    pub fn importers(&self) -> impl Iterator<Item = Guest> + '_ {
        self.seats.values().filter_map(|seat| {
            let held = seat.held.as_ref()?;
            Some(Guest {
                who: held.attachment.id(),
                name: seat.name.clone(),
                pid: seat.peer.pid,
                command: seat.peer.command.clone(),
                standing: seat.peer.standing(),
                speaker: seat.speaker,
                mappings: held.mapped.len() as u32,
                enforcement: held.enforcement,
                cut_off: seat.cut_off.clone(),
            })
        })
    }

    /// Serves importers until the disturbance may happen, or the moment has passed.
    ///
    /// What happens meanwhile is told by the calls of [`serve`](Self::serve) that follow.
    ///
    /// # Errors
    /// [`WaitError::Late`], with who holds on and what is outstanding: wait again, end whoever holds on, or drop the
    /// disturbance to give up. Nothing was freed.
    pub fn wait(&mut self, disturbing: Disturbing, until: Instant) -> Result<Disturbed, WaitError> {
        self.wait_asking(disturbing, until, None)
    }

    /// The same, but ends early when `stop` says so, which is asked ten times in a second at least.
    ///
    /// # Errors
    /// As [`wait`](Self::wait); [`WaitError::Late`] also if it was stopped.
    pub fn wait_unless(
        &mut self,
        disturbing: Disturbing,
        until: Instant,
        mut stop: impl FnMut() -> bool,
    ) -> Result<Disturbed, WaitError> {
        self.wait_asking(disturbing, until, Some(&mut stop))
    }

    fn wait_asking(
        &mut self,
        mut disturbing: Disturbing,
        until: Instant,
        mut stop: Option<&mut dyn FnMut() -> bool>,
    ) -> Result<Disturbed, WaitError> {
        self.waits_until = Some(until);
        // Importers of this process let go, or give the reservation up, on threads of their own.
        let wake: Arc<dyn Wake> = self.bell.clone();
        disturbing.wake(&wake);
        let waited = loop {
            disturbing = match disturbing.try_proceed() {
                Ok(quiet) => break Ok(quiet),
                Err(disturbing) => disturbing,
            };
            if Instant::now() >= until || stop.as_mut().is_some_and(|stop| stop()) {
                let held = disturbing.held();
                // The last one may let go between the two questions.
                if !held.is_empty() {
                    break Err(WaitError::Late(Late { disturbing, held }));
                }
                continue;
            }
            let next = if stop.is_some() { until.min(Instant::now() + ASKED_WITHIN) } else { until };
            if let Err(error) = self.turn(next) {
                break Err(error.into());
            }
        };
        self.waits_until = None;
        waited
    }

    /// Takes the author's word that an importer which was cut off has let go, because it ended it or knows it well.
    ///
    /// False if there is no such importer, or it was not cut off.
    pub fn vouch_for(&mut self, who: AttachmentId) -> bool {
        let key = self.seats.iter().find_map(|(key, seat)| {
            let held = seat.held.as_ref()?;
            (held.attachment.id() == who && seat.cut_off.is_some()).then_some(*key)
        });
        key.is_some_and(|key| self.release(key).is_some())
    }

    /// Forgets an importer and everything that it held.
    fn release(&mut self, key: u64) -> Option<AttachmentId> {
        let seat = self.seats.remove(&key)?;
        seat.held.as_ref().map(|held| held.attachment.id())
    }

    fn note(&mut self, happened: Happened) {
        /// Kept for an author who does not ask; older ones are forgotten first.
        const KEPT: usize = 1024;
        if self.happened.len() == KEPT {
            self.happened.pop_front();
        }
        self.happened.push_back(happened);
    }
}

impl<M: Lend> AsFd for Exporter<M> {
    /// Readable when [`serve`](Exporter::serve) has something to do.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl<M: Lend> std::fmt::Debug for Exporter<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} at {} with {} importers", self.buffer, self.listener.path().display(), self.seats.len())
    }
}

fn ranges(memory: &Memory) -> io::Result<Chunks<Owner>> {
    let chunk = Chunk::new(Owner::Memfd(memory.id()), Bytes::ZERO, memory.len(), MemAttrs::empty());
    let chunk = chunk.ok_or_else(|| io::Error::other("memory without bytes"))?;
    Chunks::collect_from([chunk]).map_err(io::Error::other)
}
