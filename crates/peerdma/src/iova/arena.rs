//! Freed ranges of one queue, kept at hand by length.

use super::allocator::shift;
use super::{Depot, Exhausted, FreeError, Want};
use crate::addr::{AddrRange, Bytes, Iova};
use alloc::vec::Vec;

/// Granules of the longest range that is kept.
const LONGEST: usize = 512;

/// Ranges kept of one length, at most, besides the one freed last.
const MOST: usize = 32;

/// Bytes kept by an arena that nobody gave another number.
const USUAL: Bytes = Bytes::new(64 << 20);

/// One queue's ranges in front of a shared [`Allocator`](super::Allocator).
///
/// What is freed is kept and handed out again without a look at the shared allocator, so
/// that queues do not wait for each other. A range is kept under its exact length and is
/// handed out only for that length, so that whoever frees it, wherever, names the range
/// that the shared allocator knows. (Linux keeps ranges by powers of two and frees by the
/// length last mapped, which may be another power than the one allocated.)
///
/// Kept ranges count as allocated for everybody else. An arena dropped without
/// [`drain`](Self::drain) keeps them for ever. Use one arena with one allocator.
///
/// # What taking a range back proves
/// An arena checks that the range is not among those it keeps. Whether it was ever
/// allocated, and as such, only the shared allocator knows, and it is asked when the range
/// leaves the arena. Callers that cannot vouch for their ranges free them there.
#[derive(Debug)]
pub struct Arena {
    /// What is kept, by length in granules less one; empty until the allocator was asked for its granule.
    kept: Vec<Kept>,
    /// The allocator's granule as a power of two, of no meaning while `kept` is empty.
    shift: u32,
    /// Bytes kept at most, and how many more may be.
    most: u64,
    room: u64,
}

/// Kept ranges of one length.
///
/// The one freed last stands alone, since mostly it is the next one wanted.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Kept {
    /// First address of the one freed last; 0 if none is kept, since address 0 is never handed out.
    latest: u64,
    /// Those of the others, the one freed first at the start; room for all is made with the first of their length.
    earlier: Vec<u64>,
    /// Their length in bytes; 0 where no range of that length was ever kept.
    len: u64,
    /// The bits that are 0 in naturally aligned starts.
    inside: u64,
}

impl Default for Arena {
    fn default() -> Self {
        Self::new()
    }
}

impl Arena {
    /// An arena that keeps up to 64 MiB, and a few dozen ranges of each length.
    pub const fn new() -> Self {
        Self::keeping(USUAL)
    }

    /// An arena that keeps up to `most` bytes, and a few dozen ranges of each length.
    ///
    /// A queue whose lengths vary widely needs more than one with few, and a space that is nearly full
    /// has less to spare.
    pub const fn keeping(most: Bytes) -> Self {
        Self { kept: Vec::new(), shift: 0, most: most.as_u64(), room: most.as_u64() }
    }

    /// Bytes kept now.
    pub const fn held(&self) -> Bytes {
        Bytes::new(self.most - self.room)
    }

    /// Allocates what is wanted, from what is kept if that serves, else from `shared`.
    ///
    /// What is wanted with another than the natural alignment or with guards comes from `shared`.
    ///
    /// # Errors
    /// [`Exhausted`] if `shared` has no room even with all that was kept here given back.
    #[inline(always)]
    pub fn allocate(&mut self, shared: &impl Depot, want: &Want) -> Result<AddrRange<Iova>, Exhausted> {
        match self.take(want) {
            Some(range) => Ok(range),
            None => self.allocate_shared(shared, *want),
        }
    }

    /// The kept range of that length that was freed last of those below the limit.
    #[inline(always)]
    fn take(&mut self, want: &Want) -> Option<AddrRange<Iova>> {
        let kept = self.kept.get_mut(class(want.len(), self.shift))?;
        if want.align().is_some() || want.guard() != Bytes::ZERO {
            return None;
        }
        let start = kept.latest;
        if start == 0 {
            return None;
        }
        let range = AddrRange::new(Iova::new(start), Bytes::new(kept.len))?;
        // The range's last address, which does not wrap since there is such a range.
        if start.wrapping_add(kept.len.wrapping_sub(1)) > want.limit().as_u64() {
            return self.take_below(*want);
        }
        kept.latest = kept.earlier.pop().unwrap_or(0);
        self.room += kept.len;
        Some(range)
    }

    /// The kept range of that length that was freed last of those below the limit, if that is not the latest of all.
    #[cold]
    #[inline(never)]
    fn take_below(&mut self, want: Want) -> Option<AddrRange<Iova>> {
        let kept = self.kept.get_mut(class(want.len(), self.shift))?;
        let highest = want.limit().as_u64().checked_sub(kept.len.checked_sub(1)?)?;
        let at = kept.earlier.iter().rposition(|&start| start <= highest)?;
        self.room += kept.len;
        AddrRange::new(Iova::new(kept.earlier.remove(at)), Bytes::new(kept.len))
    }

    /// Takes `want` by value, since a reference would have it written to memory where it is not needed.
    #[cold]
    #[inline(never)]
    fn allocate_shared(&mut self, shared: &impl Depot, want: Want) -> Result<AddrRange<Iova>, Exhausted> {
        let first_try = shared.with(|allocator| allocator.allocate(&want));
        if first_try.is_ok() || self.room == self.most {
            return first_try;
        }
        // A stranger among what is kept is not given back; whoever drains is told, and here it changes nothing.
        let _ = self.drain(shared);
        shared.with(|allocator| allocator.allocate(&want))
    }

    /// Takes a range back, to be handed out again by this arena, or gives it to `shared`.
    ///
    /// # Errors
    /// [`FreeError`] if the range is kept already, or if `shared` is asked and refuses it. It names another
    /// range if one kept before turns out to be a stranger when it makes room for this one, which is kept.
    #[inline(always)]
    pub fn free(&mut self, shared: &impl Depot, range: AddrRange<Iova>) -> Result<(), FreeError> {
        let (start, len) = (range.start().as_u64(), range.len().as_u64());
        let class = class(range.len(), self.shift);
        if let Some(kept) = self.kept.get_mut(class)
            && kept.len == len
            && start & kept.inside == 0
            && start != 0
            && let Some(room) = self.room.checked_sub(len)
        {
            if kept.latest != 0 {
                return self.free_beside(shared, class, range);
            }
            kept.latest = start;
            self.room = room;
            return Ok(());
        }
        self.free_otherwise(shared, range)
    }

    /// Keeps a range beside others of its class, for which there is room.
    #[inline(never)]
    fn free_beside(&mut self, shared: &impl Depot, class: usize, range: AddrRange<Iova>) -> Result<(), FreeError> {
        let kept = &mut self.kept[class];
        let start = range.start().as_u64();
        if kept.holds(start) {
            return Err(FreeError::NotAllocated { range });
        }
        self.room -= kept.len;
        let before = core::mem::replace(&mut kept.latest, start);
        if kept.earlier.len() < MOST {
            kept.earlier.push(before);
            return Ok(());
        }
        let outcome = kept.give_back(shared, MOST / 2);
        kept.earlier.push(before);
        self.room += (MOST / 2) as u64 * kept.len;
        outcome
    }

    /// Takes a range back that cannot be kept, or the first of its length.
    #[cold]
    #[inline(never)]
    fn free_otherwise(&mut self, shared: &impl Depot, range: AddrRange<Iova>) -> Result<(), FreeError> {
        self.shift = shared.with(|allocator| shift(allocator.granule()));
        let (start, len) = (range.start().as_u64(), range.len().as_u64());
        let class = class(range.len(), self.shift);
        if start == 0 || class >= LONGEST || len >> self.shift << self.shift != len {
            return shared.with(|allocator| allocator.free(range));
        }
        if self.kept.len() <= class {
            self.kept.resize_with(class + 1, Kept::default);
        }
        let kept = &mut self.kept[class];
        if kept.len == 0 {
            let inside = (class as u64 + 1).next_power_of_two().wrapping_shl(self.shift).wrapping_sub(1);
            *kept = Kept { latest: 0, earlier: Vec::with_capacity(MOST + 1), len, inside };
        }
        if kept.holds(start) {
            return Err(FreeError::NotAllocated { range });
        }
        if kept.latest != 0 || kept.len != len || start & kept.inside != 0 || len > self.room {
            return shared.with(|allocator| allocator.free(range));
        }
        kept.latest = start;
        self.room -= len;
        Ok(())
    }

    /// Gives everything back to `shared`.
    ///
    /// # Errors
    /// [`FreeError`] of the first range that `shared` does not know as allocated: somebody freed what was not
    /// theirs. All others are given back.
    pub fn drain(&mut self, shared: &impl Depot) -> Result<(), FreeError> {
        let mut outcome = Ok(());
        for kept in &mut self.kept {
            match core::mem::take(&mut kept.latest) {
                0 => {}
                latest => kept.earlier.push(latest),
            }
            outcome = outcome.and(kept.give_back(shared, kept.earlier.len()));
        }
        self.room = self.most;
        outcome
    }
}

impl Kept {
    /// Whether a range that starts there is kept.
    ///
    /// Looks at all of them, since to leave early is a branch that is mispredicted, and dearer.
    #[inline(always)]
    fn holds(&self, start: u64) -> bool {
        let mut is_kept = self.latest == start;
        for &other in &self.earlier {
            is_kept |= other == start;
        }
        is_kept
    }

    /// Gives back the `number` ranges that were freed first, all of them; the first refusal.
    fn give_back(&mut self, shared: &impl Depot, number: usize) -> Result<(), FreeError> {
        if number == 0 {
            return Ok(());
        }
        shared.with(|allocator| {
            let mut outcome = Ok(());
            for start in self.earlier.drain(..number) {
                if let Some(range) = AddrRange::new(Iova::new(start), Bytes::new(self.len)) {
                    outcome = outcome.and(allocator.free(range));
                }
            }
            outcome
        })
    }
}

/// Where ranges of a length are kept: its granules less one; no bytes at all are kept nowhere.
#[inline(always)]
fn class(len: Bytes, shift: u32) -> usize {
    // Where an index is narrower than a length, one that does not fit is that of no class.
    usize::try_from(len.as_u64().wrapping_sub(1) >> (shift & 63)).unwrap_or(usize::MAX)
}
