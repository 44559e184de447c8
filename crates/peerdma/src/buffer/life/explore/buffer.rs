//! One buffer among importers, authors of disturbances and fences that may do anything at any time.
//!
//! The surroundings keep books of their own, from the actions alone, and hold the machine against them.

use super::super::causes::Answers;
use super::super::disturbance::{Disturbance, Duration};
use super::super::event::{Action, AttachmentId, Event, Generation, Notice, NoticeId};
use super::super::step::Life;
use super::closure::World;
use crate::buffer::{Enforcement, Lifetime};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

mod claims;
mod tests;

/// What an importer has been told last and has taken note of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Knows {
    MayMap,
    MustNot,
    /// It has yet to take note of this notice.
    Asked(NoticeId, Calls),
}

/// What an importer is called to do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Calls {
    LetGo,
    MapAgain,
}

/// One importer, as it sees itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Importer {
    mappings: u32,
    knows: Knows,
    /// An answer of its to an earlier notice is still on its way.
    late: bool,
}

/// What the surroundings may do.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Bounds {
    /// One for each importer.
    pub(super) lifetimes: Vec<Lifetime>,
    pub(super) disturbances: Vec<Disturbance>,
    /// How many disturbances may be announced and not ended at a time.
    pub(super) begun: usize,
    pub(super) mappings: u32,
    /// Whether answers may be late.
    pub(super) late: bool,
    /// What registers may say.
    pub(super) answers: Vec<Option<Answers>>,
}

/// A buffer and its surroundings.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Buffer<'a> {
    pub(super) life: Life,
    bounds: &'a Bounds,
    importers: Vec<Option<Importer>>,
    /// Somebody waits for fences to retire.
    fences: bool,
    /// The end of an earlier such wait is still on its way.
    late_fences: bool,
    /// All fences have retired since memory was last taken away.
    retired: bool,
    /// What has been announced and not ended.
    pub(super) begun: Vec<Disturbance>,
}

/// Numbers after renumbering: what is late, the present ones, and from where new ones count.
const LATE: NoticeId = NoticeId::new(1);
const LAST: NoticeId = NoticeId::new(9);
const LATE_FENCES: Generation = Generation::new(0);
const NOW: Generation = Generation::new(1);

fn present(who: AttachmentId) -> NoticeId {
    NoticeId::new(2 + who.number())
}

fn who(importer: usize) -> AttachmentId {
    AttachmentId::new(importer as u64)
}

fn importer_of(who: AttachmentId) -> usize {
    who.number() as usize
}

/// Whether this step took memory away from its importers.
fn taken(before: &Buffer<'_>, after: &Buffer<'_>) -> bool {
    before.life.phase().is_reachable() && !after.life.phase().is_reachable()
}

impl<'a> Buffer<'a> {
    /// Memory that answers so, and that nobody has attached to.
    pub(super) fn born(bounds: &'a Bounds, answers: Answers) -> Self {
        let buffer = Self {
            life: Life::answering(answers),
            bounds,
            importers: bounds.lifetimes.iter().map(|_| None).collect(),
            fences: false,
            late_fences: false,
            retired: true,
            begun: Vec::new(),
        };
        buffer.renumbered()
    }

    /// Mappings that exist, as their importers count them.
    pub(super) fn mapped(&self) -> u32 {
        self.importers.iter().flatten().map(|importer| importer.mappings).sum()
    }

    /// What importers and fences may do, late answers included.
    pub(super) fn importers_moves(&self) -> Vec<Event> {
        let mut moves = Vec::new();
        for (number, importer) in self.importers.iter().enumerate() {
            let who = who(number);
            let Some(importer) = importer else {
                let (lifetime, enforcement) = (self.bounds.lifetimes[number], Enforcement::Cooperative);
                moves.push(Event::Attach { who, lifetime, enforcement });
                continue;
            };
            moves.extend([Event::Detach(who), Event::HungUp(who), Event::Unmap(who)]);
            if importer.mappings < self.bounds.mappings {
                moves.push(Event::Map(who));
            }
            if let Knows::Asked(id, _) = importer.knows {
                moves.push(Event::Noted(who, id));
            }
            if importer.late {
                moves.push(Event::Noted(who, LATE));
            }
        }
        if self.fences {
            moves.push(Event::FencesRetired(NOW));
        }
        if self.late_fences {
            moves.push(Event::FencesRetired(LATE_FENCES));
        }
        moves
    }

    /// Whether an importer could do this of itself to bring the wait for a quiet buffer to its end.
    pub(super) fn lets_go(event: &Event) -> bool {
        matches!(event, Event::Noted(..) | Event::FencesRetired(_) | Event::Unmap(_) | Event::HungUp(_))
    }

    /// Where an event leads, and what it asks for; `None` if it is refused.
    pub(super) fn stepped(&self, event: Event) -> Result<Option<(Self, Vec<Action>)>, String> {
        let mut next = self.clone();
        match next.life.step(event) {
            Ok(actions) => {
                if taken(self, &next) {
                    next.late_fences |= next.fences && self.bounds.late;
                    (next.fences, next.retired) = (false, false);
                }
                next.note_down(event, &actions)?;
                claims::of_step(self, &next, event, &actions)?;
                claims::of_state(&next)?;
                Ok(Some((next.renumbered(), actions)))
            }
            Err(refused) => {
                if next.life != self.life {
                    return Err(format!("refused ({refused}) and changed something"));
                }
                claims::of_refusal(self, event, &refused)?;
                Ok(None)
            }
        }
    }

    /// Keeps the books of the surroundings.
    fn note_down(&mut self, event: Event, actions: &[Action]) -> Result<(), String> {
        let of = |who: AttachmentId| importer_of(who);
        match event {
            Event::Attach { who, .. } => {
                let knows = if self.life.may_map(who) { Knows::MayMap } else { Knows::MustNot };
                self.importers[of(who)] = Some(Importer { mappings: 0, knows, late: false });
            }
            Event::Detach(who) | Event::HungUp(who) => self.importers[of(who)] = None,
            Event::Map(who) => self.importer(who)?.mappings += 1,
            Event::Unmap(who) => self.importer(who)?.mappings -= 1,
            Event::Noted(who, id) => {
                let keeps_late = self.bounds.late;
                let importer = self.importer(who)?;
                match importer.knows {
                    // An answer may come twice, so the next one of this number is late.
                    Knows::Asked(last, calls) if last == id => {
                        importer.knows = if calls == Calls::LetGo { Knows::MustNot } else { Knows::MayMap };
                        importer.late |= keeps_late;
                    }
                    _ => importer.late = false,
                }
            }
            Event::FencesRetired(NOW) => (self.fences, self.retired) = (false, true),
            Event::FencesRetired(_) => self.late_fences = false,
            Event::Begin(disturbance) => {
                if !(disturbance == Disturbance::Removal && self.begun.contains(&disturbance)) {
                    self.begun.push(disturbance);
                    self.begun.sort_unstable();
                }
            }
            Event::End { disturbance, .. } => {
                if let Some(index) = self.begun.iter().position(|begun| *begun == disturbance) {
                    self.begun.remove(index);
                }
            }
        }
        for action in actions {
            match *action {
                Action::Tell { who, id, notice } => self.told(who, id, notice)?,
                Action::AwaitFences(_) => self.fences = true,
                Action::Quiet | Action::Reachable => {}
            }
        }
        Ok(())
    }

    fn told(&mut self, who: AttachmentId, id: NoticeId, notice: Notice) -> Result<(), String> {
        let keeps_late = self.bounds.late;
        let importer = self.importer(who)?;
        importer.late |= keeps_late && matches!(importer.knows, Knows::Asked(..));
        match notice {
            Notice::LetGo { .. } => importer.knows = Knows::Asked(id, Calls::LetGo),
            Notice::MayMap { .. } => importer.knows = Knows::Asked(id, Calls::MapAgain),
            Notice::Gone => {}
        }
        Ok(())
    }

    fn importer(&mut self, who: AttachmentId) -> Result<&mut Importer, String> {
        self.importers
            .get_mut(importer_of(who))
            .and_then(Option::as_mut)
            .ok_or_else(|| format!("{who} is not attached, and the machine thinks it is"))
    }

    /// The same state with the lowest numbers.
    fn renumbered(mut self) -> Self {
        let importers = &self.importers;
        // Should the machine wait for another answer than the one that it asked for last, it waits for ever.
        self.life.renumber(NOW, LAST, |who, id| match importers.get(importer_of(who)).and_then(Option::as_ref) {
            Some(Importer { knows: Knows::Asked(asked, _), .. }) if *asked == id => present(who),
            _ => LATE,
        });
        for (number, importer) in self.importers.iter_mut().enumerate() {
            if let Some(Importer { knows: Knows::Asked(asked, _), .. }) = importer {
                *asked = present(who(number));
            }
        }
        self
    }
}

impl World for Buffer<'_> {
    type Move = Event;

    fn moves(&self) -> Vec<Event> {
        let mut moves = self.importers_moves();
        for &disturbance in &self.bounds.disturbances {
            let has = self.begun.contains(&disturbance);
            if self.begun.len() < self.bounds.begun || (has && disturbance.about().duration == Duration::Final) {
                moves.push(Event::Begin(disturbance));
            }
            moves.extend(self.bounds.answers.iter().map(|&answers| Event::End { disturbance, answers }));
        }
        moves
    }

    fn after(&self, event: Event) -> Result<Option<Self>, String> {
        match self.stepped(event)? {
            // A final disturbance begun again may be one more than the bound allows.
            Some((next, _)) if next.begun.len() <= self.bounds.begun => Ok(Some(next)),
            _ => Ok(None),
        }
    }
}
