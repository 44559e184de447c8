//! A stretch of one owner and the same attributes, and the ranges in it.

use super::{Chunk, View, word};
use crate::access::MemAttrs;
use crate::addr::Bytes;
use core::{fmt, iter, mem};

/// A stretch of one owner and the same attributes.
///
/// What a device may do with it and at which kind of address is the same for all of it.
#[derive(Clone, Copy)]
pub struct Run<'a, O> {
    owner: O,
    attrs: MemAttrs,
    at: u64,
    len: u64,
    words: &'a [u64],
    head: u64,
    cut: u64,
}

impl<'a, O: Copy> Run<'a, O> {
    /// `whole` has its place in the list for an offset.
    #[inline]
    pub(super) fn new(whole: Chunk<O>, words: &'a [u64], head: u64, cut: u64) -> Self {
        let (at, len) = (whole.offset().as_u64(), whole.len().as_u64());
        Self { owner: whole.owner(), attrs: whole.attrs(), at, len, words, head, cut }
    }

    /// The same run in a list with `by` more bytes before it.
    #[inline]
    pub(super) fn moved(self, by: u64) -> Self {
        Self { at: self.at + by, ..self }
    }

    /// Whose memory it is.
    #[inline]
    pub fn owner(&self) -> O {
        self.owner
    }

    /// What sort of memory it is.
    #[inline]
    pub fn attrs(&self) -> MemAttrs {
        self.attrs
    }

    /// Where it begins, counted from the start of the list, view or chain that it came from.
    #[inline]
    pub fn at(&self) -> Bytes {
        Bytes::new(self.at)
    }

    /// Bytes in all its ranges together, at least one.
    #[inline]
    pub fn len(&self) -> Bytes {
        Bytes::new(self.len)
    }

    /// Always false; a run holds at least one byte.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Offset in the owner and length of each range, in order.
    ///
    /// No two of them touch, each is at least a byte long and ends below 2^64.
    #[inline]
    pub fn ranges(&self) -> Ranges<'a> {
        Ranges { words: self.words, head: self.head, cut: self.cut }
    }

    /// The same ranges as chunks.
    pub fn chunks(&self) -> impl Iterator<Item = Chunk<O>> + Clone + use<'a, O> {
        let (owner, attrs) = (self.owner, self.attrs);
        self.ranges().map(move |(offset, len)| Chunk::part(owner, offset, len, attrs))
    }
}

impl<O: Copy + fmt::Debug> fmt::Debug for Run<'_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {:?}, {}: ", self.owner, self.at(), self.attrs)?;
        f.debug_list().entries(self.ranges()).finish()
    }
}

/// The ranges of a [`Run`]: offset in the owner and length.
#[derive(Clone, Debug)]
pub struct Ranges<'a> {
    words: &'a [u64],
    /// Left out of the next range; not zero only before the first.
    head: u64,
    /// Left out of the last range.
    cut: u64,
}

impl Iterator for Ranges<'_> {
    type Item = (Bytes, Bytes);

    // A range has a byte at least within what is left out of it and lies below 2^64, so nothing wraps.
    #[inline]
    fn next(&mut self) -> Option<(Bytes, Bytes)> {
        let (offset, len, rest) = word::read(self.words)?;
        let head = mem::take(&mut self.head);
        let cut = if rest.is_empty() { self.cut } else { 0 };
        self.words = rest;
        Some((Bytes::new(offset.wrapping_add(head)), Bytes::new(len.wrapping_sub(head).wrapping_sub(cut))))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.words.len().div_ceil(word::MOST_WORDS), Some(self.words.len()))
    }
}

impl iter::FusedIterator for Ranges<'_> {}

/// The stretches of a list, view or part of a chain.
#[derive(Clone)]
pub struct Runs<'a, O> {
    rest: View<'a, O>,
    base: u64,
}

impl<'a, O: Copy + PartialEq> Runs<'a, O> {
    pub(super) fn new(view: View<'a, O>) -> Self {
        Self { base: view.start(), rest: view }
    }
}

impl<'a, O: Copy + PartialEq> Iterator for Runs<'a, O> {
    type Item = Run<'a, O>;

    #[inline]
    fn next(&mut self) -> Option<Run<'a, O>> {
        self.rest.split_first(self.base)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let runs = self.rest.groups_left();
        (runs, Some(runs))
    }
}

impl<O: Copy + PartialEq> ExactSizeIterator for Runs<'_, O> {}
impl<O: Copy + PartialEq> iter::FusedIterator for Runs<'_, O> {}

impl<O: Copy + PartialEq + fmt::Debug> fmt::Debug for Runs<'_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

/// The ranges of a list, view or chain as chunks.
#[derive(Clone, Debug)]
pub struct Iter<'a, O, R = Runs<'a, O>> {
    runs: R,
    /// Owner and attributes of the ranges that are being read.
    kind: Option<(O, MemAttrs)>,
    ranges: Ranges<'a>,
}

impl<O, R> Iter<'_, O, R> {
    #[inline]
    pub(super) fn new(runs: R) -> Self {
        Self { runs, kind: None, ranges: Ranges { words: &[], head: 0, cut: 0 } }
    }
}

impl<'a, O: Copy, R: Iterator<Item = Run<'a, O>>> Iterator for Iter<'a, O, R> {
    type Item = Chunk<O>;

    #[inline]
    fn next(&mut self) -> Option<Chunk<O>> {
        loop {
            if let Some((owner, attrs)) = self.kind
                && let Some((offset, len)) = self.ranges.next()
            {
                return Some(Chunk::part(owner, offset, len, attrs));
            }
            let run = self.runs.next()?;
            (self.kind, self.ranges) = (Some((run.owner(), run.attrs())), run.ranges());
        }
    }
}
