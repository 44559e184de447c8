//! "Unknown exactly when two ways of filling in the missing facts give different
//! answers", checked against every way of filling them in.
//!
//! The oracle here shares nothing with the crate but the words of its public
//! interface: it has its own copy of Linux's list, its own idea of where a function
//! may hang, and follows `calc_map_type_and_dist` pointer by pointer. Whenever it
//! asks for a fact that was not told, it tries all values ([`Guess::choose`]).
//! A false pass would need the same mistake twice, in two different shapes.

#![cfg(test)]

mod by_hand;
mod compare;
mod list;
mod oracle;
mod random;
mod told;

use compare::{Seen, check, check_reasons};
use peerdma::route::kernel_view::KernelView;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use random::Maker;

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn unknown_exactly_when_two_ways_of_filling_in_give_different_answers(
        bytes in prop::collection::vec(any::<u8>(), 0..120),
    ) {
        check(&Maker::machine(&bytes), &mut Seen::default());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_unknown_is_explained_and_what_is_explained_is_unknown(
        bytes in prop::collection::vec(any::<u8>(), 0..120),
    ) {
        let topology = Maker::machine(&bytes).topology();
        let view = KernelView::new(&topology);
        for (provider, _) in topology.functions() {
            for (client, _) in topology.functions() {
                check_reasons(&view, &view.decide(provider, client));
            }
        }
    }
}

/// A generator that made only complete machines, or only hopeless ones, would prove nothing.
#[test]
fn the_machines_at_random_are_of_all_kinds() {
    let mut runner = TestRunner::deterministic();
    let mut seen = Seen::default();
    for _ in 0..200 {
        let bytes = prop::collection::vec(any::<u8>(), 120).new_tree(&mut runner).unwrap().current();
        check(&Maker::machine(&bytes), &mut seen);
    }
    assert!(seen.unknown * 5 > seen.pairs, "{seen:?}");
    assert!(seen.complete * 10 > seen.pairs, "{seen:?}");
    assert!(seen.certain_despite_gaps * 10 > seen.pairs, "{seen:?}");
    assert!(seen.guesses > 2 * seen.pairs, "{seen:?}");
}
