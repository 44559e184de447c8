//! A part of a list.

use super::list::Group;
use super::{Chain, Chunk, ChunkList, Iter, Run, Runs, word};
use crate::addr::Bytes;
use core::fmt;

/// A part of a list, or all of it, borrowed.
///
/// # Invariants
/// `groups` are those it touches. Its words are those from `word` to the end of `words`.
/// Its first range lacks `head` bytes of what its words say and its last one `cut`.
pub struct View<'a, O> {
    groups: &'a [Group<O>],
    words: &'a [u64],
    word: usize,
    head: u64,
    cut: u64,
    /// Where it begins in the list.
    start: u64,
    /// Where it ends in the list, exclusive.
    end: u64,
}

/// A byte of a list: which range it lies in, and where there.
struct Place {
    /// First word of the range.
    word: usize,
    /// First word after it.
    next: usize,
    /// Bytes before it in the range, as the words have it.
    before: u64,
    /// Bytes after it.
    after: u64,
}

impl<'a, O: Copy + PartialEq> View<'a, O> {
    pub(super) fn all(groups: &'a [Group<O>], words: &'a [u64], len: u64) -> Self {
        let head = groups.first().map_or(0, |group| u64::from(group.head));
        let cut = groups.last().map_or(0, |group| u64::from(group.cut));
        Self { groups, words, word: 0, head, cut, start: 0, end: len }
    }

    /// A view of nothing.
    pub fn empty() -> Self {
        Self::all(&[], &[], 0)
    }

    /// Bytes in all ranges together.
    #[inline]
    pub fn len(&self) -> Bytes {
        Bytes::new(self.end - self.start)
    }

    /// Whether there is no range in it.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The ranges in order; the first and the last are cut to the view.
    pub fn iter(&self) -> Iter<'a, O> {
        Iter::new(self.runs())
    }

    /// The stretches of one owner and the same attributes, in order.
    pub fn runs(&self) -> Runs<'a, O> {
        Runs::new(*self)
    }

    /// The `len` bytes of this view from `offset`, which counts from the view's start.
    ///
    /// `None` if that is empty or any of it lies outside. Reads the words of the groups
    /// in which the part begins and ends.
    pub fn slice(&self, offset: Bytes, len: Bytes) -> Option<Self> {
        if len == Bytes::ZERO || offset.checked_add(len)? > self.len() {
            return None;
        }
        (*self).part(offset.as_u64(), len.as_u64())
    }

    /// This view and then `other`, which may be of another list.
    ///
    /// `None` if together they pass 2^64 bytes.
    pub fn chain<L: ChunkList<'a, Owner = O>>(self, other: L) -> Option<Chain<Self, L>>
    where
        O: 'a,
    {
        Chain::new(self, other)
    }

    /// A part that is not empty and lies inside.
    fn part(mut self, offset: u64, len: u64) -> Option<Self> {
        let (start, end) = (self.start + offset, self.start + offset + len);
        if offset > 0 {
            let group = self.group_of(start);
            let place = self.place(group, start)?;
            self.groups = self.groups.get(group..)?;
            (self.word, self.head, self.start) = (place.word, place.before, start);
        }
        if end < self.end {
            let group = self.group_of(end - 1);
            let place = self.place(group, end - 1)?;
            self.groups = self.groups.get(..=group)?;
            (self.words, self.cut, self.end) = (self.words.get(..place.next)?, place.after, end);
        }
        Some(self)
    }

    /// Index of the group in which the list's byte `at` lies.
    fn group_of(&self, at: u64) -> usize {
        // The first group begins at or before the view.
        self.groups.partition_point(|group| group.at <= at).saturating_sub(1)
    }

    /// The place of the list's byte `at`, which lies in the group with this index.
    fn place(&self, index: usize, at: u64) -> Option<Place> {
        let group = self.groups.get(index)?;
        let (mut word, mut head, start) = match index {
            0 => (self.word, self.head, self.start),
            _ => (group.word, u64::from(group.head), group.at),
        };
        let mut left = at - start;
        loop {
            let (_, len, rest) = word::read(self.words.get(word..)?)?;
            let next = self.words.len() - rest.len();
            let held = len - head;
            // The group's cut cannot be met: `at` lies in the group.
            if left < held {
                let before = head + left;
                return Some(Place { word, next, before, after: len - before - 1 });
            }
            (left, head, word) = (left - held, 0, next);
        }
    }

    /// Takes the first stretch off.
    #[inline]
    pub(super) fn split_first(&mut self, base: u64) -> Option<Run<'a, O>> {
        let (group, rest) = self.groups.split_first()?;
        let (words, cut, end) = match rest.first() {
            Some(next) => (self.words.get(self.word..next.word)?, u64::from(group.cut), next.at),
            None => (self.words.get(self.word..)?, self.cut, self.end),
        };
        let whole = Chunk::part(group.owner, Bytes::new(self.start - base), Bytes::new(end - self.start), group.attrs);
        let run = Run::new(whole, words, self.head, cut);
        self.groups = rest;
        self.start = end;
        if let Some(next) = rest.first() {
            (self.word, self.head) = (next.word, u64::from(next.head));
        }
        Some(run)
    }

    /// Where it begins in its list.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// How many stretches it touches.
    pub(super) fn groups_left(&self) -> usize {
        self.groups.len()
    }
}

impl<O> Clone for View<'_, O> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<O> Copy for View<'_, O> {}

impl<'a, O: Copy + PartialEq> IntoIterator for View<'a, O> {
    type Item = Chunk<O>;
    type IntoIter = Iter<'a, O>;

    fn into_iter(self) -> Iter<'a, O> {
        self.iter()
    }
}

impl<O: Copy + PartialEq + fmt::Debug> fmt::Debug for View<'_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
