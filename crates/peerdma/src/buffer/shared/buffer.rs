//! The buffer itself: one life behind one lock, and an outbox.

use super::Attendance;
use super::attachment::{AttachError, MapRefused};
use super::disturbing::Group;
use super::fences::Waited;
use super::held::Held;
use super::importer::{Holder, Importer, Receipt};
use super::pinning::{Account, PinsGo};
use super::wake::Wake;
use crate::access::Prot;
use crate::buffer::Control;
use crate::buffer::fence::{Reservation, ReservationLock, Signal};
use crate::buffer::life::{
    Action, Actions, AttachmentId, Disturbance, Event, Generation, Life, Notice, NoticeId, Refused, Still,
};
use crate::buffer::pins::PinHandle;
use crate::buffer::terms::{Declaration, Offer, Terms, negotiate};
use crate::chunk::Chunks;
use crate::dma::{Owner, Peers};
use crate::sync::blocking::{Condvar, Mutex, MutexGuard, Panic};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

/// What all handles of one buffer share.
///
/// Lock order: the reservation, then `state`, then a [`Group`]'s members or a ledger; nothing foreign is called while `state` is held.
pub(super) struct Inner {
    me: Weak<Self>,
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
    pub(super) seats: BTreeMap<AttachmentId, Seat>,
    attached: u64,
    outbox: VecDeque<Letter>,
    delivering: bool,
    /// Whom to wake, as long as there is anybody.
    wakes: Vec<Weak<dyn Wake>>,
    /// How far the wait for fences has come.
    pub(super) fences: Waited,
    /// Where its bytes and its pins are counted.
    pub(super) account: Option<Account>,
    /// Pins of those who have gone, whose fences are yet to be looked at.
    pub(super) leaving: Vec<PinHandle>,
}

pub(super) struct Seat {
    pub(super) holder: Holder,
    pub(super) terms: Terms,
    /// What it said of itself, for ranges that come later.
    pub(super) declaration: Declaration,
    /// What is charged for it, where the buffer is counted.
    pub(super) pin: Option<PinHandle>,
    importer: Arc<dyn Importer>,
}

/// One thing to do outside the lock.
enum Letter {
    Tell(Arc<dyn Importer>, AttachmentId, NoticeId, Notice),
    AwaitFences(Generation),
    Wake,
}

impl Inner {
    pub(super) fn new(name: &str, life: Life, offer: Offer) -> Arc<Self> {
        let state = State {
            life,
            ranges: Arc::new(offer.all().clone()),
            offer,
            seats: BTreeMap::new(),
            attached: 0,
            outbox: VecDeque::new(),
            delivering: false,
            wakes: Vec::new(),
            fences: Waited::No,
            account: None,
            leaving: Vec::new(),
        };
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            name: name.into(),
            reservation: ReservationLock::new(Reservation::new()),
            state: Mutex::new(state),
            changed: Condvar::new(),
        })
    }

    /// Takes one step and does what follows from it.
    pub(super) fn step(self: &Arc<Self>, event: Event) -> Result<(), Refused> {
        let mut state = self.state.lock();
        let actions = state.life.step(event)?;
        // Dropped when the lock is free: an importer may go with notices that it has not answered, and
        // each of them comes back here.
        let _gone = match event {
            Event::Detach(who) | Event::HungUp(who) => Some((PinsGo(self), state.forget(who))),
            _ => None,
        };
        self.follow(state, actions);
        Ok(())
    }

    /// Begins a disturbance, of which the buffer is a member before anybody is told.
    pub(super) fn begin(self: &Arc<Self>, group: &Group) -> Result<(), Refused> {
        let mut state = self.state.lock();
        let disturbance = group.what();
        let holders = if disturbance == Disturbance::Move { state.pinned() } else { Vec::new() };
        if !holders.is_empty() {
            return Err(Refused::Promised { disturbance, holders });
        }
        let actions = state.life.step(Event::Begin(disturbance))?;
        // With the lock, and before importers run: whatever becomes of them, exactly what was begun is ended.
        group.join(self);
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
        let pins_here = terms.pin() == Some(state.offer.place());
        let pin = match state.account.as_ref().filter(|_| pins_here).map(|account| account.pin(holder.tenant)) {
            None => None,
            Some(Ok(pin)) => pin,
            Some(Err(refused)) => {
                // It has nothing mapped, and nobody has heard of it; its number is nobody's.
                let gone = state.life.step(Event::Detach(who));
                self.follow(state, gone.unwrap_or_default());
                return Err(AttachError::Pin(refused));
            }
        };
        state.attached += 1;
        if terms.control() == Control::Full {
            state.offer.set_in_full(Some(who));
        }
        if terms.pin().is_some() {
            state.offer.add_pin(who);
        }
        let seat = Seat { holder, terms: terms.clone(), declaration: declaration.clone(), pin, importer };
        state.seats.insert(who, seat);
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
        let (wanted, permitted) = (terms.prot(), state.offer.permitted());
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

    /// Is told when the reservation is given up, by whoever was turned away there.
    pub(super) fn when_free(&self) -> Weak<dyn Signal> {
        self.me.clone()
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
    /// wrong way round, and an importer that hears "may map" before "let go" never maps again. An importer that panics
    /// keeps no letter from the others; its panic goes on in this thread when all are delivered.
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
        let mut panic = Panic::default();
        while let Some(letter) = state.outbox.pop_front() {
            let wakes = match letter {
                Letter::Wake => state.wakes(),
                _ => Vec::new(),
            };
            drop(state);
            self.deliver(letter, &wakes, &mut panic);
            state = self.state.lock();
        }
        state.delivering = false;
        drop(state);
        panic.go_on();
    }

    fn deliver(self: &Arc<Self>, letter: Letter, wakes: &[Arc<dyn Wake>], panic: &mut Panic) {
        match letter {
            Letter::Tell(importer, who, id, notice) => panic.catch(|| match notice {
                Notice::LetGo { cause } => importer.let_go(cause, Receipt::new(self, who, id)),
                Notice::MayMap { generation } => importer.may_map(generation, Receipt::new(self, who, id)),
                Notice::Gone => importer.gone(),
            }),
            Letter::AwaitFences(generation) => self.await_fences(generation),
            Letter::Wake => {
                self.changed.notify_all();
                wakes.iter().for_each(|wake| panic.catch(|| wake.wake()));
            }
        }
    }

    /// Asks every importer to look whether it can let go, and looks at fences: at those that were written off, which
    /// told nobody, and at a reservation that could not be asked before.
    pub(super) fn look(self: &Arc<Self>) {
        let state = self.state.lock();
        let importers: Vec<_> = state.seats.values().map(|seat| seat.importer.clone()).collect();
        let fences = state.fences.clone();
        drop(state);
        let mut panic = Panic::default();
        importers.iter().for_each(|importer| panic.catch(|| importer.look()));
        match fences {
            Waited::No => {}
            Waited::Unasked { generation, .. } => self.await_fences(generation),
            Waited::For(awaited) => awaited.look(),
        }
        panic.go_on();
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

    /// Who holds the memory where it is by a pin, mapped or not. A pin of who asked for another place, to which it is yet to
    /// be moved, does not hold it here.
    pub(super) fn pinned(&self) -> Vec<AttachmentId> {
        let here = Some(self.offer.place());
        self.seats.iter().filter(|(_, seat)| seat.terms.pin() == here).map(|(who, _)| *who).collect()
    }

    /// Who holds on to this buffer of that name, and what is outstanding.
    pub(super) fn held(&self, name: &str) -> Vec<Held> {
        let outstanding = self.life.outstanding().into_iter().map(|outstanding| {
            let holder = outstanding.who.and_then(|who| self.holder(who).cloned());
            let waited = if outstanding.what == Still::Fences { Some(&self.fences) } else { None };
            Held {
                buffer: name.into(),
                who: outstanding.who,
                holder,
                what: outstanding.what,
                fences: waited.map(Waited::names).unwrap_or_default(),
                reservation_taken: waited.is_some_and(Waited::is_unasked),
            }
        });
        outstanding.collect()
    }

    /// Takes out who has gone; not to be dropped while the lock is held.
    fn forget(&mut self, who: AttachmentId) -> Option<Seat> {
        let mut seat = self.seats.remove(&who)?;
        self.leaving.extend(seat.pin.take());
        if seat.terms.control() == Control::Full {
            self.offer.set_in_full(None);
        }
        if seat.terms.pin().is_some() {
            self.offer.remove_pin(who);
        }
        Some(seat)
    }

    /// Those who are to be woken, as long as there are any.
    pub(super) fn wakes(&self) -> Vec<Arc<dyn Wake>> {
        self.wakes.iter().filter_map(Weak::upgrade).collect()
    }

    /// Calls `wake` whenever the buffer becomes quiet or comes within reach, as long as it lives.
    pub(super) fn wake(&mut self, wake: &Arc<dyn Wake>) {
        let wake = Arc::downgrade(wake);
        self.wakes.retain(|other| other.strong_count() > 0 && !other.ptr_eq(&wake));
        self.wakes.push(wake);
    }
}
