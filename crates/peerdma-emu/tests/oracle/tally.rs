//! How often which case was met, so that a run says what it tried.

use peerdma::route::PairVerdict;
use peerdma::route::fabric::{Fate, Passage};
use std::collections::BTreeMap;
use std::fmt;

/// Counts of one run.
#[derive(Clone, Default, Debug)]
pub(crate) struct Tally {
    pub(crate) machines: u64,
    pub(crate) pairs: u64,
    pub(crate) requests: u64,
    /// Requests that were sent with what the mapping engine gave, and those of them that arrived.
    pub(crate) mapped: (u64, u64),
    /// Requests that are too long for somebody on the way.
    pub(crate) too_long: u64,
    verdicts: BTreeMap<&'static str, u64>,
    fates: BTreeMap<&'static str, (u64, u64)>,
    differences: BTreeMap<&'static str, u64>,
}

impl Tally {
    /// A pair was judged.
    pub(crate) fn pair(&mut self, verdict: &PairVerdict) {
        self.pairs += 1;
        *self.verdicts.entry(verdict.verdict.word()).or_default() += 1;
        if let Some(difference) = verdict.difference {
            *self.differences.entry(difference.word()).or_default() += 1;
        }
    }

    /// A forced request was sent.
    pub(crate) fn passage(&mut self, passage: Passage, arrived: bool) {
        let word = match passage.fate {
            Fate::Arrives => "arrives",
            Fate::Lost => "lost",
            Fate::Undefined => "undefined",
            Fate::Unknown => "unknown",
        };
        let (count, arrivals) = self.fates.entry(word).or_default();
        *count += 1;
        *arrivals += u64::from(arrived);
    }

    /// A request was sent at a mapped address.
    pub(crate) fn mapped(&mut self, arrived: bool) {
        self.mapped.0 += 1;
        self.mapped.1 += u64::from(arrived);
    }

    /// Adds another run's.
    pub(crate) fn add(&mut self, other: &Self) {
        self.machines += other.machines;
        self.pairs += other.pairs;
        self.requests += other.requests;
        self.mapped = (self.mapped.0 + other.mapped.0, self.mapped.1 + other.mapped.1);
        self.too_long += other.too_long;
        for (word, count) in &other.verdicts {
            *self.verdicts.entry(word).or_default() += count;
        }
        for (word, (count, arrivals)) in &other.fates {
            let own = self.fates.entry(word).or_default();
            *own = (own.0 + count, own.1 + arrivals);
        }
        for (word, count) in &other.differences {
            *self.differences.entry(word).or_default() += count;
        }
    }

    /// Whether every fate, every verdict and most differences were met.
    pub(crate) fn is_broad(&self) -> bool {
        self.fates.len() >= 3 && self.verdicts.len() == 4 && self.differences.len() >= 4 && self.too_long > 0
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} machines, {} pairs, {} requests", self.machines, self.pairs, self.requests)?;
        writeln!(f, "  at mapped addresses {}, of which {} arrived", self.mapped.0, self.mapped.1)?;
        writeln!(f, "  too long for somebody on the way {}", self.too_long)?;
        for (word, count) in &self.verdicts {
            writeln!(f, "  verdict {word}: {count} pairs")?;
        }
        for (word, (count, arrivals)) in &self.fates {
            writeln!(f, "  fate {word}: {count} requests, of which {arrivals} arrived")?;
        }
        for (word, count) in &self.differences {
            writeln!(f, "  kernel and hardware differ, {word}: {count} pairs")?;
        }
        Ok(())
    }
}
