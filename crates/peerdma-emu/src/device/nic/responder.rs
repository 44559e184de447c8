//! The side of a queue pair that answers requests.

use super::fault::Look;
use super::network::{Body, Refusal, Target};
use super::pair::{Context, Pair, Side, detail};
use super::payload::Payload;
use super::region::{Key, Missing, Rights};
use super::requester::plus;
use super::work::{Source, Status, decode_receive};
use crate::device::bus::{How, RelayError};
use crate::wire::{Atomic, Failure};
use peerdma::dma::consumer::rdma::RegionAddr;

/// A message of which more is to come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Incoming {
    /// The receive that it took, by its poster's number.
    pub(super) receive: Option<u64>,
    /// Where it goes.
    key: Key,
    at: RegionAddr,
    right: Rights,
    total: u64,
    /// How much of it came.
    done: u64,
    immediate: Option<u32>,
}

/// What the other side was told to wait for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owed {
    /// A receive.
    Receive,
    /// Pages, after which it goes on from this byte.
    Pages { offset: u64 },
}

/// A read that is being answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Responding {
    from: RegionAddr,
    key: Key,
    len: u64,
    done: u64,
}

impl Pair {
    /// Looks at a message of the queue pair at the other side.
    pub(super) fn receive(&mut self, cx: &mut Context<'_>, body: Body) {
        match body {
            Body::Data { target, first, last, offset, total, payload } => {
                // One that was begun goes on, also from its first byte.
                if first && self.incoming.is_none() {
                    self.incoming = self.begin(cx, target, total);
                }
                self.take_part(cx, offset, last, payload);
            }
            Body::Read { from, key, len, offset } => match self.permits(cx, key, from, len, Rights::REMOTE_READ) {
                true => self.responding = Some(Responding { from, key, len, done: offset }),
                false => self.refuse(cx, Refusal::Access),
            },
            Body::Atomic { at, key, atomic } => self.change(cx, at, key, atomic),
            Body::Lost => self.fail(cx),
            answer => self.hear(cx, answer),
        }
    }

    fn permits(&self, cx: &Context<'_>, key: Key, at: RegionAddr, len: u64, right: Rights) -> bool {
        cx.regions.window(key, self.domain, at, len, right).is_some()
    }

    /// Refuses a request for good.
    fn refuse(&mut self, cx: &mut Context<'_>, refusal: Refusal) {
        self.say(cx, Body::Refuse(refusal));
        self.fail(cx);
    }

    /// Refuses a message that took a receive, and completes that.
    fn refuse_receive(&mut self, cx: &mut Context<'_>, id: u64, status: Status, detail: u32, refusal: Refusal) {
        self.incoming = None;
        self.say(cx, Body::Refuse(refusal));
        self.complete(cx, Side::Receive, id, status, 0, detail);
        self.fail(cx);
    }

    /// Begins a message: takes a receive where it needs one, and checks where it goes.
    fn begin(&mut self, cx: &mut Context<'_>, target: Target, total: u64) -> Option<Incoming> {
        let (memory, immediate) = match target {
            Target::Receive { immediate } => (None, immediate),
            Target::Memory { to, key, immediate } => {
                if !self.permits(cx, key, to, total, Rights::REMOTE_WRITE) {
                    self.refuse(cx, Refusal::Access);
                    return None;
                }
                (Some((to, key)), immediate)
            }
        };
        let receive = match (memory, immediate) {
            (Some(_), None) => None,
            _ if self.receives.is_empty() => {
                self.owes = Some(Owed::Receive);
                self.say(cx, Body::Refuse(Refusal::NotReady));
                return None;
            }
            _ => Some(self.take_receive(cx)?),
        };
        let (at, key, right) = match (memory, receive) {
            (Some((to, key)), _) => (to, key, Rights::REMOTE_WRITE),
            (None, Some((id, into))) => {
                if into.len.as_u64() < total {
                    self.refuse_receive(cx, id, Status::LocalLength, 0, Refusal::Invalid);
                    return None;
                }
                (into.at, into.key, Rights::LOCAL_WRITE)
            }
            (None, None) => return None,
        };
        let receive = receive.map(|(id, _)| id);
        Some(Incoming { receive, key, at, right, total, done: 0, immediate })
    }

    /// Takes the next receive; one that is none breaks the queue pair.
    fn take_receive(&mut self, cx: &mut Context<'_>) -> Option<(u64, Source)> {
        let Some(slot) = self.next(cx, Side::Receive) else {
            self.say(cx, Body::Refuse(Refusal::Operation));
            return None;
        };
        let receive = decode_receive(&slot);
        if receive.is_none() {
            self.refuse_receive(cx, slot.double::<8>(), Status::LocalOperation, 0, Refusal::Operation);
        }
        receive
    }

    /// Takes a part of the message that is coming in. Parts of one that was refused are dropped.
    fn take_part(&mut self, cx: &mut Context<'_>, offset: u64, last: bool, payload: Option<Payload>) {
        // Parts behind one that found no page were sent before the other side heard of it.
        let Some(incoming) = self.incoming.filter(|incoming| incoming.done == offset) else { return };
        let len = payload.as_ref().map_or(0, Payload::len);
        // The region may be gone since the message began.
        let (at, inside) = (plus(incoming.at, offset), offset.saturating_add(len) <= incoming.total);
        let window = cx.regions.window(incoming.key, self.domain, at, len, incoming.right).filter(|_| inside);
        if let Some(missing) = window.and_then(|window| window.missing(true)) {
            // The part is dropped and sent again, so that its slot is free for other queue pairs.
            return self.put_off(cx, offset, missing);
        }
        let (status, reason, refusal) = match (window, payload) {
            (Some(window), Some(payload)) => match payload.deposit(cx.bus, window) {
                Ok(()) => (Status::Success, 0, Refusal::Operation),
                Err(RelayError::Write(failure)) => (Status::General, detail(failure), Refusal::Operation),
                Err(RelayError::Read(failure)) => return self.lose(cx, failure),
            },
            (Some(_), None) => (Status::Success, 0, Refusal::Operation),
            (None, _) if incoming.right == Rights::REMOTE_WRITE => (Status::LocalProtection, 0, Refusal::Access),
            (None, _) => (Status::LocalProtection, 0, Refusal::Operation),
        };
        if status == Status::Success {
            self.answering.got_on();
        }
        match (status, incoming.receive) {
            (Status::Success, _) if !last => self.incoming = Some(Incoming { done: offset + len, ..incoming }),
            (Status::Success, receive) => {
                self.incoming = None;
                let (side, immediate) = match incoming.immediate {
                    Some(immediate) => (Side::ReceiveImmediate, immediate),
                    None => (Side::Receive, 0),
                };
                if let Some(id) = receive {
                    self.complete(cx, side, id, Status::Success, incoming.total, immediate);
                }
                self.say(cx, Body::Acknowledge);
            }
            (status, Some(id)) => self.refuse_receive(cx, id, status, reason, refusal),
            (_, None) => {
                self.incoming = None;
                self.refuse(cx, refusal);
            }
        }
    }

    /// Lets the other side wait for pages, after which it goes on from the byte at `offset`: what
    /// InfiniBand says of a receiver that is not ready (1.4 §9.7.5.2.8), for which adapters take pages too.
    fn put_off(&mut self, cx: &mut Context<'_>, offset: u64, missing: Missing) {
        if self.answering.begin(cx, missing) {
            self.owes = Some(Owed::Pages { offset });
            self.say(cx, Body::Refuse(Refusal::NotReady));
        } else {
            self.deny(cx);
        }
    }

    /// Refuses what was to be done here for want of pages.
    fn deny(&mut self, cx: &mut Context<'_>) {
        (self.owes, self.responding) = (None, None);
        match self.incoming.take() {
            Some(Incoming { receive: Some(id), right, .. }) => {
                let refusal = if right == Rights::REMOTE_WRITE { Refusal::Access } else { Refusal::Operation };
                self.refuse_receive(cx, id, Status::LocalProtection, 0, refusal);
            }
            _ => self.refuse(cx, Refusal::Access),
        }
    }

    /// Drops a message whose bytes the other side could not read. Its receive was not used.
    fn lose(&mut self, cx: &mut Context<'_>, failure: Failure) {
        if self.incoming.take().is_some_and(|incoming| incoming.receive.is_some()) {
            self.receives.give_back();
        }
        self.say(cx, Body::Refuse(Refusal::Source(failure)));
    }

    /// Does an AtomicOp on memory here.
    fn change(&mut self, cx: &mut Context<'_>, at: RegionAddr, key: Key, atomic: Atomic) {
        if !at.as_u64().is_multiple_of(8) {
            return self.refuse(cx, Refusal::Invalid);
        }
        let window = cx.regions.window(key, self.domain, at, 8, Rights::REMOTE_ATOMIC);
        if let Some(missing) = window.and_then(|window| window.missing(true)) {
            return self.put_off(cx, 0, missing);
        }
        let Some(place) = window.and_then(|window| window.start()) else {
            return self.refuse(cx, Refusal::Access);
        };
        self.answering.got_on();
        match cx.bus.atomic(How::default(), place, atomic) {
            Ok(found) => {
                self.say(cx, Body::AtomicResult(found));
            }
            Err(_) => self.refuse(cx, Refusal::Operation),
        }
    }

    /// Sends a part of what is being read, as much as one slot holds; whether there was any.
    pub(super) fn respond(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(Responding { from, key, len, done }) = self.responding else { return false };
        match self.answering.look(cx) {
            Look::Ready => {}
            Look::Waiting => return false,
            Look::Refused => {
                self.deny(cx);
                return true;
            }
        }
        let part = len.saturating_sub(done).min(cx.pool.slot());
        if len != 0 && cx.pool.slot() == 0 {
            self.responding = None;
            self.refuse(cx, Refusal::Operation);
            return true;
        }
        let Some(window) = cx.regions.window(key, self.domain, plus(from, done), part, Rights::REMOTE_READ) else {
            self.responding = None;
            self.refuse(cx, Refusal::Access);
            return true;
        };
        if let Some(missing) = window.missing(false) {
            if !self.answering.begin(cx, missing) {
                self.deny(cx);
            }
            return true;
        }
        let payload = if len == 0 { None } else { cx.pool.take(part) };
        match &payload {
            Some(payload) => {
                let lender = self.lender(cx);
                if payload.fill(cx.bus, window, lender).is_err() {
                    self.responding = None;
                    self.refuse(cx, Refusal::Operation);
                    return true;
                }
            }
            None if len != 0 => return false,
            None => {}
        }
        self.answering.got_on();
        let last = done + part == len;
        self.responding = (!last).then_some(Responding { from, key, len, done: done + part });
        self.say(cx, Body::ReadData { offset: done, last, payload });
        true
    }

    /// Tells the other side that it can go on, if it waits and what it waits for is there; whether
    /// there was anything to do.
    pub(super) fn owe(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(owed) = self.owes else { return false };
        let offset = match owed {
            Owed::Receive if self.receives.is_empty() => return false,
            Owed::Receive => 0,
            Owed::Pages { offset } => match self.answering.look(cx) {
                Look::Waiting => return false,
                Look::Ready => offset,
                Look::Refused => {
                    self.deny(cx);
                    return true;
                }
            },
        };
        self.owes = None;
        self.say(cx, Body::Ready { offset });
        true
    }
}
