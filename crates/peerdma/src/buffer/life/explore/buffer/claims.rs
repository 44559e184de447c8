//! What must hold of every state, every step and every refusal.

use super::super::super::disturbance::{AgainstPins, Disturbance, Duration};
use super::super::super::event::{Action, Event, Notice, Refused};
use super::super::super::phase::Phase;
use super::super::super::seat::Still;
use super::{Buffer, Calls, Importer, Knows, LATE, LATE_FENCES, importer_of, taken, who};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

fn claim(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("not true: {}", what())) }
}

/// Importers that are attached, with their numbers.
fn attached<'b>(buffer: &'b Buffer<'_>) -> impl Iterator<Item = (usize, &'b Importer)> {
    buffer.importers.iter().enumerate().filter_map(|(number, importer)| Some((number, importer.as_ref()?)))
}

pub(super) fn of_state(buffer: &Buffer<'_>) -> Result<(), String> {
    let (life, phase) = (&buffer.life, buffer.life.phase());
    let counted: Vec<_> = life.attached().map(|seat| (importer_of(seat.who), seat.mappings)).collect();
    let own: Vec<_> = attached(buffer).map(|(number, importer)| (number, importer.mappings)).collect();
    claim(counted == own, || format!("the machine counts {counted:?}, the importers {own:?}"))?;

    if phase.is_quiet() {
        claim(buffer.mapped() == 0, || format!("nobody has mapped what is {phase}"))?;
        claim(buffer.retired, || format!("all fences have retired of what is {phase}"))?;
        let asked = attached(buffer).any(|(_, importer)| matches!(importer.knows, Knows::Asked(_, Calls::LetGo)));
        claim(!asked, || format!("everybody has taken note of what is {phase}"))?;
    }
    let reachable = life.causes().is_none();
    claim(reachable == phase.is_reachable(), || format!("{phase} says whether memory is within reach"))?;
    claim(buffer.begun.is_empty() || !reachable, || "what has begun and not ended keeps memory out of reach".into())?;
    for (number, importer) in attached(buffer) {
        let may = reachable && importer.knows == Knows::MayMap;
        claim(life.may_map(who(number)) == may, || format!("importer {number} may map: {may}"))?;
    }

    // A wait names what it lacks until it lacks nothing, and each of it is something that will come.
    let outstanding = life.outstanding();
    claim(outstanding.is_empty() == (reachable || phase.is_quiet()), || format!("{phase} lacks {outstanding:?}"))?;
    for lacks in outstanding {
        let comes = match (lacks.who, lacks.what) {
            (Some(of), Still::ToNote(id)) => {
                let importer = buffer.importers.get(importer_of(of)).and_then(Option::as_ref);
                importer.is_some_and(|importer| importer.knows == Knows::Asked(id, Calls::LetGo))
            }
            (Some(of), Still::Mapped(count)) => own.contains(&(importer_of(of), count)) && count > 0,
            (None, Still::Fences) => buffer.fences,
            _ => false,
        };
        claim(comes, || format!("{lacks:?} is something that comes"))?;
    }
    Ok(())
}

pub(super) fn of_step(before: &Buffer<'_>, after: &Buffer<'_>, event: Event, actions: &[Action]) -> Result<(), String> {
    let (old, new) = (before.life.phase(), after.life.phase());
    claim(old != Phase::Dead || new == Phase::Dead, || format!("dead stays dead, and is {new}"))?;
    claim(after.mapped() <= before.mapped() || old.is_reachable(), || format!("nobody maps what is {old}"))?;
    let goes_on = before.begun.iter().any(|begun| after.begun.contains(begun));
    claim(!(old.is_quiet() && goes_on) || new.is_quiet(), || {
        format!("what was granted goes on, and the buffer is {new}")
    })?;
    woken(before, after, event, actions)?;
    told(before, after, actions)?;
    again(after, event)?;
    let late = matches!(event, Event::Noted(_, LATE) | Event::FencesRetired(LATE_FENCES));
    claim(!late || (actions.is_empty() && before.life == after.life), || "a late answer changes nothing".into())
}

/// Nobody sleeps on: what somebody may wait for becomes true in a step that wakes.
fn woken(before: &Buffer<'_>, after: &Buffer<'_>, event: Event, actions: &[Action]) -> Result<(), String> {
    let (old, new) = (before.life.phase(), after.life.phase());
    let became = |is: fn(Phase) -> bool| is(new) && !is(old);
    let mut reachable = became(Phase::is_reachable) || became(|p| p == Phase::Live) || became(|p| p == Phase::Dead);
    if let Event::Noted(who, _) = event {
        reachable |= after.life.may_map(who) && !before.life.may_map(who);
    }
    let wakes = |action| actions.contains(&action);
    claim(wakes(Action::Quiet) == became(Phase::is_quiet), || format!("{actions:?} wakes who waits for quiet"))?;
    claim(wakes(Action::Reachable) == reachable, || format!("{actions:?} wakes who waits to map"))
}

/// Each is told once, when memory is taken, comes back, or dies; fences are waited for when all know.
fn told(before: &Buffer<'_>, after: &Buffer<'_>, actions: &[Action]) -> Result<(), String> {
    let (old, new) = (before.life.phase(), after.life.phase());
    let everybody: Vec<_> = attached(after).map(|(number, _)| number).collect();
    let whom = |is: fn(&Notice) -> bool| -> Vec<usize> {
        let of = |action: &Action| match action {
            Action::Tell { who, notice, .. } if is(notice) => Some(importer_of(*who)),
            _ => None,
        };
        actions.iter().filter_map(of).collect()
    };
    let expect = |when: bool| if when { everybody.clone() } else { Vec::new() };
    let taken = taken(before, after);
    let back = new.is_reachable() && !old.is_reachable();
    let died = new == Phase::Dead && old != Phase::Dead;
    claim(whom(|notice| matches!(notice, Notice::LetGo { .. })) == expect(taken), || "each lets go once".into())?;
    claim(whom(|notice| matches!(notice, Notice::MayMap { .. })) == expect(back), || "each is called once".into())?;
    claim(whom(|notice| matches!(notice, Notice::Gone)) == expect(died), || "each hears once that it is gone".into())?;
    claim((before.life.generation() != after.life.generation()) == taken, || "taking counts generations".into())?;

    let present = after.life.generation();
    for action in actions {
        let true_ = match action {
            Action::AwaitFences(generation) => {
                let asked =
                    attached(after).any(|(_, importer)| matches!(importer.knows, Knows::Asked(_, Calls::LetGo)));
                *generation == present && !asked && !after.retired
            }
            Action::Tell { notice: Notice::MayMap { generation }, .. } => *generation == present,
            _ => true,
        };
        claim(true_, || format!("{action:?} is asked for at its time"))?;
    }
    Ok(())
}

/// What is answered twice is answered once. What is announced twice tells nobody anew, and lasts until both are done.
fn again(after: &Buffer<'_>, event: Event) -> Result<(), String> {
    let ends = match event {
        Event::Noted(..) | Event::FencesRetired(_) => None,
        Event::Begin(disturbance) if disturbance.about().duration != Duration::Final => {
            Some(Event::End { disturbance, answers: None })
        }
        _ => return Ok(()),
    };
    let mut twice = after.life.clone();
    for said in [Some(event), ends].into_iter().flatten() {
        let actions = twice.step(said).map_err(|refused| format!("said again it is refused: {refused}"))?;
        claim(actions.is_empty(), || format!("said again it is {actions:?}"))?;
    }
    claim(twice == after.life, || format!("said again it leads to {twice:?}"))
}

/// A refusal has its reason, and the reason is true.
pub(super) fn of_refusal(before: &Buffer<'_>, event: Event, refused: &Refused) -> Result<(), String> {
    let own = |who| before.importers.get(importer_of(who)).and_then(Option::as_ref);
    let (life, dead) = (&before.life, before.life.phase() == Phase::Dead);
    let gone = dead || before.begun.contains(&Disturbance::Removal);
    let right = match (event, refused) {
        (Event::Attach { .. }, Refused::Dead { .. }) => gone,
        (Event::Map(_), Refused::Dead { .. }) => gone,
        (Event::Map(who), Refused::OutOfReach { .. }) => {
            !gone && (!life.causes().is_none() || own(who).is_some_and(|own| own.knows != Knows::MayMap))
        }
        (Event::Unmap(who), Refused::NotMapped { .. }) => own(who).is_some_and(|own| own.mappings == 0),
        (Event::Detach(who), Refused::StillMapped { mappings, .. }) => {
            own(who).is_some_and(|own| own.mappings == *mappings && own.mappings > 0)
        }
        (Event::Begin(disturbance), Refused::Promised { holders, .. }) => {
            let in_the_way = |number: usize, importer: &Importer| {
                importer.mappings > 0 && disturbance.respects(before.bounds.lifetimes[number])
            };
            let expected: Vec<_> = attached(before)
                .filter(|(number, own)| in_the_way(*number, own))
                .map(|(number, _)| who(number))
                .collect();
            disturbance.about().pinned == AgainstPins::Refused && *holders == expected && !holders.is_empty()
        }
        // Whoever has begun may end, unless it is for good.
        (Event::End { disturbance, .. }, Refused::NotBegun { .. }) => {
            let for_good =
                disturbance == Disturbance::Removal || (dead && disturbance.about().duration == Duration::Final);
            for_good || !(before.begun.contains(&disturbance) || life.causes().has(disturbance))
        }
        _ => false,
    };
    claim(right, || format!("{event:?} is refused because {refused}"))
}
