//! Memory regions, against every page size tried out.

use crate::spans::{bus, drawn, iova, listed, span};
use peerdma::access::Prot;
use peerdma::addr::{Bytes, Granule};
use peerdma::dma::Span;
use peerdma::dma::consumer::rdma::{PageSizes, Region, RegionAddr, RegionError};
use proptest::prelude::*;

/// Whether an adapter with pages of this size reaches every byte where the spans say.
fn works(spans: &[Span], base: u64, page: u64) -> bool {
    let mut va = base;
    let mut before: Option<Span> = None;
    spans.iter().all(|span| {
        let address = span.address.as_u64();
        let continues = before.is_some_and(|before| before.address.checked_add(before.len) == Some(span.address));
        let works = address % page == va % page && (before.is_none() || continues || va.is_multiple_of(page));
        va += span.len.as_u64();
        before = Some(*span);
        works
    })
}

/// The smallest page that holds all of it if that works, else the largest that works.
fn best(spans: &[Span], base: u64, bits: u64) -> Option<u64> {
    let len: u64 = spans.iter().map(|span| span.len.as_u64()).sum();
    let sizes = (12..32).map(|log2| 1_u64 << log2).filter(|page| bits & page != 0 && works(spans, base, *page));
    let sizes: Vec<u64> = sizes.collect();
    let whole = sizes.iter().find(|page| base / **page == (base + len - 1) / **page);
    whole.or(sizes.last()).copied()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_byte_of_a_region_is_where_its_page_list_says(
        spans in drawn(),
        base in prop_oneof![Just(None), (0..0x1000_0000_u64).prop_map(|base| Some(base << 9))],
        bits in prop_oneof![Just(u64::MAX), any::<u64>()],
        probes in prop::collection::vec(any::<prop::sample::Index>(), 16),
    ) {
        // A base that is congruent to the first span, or any.
        let first = spans[0].address.as_u64();
        let base = base.unwrap_or(0x40_0000_0000 + (first & 0xfff_ffff));
        let region = Region::new(spans.iter().copied(), RegionAddr::new(base), PageSizes::from_bits(bits), Prot::ReadWrite);
        prop_assert_eq!(region.as_ref().ok().map(|region| region.page().bytes().as_u64()), best(&spans, base, bits));
        let Ok(region) = region else { return Ok(()) };
        let pages: Vec<u64> = region.pages().map(|page| page.as_u64()).collect();
        prop_assert_eq!(pages.len() as u64, region.page_count());
        let page = region.page().bytes().as_u64();
        prop_assert_eq!(region.offset().as_u64(), base % page);
        let mut va = base;
        for span in &spans {
            let len = span.len.as_u64();
            let offsets = probes.iter().map(|probe| probe.index(len as usize) as u64).chain([0, len - 1]);
            for offset in offsets {
                let at = va + offset;
                let reached = pages[(at / page - base / page) as usize] + at % page;
                prop_assert_eq!(reached, span.address.as_u64() + offset, "region address {:#x}", at);
            }
            va += len;
        }
        prop_assert_eq!(region.len().as_u64(), va - base);
    }
}

fn refused(spans: &[Span], base: u64, sizes: PageSizes) -> RegionError {
    Region::new(spans.iter().copied(), RegionAddr::new(base), sizes, Prot::ReadWrite).unwrap_err()
}

#[test]
fn a_copy_refuses_the_region_and_is_named() {
    let mut spans = listed([(iova(0x1000), 0x1000), (iova(0x9000), 0x1000)]);
    spans[1].bounced = true;
    let bounced = RegionError::Bounced { at: Bytes::new(0x1000), address: iova(0x9000) };
    assert_eq!(refused(&spans, 0x1000, PageSizes::ALL), bounced);
}

#[test]
fn a_region_is_used_for_what_all_its_spans_were_mapped_for() {
    let mut spans = listed([(iova(0x1000), 0x1000), (iova(0x2000), 0x1000)]);
    spans[1].prot = Prot::Read;
    let access = RegionError::Access { at: Bytes::new(0x1000), mapped: Prot::Read, wanted: Prot::ReadWrite };
    assert_eq!(refused(&spans, 0x1000, PageSizes::ALL), access);
    assert!(Region::new(spans.into_iter(), RegionAddr::new(0), PageSizes::ALL, Prot::Read).is_ok());
}

#[test]
fn a_boundary_inside_a_page_is_named() {
    let ends_inside = listed([(iova(0x1000), 0x800), (bus(0x9800), 0x1000)]);
    let boundary = RegionError::Boundary { at: Bytes::new(0x800), address: bus(0x9800) };
    assert_eq!(refused(&ends_inside, 0x1000, PageSizes::ALL), boundary);
    let begins_inside = listed([(iova(0x1000), 0x1000), (bus(0x9800), 0x1000)]);
    let boundary = RegionError::Boundary { at: Bytes::new(0x1000), address: bus(0x9800) };
    assert_eq!(refused(&begins_inside, 0x1000, PageSizes::ALL), boundary);
    let base = RegionError::Base { base: RegionAddr::new(0x1004), address: iova(0x1000) };
    assert_eq!(refused(&ends_inside, 0x1004, PageSizes::ALL), base);
}

#[test]
fn an_adapter_without_small_pages_says_which_boundary_asks_for_them() {
    let spans = listed([(iova(0x20_0000), 0x20_0000), (iova(0x1000_0000), 0x1_0000), (iova(0x3000_0000), 0x1000)]);
    let sizes = PageSizes::from_bits(1 << 21);
    let at = Bytes::new(0x21_0000);
    assert_eq!(refused(&spans, 0, sizes), RegionError::PageSize { at, largest: Bytes::new(0x1_0000), sizes });
    assert_eq!(sizes.to_string(), "2 MiB");
    assert_eq!(PageSizes::from_bits(1 << 11).to_string(), "none");
}

#[test]
fn regions_that_are_empty_or_wrap_cannot_be_made() {
    assert_eq!(refused(&[], 0, PageSizes::ALL), RegionError::Empty);
    let page = [span(iova(0x1000), 0x1001)];
    let base = RegionAddr::new(u64::MAX - 0xfff);
    assert_eq!(refused(&page, base.as_u64(), PageSizes::ALL), RegionError::Wraps { base, at: Bytes::ZERO });
    let last = [span(iova(u64::MAX - 0xfff), 0x1000)];
    let region = Region::new(last.into_iter(), base, PageSizes::ALL, Prot::ReadWrite).unwrap();
    assert_eq!((region.page(), region.pages().count()), (Granule::PAGE_4K, 1));
}
