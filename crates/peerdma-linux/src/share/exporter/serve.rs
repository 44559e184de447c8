//! Everything that an exporter does: one turn of waiting, hearing and answering.

use super::super::lend::Lend;
use super::super::packet::{self, Packet};
use super::admit;
use super::seat::{Flow, Seat};
use super::{Exporter, Happened};
use peerdma::access::Prot;
use peerdma::buffer::wire::{Said, Violation};
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// Keys of what is watched: the listener, the bell, then two for each seat: its socket and its process.
pub(super) const LISTENER: u64 = 0;
pub(super) const BELL: u64 = 1;
pub(super) const FIRST_SEAT: u64 = 1;

/// Messages that are taken from one importer before the others have their turn.
const BURST: usize = 16;

const fn socket_key(seat: u64) -> u64 {
    2 * seat
}

const fn process_key(seat: u64) -> u64 {
    2 * seat + 1
}

impl<M: Lend> Exporter<M> {
    /// Serves importers until something has happened that the author may want to know, or the moment has passed.
    ///
    /// Whatever is to be done is done in any case, at least once. `None` at the end of the time.
    ///
    /// # Errors
    /// What the kernel answers where no importer can be the cause: no more descriptors or memory.
    pub fn serve(&mut self, until: Instant) -> io::Result<Option<Happened>> {
        loop {
            if let Some(happened) = self.happened.pop_front() {
                return Ok(Some(happened));
            }
            let over = Instant::now() >= until;
            self.turn(until)?;
            if over {
                return Ok(self.happened.pop_front());
            }
        }
    }

    /// Sends what is to be sent, waits for something to come, and takes it.
    pub(super) fn turn(&mut self, until: Instant) -> io::Result<()> {
        self.send_all()?;
        // What happened on the way has been waited for.
        let until = if self.happened.is_empty() || self.waits_until.is_some() { until } else { Instant::now() };
        let mut came = Vec::with_capacity(32);
        let due = self.seats.values().filter(|seat| seat.held.is_none()).map(|seat| seat.until).min();
        let wait = due.map_or(until, |due| due.min(until)).saturating_duration_since(Instant::now());
        // A timeout that is rounded down to nothing would spin through the last part of it.
        let wait = Timespec::try_from(wait).map_err(io::Error::other)?;
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut came), Some(&wait)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in came {
            let (key, flags) = (event.data.u64(), event.flags);
            match key {
                LISTENER => self.accept()?,
                BELL => self.bell.silence(),
                key if key.is_multiple_of(2) && self.is_cut_off(key / 2) => {
                    if flags.contains(epoll::EventFlags::HUP) {
                        self.closed(key / 2);
                    }
                }
                key if key.is_multiple_of(2) => self.hear(key / 2)?,
                key => self.ended(key / 2),
            }
        }
        self.send_away_the_late();
        self.send_all()
    }

    fn send_away_the_late(&mut self) {
        let now = Instant::now();
        let late = self.seats.iter().filter(|(_, seat)| seat.held.is_none() && seat.until <= now);
        let late: Vec<u64> = late.map(|(key, _)| *key).collect();
        for key in late {
            self.cut_off(key, Violation::Late { due: "its declaration" });
        }
    }

    /// Takes messages of one importer.
    fn hear(&mut self, key: u64) -> io::Result<()> {
        for _ in 0..BURST {
            let seat = self.seats.get(&key).filter(|seat| seat.cut_off.is_none());
            let Some(socket) = seat.and_then(|seat| seat.socket.as_ref()) else { return Ok(()) };
            match packet::receive(socket.as_fd()) {
                Ok(Some(packet)) => self.take(key, &packet)?,
                Ok(None) => {
                    self.hung_up(key);
                    return Ok(());
                }
                Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn take(&mut self, key: u64, packet: &Packet) -> io::Result<()> {
        let Some(seat) = self.seats.get_mut(&key) else { return Ok(()) };
        let (who, speaker) = (seat.who(), admit::speaker(packet, seat));
        let passed_on = who.zip(speaker.filter(|_| speaker != seat.speaker));
        seat.speaker = speaker;
        let said = seat.session.receive(&packet.bytes, packet.sent);
        if let Some((who, pid)) = passed_on {
            self.note(Happened::PassedOn { who, pid });
        }
        match said {
            Ok(Said::Greeted) => self.offer_to(key),
            Ok(Said::NoCommonVersion { lowest, highest }) => {
                let Some(seat) = self.seats.get(&key) else { return Ok(()) };
                let (peer, rule) = (seat.peer.to_string(), "version".to_string());
                self.note(Happened::Refused { peer, rule, why: format!("it speaks versions {lowest} to {highest}") });
            }
            Ok(Said::Declared(declare)) => self.settle_with(key, &declare)?,
            Ok(said) => self.follow(key, said),
            Err(violation) => self.cut_off(key, violation),
        }
        Ok(())
    }

    /// What an importer said once it was attached.
    fn follow(&mut self, key: u64, said: Said) {
        let Some(seat) = self.seats.get_mut(&key) else { return };
        let (Some(who), before) = (seat.who(), seat.mappings()) else { return };
        match said {
            Said::Map(request) => {
                seat.map(request);
                let mappings = seat.mappings();
                if mappings > before {
                    self.note(Happened::Mapped { who, mappings });
                }
            }
            Said::Unmapped(count) => {
                seat.unmapped(count);
                let mappings = seat.mappings();
                self.note(Happened::Unmapped { who, mappings });
            }
            Said::Noted(notice) => {
                seat.noted(notice);
                self.note(Happened::Noted { who });
            }
            // It has nothing mapped, or says that it is the exporter that broke the rules; either way it goes of its own will.
            Said::Goodbye(_) => {
                self.release(key);
                self.note(Happened::Detached { who });
            }
            Said::Greeted | Said::NoCommonVersion { .. } | Said::Declared(_) => {}
        }
    }

    /// The other end of an importer's socket was closed.
    fn hung_up(&mut self, key: u64) {
        let Some(seat) = self.seats.get(&key) else { return };
        let (mappings, peer, over) = (seat.mappings(), seat.peer.to_string(), seat.session.is_over());
        let who = self.release(key);
        // Who was refused, or sent away, hangs up because of it.
        if !over {
            self.note(Happened::HungUp { who, peer, mappings });
        }
    }

    fn is_cut_off(&self, key: u64) -> bool {
        self.seats.get(&key).is_some_and(|seat| seat.cut_off.is_some())
    }

    /// Ends the session of an importer that broke the rules.
    pub(super) fn cut_off(&mut self, key: u64, violation: Violation) {
        let memory = || Err(io::ErrorKind::Unsupported.into());
        let Some(seat) = self.seats.get_mut(&key) else { return };
        seat.session.cut(&violation);
        let (who, peer, mappings) = (seat.who(), seat.peer.to_string(), seat.mappings());
        let lingers = seat.lingers();
        if lingers {
            seat.cut_off = Some(violation.clone());
            if let Some(socket) = &seat.socket {
                // It cannot say anything more, and is told why as soon as it has room for it.
                let _ = shutdown(socket, Shutdown::Read);
                // What it has said already is dropped, with the descriptors in it, up to an empty packet, so that a peer which
                // waits for room finds out. Nothing new can come, so this ends.
                while let Ok(Some(_)) = packet::receive(socket.as_fd()) {}
                // Nothing of it but its end is waited for.
                let (data, flags) = (epoll::EventData::new_u64(socket_key(key)), epoll::EventFlags::OUT);
                let _ = epoll::modify(&self.epoll, socket, data, flags);
                seat.blocked = true;
            }
            self.watch_process(key);
        } else {
            // It is told why if it has room for it; nobody waits until it has.
            let _ = seat.flush(Prot::Read, memory);
            // Closing the socket takes it out of what is watched.
            (seat.socket, seat.control) = (None, None);
            self.release(key);
        }
        self.note(Happened::CutOff { who, peer, violation, mappings: if lingers { mappings } else { 0 } });
    }

    /// The last copy of the control descriptor of an importer that had been cut off was closed.
    fn closed(&mut self, key: u64) {
        if let Some(seat) = self.seats.get_mut(&key) {
            seat.socket = None;
        }
        self.forget_if_nothing_is_left(key);
    }

    /// The process of an importer that had been cut off has ended.
    fn ended(&mut self, key: u64) {
        let Some(seat) = self.seats.get_mut(&key) else { return };
        seat.process_ended = true;
        if let Some(process) = seat.peer.descriptor() {
            // It stays ended, and would wake us for ever.
            let _ = epoll::delete(&self.epoll, process);
        }
        self.forget_if_nothing_is_left(key);
    }

    /// One alone is no proof: a process that was forked, or was passed the control descriptor, has the mappings
    /// of one that has ended, and who is no longer believed may close its descriptor and map on.
    fn forget_if_nothing_is_left(&mut self, key: u64) {
        let gone = self.seats.get(&key).is_some_and(|seat| seat.process_ended && seat.socket.is_none());
        if gone && let Some(who) = self.release(key) {
            self.note(Happened::Ended { who });
        }
    }

    fn send_all(&mut self) -> io::Result<()> {
        let deadline_ms = self.waits_until.map_or(0, |until| {
            let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            u32::try_from(left.as_millis()).unwrap_or(u32::MAX)
        });
        let (permitted, place) = (self.buffer.permitted(), self.buffer.place());
        let keys: Vec<u64> = self.seats.keys().copied().collect();
        for key in keys {
            let Some(seat) = self.seats.get_mut(&key) else { continue };
            seat.collect(deadline_ms, permitted, place);
            let settled = seat.control.is_some();
            let (prot, memory) = (seat.prot(permitted), &self.memory);
            let flow = seat.flush(prot, || memory.lend(prot))?;
            let now_control = settled && seat.control.is_none();
            let over = seat.session.is_over() && seat.cut_off.is_none();
            if now_control && let Some(seat) = self.seats.get(&key) {
                self.watch_socket(key, seat)?;
            }
            match flow {
                Flow::Done if over => drop(self.release(key)),
                // There is nothing left that could be sent to it; hanging up tells it so.
                Flow::NoMemory => drop(self.release(key)),
                Flow::Done | Flow::Blocked => self.watch_for_room(key, flow == Flow::Blocked)?,
                // What it said before it closed comes first, and then its end.
                Flow::Closed => self.watch_for_room(key, false)?,
            }
        }
        Ok(())
    }

    pub(super) fn watch_socket(&self, key: u64, seat: &Seat) -> io::Result<()> {
        match &seat.socket {
            Some(socket) => Ok(self.watch(socket.as_fd(), socket_key(key))?),
            None => Ok(()),
        }
    }

    fn watch_process(&mut self, key: u64) {
        if let Some(process) = self.seats.get(&key).and_then(|seat| seat.peer.descriptor()) {
            // Without it the author has to vouch, as it has where there are no such descriptors.
            let _ = self.watch(process, process_key(key));
        }
    }

    fn watch(&self, fd: BorrowedFd<'_>, key: u64) -> Result<(), Errno> {
        epoll::add(&self.epoll, fd, epoll::EventData::new_u64(key), epoll::EventFlags::IN)
    }

    /// Watches a socket for room while something waits to be sent, and not otherwise, since there mostly is.
    fn watch_for_room(&mut self, key: u64, blocked: bool) -> io::Result<()> {
        let Some(seat) = self.seats.get_mut(&key) else { return Ok(()) };
        let Some(socket) = seat.socket.as_ref().filter(|_| seat.blocked != blocked) else { return Ok(()) };
        let room = if blocked { epoll::EventFlags::OUT } else { epoll::EventFlags::empty() };
        let words = if seat.cut_off.is_none() { epoll::EventFlags::IN } else { epoll::EventFlags::empty() };
        let flags = words | room;
        epoll::modify(&self.epoll, socket, epoll::EventData::new_u64(socket_key(key)), flags)?;
        seat.blocked = blocked;
        Ok(())
    }
}
