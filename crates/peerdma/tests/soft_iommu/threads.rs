//! Devices that translate while others map and unmap.

use crate::{PAGE, amd, arena, arm2, iova, physical, tlb, vtd};
use peerdma::access::Access;
use peerdma::addr::{Bytes, Iova};
use peerdma::dma::spaces::{Fault, SoftIommu};
use peerdma::dma::{IoSpace, MemAttrs, Prot};
use peerdma::iopt::Format;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const ROUNDS: u64 = if cfg!(miri) { 20 } else { 4000 };

/// Each round maps one IOVA to another place; a reader that saw the round end must not see the round's place.
fn never_stale<F: Format + Sync>(format: F) {
    let arena = arena(64);
    let iommu = SoftIommu::new(format, &arena).unwrap();
    let (ended, done) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for reader in 0..2 {
            let (iommu, ended, done) = (&iommu, &ended, &done);
            scope.spawn(move || {
                let mut tlb = tlb();
                while !done.load(Ordering::Relaxed) {
                    let before = ended.load(Ordering::Acquire);
                    match iommu.translate(&mut tlb, Iova::new(0x5000 + 8 * reader), Access::Read) {
                        // Round n leads to page n + 1.
                        Ok(to) => assert!(to.as_u64() / PAGE > before, "round {before} is over, and {to} is its page"),
                        Err(why) => assert_eq!(why, Fault::NotMapped),
                    }
                }
            });
        }
        let mut space = iommu.attach();
        for round in 0..ROUNDS {
            let at = iova(0x5000, PAGE);
            space.map(at, &physical((round + 1) * PAGE), Prot::Read, MemAttrs::empty()).unwrap();
            if round % 4 == 0 {
                std::thread::yield_now();
            }
            assert_eq!(space.unmap(at), Ok(Bytes::new(PAGE)));
            ended.store(round + 1, Ordering::Release);
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn no_reader_sees_a_mapping_after_it_was_told_of_its_end() {
    never_stale(vtd());
    never_stale(amd());
    never_stale(arm2());
}

/// Two threads map, translate and unmap their own halves of one table's IOVAs.
fn apart<F: Format + Sync>(format: F) {
    let arena = arena(64);
    let mut iommu = SoftIommu::new(format, &arena).unwrap();
    std::thread::scope(|scope| {
        for half in 0..2_u64 {
            let iommu = &iommu;
            scope.spawn(move || {
                let (mut space, mut tlb) = (iommu.attach(), tlb());
                for round in 0..ROUNDS / 16 {
                    let base = half * 256 * PAGE + (round % 64) * PAGE;
                    let to = |page: u64| ((1 + half) << 32) | ((page + round) * 3 * PAGE);
                    for page in 0..32 {
                        let at = iova(base + page * PAGE, PAGE);
                        space.link(at, &physical(to(page)), Prot::ReadWrite, MemAttrs::empty()).unwrap();
                    }
                    space.sync(iova(base, 32 * PAGE));
                    for page in 0..32 {
                        let answer = iommu.translate(&mut tlb, Iova::new(base + page * PAGE + 9), Access::Write);
                        assert_eq!(answer.map(|at| at.as_u64()), Ok(to(page) + 9));
                    }
                    assert_eq!(space.unmap(iova(base, 32 * PAGE)), Ok(Bytes::new(32 * PAGE)));
                    for page in 0..32 {
                        let answer = iommu.translate(&mut tlb, Iova::new(base + page * PAGE), Access::Read);
                        assert_eq!(answer, Err(Fault::NotMapped));
                    }
                }
            });
        }
    });
    assert_eq!(iommu.attach().unmap(iova(0, 1 << 30)), Ok(Bytes::ZERO));
    iommu.reclaim();
    let lost = iommu.faults().lost() + iommu.faults().drain().count() as u64;
    assert_eq!(lost, 2 * 32 * (ROUNDS / 16));
}

#[test]
fn threads_with_iovas_apart_do_not_disturb_each_other() {
    apart(vtd());
    apart(amd());
    apart(arm2());
}
