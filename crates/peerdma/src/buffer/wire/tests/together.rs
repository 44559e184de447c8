//! A life, its exporter and its importers, with messages under way in any order.
//!
//! The claim that matters: when the exporter calls the buffer quiet, no importer has it mapped, whatever
//! crossed on the way. Channels keep order, as sockets do; everything else is drawn.

use super::*;
use crate::buffer::life::{Action, Disturbance, Event, Life, NoticeId};
use proptest::prelude::*;
use std::collections::VecDeque;

struct Importer {
    session: ImporterSession,
    /// Mappings that exist, which only the importer itself knows.
    mapped: u32,
    open: VecDeque<NoticeId>,
    must_let_go: bool,
}

struct World {
    life: Life,
    sides: Vec<(ExporterSession, Importer)>,
    begun: Option<Disturbance>,
}

const IMPORTERS: usize = 2;

fn who(index: usize) -> AttachmentId {
    AttachmentId::new(index as u64)
}

impl World {
    fn new() -> Option<Self> {
        let mut life = Life::new();
        let mut sides = Vec::new();
        for index in 0..IMPORTERS {
            let (exporter, session) = attached()?;
            sides.push((exporter, Importer { session, mapped: 0, open: VecDeque::new(), must_let_go: false }));
            let (lifetime, enforcement) = (Lifetime::Revocable, Enforcement::Cooperative);
            life.step(Event::Attach { who: who(index), lifetime, enforcement }).ok()?;
        }
        Some(Self { life, sides, begun: None })
    }

    fn step(&mut self, event: Event) -> Result<(), crate::buffer::life::Refused> {
        let mut events = VecDeque::from([event]);
        let mut first = Ok(());
        let mut is_first = true;
        while let Some(event) = events.pop_front() {
            let stepped = self.life.step(event);
            match (stepped, is_first) {
                (Ok(actions), _) => {
                    for action in actions {
                        match action {
                            Action::Tell { who, id, notice } => {
                                let (exporter, _) = &mut self.sides[who.number() as usize];
                                assert_eq!(exporter.tell(id, notice, 0), Ok(()));
                            }
                            Action::AwaitFences(generation) => events.push_back(Event::FencesRetired(generation)),
                            Action::Quiet | Action::Reachable => {}
                        }
                    }
                }
                (Err(refused), true) => first = Err(refused),
                (Err(refused), false) => unreachable!("nothing that follows is refused: {refused}"),
            }
            is_first = false;
        }
        first
    }

    /// One thing happens, if it can.
    fn happen(&mut self, choice: u8, index: usize) {
        match choice {
            0 if self.begun.is_none() => {
                self.begun = Some(Disturbance::Reset);
                assert_eq!(self.step(Event::Begin(Disturbance::Reset)), Ok(()));
            }
            // Over, or given up before it began: both end it.
            1 => {
                if let Some(disturbance) = self.begun.take() {
                    assert_eq!(self.step(Event::End { disturbance, answers: None }), Ok(()));
                }
            }
            2 => {
                let _ = self.sides[index].1.session.ask();
            }
            3 => {
                let importer = &mut self.sides[index].1;
                if importer.mapped > 0 {
                    importer.mapped -= 1;
                    assert_eq!(importer.session.unmapped(1), Ok(()));
                }
            }
            // It takes note of the first or of the last.
            4 | 5 => {
                let importer = &mut self.sides[index].1;
                let notice = if choice == 4 { importer.open.pop_front() } else { importer.open.pop_back() };
                if let Some(notice) = notice {
                    importer.open.retain(|open| *open > notice);
                    assert_eq!(importer.session.note(notice), Ok(()));
                }
            }
            6 | 7 => self.reach_exporter(index),
            _ => self.reach_importer(index),
        }
    }

    fn reach_exporter(&mut self, index: usize) {
        let (exporter, importer) = &mut self.sides[index];
        let Some(said) = to_exporter(&mut importer.session, exporter) else { return };
        match said {
            Ok(Said::Map(request)) => {
                let granted = self.step(Event::Map(who(index))).is_ok();
                let (phase, generation) = (self.life.phase(), self.life.generation());
                let exporter = &mut self.sides[index].0;
                let answered = match granted {
                    true => exporter.grant(request, generation, Prot::ReadWrite),
                    false => exporter.deny(request, phase, "out of reach"),
                };
                assert_eq!(answered, Ok(()));
            }
            Ok(Said::Unmapped(1)) => assert_eq!(self.step(Event::Unmap(who(index))), Ok(())),
            Ok(Said::Noted(id)) => assert_eq!(self.step(Event::Noted(who(index), id)), Ok(())),
            other => unreachable!("an importer that keeps the rules is believed: {other:?}"),
        }
    }

    fn reach_importer(&mut self, index: usize) {
        let (exporter, importer) = &mut self.sides[index];
        let Some(heard) = to_importer(exporter, &mut importer.session) else { return };
        match heard {
            Ok(Heard::Granted { .. }) => importer.mapped += 1,
            Ok(Heard::LetGo { notice, .. }) => {
                importer.must_let_go = true;
                importer.open.push_back(notice);
            }
            Ok(Heard::MayMap { notice, .. }) => importer.open.push_back(notice),
            Ok(Heard::Denied { .. }) => {}
            other => unreachable!("an exporter that keeps the rules is believed: {other:?}"),
        }
    }

    fn check(&self) {
        if self.life.phase().is_quiet() {
            for (_, importer) in &self.sides {
                assert_eq!(importer.mapped, 0, "a quiet buffer is mapped");
            }
        }
        for (attached, (exporter, importer)) in self.life.attached().zip(&self.sides) {
            assert_eq!(attached.mappings, exporter.mappings(), "life and session count alike");
            assert!(importer.mapped <= exporter.mappings(), "a mapping is counted before it exists");
            assert!(importer.session.mappings() <= exporter.mappings());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_quiet_buffer_is_mapped_by_nobody_whatever_crosses(
        choices in proptest::collection::vec((0_u8..10, 0..IMPORTERS), 0..400)
    ) {
        let mut world = World::new().unwrap();
        for (choice, index) in choices {
            world.happen(choice, index);
            world.check();
        }
        // And importers that go on answering get everybody there, from wherever they are.
        if world.begun.is_none() {
            world.happen(0, 0);
        }
        for _ in 0..200 {
            for index in 0..IMPORTERS {
                for choice in [3, 5, 6, 8] {
                    world.happen(choice, index);
                    world.check();
                }
            }
        }
        prop_assert!(world.life.phase().is_quiet(), "{:?}", world.life.outstanding());
    }
}

/// The last notice of all reaches a peer that was told too often while it answered nothing.
#[test]
fn who_wakes_up_after_many_notices_knows_the_last() {
    let mut world = World::new().unwrap();
    for _ in 0..50 {
        world.happen(0, 0);
        world.happen(1, 0);
    }
    for _ in 0..200 {
        for choice in [5, 6, 8] {
            world.happen(choice, 0);
        }
    }
    assert!(world.life.may_map(who(0)) && world.sides[0].1.session.may_ask());
    assert!(!world.life.may_map(who(1)), "the other has not taken note");
}
