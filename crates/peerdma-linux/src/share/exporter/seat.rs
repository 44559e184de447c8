//! One importer in another process, from its connection to its end.

use super::super::packet;
use super::super::process::Peer;
use super::mailbox::{Letter, Mailbox};
use peerdma::access::Prot;
use peerdma::buffer::Enforcement;
use peerdma::buffer::life::{AttachmentId, Notice, NoticeId};
use peerdma::buffer::shared::{Attachment, Mapped, Receipt};
use peerdma::buffer::terms::Place;
use peerdma::buffer::wire::{Descriptors, ExporterSession, Message, RequestId, Violation};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

/// What an importer holds of the buffer.
///
/// Fields are dropped in this order: no mapping, then no open notice, then no attachment.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) mapped: Vec<Mapped>,
    /// Receipts of notices that it was sent, or that wait to be, by number.
    pub(super) receipts: Vec<Receipt>,
    pub(super) attachment: Attachment,
    pub(super) enforcement: Enforcement,
    /// What was settled.
    pub(super) prot: Prot,
    /// What the descriptor that it was sent last is good for.
    pub(super) sent: Option<Prot>,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) last: NoticeId,
}

/// Both ends of a control channel, the exporter's first.
pub(super) type Channel = (OwnedFd, OwnedFd);

/// How sending went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Flow {
    /// Everything is on its way.
    Done,
    /// The other end has to read first.
    Blocked,
    /// The other end is closed.
    Closed,
    /// The memory's descriptor is due, and there is no memory any more.
    NoMemory,
}

/// One importer in another process.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) session: ExporterSession,
    /// The connection until terms were settled, the control channel afterwards; `None` once all is over. Of who
    /// was cut off nothing is read any more; it is kept to see when the last copy of the other end is closed.
    pub(super) socket: Option<OwnedFd>,
    /// The control channel, until the terms are on their way.
    pub(super) control: Option<Channel>,
    pub(super) peer: Peer,
    pub(super) name: String,
    /// The process that its last message came from, where it was not the one that connected.
    pub(super) speaker: Option<u32>,
    /// When terms have to be settled.
    pub(super) until: Instant,
    pub(super) held: Option<Held>,
    pub(super) cut_off: Option<Violation>,
    /// Whether the process that connected was seen to end, which is looked for once it was cut off.
    pub(super) process_ended: bool,
    /// Whether its socket is watched for room.
    pub(super) blocked: bool,
}

impl Seat {
    pub(super) fn new(socket: OwnedFd, peer: Peer, until: Instant) -> Self {
        Self {
            session: ExporterSession::new(),
            socket: Some(socket),
            control: None,
            peer,
            name: "importer".to_string(),
            speaker: None,
            until,
            held: None,
            cut_off: None,
            process_ended: false,
            blocked: false,
        }
    }

    /// What a descriptor for it is to be good for while no more than this is permitted; for reading at least, as
    /// there is none for nothing.
    pub(super) fn prot(&self, permitted: Prot) -> Prot {
        self.held.as_ref().and_then(|held| held.prot.within(permitted)).unwrap_or(Prot::Read)
    }

    /// Puts what waits in the mailbox into the session; `deadline_ms` is what importers are told of the wait.
    ///
    /// One that may do more by now than its descriptor is good for gets another, before it maps again.
    pub(super) fn collect(&mut self, deadline_ms: u32, permitted: Prot, place: Place) {
        let prot = self.prot(permitted);
        let Some(held) = &mut self.held else { return };
        let is_short = held.sent.is_some_and(|sent| prot.within(sent) != Some(prot));
        for letter in held.mailbox.take() {
            if is_short && matches!(letter.notice, Notice::MayMap { .. }) {
                // Nobody has anything mapped when memory comes back with other permissions.
                let _ = self.session.moved(place, Descriptors::Memory);
            }
            let id = letter.id(held.last);
            held.last = id;
            // A session that is over tells nobody; its receipts are held until nothing is left of it.
            let _ = self.session.tell(id, letter.notice, deadline_ms);
            let Letter { receipt, .. } = letter;
            held.receipts.extend(receipt);
        }
    }

    /// It has taken note of this notice, and of all before it.
    pub(super) fn noted(&mut self, id: NoticeId) {
        let Some(held) = &mut self.held else { return };
        let (noted, open) = std::mem::take(&mut held.receipts).into_iter().partition(|receipt| receipt.id() <= id);
        held.receipts = open;
        let noted: Vec<Receipt> = noted;
        noted.into_iter().for_each(Receipt::noted);
    }

    /// Answers a request to map.
    pub(super) fn map(&mut self, request: RequestId) {
        let Some(held) = &mut self.held else { return };
        let answered = match held.attachment.map() {
            Ok(mapped) => {
                let answered = self.session.grant(request, mapped.generation(), mapped.prot());
                held.mapped.push(mapped);
                answered
            }
            Err(why) => {
                let phase = held.attachment.phase();
                self.session.deny(request, phase, &why.to_string())
            }
        };
        assert_eq!(answered, Ok(()), "a request that the session let through awaits its answer");
    }

    /// It has taken so many mappings down.
    pub(super) fn unmapped(&mut self, count: u32) {
        let Some(held) = &mut self.held else { return };
        // The session let no more through than there are.
        let count = (count as usize).min(held.mapped.len());
        held.mapped.drain(..count);
    }

    /// Sends what the session has to say, as far as there is room. `memory` gives a descriptor for what comes along, which is
    /// good for `prot`.
    pub(super) fn flush(&mut self, prot: Prot, memory: impl Fn() -> std::io::Result<OwnedFd>) -> std::io::Result<Flow> {
        while let Some(message) = self.session.outgoing() {
            let Some(socket) = &self.socket else { return Ok(Flow::Closed) };
            let along = message.descriptors();
            let memory = match along {
                Descriptors::None => None,
                _ => match memory() {
                    Err(error) if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => {
                        return Ok(Flow::NoMemory);
                    }
                    memory => Some(memory?),
                },
            };
            let theirs = self.control.as_ref().map(|(_, theirs)| theirs.as_fd());
            let descriptors: Vec<BorrowedFd<'_>> = match along {
                Descriptors::None | Descriptors::Memory => memory.iter().map(AsFd::as_fd).collect(),
                Descriptors::MemoryAndControl => memory.iter().map(AsFd::as_fd).chain(theirs).collect(),
            };
            assert_eq!(descriptors.len(), along.count(), "what a message has comes with it");
            let settled = matches!(message, Message::Terms(_));
            match packet::send(socket.as_fd(), &message.encode(), &descriptors) {
                Ok(()) => {}
                Err(Errno::AGAIN) => return Ok(Flow::Blocked),
                Err(Errno::PIPE | Errno::CONNRESET | Errno::CONNREFUSED) => return Ok(Flow::Closed),
                Err(error) => return Err(error.into()),
            }
            self.session.sent();
            if let Some(held) = self.held.as_mut().filter(|_| along != Descriptors::None) {
                held.sent = Some(prot);
            }
            if settled {
                // The connection has done its work; closing our copy of their end lets their hang-up be seen.
                self.socket = self.control.take().map(|(ours, _)| ours);
            }
        }
        Ok(Flow::Done)
    }

    /// Whether it is in the way of disturbances although nobody listens to it any more: it was cut off with
    /// mappings, and nothing but its own word would have taken them down.
    pub(super) fn lingers(&self) -> bool {
        self.held.as_ref().is_some_and(|held| !held.mapped.is_empty() && held.enforcement != Enforcement::Kernel)
    }

    /// Its attachment.
    pub(super) fn who(&self) -> Option<AttachmentId> {
        self.held.as_ref().map(|held| held.attachment.id())
    }

    /// How many mappings it has.
    pub(super) fn mappings(&self) -> u32 {
        // A session bounds them far below that.
        self.held.as_ref().map_or(0, |held| held.mapped.len() as u32)
    }
}
