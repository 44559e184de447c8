//! The pool.

use super::cells::{Cells, LONGEST};
use super::{AreaError, Bouncer, Memory, MemoryError, Place, PoolError, Slot, Towards};
use crate::addr::{Bytes, Granule};
use crate::dma::owner::Owner;
use core::fmt;

/// The most cells of a pool: 64 GiB of 4 KiB, with 2 MiB of bits.
const MOST_CELLS: u64 = 1 << 24;

/// 64 larger cells do not fit in an address space.
const LARGEST_CELL_LOG2: u32 = 57;

/// Slots over one area of memory.
///
/// The area must lie where every initiator that the pool serves reaches it: below their masks,
/// inside the host bridge's windows, and shared in a confidential guest. The longest slot is 64
/// cells, 256 KiB for cells of 4 KiB (as Linux's swiotlb), because it is taken by changing one
/// word; longer copies take several, and a pool with larger cells has longer ones.
///
/// # Concurrency
/// Threads take and give back without locks and without waiting for each other; copying is as
/// concurrent as the memory is. Nothing is taken from the heap after [`new`](Self::new).
pub struct BouncePool<M> {
    memory: M,
    owner: Owner,
    cell_log2: u32,
    /// Number of the cell that is bit 0 of the first word: a multiple of 64, so that alignment in
    /// a word is alignment in the owner.
    base: u64,
    /// The cells that lie in the area, counted from `base`.
    first: u64,
    end: u64,
    cells: Cells,
}

impl<M> fmt::Debug for BouncePool<M> {
    /// Leaves the memory out, which may be anything.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let area = (self.base + self.first) << self.cell_log2;
        f.debug_struct("BouncePool")
            .field("owner", &self.owner)
            .field("offset", &Bytes::new(area))
            .field("cell_log2", &self.cell_log2)
            .field("cells", &(self.end - self.first))
            .field("left", &self.cells.left())
            .finish_non_exhaustive()
    }
}

impl<M: Memory> BouncePool<M> {
    /// The pool over `len` bytes from `area`, cut into cells.
    ///
    /// `cell` is what slots are rounded up to; the CPU's page is a good choice. What does not
    /// fill a cell at either end is not used.
    ///
    /// # Errors
    /// [`AreaError`].
    pub fn new(memory: M, area: Place, len: Bytes, cell: Granule) -> Result<Self, AreaError> {
        let (owner, offset) = area;
        if owner.is_mmio() {
            return Err(AreaError::DeviceMemory { owner });
        }
        let too_large = AreaError::TooLarge { offset, len, cell, most: MOST_CELLS };
        let end = offset.checked_add(len).ok_or(too_large)?.as_u64();
        let cell_log2 = cell.bytes().as_u64().trailing_zeros();
        if cell_log2 > LARGEST_CELL_LOG2 {
            return Err(AreaError::Cell { cell });
        }
        let first = offset.as_u64().div_ceil(1 << cell_log2);
        let end = end >> cell_log2;
        if first >= end {
            return Err(AreaError::TooSmall { offset, len, cell });
        }
        if end - first > MOST_CELLS {
            return Err(too_large);
        }
        let base = first & !u64::from(LONGEST - 1);
        let (first, end) = (first - base, end - base);
        // At most MOST_CELLS and 63 cells.
        let cells = Cells::new(first as usize..end as usize);
        Ok(Self { memory, owner, cell_log2, base, first, end, cells })
    }

    /// The memory that it copies with.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// The size of a cell.
    pub fn cell(&self) -> Bytes {
        self.bytes(1)
    }

    /// How much is free, in cells that need not lie side by side.
    pub fn left(&self) -> Bytes {
        self.bytes(self.cells.left())
    }

    /// How much there is when nothing is taken.
    pub fn size(&self) -> Bytes {
        self.bytes(self.end - self.first)
    }

    /// No more than the area or the longest slot, both of which fit.
    fn bytes(&self, cells: u64) -> Bytes {
        Bytes::new(cells << self.cell_log2)
    }

    /// The longest slot, its head included.
    fn whole(&self) -> Bytes {
        self.bytes(u64::from(LONGEST))
    }

    /// Takes cells for `len` bytes that start `head` into a granule; none is written.
    #[inline]
    fn reserve(&self, len: Bytes, head: Bytes, granule: Granule) -> Result<Slot, PoolError> {
        let Some((count, align)) = self.cells_for(len, head, granule) else {
            return Err(self.impossible(len, head, granule));
        };
        let Some(cell) = self.cells.take(count, align) else {
            return Err(self.exhausted(count, align));
        };
        let start = (self.base + cell as u64) << self.cell_log2;
        Ok(Slot::new(self.owner, start, head, len, count))
    }

    /// How many cells that takes, and a multiple of how many they start at; `None` where no pool
    /// like this has such a slot.
    #[inline]
    fn cells_for(&self, len: Bytes, head: Bytes, granule: Granule) -> Option<(u32, u32)> {
        let (unit, len) = (granule.bytes().as_u64(), len.as_u64());
        let last = len.checked_add(head.as_u64())?.checked_sub(1)? >> self.cell_log2;
        let align_log2 = unit.trailing_zeros().saturating_sub(self.cell_log2);
        if len == 0 || head.as_u64() >= unit || align_log2 > LONGEST.trailing_zeros() || last >= u64::from(LONGEST) {
            return None;
        }
        // Whole granules, if they are larger than cells: still 64 at most, which granules divide.
        Some((((last as u32 >> align_log2) + 1) << align_log2, 1 << align_log2))
    }

    /// Why there are no such slots.
    #[cold]
    fn impossible(&self, len: Bytes, head: Bytes, granule: Granule) -> PoolError {
        let longest = self.whole();
        if len == Bytes::ZERO {
            return PoolError::Empty;
        }
        if head >= granule.bytes() {
            return PoolError::Head { head, granule };
        }
        match granule.bytes() > longest {
            true => PoolError::Granule { granule, longest },
            false => PoolError::TooLong { len, head, longest },
        }
    }

    #[cold]
    fn exhausted(&self, count: u32, align: u32) -> PoolError {
        PoolError::Exhausted {
            wanted: self.bytes(u64::from(count)),
            largest: self.bytes(u64::from(self.cells.largest(align))),
            left: self.left(),
        }
    }

    /// Zeroes what the slot's granules hold beside its data.
    #[inline]
    fn zero_beside(&self, slot: &Slot) -> Result<(), MemoryError> {
        let offset = slot.offset().as_u64();
        let (head, tail) = (offset - slot.start(), offset + slot.len().as_u64());
        if head > 0 {
            self.memory.zero((self.owner, Bytes::new(slot.start())), Bytes::new(head))?;
        }
        let after = self.bytes(u64::from(slot.cells())).as_u64() - (tail - slot.start());
        if after > 0 {
            self.memory.zero((self.owner, Bytes::new(tail)), Bytes::new(after))?;
        }
        Ok(())
    }

    /// The slot if it was written as it had to be, else nothing is taken.
    #[inline]
    fn kept(&self, slot: Slot, written: Result<(), MemoryError>) -> Result<Slot, PoolError> {
        match written {
            Ok(()) => Ok(slot),
            Err(error) => {
                self.give_back(slot);
                Err(error.into())
            }
        }
    }
}

impl<M: Memory> Bouncer for BouncePool<M> {
    fn longest(&self, head: Bytes, granule: Granule) -> Bytes {
        match head < granule.bytes() && granule.bytes() <= self.whole() {
            true => Bytes::new(self.whole().as_u64() - head.as_u64()),
            false => Bytes::ZERO,
        }
    }

    fn take(&self, len: Bytes, head: Bytes, granule: Granule) -> Result<Slot, PoolError> {
        let slot = self.reserve(len, head, granule)?;
        let whole = self.bytes(u64::from(slot.cells()));
        let zeroed = self.memory.zero((self.owner, Bytes::new(slot.start())), whole);
        self.kept(slot, zeroed)
    }

    #[inline]
    fn take_filled(&self, original: Place, len: Bytes, head: Bytes, granule: Granule) -> Result<Slot, PoolError> {
        let slot = self.reserve(len, head, granule)?;
        let written = self.zero_beside(&slot).and_then(|()| self.copy_in(&slot, original));
        self.kept(slot, written)
    }

    /// A slot of another pool changes nothing here.
    #[inline]
    fn give_back(&self, slot: Slot) {
        let cell = slot.start() >> self.cell_log2;
        let Some(first) = cell.checked_sub(self.base).filter(|_| slot.owner() == self.owner) else { return };
        let end = first + u64::from(slot.cells());
        if self.first <= first && end <= self.end && first / 64 == (end - 1) / 64 {
            self.cells.give_back(first as usize, slot.cells());
        }
    }

    #[inline]
    fn sync(&self, slot: &Slot, original: Place, at: Bytes, len: Bytes, towards: Towards) -> Result<(), MemoryError> {
        let (owner, start) = original;
        if owner.is_mmio() {
            return Err(MemoryError::DeviceMemory { owner });
        }
        if at.checked_add(len).is_none_or(|end| end > slot.len()) {
            return Err(MemoryError::OutsideSlot { at, len, slot: slot.len() });
        }
        if len == Bytes::ZERO {
            return Ok(());
        }
        let offset = start.checked_add(at).ok_or(MemoryError::Outside { owner, offset: start, len })?;
        let (slot_owner, slot_start) = slot.place();
        // Inside the slot, as checked.
        let (original, copy) = ((owner, offset), (slot_owner, Bytes::new(slot_start.as_u64() + at.as_u64())));
        match towards {
            Towards::Device => self.memory.copy(original, copy, len),
            Towards::Cpu => self.memory.copy(copy, original, len),
        }
    }
}
