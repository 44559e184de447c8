//! Two buffers of one device, an importer of each, and authors who disturb both and obey their rules.
//!
//! An author announces to each buffer in turn, waits until both are quiet, acts, and tells each that it is
//! done. If one refuses, it takes back what it told the others; waiting, it may give up. A register has one
//! writer at a time.

use super::super::causes::Answers;
use super::super::disturbance::{DISTURBANCES, Disturbance, Duration};
use super::super::event::{Action, Event};
use super::super::phase::Phase;
use super::buffer::{Bounds, Buffer};
use super::closure::{Closure, World};
use crate::buffer::Lifetime;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

/// How far an author is; a number counts buffers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Stage {
    Idle,
    /// It has announced to so many.
    Announcing(usize),
    /// It has announced to all and looks whether all are quiet.
    Looks,
    /// It has looked, and sleeps until it is woken.
    Sleeps,
    /// It has begun to act and not finished.
    Acts,
    /// It has acted, and told so many.
    Done(usize),
    /// It takes back what it announced to those below this number.
    TakesBack(usize),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Author {
    disturbance: Disturbance,
    stage: Stage,
}

/// A device with two buffers.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Device<'a> {
    buffers: [Buffer<'a>; 2],
    authors: [Author; 2],
    registers: Answers,
    /// Somebody turned on what was off, and has told so many buffers.
    turned_on: Option<(Disturbance, usize)>,
}

#[derive(Clone, Copy, Debug)]
enum Move {
    /// An importer or a fence of this buffer.
    Importer(usize, Event),
    /// The author takes its next step.
    Author(usize),
    /// The author, waiting, gives up.
    GivesUp(usize),
    /// What was turned off is turned on, or the next buffer is told that it is.
    TurnsOn(Disturbance),
}

impl<'a> Device<'a> {
    /// Sends an event to a buffer, and wakes who waits for what came of it. False if it was refused.
    fn send(&mut self, buffer: usize, event: Event) -> Result<bool, String> {
        let Some((next, actions)) = self.buffers[buffer].stepped(event)? else { return Ok(false) };
        self.buffers[buffer] = next;
        if actions.contains(&Action::Quiet) {
            for author in self.authors.iter_mut().filter(|author| author.stage == Stage::Sleeps) {
                author.stage = Stage::Looks;
            }
        }
        Ok(true)
    }

    fn all_quiet(&self) -> bool {
        self.buffers.iter().all(|buffer| buffer.life.phase().is_quiet())
    }

    fn end(&self, disturbance: Disturbance, acted: bool) -> Event {
        Event::End { disturbance, answers: acted.then_some(self.registers) }
    }

    /// The next step of an author. False if it has none.
    fn author(&mut self, number: usize) -> Result<bool, String> {
        let Author { disturbance, stage } = self.authors[number];
        let happened = disturbance == Disturbance::Removal;
        let next = match stage {
            Stage::Idle if self.turned_on.is_some_and(|(state, _)| writes(disturbance, state)) => return Ok(false),
            // Memory that has died is given up once.
            Stage::Idle if disturbance.about().duration == Duration::Final && self.dead() => return Ok(false),
            Stage::Idle => Stage::Announcing(0),
            Stage::Announcing(told) => match self.send(told, Event::Begin(disturbance))? {
                true if told + 1 < self.buffers.len() => Stage::Announcing(told + 1),
                true => Stage::Looks,
                false => Stage::TakesBack(told),
            },
            Stage::Looks if self.all_quiet() => Stage::Acts,
            Stage::Looks => Stage::Sleeps,
            Stage::Sleeps => return Ok(false),
            Stage::Acts => {
                self.act(disturbance);
                Stage::Done(0)
            }
            // What is for good is not ended.
            Stage::Done(_) if disturbance.about().duration == Duration::Final => return Ok(false),
            Stage::Done(told) if told == self.buffers.len() => Stage::Idle,
            Stage::Done(told) => {
                if !self.send(told, self.end(disturbance, true))? {
                    return Err("whoever has begun may end".into());
                }
                Stage::Done(told + 1)
            }
            Stage::TakesBack(0) => Stage::Idle,
            Stage::TakesBack(left) => {
                if !self.send(left - 1, self.end(disturbance, false))? && !happened && !self.dead() {
                    return Err("whoever has begun may think better of it".into());
                }
                Stage::TakesBack(left - 1)
            }
        };
        self.authors[number].stage = next;
        Ok(true)
    }

    fn act(&mut self, disturbance: Disturbance) {
        match disturbance {
            Disturbance::DecodeOff => self.registers.decoding = false,
            Disturbance::PowerDown => self.registers.powered = false,
            // A reset leaves D0 with memory decoding off (PCIe 6.0 §6.6.2).
            Disturbance::FunctionReset => self.registers = Answers { decoding: false, powered: true },
            _ => {}
        }
    }

    /// Turns on what is off, and tells the buffers one by one. False if nothing is off.
    fn turn_on(&mut self, state: Disturbance) -> Result<bool, String> {
        let told = match self.turned_on {
            Some((turning, told)) if turning == state => told,
            Some(_) => return Ok(false),
            None => {
                let register = match state {
                    Disturbance::DecodeOff => &mut self.registers.decoding,
                    _ => &mut self.registers.powered,
                };
                let writes = |author: &Author| author.stage != Stage::Idle && writes(author.disturbance, state);
                let busy = self.authors.iter().any(writes);
                if *register || busy {
                    return Ok(false);
                }
                *register = true;
                self.turned_on = Some((state, 0));
                return Ok(true);
            }
        };
        // It may have been told by the registers read at another's end.
        if self.buffers[told].life.causes().has(state) && !self.send(told, self.end(state, true))? {
            return Err("what is off may be turned on".into());
        }
        self.turned_on = (told + 1 < self.buffers.len()).then_some((state, told + 1));
        Ok(true)
    }

    fn dead(&self) -> bool {
        self.buffers.iter().any(|buffer| buffer.life.phase() == Phase::Dead)
    }

    /// Memory that is used now is lost: its device does not answer, or is being dealt with.
    fn is_away(&self) -> bool {
        self.registers != Answers::YES || self.authors.iter().any(|author| author.stage == Stage::Acts)
    }

    fn checked(self) -> Result<Self, String> {
        let asleep = self.authors.iter().any(|author| author.stage == Stage::Sleeps);
        if asleep && self.all_quiet() {
            return Err(String::from("somebody sleeps who waits for what is true"));
        }
        if self.is_away() && self.buffers.iter().any(|buffer| buffer.mapped() > 0) {
            return Err(String::from("mapped while the device does not answer"));
        }
        Ok(self)
    }
}

/// Whether this disturbance writes the register that tells a state.
fn writes(disturbance: Disturbance, state: Disturbance) -> bool {
    disturbance == state || disturbance == Disturbance::FunctionReset
}

impl World for Device<'_> {
    type Move = Move;

    fn moves(&self) -> Vec<Move> {
        let mut moves = Vec::new();
        for (number, buffer) in self.buffers.iter().enumerate() {
            moves.extend(buffer.importers_moves().into_iter().map(|event| Move::Importer(number, event)));
        }
        for number in 0..self.authors.len() {
            moves.push(Move::Author(number));
            if matches!(self.authors[number].stage, Stage::Looks | Stage::Sleeps) {
                moves.push(Move::GivesUp(number));
            }
        }
        moves.extend([Disturbance::DecodeOff, Disturbance::PowerDown].map(Move::TurnsOn));
        moves
    }

    fn after(&self, chosen: Move) -> Result<Option<Self>, String> {
        let mut next = self.clone();
        let done = match chosen {
            Move::Importer(buffer, event) => next.send(buffer, event)?,
            Move::Author(number) => next.author(number)?,
            Move::GivesUp(number) => {
                next.authors[number].stage = Stage::TakesBack(next.buffers.len());
                true
            }
            Move::TurnsOn(state) => next.turn_on(state)?,
        };
        if done { next.checked().map(Some) } else { Ok(None) }
    }
}

/// Explores two authors over two buffers, with what was promised to the importer of each.
fn explored(name: &str, first: Disturbance, second: Disturbance, lifetimes: [Lifetime; 2]) -> Result<(), String> {
    let bounds = |lifetime| Bounds {
        lifetimes: vec![lifetime],
        disturbances: vec![first, second],
        begun: 2,
        mappings: 1,
        late: false,
        answers: Vec::new(),
    };
    let [one, other] = lifetimes.map(bounds);
    let idle = |disturbance| Author { disturbance, stage: Stage::Idle };
    let device = Device {
        buffers: [Buffer::born(&one, Answers::YES), Buffer::born(&other, Answers::YES)],
        authors: [idle(first), idle(second)],
        registers: Answers::YES,
        turned_on: None,
    };
    let closure = Closure::of(name, vec![device], 100_000)?;

    let at_rest = |device: &Device<'_>| device.authors.iter().all(|author| author.stage == Stage::Idle);
    let live = |device: &Device<'_>| device.buffers.iter().all(|buffer| buffer.life.phase() == Phase::Live);
    let rests = closure.can_reach(|device| at_rest(device) && live(device), |_| true);
    // Who announces a removal has seen it happen, and does not think better of it.
    let removed = |author: &Author| author.disturbance == Disturbance::Removal && author.stage != Stage::Idle;
    let gone = |device: &Device<'_>| {
        device.authors.iter().any(removed) || device.buffers.iter().any(|buffer| buffer.life.alive().is_err())
    };
    closure.all("all ends well, unless memory is gone", |number, device| rests[number] || gone(device))?;

    // Without anybody giving up, and with nobody new: an author gets to act by what importers do of themselves.
    let lets_go = |chosen: &Move| match chosen {
        Move::Importer(_, event) => Buffer::lets_go(event),
        Move::Author(_) => true,
        Move::GivesUp(_) | Move::TurnsOn(_) => false,
    };
    for number in 0..2 {
        let acts = |device: &Device<'_>| device.authors[number].stage == Stage::Acts;
        let acted = closure.can_reach(acts, |edge| lets_go(&edge.by));
        closure.all("who waits gets to act", |state, device| {
            !matches!(device.authors[number].stage, Stage::Looks | Stage::Sleeps) || acted[state]
        })?;
    }
    Ok(())
}

/// A reset of the function that ends while another is about to put it into D3.
#[test]
fn a_reset_and_a_power_down_of_one_device_overlap_without_harm() {
    let revocable = [Lifetime::Revocable; 2];
    explored("reset and power-down", Disturbance::FunctionReset, Disturbance::PowerDown, revocable).unwrap();
}

/// One buffer takes the announcement and the other refuses: what was announced is taken back.
#[test]
fn a_disturbance_that_one_buffer_refuses_is_taken_back_from_the_other() {
    let one_pins = [Lifetime::Revocable, Lifetime::Pinned];
    explored("a move refused by one", Disturbance::Move, Disturbance::DecodeOff, one_pins).unwrap();
}

/// Both wait; the one whose wait is for good wins, and the other is not left asleep.
#[test]
fn a_close_and_a_reset_of_one_device_overlap_without_harm() {
    let both = [Lifetime::Movable, Lifetime::Pinned];
    explored("close and reset", Disturbance::Close, Disturbance::FunctionReset, both).unwrap();
}

fn two_buffers(first: Disturbance, second: Disturbance) {
    explored(&format!("{first} and {second}"), first, second, [Lifetime::Movable, Lifetime::Revocable]).unwrap();
}

/// Each disturbance with the next, over two buffers.
#[test]
fn disturbances_of_one_device_overlap_without_harm() {
    let all = DISTURBANCES.iter().map(|about| about.disturbance);
    all.clone().zip(all.cycle().skip(1)).for_each(|(first, second)| two_buffers(first, second));
}

#[test]
#[ignore = "each with each is two minutes; run it after a change of the step"]
fn every_two_disturbances_of_one_device_overlap_without_harm() {
    let all = DISTURBANCES.iter().map(|about| about.disturbance);
    for (number, first) in all.clone().enumerate() {
        all.clone().skip(number).for_each(|second| two_buffers(first, second));
    }
}
