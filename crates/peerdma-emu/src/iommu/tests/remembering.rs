//! The IOTLB: what it remembers, what makes it forget, and what a forgotten invalidation shows.

use super::{SharedArena, function};
use crate::iommu::{Attachment, Domain, DomainId, FaultReason, Iommu, TableFormat, Tables};
use crate::platform::IommuKind;
use crate::wire::Requester;
use peerdma::access::{Access, MemAttrs, Prot};
use peerdma::addr::{AddrRange, BusAddr, Bytes, Iova, PhysAddr};
use peerdma::iopt::{Cursor, Gather, PageTable, VtdOptions, VtdSecondStage};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

struct Bench {
    table: PageTable<VtdSecondStage, SharedArena>,
    iommu: Iommu,
}

const ID: DomainId = DomainId::new(4);

fn page(number: u64) -> AddrRange<Iova> {
    AddrRange::new(Iova::new(number << 12), Bytes::new(0x1000)).unwrap()
}

impl Bench {
    fn new() -> Self {
        let arena = SharedArena::new(64);
        let table = PageTable::new(VtdSecondStage::new(VtdOptions::default()).unwrap(), arena.clone()).unwrap();
        let format = TableFormat::VtdSecondStage { levels: 4 };
        let tables = Tables { format, root: table.root().at, memory: Arc::new(arena) };
        let iommu = Iommu::new(IommuKind::Vtd);
        iommu.attach(function(0), Attachment::Translated(Domain { id: ID, tables }));
        Self { table, iommu }
    }

    fn map(&self, number: u64, to: u64, prot: Prot) {
        let leaf = self.table.leaf(prot, MemAttrs::empty());
        self.table.map(&mut Cursor::new(), page(number), PhysAddr::new(to), leaf).unwrap();
    }

    fn unmap(&self, number: u64) {
        self.table.unmap(&mut Cursor::new(), page(number), &mut Gather::new());
    }

    fn ask(&self, number: u64, access: Access) -> Result<u64, FaultReason> {
        let requester = Requester::plain(function(0));
        self.iommu.translate(&requester, BusAddr::new(number << 12), access).map(|output| output.to.as_u64())
    }
}

#[test]
fn a_forgotten_invalidation_is_seen() {
    let bench = Bench::new();
    bench.map(5, 0x8000, Prot::ReadWrite);
    assert_eq!(bench.ask(5, Access::Write), Ok(0x8000));
    bench.unmap(5);
    bench.map(5, 0x9000, Prot::ReadWrite);
    assert_eq!(bench.ask(5, Access::Write), Ok(0x8000), "the memory that is not this page's any more");
}

#[test]
fn after_an_invalidation_the_tables_are_what_counts() {
    let bench = Bench::new();
    bench.map(5, 0x8000, Prot::ReadWrite);
    bench.map(6, 0xa000, Prot::ReadWrite);
    assert_eq!((bench.ask(5, Access::Read), bench.ask(6, Access::Read)), (Ok(0x8000), Ok(0xa000)));
    bench.unmap(5);
    bench.unmap(6);
    let before = bench.iommu.generation();
    bench.iommu.invalidate(ID, page(5));
    assert_ne!(bench.iommu.generation(), before);
    assert_eq!((bench.ask(5, Access::Read), bench.ask(6, Access::Read)), (Err(FaultReason::NotMapped), Ok(0xa000)));
    bench.iommu.invalidate_all(DomainId::new(9));
    assert_eq!(bench.ask(6, Access::Read), Ok(0xa000), "another domain's invalidation");
    bench.iommu.invalidate_all(ID);
    assert_eq!(bench.ask(6, Access::Read), Err(FaultReason::NotMapped));
}

#[test]
fn a_lost_invalidation_has_no_effect_and_the_one_after_it_has() {
    let bench = Bench::new();
    bench.iommu.allow_ats(function(0), true);
    bench.map(5, 0x8000, Prot::Read);
    assert_eq!(bench.ask(5, Access::Read), Ok(0x8000));
    bench.unmap(5);
    bench.iommu.lose_invalidations(1);
    let before = bench.iommu.generation();
    assert_eq!(bench.iommu.invalidate(ID, page(5)), []);
    assert_eq!((bench.ask(5, Access::Read), bench.iommu.generation()), (Ok(0x8000), before));
    assert_eq!(bench.iommu.invalidate(ID, page(5)).len(), 1);
    assert_eq!(bench.ask(5, Access::Read), Err(FaultReason::NotMapped));
}

#[test]
fn what_was_refused_is_not_remembered() {
    let bench = Bench::new();
    assert_eq!(bench.ask(5, Access::Read), Err(FaultReason::NotMapped));
    bench.map(5, 0x8000, Prot::Read);
    assert_eq!(bench.ask(5, Access::Read), Ok(0x8000));
    // Rights that were added are found although the old answer is remembered.
    assert_eq!(bench.ask(5, Access::Write), Err(FaultReason::NotPermitted));
    bench.unmap(5);
    bench.map(5, 0x8000, Prot::ReadWrite);
    assert_eq!(bench.ask(5, Access::Write), Ok(0x8000));
}

#[test]
fn remembered_answers_go_with_the_domain_and_not_with_the_requester() {
    let bench = Bench::new();
    bench.map(5, 0x8000, Prot::Read);
    assert_eq!(bench.ask(5, Access::Read), Ok(0x8000));
    let attachment = bench.iommu.attachment(function(0));
    bench.unmap(5);
    bench.iommu.attach(function(0), Attachment::Blocked);
    assert_eq!(bench.ask(5, Access::Read), Err(FaultReason::Blocked));
    bench.iommu.attach(function(0), attachment.clone());
    assert_eq!(bench.ask(5, Access::Read), Ok(0x8000));
    bench.iommu.remove(ID);
    bench.iommu.attach(function(0), attachment);
    assert_eq!(bench.ask(5, Access::Read), Err(FaultReason::NotMapped));
}

#[test]
fn two_threads_that_ask_and_invalidate_never_see_what_was_gone_before_they_asked() {
    let bench = Bench::new();
    std::thread::scope(|scope| {
        let asks = scope.spawn(|| (0..4000).filter(|_| bench.ask(7, Access::Read).is_ok()).count());
        for round in 0..400_u64 {
            bench.map(5, 0x8000 + (round << 12), Prot::Read);
            bench.map(7, 0x8000, Prot::Read);
            assert_eq!(bench.ask(5, Access::Read), Ok(0x8000 + (round << 12)));
            bench.unmap(7);
            bench.unmap(5);
            bench.iommu.invalidate(ID, AddrRange::new(Iova::new(0x5000), Bytes::new(0x3000)).unwrap());
            assert_eq!(bench.ask(7, Access::Read), Err(FaultReason::NotMapped));
        }
        asks.join().unwrap()
    });
}

#[test]
fn an_invalidation_waits_for_requests_that_were_translated_before() {
    let bench = Bench::new();
    let arrived = AtomicBool::new(false);
    let passage = bench.iommu.passage();
    std::thread::scope(|scope| {
        let invalidating = scope.spawn(|| {
            bench.iommu.invalidate(ID, page(5));
            arrived.load(Ordering::Relaxed)
        });
        (0..1000).for_each(|_| std::thread::yield_now());
        arrived.store(true, Ordering::Relaxed);
        drop(passage);
        assert!(invalidating.join().unwrap());
    });
}
