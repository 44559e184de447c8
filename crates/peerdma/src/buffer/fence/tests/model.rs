//! A reservation beside a list in which nothing is ever merged.

use super::super::*;
use proptest::prelude::*;

const TIMELINES: usize = 3;

#[derive(Clone, Debug)]
enum Step {
    /// Adds one of the fences of a timeline, or a new one.
    Add { timeline: usize, pick: u8, usage: usize },
    /// Retires up to one of them.
    Retire { timeline: usize, pick: u8, fails: bool },
    /// Replaces one timeline's by a new one of another.
    Replace { timeline: usize, by: usize, usage: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let timeline = || 0..TIMELINES;
    prop_oneof![
        4 => (timeline(), any::<u8>(), 0..4usize).prop_map(|(timeline, pick, usage)| Step::Add { timeline, pick, usage }),
        2 => (timeline(), any::<u8>(), any::<bool>())
            .prop_map(|(timeline, pick, fails)| Step::Retire { timeline, pick, fails }),
        1 => (timeline(), timeline(), 0..4usize).prop_map(|(timeline, by, usage)| Step::Replace { timeline, by, usage }),
    ]
}

/// Everything that was added, and which fences have retired, by number.
#[derive(Default)]
struct Model {
    added: Vec<(usize, u64, Usage)>,
    retired: [u64; TIMELINES],
}

impl Model {
    fn outstanding(&self) -> impl Iterator<Item = (usize, u64, Usage)> + '_ {
        self.added.iter().copied().filter(|(timeline, number, _)| *number > self.retired[*timeline])
    }
}

fn check(reservation: &Reservation, timelines: &[Timeline], model: &Model) -> Result<(), TestCaseError> {
    let place = |fence: &Fence| timelines.iter().position(|timeline| fence.is_on(timeline));
    for usage in Usage::ALL {
        let awaited: Vec<_> =
            (reservation.waits_for(usage)).map(|fence| (place(fence), fence.sequence().number())).collect();
        for (timeline, number, of) in model.outstanding().filter(|(_, _, of)| *of <= usage) {
            let waited = awaited.iter().any(|(other, later)| *other == Some(timeline) && *later >= number);
            prop_assert!(waited, "waiting for {usage} misses {number} of {timeline}, of usage {of}");
        }
        for (timeline, number) in awaited {
            let added =
                model.outstanding().any(|(other, same, of)| Some(other) == timeline && same == number && of <= usage);
            prop_assert!(added, "waiting for {usage} includes {number} of {timeline:?}");
        }
    }
    // One of each usage at most, however many were added.
    prop_assert!(reservation.outstanding().count() <= TIMELINES * Usage::ALL.len());
    Ok(())
}

proptest! {
    #[test]
    fn merging_hides_nothing_and_waits_for_nothing_else(steps in prop::collection::vec(step(), 1..60)) {
        let timelines: Vec<_> = (0..TIMELINES).map(|nth| Timeline::new(&format!("queue {nth}"))).collect();
        let mut fences: Vec<Vec<Fence>> = vec![Vec::new(); TIMELINES];
        let (mut reservation, mut model) = (Reservation::new(), Model::default());
        for step in steps {
            match step {
                Step::Add { timeline, pick, usage } => {
                    let known = &mut fences[timeline];
                    if known.is_empty() || pick % 3 != 0 {
                        known.push(timelines[timeline].issue());
                    }
                    let fence = known[known.len() - 1 - usize::from(pick) % known.len().min(4)].clone();
                    model.added.push((timeline, fence.sequence().number(), Usage::ALL[usage]));
                    reservation.reserve(1).unwrap();
                    reservation.add(fence, Usage::ALL[usage]).unwrap();
                }
                Step::Retire { timeline, pick, fails } => {
                    let Some(fence) = fences[timeline].get(usize::from(pick) % fences[timeline].len().max(1)) else {
                        continue;
                    };
                    let number = fence.sequence();
                    if fails {
                        timelines[timeline].fail(number, Failure::Device).unwrap();
                    } else {
                        timelines[timeline].retire_to(number).unwrap();
                    }
                    model.retired[timeline] = model.retired[timeline].max(number.number());
                }
                Step::Replace { timeline, by, usage } => {
                    let (fence, usage) = (timelines[by].issue(), Usage::ALL[usage]);
                    let number = fence.sequence().number();
                    fences[by].push(fence.clone());
                    // Weaker ones may be hidden behind a stronger one, never the other way round.
                    let strongest = model.outstanding().filter(|added| added.0 == timeline).map(|added| added.2).min();
                    match reservation.replace(&timelines[timeline], &fence, usage) {
                        Ok(0) => prop_assert_eq!(strongest, None),
                        Ok(_) => {
                            prop_assert!(strongest.is_some_and(|strongest| strongest >= usage));
                            model.added.retain(|added| added.0 != timeline);
                            model.added.push((by, number, usage));
                        }
                        Err(demotion) => {
                            prop_assert!(strongest.is_some_and(|strongest| strongest <= demotion.held));
                            prop_assert_eq!(demotion.asked, usage);
                        }
                    }
                }
            }
            check(&reservation, &timelines, &model)?;
        }
    }
}
