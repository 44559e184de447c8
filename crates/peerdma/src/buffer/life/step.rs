//! The machine itself: one event in, the actions it asks for out.

use super::causes::{Answers, Causes};
use super::disturbance::{Disturbance, Duration};
use super::event::{Action, Actions, AttachmentId, Event, Generation, Notice, NoticeId, Refused};
use super::phase::Phase;
use super::seat::{Attached, Informed, Outstanding, Seat, Still};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// How far the wait for fences is, in the present generation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
enum Fences {
    /// Not everybody has been told, so new ones may still come.
    Open,
    Awaited,
    Retired,
}

/// What those who wait were last woken for, so that each change wakes them once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
enum Woken {
    Quiet,
    Reachable,
    Neither,
}

/// The life of one buffer.
///
/// # Invariants
/// - A buffer that [is quiet](Phase::is_quiet) has no mapping, and none can be made.
/// - A buffer that is dead stays dead.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct Life {
    causes: Causes,
    generation: Generation,
    fences: Fences,
    woken: Woken,
    gone: bool,
    seats: BTreeMap<AttachmentId, Seat>,
}

impl Default for Life {
    fn default() -> Self {
        Self::new()
    }
}

impl Life {
    /// A buffer whose memory answers, and that nobody has attached to.
    pub fn new() -> Self {
        Self::born(Causes::NONE)
    }

    /// A buffer of memory that answers as the registers say: with decoding off it is born revoked.
    pub fn answering(answers: Answers) -> Self {
        Self::born(Causes::of(answers))
    }

    fn born(causes: Causes) -> Self {
        let woken = if causes.is_none() { Woken::Reachable } else { Woken::Quiet };
        // Nobody can have added a fence before there was a buffer.
        Self {
            causes,
            generation: Generation::FIRST,
            fences: Fences::Retired,
            woken,
            gone: false,
            seats: BTreeMap::new(),
        }
    }

    /// Where in its life the buffer is.
    pub fn phase(&self) -> Phase {
        if self.causes.is_none() {
            return match self.seats.values().all(|seat| seat.informed == Informed::MayMap) {
                true => Phase::Live,
                false => Phase::Restored,
            };
        }
        if self.fences != Fences::Retired || !self.all_told() {
            return Phase::Invalidating;
        }
        if self.seats.values().any(|seat| seat.mappings > 0) {
            return Phase::Draining;
        }
        match (self.causes.are_final(), self.causes.are_moves()) {
            (true, _) => Phase::Dead,
            (false, true) => Phase::Moving,
            (false, false) => Phase::Revoked,
        }
    }

    /// Why the buffer is out of reach.
    pub fn causes(&self) -> Causes {
        self.causes
    }

    /// What mappings made now belong to; it changes whenever the buffer is taken away.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Whether this attachment may map now.
    pub fn may_map(&self, who: AttachmentId) -> bool {
        self.causes.is_none() && self.seats.get(&who).is_some_and(|seat| seat.informed == Informed::MayMap)
    }

    /// Everybody who is attached, by number.
    pub fn attached(&self) -> impl Iterator<Item = Attached> + '_ {
        self.seats.iter().map(|(who, seat)| Attached {
            who: *who,
            lifetime: seat.lifetime,
            enforcement: seat.enforcement,
            mappings: seat.mappings,
        })
    }

    /// What a wait for a quiet buffer still lacks; nothing once it is quiet, or while nothing disturbs it.
    pub fn outstanding(&self) -> Vec<Outstanding> {
        let mut list = Vec::new();
        if self.causes.is_none() {
            return list;
        }
        for (who, seat) in &self.seats {
            if let Informed::BeingTold(id) = seat.informed {
                list.push(Outstanding { who: Some(*who), what: Still::ToNote(id) });
            }
        }
        if self.fences == Fences::Awaited {
            list.push(Outstanding { who: None, what: Still::Fences });
        }
        for (who, seat) in self.seats.iter().filter(|(_, seat)| seat.mappings > 0) {
            list.push(Outstanding { who: Some(*who), what: Still::Mapped(seat.mappings) });
        }
        list
    }

    /// Takes one event and tells what is to be done about it.
    ///
    /// # Errors
    /// [`Refused`], each with what to do instead; nothing has changed then.
    pub fn step(&mut self, event: Event) -> Result<Actions, Refused> {
        let mut actions = Actions::new();
        match event {
            Event::Attach { who, lifetime, enforcement } => {
                if self.causes.are_final() {
                    return Err(Refused::Dead { causes: self.causes });
                }
                if self.seats.contains_key(&who) {
                    return Err(Refused::AttachedAlready { who });
                }
                let informed = if self.causes.is_none() { Informed::MayMap } else { Informed::MustNot };
                self.seats.insert(who, Seat::new(lifetime, enforcement, informed));
            }
            Event::Detach(who) => match self.seat(who)?.mappings {
                0 => drop(self.seats.remove(&who)),
                mappings => return Err(Refused::StillMapped { who, mappings }),
            },
            Event::HungUp(who) => {
                self.seat(who)?;
                self.seats.remove(&who);
            }
            Event::Map(who) => self.map(who)?,
            Event::Unmap(who) => {
                let seat = self.seat(who)?;
                seat.mappings = seat.mappings.checked_sub(1).ok_or(Refused::NotMapped { who })?;
            }
            Event::Noted(who, id) => self.note(who, id),
            Event::FencesRetired(generation) => {
                if self.fences == Fences::Awaited && generation == self.generation {
                    self.fences = Fences::Retired;
                }
            }
            Event::Begin(disturbance) => self.begin(disturbance, &mut actions)?,
            Event::End { disturbance, answers } => self.end(disturbance, answers, &mut actions)?,
        }
        self.settle(&mut actions);
        Ok(actions)
    }

    fn seat(&mut self, who: AttachmentId) -> Result<&mut Seat, Refused> {
        self.seats.get_mut(&who).ok_or(Refused::NotAttached { who })
    }

    fn all_told(&self) -> bool {
        self.seats.values().all(|seat| !matches!(seat.informed, Informed::BeingTold(_)))
    }

    fn map(&mut self, who: AttachmentId) -> Result<(), Refused> {
        let (phase, causes) = (self.phase(), self.causes);
        let seat = self.seat(who)?;
        if causes.are_final() {
            return Err(Refused::Dead { causes });
        }
        // An importer that has not taken note that memory is back could take the notice for one to
        // come, and drop what it maps now.
        if !causes.is_none() || seat.informed != Informed::MayMap {
            return Err(Refused::OutOfReach { phase, causes });
        }
        seat.mappings = seat.mappings.checked_add(1).ok_or(Refused::TooMany)?;
        Ok(())
    }

    /// An answer to any notice but the last is late, and says nothing of the last.
    fn note(&mut self, who: AttachmentId, id: NoticeId) {
        let Some(seat) = self.seats.get_mut(&who) else { return };
        seat.informed = match seat.informed {
            Informed::BeingTold(last) if last == id => Informed::MustNot,
            Informed::BeingCalled(last) if last == id => Informed::MayMap,
            other => other,
        };
    }

    fn begin(&mut self, disturbance: Disturbance, actions: &mut Actions) -> Result<(), Refused> {
        let in_the_way = |seat: &Seat| seat.mappings > 0 && disturbance.respects(seat.lifetime);
        let holders: Vec<_> = self.seats.iter().filter(|(_, seat)| in_the_way(seat)).map(|(who, _)| *who).collect();
        if !holders.is_empty() {
            return Err(Refused::Promised { disturbance, holders });
        }
        let reached = self.causes.is_none();
        if !self.causes.begin(disturbance) {
            return Err(Refused::TooMany);
        }
        if reached {
            self.generation = self.generation.next();
            self.fences = Fences::Open;
            self.woken = Woken::Neither;
            for (who, seat) in &mut self.seats {
                let id = seat.number();
                seat.informed = Informed::BeingTold(id);
                actions.push(Action::Tell { who: *who, id, notice: Notice::LetGo { cause: disturbance } });
            }
        }
        Ok(())
    }

    fn end(
        &mut self,
        disturbance: Disturbance,
        answers: Option<Answers>,
        actions: &mut Actions,
    ) -> Result<(), Refused> {
        // What has been given up for good cannot be had back; a removed device never could.
        let lasting = disturbance == Disturbance::Removal
            || (disturbance.about().duration == Duration::Final && self.phase() == Phase::Dead);
        if lasting || !self.causes.end(disturbance) {
            return Err(Refused::NotBegun { disturbance });
        }
        if let Some(answers) = answers {
            self.causes.set(answers);
        }
        if self.causes.is_none() {
            self.woken = Woken::Neither;
            for (who, seat) in &mut self.seats {
                let id = seat.number();
                seat.informed = Informed::BeingCalled(id);
                actions.push(Action::Tell { who: *who, id, notice: Notice::MayMap { generation: self.generation } });
            }
        }
        Ok(())
    }

    /// What follows from the new state, whatever led to it.
    fn settle(&mut self, actions: &mut Actions) {
        if !self.causes.is_none() && self.fences == Fences::Open && self.all_told() {
            self.fences = Fences::Awaited;
            actions.push(Action::AwaitFences(self.generation));
        }
        let phase = self.phase();
        if phase == Phase::Live && self.woken != Woken::Reachable {
            self.woken = Woken::Reachable;
            actions.push(Action::Reachable);
        }
        if phase.is_quiet() && self.woken != Woken::Quiet {
            self.woken = Woken::Quiet;
            actions.push(Action::Quiet);
        }
        if phase == Phase::Dead && !self.gone {
            self.gone = true;
            for (who, seat) in &mut self.seats {
                actions.push(Action::Tell { who: *who, id: seat.number(), notice: Notice::Gone });
            }
        }
    }
}
