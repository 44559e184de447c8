//! Operations drawn by chance, on every format, with memory and without.

use crate::oracle::sequence::{self, BYTES, Op, drawn};
use crate::oracle::shapes::shapes;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

/// Draws sequences for every shape, the wide tables less often.
fn explore(cases: u32, length: usize, short_of_memory: bool) {
    for (name, shape) in shapes() {
        let cases = if shape.granule > 12 { 1 + cases / 8 } else { cases };
        let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
        let mut runner = TestRunner::new(config);
        let bytes = vec(any::<[u8; BYTES]>(), 1..length);
        let outcome = runner.run(&bytes, |bytes| {
            let ops = drawn(&shape, bytes);
            sequence::run(&shape, &ops, short_of_memory)
                .map_err(|why| TestCaseError::fail(format!("{why}\nof {ops:#x?}")))
        });
        outcome.unwrap_or_else(|failure| panic!("{name}: {failure}"));
    }
}

#[test]
fn tables_hold_what_was_mapped_and_nothing_else() {
    explore(64, 24, false);
}

#[test]
fn whatever_allocation_fails_nothing_is_left_mapped_and_nothing_is_lost() {
    explore(32, 16, true);
}

#[test]
fn what_is_drawn_reaches_all_there_is_to_reach() {
    // A generator that never gets anywhere would let everything pass.
    let mut reached = [0_u32; 9];
    let mut runner = TestRunner::deterministic();
    for (_, shape) in shapes() {
        for _ in 0..8 {
            let tree = vec(any::<[u8; BYTES]>(), 24).new_tree(&mut runner).unwrap();
            let mut pair = sequence::Pair::new(&shape).unwrap();
            for op in drawn(&shape, tree.current()) {
                let before = pair.decoded().clone();
                pair.apply(op).unwrap();
                let (after, kind) = (pair.decoded(), kind(op));
                let changed = before.leaves != after.leaves || before.tables.len() != after.tables.len();
                reached[kind] += u32::from(changed);
            }
        }
    }
    let [map, unmap, exactly, split, replace, write, dirty, _, prune] = reached;
    assert!(map > 300 && unmap > 100 && exactly > 50, "{reached:?}");
    assert!(split > 5 && replace > 20 && write > 20 && dirty > 2 && prune > 5, "{reached:?}");
}

fn kind(op: Op) -> usize {
    match op {
        Op::Map { .. } => 0,
        Op::Unmap { .. } => 1,
        Op::UnmapExactly { .. } => 2,
        Op::Split { .. } => 3,
        Op::Replace { .. } => 4,
        Op::Write { .. } => 5,
        Op::Dirty { .. } => 6,
        Op::Reclaim => 7,
        Op::Prune => 8,
    }
}
