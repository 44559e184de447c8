//! One queue pair: its rings, its state, and how it comes into error.

use super::fault::{Faults, Patience};
use super::network::{Body, Place, Port, Refusal};
use super::page;
use super::payload::Pool;
use super::region::Regions;
use super::register::CONSUMED;
use super::requester::Request;
use super::responder::{Incoming, Owed, Responding};
use super::work::{PairNumber, Status, decode_receive};
use crate::device::bus::{Agent, Bus, How};
use crate::device::channel::{Command, Completion, Ring, failure_code};
use crate::device::registers::Registers;
use crate::wire::Failure;
use peerdma::addr::Bytes;
use std::sync::Arc;

/// What a queue pair has of its adapter while it works.
pub(super) struct Context<'a> {
    pub(super) bus: &'a mut dyn Bus,
    pub(super) port: &'a Port,
    pub(super) pool: &'a Arc<Pool>,
    pub(super) regions: &'a Regions,
    pub(super) registers: &'a Registers,
    pub(super) faults: &'a mut Faults,
}

/// What a queue pair can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Not connected; what is posted waits.
    Fresh,
    /// Connected.
    Ready,
    /// In error; what is posted is flushed.
    Broken,
}

/// A ring whose entries are taken in order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Posted {
    pub(super) ring: Ring,
    /// Taken so far.
    pub(super) head: u32,
    /// Posted so far, as the doorbell said.
    pub(super) tail: u32,
}

impl Posted {
    fn new(ring: Ring) -> Self {
        Self { ring, head: 0, tail: 0 }
    }

    pub(super) fn is_empty(self) -> bool {
        self.head == self.tail
    }

    /// Gives the slot back that was taken last.
    pub(super) fn give_back(&mut self) {
        self.head = self.head.wrapping_sub(1);
    }

    /// Takes the next slot; `None` where the doorbell claims more than there are slots, and then
    /// nothing is posted any more.
    fn take(&mut self) -> Option<peerdma::addr::BusAddr> {
        if self.tail.wrapping_sub(self.head) > self.ring.slots() {
            self.head = self.tail;
            return None;
        }
        let slot = self.ring.slot(u64::from(self.head));
        self.head = self.head.wrapping_add(1);
        Some(slot)
    }
}

/// Which side of a queue pair a completion is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    Send = 0,
    Receive = 1,
    ReceiveImmediate = 2,
}

/// A queue pair.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) number: PairNumber,
    pub(super) domain: u32,
    pub(super) sends: Posted,
    pub(super) receives: Posted,
    pub(super) completions: Ring,
    pub(super) completed: u64,
    pub(super) vector: Option<u16>,
    pub(super) state: State,
    pub(super) peer: Option<Place>,
    /// The send that is on its way.
    pub(super) request: Option<Request>,
    /// The message that is coming in.
    pub(super) incoming: Option<Incoming>,
    /// The read that is answered.
    pub(super) responding: Option<Responding>,
    /// What the other side waits for.
    pub(super) owes: Option<Owed>,
    /// Pages that the send on its way waits for.
    pub(super) requesting: Patience,
    /// Pages that what is done for the other side waits for.
    pub(super) answering: Patience,
}

impl Pair {
    /// One that is not connected yet.
    pub(super) fn new(number: PairNumber, domain: u32, [sends, receives, completions]: [Ring; 3]) -> Self {
        Self {
            number,
            domain,
            sends: Posted::new(sends),
            receives: Posted::new(receives),
            completions,
            completed: 0,
            vector: None,
            state: State::Fresh,
            peer: None,
            request: None,
            incoming: None,
            responding: None,
            owes: None,
            requesting: Patience::default(),
            answering: Patience::default(),
        }
    }

    /// Does a piece of its work; whether there was any.
    pub(super) fn progress(&mut self, cx: &mut Context<'_>) -> bool {
        match self.state {
            State::Fresh => false,
            State::Ready => self.owe(cx) || self.respond(cx) || self.advance(cx),
            State::Broken => self.flush(cx),
        }
    }

    /// The adapter itself, if it can lend to the other side what it sends there.
    pub(super) fn lender(&self, cx: &Context<'_>) -> Option<Agent> {
        cx.port.lender_to(self.peer?.port)
    }

    /// Says something to the other side; `false` if nobody is there.
    pub(super) fn say(&self, cx: &Context<'_>, body: Body) -> bool {
        self.peer.is_some_and(|peer| cx.port.send(self.number, peer, body))
    }

    /// Takes the next slot of a ring out of memory. What cannot be read, or was not posted in a
    /// way that can be, breaks the queue pair.
    pub(super) fn next(&mut self, cx: &mut Context<'_>, side: Side) -> Option<Command> {
        let ring = if side == Side::Send { &mut self.sends } else { &mut self.receives };
        let read = ring.take().map(|slot| {
            let mut bytes = Command::ZERO;
            cx.bus.read(How::default(), slot, &mut bytes.0).map(|()| bytes)
        });
        let failure = match read {
            Some(Ok(bytes)) => return Some(bytes),
            Some(Err(failure)) => Some(failure),
            None => None,
        };
        if self.state == State::Ready {
            self.complete(cx, side, 0, Status::LocalOperation, 0, failure_code(failure));
            self.fail(cx);
        }
        None
    }

    /// Writes a completion. One that finds no room is lost, and breaks the queue pair.
    pub(super) fn complete(
        &mut self,
        cx: &mut Context<'_>,
        side: Side,
        id: u64,
        status: Status,
        bytes: u64,
        detail: u32,
    ) {
        let consumed = cx.registers.get(Bytes::new(page(self.number.index()).as_u64() + CONSUMED)) as u32;
        let room = (self.completed as u32).wrapping_sub(consumed) < self.completions.slots();
        let slot = self.completions.slot(self.completed);
        let status = status.code() | (side as u32) << 16;
        let completion = Completion { value: bytes, tag: id, status, detail };
        let posted = room.then(|| completion.post(cx.bus, How::default(), slot, self.completed + 1));
        match (posted, self.vector) {
            (Some(Ok(())), vector) => {
                self.completed += 1;
                if let Some(vector) = vector {
                    cx.bus.interrupt(vector);
                }
            }
            (None | Some(Err(_)), _) => self.fail(cx),
        }
    }

    /// Comes into error: whoever waits on the other side is told, and what was begun is flushed.
    pub(super) fn fail(&mut self, cx: &mut Context<'_>) {
        if self.state == State::Broken {
            return;
        }
        self.state = State::Broken;
        self.forsake(cx);
        if let Some(incoming) = self.incoming.take()
            && let Some(id) = incoming.receive
        {
            self.complete(cx, Side::Receive, id, Status::Flushed, 0, 0);
        }
        if let Some(request) = self.request.take() {
            self.complete(cx, Side::Send, request.work.id, Status::Flushed, 0, 0);
        }
    }

    /// Tells the other side, if it waits for this one, that it waits in vain.
    pub(super) fn forsake(&mut self, cx: &mut Context<'_>) {
        self.requesting.end(cx);
        self.answering.end(cx);
        let owed = self.owes.take().is_some();
        if self.responding.take().is_some() || self.incoming.is_some() || owed {
            self.say(cx, Body::Refuse(Refusal::Gone));
        }
    }

    /// Flushes one entry of one ring; whether there was any.
    fn flush(&mut self, cx: &mut Context<'_>) -> bool {
        let side = match (self.sends.is_empty(), self.receives.is_empty()) {
            (false, _) => Side::Send,
            (true, false) => Side::Receive,
            (true, true) => return false,
        };
        if let Some(slot) = self.next(cx, side) {
            let id = match side {
                Side::Send => slot.double::<8>(),
                _ => decode_receive(&slot).map_or(0, |(id, _)| id),
            };
            self.complete(cx, side, id, Status::Flushed, 0, 0);
        }
        true
    }
}

/// A completion's detail for a failed request.
pub(super) fn detail(failure: Failure) -> u32 {
    failure_code(Some(failure))
}
