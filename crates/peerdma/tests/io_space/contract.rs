//! Spaces that keep the contract, and what the suite says of them.

use crate::paged::Paged;
use peerdma::addr::{Bytes, Iova};
use peerdma::dma::contract::{self, Fixture, Outcome, Recorded, Tally, Verdict};
use peerdma::dma::recording::{Profile, RecordingSpace};
use peerdma::dma::{Abilities, Changes, Granule, IovaRanges, MemAttrs, Mmio, SourceKind, Sources, WriteOnly};

/// Runs the suite and keeps what it reports.
pub(crate) fn outcomes<X: Fixture>(fixture: &mut X) -> (Tally, Vec<Outcome>) {
    let mut outcomes = Vec::new();
    let tally = contract::run(fixture, &mut |outcome| outcomes.push(outcome.clone()));
    (tally, outcomes)
}

pub(crate) fn assert_kept<X: Fixture>(fixture: &mut X, at_least: usize) -> Vec<Outcome> {
    let (tally, outcomes) = outcomes(fixture);
    let broken: Vec<_> = outcomes.iter().filter(|outcome| matches!(outcome.verdict, Verdict::Broken { .. })).collect();
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(tally.passed() && tally.held >= at_least, "{tally:?}");
    assert_eq!(outcomes.len(), tally.held + tally.broken + tally.not_applicable);
    outcomes
}

/// Every ability on, and a window that ends at the last usable byte of all.
fn liberal() -> Abilities {
    let all = Some(Mmio::AsMmio);
    Abilities {
        sources: Sources { physical: all, process: all, file: all },
        granule: Granule::PAGE_4K,
        usable: IovaRanges::from_inclusive([
            (Iova::new(u64::MAX - 0xfff_ffff), Iova::new(u64::MAX)),
            (Iova::new(0x1000), Iova::new(0x1fff)),
        ])
        .expect("two ranges apart"),
        attrs: MemAttrs::all(),
        placement: peerdma::dma::Placement::Chosen,
        write_only: WriteOnly::MayRead,
        changes: Changes::UNMAP_PART | Changes::UNMAP_SEVERAL | Changes::UNMAP_NOTHING | Changes::REPLACE,
        max_mappings: Some(64),
    }
}

#[test]
fn both_profiles_of_the_recording_space_keep_the_contract() {
    let type1 = assert_kept(&mut Recorded::new(RecordingSpace::new(Profile::Type1)), 18);
    assert!(type1.iter().all(|outcome| outcome.source != Some(SourceKind::File)
        || outcome.claim.contains("does not take") && outcome.verdict == Verdict::Held));
    let iommufd = assert_kept(&mut Recorded::new(RecordingSpace::new(Profile::Iommufd)), 34);
    assert!(iommufd.iter().any(|outcome| outcome.claim.contains("file that ends") && outcome.verdict == Verdict::Held));
}

#[test]
fn a_space_with_a_small_limit_keeps_the_contract() {
    let outcomes = assert_kept(&mut Recorded::new(RecordingSpace::new(Profile::Type1).with_max_mappings(8)), 18);
    let many = |word: &str| outcomes.iter().find(|outcome| outcome.claim.contains(word)).unwrap().verdict.clone();
    assert_eq!(many("one mapping more"), Verdict::Held);
    assert!(matches!(many("sixty-four"), Verdict::DoesNotApply { .. }));
}

#[test]
fn the_paged_model_keeps_the_contract_with_every_set_of_abilities() {
    let changes = [Changes::UNMAP_PART, Changes::UNMAP_SEVERAL, Changes::UNMAP_NOTHING, Changes::REPLACE];
    for set in 0..1 << changes.len() {
        let chosen = changes.iter().enumerate().filter(|(bit, _)| set & 1 << bit != 0).map(|(_, change)| *change);
        let abilities = Abilities { changes: chosen.collect(), ..liberal() };
        assert_kept(&mut Paged::new(abilities), 40);
    }
    for write_only in [WriteOnly::Refused, WriteOnly::Exact] {
        assert_kept(&mut Paged::new(Abilities { write_only, attrs: MemAttrs::empty(), ..liberal() }), 40);
    }
    for profile in [Profile::Type1, Profile::Iommufd] {
        assert_kept(&mut Paged::new(profile.abilities()), 18);
    }
}

#[test]
fn a_space_without_room_for_the_suite_is_not_passed() {
    let usable = IovaRanges::from_inclusive([(Iova::new(0), Iova::new(0x7_efff))]).unwrap();
    let (tally, outcomes) = outcomes(&mut Paged::new(Abilities { usable, ..liberal() }));
    assert!(!tally.passed());
    assert_eq!(outcomes.len(), 1);
}

#[test]
fn the_suite_leaves_only_what_it_found() {
    let mut fixture = Recorded::new(RecordingSpace::new(Profile::Iommufd));
    let before = fixture.area().unwrap();
    assert_kept(&mut fixture, 34);
    let space = fixture.into_space();
    assert!(space.mapped().is_empty());
    assert_eq!(before.len(), Bytes::new(contract::AREA_UNITS * 4096));
}

#[test]
fn an_outcome_reads_as_one_line() {
    let broken = Outcome {
        claim: "a claim",
        source: Some(SourceKind::Process),
        verdict: Verdict::Broken { why: "unmapping 0x0-0xfff gave 0 bytes, not 4 KiB".to_owned() },
    };
    assert_eq!(broken.to_string(), "broken: a claim (process addresses): unmapping 0x0-0xfff gave 0 bytes, not 4 KiB");
}
