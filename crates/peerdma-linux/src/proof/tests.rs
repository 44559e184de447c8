//! Claims about samples, and what a proof makes of them.

use super::prove::{By, Proof, Trial, Verdict};
use super::*;
use peerdma::addr::Bytes;
use std::io::Write;

fn proof(moved: [Result<u64, SampleError>; 3]) -> Proof {
    let trials = Keep::ALL.into_iter().zip(moved).map(|(keep, moved)| Trial {
        keep,
        moved: moved.map(|moved| Moved { pages: 1000, moved }),
        collapse: Collapse::default(),
        intact: true,
    });
    Proof { len: Bytes::new(1000 * 4096), by: By::Frames, trials: trials.collect(), notes: Vec::new() }
}

fn refused() -> SampleError {
    SampleError::Lock { len: Bytes::new(4096), errno: rustix::io::Errno::NOMEM }
}

#[test]
fn what_pinned_memory_did_counts_only_where_the_others_moved() {
    assert_eq!(proof([Ok(1000), Ok(900), Ok(0)]).verdict(), Verdict::Proven);
    assert_eq!(proof([Ok(899), Ok(1000), Ok(0)]).verdict(), Verdict::Inconclusive);
    assert_eq!(proof([Ok(1000), Ok(899), Ok(0)]).verdict(), Verdict::Inconclusive);
    assert_eq!(proof([Ok(1000), Err(refused()), Ok(0)]).verdict(), Verdict::Inconclusive);
    assert_eq!(proof([Ok(1000), Ok(1000), Err(refused())]).verdict(), Verdict::Inconclusive);
    assert_eq!(proof([Ok(1000), Ok(1000), Ok(1)]).verdict(), Verdict::Refuted);
    assert_eq!(proof([Ok(0), Ok(0), Ok(1)]).verdict(), Verdict::Refuted);
}

/// It was proven, with a note.
#[test]
fn pinned_memory_that_holds_something_else_afterwards_refutes() {
    let mut proof = proof([Ok(1000), Ok(1000), Ok(0)]);
    proof.trials[2].intact = false;
    assert_eq!(proof.verdict(), Verdict::Refuted);
}

#[test]
fn a_sample_of_no_huge_pages_is_refused() {
    for len in [0, 4096, u64::MAX, u64::MAX - (2 << 20) + 1] {
        let refused = Sample::new(Keep::Plain, Bytes::new(len), Fill::Distinct).map(|_| ()).unwrap_err();
        assert!(matches!(refused, SampleError::Size { .. } | SampleError::Map { .. }), "{refused}");
    }
}

#[test]
fn a_page_that_is_given_back_has_moved_and_a_page_that_is_not_has_not() {
    let len = huge_page_size().unwrap_or(Bytes::new(2 << 20));
    let sample = Sample::new(Keep::Plain, len, Fill::Distinct).unwrap();
    assert!(sample.is_intact());
    let Some(moved) = sample.moved().unwrap() else {
        assert!(!sample.shows_frames());
        writeln!(std::io::stderr(), "SKIPPED frames: page frames are not shown to this process").unwrap();
        return;
    };
    assert_eq!(moved.moved, 0);
    let page = crate::memory::page_size();
    sample.discard(page, page).unwrap();
    assert!(!sample.is_intact());
    assert_eq!(sample.moved().unwrap().unwrap().moved, 1);
}

/// The claim of this whole part, on the kernel that runs the tests.
#[test]
fn pinned_memory_keeps_its_place_where_plain_and_locked_memory_moves() {
    let len = fitting(Bytes::new(4 << 20));
    let proof = match prove(len, |_| {}) {
        Ok(proof) => proof,
        Err(error) => {
            writeln!(std::io::stderr(), "SKIPPED proof: {error}").unwrap();
            return;
        }
    };
    if proof.verdict() == Verdict::Inconclusive {
        writeln!(std::io::stderr(), "SKIPPED proof: {:?}", proof.notes).unwrap();
        return;
    }
    assert_eq!(proof.verdict(), Verdict::Proven, "{proof:?}");
    assert!(proof.trials.iter().all(|trial| trial.intact), "{proof:?}");
    let pinned = &proof.trials[2];
    assert_eq!(pinned.collapse.done, 0, "{pinned:?}");
    assert_eq!(pinned.collapse.refused.values().sum::<u64>(), pinned.collapse.asked);
}
