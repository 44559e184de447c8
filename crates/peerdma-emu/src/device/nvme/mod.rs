//! An NVMe drive: queues in memory, doorbells in BAR 0, data moved by itself.
//!
//! A host enables the controller by registers ([`registers`]), puts commands of 64 bytes into
//! submission queues, and rings. The drive reads a command, finds its data by PRPs (`prp`)
//! or SGLs (`sgl`), moves it between there and the medium ([`Media`]), and puts a completion
//! into the queue that belongs to it. Queues, lists and data may lie anywhere that the drive
//! reaches: in RAM, in a peer's BAR, and in its own controller memory buffer (CMB), which it
//! finds without the bus once the host has told it the buffer's address (`CMBMSC`).
//!
//! One command is done in each step, so that other devices get their turn between two; at most 4 MiB
//! move in one. One namespace; NVMe 1.4, with the parts that its optional features
//! would add left out where Identify says so.
//!
//! Everything that comes from the host is judged: a command that makes no sense gets a
//! status, a doorbell that makes none an event (`events`), and a queue that cannot be read makes
//! the controller fatal (`CSTS.CFS`) until it is disabled.
//!
//! - [`Driver`]: the host's side.
//! - [`FileMedia`]: a medium that outlives the machine.

mod admin;
mod command;
mod data;
mod driver;
mod events;
mod identify;
mod io;
mod media;
mod prp;
mod queue;
mod reach;
pub mod registers;
mod sgl;
mod status;
#[cfg(test)]
mod tests;

pub use driver::{Completed, Driver, DriverError, Form, QueueMemory, Request};
pub(crate) use io::{COMPARE, READ};
pub use media::{BlockSize, FileMedia, Media};
pub use status::Status;

use super::{Bus, Device, How, Layout, Progress, RegisterWrite};
use crate::memory::Memory;
use crate::wire::Attributes;
use admin::{Answer, Features};
use command::{COMMAND, COMPLETION};
use events::Events;
use identify::Identity;
use io::{Done, Zeroing};
use peerdma::addr::{BusAddr, Bytes};
use queue::{Completion, Entry, Queues, Submission};
use reach::{Reach, Window};
use registers::{CSTS_FATAL, CSTS_READY, CSTS_SHUT, Face};
use std::sync::Arc;

/// Writes to registers that are looked at in one step.
const WRITES_A_STEP: usize = 64;

/// How the controller stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// `CC.EN` is clear.
    Disabled,
    /// At work.
    Ready,
    /// It was shut down, and does nothing until it is disabled.
    Shut,
    /// It cannot go on, and does nothing until it is disabled.
    Fatal,
}

/// A controller memory buffer.
#[derive(Clone, Debug)]
struct Cmb {
    bar: u8,
    memory: Arc<dyn Memory>,
}

/// An NVMe drive with its registers in BAR 0.
#[derive(Debug)]
pub struct Nvme {
    face: Face,
    state: State,
    media: Media,
    cmb: Option<Cmb>,
    /// Where the memory buffer is for the controller's own requests.
    cmb_base: Option<BusAddr>,
    identity: Identity,
    most_queues: u16,
    how: How,
    /// Memory page, as it was when the controller was enabled.
    page: Bytes,
    queues: Queues,
    /// A command that goes on, with its queue and its number; the others wait for it.
    zeroing: Option<(u16, u16, Zeroing)>,
    features: Features,
    events: Events,
}

impl Nvme {
    /// A drive with these blocks, 64 queues besides the admin queue, and no memory buffer.
    pub fn new(media: Media) -> Self {
        let drive = Self {
            face: Face::new(64),
            state: State::Disabled,
            media,
            cmb: None,
            cmb_base: None,
            identity: Identity { serial: "0".into(), vendor: 0 },
            most_queues: 64,
            how: How::default(),
            page: Bytes::new(4096),
            queues: Queues::default(),
            zeroing: None,
            features: Features::default(),
            events: Events::default(),
        };
        drive.face.reset(false);
        drive
    }

    /// With so many pairs of queues besides the admin queue, 1 to 1024.
    #[must_use]
    pub fn with_queues(mut self, queues: u16) -> Self {
        self.most_queues = queues.clamp(1, 1024);
        self.face = Face::new(self.most_queues);
        self.face.reset(self.cmb.is_some());
        self
    }

    /// With a controller memory buffer behind the BAR whose first register is `bar`, 2 to 5.
    ///
    /// A part of `memory` that is no whole page of 4 KiB is not shown to the host.
    #[must_use]
    pub fn with_cmb(mut self, bar: u8, memory: Arc<dyn Memory>) -> Self {
        self.cmb = Some(Cmb { bar, memory });
        self.face.reset(true);
        self
    }

    /// With another serial number, at most 20 characters of ASCII, and a PCI vendor ID.
    #[must_use]
    pub fn with_identity(mut self, serial: &str, vendor: u16) -> Self {
        self.identity = Identity { serial: serial.into(), vendor };
        self
    }

    /// With hints on its requests, data and completions alike.
    #[must_use]
    pub fn with_attributes(mut self, attributes: Attributes) -> Self {
        self.how.attributes = attributes;
        self
    }

    fn enter(&mut self, state: State) {
        // Ready stays until the host disables it; one that was never ready does not become so.
        let was_ready = matches!(self.state, State::Ready | State::Shut);
        self.state = state;
        self.face.set_status(match state {
            State::Disabled => 0,
            State::Ready => CSTS_READY,
            State::Shut => CSTS_READY | CSTS_SHUT,
            State::Fatal if was_ready => CSTS_READY | CSTS_FATAL,
            State::Fatal => CSTS_FATAL,
        });
    }

    /// Forgets queues and what the host set, as when `CC.EN` is cleared.
    fn disable(&mut self) {
        self.queues = Queues::default();
        self.zeroing = None;
        self.features = Features::default();
        self.events = Events::default();
        self.enter(State::Disabled);
    }

    /// Begins with the admin queues as the registers say.
    fn enable(&mut self) {
        let (page, queues) = (self.face.config().page(), self.face.admin_queues());
        let (Some(page), Some([(submission, entries), (completion, completions)])) = (page, queues) else {
            return self.enter(State::Fatal);
        };
        self.page = page;
        self.queues.submission.insert(0, Submission::new(submission, entries, 0));
        self.queues.completion.insert(0, Completion::new(completion, completions, Some(0)));
        let fits = Queues::fits(submission, entries, COMMAND) && Queues::fits(completion, completions, COMPLETION);
        self.enter(if fits { State::Ready } else { State::Fatal });
    }

    /// Hears of a write to a register.
    fn written(&mut self, write: RegisterWrite) {
        if write.bar != 0 {
            return;
        }
        let offset = write.offset.as_u64();
        if offset >= registers::DOORBELLS.as_u64() {
            return self.rung(offset, write.value, write.len);
        }
        if let Some(cmb) = &self.cmb {
            self.cmb_base = self.face.cmb(cmb.bar, cmb.memory.len());
        }
        let config = self.face.config();
        match (self.state, config.enabled()) {
            (State::Disabled, true) => self.enable(),
            (State::Ready | State::Shut | State::Fatal, false) => self.disable(),
            _ => {}
        }
        if self.state == State::Ready && config.shuts_down() {
            // Nothing is kept back, so a shutdown is over at once.
            self.enter(State::Shut);
        }
    }

    /// Hears a doorbell; a write of 8 bytes is two.
    fn rung(&mut self, offset: u64, value: u64, len: u8) {
        if self.state != State::Ready {
            return;
        }
        let halves: &[(u64, u32)] = match len {
            4 => &[(offset, value as u32)],
            8 => &[(offset, value as u32), (offset + 4, (value >> 32) as u32)],
            // Other widths are undefined (NVMe Base 2.0 §3.1); here nothing.
            _ => return,
        };
        for (offset, value) in halves {
            let Some((queue, completion)) = registers::doorbell_at(*offset) else { continue };
            if let Err(bad) = self.queues.ring(queue, completion, *value) {
                self.events.note(bad);
            }
        }
    }

    /// Tells of an event, if there is one to tell and room for it.
    fn tell_event(&mut self, reach: &mut Reach<'_>) -> bool {
        let room = self.queues.completion.get(&0).is_some_and(|queue| !queue.is_full());
        if !room {
            return false;
        }
        let Some((command, result)) = self.events.take() else { return false };
        self.complete(reach, 0, command, Ok(result));
        true
    }

    /// Puts a completion for a command of a submission queue.
    fn complete(&mut self, reach: &mut Reach<'_>, queue: u16, command: u16, outcome: Result<u32, Status>) {
        // A submission queue that its own command deleted is the admin queue's business, which stays.
        let Some(submission) = self.queues.submission.get(&queue) else { return };
        let Some(completion) = self.queues.completion.get_mut(&submission.completion) else { return };
        let entry = Entry {
            result: *outcome.as_ref().unwrap_or(&0),
            queue,
            head: submission.head(),
            command,
            status: outcome.err().unwrap_or(Status::SUCCESS),
        };
        let put = completion.put(reach, entry);
        let vector = completion.vector;
        match (put, vector) {
            (Err(_), _) => self.enter(State::Fatal),
            (Ok(()), Some(vector)) => reach.bus.interrupt(vector),
            (Ok(()), None) => {}
        }
    }

    /// Does a piece of the command that goes on, and completes it with the last.
    fn go_on(&mut self, reach: &mut Reach<'_>, (queue, command, mut zeroing): (u16, u16, Zeroing)) {
        match zeroing.advance(&self.media) {
            Ok(false) => self.zeroing = Some((queue, command, zeroing)),
            // Its queue had room for the completion when it was taken, and nothing else was completed there since.
            Ok(true) => self.complete(reach, queue, command, Ok(0)),
            Err(status) => self.complete(reach, queue, command, Err(status)),
        }
    }

    /// Takes one command and does it; whether there was one.
    fn serve(&mut self, reach: &mut Reach<'_>) -> bool {
        if let Some(current) = self.zeroing.take() {
            self.go_on(reach, current);
            return true;
        }
        let Some(number) = self.queues.next() else { return false };
        let Some(queue) = self.queues.submission.get_mut(&number) else { return false };
        let Ok(command) = queue.take(reach) else {
            self.enter(State::Fatal);
            return true;
        };
        let outcome = if number == 0 {
            self.admin(reach, &command)
        } else {
            match io::execute(reach, &self.media, &command, self.page) {
                Ok(Done::All) => Ok(Answer::Now(0)),
                Ok(Done::Begun(zeroing)) => {
                    self.zeroing = Some((number, command.id, zeroing));
                    Ok(Answer::Later)
                }
                Err(status) => Err(status),
            }
        };
        match outcome {
            Ok(Answer::Later) => {}
            Ok(Answer::Now(result)) => self.complete(reach, number, command.id, Ok(result)),
            Err(status) => self.complete(reach, number, command.id, Err(status)),
        }
        true
    }
}

impl Device for Nvme {
    fn layout(&self) -> Layout {
        let layout = Layout::new().registers(0, Bytes::ZERO, &self.face.0);
        match &self.cmb {
            Some(cmb) => layout.memory(cmb.bar, Bytes::ZERO, cmb.memory.clone()),
            None => layout,
        }
    }

    fn step(&mut self, bus: &mut dyn Bus) -> Progress {
        let mut heard = false;
        for _ in 0..WRITES_A_STEP {
            let Some(write) = bus.next_write() else { break };
            self.written(write);
            heard = true;
        }
        if self.state != State::Ready {
            return if heard { Progress::Working } else { Progress::Idle };
        }
        let window = self.cmb.as_ref().zip(self.cmb_base);
        let window = window.map(|(cmb, base)| Window { memory: cmb.memory.clone(), base });
        let mut reach = Reach { bus, how: self.how, window };
        let told = self.tell_event(&mut reach);
        let served = self.state == State::Ready && self.serve(&mut reach);
        if heard || told || served { Progress::Working } else { Progress::Idle }
    }

    fn reset(&mut self) {
        self.disable();
        self.cmb_base = None;
        self.face.reset(self.cmb.is_some());
    }
}
