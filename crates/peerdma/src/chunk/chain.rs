//! One list after another.

use super::{Iter, Run, Runs, View};
use crate::addr::Bytes;

mod sealed {
    pub trait Sealed {}
}

/// A part of a list, or several such parts after another: [`View`] and [`Chain`].
///
/// For code that takes either. Nothing behind it allocates.
pub trait ChunkList<'a>: Copy + sealed::Sealed {
    /// Names the owners.
    type Owner: Copy + PartialEq + 'a;
    /// Iterates over stretches of one owner and the same attributes.
    type Runs: Iterator<Item = Run<'a, Self::Owner>> + Clone;

    /// Bytes in all ranges together.
    fn len(&self) -> Bytes;

    /// The stretches of one owner and the same attributes, in order.
    fn runs(&self) -> Self::Runs;

    /// The `len` bytes from `offset`; `None` if that is empty or any of it lies outside.
    fn slice(&self, offset: Bytes, len: Bytes) -> Option<Self>;

    /// Whether there is no range in it.
    fn is_empty(&self) -> bool {
        self.len() == Bytes::ZERO
    }

    /// The ranges in order.
    fn iter(&self) -> Iter<'a, Self::Owner, Self::Runs> {
        Iter::new(self.runs())
    }

    /// This list and then `other`, or `None` if together they pass 2^64 bytes.
    fn chain<L: ChunkList<'a, Owner = Self::Owner>>(self, other: L) -> Option<Chain<Self, L>> {
        Chain::new(self, other)
    }
}

impl<O> sealed::Sealed for View<'_, O> {}

impl<'a, O: Copy + PartialEq + 'a> ChunkList<'a> for View<'a, O> {
    type Owner = O;
    type Runs = Runs<'a, O>;

    fn len(&self) -> Bytes {
        View::len(self)
    }

    fn runs(&self) -> Runs<'a, O> {
        View::runs(self)
    }

    fn slice(&self, offset: Bytes, len: Bytes) -> Option<Self> {
        View::slice(self, offset, len)
    }
}

/// One list after another, neither of them copied.
///
/// A seam ends a run, and a range, even where both sides are of one kind or touch:
/// putting them together would take a copy
/// ([`Chunks::append_view`](super::Chunks::append_view) makes one).
#[derive(Clone, Copy, Debug)]
pub struct Chain<A, B> {
    /// Absent where a slice begins behind it.
    front: Option<A>,
    /// Absent where a slice ends before it.
    back: Option<B>,
    /// Bytes in the front.
    seam: u64,
    len: u64,
}

impl<A, B> Chain<A, B> {
    /// `None` if together they pass 2^64 bytes.
    pub(super) fn new<'a>(front: A, back: B) -> Option<Self>
    where
        A: ChunkList<'a>,
        B: ChunkList<'a, Owner = A::Owner>,
    {
        let len = front.len().checked_add(back.len())?.as_u64();
        Some(Self { seam: front.len().as_u64(), len, front: Some(front), back: Some(back) })
    }
}

impl<A, B> sealed::Sealed for Chain<A, B> {}

impl<'a, A, B> ChunkList<'a> for Chain<A, B>
where
    A: ChunkList<'a>,
    B: ChunkList<'a, Owner = A::Owner>,
{
    type Owner = A::Owner;
    type Runs = ChainRuns<A::Runs, B::Runs>;

    fn len(&self) -> Bytes {
        Bytes::new(self.len)
    }

    fn runs(&self) -> Self::Runs {
        ChainRuns {
            front: self.front.map(|front| front.runs()),
            back: self.back.map(|back| back.runs()),
            seam: self.seam,
        }
    }

    fn slice(&self, offset: Bytes, len: Bytes) -> Option<Self> {
        let (start, end) = (offset.as_u64(), offset.checked_add(len)?.as_u64());
        if len == Bytes::ZERO || end > self.len {
            return None;
        }
        let seam = end.min(self.seam).saturating_sub(start);
        let front = self.front.and_then(|front| front.slice(offset, Bytes::new(seam)));
        let skipped = Bytes::new(start.saturating_sub(self.seam));
        let back = self.back.and_then(|back| back.slice(skipped, Bytes::new(len.as_u64() - seam)));
        Some(Self { front, back, seam, len: len.as_u64() })
    }
}

/// The stretches of a [`Chain`].
#[derive(Clone, Debug)]
pub struct ChainRuns<A, B> {
    front: Option<A>,
    back: Option<B>,
    seam: u64,
}

impl<'a, O, A, B> Iterator for ChainRuns<A, B>
where
    O: Copy + 'a,
    A: Iterator<Item = Run<'a, O>>,
    B: Iterator<Item = Run<'a, O>>,
{
    type Item = Run<'a, O>;

    #[inline]
    fn next(&mut self) -> Option<Run<'a, O>> {
        if let Some(front) = &mut self.front {
            if let Some(run) = front.next() {
                return Some(run);
            }
            self.front = None;
        }
        self.back.as_mut()?.next().map(|run| run.moved(self.seam))
    }
}
