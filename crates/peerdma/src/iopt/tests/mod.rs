//! What holds for every format, and what each answers in its own way.
//!
//! Expected entries are numbers from the formats' documentation, never the encoder's.

mod failing;
mod marks;
mod rivals;
mod runs;
mod splitting;
mod taking;

use super::*;
use crate::access::{MemAttrs, Prot};
use crate::addr::{AddrRange, Bytes, Iova, PhysAddr};
use crate::sync::atomic::Ordering;

const PAGE: u64 = 0x1000;
const LARGE: u64 = 0x20_0000;
const HUGE: u64 = 0x4000_0000;

fn range(start: u64, len: u64) -> AddrRange<Iova> {
    AddrRange::new(Iova::new(start), Bytes::new(len)).expect("a test's own range")
}

fn arena(frames: usize) -> FrameArena {
    FrameArena::new(PhysAddr::new(0x40_0000_0000), frames)
}

fn vtd() -> VtdSecondStage {
    VtdSecondStage::new(VtdOptions::default()).expect("the default is a table")
}

fn x86() -> X86FirstStage {
    X86FirstStage::new(X86Options::default()).expect("the default is a table")
}

fn amd() -> AmdV1 {
    AmdV1::new(AmdOptions::default()).expect("the default is a table")
}

fn arm1(options: ArmOptions) -> ArmStage1 {
    ArmStage1::new(options).expect("a test's own widths")
}

fn arm2(options: ArmOptions) -> ArmStage2 {
    ArmStage2::new(options).expect("a test's own widths")
}

/// A table under test, with a cursor of its own.
struct Bench<'a, F: Format> {
    table: PageTable<F, &'a FrameArena>,
    arena: &'a FrameArena,
    cursor: Cursor,
    gather: Gather,
}

impl<'a, F: Format> Bench<'a, F> {
    fn new(format: F, arena: &'a FrameArena) -> Self {
        let table = PageTable::new(format, arena).expect("room for a root");
        Self { table, arena, cursor: Cursor::new(), gather: Gather::new() }
    }

    fn map(&mut self, iova: u64, to: u64, len: u64) -> Result<(), MapFault> {
        let leaf = self.table.leaf(Prot::ReadWrite, MemAttrs::NOT_SNOOPED);
        self.table.map(&mut self.cursor, range(iova, len), PhysAddr::new(to), leaf)
    }

    fn unmap(&mut self, iova: u64, len: u64) -> u64 {
        self.table.unmap(&mut self.cursor, range(iova, len), &mut self.gather).as_u64()
    }

    fn walk(&self, iova: u64) -> Option<(u64, u64)> {
        self.table.walk(Iova::new(iova)).ok().map(|found| (found.pa.as_u64(), found.page_size.as_u64()))
    }

    /// The entry that a walk of `iova` ends with.
    fn entry(&self, iova: u64) -> u64 {
        match self.table.walk(Iova::new(iova)) {
            Ok(found) => found.entry,
            Err(end) => end.entry,
        }
    }

    /// Marks the leaf around `iova` as hardware does; the entry it walked through alone.
    fn device_writes(&self, iova: u64) {
        let (format, root) = (self.table.format(), self.table.root());
        let (mut at, mut height) = (root.at, root.height);
        loop {
            let shift = F::PAGE_SHIFT + F::INDEX_BITS * u32::from(height);
            let slot = &self.arena.frame(at).expect("a frame")[(iova >> shift) as usize & 511];
            let entry = slot.load(Ordering::Relaxed);
            match format.decode(entry, height) {
                Entry::Table(next) => (at, height) = (next, height - 1),
                Entry::Leaf { .. } => {
                    let (unset, set) = format.clean();
                    return slot.store((entry | unset) & !set, Ordering::Relaxed);
                }
                other => unreachable!("no leaf at {iova:#x}: {other:?}"),
            }
        }
    }
}
