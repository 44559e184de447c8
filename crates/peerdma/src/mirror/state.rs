//! The decision: what may stand in the device's table, and what happens to a request.

use super::counts::Counts;
use super::event::Event;
use super::range::{Keeping, Piece, RangeId, RegisterError, Registered, UnknownRange};
use super::request::{Answer, Brought, Fault, Finished, Parked, Ticket, Token, Wanted};
use super::runs::Runs;
use crate::access::Prot;
use crate::addr::{AddrRange, Bytes, Granule, ProcVa};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::mem;

/// Something is being taken from the device's table, until [`MirrorState::end`] is told that it is over.
///
/// Requests for these addresses wait meanwhile.
#[derive(PartialEq, Eq, Debug)]
#[must_use = "requests that meet it wait for its end"]
pub struct Invalidation {
    number: u64,
    /// What to take from the device's table before whatever is announced happens; the device must not use it after.
    pub taken: Vec<AddrRange<ProcVa>>,
    /// Pinned ranges of which a part has ended: the pins hold other pages than the process has there now.
    pub diverged: Vec<RangeId>,
    /// Pinned memory that comes back with other permissions.
    changed: Vec<AddrRange<ProcVa>>,
}

/// What is to be done when an invalidation is over.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[must_use = "requests wait"]
pub struct Ended {
    /// What to put into the device's table.
    pub map: Vec<(AddrRange<ProcVa>, Prot)>,
    /// Requests that waited; each is given back once, to be asked anew.
    pub parked: Vec<Parked>,
}

/// Which ranges of a process a device context may use, and what of them is in its table.
///
/// A caller with threads keeps it behind one lock, together with the device's table: what [`finish`](Self::finish)
/// permits to be mapped is mapped before the lock is given up (`Documentation/mm/hmm.rst`, `driver->update`).
///
/// # Examples
/// ```
/// use peerdma::access::{Access, Prot};
/// use peerdma::addr::{AddrRange, Bytes, Granule, ProcVa};
/// use peerdma::mirror::{Answer, Brought, Event, Fault, Finished, Keeping, MirrorState, Token, Wanted};
///
/// let page = Granule::new(Bytes::new(4096)).unwrap();
/// let heap = AddrRange::new(ProcVa::new(0x7000_0000), Bytes::new(0x10_0000)).unwrap();
/// let mut mirror = MirrorState::new(page);
/// mirror.register(heap, Prot::ReadWrite, Keeping::Faulting)?;
///
/// let wanted = Wanted { at: ProcVa::new(0x7000_1234), access: Access::Write };
/// let Fault::Bring(early) = mirror.fault(wanted, Token(1)) else { panic!("it is not there yet") };
/// // The page is touched; meanwhile the process throws it away.
/// let discard = mirror.begin(&Event::Discard(early.page()));
/// assert!(mirror.end(discard).parked.is_empty());
/// assert_eq!(mirror.finish(early, Brought::Page(Prot::ReadWrite)), Finished::Again(wanted));
///
/// let Fault::Bring(ticket) = mirror.fault(wanted, Token(1)) else { panic!("it is not there yet") };
/// let mapped = mirror.finish(ticket, Brought::Page(Prot::ReadWrite));
/// assert!(matches!(mapped, Finished::Map { prot: Prot::ReadWrite, .. }));
/// assert_eq!(mirror.fault(wanted, Token(2)), Fault::Answer(Answer::Success));
/// # Ok::<(), peerdma::mirror::RegisterError>(())
/// ```
#[derive(Debug)]
pub struct MirrorState {
    page: Granule,
    pieces: Runs<Piece>,
    present: Runs<Prot>,
    /// How often something has happened to each range; gone with the range.
    sequences: BTreeMap<RangeId, u64>,
    under_way: BTreeMap<u64, Vec<AddrRange<ProcVa>>>,
    parked: Vec<Parked>,
    ranges: u64,
    invalidations: u64,
    counts: Counts,
}

impl MirrorState {
    /// Nothing is registered. Pages are of this size.
    pub fn new(page: Granule) -> Self {
        Self {
            page,
            pieces: Runs::new(),
            present: Runs::new(),
            sequences: BTreeMap::new(),
            under_way: BTreeMap::new(),
            parked: Vec::new(),
            ranges: 0,
            invalidations: 0,
            counts: Counts::default(),
        }
    }

    /// Lets the context use a range.
    ///
    /// # Errors
    /// [`RegisterError`]; nothing has changed.
    pub fn register(
        &mut self,
        at: AddrRange<ProcVa>,
        prot: Prot,
        keeping: Keeping,
    ) -> Result<Registered, RegisterError> {
        if !self.page.aligns(at.start()) || !self.page.divides(at.len()) {
            return Err(RegisterError::NotPages { at, page: self.page.bytes() });
        }
        if let Some((other, piece)) = self.pieces.inside(at).first() {
            return Err(RegisterError::Overlap { at, other: *other, id: piece.id });
        }
        if self.is_under_way(at) {
            return Err(RegisterError::Busy { at });
        }
        let id = RangeId(self.ranges);
        self.ranges += 1;
        self.sequences.insert(id, 0);
        self.pieces.put(at, Piece { id, prot: Some(prot), keeping });
        let map = (keeping == Keeping::Pinned).then_some((at, prot));
        if map.is_some() {
            self.present.put(at, prot);
        }
        Ok(Registered { id, map })
    }

    /// Takes a range, or what is left of it, from the context.
    ///
    /// # Errors
    /// [`UnknownRange`] once nothing is left of it.
    pub fn unregister(&mut self, id: RangeId) -> Result<Invalidation, UnknownRange> {
        let own: Vec<_> = self.pieces_of(id).collect();
        if own.is_empty() {
            return Err(UnknownRange { id });
        }
        let mut change = Change::default();
        for at in own {
            self.drop_pieces(at, &mut change);
        }
        // Whoever takes a pinned range back knows that it ends.
        change.diverged.clear();
        Ok(self.start(change))
    }

    /// What is left of a range.
    pub fn pieces_of(&self, id: RangeId) -> impl Iterator<Item = AddrRange<ProcVa>> {
        self.pieces.all().filter(move |(_, piece)| piece.id == id).map(|(at, _)| at)
    }

    /// The first part of a range that is registered, with the name of what it is a part of.
    pub fn registered_in(&self, at: AddrRange<ProcVa>) -> Option<(AddrRange<ProcVa>, RangeId)> {
        self.pieces.inside(at).first().map(|(at, piece)| (*at, piece.id))
    }

    /// Takes note of an event, before the device may be let go on.
    pub fn begin(&mut self, event: &Event) -> Invalidation {
        let mut change = Change::default();
        match *event {
            Event::Discard(at) => {
                let at = self.whole_pages(at);
                self.touch(at, &mut change);
                self.end_pins(at, &mut change);
                self.take(at, &mut change);
            }
            Event::Unmap(at) => self.drop_pieces(self.whole_pages(at), &mut change),
            Event::Remap { from, to, len } => self.remap(self.whole_pages(from), to, len, &mut change),
            Event::Protect { at, prot } => self.protect(self.whole_pages(at), prot, &mut change),
            Event::Fork => self.fork(&mut change),
        }
        match change.affected.is_empty() {
            true => self.counts.elsewhere += 1,
            false => self.counts.invalidations += u64::from(!change.taken.is_empty()),
        }
        self.start(change)
    }

    /// An invalidation is over: the table does not hold what was taken, and the deed, if there was one, is done.
    pub fn end(&mut self, invalidation: Invalidation) -> Ended {
        self.under_way.remove(&invalidation.number);
        let mut ended = Ended::default();
        for at in invalidation.changed {
            for (at, piece) in self.pieces.inside(at) {
                // What another invalidation has its hands on comes back with that one, or not at all.
                if let (Keeping::Pinned, Some(prot), false) = (piece.keeping, piece.prot, self.is_under_way(at)) {
                    self.present.put(at, prot);
                    ended.map.push((at, prot));
                }
            }
        }
        let (waiting, ready) = mem::take(&mut self.parked).into_iter().partition(|parked| {
            let page = self.page_of(parked.wanted.at);
            page.is_some_and(|page| self.is_under_way(page))
        });
        (self.parked, ended.parked) = (waiting, ready);
        ended
    }

    /// A device found an address not to be in its table, or not for what it means to do.
    ///
    /// `token` is what a request that has to wait is given back with.
    pub fn fault(&mut self, wanted: Wanted, token: Token) -> Fault {
        self.counts.requests += 1;
        let Some(page) = self.page_of(wanted.at) else { return self.refuse(Answer::Invalid) };
        if self.is_under_way(page) {
            self.counts.parked += 1;
            self.parked.push(Parked { token, wanted });
            return Fault::Parked;
        }
        let Some((_, piece)) = self.pieces.at(wanted.at) else { return self.refuse(Answer::Invalid) };
        if !piece.prot.is_some_and(|prot| wanted.access.is_permitted_by(prot)) {
            return self.refuse(Answer::Invalid);
        }
        if piece.keeping == Keeping::Pinned {
            self.counts.requests_in_pinned += 1;
        }
        if self.permits(wanted) {
            return Fault::Answer(Answer::Success);
        }
        let sequence = self.sequences.get(&piece.id).copied().unwrap_or_default();
        Fault::Bring(Ticket { wanted, page, id: piece.id, sequence })
    }

    /// The page of a ticket was touched.
    pub fn finish(&mut self, ticket: Ticket, brought: Brought) -> Finished {
        let Ticket { wanted, page, id, sequence } = ticket;
        if self.sequences.get(&id) != Some(&sequence) || self.is_under_way(page) {
            self.counts.again += 1;
            return Finished::Again(wanted);
        }
        let may = self.pieces.at(wanted.at).and_then(|(_, piece)| piece.prot);
        let prot = match (brought, may) {
            (Brought::Page(prot), Some(may)) => may.within(prot),
            (Brought::Failed, _) => {
                self.counts.refused += 1;
                return Finished::Answer(Answer::Failure);
            }
            _ => None,
        };
        let Some(prot) = prot.filter(|prot| wanted.access.is_permitted_by(*prot)) else {
            self.counts.refused += 1;
            return Finished::Answer(Answer::Invalid);
        };
        if self.permits(wanted) {
            return Finished::Answer(Answer::Success);
        }
        self.counts.brought += 1;
        self.present.put(page, prot);
        Finished::Map { page, prot }
    }

    /// What was to be mapped could not be put into the device's table.
    pub fn not_mapped(&mut self, at: AddrRange<ProcVa>) {
        self.present.cut(at);
    }

    /// Whether a device may do something with all of a range without asking; else where it has to ask first.
    ///
    /// # Errors
    /// The first address that is not in the table for this.
    pub fn leads(&self, at: AddrRange<ProcVa>, access: crate::access::Access) -> Result<(), Wanted> {
        let mut next = at.start();
        loop {
            match self.present.at(next) {
                Some((run, prot)) if access.is_permitted_by(prot) => match run.last().checked_add(Bytes::new(1)) {
                    Some(after) if after <= at.last() => next = after,
                    _ => return Ok(()),
                },
                _ => return Err(Wanted { at: next, access }),
            }
        }
    }

    /// What stands in the device's table, as runs of one permission.
    pub fn present(&self) -> impl Iterator<Item = (AddrRange<ProcVa>, Prot)> {
        self.present.all()
    }

    /// What it came to so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    fn permits(&self, wanted: Wanted) -> bool {
        self.present.at(wanted.at).is_some_and(|(_, prot)| wanted.access.is_permitted_by(prot))
    }

    fn refuse(&mut self, answer: Answer) -> Fault {
        self.counts.refused += 1;
        Fault::Answer(answer)
    }

    fn page_of(&self, at: ProcVa) -> Option<AddrRange<ProcVa>> {
        let mask = self.page.bytes().as_u64() - 1;
        AddrRange::new(ProcVa::new(at.as_u64() & !mask), self.page.bytes())
    }

    /// All pages that a range has a part of.
    fn whole_pages(&self, at: AddrRange<ProcVa>) -> AddrRange<ProcVa> {
        let mask = self.page.bytes().as_u64() - 1;
        let (first, last) = (at.start().as_u64() & !mask, at.last().as_u64() | mask);
        AddrRange::from_inclusive(ProcVa::new(first), ProcVa::new(last)).unwrap_or(at)
    }

    fn is_under_way(&self, at: AddrRange<ProcVa>) -> bool {
        self.under_way.values().flatten().any(|other| other.start() <= at.last() && at.start() <= other.last())
    }

    /// Notes which ranges something happens to.
    fn touch(&self, at: AddrRange<ProcVa>, change: &mut Change) {
        for (at, piece) in self.pieces.inside(at) {
            change.affected.insert(piece.id);
            change.ranges.push(at);
        }
    }

    fn take(&mut self, at: AddrRange<ProcVa>, change: &mut Change) {
        change.taken.extend(self.present.cut(at).into_iter().map(|(at, _)| at));
    }

    /// The pinned parts of a range are registered no more.
    fn end_pins(&mut self, at: AddrRange<ProcVa>, change: &mut Change) {
        for (at, piece) in self.pieces.inside(at) {
            if piece.keeping == Keeping::Pinned {
                self.pieces.cut(at);
                change.diverged.insert(piece.id);
            }
        }
    }

    fn drop_pieces(&mut self, at: AddrRange<ProcVa>, change: &mut Change) {
        self.touch(at, change);
        self.end_pins(at, change);
        self.pieces.cut(at);
        self.take(at, change);
    }

    /// What faults moves along and has to be brought anew; what is pinned ends, as the device's addresses are the old ones.
    fn remap(&mut self, from: AddrRange<ProcVa>, to: ProcVa, len: Bytes, change: &mut Change) {
        let own = self.pieces.inside(from);
        self.drop_pieces(from, change);
        let Some(there) = AddrRange::new(to, len).map(|there| self.whole_pages(there)) else { return };
        self.drop_pieces(there, change);
        if own.is_empty() {
            return;
        }
        change.ranges.push(there);
        for (at, piece) in own.into_iter().filter(|(_, piece)| piece.keeping == Keeping::Faulting) {
            let offset = at.start().as_u64() - from.start().as_u64();
            // What is longer at the new place is one mapping with what was the last piece (mremap(2)).
            let room = there.len().as_u64().saturating_sub(offset);
            let len = if at.last() == from.last() { room } else { at.len().as_u64().min(room) };
            if let Some(moved) = there.slice(Bytes::new(offset), Bytes::new(len)) {
                self.pieces.put(moved, piece);
            }
        }
    }

    fn protect(&mut self, at: AddrRange<ProcVa>, prot: Option<Prot>, change: &mut Change) {
        self.touch(at, change);
        for (at, piece) in self.pieces.inside(at) {
            self.pieces.put(at, Piece { prot, ..piece });
            if piece.keeping == Keeping::Pinned {
                change.changed.push(at);
            }
        }
        self.take(at, change);
    }

    /// A private page that is written after a fork is a copy, in the parent too (Linux 7.2 `copy_page_range` invalidates
    /// such mappings for that reason); a pinned one is copied for the child at once.
    fn fork(&mut self, change: &mut Change) {
        let pieces: Vec<_> = self.pieces.all().filter(|(_, piece)| piece.keeping == Keeping::Faulting).collect();
        for (at, piece) in pieces {
            change.affected.insert(piece.id);
            let writable = self.present.inside(at).into_iter().filter(|(_, prot)| prot.writes());
            for (at, _) in writable.collect::<Vec<_>>() {
                change.ranges.push(at);
                self.take(at, change);
            }
        }
    }

    fn start(&mut self, change: Change) -> Invalidation {
        for id in change.affected {
            if let Some(sequence) = self.sequences.get_mut(&id) {
                *sequence += 1;
            }
        }
        let live: BTreeSet<RangeId> = self.pieces.all().map(|(_, piece)| piece.id).collect();
        self.sequences.retain(|id, _| live.contains(id));
        let number = self.invalidations;
        self.invalidations += 1;
        if !change.ranges.is_empty() {
            self.under_way.insert(number, change.ranges);
        }
        let (taken, changed) = (change.taken, change.changed);
        Invalidation { number, taken, diverged: change.diverged.into_iter().collect(), changed }
    }
}

/// What an event does, gathered.
#[derive(Default)]
struct Change {
    affected: BTreeSet<RangeId>,
    ranges: Vec<AddrRange<ProcVa>>,
    taken: Vec<AddrRange<ProcVa>>,
    changed: Vec<AddrRange<ProcVa>>,
    diverged: BTreeSet<RangeId>,
}
