//! Every reason for which an access is stopped, and its record.

use crate::{LARGE, PAGE, amd, arena, arm1, iova, physical, read, tlb, vtd, write, x86};
use peerdma::access::Access;
use peerdma::addr::{AddrRange, Bytes, Iova, PhysAddr};
use peerdma::dma::spaces::{Fault, FaultRecord, InitiatorId, SoftIommu, SoftOptions, Tlb};
use peerdma::dma::{IoSpace, MapError, MemAttrs, Prot, UnmapError};
use peerdma::iopt::{TableMemory, VtdOptions, VtdSecondStage};
use peerdma::sync::atomic::Ordering;

const NONE: MemAttrs = MemAttrs::empty();

#[test]
fn what_is_not_mapped_faults_by_that_name_and_is_recorded() {
    let arena = arena(32);
    let iommu = SoftIommu::new(vtd(), &arena).unwrap();
    let mut tlb = tlb();
    assert_eq!(write(&iommu, &mut tlb, 0x1234_5678), Err(Fault::NotMapped));
    let record = FaultRecord {
        iova: Iova::new(0x1234_5678),
        access: Access::Write,
        initiator: InitiatorId::new(7),
        why: Fault::NotMapped,
    };
    assert_eq!(iommu.faults().take(), Some(record));
    assert_eq!(iommu.faults().take(), None);
}

#[test]
fn each_protection_stops_what_it_does_not_name() {
    let arena = arena(32);
    let iommu = SoftIommu::new(vtd(), &arena).unwrap();
    let (mut space, mut tlb) = (iommu.attach(), tlb());
    space.map(iova(0, PAGE), &physical(0x8000), Prot::Read, NONE).unwrap();
    space.map(iova(PAGE, PAGE), &physical(0x8000), Prot::Write, NONE).unwrap();
    // Twice, the second time with the other access remembered.
    for _ in 0..2 {
        assert_eq!((read(&iommu, &mut tlb, 0), write(&iommu, &mut tlb, 0)), (Ok(0x8000), Err(Fault::NotPermitted)));
        let (read, write) = (read(&iommu, &mut tlb, PAGE), write(&iommu, &mut tlb, PAGE));
        assert_eq!((read, write), (Err(Fault::NotPermitted), Ok(0x8000)));
    }
    assert_eq!(iommu.faults().drain().count(), 4);
}

#[test]
fn an_address_that_the_tables_do_not_have_is_no_hole() {
    let arena = arena(32);
    let (vtd, x86) = (SoftIommu::new(vtd(), &arena).unwrap(), SoftIommu::new(x86(), &arena).unwrap());
    let mut tlb = tlb();
    assert_eq!(read(&vtd, &mut tlb, 1 << 48), Err(Fault::NoSuchAddress));
    assert_eq!(read(&vtd, &mut tlb, u64::MAX), Err(Fault::NoSuchAddress));
    assert_eq!(read(&x86, &mut tlb, 1 << 47), Err(Fault::NoSuchAddress));
    assert_eq!(read(&x86, &mut tlb, u64::MAX), Err(Fault::NotMapped), "the upper half is there and empty");
}

#[test]
fn a_privileged_mapping_is_for_privileged_contexts() {
    let arena = arena(32);
    let iommu = SoftIommu::new(arm1(), &arena).unwrap();
    iommu.attach().map(iova(0, PAGE), &physical(0x8000), Prot::Read, MemAttrs::PRIVILEGED).unwrap();
    assert_eq!(read(&iommu, &mut tlb(), 0), Err(Fault::NotPermitted));
    let mut privileged = Tlb::new(InitiatorId::new(1)).privileged();
    assert_eq!(read(&iommu, &mut privileged, 0), Ok(0x8000));
}

#[test]
fn damaged_tables_end_a_walk_and_an_unmapping_and_panic_nowhere() {
    let arena = arena(32);
    let iommu = SoftIommu::new(vtd(), &arena).unwrap();
    let (mut space, mut tlb) = (iommu.attach(), tlb());
    space.map(iova(0, PAGE), &physical(0x8000), Prot::Read, NONE).unwrap();
    let root = arena.frame(iommu.table().root().at).unwrap();
    // A table where the arena has no frame.
    root[1].store(0x7777_7000 | 3, Ordering::Relaxed);
    assert_eq!(read(&iommu, &mut tlb, 1 << 39), Err(Fault::BadEntry));
    let there = iova(1 << 39, PAGE);
    assert_eq!(space.map(there, &physical(0), Prot::Read, NONE), Err(MapError::TablesDamaged { iova: there }));
    let answer = space.unmap(there);
    assert_eq!(answer, Err(UnmapError::TablesDamaged { iova: there }));
    assert_eq!(read(&iommu, &mut tlb, 0), Ok(0x8000), "the rest goes on");
}

#[test]
fn records_that_do_not_fit_are_counted() {
    let arena = arena(32);
    let options = SoftOptions::default().with_fault_records(4);
    let iommu = SoftIommu::with(vtd(), &arena, &options).unwrap();
    let mut tlb = tlb();
    for n in 0..10 {
        assert!(read(&iommu, &mut tlb, n * PAGE).is_err());
    }
    assert_eq!(iommu.faults().lost(), 6);
    let kept: Vec<_> = iommu.faults().drain().map(|record| record.iova.as_u64() / PAGE).collect();
    assert_eq!(kept, [0, 1, 2, 3]);
    iommu.faults().clear();
    assert_eq!(iommu.faults().lost(), 0);
}

#[test]
fn refusals_that_only_tables_know_have_their_names() {
    let arena = arena(6);
    let narrow = VtdSecondStage::new(VtdOptions { output_bits: 40, ..VtdOptions::default() }).unwrap();
    let iommu = SoftIommu::new(narrow, &arena).unwrap();
    let mut space = iommu.attach();
    let two = iova(0, 2 * PAGE);
    assert_eq!(
        space.map(two, &physical((1 << 40) - PAGE), Prot::Read, NONE),
        Err(MapError::SourceTooHigh { address: PhysAddr::new((1 << 40) + PAGE - 1), bits: 40 })
    );
    space.map(two, &physical((1 << 40) - 2 * PAGE), Prot::Read, NONE).unwrap();
    let existing = AddrRange::new(Iova::new(PAGE), Bytes::new(PAGE));
    let over = iova(PAGE, 8 * PAGE);
    assert_eq!(space.map(over, &physical(0), Prot::Read, NONE), Err(MapError::Overlap { iova: over, existing }));
    // Three tables and two more for the next gigabyte; then there is no frame left.
    let far = iova(1 << 39, PAGE);
    assert_eq!(space.map(far, &physical(0), Prot::Read, NONE), Err(MapError::NoTableMemory { iova: far }));
    assert_eq!(space.unmap(far), Ok(Bytes::ZERO));
}

#[test]
fn a_table_of_writable_pages_only_says_so() {
    let arena = arena(32);
    let parent = VtdSecondStage::new(VtdOptions { force_writeable: true, ..VtdOptions::default() }).unwrap();
    let iommu = SoftIommu::new(parent, &arena).unwrap();
    let answer = iommu.attach().map(iova(0, PAGE), &physical(0), Prot::Read, NONE);
    assert_eq!(answer, Err(MapError::ReadOnlyNotTaken));
}

#[test]
fn a_large_page_that_cannot_be_split_stays_whole_and_is_named() {
    // Root, two tables below it, and none left for the parts of a large page.
    let arena = arena(3);
    let iommu = SoftIommu::new(vtd(), &arena).unwrap();
    let (mut space, mut tlb) = (iommu.attach(), tlb());
    space.map(iova(0, 2 * LARGE), &physical(0), Prot::Read, NONE).unwrap();
    let (cut, at) = (iova(0, LARGE + PAGE), Iova::new(LARGE + PAGE));
    assert_eq!(space.unmap(cut), Err(UnmapError::NoTableMemory { iova: cut, at }));
    assert_eq!(read(&iommu, &mut tlb, 0), Ok(0));
    let part = iova(0, PAGE);
    let answer = space.relink(part, &physical(0x9000), Prot::Read, NONE);
    assert_eq!(answer, Err(MapError::NoTableMemory { iova: part }));
    assert_eq!(space.unmap(iova(0, 2 * LARGE)), Ok(Bytes::new(2 * LARGE)));
}

#[test]
fn an_iova_beyond_what_a_growing_root_has_reached_is_a_hole() {
    let arena = arena(32);
    let iommu = SoftIommu::new(amd(), &arena).unwrap();
    assert_eq!(read(&iommu, &mut tlb(), 1 << 45), Err(Fault::NotMapped));
    assert_eq!(iommu.attach().unmap(iova(1 << 45, PAGE)), Ok(Bytes::ZERO));
}
