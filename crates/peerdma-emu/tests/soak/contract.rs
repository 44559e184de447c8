//! What every kind of importer has to do, each alone with the exporter.
//!
//! A kind that is added to [`Kind::ALL`] is held against all of it.

use super::platform;
use peerdma::buffer::life::Disturbance;
use peerdma::buffer::pins::RegionId;
use peerdma::buffer::terms::Place;
use peerdma_emu::sharing::party::{Past, Tally};
use peerdma_emu::sharing::set::{Kind, Set, with_set};

/// Steps that an importer may take until something is so.
const PATIENCE: u32 = 20_000;
const PLACES: [Place; 3] = [Place::Ram, Place::Device(RegionId::new(0)), Place::Device(RegionId::new(1))];

fn tally(set: &Set<'_>) -> Tally {
    set.parties.first().map(|(_, party)| party.tally()).unwrap_or_default()
}

/// Which buffer the importer is attached to.
fn number(set: &Set<'_>) -> usize {
    set.parties.first().map_or(0, |(_, party)| party.member().number())
}

fn place(set: &Set<'_>) -> Option<Place> {
    Some(set.exporter.offered(number(set))?.buffer.offer().place())
}

/// Lets the importer, the machine and the exporter go on until `is_so`; whether it came to that, and no rule was broken.
fn until(set: &mut Set<'_>, mut is_so: impl FnMut(&mut Set<'_>) -> bool) -> bool {
    for _ in 0..PATIENCE {
        if is_so(set) {
            return true;
        }
        if set.step_one().is_err() {
            return false;
        }
        set.disturb(false);
        set.machine.step();
    }
    false
}

fn works(set: &mut Set<'_>) -> bool {
    let done = tally(set).done;
    until(set, |set| tally(set).done > done + 1)
}

/// Announces it about the importer's buffer when it has that mapped, and goes on until it is over.
fn survives(set: &mut Set<'_>, what: Disturbance, to: Option<Place>) -> bool {
    let mut announced = false;
    let began = until(set, |set| {
        let is_mapped = set
            .exporter
            .offered(number(set))
            .is_some_and(|offered| offered.buffer.attached().iter().any(|attendance| attendance.mappings > 0));
        announced = is_mapped && set.exporter.announce(set.machine, what, number(set), to);
        announced
    });
    // The deed happens for as long as the exporter likes; nobody waits for ever.
    began && announced && until(set, |set| set.exporter.is_at_rest())
}

fn no_violation(set: &Set<'_>) -> bool {
    set.witnesses.iter().all(|witness| witness.violations() == 0)
}

/// Runs `claim` with each kind alone; the kinds of which it does not hold.
fn failing(kinds: &[Kind], claim: impl Fn(Kind, &mut Set<'_>) -> bool) -> Vec<Kind> {
    let holds = |kind: &Kind| {
        with_set(&platform(), 7, &[*kind], |set| claim(*kind, set) && no_violation(set)).expect("it can be set up")
    };
    kinds.iter().copied().filter(|kind| !holds(kind)).collect()
}

/// Those whose memory may be moved while they are attached.
fn movable() -> Vec<Kind> {
    let pins = [Kind::WritingOn, Kind::PinnedRegion, Kind::Display];
    Kind::ALL.into_iter().filter(|kind| !pins.contains(kind)).collect()
}

#[test]
fn each_lets_go_when_told_maps_again_and_works_on() {
    let failing = failing(&Kind::ALL, |kind, set| {
        // What a display has is not taken away but by the end of its buffer.
        let what = if kind == Kind::Display { Disturbance::Close } else { Disturbance::Permission };
        let mapped = tally(set).mapped;
        works(set) && survives(set, what, None) && works(set) && tally(set).mapped > mapped + 1
    });
    assert_eq!(failing, []);
}

#[test]
fn each_goes_on_to_another_buffer_when_its_own_is_closed() {
    let failing = failing(&Kind::ALL, |_, set| {
        let mapped = tally(set).mapped;
        works(set) && survives(set, Disturbance::Close, None) && works(set) && tally(set).mapped > mapped + 1
    });
    assert_eq!(failing, []);
}

/// Closes what stays in its GPU for good, until the importer has found a buffer that goes elsewhere.
fn finds_one_that_moves(set: &mut Set<'_>) -> bool {
    for _ in 0..20 {
        if set.exporter.is_moved(number(set)) {
            return true;
        }
        if !(survives(set, Disturbance::Close, None) && works(set)) {
            return false;
        }
    }
    false
}

#[test]
fn memory_goes_from_a_gpu_to_ram_to_another_and_back_and_whoever_follows_is_told_where_it_is() {
    let failing = failing(&movable(), |_, set| {
        PLACES.into_iter().chain([Place::Ram]).all(|to| {
            works(set)
                && finds_one_that_moves(set)
                && (place(set) == Some(to) || survives(set, Disturbance::Move, Some(to)))
                && works(set)
        })
    });
    assert_eq!(failing, []);
}

#[test]
fn each_that_takes_memory_which_may_be_lost_gets_over_a_reset_and_over_a_pulled_device() {
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Display).collect();
    let failing = failing(&kinds, |_, set| {
        // A buffer in RAM has no device; the next one that it goes to may.
        let over = |set: &mut Set<'_>, what| works(set) && survives(set, what, None) && works(set);
        over(set, Disturbance::FunctionReset) && over(set, Disturbance::PowerDown) && over(set, Disturbance::Removal)
    });
    assert_eq!(failing, []);
}

#[test]
fn one_page_past_the_end_is_refused_by_every_way_to_a_buffer() {
    for kind in Kind::ALL {
        let refused = with_set(&platform(), 7, &[kind], |set| {
            let mut refusals = Vec::new();
            // In device memory and in RAM, since what stands before them differs.
            while refusals.len() < 6 {
                let past = set.parties.first_mut().map_or(Past::NotNow, |(_, party)| party.past_the_end());
                match past {
                    Past::NotNow => assert!(set.step_one().is_ok(), "{kind:?}"),
                    Past::Refused(why) => {
                        refusals.push(why);
                        let mapped = tally(set).mapped;
                        assert!(until(set, |set| tally(set).mapped > mapped), "{kind:?}");
                    }
                    Past::Made => panic!("{kind:?} reached the page behind its buffer"),
                }
                set.machine.step();
            }
            assert!(no_violation(set), "{kind:?}");
            refusals
        });
        assert!(refused.expect("it can be set up").iter().all(|why| !why.is_empty()));
    }
}

#[test]
fn a_guest_goes_on_running_while_its_memory_is_away() {
    let cut_off = with_set(&platform(), 7, &[Kind::Guest], |set| {
        assert!(works(set));
        let announced = set.exporter.announce(set.machine, Disturbance::Permission, number(set), None);
        assert!(announced && until(set, |set| !set.exporter.held().is_empty() || set.exporter.is_at_rest()));
        let before = tally(set).cut_off;
        // Nobody ends the deed, and the guest is not stopped; it finds another buffer some time.
        (0..500).for_each(|_| assert!(set.step_one().is_ok()));
        assert!(no_violation(set));
        tally(set).cut_off - before
    });
    assert!(cut_off.expect("it can be set up") > 10);
}

#[test]
fn a_display_refuses_memory_that_may_be_taken_away() {
    let refused = with_set(&platform(), 7, &[Kind::Display], |set| {
        assert!(works(set));
        assert!(!set.exporter.announce(set.machine, Disturbance::Move, number(set), Some(Place::Ram)), "it is pinned");
        tally(set).refused
    });
    assert!(refused.expect("it can be set up") > 0);
}
