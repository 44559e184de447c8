//! The buffer itself: one life behind one lock, and an outbox.

use super::Attendance;
use super::attachment::{AttachError, MapRefused};
use super::disturbing::Held;
use super::importer::{Holder, Importer, Receipt};
use super::wake::Wake;
use crate::access::Prot;
use crate::buffer::Control;
use crate::buffer::fence::{Fence, FenceName, FenceSet, Reservation, ReservationLock, Signal};
use crate::buffer::life::{Action, Actions, AttachmentId, Event, Generation, Life, Notice, NoticeId, Refused, Still};
use crate::buffer::terms::{Declaration, Offer, Place, Terms, negotiate};
use crate::chunk::Chunks;
use crate::dma::{Owner, Peers};
use crate::sync::blocking::{Condvar, Mutex, MutexGuard};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

/// What all handles of one buffer share.
///
/// Lock order: the reservation, then `state`; nothing foreign is called while `state` is held.
pub(super) struct Inner {
    pub(super) name: String,
    pub(super) reservation: ReservationLock<Reservation>,
    state: Mutex<State>,
    changed: Condvar,
}

pub(super) struct State {
    pub(super) life: Life,
    pub(super) offer: Offer,
    /// The offer's ranges, for mappings to share.
    pub(super) ranges: Arc<Chunks<Owner>>,
    /// What the exporter permits now.
    pub(super) permitted: Prot,
    seats: BTreeMap<AttachmentId, Seat>,
    attached: u64,
    outbox: VecDeque<Letter>,
    delivering: bool,
    /// Whom to wake, as long as there is anybody.
    wakes: Vec<Weak<dyn Wake>>,
    /// What waits for fences; they know it by a weak handle.
    fences: Option<Arc<Awaited>>,
}

#[derive(Clone)]
pub(super) struct Seat {
    pub(super) holder: Holder,
    pub(super) terms: Terms,
    importer: Arc<dyn Importer>,
}

/// The wait for the fences that were in the reservation when all importers had been told.
struct Awaited {
    buffer: Weak<Inner>,
    generation: Generation,
    fences: FenceSet,
}

impl Awaited {
    /// Says so if all have retired. One that was abandoned never will.
    fn look(&self) {
        if let (true, Some(buffer)) = (self.fences.state().is_retired(), self.buffer.upgrade()) {
            // Said twice, or too late, it says nothing.
            let _ = buffer.step(Event::FencesRetired(self.generation));
        }
    }
}

impl Signal for Awaited {
    fn settled(&self) {
        self.look();
    }
}

/// One thing to do outside the lock.
enum Letter {
    Tell(Arc<dyn Importer>, AttachmentId, NoticeId, Notice),
    AwaitFences(Generation),
    Wake,
}

impl Inner {
    pub(super) fn new(name: &str, life: Life, offer: Offer) -> Self {
        let state = State {
            life,
            ranges: Arc::new(offer.all().clone()),
            permitted: offer.prot(),
            offer,
            seats: BTreeMap::new(),
            attached: 0,
            outbox: VecDeque::new(),
            delivering: false,
            wakes: Vec::new(),
            fences: None,
        };
        Self {
            name: name.into(),
            reservation: ReservationLock::new(Reservation::new()),
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    /// Takes one step and does what follows from it.
    pub(super) fn step(self: &Arc<Self>, event: Event) -> Result<(), Refused> {
        let mut state = self.state.lock();
        let actions = state.life.step(event)?;
        // Dropped when the lock is free: an importer may go with notices that it has not answered, and
        // each of them comes back here.
        let _gone = match event {
            Event::Detach(who) | Event::HungUp(who) => state.forget(who),
            _ => None,
        };
        self.follow(state, actions);
        Ok(())
    }

    /// Settles terms with an importer, and attaches it under a number of its own.
    pub(super) fn attach(
        self: &Arc<Self>,
        declaration: &Declaration,
        peers: &Peers<'_>,
        holder: Holder,
        importer: Arc<dyn Importer>,
    ) -> Result<(AttachmentId, Terms), AttachError> {
        let mut state = self.state.lock();
        // Under the lock, so that of two who want the buffer in full one is refused.
        let terms = negotiate(&state.offer, declaration, peers)?;
        let who = AttachmentId::new(state.attached + 1);
        let (lifetime, enforcement) = (terms.lifetime(), terms.enforcement());
        let actions = state.life.step(Event::Attach { who, lifetime, enforcement })?;
        state.attached += 1;
        if terms.control() == Control::Full {
            state.offer.set_in_full(Some(who));
        }
        if terms.pin().is_some() {
            state.offer.add_pin(who);
        }
        state.seats.insert(who, Seat { holder, terms: terms.clone(), importer });
        self.follow(state, actions);
        Ok((who, terms))
    }

    /// One more mapping for `who`, of what it asked for as far as that is permitted now.
    pub(super) fn map(
        self: &Arc<Self>,
        who: AttachmentId,
        terms: &Terms,
    ) -> Result<(Arc<Chunks<Owner>>, Prot, Generation), MapRefused> {
        let mut state = self.state.lock();
        let place = state.offer.place();
        if !terms.places().contains(&place) {
            return Err(MapRefused::Elsewhere { place, asked: terms.place() });
        }
        let (wanted, permitted) = (terms.prot(), state.permitted);
        let prot = wanted.within(permitted).ok_or(MapRefused::Permission { wanted, permitted })?;
        let actions = state.life.step(Event::Map(who))?;
        let mapped = (state.ranges.clone(), prot, state.life.generation());
        self.follow(state, actions);
        Ok(mapped)
    }

    /// Runs `f` on the state; for what changes nothing that anybody waits for.
    pub(super) fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        f(&mut self.state.lock())
    }

    /// Takes the lock, for [`sleep`](Self::sleep).
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Where the waiting is done.
    pub(super) fn changed(&self) -> &Condvar {
        &self.changed
    }

    /// Puts the actions into the outbox, in their order, and empties it unless somebody else is at it.
    ///
    /// One thread at a time delivers: two that had taken their letters out could deliver them the
    /// wrong way round, and an importer that hears "may map" before "let go" never maps again.
    fn follow<'a>(self: &'a Arc<Self>, mut state: MutexGuard<'a, State>, actions: Actions) {
        for action in actions {
            let letter = match action {
                Action::Tell { who, id, notice } => match state.seats.get(&who) {
                    Some(seat) => Letter::Tell(seat.importer.clone(), who, id, notice),
                    None => continue,
                },
                Action::AwaitFences(generation) => Letter::AwaitFences(generation),
                Action::Quiet | Action::Reachable => Letter::Wake,
            };
            state.outbox.push_back(letter);
        }
        if state.delivering {
            return;
        }
        state.delivering = true;
        while let Some(letter) = state.outbox.pop_front() {
            let wakes = match letter {
                Letter::Wake => state.wakes.iter().filter_map(Weak::upgrade).collect(),
                _ => Vec::new(),
            };
            drop(state);
            self.deliver(letter, &wakes);
            state = self.state.lock();
        }
        state.delivering = false;
    }

    fn deliver(self: &Arc<Self>, letter: Letter, wakes: &[Arc<dyn Wake>]) {
        match letter {
            Letter::Tell(importer, who, id, notice) => match notice {
                Notice::LetGo { cause } => importer.let_go(cause, Receipt::new(self, who, id)),
                Notice::MayMap { generation } => importer.may_map(generation, Receipt::new(self, who, id)),
                Notice::Gone => importer.gone(),
            },
            Letter::AwaitFences(generation) => self.await_fences(generation),
            Letter::Wake => {
                self.changed.notify_all();
                wakes.iter().for_each(|wake| wake.wake());
            }
        }
    }

    fn await_fences(self: &Arc<Self>, generation: Generation) {
        let fences: FenceSet = self.reservation.lock().outstanding().map(|(fence, _)| fence).collect();
        let awaited = Arc::new(Awaited { buffer: Arc::downgrade(self), generation, fences });
        let signal: Arc<dyn Signal> = awaited.clone();
        self.state.lock().fences = Some(awaited.clone());
        awaited.fences.notify(&signal);
        // Those that retired before they knew whom to tell.
        awaited.look();
    }

    /// Asks every importer to look whether it can let go, and looks at fences that were written off, which
    /// told nobody.
    pub(super) fn look(&self) {
        let state = self.state.lock();
        let importers: Vec<_> = state.seats.values().map(|seat| seat.importer.clone()).collect();
        let fences = state.fences.clone();
        drop(state);
        importers.iter().for_each(|importer| importer.look());
        fences.iter().for_each(|fences| fences.look());
    }
}

impl State {
    /// Who this is.
    fn holder(&self, who: AttachmentId) -> Option<&Holder> {
        self.seats.get(&who).map(|seat| &seat.holder)
    }

    pub(super) fn attendance(&self) -> Vec<Attendance> {
        let attached = self.life.attached().filter_map(|attached| {
            let seat = self.seats.get(&attached.who)?;
            let (holder, terms) = (seat.holder.clone(), seat.terms.clone());
            Some(Attendance { who: attached.who, holder, terms, mappings: attached.mappings })
        });
        attached.collect()
    }

    /// Who holds the memory in its place by a pin, mapped or not.
    pub(super) fn pinned(&self) -> Vec<AttachmentId> {
        self.seats.iter().filter(|(_, seat)| seat.terms.pin().is_some()).map(|(who, _)| *who).collect()
    }

    /// Every holder that does not reach this place.
    pub(super) fn out_of_reach(&self, place: Place) -> Vec<Holder> {
        let seats = self.seats.values().filter(|seat| !seat.terms.places().contains(&place));
        seats.map(|seat| seat.holder.clone()).collect()
    }

    /// Who holds on to this buffer of that name, and what is outstanding.
    pub(super) fn held(&self, name: &str) -> Vec<Held> {
        let outstanding = self.life.outstanding().into_iter().map(|outstanding| {
            let holder = outstanding.who.and_then(|who| self.holder(who).cloned());
            let fences = if outstanding.what == Still::Fences { self.fences() } else { Vec::new() };
            Held { buffer: name.into(), holder, what: outstanding.what, fences }
        });
        outstanding.collect()
    }

    /// Fences that the wait still lacks.
    fn fences(&self) -> Vec<FenceName> {
        self.fences.iter().flat_map(|awaited| awaited.fences.outstanding().map(Fence::name)).collect()
    }

    /// Takes out who has gone; not to be dropped while the lock is held.
    fn forget(&mut self, who: AttachmentId) -> Option<Seat> {
        let seat = self.seats.remove(&who)?;
        if seat.terms.control() == Control::Full {
            self.offer.set_in_full(None);
        }
        if seat.terms.pin().is_some() {
            self.offer.remove_pin(who);
        }
        Some(seat)
    }

    /// Calls `wake` whenever the buffer becomes quiet or comes within reach, as long as it lives.
    pub(super) fn wake(&mut self, wake: &Arc<dyn Wake>) {
        let wake = Arc::downgrade(wake);
        self.wakes.retain(|other| other.strong_count() > 0 && !other.ptr_eq(&wake));
        self.wakes.push(wake);
    }
}
