//! Long transfers in strokes, along courses that are found once.
//!
//! All packets for one stretch of addresses take the same way, as long as no register, no
//! translation and no wire changes. So the way of the first is kept as a [`Course`] and the
//! bytes of all of them move at once, at the speed of the memory at both ends. Every change of
//! any of the three makes every course stale.
//!
//! A stroke stands where its first packet would: writes that wait on its way go before it. It
//! ends where a packet would come to something else, and never stands for a packet that is longer
//! than its first. A way that ends in a refusal is not kept and is gone packet by packet, as
//! what refuses may be the length, and what the IOMMU refuses now it may permit at the next
//! packet without an invalidation.

use super::Machine;
use super::bus::Port;
use super::function::locked;
use super::homeward::{MOST_HOPS, Stopped, Trace};
use super::log::Happened;
use super::reach::Reach;
use super::travel::Landing;
use crate::fabric::{Arrival, Egress, Ending, NodeId, Site};
use crate::faults::{Moment, Passing, Stop};
use crate::wire::{Failure, Head, Kind};
use peerdma::addr::{BusAddr, Bytes, PhysAddr};
use std::ops::Range;

/// No packet crosses a multiple of this.
const PAGE: u64 = 1 << 12;

/// How much of `len` bytes is in packets that end there, the first of which starts `to_boundary` before a boundary.
fn whole_packets(len: u64, packet: u64, to_boundary: u64) -> u64 {
    match len.checked_sub(to_boundary) {
        Some(behind) => to_boundary + behind - behind % PAGE % packet,
        None => len - len % packet,
    }
}

/// Courses that each function remembers.
const REMEMBERED: usize = 64;

/// The way of all requests of one kind for one stretch of addresses.
#[derive(Clone, Debug)]
pub(super) struct Course {
    kind: Kind,
    hops: Vec<Egress>,
    end: Result<At, Ending>,
    /// The first packet as it comes there.
    trace: Trace,
    /// The way back of a completion, or where it is lost.
    back: Result<Vec<Egress>, Ending>,
    /// First and last address that it holds for.
    holds: (u64, u64),
    /// Bytes of the pieces that packets are cut into on the way.
    cut: u64,
}

/// Where a packet comes to.
#[derive(Debug)]
struct Stretch {
    /// What answers; nothing where a write is lost.
    landing: Option<Landing>,
    /// For how many bytes the same holds.
    left: u64,
    /// Bytes of the pieces that packets are cut into on the way.
    cut: u64,
}

/// What stands at the end, for the first address that the course holds for.
#[derive(Clone, Copy, Debug)]
enum At {
    Function { node: NodeId, bar: u8, offset: u64 },
    Memory { host: crate::fabric::HostId, at: u64 },
    AllOnes { host: crate::fabric::HostId },
    Interrupt { at: u64 },
}

/// What courses a function remembers, by kind and address.
#[derive(Debug, Default)]
pub(super) struct Courses {
    slots: Vec<Option<(u64, Head, Course)>>,
}

impl Courses {
    fn slot(head: &Head) -> usize {
        let address = head.address.as_u64();
        ((address >> 20 ^ address >> 12 ^ address >> 32) as usize ^ head.kind as usize) % REMEMBERED
    }

    /// A course for a request like this one that was found in this generation.
    fn find(&self, generation: u64, head: &Head) -> Option<&Course> {
        let (found_in, like, course) = self.slots.get(Self::slot(head))?.as_ref()?;
        let address = head.address.as_u64();
        let same = like.at(head.address, head.len) == *head && like.len >= head.len;
        let holds = (course.holds.0..=course.holds.1).contains(&address);
        (*found_in == generation && same && holds).then_some(course)
    }

    fn keep(&mut self, generation: u64, head: Head, course: Course) {
        if self.slots.is_empty() {
            self.slots.resize(REMEMBERED, None);
        }
        if let Some(slot) = self.slots.get_mut(Self::slot(&head)) {
            *slot = Some((generation, head, course));
        }
    }
}

impl Machine {
    /// Carries out a transfer of any length in strokes, each with what answers there and its part of the bytes.
    ///
    /// `packet` is the longest packet that the function sends.
    ///
    /// # Errors
    /// Of reads: the first failure, after which nothing more is done. Writes that are lost are
    /// passed over.
    pub(super) fn strokes(
        &self,
        from: NodeId,
        head: Head,
        packet: u64,
        mut stroke: impl FnMut(&Landing, Range<usize>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let len = head.len.as_u64();
        let mut done = 0;
        while done < len {
            let address = BusAddr::new(head.address.as_u64().wrapping_add(done));
            let to_boundary = PAGE - address.as_u64() % PAGE;
            let longest = packet.min(len - done);
            let first = head.at(address, Bytes::new(longest.min(to_boundary)));
            let Stretch { landing, left, cut } = self.along(from, first)?;
            // A first packet that a boundary cuts short says nothing of longer ones behind it.
            let most = if first.len.as_u64() < longest { first.len.as_u64() } else { len - done };
            let part = match left >= most {
                true => most,
                false => whole_packets(left, packet.min(cut), to_boundary).max(first.len.as_u64().min(cut)),
            };
            if let Some(landing) = landing {
                stroke(&landing, done as usize..(done + part) as usize)?;
            }
            done += part;
        }
        Ok(())
    }

    /// Where a request comes to.
    fn along(&self, from: NodeId, head: Head) -> Result<Stretch, Failure> {
        if self.tick(Moment::Request) && !self.is_spared(from, head) {
            let (landing, left) = self.packet_along(from, head)?;
            return Ok(Stretch { landing, left, cut: u64::MAX });
        }
        let generation = self.generation();
        let known = {
            let courses = locked(&self.function(from).courses);
            courses.find(generation, &head).map(|course| self.go(from, head, course))
        };
        if let Some(gone) = known {
            return gone;
        }
        let course = self.course(from, head);
        let gone = self.go(from, head, &course);
        if course.end.is_ok() && course.back.is_ok() {
            locked(&self.function(from).courses).keep(generation, head, course);
        }
        gone
    }

    /// Whether nothing that is armed can strike a request like this one, nor counts it.
    fn is_spared(&self, from: NodeId, head: Head) -> bool {
        if self.faults.may_strike_anything() || !(Port { machine: self, node: from }).can_send() {
            return false;
        }
        let generation = self.generation();
        let known =
            locked(&self.function(from).courses).find(generation, &head).map(|course| self.spares(from, course));
        known.unwrap_or_else(|| {
            let course = self.course(from, head);
            if course.end.is_err() || course.back.is_err() {
                return false;
            }
            let spares = self.spares(from, &course);
            locked(&self.function(from).courses).keep(generation, head, course);
            spares
        })
    }

    fn spares(&self, from: NodeId, course: &Course) -> bool {
        let end = match course.end {
            Ok(At::Function { node, .. }) => Some(Stop::At(node)),
            _ => None,
        };
        let way: Vec<Stop> = course.hops.iter().copied().map(Stop::By).chain(end).collect();
        self.faults.spares(self.fabric.tree(), Passing { from: Some(from), kind: course.kind, way: &way })
    }

    /// The same for one packet alone, with everything that can befall it: what goes on where faults
    /// that are armed may strike, of which a course knows nothing.
    fn packet_along(&self, from: NodeId, head: Head) -> Result<(Option<Landing>, u64), Failure> {
        let posted = head.kind.is_posted();
        let len = head.len.as_u64();
        if !(Port { machine: self, node: from }).can_send() {
            return if posted { Ok((None, len)) } else { Err(Failure::NotSent) };
        }
        let request = self.log.number();
        self.log.note(request, Happened::Sent { from: Some(from), head });
        let first = self.fabric.leave(from, head);
        let carried = match self.carry(request, Some(from), head, first) {
            Ok(carried) => carried,
            Err(stopped) if posted => {
                self.ended(request, stopped.ending);
                return Ok((None, len));
            }
            Err(stopped) => return Err(self.refused(request, &stopped, Some(from))),
        };
        if posted {
            let lost = matches!(carried.landing, Landing::AllOnes(_) | Landing::Translation(_));
            return Ok(((!lost).then_some(carried.landing), len));
        }
        if carried.landing.target().is_some_and(|(_, there)| there.as_u64() < len) {
            return Err(self.too_short(request, &carried.trace, &carried.landing, from));
        }
        self.bring_back(request, &carried, Some(from))?;
        Ok((Some(carried.landing), len))
    }

    /// Goes along a course.
    fn go(&self, from: NodeId, head: Head, course: &Course) -> Result<Stretch, Failure> {
        let (cut, one) = (course.cut, head.len.as_u64().min(course.cut));
        let left = course.holds.1 - head.address.as_u64() + 1;
        let request = if self.log.is_on() { self.log.number() } else { 0 };
        self.log.note(request, Happened::Sent { from: Some(from), head });
        for &egress in &course.hops {
            self.log.note(request, Happened::Went { egress, head });
            self.flush(egress);
        }
        let skipped = head.address.as_u64() - course.holds.0;
        let landing = course.end.and_then(|at| self.land(request, from, at, skipped, &head));
        let landing = match landing {
            Ok(landing) => landing,
            Err(ending) if head.kind.is_posted() => {
                self.ended(request, ending);
                return Ok(Stretch { landing: None, left: one, cut });
            }
            Err(ending) => {
                return Err(self.refused(request, &Stopped { ending, trace: course.trace }, Some(from)));
            }
        };
        if head.kind.is_posted() {
            let left = landing.target().map_or(one, |(_, there)| left.min(there.as_u64()).max(one));
            return Ok(Stretch { landing: Some(landing), left, cut });
        }
        let there = landing.target().map_or(u64::MAX, |(_, there)| there.as_u64());
        if there < one {
            return Err(self.too_short(request, &course.trace, &landing, from));
        }
        let left = left.min(there).max(one);
        let back = course.back.as_ref().map_err(|ending| self.completion_lost(request, *ending))?;
        for &egress in back {
            self.log.note(request, Happened::CompletionWent(egress));
            if !head.attributes.relaxed {
                self.flush(egress);
            }
        }
        self.log.note(request, Happened::Answered);
        Ok(Stretch { landing: Some(landing), left, cut })
    }

    /// Whoever has less than was asked for says so, instead of sending data.
    fn too_short(&self, request: u64, trace: &Trace, landing: &Landing, from: NodeId) -> Failure {
        self.told(request, trace, landing.site(), Failure::CompleterAbort, Some(from))
    }

    fn land(&self, request: u64, from: NodeId, at: At, skipped: u64, head: &Head) -> Result<Landing, Ending> {
        match at {
            At::Function { node, bar, offset } => {
                let offset = Bytes::new(offset + skipped);
                self.log.note(request, Happened::AtFunction { node, bar, offset });
                let (target, left) = self.at_function(request, node, head, bar, offset, Bytes::new(u64::MAX))?;
                Ok(Landing::Function(node, target, left))
            }
            At::Memory { host, at } => {
                let at = PhysAddr::new(at + skipped);
                self.log.note(request, Happened::InMemory { at });
                let (target, left) = self.memory_at(at);
                Ok(Landing::Memory(host, target, left))
            }
            At::AllOnes { host } => Ok(Landing::AllOnes(host)),
            At::Interrupt { at } => Ok(Landing::Interrupt { from, at: BusAddr::new(at + skipped) }),
        }
    }

    /// Finds the course of a request, without moving anything.
    fn course(&self, from: NodeId, head: Head) -> Course {
        let address = head.address.as_u64();
        let mut reach = Reach::new(address);
        self.reach_of_device(&mut reach, from);
        let (mut hops, mut pieces) = (Vec::new(), u64::MAX);
        let (mut now, mut trace) = (head, Trace::new(head));
        let mut arrival = self.fabric.leave(from, head);
        let end = loop {
            match arrival {
                Arrival::Forward { egress, head: next, cut, holds: within } => {
                    if hops.len() >= MOST_HOPS {
                        break Err(Ending::UndefinedRoot(self.fabric.tree().host(from)));
                    }
                    if let Some(within) = within {
                        reach.apart(now.address, within.start().as_u64(), within.last().as_u64());
                    }
                    // The first of the pieces that it is cut into goes ahead for all.
                    pieces = cut.map_or(pieces, |cut| pieces.min(cut.as_u64()));
                    now = next.at(next.address, cut.map_or(next.len, |cut| cut.min(next.len)));
                    trace.goes(self.fabric.tree(), egress, now);
                    hops.push(egress);
                    self.reach_of_hop(&mut reach, egress, now.address);
                    arrival = self.fabric.arrive(egress, now);
                }
                Arrival::Function { node, bar, offset, left } => {
                    let first = now.address.as_u64().saturating_sub(offset.as_u64());
                    reach.apart(now.address, first, now.address.as_u64().saturating_add(left.as_u64() - 1));
                    break Ok(At::Function { node, bar, offset: offset.as_u64() });
                }
                Arrival::Memory { host, at } => {
                    for stretch in &self.memory {
                        let (first, last) = (stretch.range.start().as_u64(), stretch.range.last().as_u64());
                        reach.apart(BusAddr::new(at.as_u64()), first, last);
                    }
                    break Ok(At::Memory { host, at: at.as_u64() });
                }
                Arrival::AllOnes { host } => break Ok(At::AllOnes { host }),
                Arrival::Interrupt { at, .. } if head.kind == Kind::Write => {
                    break Ok(At::Interrupt { at: at.as_u64() });
                }
                Arrival::Interrupt { host, .. } | Arrival::Translation { host } | Arrival::PageRequest { host } => {
                    break Err(Ending::Nowhere(host));
                }
                Arrival::End(ending) => break Err(ending),
            }
        };
        let holds = reach.holds();
        let skipped = address - holds.0;
        let back = match end {
            Ok(at) if !head.kind.is_posted() => self.way_back(from, at, &trace),
            _ => Ok(Vec::new()),
        };
        let end = end.map(|at| match at {
            At::Function { node, bar, offset } => At::Function { node, bar, offset: offset - skipped },
            At::Memory { host, at } => At::Memory { host, at: at - skipped },
            At::Interrupt { at } => At::Interrupt { at: at - skipped },
            ones @ At::AllOnes { .. } => ones,
        });
        Course { kind: head.kind, hops, end, trace, back, holds, cut: pieces.max(1) }
    }

    /// The way of the completion of a read that has come to `at`.
    fn way_back(&self, from: NodeId, at: At, trace: &Trace) -> Result<Vec<Egress>, Ending> {
        let site = match at {
            At::Function { node, .. } => Site::Node(node),
            At::Memory { host, .. } | At::AllOnes { host } => Site::Host(host),
            // Only writes are taken as interrupts.
            At::Interrupt { .. } => return Err(Ending::Unexpected(from)),
        };
        let mut hops = Vec::new();
        self.homeward(trace, site, trace.head.len, Some(from), |egress| hops.push(egress))?;
        Ok(hops)
    }
}
