//! Two sets of answers side by side.
//!
//! Both must be about the same pairs: a pair that only one of them has is a mismatch, or
//! an input that lost functions would compare well.

use super::kernel::{Answers, Decision, MapType, Pair};
use super::ours::{Answer, Ours, Scope};
use std::collections::BTreeMap;
use std::fmt;

/// Whose capture `peerdma` answered from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Seen {
    /// Root read everything, so every answer has to be there and right.
    ByRoot,
    /// A user read what the kernel shows to everybody: what is claimed has to be right.
    ByUser,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ByRoot => "root's capture",
            Self::ByUser => "a user's capture",
        })
    }
}

/// One thing on which the two differ.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Mismatch {
    /// Another map type, or unknown where everything was read.
    MapType { pair: Pair, ours: Option<MapType>, kernel: MapType },
    /// Another number of hops.
    Distance { pair: Pair, ours: u32, lower_bound: bool, kernel: u32 },
    /// A pair that the kernel knows and we do not.
    NotOurs { pair: Pair },
    /// A pair that we know and the kernel does not.
    NotKernels { pair: Pair },
    /// The whitelist applied is not that of the kernel's series.
    Table { series: String, ours: Option<String> },
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MapType { pair, ours, kernel } => {
                write!(f, "{pair}: ours {}, the kernel's {kernel}", ours.map_or("UNKNOWN", MapType::word))
            }
            Self::Distance { pair, ours, lower_bound, kernel } => {
                let at_least = if *lower_bound { "at least " } else { "" };
                write!(f, "{pair}: our distance {at_least}{ours}, the kernel's {kernel}")
            }
            Self::NotOurs { pair } => write!(f, "{pair}: the kernel answers, we do not list it"),
            Self::NotKernels { pair } => write!(f, "{pair}: we list it, the kernel does not know it"),
            Self::Table { series, ours } => write!(
                f,
                "the whitelist of {} was applied to a kernel of {series}: read pci_p2pdma_whitelist in its \
                 drivers/pci/p2pdma.c and add a table to crates/peerdma/src/route/kernel_view/whitelist.rs",
                ours.as_deref().unwrap_or("no series")
            ),
        }
    }
}

/// What a comparison found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Comparison {
    /// Ordered pairs of two functions on which both answered, unknown included.
    pub(crate) compared: usize,
    /// Those among them that we call unknown.
    pub(crate) unknown: usize,
    /// Those among them by the kernel's answer.
    pub(crate) kinds: BTreeMap<MapType, usize>,
    pub(crate) mismatches: Vec<Mismatch>,
}

/// Compares every pair within the scope, each function with itself included.
pub(crate) fn compare(kernel: &Answers, ours: &Ours, scope: Scope, seen: Seen) -> Comparison {
    let mut found = Comparison::default();
    if ours.table.as_deref() != Some(kernel.series()) {
        found.mismatches.push(Mismatch::Table { series: kernel.series().into(), ours: ours.table.clone() });
    }
    let in_scope = |address| scope == Scope::Everything || kernel.functions.get(&address).is_some_and(|f| f.is_device);
    let wanted = kernel.decisions.iter().filter(|(pair, _)| in_scope(pair.provider) && in_scope(pair.client));
    let mut wanted: BTreeMap<Pair, Decision> = wanted.map(|(pair, decision)| (*pair, *decision)).collect();
    for answer in &ours.answers {
        let Some(decision) = wanted.remove(&answer.pair) else {
            found.mismatches.push(Mismatch::NotKernels { pair: answer.pair });
            continue;
        };
        if !answer.pair.is_one_function() {
            found.compared += 1;
            found.unknown += usize::from(answer.map_type.is_none());
            *found.kinds.entry(decision.map_type).or_default() += 1;
        }
        found.mismatches.extend(differences(answer, decision, seen));
    }
    found.mismatches.extend(wanted.into_keys().map(|pair| Mismatch::NotOurs { pair }));
    found
}

fn differences(answer: &Answer, decision: Decision, seen: Seen) -> impl Iterator<Item = Mismatch> + use<> {
    let pair = answer.pair;
    let same_type = match answer.map_type {
        Some(map_type) => map_type == decision.map_type,
        None => seen == Seen::ByUser,
    };
    let same_distance = if answer.distance_is_lower_bound {
        // Root's capture hides no bridge.
        seen == Seen::ByUser && answer.distance <= decision.distance
    } else {
        answer.distance == decision.distance
    };
    let map_type = (!same_type).then_some(Mismatch::MapType { pair, ours: answer.map_type, kernel: decision.map_type });
    let distance = (!same_distance).then_some(Mismatch::Distance {
        pair,
        ours: answer.distance,
        lower_bound: answer.distance_is_lower_bound,
        kernel: decision.distance,
    });
    map_type.into_iter().chain(distance)
}

#[cfg(test)]
mod tests {
    use super::super::kernel::tests::THREE;
    use super::*;

    /// What the kernel answered, as if we had.
    fn echo(kernel: &Answers) -> Ours {
        let answer = |(pair, decision): (&Pair, &Decision)| Answer {
            pair: *pair,
            map_type: Some(decision.map_type),
            distance: decision.distance,
            distance_is_lower_bound: false,
        };
        Ours { answers: kernel.decisions.iter().map(answer).collect(), table: Some("7.3".into()) }
    }

    fn kernel() -> Answers {
        Answers::read(THREE).unwrap()
    }

    #[test]
    fn equal_answers_compare_equal_and_a_function_with_itself_is_not_counted() {
        let found = compare(&kernel(), &echo(&kernel()), Scope::Everything, Seen::ByRoot);
        assert_eq!((found.compared, found.unknown, found.mismatches.as_slice()), (6, 0, &[][..]));
        assert_eq!(found.kinds, [(MapType::NotSupported, 6)].into());
    }

    #[test]
    fn every_single_wrong_answer_is_a_mismatch() {
        let right = echo(&kernel());
        for index in 0..right.answers.len() {
            let mut wrong = right.clone();
            wrong.answers[index].map_type = Some(MapType::ThruHostBridge);
            let found = compare(&kernel(), &wrong, Scope::Everything, Seen::ByUser);
            assert!(matches!(found.mismatches.as_slice(), [Mismatch::MapType { .. }]), "{index}");
            let mut wrong = right.clone();
            wrong.answers[index].distance += 1;
            let found = compare(&kernel(), &wrong, Scope::Everything, Seen::ByUser);
            assert!(matches!(found.mismatches.as_slice(), [Mismatch::Distance { .. }]), "{index}");
        }
    }

    #[test]
    fn unknown_is_a_mismatch_for_root_and_none_for_a_user() {
        let mut ours = echo(&kernel());
        ours.answers[1].map_type = None;
        assert_eq!(compare(&kernel(), &ours, Scope::Everything, Seen::ByRoot).mismatches.len(), 1);
        let by_user = compare(&kernel(), &ours, Scope::Everything, Seen::ByUser);
        assert_eq!((by_user.mismatches.len(), by_user.unknown), (0, 1));
    }

    #[test]
    fn a_lower_bound_is_right_for_a_user_as_long_as_it_is_one() {
        let mut ours = echo(&kernel());
        let far = ours.answers.iter().position(|answer| answer.distance == 2).unwrap();
        ours.answers[far].distance_is_lower_bound = true;
        for (distance, user, root) in [(1, 0, 1), (2, 0, 1), (3, 1, 1)] {
            ours.answers[far].distance = distance;
            assert_eq!(compare(&kernel(), &ours, Scope::Everything, Seen::ByUser).mismatches.len(), user);
            assert_eq!(compare(&kernel(), &ours, Scope::Everything, Seen::ByRoot).mismatches.len(), root);
        }
    }

    #[test]
    fn a_pair_that_only_one_side_has_is_a_mismatch() {
        let mut ours = echo(&kernel());
        let lost = ours.answers.remove(4).pair;
        let found = compare(&kernel(), &ours, Scope::Everything, Seen::ByUser);
        assert_eq!(found.mismatches, [Mismatch::NotOurs { pair: lost }]);
        let bridges = compare(&kernel(), &echo(&kernel()), Scope::Devices, Seen::ByUser);
        assert_eq!((bridges.compared, bridges.mismatches.len()), (2, 5));
        assert!(bridges.mismatches.iter().all(|mismatch| matches!(mismatch, Mismatch::NotKernels { .. })));
    }

    #[test]
    fn the_whitelist_of_another_series_is_a_mismatch_that_says_what_to_add() {
        let mut ours = echo(&kernel());
        for table in [None, Some("7.2".to_string()), Some("7.2..7.3".to_string())] {
            ours.table = table;
            let found = compare(&kernel(), &ours, Scope::Everything, Seen::ByRoot);
            assert!(found.mismatches[0].to_string().contains("add a table to crates/peerdma"), "{found:?}");
        }
    }
}
