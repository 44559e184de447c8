//! Scatter gather lists, read back as a controller reads them.

use crate::controller::{Memory, read_sgl};
use crate::spans::{drawn, iova, listed, numbers, ranges, span};
use peerdma::addr::{Bytes, Granule};
use peerdma::dma::Span;
use peerdma::dma::consumer::nvme::{Controller, ListPage, Sgl, SglError};
use proptest::collection::vec;
use proptest::prelude::*;

fn controller() -> Controller {
    Controller::new(Granule::PAGE_4K).unwrap()
}

/// Lists in elements of these many words each.
fn written(controller: Controller, spans: &[Span], sizes: &[usize]) -> (Result<Sgl, SglError>, Memory) {
    let mut memory: Vec<Vec<u64>> = sizes.iter().map(|words| vec![0xdead_u64.to_le(); *words]).collect();
    // Last one lowest, qword aligned and no more.
    let address = |index: usize| 0x7000_0000_0008 - 0x1_0000 * index as u64;
    let mut list: Vec<ListPage<'_>> =
        memory.iter_mut().enumerate().map(|(index, words)| ListPage { address: iova(address(index)), words }).collect();
    let sgl = controller.sgl(spans.iter().copied(), &mut list);
    let words = memory.iter().enumerate().flat_map(|(index, words)| {
        words.iter().enumerate().map(move |(word, value)| (address(index) + 8 * word as u64, u64::from_le(*value)))
    });
    (sgl, words.collect())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_controller_reads_exactly_the_bytes_of_the_spans(spans in drawn(), sizes in vec(0..9_usize, 0..8)) {
        let (sgl, memory) = written(controller(), &spans, &sizes);
        match sgl {
            Ok(sgl) => {
                prop_assert_eq!(ranges(read_sgl(sgl.entry().to_bytes(), &memory)), numbers(&spans));
                let (fewer, _) = written(controller(), &spans, &sizes[..sgl.segments().saturating_sub(1)]);
                prop_assert_eq!(fewer.is_ok(), sgl.segments() == 0, "not one segment less");
            }
            Err(SglError::TooFewListPages { needed, room }) => {
                prop_assert!(room < needed && needed as usize <= spans.len());
                prop_assert!(written(controller(), &spans, &[16]).0.is_ok(), "eight descriptors suffice for eight spans");
            }
            Err(error) => prop_assert!(false, "{}", error),
        }
    }
}

#[test]
fn one_range_stands_in_the_command_and_two_in_a_last_segment() {
    let (one, _) = written(controller(), &[span(iova(0x1001), 7)], &[]);
    let mut expected = [0; 16];
    expected[0] = 0x01;
    expected[1] = 0x10;
    expected[8] = 7;
    assert_eq!(one.unwrap().entry().to_bytes(), expected);

    let spans = listed([(iova(0x1000), 3), (iova(0x5000), 1)]);
    let (two, _) = written(controller(), &spans, &[4]);
    let entry = two.unwrap().entry().to_bytes();
    assert_eq!((entry[15], entry[8]), (0x30, 32));
}

#[test]
fn a_range_over_4_gib_takes_several_descriptors() {
    let spans = [span(iova(0x1_0000_0000), 10 << 30)];
    let (sgl, memory) = written(controller(), &spans, &[6]);
    let read = read_sgl(sgl.unwrap().entry().to_bytes(), &memory);
    assert_eq!(read.len(), 3);
    assert_eq!(ranges(read), numbers(&spans));
}

#[test]
fn what_a_controller_does_not_take_is_refused_by_name() {
    let dwords = controller().with_dword_sgls();
    let refused = |controller, start, len| written(controller, &[span(iova(start), len)], &[]).0.unwrap_err();
    let not_dwords = |start, len| SglError::NotDwords { at: Bytes::ZERO, address: iova(start), len: Bytes::new(len) };
    assert_eq!(refused(dwords, 0x1002, 8), not_dwords(0x1002, 8));
    assert_eq!(refused(dwords, 0x1000, 6), not_dwords(0x1000, 6));
    assert!(written(dwords, &[span(iova(0x1004), 8)], &[]).0.is_ok());
    let longest = Bytes::new(0x1000);
    assert_eq!(refused(controller().with_longest_transfer(longest), 0, 0x1001), SglError::TooLong { longest });
    assert_eq!(refused(controller(), u64::MAX, 2), SglError::Wraps { at: Bytes::ZERO, address: iova(u64::MAX) });
    assert_eq!(written(controller(), &[], &[]).0, Err(SglError::Empty));
    let mut words = [0; 8];
    let mut list = [ListPage { address: iova(0x2004), words: &mut words }];
    let spans = listed([(iova(0x1000), 3), (iova(0x5000), 1)]);
    let unaligned = SglError::NotQwordAligned { index: 0, address: iova(0x2004) };
    assert_eq!(controller().sgl(spans.into_iter(), &mut list), Err(unaligned));
}
