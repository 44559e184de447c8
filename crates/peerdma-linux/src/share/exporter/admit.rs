//! From a connection to an attachment, or to a refusal.

use super::super::lend::Lend;
use super::super::listener;
use super::super::packet;
use super::mailbox::Mailbox;
use super::seat::{Channel, Held, Seat};
use super::{Exporter, Happened};
use crate::share::process::Peer;
use peerdma::buffer::Control;
use peerdma::buffer::life::NoticeId;
use peerdma::buffer::shared::{AttachError, Holder, Process};
use peerdma::buffer::wire::{Declare, Export, Refusal, Terms, Violation};
use peerdma::dma::Peers;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, accept_with, socketpair, sockopt};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Importers that have not settled yet, at most. One more, and the oldest of them is sent away.
const UNSETTLED_MAX: usize = 16;

/// Importers in other processes at most.
const ATTACHED_MAX: usize = 256;

/// For how long an importer may take to settle.
const SETTLE_WITHIN: Duration = Duration::from_secs(10);

impl<M: Lend> Exporter<M> {
    /// Takes everybody who has connected.
    pub(super) fn accept(&mut self) -> io::Result<()> {
        loop {
            let socket = match accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) => socket,
                Err(Errno::AGAIN | Errno::CONNABORTED | Errno::INTR) => return Ok(()),
                // Out of descriptors: whoever waits in the backlog waits on until an importer has gone.
                Err(Errno::MFILE | Errno::NFILE) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let Ok(peer) = Peer::of(socket.as_fd()) else { continue };
            let unsettled = self.seats.iter().filter(|(_, seat)| seat.held.is_none()).map(|(key, _)| *key);
            let unsettled: Vec<u64> = unsettled.collect();
            if let Some(oldest) = unsettled.first().filter(|_| unsettled.len() >= UNSETTLED_MAX) {
                self.cut_off(*oldest, Violation::Late { due: "its declaration, before so many others came," });
            }
            let key = self.next_key;
            self.next_key += 1;
            let seat = Seat::new(socket, peer, Instant::now() + SETTLE_WITHIN);
            self.watch_socket(key, &seat)?;
            self.seats.insert(key, seat);
        }
    }

    /// Greeted: says what there is.
    pub(super) fn offer_to(&mut self, key: u64) {
        let offer = self.buffer.offer();
        let control = match (self.export.control, offer.held_in_full_by()) {
            (Control::Full, None) => Control::Full,
            _ => Control::Use,
        };
        // Who asks for more than is permitted now is refused; where nothing is left, by the rule of that.
        let prot = offer.prot().within(offer.permitted()).unwrap_or(offer.prot());
        let told = Export { prot, ..self.export.clone() }.told(self.memory.size(), offer.place(), control);
        if let Some(seat) = self.seats.get_mut(&key) {
            let said = seat.session.offer(told);
            assert_eq!(said, Ok(()), "who has just been greeted can be offered something");
        }
    }

    /// Declared: settles or refuses.
    pub(super) fn settle_with(&mut self, key: u64, declare: &Declare) -> io::Result<()> {
        let settled = self.settle(key, declare)?;
        let Some(seat) = self.seats.get_mut(&key) else { return Ok(()) };
        let peer = seat.peer.to_string();
        match settled {
            Ok((held, control)) => {
                let (who, terms) = (held.attachment.id(), held.attachment.terms());
                let told = Terms::of(terms, who, self.memory.size(), held.attachment.phase(), self.memory.lies());
                let terms = terms.to_string();
                let said = seat.session.settle(told);
                assert_eq!(said, Ok(()), "who has just declared can be settled with");
                (seat.held, seat.control) = (Some(held), Some(control));
                self.note(Happened::Attached { who, peer, terms });
            }
            Err(refusal) => {
                let (rule, why) = (refusal.rule.to_string(), refusal.why.to_string());
                let said = seat.session.refuse(refusal);
                assert_eq!(said, Ok(()), "who has just declared can be refused");
                self.note(Happened::Refused { peer, rule, why });
            }
        }
        Ok(())
    }

    fn settle(&mut self, key: u64, declare: &Declare) -> io::Result<Result<(Held, Channel), Refusal>> {
        let Some(seat) = self.seats.get_mut(&key) else { return Err(io::ErrorKind::NotFound.into()) };
        seat.name = declare.name.to_string();
        if declare.enforcement > self.export.strongest {
            let why = format!(
                "{} says that {} enforcement lets it go, and nothing in the kernel takes this memory for good from a process that has mapped it; declare {}",
                declare.name, declare.enforcement, self.export.strongest
            );
            return Ok(Err(Refusal::by("overstated", &why)));
        }
        if self.seats.values().filter(|seat| seat.held.is_some()).count() >= ATTACHED_MAX {
            let why = format!("{ATTACHED_MAX} importers are attached, and that is the most; wait until one has gone");
            return Ok(Err(Refusal::by("full_house", &why)));
        }
        let Some(seat) = self.seats.get(&key) else { return Err(io::ErrorKind::NotFound.into()) };
        let process = Process { pid: seat.peer.pid, command: seat.peer.command.clone() };
        let holder = Holder { name: seat.name.clone(), process: Some(process), tenant: None };
        let mailbox = Arc::new(Mailbox::new(self.bell.clone()));
        let attached = self.buffer.attach(&declare.declaration(), &Peers::none(), holder, mailbox.clone());
        let attachment = match attached {
            Ok(attachment) => attachment,
            Err(AttachError::Terms(refusal)) => return Ok(Err(Refusal::of(&refusal))),
            Err(refused) => return Ok(Err(Refusal::by("gone", &refused.to_string()))),
        };
        let (enforcement, prot) = (attachment.terms().enforcement(), attachment.terms().prot());
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        // The kernel then names the process that sent each message, also after the descriptor was passed on.
        sockopt::set_socket_passcred(&ours, true)?;
        let held = Held {
            mapped: Vec::new(),
            receipts: Vec::new(),
            attachment,
            enforcement,
            prot,
            sent: None,
            mailbox,
            last: NoticeId::default(),
        };
        Ok(Ok((held, (ours, theirs))))
    }
}

/// Where to knock, for importers.
pub(in crate::share) fn knock(path: &std::path::Path) -> Result<OwnedFd, Errno> {
    let socket = listener::seqpacket()?;
    rustix::net::connect(&socket, &listener::address(path)?)?;
    Ok(socket)
}

/// What a message that came means for the process that sent it.
pub(super) fn speaker(packet: &packet::Packet, seat: &Seat) -> Option<u32> {
    packet.sender.filter(|pid| *pid != 0 && *pid != seat.peer.pid)
}
