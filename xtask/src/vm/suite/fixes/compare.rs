//! What was foretold against what was seen, in words.
//!
//! Each comparison covers the whole machine: a port that nobody meant to change, or a
//! group that nobody spoke of, is a difference like any other.

use super::seen::{Groups, Words};
use crate::vm::pairs::{MapType, Pair};
use peerdma::pcie::PciAddr;
use std::collections::{BTreeMap, BTreeSet};

/// What is foretold of the bits of one word; the others may be either.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Foretold {
    /// Bits that are to be 0.
    pub(super) clear: u16,
    /// Bits that are to be 1.
    pub(super) set: u16,
}

/// Compares words after a change with what was foretold for the changed functions; all
/// others are to have the word they had.
pub(super) fn words(before: &Words, foretold: &BTreeMap<PciAddr, Foretold>, after: &Words) -> Vec<String> {
    let mut wrong = Vec::new();
    for address in before.keys().chain(foretold.keys()).chain(after.keys()).collect::<BTreeSet<_>>() {
        let (was, is) = (before.get(address), after.get(address));
        match (foretold.get(address), was, is) {
            (_, None, _) | (_, _, None) => wrong.push(format!("{address} has ACS in one boot and not in the other")),
            (None, Some(was), Some(is)) if was != is => {
                wrong.push(format!("{address} was to keep its word {was:#06x} and has {is:#06x}"));
            }
            (Some(Foretold { clear, set }), _, Some(is)) if is & clear != 0 || is & set != *set => {
                wrong.push(format!("{address} was to have {set:#06x} set and {clear:#06x} clear and has {is:#06x}"));
            }
            _ => {}
        }
    }
    wrong
}

/// Compares groups as sets of members. Functions in `open` may be in any group: nothing
/// was foretold of them.
pub(super) fn groups(foretold: &Groups, open: &BTreeSet<PciAddr>, seen: &Groups) -> Vec<String> {
    let without_open = |groups: &Groups| -> Groups {
        let kept = groups.iter().map(|group| group.difference(open).copied().collect::<BTreeSet<_>>());
        kept.filter(|group| !group.is_empty()).collect()
    };
    let (foretold, seen) = (without_open(foretold), without_open(seen));
    let missing = foretold.difference(&seen).map(|group| format!("no group of the kernel's is {}", members(group)));
    let unforeseen = seen.difference(&foretold).map(|group| format!("nobody foretold the group {}", members(group)));
    missing.chain(unforeseen).collect()
}

/// The groups of `after` that hold members of several groups of `before`, each as these parts.
pub(super) fn merged(before: &Groups, after: &Groups) -> BTreeSet<Groups> {
    let parts = |group: &BTreeSet<PciAddr>| -> Groups {
        let parts = before.iter().map(|part| part.intersection(group).copied().collect::<BTreeSet<_>>());
        parts.filter(|part| !part.is_empty()).collect()
    };
    after.iter().map(parts).filter(|parts| parts.len() > 1).collect()
}

fn members(group: &BTreeSet<PciAddr>) -> String {
    group.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// Compares what was foretold of the kernel's decision with its decision.
pub(super) fn decision(pair: Pair, foretold: &str, kernel: MapType) -> Option<String> {
    (foretold != kernel.word()).then(|| format!("{pair}: foretold {foretold}, the kernel's {kernel}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> PciAddr {
        text.parse().unwrap()
    }

    fn a_word(text: &str, word: u16) -> Words {
        [(address(text), word)].into()
    }

    fn two_words(first: u16, second: u16) -> Words {
        [(address("00:04.0"), first), (address("00:06.0"), second)].into()
    }

    fn grouped(groups: &[&[&str]]) -> Groups {
        groups.iter().map(|group| group.iter().map(|text| address(text)).collect()).collect()
    }

    #[test]
    fn only_foretold_words_change_and_only_as_foretold() {
        let foretold = [(address("00:04.0"), Foretold { clear: 0x0c, set: 0x11 })].into();
        let before = two_words(0x1d, 0x1d);
        let wrong = |after: &Words| words(&before, &foretold, after).len();
        assert_eq!(wrong(&two_words(0x11, 0x1d)), 0);
        assert_eq!(wrong(&two_words(0x13, 0x1d)), 0, "TB was not foretold");
        for after in [two_words(0x15, 0x1d), two_words(0x01, 0x1d), two_words(0x11, 0x11), before.clone()] {
            assert_eq!(wrong(&after), 1, "{after:?}");
        }
    }

    #[test]
    fn a_function_that_gains_or_loses_its_register_is_a_difference() {
        let nothing = BTreeMap::new();
        assert_eq!(words(&a_word("00:04.0", 0), &nothing, &Words::new()).len(), 1);
        assert_eq!(words(&Words::new(), &nothing, &a_word("00:04.0", 0)).len(), 1);
        let foretold = [(address("00:05.0"), Foretold::default())].into();
        assert_eq!(words(&a_word("00:04.0", 0), &foretold, &a_word("00:04.0", 0)).len(), 1);
    }

    #[test]
    fn groups_have_to_have_the_same_members() {
        let apart = grouped(&[&["00:04.0"], &["01:00.0", "01:00.1"]]);
        let together = grouped(&[&["00:04.0", "01:00.0", "01:00.1"]]);
        let nothing = BTreeSet::new();
        assert_eq!(groups(&apart, &nothing, &apart), [""; 0]);
        assert_eq!(groups(&apart, &nothing, &together).len(), 3);
        assert_eq!(groups(&Groups::new(), &nothing, &together).len(), 1);
    }

    #[test]
    fn a_member_of_which_nothing_was_foretold_counts_on_neither_side() {
        let open = [address("00:04.0")].into();
        let apart = grouped(&[&["01:00.0", "01:00.1"]]);
        let together = grouped(&[&["00:04.0", "01:00.0", "01:00.1"]]);
        assert_eq!(groups(&apart, &open, &together), [""; 0]);
        assert_eq!(groups(&apart, &open, &grouped(&[&["00:04.0", "01:00.0"], &["01:00.1"]])).len(), 3);
    }

    #[test]
    fn what_merges_is_told_by_its_parts() {
        let apart = grouped(&[&["00:04.0"], &["01:00.0", "01:00.1"], &["00:06.0"]]);
        let together = grouped(&[&["00:04.0", "01:00.0", "01:00.1"], &["00:06.0"]]);
        assert_eq!(merged(&apart, &together), [grouped(&[&["00:04.0"], &["01:00.0", "01:00.1"]])].into());
        assert_eq!(merged(&together, &apart), BTreeSet::new());
    }

    #[test]
    fn unknown_foretells_no_decision() {
        let pair = Pair { provider: address("01:00.0"), client: address("01:00.1") };
        assert_eq!(decision(pair, "BUS_ADDR", MapType::BusAddr), None);
        for foretold in ["UNKNOWN", "NOT_SUPPORTED", "direct"] {
            assert!(decision(pair, foretold, MapType::BusAddr).is_some(), "{foretold}");
        }
    }
}
