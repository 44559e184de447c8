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

/// What somebody may be waiting for; whoever turns one of them true wakes those who do.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Awaited {
    quiet: bool,
    live: bool,
    reachable: bool,
    dead: bool,
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
    /// Of all attachments, so that an answer outlives its attachment without being taken for another's.
    last_notice: NoticeId,
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
        // Nobody can have added a fence before there was a buffer.
        Self {
            causes,
            generation: Generation::FIRST,
            fences: Fences::Retired,
            last_notice: NoticeId::default(),
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
        let before = self.awaited();
        let mut may_map = false;
        match event {
            Event::Attach { who, lifetime, enforcement } => {
                self.alive()?;
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
            Event::Noted(who, id) => may_map = self.note(who, id),
            Event::FencesRetired(generation) => {
                if self.fences == Fences::Awaited && generation == self.generation {
                    self.fences = Fences::Retired;
                }
            }
            Event::Begin(disturbance) => self.begin(disturbance, &mut actions)?,
            Event::End { disturbance, answers } => self.end(disturbance, answers, &mut actions)?,
        }
        self.settle(before, may_map, &mut actions);
        Ok(actions)
    }

    fn awaited(&self) -> Awaited {
        let phase = self.phase();
        Awaited {
            quiet: phase.is_quiet(),
            live: phase == Phase::Live,
            reachable: phase.is_reachable(),
            dead: phase == Phase::Dead,
        }
    }

    /// Refuses what needs memory that there will never be again. Memory that is being given up may yet
    /// be kept, as long as mappings put that off.
    pub(super) fn alive(&self) -> Result<(), Refused> {
        match self.causes.has(Disturbance::Removal) || self.phase() == Phase::Dead {
            true => Err(Refused::Dead { causes: self.causes }),
            false => Ok(()),
        }
    }

    fn seat(&mut self, who: AttachmentId) -> Result<&mut Seat, Refused> {
        self.seats.get_mut(&who).ok_or(Refused::NotAttached { who })
    }

    fn all_told(&self) -> bool {
        self.seats.values().all(|seat| !matches!(seat.informed, Informed::BeingTold(_)))
    }

    fn map(&mut self, who: AttachmentId) -> Result<(), Refused> {
        self.seat(who)?;
        self.alive()?;
        let (phase, causes) = (self.phase(), self.causes);
        let seat = self.seat(who)?;
        // An importer that has not taken note that memory is back could take the notice for one to
        // come, and drop what it maps now.
        if !causes.is_none() || seat.informed != Informed::MayMap {
            return Err(Refused::OutOfReach { phase, causes });
        }
        seat.mappings = seat.mappings.checked_add(1).ok_or(Refused::TooMany)?;
        Ok(())
    }

    /// Whether it may map from now on. An answer to any notice but the last is late, and says nothing of the last.
    fn note(&mut self, who: AttachmentId, id: NoticeId) -> bool {
        let Some(seat) = self.seats.get_mut(&who) else { return false };
        match seat.informed {
            Informed::BeingTold(last) if last == id => seat.informed = Informed::MustNot,
            Informed::BeingCalled(last) if last == id => {
                seat.informed = Informed::MayMap;
                return true;
            }
            _ => {}
        }
        false
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
            self.tell(Notice::LetGo { cause: disturbance }, actions);
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
            self.tell(Notice::MayMap { generation: self.generation }, actions);
        }
        Ok(())
    }

    /// Tells everybody.
    fn tell(&mut self, notice: Notice, actions: &mut Actions) {
        for (who, seat) in &mut self.seats {
            self.last_notice = self.last_notice.next();
            let id = self.last_notice;
            match notice {
                Notice::LetGo { .. } => seat.informed = Informed::BeingTold(id),
                Notice::MayMap { .. } => seat.informed = Informed::BeingCalled(id),
                Notice::Gone => {}
            }
            actions.push(Action::Tell { who: *who, id, notice });
        }
    }

    /// What follows from the new state, whatever led to it.
    fn settle(&mut self, before: Awaited, may_map: bool, actions: &mut Actions) {
        if !self.causes.is_none() && self.fences == Fences::Open && self.all_told() {
            self.fences = Fences::Awaited;
            actions.push(Action::AwaitFences(self.generation));
        }
        let now = self.awaited();
        if now.quiet && !before.quiet {
            actions.push(Action::Quiet);
        }
        let died = now.dead && !before.dead;
        // Whoever waits for memory that will never be back must hear that too.
        if may_map || died || (now.reachable && !before.reachable) || (now.live && !before.live) {
            actions.push(Action::Reachable);
        }
        if died {
            self.tell(Notice::Gone, actions);
        }
    }
}

#[cfg(test)]
impl Life {
    /// Gives what only ever counts up other numbers, so that states that differ in nothing else are one.
    pub(super) fn renumber(
        &mut self,
        generation: Generation,
        last: NoticeId,
        number: impl Fn(AttachmentId, NoticeId) -> NoticeId,
    ) {
        (self.generation, self.last_notice) = (generation, last);
        for (who, seat) in &mut self.seats {
            match &mut seat.informed {
                Informed::BeingTold(id) | Informed::BeingCalled(id) => *id = number(*who, *id),
                Informed::MayMap | Informed::MustNot => {}
            }
        }
    }
}
