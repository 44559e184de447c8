//! Every state with every event, and every way through them.

use super::super::life::Disturbance;
use super::*;
use crate::dma::confidential::{Case, Interface, MemoryKind, Way, check};
use std::collections::{BTreeMap, BTreeSet};

/// Every state that some way leads to, with one such way.
fn reachable() -> BTreeMap<State, Vec<Event>> {
    let mut found = BTreeMap::from([(State::new(), vec![])]);
    let mut left = vec![State::new()];
    while let Some(state) = left.pop() {
        for event in Event::ALL {
            let mut next = state;
            if next.step(*event).is_ok() && !found.contains_key(&next) {
                let way = [found[&state].as_slice(), &[*event]].concat();
                found.insert(next, way);
                left.push(next);
            }
        }
    }
    found
}

/// Every state that can be written, reachable or not.
fn every_state() -> impl Iterator<Item = State> {
    Stage::ALL.iter().flat_map(|stage| {
        [(false, false), (false, true), (true, false), (true, true)]
            .map(|(started, viommu)| State::written(*stage, started, viommu))
    })
}

#[test]
fn every_state_and_event_stands_in_exactly_one_row() {
    assert_eq!(every_state().count(), 7 * 4);
    for state in every_state() {
        for event in Event::ALL {
            assert_eq!(TABLE.iter().filter(|row| row.holds(&state, *event)).count(), 1, "{state:?} {event}");
        }
    }
    for row in TABLE {
        assert!(every_state().any(|state| row.holds(&state, row.event)), "{row:?}");
    }
}

/// The rules as a person would say them, without looking at the table.
fn by_the_words(state: &State, event: Event) -> Result<Stage, Barred> {
    use Stage::*;
    let stage = state.stage();
    if stage == Closed {
        return Err(Barred::Closed);
    }
    let open = matches!(stage, Shared | Prepared);
    match event {
        Event::Prepare => {
            if stage == Shared {
                Ok(Prepared)
            } else {
                Err(Barred::DoneAlready)
            }
        }
        Event::AttachViommu if !open || state.has_viommu() => Err(Barred::DoneAlready),
        Event::AttachViommu => {
            if state.is_started() {
                Err(Barred::ViommuAfterStart)
            } else {
                Ok(stage)
            }
        }
        Event::StartGuest => {
            if state.is_started() {
                Err(Barred::DoneAlready)
            } else {
                Ok(stage)
            }
        }
        Event::Lock => match stage {
            Shared => Err(Barred::NotPrepared),
            Prepared => {
                if state.has_viommu() {
                    Ok(Locking)
                } else {
                    Err(Barred::NoViommu)
                }
            }
            Failed => Err(Barred::InError),
            _ => Err(Barred::DoneAlready),
        },
        Event::Released => {
            if stage == Locking {
                Ok(Locked)
            } else {
                Err(Barred::NobodyWaits)
            }
        }
        Event::Run => match stage {
            Locked => {
                if state.is_started() {
                    Ok(Running)
                } else {
                    Err(Barred::GuestNotStarted)
                }
            }
            Locking => Err(Barred::NotReleased),
            Running => Err(Barred::DoneAlready),
            Failed => Err(Barred::InError),
            _ => Err(Barred::NotLocked),
        },
        Event::Unlock => {
            if open {
                Err(Barred::NotLocked)
            } else {
                Ok(Prepared)
            }
        }
        Event::Fail => match stage {
            Locked | Running => Ok(Failed),
            Failed => Err(Barred::DoneAlready),
            _ => Err(Barred::NotLocked),
        },
        Event::MapCpu | Event::AttachWithoutT => match stage {
            Shared | Prepared => Ok(stage),
            Locking => Err(Barred::BeingLocked),
            _ => Err(Barred::Private),
        },
        Event::AttachWithT => match stage {
            Running => Ok(stage),
            Failed => Err(Barred::InError),
            _ => Err(Barred::NotRunning),
        },
        Event::Close => Ok(Closed),
    }
}

#[test]
fn the_table_says_cell_by_cell_what_the_words_say_and_a_refusal_changes_nothing() {
    for before in every_state() {
        for event in Event::ALL {
            let mut state = before;
            let answer = state.step(*event);
            let expected = by_the_words(&before, *event);
            match (answer, expected) {
                (Ok(_), Ok(stage)) => {
                    assert_eq!(state.stage(), stage, "{before:?} {event}");
                    assert_eq!(state.is_started(), before.is_started() || *event == Event::StartGuest);
                }
                (Err(refusal), Err(why)) => {
                    assert_eq!(refusal, Refusal { event: *event, stage: before.stage(), why });
                    assert_eq!(state, before);
                }
                (answer, expected) => panic!("{before:?} {event}: {answer:?}, not {expected:?}"),
            }
        }
    }
}

#[test]
fn early_and_late_binding_are_the_same_steps_in_another_order() {
    use Event::*;
    let early = [Prepare, AttachViommu, Lock, Released, StartGuest, Run];
    let late = [AttachViommu, StartGuest, Prepare, Lock, Released, Run];
    let ended = |events: [Event; 6]| {
        let mut state = State::new();
        let mut actions: Vec<Action> = Vec::new();
        events.iter().for_each(|event| actions.extend(state.step(*event).unwrap()));
        actions.sort();
        (state, actions)
    };
    assert_eq!(ended(early), ended(late));
    assert_eq!(ended(early).0.stage(), Stage::Running);
}

#[test]
fn an_iommu_that_comes_after_the_guest_has_started_is_refused_by_name_and_no_lock_is_possible_then() {
    let mut state = State::new();
    for event in [Event::Prepare, Event::StartGuest] {
        state.step(event).unwrap();
    }
    let refusal = state.step(Event::AttachViommu).unwrap_err();
    assert_eq!(refusal.why, Barred::ViommuAfterStart);
    assert_eq!(
        refusal.to_string(),
        "attach-viommu is refused while prepared (viommu_after_start): the guest was measured with what it had when it \
         started; attach its IOMMU before that"
    );
    assert_eq!(state.step(Event::Lock).unwrap_err().why, Barred::NoViommu);
}

#[test]
fn nothing_is_locked_without_an_iommu_and_nothing_runs_before_its_guest() {
    for state in reachable().into_keys() {
        match state.stage() {
            Stage::Locking | Stage::Locked | Stage::Failed => assert!(state.has_viommu(), "{state:?}"),
            Stage::Running => assert!(state.has_viommu() && state.is_started(), "{state:?}"),
            Stage::Shared | Stage::Prepared | Stage::Closed => {}
        }
    }
}

/// What is undone by what.
const PAIRS: [(Action, Action); 6] = [
    (Action::Connect, Action::Disconnect),
    (Action::Bind, Action::Unbind),
    (Action::PutViommu, Action::TakeViommu),
    (Action::Revoke(Disturbance::Lock), Action::Return(Disturbance::Lock)),
    (Action::LockInterface, Action::StopInterface),
    (Action::MapPrivate, Action::UnmapPrivate),
];

#[test]
fn closing_undoes_from_wherever_it_comes_whatever_was_done_and_once() {
    // What has been done and not undone follows from the state alone, by whatever way it was reached.
    let mut standing: BTreeMap<State, [bool; PAIRS.len()]> = BTreeMap::from([(State::new(), [false; PAIRS.len()])]);
    let mut left = vec![State::new()];
    while let Some(before) = left.pop() {
        for event in Event::ALL {
            let (mut state, mut stands) = (before, standing[&before]);
            let Ok(actions) = state.step(*event) else { continue };
            for action in actions {
                for (stands, (does, undoes)) in stands.iter_mut().zip(PAIRS) {
                    assert!(action != does || !*stands, "{before:?} {event}: {action} twice");
                    assert!(action != undoes || *stands, "{before:?} {event}: {action} of nothing");
                    *stands = action == does || (*stands && action != undoes);
                }
            }
            assert!(state.stage() != Stage::Closed || stands == [false; PAIRS.len()], "{before:?}: {stands:?}");
            match standing.insert(state, stands) {
                None => left.push(state),
                Some(known) => assert_eq!(known, stands, "{before:?} {event}"),
            }
        }
    }
    assert_eq!(standing.len(), reachable().len());
}

#[test]
fn memory_comes_back_last_and_after_a_reset_where_a_guest_was_bound() {
    for before in reachable().into_keys().filter(|state| state.stage() != Stage::Closed) {
        let mut state = before;
        let actions = state.step(Event::Close).unwrap();
        let at = |action| actions.iter().position(|one| *one == action);
        if let Some(back) = at(Action::Return(Disturbance::Lock)) {
            assert!(back == actions.len() - 1 && at(Action::Reset) < Some(back), "{before:?}");
        }
        assert_eq!(at(Action::Reset).is_some(), before.stage() != Stage::Shared, "{before:?}");
    }
}

/// The two tables speak of the same thing from two sides.
#[test]
fn who_may_attach_agrees_with_the_rules_of_confidential_computing() {
    for before in every_state().filter(|state| !matches!(state.stage(), Stage::Locking | Stage::Closed)) {
        let ask = |initiator, way| check(&Case { initiator, memory: before.memory(), way, same_guest: true });
        let attaches = |event| before.clone().step(event).is_ok();
        assert_eq!(attaches(Event::AttachWithoutT), ask(Interface::Plain, Way::Iommu).is_ok(), "{before:?}");
        let private =
            matches!(before.memory(), MemoryKind::Mmio(Interface::Locked | Interface::Run | Interface::Error));
        let with_t = private && ask(Interface::Run, Way::BoundStream).is_ok();
        assert_eq!(attaches(Event::AttachWithT), with_t, "{before:?}");
        assert_eq!(attaches(Event::MapCpu), !private, "{before:?}");
    }
}

#[test]
fn words_and_reasons_are_used_once_and_every_reason_is_given_somewhere() {
    let words: BTreeSet<_> = Barred::ALL.iter().map(|why| why.word()).collect();
    assert_eq!(words.len(), Barred::ALL.len());
    for why in Barred::ALL {
        assert!(TABLE.iter().any(|row| row.answer == Answer::Refused(*why)), "{why}");
    }
}

/// The rows below the heading in `docs/states.md`.
#[test]
fn the_documentation_holds_the_table_of_private_memory() {
    let either = |known: Option<bool>, yes: &'static str, no: &'static str| match known {
        Some(true) => yes,
        Some(false) => no,
        None => "",
    };
    let list = |words: Vec<&str>| words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    let rows: Vec<String> = TABLE
        .iter()
        .map(|row| {
            let (started, viommu) = (either(row.started, "yes", "no"), either(row.viommu, "yes", "no"));
            let stages = list(row.stages.iter().map(|stage| stage.word()).collect());
            let done = |actions: &[Action]| list(actions.iter().map(|action| action.word()).collect());
            let (becomes, what) = match row.answer {
                Answer::Goes(stage, actions) => (format!("`{stage}`"), done(actions)),
                Answer::Stays(actions) => (String::new(), done(actions)),
                Answer::Refused(why) => ("refused".to_string(), why.sentence().to_string()),
            };
            format!("| `{}` | {stages} | {started} | {viommu} | {becomes} | {what} |", row.event.word())
        })
        .collect();
    let document = include_str!("../../../../../docs/states.md");
    let section = document.lines().skip_while(|line| *line != "## Private memory").skip(1);
    let held: Vec<&str> =
        section.take_while(|line| !line.starts_with("## ")).filter(|it| it.starts_with("| `")).collect();
    assert_eq!(held, rows, "below \"## Private memory\" docs/states.md should hold:\n{}", rows.join("\n"));
}
