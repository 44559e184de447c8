//! Tables that go back to their memory, at the right moment.

use crate::{LARGE, PAGE, amd, arena, arm2, iova, physical, read, tlb, vtd};
use core::cell::Cell;
use peerdma::addr::{Bytes, Iova, PhysAddr};
use peerdma::dma::spaces::SoftIommu;
use peerdma::dma::{IoSpace, MapError, MemAttrs, Prot};
use peerdma::iopt::{Format, Frame, FrameArena, TableMemory, walk_tables};

const NONE: MemAttrs = MemAttrs::empty();

#[test]
fn tables_are_given_back_by_reclaim_and_not_before() {
    let arena = arena(64);
    let mut iommu = SoftIommu::new(vtd(), &arena).unwrap();
    let before = arena.in_use();
    let all = iova(0, 4 * LARGE);
    let mut space = iommu.attach();
    // Scattered, so that four leaf tables are needed.
    for page in 0..all.len().as_u64() / PAGE {
        space.map(iova(page * PAGE, PAGE), &physical(page * 2 * PAGE), Prot::Read, NONE).unwrap();
    }
    let full = arena.in_use();
    assert_eq!(full - before, 4 + 2);
    assert_eq!(space.unmap(all), Ok(all.len()));
    assert_eq!(arena.in_use(), full);
    assert_eq!(iommu.reclaim(), 4);
    assert_eq!(arena.in_use(), full - 4);
}

#[test]
fn tables_emptied_piece_by_piece_are_given_back_by_prune() {
    let arena = arena(64);
    let mut iommu = SoftIommu::new(vtd(), &arena).unwrap();
    let mut space = iommu.attach();
    for page in 0..3 {
        space.map(iova(page * PAGE, PAGE), &physical(0), Prot::Read, NONE).unwrap();
    }
    for page in 0..3 {
        space.unmap(iova(page * PAGE, PAGE)).unwrap();
    }
    assert_eq!((iommu.reclaim(), arena.in_use()), (0, 4));
    assert_eq!((iommu.prune(), arena.in_use()), (3, 1));
}

#[test]
fn a_cursor_does_not_follow_a_table_that_was_given_back() {
    let arena = arena(64);
    let mut iommu = SoftIommu::new(vtd(), &arena).unwrap();
    iommu.attach().map(iova(0, PAGE), &physical(0x8000), Prot::Read, NONE).unwrap();
    {
        let mut space = iommu.attach();
        space.map(iova(PAGE, PAGE), &physical(0x9000), Prot::Read, NONE).unwrap();
        assert_eq!(space.unmap(iova(0, LARGE)), Ok(Bytes::new(2 * PAGE)));
        // The same handle, while the dead table is not reclaimed yet.
        space.map(iova(0, PAGE), &physical(0xa000), Prot::Read, NONE).unwrap();
        space.unmap(iova(0, LARGE)).unwrap();
    }
    assert_eq!(iommu.reclaim(), 2);
    let mut tlb = tlb();
    iommu.attach().map(iova(0, PAGE), &physical(0xb000), Prot::Read, NONE).unwrap();
    assert_eq!(read(&iommu, &mut tlb, 0), Ok(0xb000));
    assert!(read(&iommu, &mut tlb, PAGE).is_err());
}

#[test]
fn an_iommu_that_knows_root_format_and_memory_walks_the_same_bytes() {
    let arena = arena(64);
    let iommu = SoftIommu::new(amd(), &arena).unwrap();
    let mut space = iommu.attach();
    space.map(iova(0x123_4000, 0x1_0000), &physical(0x8_4000), Prot::ReadWrite, NONE).unwrap();
    let table = iommu.table();
    for page in 0..16 {
        let at = 0x123_4000 + page * PAGE + 5;
        let found = walk_tables(table.format(), &arena, table.root(), Iova::new(at)).unwrap();
        assert_eq!(found.pa.as_u64(), at - 0x123_4000 + 0x8_4000);
    }
}

/// Memory that gives out `left` more allocations.
struct Scarce<'a> {
    arena: &'a FrameArena,
    left: Cell<usize>,
}

impl TableMemory for Scarce<'_> {
    fn allocate(&self, count: usize) -> Option<PhysAddr> {
        self.left.set(self.left.get().checked_sub(1)?);
        self.arena.allocate(count)
    }

    fn frame(&self, at: PhysAddr) -> Option<&Frame> {
        self.arena.frame(at)
    }

    fn free(&self, at: PhysAddr, count: usize) {
        self.arena.free(at, count);
    }
}

fn fails_without_a_trace<F: Format>(format: &F) {
    let whole = iova(LARGE - 3 * PAGE, 3 * LARGE);
    let mut enough = false;
    for allocations in 1..64 {
        let arena = arena(64);
        let memory = Scarce { arena: &arena, left: Cell::new(allocations) };
        let iommu = SoftIommu::new(format.clone(), memory).unwrap();
        let mut space = iommu.attach();
        // Not congruent, so that all of it is small pages in four tables.
        let answer = space.map(whole, &physical(PAGE), Prot::Read, NONE);
        if answer.is_ok() {
            assert!(allocations > 4, "{allocations}");
            assert_eq!(space.unmap(whole), Ok(whole.len()));
            enough = true;
            break;
        }
        assert_eq!(answer, Err(MapError::NoTableMemory { iova: whole }));
        assert!(read(&iommu, &mut tlb(), whole.start().as_u64()).is_err());
        assert_eq!(space.unmap(whole), Ok(Bytes::ZERO), "after {allocations} allocations");
        drop(iommu);
        assert_eq!(arena.in_use(), 0);
    }
    assert!(enough, "sixty-three tables are enough for {whole}");
}

#[test]
fn a_mapping_without_memory_for_its_tables_fails_without_a_trace() {
    fails_without_a_trace(&vtd());
    fails_without_a_trace(&amd());
    fails_without_a_trace(&arm2());
}
