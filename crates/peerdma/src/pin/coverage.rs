//! Which units of memory are pinned how often, and who paid for them.
//!
//! Neighbouring units that fare alike are one entry, so that a range of any length costs what its neighbours do and
//! not what its pages do.

use alloc::collections::BTreeMap;

/// Units `start..end` by number: pages, or compound pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Units {
    pub(super) start: u64,
    pub(super) end: u64,
}

impl Units {
    pub(super) fn count(self) -> u64 {
        self.end - self.start
    }
}

/// Neighbours that fare alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stretch {
    end: u64,
    /// How many pin it; none has zero.
    pins: u32,
    /// Who paid; none once he is gone.
    payer: Option<u64>,
}

/// What is pinned within one scope.
#[derive(Clone, Default, Debug)]
pub(super) struct Coverage {
    /// By the first unit; no two overlap.
    stretches: BTreeMap<u64, Stretch>,
}

/// What somebody's leaving changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Left {
    /// Units that he had paid for.
    pub(super) paid: u64,
    /// Units that nobody pins any more.
    pub(super) free: u64,
}

impl Coverage {
    pub(super) fn is_empty(&self) -> bool {
        self.stretches.is_empty()
    }

    /// How many of these units nobody pins yet.
    pub(super) fn fresh(&self, units: Units) -> u64 {
        let taken: u64 =
            self.overlapping(units).map(|(start, stretch)| stretch.end.min(units.end) - start.max(units.start)).sum();
        units.count() - taken
    }

    fn overlapping(&self, units: Units) -> impl Iterator<Item = (u64, Stretch)> + '_ {
        let before = self.stretches.range(..units.start).next_back();
        let before = before.filter(move |(_, stretch)| stretch.end > units.start);
        before
            .into_iter()
            .chain(self.stretches.range(units.start..units.end))
            .map(|(start, stretch)| (*start, *stretch))
    }

    /// Cuts the stretch that holds `at`, so that one begins there.
    fn cut(&mut self, at: u64) {
        let Some((_, stretch)) = self.stretches.range_mut(..at).next_back() else { return };
        if stretch.end > at {
            let rest = *stretch;
            stretch.end = at;
            self.stretches.insert(at, rest);
        }
    }

    /// One more pins these; pays for those that nobody pinned. How many those are.
    ///
    /// `None`, with nothing changed, if a unit were pinned more than 2^32 times.
    pub(super) fn cover(&mut self, units: Units, who: u64) -> Option<u64> {
        if self.overlapping(units).any(|(_, stretch)| stretch.pins == u32::MAX) {
            return None;
        }
        self.cut(units.start);
        self.cut(units.end);
        let (mut at, mut fresh) = (units.start, 0);
        while at < units.end {
            let next = self.stretches.range_mut(at..units.end).next();
            match next {
                Some((start, stretch)) if *start == at => {
                    stretch.pins += 1;
                    at = stretch.end;
                }
                next => {
                    let end = next.map_or(units.end, |(start, _)| *start);
                    self.stretches.insert(at, Stretch { end, pins: 1, payer: Some(who) });
                    fresh += end - at;
                    at = end;
                }
            }
        }
        self.join(units);
        Some(fresh)
    }

    /// Who pinned these leaves, and takes with him what he paid.
    pub(super) fn uncover(&mut self, units: Units, who: u64) -> Left {
        self.cut(units.start);
        self.cut(units.end);
        let mut left = Left::default();
        for (start, stretch) in self.stretches.range_mut(units.start..units.end) {
            let count = stretch.end - start;
            if stretch.payer == Some(who) {
                stretch.payer = None;
                left.paid += count;
            }
            stretch.pins -= 1;
            if stretch.pins == 0 {
                left.free += count;
            }
        }
        let gone = self.stretches.range(units.start..units.end).filter(|(_, stretch)| stretch.pins == 0);
        for start in gone.map(|(start, _)| *start).collect::<alloc::vec::Vec<u64>>() {
            self.stretches.remove(&start);
        }
        self.join(units);
        left
    }

    /// Makes one of neighbours that fare alike by now.
    fn join(&mut self, units: Units) {
        let from = self.stretches.range(..units.start).next_back().map_or(units.start, |(start, _)| *start);
        let starts: alloc::vec::Vec<u64> = self.stretches.range(from..=units.end).map(|(start, _)| *start).collect();
        for pair in starts.windows(2).rev() {
            let (Some(first), Some(second)) = (self.stretches.get(&pair[0]), self.stretches.get(&pair[1])) else {
                continue;
            };
            if first.end == pair[1] && first.pins == second.pins && first.payer == second.payer {
                let end = second.end;
                self.stretches.remove(&pair[1]);
                if let Some(first) = self.stretches.get_mut(&pair[0]) {
                    first.end = end;
                }
            }
        }
    }
}
