//! Requests under way: writes from queue to queue, reads to their completer and back.
//!
//! A read pushes what was written before it: it goes behind the writes that wait for an egress, so
//! those go first (PCIe 6.0 §2.4.1). Its completion does the same on the way back with what
//! its completer wrote. So a read can be carried through at once while writes wait, and no order
//! is lost.

use super::Machine;
use super::function::Target;
use super::log::Happened;
use super::queue::{Posted, Queues};
use super::strike::{Struck, UnderWay};
use crate::fabric::{Above, Arrival, Completion, CompletionArrival, Egress, Ending, HostId, NodeId};
use crate::faults::Stop;
use crate::wire::{Failure, Head, Kind};
use peerdma::addr::{BusAddr, Bytes};
use peerdma::pcie::PciAddr;
use std::sync::atomic::Ordering;

/// Where a request has come to.
#[derive(Clone, Debug)]
pub(super) enum Landing {
    /// Something of a function's, with the bytes there are from there on.
    Function(NodeId, Target, Bytes),
    /// Memory, with the bytes there are from there on.
    Memory(HostId, Target, Bytes),
    /// A translation request, at the IOMMU.
    Translation(HostId),
    /// All ones, made up by a root complex.
    AllOnes(HostId),
    /// An interrupt message; of writes only.
    Interrupt {
        /// Who sent it.
        from: NodeId,
        /// For whom.
        at: BusAddr,
    },
}

impl Landing {
    /// What answers; nothing where a root complex does.
    pub(super) fn target(&self) -> Option<(&Target, Bytes)> {
        match self {
            Self::Function(_, target, left) | Self::Memory(_, target, left) => Some((target, *left)),
            Self::Translation(_) | Self::AllOnes(_) | Self::Interrupt { .. } => None,
        }
    }
}

/// The most hops that a request makes; more can only be a circle, which windows cannot form.
const MOST_HOPS: usize = 1 << 12;

impl Machine {
    /// Sends a write on its way; it waits at the first egress.
    pub(super) fn post(&self, posted: Posted, first: Arrival) {
        self.log.note(posted.number, Happened::Sent { from: posted.from, head: posted.head });
        self.put(posted, None, first);
    }

    /// Does with a write what a place made of it.
    pub(super) fn put(&self, mut posted: Posted, by: Option<Egress>, arrival: Arrival) {
        match arrival {
            Arrival::Forward { egress, head, cut, .. } => {
                if let Some(struck) = self.struck(posted.under_way(), &mut posted.way, by, Stop::By(egress)) {
                    return self.ended(posted.number, struck.ending());
                }
                self.log.note(posted.number, Happened::Went { egress, head });
                if self.delivers_at_once() {
                    // Not by way of the queues, which threads share: one that took this write out there
                    // would have it arrive when its sender has gone on already.
                    for piece in pieces(posted, head, cut) {
                        let arrival = self.fabric.arrive(egress, piece.head);
                        self.put(piece, Some(egress), arrival);
                    }
                    return;
                }
                let mut queues = super::function::locked(&self.queues);
                for piece in pieces(posted, head, cut) {
                    queues.push(egress, piece);
                    self.waiting.fetch_add(1, Ordering::AcqRel);
                }
            }
            Arrival::Function { node, bar, offset, left } => {
                if let Some(struck) = self.struck(posted.under_way(), &mut posted.way, by, Stop::At(node)) {
                    return self.ended(posted.number, struck.ending());
                }
                self.log.note(posted.number, Happened::AtFunction { node, bar, offset });
                match self.at_function(posted.number, node, &posted.head, bar, offset, left) {
                    Ok((target, left)) => {
                        let target = self.damaged(posted.under_way(), &posted.way, target, Some(node));
                        self.store(&target, left, &posted.data);
                    }
                    Err(ending) => self.ended(posted.number, ending),
                }
            }
            Arrival::Memory { at, .. } => {
                self.log.note(posted.number, Happened::InMemory { at });
                let (target, left) = self.memory_at(at);
                let target = self.damaged(posted.under_way(), &posted.way, target, None);
                self.store(&target, left, &posted.data);
            }
            Arrival::Interrupt { host, .. } => {
                self.log.note(posted.number, Happened::Interrupted { host });
                self.interrupted(posted.from, posted.head.address, &posted.data);
            }
            // Neither is ever asked for by a write.
            Arrival::Translation { host } | Arrival::AllOnes { host } => {
                self.ended(posted.number, Ending::NotForwarded(host));
            }
            Arrival::End(ending) => self.ended(posted.number, ending),
        }
    }

    pub(super) fn ended(&self, request: u64, ending: Ending) {
        self.log.note(request, Happened::Ended(ending));
        self.count(ending);
    }

    /// Moves one write of an egress to where it goes next; `false` if there is none.
    pub(super) fn advance(&self, egress: Egress, position: usize) -> bool {
        let posted = {
            let mut queues = super::function::locked(&self.queues);
            if position > 0 {
                self.note_overtaken(&queues, egress, position);
            }
            queues.take(egress, position)
        };
        let Some(posted) = posted else { return false };
        self.waiting.fetch_sub(1, Ordering::AcqRel);
        let arrival = self.fabric.arrive(egress, posted.head);
        self.put(posted, Some(egress), arrival);
        true
    }

    fn note_overtaken(&self, queues: &Queues, egress: Egress, position: usize) {
        if let Some(passing) = queues.number(egress, position) {
            let passed = (0..position).filter_map(|earlier| queues.number(egress, earlier));
            passed.for_each(|other| self.log.note(passing, Happened::Overtook { other }));
        }
    }

    /// Moves on every write that waits for an egress.
    #[inline]
    pub(super) fn flush(&self, egress: Egress) {
        if self.nothing_waits() {
            return;
        }
        while self.advance(egress, 0) {}
    }

    fn nothing_waits(&self) -> bool {
        self.waiting.load(Ordering::Acquire) == 0
    }

    /// Carries a non-posted request to where it ends.
    pub(super) fn carry(
        &self,
        request: u64,
        from: Option<NodeId>,
        head: Head,
        first: Arrival,
    ) -> Result<Carried, Ending> {
        let mut way = Vec::new();
        let (mut arrival, mut head, mut before) = (first, head, head.requester.id);
        for _ in 0..MOST_HOPS {
            let landing = match arrival {
                Arrival::Forward { egress, head: next, .. } => {
                    if next.requester.id != head.requester.id {
                        before = head.requester.id;
                    }
                    head = next;
                    match self.struck(UnderWay { request, from, head }, &mut way, None, Stop::By(egress)) {
                        None => {
                            self.log.note(request, Happened::Went { egress, head });
                            self.flush(egress);
                            arrival = self.fabric.arrive(egress, head);
                        }
                        Some(Struck::Ones(host)) => arrival = Arrival::AllOnes { host },
                        Some(Struck::Ends(ending)) => return Err(ending),
                    }
                    continue;
                }
                Arrival::Function { node, bar, offset, left } => {
                    let under_way = UnderWay { request, from, head };
                    if let Some(struck) = self.struck(under_way, &mut way, None, Stop::At(node)) {
                        return Err(struck.ending());
                    }
                    self.log.note(request, Happened::AtFunction { node, bar, offset });
                    let (target, left) = self.at_function(request, node, &head, bar, offset, left)?;
                    Landing::Function(node, self.damaged(under_way, &way, target, Some(node)), left)
                }
                Arrival::Memory { host, at } => {
                    self.log.note(request, Happened::InMemory { at });
                    let (target, left) = self.memory_at(at);
                    Landing::Memory(host, self.damaged(UnderWay { request, from, head }, &way, target, None), left)
                }
                Arrival::Interrupt { host, at } => match from {
                    Some(from) if head.kind == Kind::Write => {
                        self.log.note(request, Happened::Interrupted { host });
                        Landing::Interrupt { from, at }
                    }
                    _ => return Err(Ending::Nowhere(host)),
                },
                Arrival::Translation { host } => {
                    self.log.note(request, Happened::Translated { host });
                    Landing::Translation(host)
                }
                Arrival::AllOnes { host } => {
                    self.log.note(request, Happened::AllOnes { host });
                    Landing::AllOnes(host)
                }
                Arrival::End(ending) => return Err(ending),
            };
            let late = self.delayed(UnderWay { request, from, head }, &way);
            return Ok(Carried { landing, head, before, late });
        }
        // Windows nest or end, so that no request goes in a circle; numbers written at random may.
        Err(Ending::UndefinedRoot(HostId::new(0)))
    }

    /// Brings a completion with data back to who asked.
    ///
    /// `before` is who a root complex asked for, where it asked in its own name.
    fn answer(
        &self,
        request: u64,
        landing: &Landing,
        completion: Completion,
        back: Back,
        before: PciAddr,
    ) -> Result<(), Failure> {
        let mut completion = completion;
        let mut arrival = match landing {
            Landing::Function(node, ..) => {
                let own = self.fabric.completion_payload(*node);
                completion.len = own.map_or(completion.len, |own| completion.len.min(own));
                self.fabric.leave_completion(*node, &completion)
            }
            Landing::Memory(host, ..) | Landing::Translation(host) | Landing::AllOnes(host) => {
                self.fabric.root_completion(*host, &completion)
            }
            // Only writes are taken as interrupts, and nobody waits for those.
            Landing::Interrupt { .. } => return Err(Failure::Timeout),
        };
        let mut from_root = !matches!(landing, Landing::Function(..));
        for _ in 0..MOST_HOPS {
            match arrival {
                CompletionArrival::Forward(egress) => {
                    self.log.note(request, Happened::CompletionWent(egress));
                    if !completion.relaxed {
                        self.flush(egress);
                    }
                    if let Egress::Down(port) = egress
                        && (from_root || self.splits_at(port))
                    {
                        // A root complex cuts what it sends to what its port may, and what it passes on if it
                        // cuts at all.
                        let own = self.fabric.tree().config(port).max_payload();
                        completion.len = own.map_or(completion.len, |own| completion.len.min(own));
                        from_root = false;
                    }
                    arrival = self.fabric.arrive_completion(egress, &completion);
                }
                CompletionArrival::Function(node) if !back.late && self.waits(node, back.from) => {
                    self.log.note(request, Happened::Answered);
                    return Ok(());
                }
                CompletionArrival::Function(node) => {
                    return self.completion_lost(request, Ending::Unexpected(node));
                }
                CompletionArrival::Root(host) => match back.from {
                    // The root complex asked in its own name, and now answers in its own.
                    Some(_) if completion.requester != before => {
                        completion.requester = before;
                        from_root = true;
                        arrival = self.fabric.root_completion(host, &completion);
                    }
                    Some(node) => return self.completion_lost(request, Ending::Unexpected(node)),
                    None if back.late => return self.completion_lost(request, Ending::LostRoot(host)),
                    None => {
                        self.log.note(request, Happened::Answered);
                        return Ok(());
                    }
                },
                CompletionArrival::End(ending) => return self.completion_lost(request, ending),
            }
        }
        Err(Failure::Timeout)
    }

    /// Whether a port is a root complex's that cuts what is too long for it.
    fn splits_at(&self, port: NodeId) -> bool {
        let tree = self.fabric.tree();
        matches!(tree.node(port).above, Above::Root(host) if self.fabric.root().host(host).splits)
    }

    fn completion_lost(&self, request: u64, ending: Ending) -> Result<(), Failure> {
        self.log.note(request, Happened::CompletionEnded(ending));
        self.count(ending);
        Err(Failure::Timeout)
    }

    /// A non-posted request from its sender to the data and back.
    ///
    /// `take` has the data, or makes it, once the request is there; it is not run if it never gets there.
    pub(super) fn ask<T>(
        &self,
        back: Back,
        head: Head,
        first: Arrival,
        take: impl FnOnce(&Self, &Landing) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let request = self.log.number();
        self.log.note(request, Happened::Sent { from: back.from, head });
        let done = self.ask_numbered(request, back, head, first, take);
        if let Err(failure) = &done {
            self.log.note(request, Happened::Failed(*failure));
        }
        done
    }

    fn ask_numbered<T>(
        &self,
        request: u64,
        back: Back,
        head: Head,
        first: Arrival,
        take: impl FnOnce(&Self, &Landing) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let carried = self.carry(request, back.from, head, first).map_err(|ending| {
            self.ended(request, ending);
            ending.seen()
        })?;
        if carried.late && carried.head.kind == Kind::Read {
            // Data that comes too late is nobody's.
            return Err(self.bring_back(request, &carried, back).err().unwrap_or(Failure::Timeout));
        }
        let taken = take(self, &carried.landing)?;
        self.bring_back(request, &carried, back)?;
        Ok(taken)
    }

    /// Brings the completion of a request that was carried to its end back to who asked.
    pub(super) fn bring_back(&self, request: u64, carried: &Carried, back: Back) -> Result<(), Failure> {
        let head = carried.head;
        let completion = Completion {
            requester: head.requester.id,
            // A completer repeats the attributes of the request (§2.2.9).
            relaxed: head.attributes.relaxed,
            id_ordered: head.attributes.id_ordered,
            len: head.len,
        };
        let back = Back { late: carried.late, ..back };
        self.answer(request, &carried.landing, completion, back, carried.before)
    }
}

/// A non-posted request that has come to somebody.
#[derive(Clone, Debug)]
pub(super) struct Carried {
    pub(super) landing: Landing,
    /// As it arrived.
    pub(super) head: Head,
    /// The requester that it had before a root complex or bridge put in its own.
    pub(super) before: PciAddr,
    /// Its completion comes after its requester has given up.
    pub(super) late: bool,
}

/// Who waits for an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Back {
    /// The function; none for a CPU.
    pub(super) from: Option<NodeId>,
    /// It has given up by the time that the answer comes.
    pub(super) late: bool,
}

impl Back {
    /// To a function, or to a processor, that waits.
    pub(super) const fn to(from: Option<NodeId>) -> Self {
        Self { from, late: false }
    }
}

/// A write as it goes on, in pieces where it is cut.
fn pieces(posted: Posted, head: Head, cut: Option<Bytes>) -> Vec<Posted> {
    let Some(cut) = cut.filter(|cut| *cut > Bytes::ZERO && *cut < head.len) else {
        return vec![Posted { head, ..posted }];
    };
    let mut address = head.address.as_u64();
    let chunks = posted.data.chunks(cut.as_u64() as usize);
    let piece = |chunk: &[u8]| {
        let at = BusAddr::new(address);
        address = address.wrapping_add(chunk.len() as u64);
        let head = head.at(at, Bytes::new(chunk.len() as u64));
        Posted { head, data: chunk.into(), ..posted.clone() }
    };
    chunks.map(piece).collect()
}
