//! What all handles of one pinner share.
//!
//! In a forked child none of the locks is taken: a thread that the child does not have may hold it for ever.
//!
//! Each lock is taken alone: `rings`, `pins`, `left`. No call of the kernel or of an [`Admission`] is made under `pins`,
//! and under `rings` only the making of another ring.

use super::admission::{Admission, Need, OwnLimit};
use super::error::{PinError, RingError};
use super::frames::Frames;
use super::holders::Holders;
use super::limit::Limit;
use super::options::{Options, RingKind};
use super::seat::Seat;
use super::table::{PinId, Table};
use super::unpin::Left;
use super::why::{self, Look};
use crate::own::maps::{Area, Maps};
use crate::own::pagemap::Pagemap;
use peerdma::addr::{AddrRange, Bytes, ProcVa};
use rustix::io::Errno;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The most that one slot takes (Linux 6.18 `io_validate_user_buf_range`).
pub(super) const MOST_OF_A_SLOT: u64 = 1 << 30;

/// A slot of one ring that is filled.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) seat: Arc<Seat>,
    ring: usize,
    pub(super) number: u32,
    pub(super) range: AddrRange<ProcVa>,
    /// What was admitted for it, to be released when it is empty again.
    need: Option<Need>,
}

#[derive(Debug)]
struct RingOf {
    seat: Arc<Seat>,
    free: Vec<u32>,
}

/// A pin, as the pinner knows it.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) range: AddrRange<ProcVa>,
    pub(super) charge: Bytes,
    pub(super) slots: usize,
}

#[derive(Debug)]
pub(super) struct Inner {
    options: Options,
    kind: RingKind,
    /// The limit that the first ring's thread had; a ring keeps what it was made with.
    limit: Limit,
    process: u32,
    rings: Mutex<Vec<RingOf>>,
    pins: Mutex<Table<Known>>,
    admission: Arc<dyn Admission>,
    /// Nothing where there is no `/proc`; then nothing is told apart.
    maps: Option<Maps>,
    pagemap: Option<Pagemap>,
    /// Pins that were dropped while devices used them.
    pub(super) left: Mutex<Vec<Left>>,
}

impl Inner {
    pub(super) fn open(options: Options) -> Result<Self, RingError> {
        let limit = Limit::of_this_thread();
        let admission = options.admission.clone().unwrap_or_else(|| Arc::new(OwnLimit));
        let (seat, kind) = open_ring(&*admission, 0, &options)?;
        let rings = Mutex::new(vec![RingOf { seat: Arc::new(seat), free: numbers(options.slots) }]);
        Ok(Self {
            options,
            kind,
            limit,
            process: std::process::id(),
            rings,
            pins: Mutex::new(Table::default()),
            admission,
            maps: Maps::of_this_process().ok(),
            pagemap: Pagemap::of_this_process().ok(),
            left: Mutex::new(Vec::new()),
        })
    }

    pub(super) fn kind(&self) -> RingKind {
        self.kind
    }

    pub(super) fn is_of_this_process(&self) -> bool {
        self.process == std::process::id()
    }

    /// Pins a range at as many slots as it takes.
    pub(super) fn pin(&self, range: AddrRange<ProcVa>) -> Result<(PinId, Vec<Slot>), PinError> {
        if !self.is_of_this_process() {
            return Err(PinError::Forked { range });
        }
        self.settle();
        let look = Look::at(self.maps.as_ref(), range);
        if let Some((at, why)) = look.certain() {
            return Err(PinError::Refused { range, at, why });
        }
        let limit = self.limit_now();
        let charge = look.charge(range);
        let slots = self.fill(&look, range, limit)?;
        let id = lock(&self.pins).insert(Known { range, charge, slots: slots.len() });
        Ok((id, slots))
    }

    fn limit_now(&self) -> Limit {
        match (self.limit, Limit::of_this_thread()) {
            (Limit::None, _) => Limit::None,
            (_, now) => now,
        }
    }

    /// Has all slots admitted, and then fills them: what is refused here costs no pinning.
    fn fill(&self, look: &Look, range: AddrRange<ProcVa>, limit: Limit) -> Result<Vec<Slot>, PinError> {
        let mut slots = Vec::new();
        for part in parts(range) {
            match self.admitted(look, (range, part), limit) {
                Ok(slot) => slots.push(slot),
                Err(error) => {
                    slots.into_iter().for_each(|slot| self.give_back(slot));
                    return Err(error);
                }
            }
        }
        for at in 0..slots.len() {
            let (number, part) = (slots[at].number, slots[at].range);
            let refused = match slots[at].seat.call(move |ring| ring.fill(number, part)) {
                Ok(Ok(())) => continue,
                Ok(Err(errno)) => self.refusal(range, look.charge(range), limit, errno),
                Err(_) => PinError::Forked { range },
            };
            slots.drain(at..).for_each(|slot| self.give_back(slot));
            self.empty(slots);
            return Err(refused);
        }
        Ok(slots)
    }

    fn admitted(
        &self,
        look: &Look,
        (range, part): (AddrRange<ProcVa>, AddrRange<ProcVa>),
        limit: Limit,
    ) -> Result<Slot, PinError> {
        let mut slot = self.take(part).map_err(|source| PinError::NoRing { range, source })?;
        let need = Need {
            range: part,
            charge: look.charge(part),
            whole: look.charge(range),
            compound: look.compound(part),
            limit,
            ring: slot.ring,
            slot: slot.number,
        };
        match self.admission.admit(&need) {
            Ok(()) => {
                slot.need = Some(need);
                Ok(slot)
            }
            Err(source) => {
                self.give_back(slot);
                Err(PinError::NotAdmitted { range, source })
            }
        }
    }

    fn refusal(&self, range: AddrRange<ProcVa>, charge: Bytes, limit: Limit, errno: Errno) -> PinError {
        match (errno, limit) {
            (Errno::NOMEM, Limit::None) => PinError::NoMemory { range },
            (Errno::NOMEM, limit) => PinError::Limit { range, charge, limit, holders: Holders::now() },
            (errno, _) if why::is_one_of_many(errno) => {
                let (at, why) = Look::at(self.maps.as_ref(), range).explained(errno);
                PinError::Refused { range, at, why }
            }
            (errno, _) => PinError::Kernel { range, errno },
        }
    }

    /// An empty slot, of another ring if those that are there are full.
    fn take(&self, range: AddrRange<ProcVa>) -> Result<Slot, RingError> {
        let mut rings = lock(&self.rings);
        if rings.iter().all(|ring| ring.free.is_empty()) {
            let (seat, _) = open_ring(&*self.admission, rings.len(), &self.options)?;
            rings.push(RingOf { seat: Arc::new(seat), free: numbers(self.options.slots) });
        }
        let found =
            rings.iter_mut().enumerate().find_map(|(ring, of)| Some((ring, of.free.pop()?, Arc::clone(&of.seat))));
        let Some((ring, number, seat)) = found else { unreachable!("a new ring has a slot at least") };
        Ok(Slot { seat, ring, number, range, need: None })
    }

    /// Takes an empty slot back; its charge is released first, since its place names the charge.
    fn give_back(&self, slot: Slot) {
        if let Some(need) = &slot.need {
            self.admission.released(need);
        }
        if let Some(ring) = lock(&self.rings).get_mut(slot.ring) {
            ring.free.push(slot.number);
        }
    }

    fn empty(&self, slots: Vec<Slot>) {
        for slot in slots {
            let number = slot.number;
            // A slot that cannot be emptied stays pinned and charged, and is not used again.
            if let Ok(Ok(())) = slot.seat.call(move |ring| ring.empty(number)) {
                self.give_back(slot);
            }
        }
    }

    /// Lets a pin go; in a forked child it is the parent's, and stays.
    pub(super) fn release(&self, id: PinId, slots: Vec<Slot>) {
        if self.is_of_this_process() {
            self.empty(slots);
            lock(&self.pins).remove(id);
        }
    }

    /// Leaves the books to the parent, in a forked child: what keeps them may take a lock as it goes, which a thread of
    /// the parent's had at the fork.
    pub(super) fn forget_books(&self) {
        std::mem::forget(Arc::clone(&self.admission));
    }

    /// Closes all rings; nothing is in them any more.
    pub(super) fn close(&self) {
        let rings = std::mem::take(&mut *lock(&self.rings));
        let count = rings.len();
        drop(rings);
        (0..count).for_each(|ring| self.admission.ring_closed(ring));
    }

    /// What is behind a range now, where pages are to be compared later and the process may see them.
    pub(super) fn note_frames(&self, range: AddrRange<ProcVa>) -> Option<Frames> {
        let pagemap = self.pagemap.as_ref().filter(|_| self.options.record_frames)?;
        let probe = range.slice(Bytes::ZERO, Bytes::new(1))?;
        // A look at one page is enough to see that nothing is to be seen.
        Frames::of(pagemap, probe).ok().filter(Frames::are_known)?;
        Frames::of(pagemap, range).ok().filter(Frames::are_known)
    }

    pub(super) fn records_frames(&self) -> bool {
        self.options.record_frames
    }

    pub(super) fn pagemap(&self) -> Option<&Pagemap> {
        self.pagemap.as_ref()
    }

    pub(super) fn areas(&self, range: AddrRange<ProcVa>) -> Vec<Area> {
        self.maps.as_ref().and_then(|maps| maps.areas(range).ok()).unwrap_or_default()
    }

    /// Everything that is mapped and may be accessed: address space that is only reserved has no pages, and much of it.
    pub(super) fn all_areas(&self) -> Vec<AddrRange<ProcVa>> {
        let Some(all) = AddrRange::from_inclusive(ProcVa::new(0), ProcVa::new(i64::MAX as u64)) else {
            return Vec::new();
        };
        let mapped = |area| match area {
            Area::Mapped(found) if found.readable || found.writable => {
                AddrRange::from_inclusive(ProcVa::new(found.start), ProcVa::new(found.end.saturating_sub(1)))
            }
            Area::Mapped(_) | Area::Hole(_) => None,
        };
        self.areas(all).into_iter().filter_map(mapped).collect()
    }

    pub(super) fn known(&self, id: PinId) -> Option<Known> {
        if !self.is_of_this_process() {
            return None;
        }
        lock(&self.pins).at(id).cloned()
    }

    pub(super) fn all(&self) -> Vec<(PinId, Known)> {
        if !self.is_of_this_process() {
            return Vec::new();
        }
        lock(&self.pins).iter().map(|(id, known)| (id, known.clone())).collect()
    }

    /// How many rings there are.
    pub(super) fn rings(&self) -> usize {
        self.seats().len()
    }

    pub(super) fn seats(&self) -> Vec<Arc<Seat>> {
        if !self.is_of_this_process() {
            return Vec::new();
        }
        lock(&self.rings).iter().map(|ring| Arc::clone(&ring.seat)).collect()
    }
}

fn open_ring(admission: &dyn Admission, number: usize, options: &Options) -> Result<(Seat, RingKind), RingError> {
    admission.admit_ring(number).map_err(RingError::NotAdmitted)?;
    Seat::open(options.ring, options.slots).inspect_err(|_| admission.ring_closed(number))
}

/// The lowest is taken first.
fn numbers(slots: u32) -> Vec<u32> {
    (0..slots).rev().collect()
}

/// A range in the pieces that slots take.
fn parts(range: AddrRange<ProcVa>) -> impl Iterator<Item = AddrRange<ProcVa>> {
    let len = range.len().as_u64();
    (0..len.div_ceil(MOST_OF_A_SLOT)).filter_map(move |piece| {
        let offset = piece * MOST_OF_A_SLOT;
        range.slice(Bytes::new(offset), Bytes::new((len - offset).min(MOST_OF_A_SLOT)))
    })
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
