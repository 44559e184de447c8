//! Translation with nothing but loads: four levels of tables, and a table of one answer each.

use std::sync::atomic::{AtomicU64, Ordering};

/// A table.
pub type Frame = [AtomicU64; 512];

/// Present.
const PRESENT: u64 = 1;

/// Four levels, whose entries hold the number of a frame in a row of frames.
pub struct FourLevels {
    frames: Vec<Frame>,
}

impl Default for FourLevels {
    fn default() -> Self {
        Self { frames: vec![empty()] }
    }
}

impl FourLevels {
    /// Maps the page at `iova` to that at `target`.
    pub fn map(&mut self, iova: u64, target: u64) {
        let mut frame = 0;
        for shift in [39, 30, 21] {
            let index = (iova >> shift) as usize % 512;
            let entry = self.frames[frame][index].load(Ordering::Relaxed);
            frame = if entry & PRESENT == 0 {
                let next = self.frames.len();
                self.frames.push(empty());
                self.frames[frame][index].store((next as u64) << 12 | PRESENT, Ordering::Relaxed);
                next
            } else {
                (entry >> 12) as usize
            };
        }
        self.frames[frame][(iova >> 12) as usize % 512].store(target | PRESENT, Ordering::Relaxed);
    }

    /// Where an access goes, or 0.
    #[inline]
    pub fn translate(&self, iova: u64) -> u64 {
        if iova >> 48 != 0 {
            return 0;
        }
        let mut frame = 0;
        let mut shift = 39;
        loop {
            let Some(table) = self.frames.get(frame) else { return 0 };
            let entry = table[(iova >> shift) as usize % 512].load(Ordering::Relaxed);
            if entry & PRESENT == 0 {
                return 0;
            }
            if shift == 12 {
                return (entry & !0xfff) | (iova & 0xfff);
            }
            frame = (entry >> 12) as usize;
            shift -= 9;
        }
    }
}

fn empty() -> Frame {
    std::array::from_fn(|_| AtomicU64::new(0))
}

/// What a mapping permits.
const READ: u64 = 1;
const WRITE: u64 = 2;

/// One answer for each page number's last bits, with a generation.
pub struct Hits {
    slots: Vec<Slot>,
    generation: AtomicU64,
}

#[derive(Clone, Copy)]
struct Slot {
    page: u64,
    target: u64,
    generation: u64,
    permits: u64,
}

impl Hits {
    /// Holds these pairs of IOVA and target; a power of two of them, one behind the other.
    pub fn of(pages: &[(u64, u64)]) -> Self {
        let mut slots =
            vec![Slot { page: u64::MAX, target: 0, generation: 0, permits: 0 }; pages.len().next_power_of_two()];
        let last = slots.len() - 1;
        for &(iova, target) in pages {
            slots[(iova >> 12) as usize & last] =
                Slot { page: iova >> 12, target, generation: 1, permits: READ | WRITE };
        }
        Self { slots, generation: AtomicU64::new(1) }
    }

    /// Where a read goes, or 0.
    #[inline]
    pub fn translate(&self, iova: u64) -> u64 {
        let page = iova >> 12;
        let slot = &self.slots[page as usize & (self.slots.len() - 1)];
        let now = self.generation.load(Ordering::Acquire);
        if slot.page == page && slot.generation == now && slot.permits & READ != 0 {
            return slot.target | (iova & 0xfff);
        }
        0
    }
}
