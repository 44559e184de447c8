//! The side of a queue pair that sends requests.

use super::fault::Look;
use super::network::{Body, Refusal, Target};
use super::pair::{Context, Pair, Side, detail};
use super::payload::Payload;
use super::region::{Missing, Rights};
use super::work::{Operation, Status, WorkRequest};
use crate::device::bus::RelayError;
use crate::wire::{Atomic, Operand};
use peerdma::dma::consumer::rdma::RegionAddr;

/// The longest message (InfiniBand 1.4 §9.7.8).
const LONGEST: u64 = 1 << 31;

/// How far a request is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// It is being sent.
    Sending,
    /// It was sent; its answer is to come.
    Awaiting,
    /// The other side has no receive, or no page; it will say when it has.
    NotReady,
    /// The answer to an AtomicOp came, and has no page to stand in.
    Storing(u64),
}

/// The work request that is on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) work: WorkRequest,
    phase: Phase,
    /// Bytes that were sent, or of a read that came.
    done: u64,
}

/// `by` bytes on in a region; past the last address nothing is ever permitted.
pub(super) fn plus(at: RegionAddr, by: u64) -> RegionAddr {
    RegionAddr::new(at.as_u64().saturating_add(by))
}

impl Pair {
    /// Does a piece of the request that is on its way, or begins the next; whether there is any.
    pub(super) fn advance(&mut self, cx: &mut Context<'_>) -> bool {
        match self.requesting.look(cx) {
            Look::Ready => {}
            Look::Waiting => return false,
            Look::Refused => {
                self.finish(cx, Status::LocalProtection, 0);
                return true;
            }
        }
        if self.request.is_none() {
            if self.sends.is_empty() {
                return false;
            }
            let Some(slot) = self.next(cx, Side::Send) else { return true };
            let begun = match WorkRequest::decode(&slot) {
                Some(work) => self.check(cx, &work).map(|()| work),
                None => Err(Status::LocalOperation),
            };
            match begun {
                Ok(work) => self.request = Some(Request { work, phase: Phase::Sending, done: 0 }),
                Err(status) => {
                    self.complete(cx, Side::Send, slot.double::<8>(), status, 0, 0);
                    self.fail(cx);
                    return true;
                }
            }
        }
        let (Some(request), Some(peer)) = (self.request, self.peer) else { return false };
        if let Phase::Storing(value) = request.phase {
            self.store(cx, request, value);
            return true;
        }
        if request.phase != Phase::Sending {
            let reaches = cx.port.reaches(peer.port);
            if !reaches {
                self.finish(cx, Status::RetryExceeded, 0);
            }
            return !reaches;
        }
        let body = match request.work.operation {
            Operation::Send { immediate } => return self.send_part(cx, request, Target::Receive { immediate }),
            Operation::Write { to, key, immediate } => {
                return self.send_part(cx, request, Target::Memory { to, key, immediate });
            }
            Operation::Read { from, key } => {
                Body::Read { from, key, len: request.work.local.len.as_u64(), offset: request.done }
            }
            Operation::FetchAdd { at, key, value } => {
                Body::Atomic { at, key, atomic: Atomic::FetchAdd(Operand::Double(value)) }
            }
            Operation::CompareSwap { at, key, expected, new } => {
                Body::Atomic { at, key, atomic: Atomic::CompareSwap { expected: Operand::Double(expected), new } }
            }
        };
        self.request = Some(Request { phase: Phase::Awaiting, ..request });
        if !self.say(cx, body) {
            self.finish(cx, Status::RetryExceeded, 0);
        }
        true
    }

    /// Checks a work request before anything of it is sent.
    fn check(&self, cx: &Context<'_>, work: &WorkRequest) -> Result<(), Status> {
        let len = work.local.len.as_u64();
        let (right, fits) = match work.operation {
            Operation::Send { .. } | Operation::Write { .. } => (Rights::NONE, len <= LONGEST),
            Operation::Read { .. } => (Rights::LOCAL_WRITE, len <= LONGEST),
            Operation::FetchAdd { .. } | Operation::CompareSwap { .. } => (Rights::LOCAL_WRITE, len == 8),
        };
        if !fits {
            return Err(Status::LocalLength);
        }
        let window = cx.regions.window(work.local.key, self.domain, work.local.at, len, right);
        window.map(drop).ok_or(Status::LocalProtection)
    }

    /// Sends as much of a message as one slot holds; `false` if no slot is free.
    fn send_part(&mut self, cx: &mut Context<'_>, request: Request, target: Target) -> bool {
        let (offset, local) = (request.done, request.work.local);
        let total = local.len.as_u64();
        let len = (total - offset).min(cx.pool.slot());
        if total != 0 && cx.pool.slot() == 0 {
            self.finish(cx, Status::General, 0);
            return true;
        }
        // The region may be gone since the message began.
        let at = plus(local.at, offset);
        let Some(window) = cx.regions.window(local.key, self.domain, at, len, Rights::NONE) else {
            self.finish(cx, Status::LocalProtection, 0);
            return true;
        };
        if let Some(missing) = window.missing(false) {
            self.await_pages(cx, missing);
            return true;
        }
        let payload = if total == 0 { None } else { cx.pool.take(len) };
        match &payload {
            Some(payload) => {
                let lender = self.lender(cx);
                if let Err(failure) = payload.fill(cx.bus, window, lender) {
                    self.finish(cx, Status::General, detail(failure));
                    return true;
                }
            }
            None if total != 0 => return false,
            None => {}
        }
        self.requesting.got_on();
        let (first, last) = (offset == 0, offset + len == total);
        let phase = if last { Phase::Awaiting } else { Phase::Sending };
        self.request = Some(Request { phase, done: offset + len, ..request });
        if !self.say(cx, Body::Data { target, first, last, offset, total, payload }) {
            self.finish(cx, Status::RetryExceeded, 0);
        }
        true
    }

    /// Waits for pages of local memory; the request ends where it has waited too often.
    fn await_pages(&mut self, cx: &mut Context<'_>, missing: Missing) {
        if !self.requesting.begin(cx, missing) {
            self.finish(cx, Status::LocalProtection, 0);
        }
    }

    /// Ends the request that is on its way.
    fn finish(&mut self, cx: &mut Context<'_>, status: Status, detail: u32) {
        let Some(request) = self.request.take() else { return };
        self.requesting.end(cx);
        self.requesting.got_on();
        let len = request.work.local.len.as_u64();
        if status != Status::Success {
            self.complete(cx, Side::Send, request.work.id, status, 0, detail);
            self.fail(cx);
        } else if !request.work.quiet {
            self.complete(cx, Side::Send, request.work.id, status, len, detail);
        }
    }

    /// Looks at an answer. Answers that answer nothing are ignored.
    pub(super) fn hear(&mut self, cx: &mut Context<'_>, body: Body) {
        let Some(request) = self.request else { return };
        match body {
            Body::Acknowledge => self.finish(cx, Status::Success, 0),
            Body::Refuse(Refusal::NotReady) => {
                self.request = Some(Request { phase: Phase::NotReady, ..request });
            }
            Body::Ready { offset } if request.phase == Phase::NotReady => {
                self.request = Some(Request { phase: Phase::Sending, done: offset, ..request });
            }
            Body::Refuse(refusal) => {
                let status = match refusal {
                    Refusal::Access => Status::RemoteAccess,
                    Refusal::Invalid => Status::RemoteInvalid,
                    Refusal::Operation => Status::RemoteOperation,
                    Refusal::NotReady | Refusal::Gone => Status::RetryExceeded,
                    Refusal::Source(_) => Status::General,
                };
                let detail = if let Refusal::Source(failure) = refusal { detail(failure) } else { 0 };
                self.finish(cx, status, detail);
            }
            Body::ReadData { offset, last, payload } => self.bring(cx, request, (offset, last), payload),
            Body::AtomicResult(value) => self.store(cx, request, value),
            Body::Ready { .. } | Body::Data { .. } | Body::Read { .. } | Body::Atomic { .. } | Body::Lost => {}
        }
    }

    /// Brings a part of what was read into local memory.
    fn bring(&mut self, cx: &mut Context<'_>, request: Request, part: (u64, bool), payload: Option<Payload>) {
        let (offset, last) = part;
        // Parts behind one that found no page were sent before the read was asked for again from there.
        if offset != request.done || request.phase != Phase::Awaiting {
            return;
        }
        let local = request.work.local;
        let len = payload.as_ref().map_or(0, Payload::len);
        let at = plus(local.at, offset);
        let Some(window) = cx.regions.window(local.key, self.domain, at, len, Rights::LOCAL_WRITE) else {
            return self.finish(cx, Status::LocalProtection, 0);
        };
        if let Some(missing) = window.missing(true) {
            // The part is dropped and asked for again, so that its slot is free for other queue pairs.
            self.request = Some(Request { phase: Phase::Sending, ..request });
            return self.await_pages(cx, missing);
        }
        match payload.map_or(Ok(()), |payload| payload.deposit(cx.bus, window)) {
            Ok(()) => {}
            Err(RelayError::Write(failure)) => return self.finish(cx, Status::General, detail(failure)),
            Err(RelayError::Read(_)) => {
                self.say(cx, Body::Lost);
                return self.finish(cx, Status::RemoteOperation, 0);
            }
        }
        self.requesting.got_on();
        self.request = Some(Request { done: offset + len, ..request });
        if last {
            self.finish(cx, Status::Success, 0);
        }
    }

    /// Stores the answer to an AtomicOp in local memory.
    fn store(&mut self, cx: &mut Context<'_>, request: Request, value: u64) {
        let local = request.work.local;
        let Some(window) = cx.regions.window(local.key, self.domain, local.at, 8, Rights::LOCAL_WRITE) else {
            return self.finish(cx, Status::LocalProtection, 0);
        };
        if let Some(missing) = window.missing(true) {
            // The AtomicOp was done, and is not to be done again.
            self.request = Some(Request { phase: Phase::Storing(value), ..request });
            return self.await_pages(cx, missing);
        }
        match window.put(cx.bus, value) {
            Ok(()) => self.finish(cx, Status::Success, 0),
            Err(failure) => self.finish(cx, Status::General, detail(failure)),
        }
    }
}
