//! The buffer itself: one life behind one lock, and an outbox.

use super::attachment::MapRefused;
use super::importer::{Holder, Importer, Receipt};
use super::wake::Wake;
use crate::access::Prot;
use crate::buffer::life::{Action, Actions, AttachmentId, Event, Generation, Life, Notice, NoticeId, Refused};
use crate::chunk::Chunks;
use crate::dma::Owner;
use crate::sync::blocking::{Condvar, Mutex, MutexGuard};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// What all handles of one buffer share.
///
/// Lock order: `state` is the only lock here, and nothing foreign is called while it is held.
pub(in crate::buffer) struct Inner {
    pub(super) name: String,
    state: Mutex<State>,
    changed: Condvar,
}

pub(super) struct State {
    pub(super) life: Life,
    pub(super) place: Arc<Chunks<Owner>>,
    pub(super) prot: Prot,
    seats: BTreeMap<AttachmentId, Seat>,
    attached: u64,
    outbox: VecDeque<Letter>,
    delivering: bool,
    wakes: Vec<Arc<dyn Wake>>,
}

#[derive(Clone)]
pub(super) struct Seat {
    pub(super) holder: Holder,
    importer: Arc<dyn Importer>,
}

/// One thing to do outside the lock.
enum Letter {
    Tell(Arc<dyn Importer>, AttachmentId, NoticeId, Notice),
    AwaitFences(Generation),
    Wake,
}

impl Inner {
    pub(super) fn new(name: &str, life: Life, place: Chunks<Owner>, prot: Prot) -> Self {
        let state = State {
            life,
            place: Arc::new(place),
            prot,
            seats: BTreeMap::new(),
            attached: 0,
            outbox: VecDeque::new(),
            delivering: false,
            wakes: Vec::new(),
        };
        Self { name: name.into(), state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Takes one step and does what follows from it.
    pub(super) fn step(self: &Arc<Self>, event: Event) -> Result<(), Refused> {
        let mut state = self.state.lock();
        let actions = state.life.step(event)?;
        if let Event::Detach(who) | Event::HungUp(who) = event {
            state.seats.remove(&who);
        }
        self.follow(state, actions);
        Ok(())
    }

    /// Attaches an importer under a number of its own.
    pub(super) fn seat(
        self: &Arc<Self>,
        holder: Holder,
        importer: Arc<dyn Importer>,
        event: impl FnOnce(AttachmentId) -> Event,
    ) -> Result<AttachmentId, Refused> {
        let mut state = self.state.lock();
        let who = AttachmentId::new(state.attached + 1);
        let actions = state.life.step(event(who))?;
        state.attached += 1;
        state.seats.insert(who, Seat { holder, importer });
        self.follow(state, actions);
        Ok(who)
    }

    /// One more mapping for `who`, of what it asked for as far as that is permitted now.
    pub(super) fn map(
        self: &Arc<Self>,
        who: AttachmentId,
        wanted: Prot,
    ) -> Result<(Arc<Chunks<Owner>>, Prot, Generation), MapRefused> {
        let mut state = self.state.lock();
        let permitted = state.prot;
        let prot = wanted.within(permitted).ok_or(MapRefused::Permission { wanted, permitted })?;
        let actions = state.life.step(Event::Map(who))?;
        let mapped = (state.place.clone(), prot, state.life.generation());
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
                Letter::Wake => state.wakes.clone(),
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
        let _ = self.step(Event::FencesRetired(generation));
    }
}

impl State {
    /// Who this is.
    pub(super) fn holder(&self, who: AttachmentId) -> Option<&Holder> {
        self.seats.get(&who).map(|seat| &seat.holder)
    }

    /// Calls `wake` whenever the buffer becomes quiet or comes within reach, from now on.
    pub(super) fn wake(&mut self, wake: Arc<dyn Wake>) {
        self.wakes.push(wake);
    }
}
