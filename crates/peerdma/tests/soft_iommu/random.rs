//! A random life through the calls of an address space, against a map of pages.

use crate::{LARGE, PAGE, amd, arena, arm1, arm2, iova, physical, tlb, vtd, x86};
use peerdma::access::{Access, MemAttrs, Prot};
use peerdma::addr::Iova;
use peerdma::dma::spaces::SoftIommu;
use peerdma::dma::{IoSpace, MapError};
use peerdma::iopt::Format;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Six megabytes of IOVA, so that large pages fit whole, cut at either end, or not at all.
const PAGES: u64 = 3 * LARGE / PAGE;

#[derive(Clone, Copy, Debug)]
enum Request {
    Map { first: u64, count: u64, to: u64, prot: Prot },
    Relink { first: u64, count: u64, to: u64, prot: Prot },
    Unmap { first: u64, count: u64 },
}

/// Page numbers, often on the boundary of a large page or beside one.
fn edge() -> impl Strategy<Value = u64> {
    prop_oneof![
        2 => (0..4_u64, 0..3_u64).prop_map(|(large, beside)| (large * 512 + beside).saturating_sub(1).min(PAGES - 1)),
        1 => 0..PAGES,
        1 => (0..PAGES / 16).prop_map(|sixteen| sixteen * 16),
    ]
}

fn count() -> impl Strategy<Value = u64> {
    prop_oneof![Just(1), Just(16), Just(512), Just(1024), 1..40_u64, 1..PAGES]
}

fn prot() -> impl Strategy<Value = Prot> {
    prop_oneof![Just(Prot::Read), Just(Prot::ReadWrite), Just(Prot::Write)]
}

/// Whole large pages, to where large pages fit.
fn large() -> impl Strategy<Value = (u64, u64, u64)> {
    (0..3_u64, 1..4_u64, 0..3_u64).prop_map(|(first, count, to)| (first * 512, count.min(3 - first) * 512, to * 512))
}

/// Any pages, to anywhere.
fn any() -> impl Strategy<Value = (u64, u64, u64)> {
    (edge(), count(), edge()).prop_map(|(first, count, to)| (first, count.min(PAGES - first), to))
}

fn request() -> impl Strategy<Value = Request> {
    let map = (prop_oneof![large(), any()], prot());
    let relink = (prop_oneof![1 => large(), 3 => any()], prot());
    prop_oneof![
        3 => map.prop_map(|((first, count, to), prot)| Request::Map { first, count, to, prot }),
        2 => relink.prop_map(|((first, count, to), prot)| Request::Relink { first, count, to, prot }),
        2 => any().prop_map(|(first, count, _)| Request::Unmap { first, count }),
    ]
}

/// Runs the requests and compares every answer, and what every page leads to.
fn lives_as_a_map_of_pages<F: Format>(format: F, requests: &[Request]) -> Result<(), TestCaseError> {
    let arena = arena(256);
    let mut iommu = SoftIommu::new(format, &arena).unwrap();
    let mut model: BTreeMap<u64, (u64, Prot)> = BTreeMap::new();
    let mut tlb = tlb();
    let mut space = iommu.attach();
    for (n, request) in requests.iter().enumerate() {
        // A handle lives for a few requests, so that what it remembers is put to use.
        if n % 5 == 4 {
            iommu.reclaim();
            space = iommu.attach();
        }
        let pages = |first: u64, count: u64| iova(first * PAGE, count * PAGE);
        let none = MemAttrs::empty();
        match *request {
            Request::Map { first, count, to, prot } => {
                let answer = space.map(pages(first, count), &physical(to * PAGE), prot, none);
                if let Some((there, _)) = model.range(first..first + count).next() {
                    let Err(MapError::Overlap { existing: Some(existing), .. }) = answer else {
                        return Err(TestCaseError::fail(format!("{request:?}: {answer:?}, but {there} is mapped")));
                    };
                    prop_assert!(existing.start().as_u64() <= there * PAGE && there * PAGE <= existing.last().as_u64());
                } else {
                    prop_assert_eq!(answer, Ok(()), "{:?}", request);
                    model.extend((0..count).map(|n| (first + n, (to + n, prot))));
                }
            }
            Request::Relink { first, count, to, prot } => {
                let answer = space.relink(pages(first, count), &physical(to * PAGE), prot, none);
                match (first..first + count).find(|page| !model.contains_key(page)) {
                    Some(hole) => {
                        let (iova, at) = (pages(first, count), Iova::new(hole * PAGE));
                        prop_assert_eq!(answer, Err(MapError::NotMapped { iova, at }), "{:?}", request);
                    }
                    None => {
                        prop_assert_eq!(answer, Ok(()), "{:?}", request);
                        model.extend((0..count).map(|n| (first + n, (to + n, prot))));
                    }
                }
            }
            Request::Unmap { first, count } => {
                let there = model.range(first..first + count).count() as u64;
                let answer = space.unmap(pages(first, count)).map(|len| len.as_u64());
                prop_assert_eq!(answer, Ok(there * PAGE), "{:?}", request);
                model.retain(|page, _| !(first..first + count).contains(page));
            }
        }
        let exact = iommu.abilities().write_only == peerdma::dma::WriteOnly::Exact;
        for page in 0..PAGES {
            let mut reach = |access| iommu.translate(&mut tlb, Iova::new(page * PAGE + 1), access).ok();
            let (read, write) = (reach(Access::Read), reach(Access::Write));
            let expected = |access: Access| {
                let permitted = |prot: Prot| access.is_permitted_by(prot) || (!exact && prot == Prot::Write);
                model.get(&page).filter(|(_, prot)| permitted(*prot)).map(|(to, _)| to * PAGE + 1)
            };
            prop_assert_eq!(read.map(|at| at.as_u64()), expected(Access::Read), "read of {} after {:?}", page, request);
            prop_assert_eq!(
                write.map(|at| at.as_u64()),
                expected(Access::Write),
                "write of {} after {:?}",
                page,
                request
            );
        }
    }
    drop(iommu);
    prop_assert_eq!(arena.in_use(), 0);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_format_lives_as_a_map_of_pages(
        format in 0..5_u8,
        requests in proptest::collection::vec(request(), 1..24),
    ) {
        match format {
            0 => lives_as_a_map_of_pages(vtd(), &requests)?,
            1 => lives_as_a_map_of_pages(amd(), &requests)?,
            2 => lives_as_a_map_of_pages(x86(), &requests)?,
            3 => lives_as_a_map_of_pages(arm1(), &requests)?,
            _ => lives_as_a_map_of_pages(arm2(), &requests)?,
        }
    }
}
