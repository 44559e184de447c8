//! What a cache remembers is never used after it stopped being true.

use crate::{LARGE, PAGE, arena, iova, physical, read, tlb, vtd, write};
use peerdma::dma::spaces::{Fault, SoftIommu};
use peerdma::dma::{IoSpace, MemAttrs, Prot};

const NONE: MemAttrs = MemAttrs::empty();

#[test]
fn a_warm_translation_is_gone_when_unmap_returns() {
    let arena = arena(32);
    let iommu = SoftIommu::new(vtd(), &arena).unwrap();
    let (mut space, mut tlb) = (iommu.attach(), tlb());
    for round in 0..4 {
        space.map(iova(0x5000, 2 * PAGE), &physical(round << 20), Prot::ReadWrite, NONE).unwrap();
        for _ in 0..2 {
            assert_eq!(read(&iommu, &mut tlb, 0x5008), Ok(round << 20 | 8));
            assert_eq!(write(&iommu, &mut tlb, 0x6ff8), Ok(round << 20 | 0x1ff8));
        }
        space.unmap(iova(0x5000, 2 * PAGE)).unwrap();
        assert_eq!(read(&iommu, &mut tlb, 0x5008), Err(Fault::NotMapped));
        assert_eq!(write(&iommu, &mut tlb, 0x6ff8), Err(Fault::NotMapped));
    }
}

#[test]
fn of_a_large_page_only_the_part_that_was_unmapped_is_gone() {
    let arena = arena(32);
    let iommu = SoftIommu::new(vtd(), &arena).unwrap();
    let (mut space, mut tlb) = (iommu.attach(), tlb());
    space.map(iova(LARGE, LARGE), &physical(4 * LARGE), Prot::ReadWrite, NONE).unwrap();
    for page in 0..4 {
        assert_eq!(read(&iommu, &mut tlb, LARGE + page * PAGE), Ok(4 * LARGE + page * PAGE));
    }
    assert_eq!(space.unmap(iova(LARGE + PAGE, 2 * PAGE)).map(|len| len.as_u64()), Ok(2 * PAGE));
    for (page, there) in [(0, true), (1, false), (2, false), (3, true)] {
        let answer = read(&iommu, &mut tlb, LARGE + page * PAGE);
        assert_eq!(answer.is_ok(), there, "page {page}: {answer:?}");
    }
}

#[test]
fn a_relinked_page_leads_to_its_new_place_at_once() {
    let arena = arena(32);
    let iommu = SoftIommu::new(vtd(), &arena).unwrap();
    let (mut space, mut tlb) = (iommu.attach(), tlb());
    space.map(iova(0, LARGE), &physical(LARGE), Prot::ReadWrite, NONE).unwrap();
    assert_eq!(write(&iommu, &mut tlb, 0x3010), Ok(LARGE + 0x3010));
    space.relink(iova(0x3000, PAGE), &physical(0x7000), Prot::Read, NONE).unwrap();
    assert_eq!(read(&iommu, &mut tlb, 0x3010), Ok(0x7010));
    assert_eq!(write(&iommu, &mut tlb, 0x3010), Err(Fault::NotPermitted));
    assert_eq!(write(&iommu, &mut tlb, 0x4010), Ok(LARGE + 0x4010));
}

#[test]
fn a_relinking_that_no_large_page_is_aligned_for_splits_what_it_covers() {
    let arena = arena(64);
    let iommu = SoftIommu::new(vtd(), &arena).unwrap();
    let (mut space, mut tlb) = (iommu.attach(), tlb());
    space.map(iova(0, 4 * LARGE), &physical(0), Prot::ReadWrite, NONE).unwrap();
    // Two large pages whole and a part of the next one, moved by one small page.
    space.relink(iova(LARGE, 2 * LARGE + PAGE), &physical((1 << 32) + PAGE), Prot::ReadWrite, NONE).unwrap();
    for (at, to) in [
        (LARGE - 1, LARGE - 1),
        (LARGE, (1 << 32) + PAGE),
        (3 * LARGE - 1, (1 << 32) + PAGE + 2 * LARGE - 1),
        (3 * LARGE + PAGE - 1, (1 << 32) + PAGE + 2 * LARGE + PAGE - 1),
        (3 * LARGE + PAGE, 3 * LARGE + PAGE),
    ] {
        assert_eq!(read(&iommu, &mut tlb, at), Ok(to), "{at:#x}");
    }
}

#[test]
fn another_threads_cache_is_stale_too() {
    let arena = arena(32);
    let iommu = SoftIommu::new(vtd(), &arena).unwrap();
    let (mut space, mut mine) = (iommu.attach(), tlb());
    let mut theirs = tlb();
    space.map(iova(0x5000, PAGE), &physical(0x8000), Prot::Read, NONE).unwrap();
    assert_eq!((read(&iommu, &mut mine, 0x5000), read(&iommu, &mut theirs, 0x5000)), (Ok(0x8000), Ok(0x8000)));
    std::thread::scope(|scope| scope.spawn(|| space.unmap(iova(0x5000, PAGE)).unwrap()).join().unwrap());
    assert!(read(&iommu, &mut mine, 0x5000).is_err() && read(&iommu, &mut theirs, 0x5000).is_err());
}

#[test]
fn one_cache_serves_two_domains_without_mixing_them() {
    let arena = arena(32);
    let (one, other) = (SoftIommu::new(vtd(), &arena).unwrap(), SoftIommu::new(vtd(), &arena).unwrap());
    let mut tlb = tlb();
    one.attach().map(iova(0x5000, PAGE), &physical(0x8000), Prot::Read, NONE).unwrap();
    other.attach().map(iova(0x6000, PAGE), &physical(0x9000), Prot::Read, NONE).unwrap();
    for _ in 0..2 {
        assert_eq!(read(&one, &mut tlb, 0x5000), Ok(0x8000));
        assert_eq!(read(&other, &mut tlb, 0x5000), Err(Fault::NotMapped));
        assert_eq!(read(&other, &mut tlb, 0x6000), Ok(0x9000));
        assert_eq!(read(&one, &mut tlb, 0x6000), Err(Fault::NotMapped));
    }
}
