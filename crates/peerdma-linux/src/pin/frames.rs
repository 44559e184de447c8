//! The page frames behind a range, noted as runs.

use crate::own::pagemap::Pagemap;
use peerdma::addr::{AddrRange, Bytes, ProcVa};
use std::io;

/// Frames that follow each other, behind pages that do; huge pages are one run each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Run {
    /// `None` for pages that have no frame.
    first: Option<u64>,
    pages: u64,
}

/// What was behind a range when it was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Frames {
    runs: Vec<Run>,
}

impl Frames {
    /// Those of now.
    pub(super) fn of(pagemap: &Pagemap, range: AddrRange<ProcVa>) -> io::Result<Self> {
        let mut frames = Self::default();
        pagemap.pages(range, |entry| {
            frames.push(entry.frame());
            true
        })?;
        Ok(frames)
    }

    fn push(&mut self, frame: Option<u64>) {
        match self.runs.last_mut() {
            Some(run) if run.first.map(|first| first + run.pages) == frame && frame.is_some() => run.pages += 1,
            Some(run) if run.first.is_none() && frame.is_none() => run.pages += 1,
            _ => self.runs.push(Run { first: frame, pages: 1 }),
        }
    }

    /// Whether every page has one.
    pub(super) fn are_known(&self) -> bool {
        !self.runs.is_empty() && self.runs.iter().all(|run| run.first.is_some())
    }

    /// The first frame.
    pub(super) fn first(&self) -> Option<u64> {
        self.runs.first()?.first
    }

    fn each(&self) -> impl Iterator<Item = Option<u64>> {
        self.runs.iter().flat_map(|run| (0..run.pages).map(|page| run.first.map(|first| first + page)))
    }

    /// The first pages of a range that differ between two looks, and whether one at least has a frame now.
    pub(super) fn first_difference(&self, now: &Self, range: AddrRange<ProcVa>) -> Option<(AddrRange<ProcVa>, bool)> {
        if self == now {
            return None;
        }
        let differ = || self.each().zip(now.each()).map(|(before, now)| (before != now, now.is_some()));
        let start = differ().position(|(differs, _)| differs)?;
        let run = differ().skip(start).take_while(|(differs, _)| *differs);
        let (pages, present) = run.fold((0, false), |(pages, any), (_, present)| (pages + 1, any || present));
        let page = crate::memory::page_size().as_u64();
        let base = range.start().as_u64() / page * page;
        let first = (base + start as u64 * page).max(range.start().as_u64());
        let last = (base + (start as u64 + pages) * page - 1).min(range.last().as_u64());
        Some((AddrRange::from_inclusive(ProcVa::new(first), ProcVa::new(last))?, present))
    }
}

/// Where in the mappings of a process a range now lies whose frames were `before`, all of them in their order.
pub(super) fn find(
    before: &Frames,
    pagemap: &Pagemap,
    mapped: impl Iterator<Item = AddrRange<ProcVa>>,
    range: AddrRange<ProcVa>,
) -> Option<ProcVa> {
    let page = crate::memory::page_size().as_u64();
    let inside = range.start().as_u64() % page;
    let first = before.first()?;
    for area in mapped {
        let mut at = area.start().as_u64();
        let mut places = Vec::new();
        // An area that cannot be read is one that has gone meanwhile.
        let _ = pagemap.pages(area, |entry| {
            if entry.frame() == Some(first) {
                places.push(at + inside);
            }
            at += page;
            true
        });
        for place in places.into_iter().map(ProcVa::new).filter(|place| *place != range.start()) {
            let there = AddrRange::new(place, Bytes::new(range.len().as_u64()))?;
            if Frames::of(pagemap, there).is_ok_and(|now| now == *before) {
                return Some(place);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(list: &[u64]) -> Frames {
        let mut frames = Frames::default();
        list.iter().for_each(|frame| frames.push((*frame != 0).then_some(*frame)));
        frames
    }

    #[test]
    fn neighbours_are_one_run_and_differences_are_found_by_page() {
        assert_eq!(frames(&[7, 8, 9, 20, 0, 0]).runs.len(), 3);
        let page = crate::memory::page_size().as_u64();
        let range = AddrRange::new(ProcVa::new(16 * page + 100), Bytes::new(5 * page)).unwrap();
        let (before, now) = (frames(&[7, 8, 9, 10, 11, 12]), frames(&[7, 8, 0, 3, 11, 12]));
        let (at, present) = before.first_difference(&now, range).unwrap();
        assert_eq!((at.start().as_u64(), at.len().as_u64(), present), (18 * page, 2 * page, true));
        assert_eq!(before.first_difference(&before.clone(), range), None);
        let (at, present) = before.first_difference(&frames(&[0, 8, 9, 10, 11, 12]), range).unwrap();
        assert_eq!((at.start(), at.len().as_u64(), present), (range.start(), page - 100, false));
    }
}
