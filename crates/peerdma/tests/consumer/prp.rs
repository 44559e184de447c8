//! PRP lists, read back as a controller reads them.

use crate::controller::{Memory, read_prps};
use crate::spans::{drawn, iova, listed, numbers, ranges, span};
use peerdma::addr::{Bytes, Granule};
use peerdma::dma::Span;
use peerdma::dma::consumer::nvme::{Controller, ListPage, PrpError, Prps};
use proptest::prelude::*;

const PAGE: u64 = 4096;
/// Where list pages lie, out of order and apart.
const LISTS: [u64; 12] = [9, 3, 4, 12, 1, 8, 20, 22, 21, 2, 7, 30];

fn controller() -> Controller {
    Controller::new(Granule::PAGE_4K).unwrap()
}

fn written(controller: Controller, spans: &[Span], pages: usize) -> (Result<Prps, PrpError>, Memory) {
    let words = (controller.page().bytes().as_u64() / 8) as usize;
    let mut memory = vec![vec![0xdead_u64.to_le(); words]; pages];
    let address = |index: usize| 0x7000_0000_0000 + LISTS[index] * 8 * words as u64;
    let mut list: Vec<ListPage<'_>> =
        memory.iter_mut().enumerate().map(|(index, words)| ListPage { address: iova(address(index)), words }).collect();
    let prps = controller.prps(spans.iter().copied(), &mut list);
    let words = memory.iter().enumerate().flat_map(|(index, words)| {
        words.iter().enumerate().map(move |(word, value)| (address(index) + 8 * word as u64, u64::from_le(*value)))
    });
    (prps, words.collect())
}

/// Whether PRPs can say it: all boundaries inside are those of pages.
fn expressible(spans: &[Span], page: u64) -> bool {
    let stretches = stretches(spans);
    let begins = stretches[1..].iter().all(|(start, _)| start % page == 0);
    let ends = stretches[..stretches.len() - 1].iter().all(|(start, len)| (start + len) % page == 0);
    begins && ends && stretches[0].0.is_multiple_of(4)
}

/// Spans of one kind that continue each other as one.
fn stretches(spans: &[Span]) -> Vec<(u64, u64)> {
    let mut stretches: Vec<(Span, u64)> = Vec::new();
    for span in spans {
        match stretches.last_mut() {
            Some((first, len)) if first.address.checked_add(Bytes::new(*len)) == Some(span.address) => {
                *len += span.len.as_u64();
            }
            _ => stretches.push((*span, span.len.as_u64())),
        }
    }
    stretches.iter().map(|(span, len)| (span.address.as_u64(), *len)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_controller_reads_exactly_the_bytes_of_the_spans(spans in drawn(), page_log2 in 12..14_u32) {
        let page = 1 << page_log2;
        let controller = Controller::new(Granule::new(Bytes::new(page)).unwrap()).unwrap();
        let (prps, memory) = written(controller, &spans, LISTS.len());
        prop_assert_eq!(prps.is_ok(), expressible(&spans, page), "{:?}", prps);
        let Ok(prps) = prps else { return Ok(()) };
        let second = prps.prp2().map_or(0, |second| second.as_u64());
        let read = read_prps(prps.prp1().as_u64(), second, prps.len().as_u64(), page, &memory);
        prop_assert_eq!(read.len() as u64, prps.pages());
        prop_assert_eq!(ranges(read), numbers(&spans));
        // As many list pages as it says, and not one less.
        let used = prps.list_pages();
        let (exact, again) = written(controller, &spans, used);
        prop_assert_eq!(exact, Ok(prps));
        prop_assert!(again.iter().all(|(at, word)| memory[at] == *word));
        if used > 0 {
            let short = PrpError::TooFewListPages { pages: prps.pages(), needed: used as u64, given: used - 1 };
            prop_assert_eq!(written(controller, &spans, used - 1).0, Err(short));
        }
    }
}

#[test]
fn a_list_that_just_fits_in_its_page_leads_nowhere_else() {
    // 513 pages: one in the command, 512 in the list. With one more, the last word leads on.
    for (pages, lists) in [(1, 0), (2, 0), (3, 1), (513, 1), (514, 2), (1024, 2), (1025, 3)] {
        let spans = [span(iova(0x10_0000_0000), pages * PAGE)];
        let (prps, memory) = written(controller(), &spans, 4);
        let prps = prps.unwrap();
        assert_eq!((prps.pages(), prps.list_pages()), (pages, lists));
        let second = prps.prp2().map_or(0, |second| second.as_u64());
        let read = read_prps(prps.prp1().as_u64(), second, pages * PAGE, PAGE, &memory);
        assert_eq!(ranges(read), numbers(&spans));
    }
}

#[test]
fn what_pages_cannot_say_is_refused_by_its_place() {
    let refused = |parts: &[(u64, u64)]| {
        let spans = listed(parts.iter().map(|(start, len)| (iova(*start), *len)));
        written(controller(), &spans, 1).0.unwrap_err()
    };
    let page = Granule::PAGE_4K;
    assert_eq!(refused(&[]), PrpError::Empty);
    assert_eq!(refused(&[(0x1000, 0)]), PrpError::Empty);
    assert_eq!(refused(&[(0x1002, 8)]), PrpError::NotDwordAligned { address: iova(0x1002) });
    let at = Bytes::new(0x1000);
    let begins = PrpError::BeginsInsidePage { at, address: iova(0x5004), page };
    assert_eq!(refused(&[(0x1000, 0x1000), (0x5004, 0x1000)]), begins);
    let at = Bytes::new(0x800);
    assert_eq!(refused(&[(0x1000, 0x800), (0x5000, 0x1000)]), PrpError::EndsInsidePage { at, page });
    let wraps = PrpError::Wraps { at: Bytes::ZERO, address: iova(u64::MAX - 3) };
    assert_eq!(refused(&[(u64::MAX - 3, 5)]), wraps);
    let all = PrpError::TooLong { longest: Bytes::new(u64::MAX) };
    assert_eq!(refused(&[(0x1000, u64::MAX - 0x1fff), (0x1000, 0x3000)]), all);
}

#[test]
fn parts_that_continue_each_other_make_no_boundary() {
    let spans = listed([(iova(0x1000), 0x800), (iova(0x1800), 0x800), (iova(0x2000), 0x10)]);
    let prps = written(controller(), &spans, 0).0.unwrap();
    assert_eq!((prps.prp1(), prps.prp2()), (iova(0x1000), Some(iova(0x2000))));
}

#[test]
fn a_command_takes_no_more_than_the_controller_does() {
    let longest = Bytes::new(128 << 10);
    let controller = controller().with_longest_transfer(longest);
    let data = |len| written(controller, &[span(iova(0x10_0000), len)], 1).0;
    assert!(data(128 << 10).is_ok());
    assert_eq!(data((128 << 10) + 4), Err(PrpError::TooLong { longest }));
}

#[test]
fn a_list_page_is_one_whole_memory_page() {
    let mut words = [0; 512];
    let (spans, page) = ([span(iova(0x10_0000), 3 * PAGE)], Granule::PAGE_4K);
    let mut list = [ListPage { address: iova(0x2000), words: &mut words[..511] }];
    let short = PrpError::NoListPage { index: 0, address: iova(0x2000), words: 511, page };
    assert_eq!(controller().prps(spans.into_iter(), &mut list), Err(short));
    let mut list = [ListPage { address: iova(0x2008), words: &mut words }];
    let inside = PrpError::NoListPage { index: 0, address: iova(0x2008), words: 512, page };
    assert_eq!(controller().prps(spans.into_iter(), &mut list), Err(inside));
    assert!(words.iter().all(|word| *word == 0), "nothing was written");
    assert!(Controller::new(Granule::new(Bytes::new(2048)).unwrap()).is_none());
}
