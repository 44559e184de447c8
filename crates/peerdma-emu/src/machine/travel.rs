//! Requests under way: writes from queue to queue, reads to their completer.
//!
//! A read pushes what was written before it: it goes behind the writes that wait for an egress, so
//! those go first (PCIe 6.0 §2.4.1). Its completion does the same on the way back (`homeward`) with
//! what its completer wrote. So a read can be carried through at once while writes wait, and no order
//! is lost.

use super::Machine;
use super::function::Target;
use super::homeward::{Carried, MOST_HOPS, Stopped, Trace};
use super::log::Happened;
use super::queue::{Posted, Queues};
use super::strike::{Struck, UnderWay};
use crate::fabric::{Arrival, Egress, Ending, HostId, NodeId, Site};
use crate::faults::Stop;
use crate::wire::{Failure, Head, Kind};
use peerdma::addr::{BusAddr, Bytes};
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

    /// Where it is answered; nowhere where nothing is to be answered.
    pub(super) const fn site(&self) -> Option<Site> {
        match self {
            Self::Function(node, ..) => Some(Site::Node(*node)),
            Self::Memory(host, ..) | Self::Translation(host) | Self::AllOnes(host) => Some(Site::Host(*host)),
            Self::Interrupt { .. } => None,
        }
    }
}

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
            Arrival::PageRequest { host } => self.page_requested(&posted, host),
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

    /// Moves one write of an egress to where it goes next: the one at the position that `choose` names.
    pub(super) fn advance(&self, egress: Egress, choose: impl FnOnce(&Queues) -> usize) -> Advanced {
        let (posted, hand) = {
            let mut queues = super::function::locked(&self.queues);
            // One at a time, or else the second could be put down before the first, and a read could pass both.
            if queues.in_hand(egress) {
                return Advanced::InHand;
            }
            let position = choose(&queues);
            if position > 0 {
                self.note_overtaken(&queues, egress, position);
            }
            let Some((posted, taking)) = queues.take(egress, position) else { return Advanced::Nothing };
            (posted, Hand { machine: self, taking })
        };
        let arrival = self.fabric.arrive(egress, posted.head);
        self.put(posted, Some(egress), arrival);
        drop(hand);
        Advanced::One
    }

    fn note_overtaken(&self, queues: &Queues, egress: Egress, position: usize) {
        if let Some(passing) = queues.number(egress, position) {
            let passed = (0..position).filter_map(|earlier| queues.number(egress, earlier));
            passed.for_each(|other| self.log.note(passing, Happened::Overtook { other }));
        }
    }

    /// Moves on every write that waits for an egress; those that other threads have taken from there have arrived
    /// where they go next when this returns.
    ///
    /// Not to be called by whoever has a write of this egress in hand. Who puts a write down pushes only where that
    /// is a page request that the IOMMU does not take, whose answer goes down while the message came up.
    #[inline]
    pub(super) fn flush(&self, egress: Egress) {
        if self.nothing_waits() {
            return;
        }
        loop {
            match self.advance(egress, |_| 0) {
                Advanced::One => {}
                Advanced::InHand => std::thread::yield_now(),
                Advanced::Nothing => return,
            }
        }
    }

    /// Awaits the writes that threads have taken from queues before this, and none that they take after.
    ///
    /// Not to be called by whoever has one, which only what carries requests does.
    pub(super) fn await_hands(&self) {
        let last = super::function::locked(&self.queues).takings();
        while super::function::locked(&self.queues).hands_up_to(last) {
            std::thread::yield_now();
        }
    }

    /// Whether no write is on its way, in a hand neither.
    pub(super) fn nothing_waits(&self) -> bool {
        self.waiting.load(Ordering::Acquire) == 0
    }

    /// Carries a non-posted request to where it ends.
    pub(super) fn carry(
        &self,
        request: u64,
        from: Option<NodeId>,
        head: Head,
        first: Arrival,
    ) -> Result<Carried, Stopped> {
        let (mut way, mut arrival, mut trace) = (Vec::new(), first, Trace::new(head));
        for _ in 0..MOST_HOPS {
            let stopped = |ending| Stopped { ending, trace };
            if let Arrival::Forward { egress, head, .. } = arrival {
                match self.struck(UnderWay { request, from, head }, &mut way, None, Stop::By(egress)) {
                    None => {
                        self.log.note(request, Happened::Went { egress, head });
                        self.flush(egress);
                        trace.goes(self.fabric.tree(), egress, head);
                        arrival = self.fabric.arrive(egress, head);
                    }
                    Some(Struck::Ones(host)) => arrival = Arrival::AllOnes { host },
                    Some(Struck::Ends(ending)) => return Err(stopped(ending)),
                }
                continue;
            }
            let under_way = UnderWay { request, from, head: trace.head };
            let landing = self.lands(under_way, &mut way, arrival).map_err(stopped)?;
            let late = self.delayed(under_way, &way);
            return Ok(Carried { landing, trace, late });
        }
        // Windows nest or end, so that no request goes in a circle; numbers written at random may.
        Err(Stopped { ending: Ending::UndefinedRoot(HostId::new(0)), trace })
    }

    /// What answers a non-posted request, and notes it.
    fn lands(&self, under_way: UnderWay, way: &mut Vec<Stop>, arrival: Arrival) -> Result<Landing, Ending> {
        let UnderWay { request, from, head } = under_way;
        Ok(match arrival {
            Arrival::Function { node, bar, offset, left } => {
                if let Some(struck) = self.struck(under_way, way, None, Stop::At(node)) {
                    return Err(struck.ending());
                }
                self.log.note(request, Happened::AtFunction { node, bar, offset });
                let (target, left) = self.at_function(request, node, &head, bar, offset, left)?;
                Landing::Function(node, self.damaged(under_way, way, target, Some(node)), left)
            }
            Arrival::Memory { host, at } => {
                self.log.note(request, Happened::InMemory { at });
                let (target, left) = self.memory_at(at);
                Landing::Memory(host, self.damaged(under_way, way, target, None), left)
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
            // A message is posted, and is never carried.
            Arrival::PageRequest { host } => return Err(Ending::Nowhere(host)),
            Arrival::Forward { .. } => return Err(Ending::UndefinedRoot(HostId::new(0))),
            Arrival::End(ending) => return Err(ending),
        })
    }

    /// A non-posted request from its sender to the data and back.
    ///
    /// `take` has the data, or makes it, once the request is there; it is not run if it never gets there.
    pub(super) fn ask<T>(
        &self,
        from: Option<NodeId>,
        head: Head,
        first: Arrival,
        take: impl FnOnce(&Self, &Landing) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let request = self.log.number();
        self.log.note(request, Happened::Sent { from, head });
        let done = self.ask_numbered(request, from, head, first, take);
        if let Err(failure) = &done {
            self.log.note(request, Happened::Failed(*failure));
        }
        done
    }

    fn ask_numbered<T>(
        &self,
        request: u64,
        from: Option<NodeId>,
        head: Head,
        first: Arrival,
        take: impl FnOnce(&Self, &Landing) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let carried =
            self.carry(request, from, head, first).map_err(|stopped| self.refused(request, &stopped, from))?;
        if carried.late && head.kind == Kind::Read {
            // Data that comes too late is nobody's.
            return Err(self.bring_back(request, &carried, from).err().unwrap_or(Failure::Timeout));
        }
        match take(self, &carried.landing) {
            Ok(taken) => self.bring_back(request, &carried, from).map(|()| taken),
            // One that comes too late says nothing either.
            Err(_) if carried.late => Err(self.bring_back(request, &carried, from).err().unwrap_or(Failure::Timeout)),
            Err(Failure::Poisoned) => Err(self.bring_back(request, &carried, from).err().unwrap_or(Failure::Poisoned)),
            Err(failure) => Err(self.told(request, &carried.trace, carried.landing.site(), failure, from)),
        }
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

/// What came of moving one write on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Advanced {
    /// One went on.
    One,
    /// Another thread has one of this egress in hand, and the next goes after it.
    InHand,
    /// There is none.
    Nothing,
}

/// A write that is taken from a queue, for as long as it is nowhere else; also where putting it down panics.
struct Hand<'m> {
    machine: &'m Machine,
    taking: u64,
}

impl Drop for Hand<'_> {
    fn drop(&mut self) {
        super::function::locked(&self.machine.queues).put_down(self.taking);
        // It waits until it is somewhere, or else nothing would seem to wait while it is in this hand.
        self.machine.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}
