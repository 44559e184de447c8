//! Where tables live: frames that somebody hands in.
//!
//! The core dereferences no address. Whoever owns the memory (an emulated machine, a VMM,
//! a kernel) turns a physical address into a borrowed frame of atomic entries, so that an
//! emulated IOMMU walks the very bytes that were written, and an address that a damaged
//! entry makes up ends a walk instead of reaching memory.
//!
//! [`FrameArena`] is such memory in safe Rust, for tests, planning and benches.

use crate::addr::{Bytes, PhysAddr};
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use alloc::vec;
use alloc::vec::Vec;

/// Size of a frame.
pub const FRAME_SIZE: Bytes = Bytes::new(4096);

/// Entries in a frame.
const ENTRIES: usize = 512;

const FRAME_SHIFT: u32 = 12;

/// One frame of 4 KiB that tables live in, as its 512 single-copy atomic entries.
pub type Frame = [AtomicU64; ENTRIES];

/// Frames that tables live in.
///
/// Tables of 16 KiB and 64 KiB granules and concatenated roots take several frames in a row.
pub trait TableMemory {
    /// Allocates `count` zeroed frames in a row, aligned to `count` frames; `None`: no memory.
    ///
    /// `count` is a power of two, at most 256 (sixteen concatenated tables of 64 KiB). Frames that
    /// an entry of the format cannot point to, for being too high, are given back at once.
    fn allocate(&self, count: usize) -> Option<PhysAddr>;

    /// The frame at `at`; `None` if no table frame begins there.
    fn frame(&self, at: PhysAddr) -> Option<&Frame>;

    /// Takes back `count` frames that one call of [`allocate`](Self::allocate) gave, whatever they hold.
    fn free(&self, at: PhysAddr, count: usize);
}

impl<M: TableMemory + ?Sized> TableMemory for &M {
    #[inline]
    fn allocate(&self, count: usize) -> Option<PhysAddr> {
        (**self).allocate(count)
    }

    #[inline]
    fn frame(&self, at: PhysAddr) -> Option<&Frame> {
        (**self).frame(at)
    }

    #[inline]
    fn free(&self, at: PhysAddr, count: usize) {
        (**self).free(at, count);
    }
}

/// Largest block is `1 << (ORDERS - 1)` frames.
const ORDERS: usize = 9;

/// A fixed number of frames at a physical base address.
///
/// Concurrent calls need no lock. Frames of the zeroed allocation that were never handed out
/// are not touched, so that a large capacity costs address space and no memory (with an
/// optimising compiler and a system that maps zeroed memory lazily).
///
/// ```
/// use peerdma::addr::PhysAddr;
/// use peerdma::iopt::{FrameArena, TableMemory};
///
/// let arena = FrameArena::new(PhysAddr::new(0x1_0000_0000), 64);
/// let at = arena.allocate(1).unwrap();
/// assert_eq!(arena.frame(at).unwrap().len(), 512);
/// assert_eq!(arena.in_use(), 1);
/// arena.free(at, 1);
/// assert_eq!(arena.in_use(), 0);
/// ```
#[derive(Debug)]
pub struct FrameArena {
    base: u64,
    words: Vec<AtomicU64>,
    /// Index of the first frame that was never handed out.
    fresh: AtomicUsize,
    /// Freed blocks per order: first frame's index + 1 below, a tag against reuse of the same head above.
    free: [AtomicU64; ORDERS],
    in_use: AtomicUsize,
}

impl FrameArena {
    /// Makes an arena of `frames` frames whose first is at `base`, rounded down to a frame.
    ///
    /// Frames that would lie past the end of the address space are left out.
    pub fn new(base: PhysAddr, frames: usize) -> Self {
        let base = base.as_u64() >> FRAME_SHIFT << FRAME_SHIFT;
        let room = usize::try_from((u64::MAX - base) >> FRAME_SHIFT).unwrap_or(usize::MAX);
        let frames = frames.min(room).min(u32::MAX as usize - 1).min(usize::MAX / ENTRIES);
        // Zeroed integers come from the allocator without a write, and turning them into
        // atomics in place is no work either.
        let words = vec![0_u64; frames * ENTRIES].into_iter().map(AtomicU64::new).collect();
        Self {
            base,
            words,
            fresh: AtomicUsize::new(0),
            free: core::array::from_fn(|_| AtomicU64::new(0)),
            in_use: AtomicUsize::new(0),
        }
    }

    /// How many frames are allocated.
    pub fn in_use(&self) -> usize {
        self.in_use.load(Ordering::Relaxed)
    }

    /// The frames by value, for page tables and walkers that are to be fast.
    #[inline]
    pub fn frames(&self) -> Frames<'_> {
        Frames { base: self.base, frames: self.words.as_chunks::<ENTRIES>().0, arena: self }
    }

    /// How many frames there are.
    pub fn capacity(&self) -> usize {
        self.words.len() / ENTRIES
    }

    #[inline]
    fn at(&self, index: usize) -> PhysAddr {
        PhysAddr::new(self.base + ((index as u64) << FRAME_SHIFT))
    }

    /// Pushes a block whose frames are all zero.
    fn push(&self, index: usize, order: usize) {
        let Some(link) = self.words.get(index * ENTRIES) else { return };
        let head = &self.free[order];
        let mut seen = head.load(Ordering::Relaxed);
        loop {
            link.store(seen & u64::from(u32::MAX), Ordering::Relaxed);
            let next = ((seen >> 32).wrapping_add(1) << 32) | (index as u64 + 1);
            match head.compare_exchange_weak(seen, next, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    fn pop(&self, order: usize) -> Option<usize> {
        let head = &self.free[order];
        let mut seen = head.load(Ordering::Acquire);
        loop {
            let index = usize::try_from(seen & u64::from(u32::MAX)).ok()?.checked_sub(1)?;
            let link = self.words.get(index * ENTRIES)?;
            // A word of a frame that somebody else popped meanwhile; then the tag has changed.
            let below = link.load(Ordering::Relaxed) & u64::from(u32::MAX);
            let next = ((seen >> 32).wrapping_add(1) << 32) | below;
            match head.compare_exchange_weak(seen, next, Ordering::Acquire, Ordering::Acquire) {
                Ok(_) => {
                    link.store(0, Ordering::Relaxed);
                    return Some(index);
                }
                Err(now) => seen = now,
            }
        }
    }

    /// Takes frames that were never handed out; the gap that alignment leaves can be had singly.
    fn take_fresh(&self, count: usize) -> Option<usize> {
        let mut seen = self.fresh.load(Ordering::Relaxed);
        loop {
            let page = usize::try_from(self.base >> FRAME_SHIFT & 0xffff).ok()?;
            let first = (seen + page).next_multiple_of(count) - page;
            let end = first.checked_add(count)?;
            if end > self.capacity() {
                return None;
            }
            match self.fresh.compare_exchange_weak(seen, end, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    (seen..first).for_each(|gap| self.push(gap, 0));
                    return Some(first);
                }
                Err(now) => seen = now,
            }
        }
    }
}

/// The frames of an arena, by value.
///
/// The same memory as the arena, looked up with fewer loads: nothing in this value can change,
/// so that a compiler keeps it in registers from one level of a walk to the next.
#[derive(Clone, Copy, Debug)]
pub struct Frames<'a> {
    base: u64,
    frames: &'a [Frame],
    arena: &'a FrameArena,
}

impl TableMemory for Frames<'_> {
    fn allocate(&self, count: usize) -> Option<PhysAddr> {
        self.arena.allocate(count)
    }

    #[inline]
    fn frame(&self, at: PhysAddr) -> Option<&Frame> {
        // Rotating turns a misaligned offset into an index that no arena holds.
        let index = at.as_u64().wrapping_sub(self.base).rotate_right(FRAME_SHIFT);
        self.frames.get(usize::try_from(index).ok()?)
    }

    fn free(&self, at: PhysAddr, count: usize) {
        self.arena.free(at, count);
    }
}

impl TableMemory for FrameArena {
    fn allocate(&self, count: usize) -> Option<PhysAddr> {
        if !count.is_power_of_two() || count >= 1 << ORDERS {
            return None;
        }
        let order = count.trailing_zeros() as usize;
        let index = self.pop(order).or_else(|| self.take_fresh(count))?;
        self.in_use.fetch_add(count, Ordering::Relaxed);
        Some(self.at(index))
    }

    #[inline]
    fn frame(&self, at: PhysAddr) -> Option<&Frame> {
        let index = at.as_u64().wrapping_sub(self.base).rotate_right(FRAME_SHIFT);
        self.words.as_chunks::<ENTRIES>().0.get(usize::try_from(index).ok()?)
    }

    fn free(&self, at: PhysAddr, count: usize) {
        let index = at.as_u64().wrapping_sub(self.base).rotate_right(FRAME_SHIFT);
        let Ok(index) = usize::try_from(index) else { return };
        let within = index.checked_add(count).is_some_and(|end| end <= self.capacity());
        if !within || !count.is_power_of_two() || count >= 1 << ORDERS {
            return;
        }
        for word in &self.words[index * ENTRIES..(index + count) * ENTRIES] {
            word.store(0, Ordering::Relaxed);
        }
        self.in_use.fetch_sub(count, Ordering::Relaxed);
        self.push(index, count.trailing_zeros() as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn frames_come_zeroed_aligned_and_come_again() {
        // The base is no multiple of a large block.
        let arena = FrameArena::new(PhysAddr::new(0x10_3000), 64);
        for count in [1, 2, 8, 16] {
            let at = arena.allocate(count).unwrap();
            assert_eq!(at.as_u64() % (count as u64 * 0x1000), 0, "{count}");
            for frame in 0..count as u64 {
                let frame = arena.frame(at.checked_add(Bytes::new(frame << 12)).unwrap()).unwrap();
                assert!(frame.iter().all(|word| word.load(Ordering::Relaxed) == 0));
                frame[511].store(7, Ordering::Relaxed);
            }
            arena.free(at, count);
            assert_eq!(arena.in_use(), 0);
            assert_eq!(arena.allocate(count), Some(at));
            assert_eq!(arena.frame(at).unwrap()[511].load(Ordering::Relaxed), 0);
            arena.free(at, count);
        }
    }

    #[test]
    fn an_arena_ends_and_frames_that_alignment_skipped_are_not_lost() {
        let arena = FrameArena::new(PhysAddr::new(0x1000), 16);
        assert!(arena.allocate(8).is_some());
        let singles: Vec<_> = core::iter::from_fn(|| arena.allocate(1)).collect();
        assert_eq!((singles.len(), arena.in_use()), (8, 16));
        assert_eq!((arena.allocate(3), arena.allocate(0), arena.allocate(512)), (None, None, None));
    }

    #[test]
    fn no_frame_begins_elsewhere() {
        let arena = FrameArena::new(PhysAddr::new(0x10_0000), 2);
        for at in [0, 0xf_f000, 0x10_0008, 0x10_2000, u64::MAX, u64::MAX << 12] {
            assert!(arena.frame(PhysAddr::new(at)).is_none() && arena.frames().frame(PhysAddr::new(at)).is_none());
            arena.free(PhysAddr::new(at), 1);
        }
        assert!(arena.frames().frame(PhysAddr::new(0x10_1000)).is_some());
        assert_eq!(FrameArena::new(PhysAddr::new(u64::MAX), 9).capacity(), 0);
    }
}
