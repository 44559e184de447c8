//! A map from addresses to values, as runs: neighbours with the same value are one.

use crate::addr::{AddrRange, ProcVa};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// Which value stands at which addresses.
///
/// # Invariants
/// Keys are first addresses, values hold last ones; runs do not overlap, and none touches one of the same value.
#[derive(Clone, Debug, Default)]
pub(super) struct Runs<V> {
    runs: BTreeMap<u64, (u64, V)>,
}

impl<V: Copy + Eq> Runs<V> {
    pub(super) const fn new() -> Self {
        Self { runs: BTreeMap::new() }
    }

    /// The run that an address is in.
    pub(super) fn at(&self, at: ProcVa) -> Option<(AddrRange<ProcVa>, V)> {
        let (&first, &(last, value)) = self.runs.range(..=at.as_u64()).next_back()?;
        let run = AddrRange::from_inclusive(ProcVa::new(first), ProcVa::new(last))?;
        (at.as_u64() <= last).then_some((run, value))
    }

    /// All runs, cut at the edges of `within`.
    pub(super) fn inside(&self, within: AddrRange<ProcVa>) -> Vec<(AddrRange<ProcVa>, V)> {
        let (first, last) = (within.start().as_u64(), within.last().as_u64());
        let from = self.runs.range(..=first).next_back().map_or(first, |(start, _)| *start);
        let cut = |(&start, &(end, value)): (&u64, &(u64, V))| {
            AddrRange::from_inclusive(ProcVa::new(start.max(first)), ProcVa::new(end.min(last)))
                .map(|range| (range, value))
        };
        self.runs.range(from..=last).filter_map(cut).collect()
    }

    /// All runs.
    pub(super) fn all(&self) -> impl Iterator<Item = (AddrRange<ProcVa>, V)> {
        self.runs.iter().filter_map(|(&first, &(last, value))| {
            AddrRange::from_inclusive(ProcVa::new(first), ProcVa::new(last)).map(|range| (range, value))
        })
    }

    /// Takes everything inside of a range out; what it was.
    pub(super) fn cut(&mut self, within: AddrRange<ProcVa>) -> Vec<(AddrRange<ProcVa>, V)> {
        let gone = self.inside(within);
        for &(range, value) in &gone {
            let (first, last) = (range.start().as_u64(), range.last().as_u64());
            let Some((&start, &(end, _))) = self.runs.range(..=first).next_back() else { continue };
            self.runs.remove(&start);
            if let Some(before) = first.checked_sub(1).filter(|before| start <= *before) {
                self.runs.insert(start, (before, value));
            }
            if let Some(after) = last.checked_add(1).filter(|after| *after <= end) {
                self.runs.insert(after, (end, value));
            }
        }
        gone
    }

    /// Puts a value at all addresses of a range, in the place of what was there.
    pub(super) fn put(&mut self, at: AddrRange<ProcVa>, value: V) {
        self.cut(at);
        let (mut first, mut last) = (at.start().as_u64(), at.last().as_u64());
        let before = first.checked_sub(1).and_then(|end| self.runs.range(..=end).next_back().map(|run| (end, run)));
        if let Some((end, (&start, &(reaches, same)))) = before
            && (reaches, same) == (end, value)
        {
            self.runs.remove(&start);
            first = start;
        }
        let after = last.checked_add(1).and_then(|start| self.runs.get(&start).map(|run| (start, *run)));
        if let Some((start, (reaches, same))) = after
            && same == value
        {
            self.runs.remove(&start);
            last = reaches;
        }
        self.runs.insert(first, (last, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Bytes;
    use proptest::prelude::*;

    fn range(first: u64, len: u64) -> AddrRange<ProcVa> {
        AddrRange::new(ProcVa::new(first), Bytes::new(len)).unwrap()
    }

    #[test]
    fn neighbours_of_one_value_are_one_run_up_to_the_last_address() {
        let mut runs = Runs::new();
        runs.put(range(u64::MAX - 9, 5), 'a');
        runs.put(range(u64::MAX - 4, 5), 'a');
        assert_eq!(runs.at(ProcVa::new(u64::MAX)), Some((range(u64::MAX - 9, 10), 'a')));
        runs.cut(range(u64::MAX - 1, 2));
        assert_eq!(runs.at(ProcVa::new(u64::MAX)), None);
        assert_eq!(runs.all().count(), 1);
    }

    proptest! {
        #[test]
        fn runs_are_what_a_value_for_each_address_is(
            steps in prop::collection::vec((0_u64..40, 1_u64..15, prop::option::of(0_u8..3)), 1..40)
        ) {
            let (mut runs, mut each) = (Runs::new(), [None; 64]);
            for (first, len, value) in steps {
                let at = range(first, len);
                match value {
                    Some(value) => runs.put(at, value),
                    None => {
                        let gone: u64 = runs.cut(at).iter().map(|(range, _)| range.len().as_u64()).sum();
                        let had = each[first as usize..(first + len) as usize].iter().flatten().count();
                        prop_assert_eq!(gone, had as u64);
                    }
                }
                each[first as usize..(first + len) as usize].fill(value);
                for (address, value) in each.iter().enumerate() {
                    prop_assert_eq!(runs.at(ProcVa::new(address as u64)).map(|(_, value)| value), *value);
                }
                let mut changes = 0;
                let mut before = None;
                for &value in &each {
                    changes += usize::from(value.is_some() && value != before);
                    before = value;
                }
                prop_assert_eq!(runs.all().count(), changes);
            }
        }
    }
}
