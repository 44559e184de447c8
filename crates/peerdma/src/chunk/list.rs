//! The list, and how it grows.

use super::{Chunk, Iter, Runs, View, word};
use crate::access::MemAttrs;
use crate::addr::Bytes;
use alloc::vec::Vec;
use core::fmt;
use word::Ends;

/// Why a list does not take a chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// The list would be longer than 64 bits can say.
    #[error("a list of {list} takes no chunk of {chunk}: together they pass 2^64 bytes; map them as two lists")]
    TooLong {
        /// Length of the list so far.
        list: Bytes,
        /// Length of the chunk.
        chunk: Bytes,
    },
}

/// What the ranges of one stretch have in common, and where its words begin.
///
/// # Invariants
/// `head` belongs to the first of its ranges and `cut` to the last; both are below a page.
/// It has a range at least, and its neighbours differ from it in owner or attributes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Group<O> {
    pub(super) owner: O,
    pub(super) attrs: MemAttrs,
    pub(super) head: u16,
    pub(super) cut: u16,
    /// Index of its first word; the last is before the next group's first.
    pub(super) word: usize,
    /// Bytes of the list before it.
    pub(super) at: u64,
}

const _: () = assert!(size_of::<Group<[u64; 2]>>() <= 64, "a group's header takes at most 64 bytes");

/// Ranges of memory in the order in which a device sees them, packed.
///
/// A range of whole pages takes 8 bytes, a stretch of one owner and the same attributes
/// at most 64 more. Two chunks that follow each other in list and owner alike are one
/// range.
#[derive(Clone, PartialEq, Eq)]
pub struct Chunks<O> {
    groups: Vec<Group<O>>,
    words: Vec<u64>,
    /// Bytes in all ranges.
    len: u64,
    /// Number of ranges.
    ranges: usize,
    /// Index of the last range's first word.
    last: usize,
    /// End of the last range in its owner, exclusive.
    end: u64,
}

impl<O> Chunks<O> {
    /// An empty list, which holds no heap.
    pub const fn new() -> Self {
        Self { groups: Vec::new(), words: Vec::new(), len: 0, ranges: 0, last: 0, end: 0 }
    }

    /// An empty list with room for `runs` stretches of one owner and `ranges` ranges of whole pages.
    pub fn with_capacity(runs: usize, ranges: usize) -> Self {
        Self { groups: Vec::with_capacity(runs), words: Vec::with_capacity(ranges), ..Self::new() }
    }

    /// Bytes in all ranges together.
    pub const fn len(&self) -> Bytes {
        Bytes::new(self.len)
    }

    /// Whether there is no range in it.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of ranges; those that touch were merged.
    pub const fn ranges(&self) -> usize {
        self.ranges
    }

    /// Heap bytes that the list holds, room for growth included.
    pub fn metadata(&self) -> Bytes {
        // Neither vector is larger than the address space.
        Bytes::new((self.groups.capacity() * size_of::<Group<O>>() + self.words.capacity() * size_of::<u64>()) as u64)
    }

    /// Returns the room for growth, for a list that is kept as it is.
    pub fn shrink(&mut self) {
        self.groups.shrink_to_fit();
        self.words.shrink_to_fit();
    }
}

impl<O: Copy + PartialEq> Chunks<O> {
    /// The list of all these chunks, without room for growth.
    ///
    /// # Errors
    /// [`PushError`] as from [`push`](Self::push).
    pub fn collect_from(chunks: impl IntoIterator<Item = Chunk<O>>) -> Result<Self, PushError> {
        let mut list = Self::new();
        chunks.into_iter().try_for_each(|chunk| list.push(chunk))?;
        list.shrink();
        Ok(list)
    }

    /// Puts a chunk at the end, merging it with the last range where the two touch.
    ///
    /// # Errors
    /// [`PushError::TooLong`]: the list is unchanged; start another.
    #[inline]
    pub fn push(&mut self, chunk: Chunk<O>) -> Result<(), PushError> {
        let (offset, len) = (chunk.offset().as_u64(), chunk.len().as_u64());
        let too_long = PushError::TooLong { list: self.len(), chunk: chunk.len() };
        let total = self.len.checked_add(len).ok_or(too_long)?;
        match self.groups.last() {
            Some(group) if group.owner == chunk.owner() && group.attrs == chunk.attrs() => {
                if offset == self.end {
                    self.lengthen(len);
                } else {
                    self.close();
                    self.append(offset, len);
                }
            }
            _ => {
                let (owner, attrs) = (chunk.owner(), chunk.attrs());
                if self.groups.is_empty() {
                    // Most lists have one owner, many one range; a vector would make room for four.
                    self.groups.reserve_exact(1);
                    self.words.reserve_exact(1);
                }
                self.groups.push(Group { owner, attrs, head: 0, cut: 0, word: self.words.len(), at: self.len });
                self.append(offset, len);
            }
        }
        self.len = total;
        // A chunk's end fits in 64 bits.
        self.end = offset + len;
        Ok(())
    }

    /// Puts a view's ranges at the end.
    ///
    /// # Errors
    /// [`PushError`] as from [`push`](Self::push); nothing was added.
    pub fn append_view(&mut self, view: View<'_, O>) -> Result<(), PushError> {
        if self.len.checked_add(view.len().as_u64()).is_none() {
            return Err(PushError::TooLong { list: self.len(), chunk: view.len() });
        }
        view.iter().try_for_each(|chunk| self.push(chunk))
    }

    /// Whether the last range is the first of its group.
    fn last_is_first(&self) -> bool {
        self.groups.last().is_some_and(|group| group.word == self.last)
    }

    /// Takes the last range's words off, and returns its offset and length.
    fn take_last(&mut self) -> Option<(u64, u64)> {
        let group = self.groups.last()?;
        let head = if self.last_is_first() { u64::from(group.head) } else { 0 };
        let cut = u64::from(group.cut);
        let (offset, len, _) = word::read(self.words.get(self.last..)?)?;
        self.words.truncate(self.last);
        Some((offset + head, len - head - cut))
    }

    /// Writes the last range; the header speaks for its end unless `closed`.
    fn write_last(&mut self, offset: u64, len: u64, closed: bool) {
        let first = self.last_is_first();
        let trim = word::write(&mut self.words, offset, len, Ends { first, last: !closed });
        if let Some(group) = self.groups.last_mut() {
            if first {
                group.head = trim.head;
            }
            group.cut = trim.cut;
        }
    }

    /// Writes a range as the last one of the last group, whose header has no cut yet.
    #[inline]
    fn append(&mut self, offset: u64, len: u64) {
        self.last = self.words.len();
        self.ranges += 1;
        match word::of_pages(offset, len) {
            Some(word) => self.words.push(word),
            None => self.write_last(offset, len, false),
        }
    }

    /// Makes the last range longer by what follows it.
    #[inline]
    fn lengthen(&mut self, by: u64) {
        let whole = self.groups.last().is_some_and(|group| group.cut == 0);
        if let [word] = &mut self.words[self.last..]
            && whole
            && let Some(longer) = word::longer(*word, by)
        {
            *word = longer;
            return;
        }
        if let Some((offset, len)) = self.take_last() {
            self.write_last(offset, len + by, false);
        }
    }

    /// Takes the last range's cut out of the header, since another range will be the last.
    #[inline]
    fn close(&mut self) {
        if self.groups.last().is_some_and(|group| group.cut != 0)
            && let Some((offset, len)) = self.take_last()
        {
            self.write_last(offset, len, true);
        }
    }

    /// The ranges in order.
    pub fn iter(&self) -> Iter<'_, O> {
        self.view().iter()
    }

    /// The stretches of one owner and the same attributes, in order.
    pub fn runs(&self) -> Runs<'_, O> {
        self.view().runs()
    }

    /// The `len` bytes from `offset`, which counts in the list; nothing is copied.
    ///
    /// `None` if that is empty or any of it lies outside. Reads the words of the groups
    /// in which the part begins and ends.
    pub fn slice(&self, offset: Bytes, len: Bytes) -> Option<View<'_, O>> {
        self.view().slice(offset, len)
    }

    /// All of it.
    pub fn view(&self) -> View<'_, O> {
        View::all(&self.groups, &self.words, self.len)
    }
}

impl<O> Default for Chunks<O> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a, O: Copy + PartialEq> IntoIterator for &'a Chunks<O> {
    type Item = Chunk<O>;
    type IntoIter = Iter<'a, O>;

    fn into_iter(self) -> Iter<'a, O> {
        self.iter()
    }
}

impl<O: Copy + PartialEq + fmt::Debug> fmt::Debug for Chunks<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}
