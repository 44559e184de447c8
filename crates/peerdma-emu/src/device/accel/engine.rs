//! The device: contexts that are served in turn, none of which waits for another's pages.

use super::access::{self, Stop, way};
use super::command::{Status, decode};
use super::context::{Context, Outcome, Work};
use crate::device::bus::{Bus, PageResponse};
use crate::device::channel::{COMPLETION, Channels, Command, Completion, Event, failure_code};
use crate::device::{Device, Layout, Progress};
use crate::wire::Failure;
use peerdma::addr::{BusAddr, Bytes};

/// How often a page is asked for in a row: one that goes again each time before it is used is not
/// waited for without end.
const MOST_TRIES: u8 = 16;

/// An accelerator.
#[derive(Debug)]
pub struct Accel {
    channels: Channels,
    contexts: Vec<Context>,
    /// The context that is served next.
    turn: usize,
}

impl Accel {
    /// An accelerator with so many contexts, 1 to [`MOST_CHANNELS`](crate::device::channel::MOST_CHANNELS).
    pub fn new(contexts: u16) -> Self {
        let channels = Channels::new(contexts);
        let contexts = vec![Context::default(); usize::from(channels.count())];
        Self { channels, contexts, turn: 0 }
    }

    /// Does a piece of a context's work; `false` if there is none.
    fn advance(&mut self, bus: &mut dyn Bus, number: u16) -> Result<bool, Stop> {
        let how = self.channels.how(number);
        let context = &mut self.contexts[usize::from(number)];
        if let Some(result) = context.result {
            let Some(slot) = self.channels.completion_slot(number) else {
                context.result = None;
                return Ok(true);
            };
            // Slots are aligned, so that one translation is for all of it.
            let (how, slot, _) = way(bus, how, slot, COMPLETION, true)?;
            context.result = None;
            self.channels.complete_at(bus, number, result, how, slot);
            return Ok(true);
        }
        let Some(work) = &mut context.work else {
            let Some(slot) = self.channels.next_command(number) else { return Ok(false) };
            let mut command = Command::ZERO;
            access::read(bus, how, slot, &mut command.0)?;
            self.channels.take(number);
            let tag = command.double::<8>();
            match decode(&command) {
                Some(operation) => context.work = Some(Work::new(operation, tag)),
                None => {
                    let status = Status::Invalid.code();
                    context.result = Some(Completion { tag, status, ..Completion::default() });
                }
            }
            return Ok(true);
        };
        if let Outcome::Over(status) = work.advance(bus, how)? {
            context.end(status, 0);
        }
        Ok(true)
    }

    /// Serves a context; whether there was anything to do.
    fn serve(&mut self, bus: &mut dyn Bus, number: u16) -> bool {
        let index = usize::from(number);
        if self.contexts[index].waiting {
            return false;
        }
        match self.advance(bus, number) {
            Ok(worked) => {
                if worked {
                    self.contexts[index].tries = 0;
                }
                worked
            }
            Err(Stop::Failed(failure)) => {
                self.stop(number, Status::Request, Some(failure));
                true
            }
            Err(Stop::NoPage { at, write }) => self.ask(bus, number, at, write),
        }
    }

    /// Asks for a page; `false` if that has to wait until another context has got its own.
    fn ask(&mut self, bus: &mut dyn Bus, number: u16, at: BusAddr, write: bool) -> bool {
        let others = self.contexts.iter().any(|context| context.waiting);
        let how = self.channels.how(number);
        let context = &mut self.contexts[usize::from(number)];
        let done = context.work.map_or(0, |work| work.done);
        if done != context.mark {
            (context.tries, context.mark) = (0, done);
        }
        if context.tries >= MOST_TRIES {
            self.stop(number, Status::NoPage, None);
            return true;
        }
        // A request is for a page, so its address is that of one.
        let page = BusAddr::new(at.as_u64() & !0xfff);
        match bus.request_page(how, page, write, context.group(number)) {
            Ok(()) => {
                context.waiting = true;
                context.tries += 1;
                true
            }
            // As many requests are on the way as there may be.
            Err(Failure::NotSent) if others => false,
            Err(Failure::NotSent) => {
                self.stop(number, Status::Fault, None);
                true
            }
            Err(failure) => {
                self.stop(number, Status::Request, Some(failure));
                true
            }
        }
    }

    /// Takes the answer to a page request.
    fn answered(&mut self, group: u16, response: PageResponse) {
        let number = group & 0x1f;
        let Some(context) = self.contexts.get_mut(usize::from(number)) else { return };
        if !context.waiting || context.group(number) != group {
            return;
        }
        context.waiting = false;
        match response {
            PageResponse::Success => {}
            PageResponse::Invalid => self.stop(number, Status::Fault, None),
            PageResponse::Failure => self.stop(number, Status::NoPage, None),
        }
    }

    /// Ends what a context does with an error. One that cannot reach its own rings is broken.
    fn stop(&mut self, number: u16, status: Status, failure: Option<Failure>) {
        let context = &mut self.contexts[usize::from(number)];
        context.tries = 0;
        if context.work.is_some() {
            context.end(status.code(), failure_code(failure));
        } else {
            *context = context.renewed();
            self.channels.break_off(number);
        }
    }
}

impl Device for Accel {
    fn layout(&self) -> Layout {
        Layout::new().registers(0, Bytes::ZERO, self.channels.registers())
    }

    fn step(&mut self, bus: &mut dyn Bus) -> Progress {
        let mut heard = false;
        // One register after another; somebody who writes all the time gets no more than this.
        for _ in 0..64 {
            match self.channels.hear(bus) {
                Some(Event::Renewed(number)) => {
                    let context = &mut self.contexts[usize::from(number)];
                    *context = context.renewed();
                }
                Some(Event::Other) => {}
                None => break,
            }
            heard = true;
        }
        while let Some((group, response)) = bus.next_page_response() {
            self.answered(group, response);
            heard = true;
        }
        let count = self.contexts.len();
        for _ in 0..count {
            let number = self.turn;
            self.turn = (self.turn + 1) % count;
            if self.serve(bus, number as u16) {
                return Progress::Working;
            }
        }
        if heard { Progress::Working } else { Progress::Idle }
    }

    fn reset(&mut self) {
        self.channels.reset();
        for context in &mut self.contexts {
            *context = context.renewed();
        }
        self.turn = 0;
    }
}
