//! Page tables where devices can reach them.
//!
//! An IOMMU walks memory, and a device whose writes go astray may write to that same memory. So the
//! frames that page tables are linked in are bytes of the machine too, with each entry an atomic
//! word: a stray write damages entries, and the next walk meets what it left.

use super::{Memory, Outside};
use crate::wire::{Atomic, Operand};
use peerdma::addr::{AddrRange, Bytes, PhysAddr};
use peerdma::iopt::{FRAME_SIZE, Frame, FrameArena, TableMemory};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Most frames that one allocation has, as [`TableMemory::allocate`] says.
const LARGEST: usize = 256;

/// Frames of page tables, as memory of the machine and as memory for tables.
///
/// Clones are handles to the same frames. A frame that no table holds reads as zeros and ignores
/// writes, since what an allocator notes in it is nothing that a machine has: the frames of a real
/// kernel come back zeroed, whatever was written to them meanwhile.
///
/// ```
/// use peerdma::addr::{Bytes, PhysAddr};
/// use peerdma::iopt::TableMemory;
/// use peerdma_emu::memory::{Frames, Memory};
/// use std::sync::atomic::Ordering;
///
/// let frames = Frames::new(PhysAddr::new(0x4000_0000), 64).expect("far below the end of the space");
/// let table = frames.allocate(1).expect("64 are free");
/// let offset = Bytes::new(table.as_u64() - frames.range().start().as_u64());
/// frames.write(offset, &0x1234_5003_u64.to_le_bytes())?;
/// assert_eq!(frames.frame(table).unwrap()[0].load(Ordering::Relaxed), 0x1234_5003);
/// # Ok::<(), peerdma_emu::memory::Outside>(())
/// ```
///
/// # Concurrency
/// Each aligned word of 8 bytes is read and written in one. A write that meets the freeing of its frame
/// may still land in it.
#[derive(Clone, Debug)]
pub struct Frames {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    arena: FrameArena,
    range: AddrRange<PhysAddr>,
    /// Whether each frame belongs to a table.
    held: Box<[AtomicBool]>,
}

impl Frames {
    /// Makes `frames` frames of 4 KiB, the first at `base` rounded down to a frame.
    ///
    /// `None` where not a single one lies below the end of the address space.
    pub fn new(base: PhysAddr, frames: usize) -> Option<Self> {
        let arena = FrameArena::new(base, frames);
        let frame = FRAME_SIZE.as_u64();
        let base = PhysAddr::new(base.as_u64() - base.as_u64() % frame);
        let range = AddrRange::new(base, Bytes::new(arena.capacity() as u64 * frame))?;
        let held = (0..arena.capacity()).map(|_| AtomicBool::new(false)).collect();
        Some(Self { shared: Arc::new(Shared { arena, range, held }) })
    }

    /// Where the frames are.
    pub fn range(&self) -> AddrRange<PhysAddr> {
        self.shared.range
    }

    /// How many frames belong to tables.
    pub fn in_use(&self) -> usize {
        self.shared.arena.in_use()
    }

    /// Notes whether `count` frames from `at` on belong to a table.
    ///
    /// Nothing is noted of what [`FrameArena::free`](TableMemory::free) takes no notice of either.
    fn note(&self, at: PhysAddr, count: usize, held: bool) {
        let offset = at.as_u64().wrapping_sub(self.shared.range.start().as_u64());
        if !offset.is_multiple_of(FRAME_SIZE.as_u64()) || !count.is_power_of_two() || count > LARGEST {
            return;
        }
        let Ok(first) = usize::try_from(offset / FRAME_SIZE.as_u64()) else { return };
        let end = first.saturating_add(count);
        for note in self.shared.held.get(first..end).unwrap_or_default() {
            note.store(held, Ordering::Release);
        }
    }

    /// The word that `at`, which is there, lies in; `None` of a frame that no table holds.
    fn word(&self, at: u64) -> Option<&AtomicU64> {
        let frame = at / FRAME_SIZE.as_u64();
        if !self.shared.held.get(usize::try_from(frame).ok()?)?.load(Ordering::Acquire) {
            return None;
        }
        let base = self.shared.range.start().checked_add(Bytes::new(frame * FRAME_SIZE.as_u64()))?;
        self.shared.arena.frame(base)?.get((at % FRAME_SIZE.as_u64() / 8) as usize)
    }
}

/// Runs of bytes from `at` on that lie in one aligned word each: offset, place in the word, place in the run.
fn words(at: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let now = at + done as u64;
        let within = (now % 8) as usize;
        let size = (8 - within).min(len - done);
        let run = done..done + size;
        done += size;
        (size > 0).then_some((now, within, run))
    })
}

impl TableMemory for Frames {
    fn allocate(&self, count: usize) -> Option<PhysAddr> {
        let at = self.shared.arena.allocate(count)?;
        self.note(at, count, true);
        Some(at)
    }

    #[inline]
    fn frame(&self, at: PhysAddr) -> Option<&Frame> {
        self.shared.arena.frame(at)
    }

    fn free(&self, at: PhysAddr, count: usize) {
        // Noted before the frames are cleared, so that no write comes after that.
        self.note(at, count, false);
        self.shared.arena.free(at, count);
    }
}

impl Memory for Frames {
    fn len(&self) -> Bytes {
        self.shared.range.len()
    }

    fn read(&self, at: Bytes, into: &mut [u8]) -> Result<(), Outside> {
        Outside::check(at, into.len(), self.len())?;
        for (at, within, run) in words(at.as_u64(), into.len()) {
            let value = self.word(at).map_or(0, |word| word.load(Ordering::Acquire)).to_le_bytes();
            let size = run.len();
            into[run].copy_from_slice(&value[within..within + size]);
        }
        Ok(())
    }

    fn write(&self, at: Bytes, from: &[u8]) -> Result<(), Outside> {
        Outside::check(at, from.len(), self.len())?;
        for (at, within, run) in words(at.as_u64(), from.len()) {
            let Some(word) = self.word(at) else { continue };
            let merge = |found: u64| {
                let mut bytes = found.to_le_bytes();
                bytes[within..within + run.len()].copy_from_slice(&from[run.clone()]);
                u64::from_le_bytes(bytes)
            };
            if run.len() == 8 {
                word.store(merge(0), Ordering::Release);
            } else {
                change(word, merge);
            }
        }
        Ok(())
    }

    fn atomic(&self, at: Bytes, atomic: Atomic) -> Result<u64, Outside> {
        let (len, size) = (atomic.len(), self.len());
        Outside::check(at, len.as_u64() as usize, size)?;
        if !at.as_u64().is_multiple_of(len.as_u64()) {
            return Err(Outside { at, len, size });
        }
        let Some(word) = self.word(at.as_u64()) else { return Ok(0) };
        let shift = at.as_u64() % 8 * 8;
        let cut = |value: u64| if len == Operand::Word(0).len() { value & u64::from(u32::MAX) } else { value };
        let found = change(word, |whole| {
            let found = cut(whole >> shift);
            whole & !(cut(u64::MAX) << shift) | atomic.apply(found) << shift
        });
        Ok(cut(found >> shift))
    }
}

/// Replaces a word by what `change` makes of it; what stood there before.
fn change(word: &AtomicU64, change: impl Fn(u64) -> u64) -> u64 {
    let mut seen = word.load(Ordering::Relaxed);
    loop {
        match word.compare_exchange_weak(seen, change(seen), Ordering::AcqRel, Ordering::Relaxed) {
            Ok(found) => return found,
            Err(now) => seen = now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 0x10_0000;

    fn with_tables(count: usize) -> Frames {
        let frames = Frames::new(PhysAddr::new(BASE), 16).unwrap();
        assert_eq!(frames.allocate(count), Some(PhysAddr::new(BASE)));
        frames
    }

    fn entry(frames: &Frames, index: usize) -> u64 {
        frames.frame(PhysAddr::new(BASE)).unwrap()[index].load(Ordering::Relaxed)
    }

    #[test]
    fn a_stray_write_damages_the_entries_that_it_hits_and_no_others() {
        let frames = with_tables(2);
        for index in 0..4 {
            frames.frame(PhysAddr::new(BASE)).unwrap()[index].store(u64::MAX, Ordering::Relaxed);
        }
        frames.write(Bytes::new(6), &[0; 11]).unwrap();
        let found: Vec<_> = (0..4).map(|index| entry(&frames, index)).collect();
        assert_eq!(found, [0x0000_ffff_ffff_ffff, 0, 0xffff_ffff_ffff_ff00, u64::MAX]);
        let mut read = [0; 4];
        frames.read(Bytes::new(5), &mut read).unwrap();
        assert_eq!(read, [0xff, 0, 0, 0]);
    }

    #[test]
    fn a_frame_that_no_table_holds_ignores_writes_and_comes_zeroed() {
        let frames = with_tables(1);
        frames.write(Bytes::new(4088), &[7; 16]).unwrap();
        assert_eq!(entry(&frames, 511), 0x0707_0707_0707_0707);
        let next = frames.allocate(1).unwrap();
        assert_eq!(frames.frame(next).unwrap()[0].load(Ordering::Relaxed), 0);
        frames.free(PhysAddr::new(BASE), 1);
        frames.write(Bytes::ZERO, &[9; 64]).unwrap();
        let mut read = [1; 8];
        frames.read(Bytes::ZERO, &mut read).unwrap();
        assert_eq!(read, [0; 8]);
        assert_eq!((frames.allocate(1), entry(&frames, 0), frames.in_use()), (Some(PhysAddr::new(BASE)), 0, 2));
    }

    #[test]
    fn half_a_word_is_changed_without_the_other_half() {
        let frames = with_tables(1);
        frames.write(Bytes::new(8), &[0xff; 8]).unwrap();
        let add = Atomic::FetchAdd(Operand::Word(2));
        assert_eq!(frames.atomic(Bytes::new(12), add), Ok(0xffff_ffff));
        assert_eq!(entry(&frames, 1), 0x1_ffff_ffff);
        assert_eq!(frames.atomic(Bytes::new(8), Atomic::Swap(Operand::Double(3))), Ok(0x1_ffff_ffff));
        assert_eq!(entry(&frames, 1), 3);
        assert!(frames.atomic(Bytes::new(10), add).is_err());
        assert_eq!(frames.atomic(Bytes::new(8192), add), Ok(0));
    }

    #[test]
    fn clones_are_the_same_frames_and_their_range_is_known() {
        let frames = with_tables(1);
        frames.clone().write(Bytes::ZERO, &[1]).unwrap();
        assert_eq!(entry(&frames, 0), 1);
        assert_eq!((frames.range().start(), frames.len()), (PhysAddr::new(BASE), Bytes::new(0x1_0000)));
        assert!(Frames::new(PhysAddr::new(u64::MAX), 4).is_none());
        assert!(frames.read(Bytes::new(0xffff), &mut [0; 2]).is_err());
        for (at, count) in [(0, 8), (BASE + 8, 1), (BASE, 3), (BASE, 512), (BASE, 32)] {
            frames.free(PhysAddr::new(at), count);
        }
        frames.free(PhysAddr::new(u64::MAX), usize::MAX);
        frames.write(Bytes::ZERO, &[2]).unwrap();
        assert_eq!((entry(&frames, 0), frames.in_use()), (2, 1));
    }
}
