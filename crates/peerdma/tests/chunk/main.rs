//! Packed lists of memory ranges, against plain vectors of the same ranges.

#![expect(clippy::unwrap_used, reason = "a test that cannot build its input has failed")]

mod memory;
mod oracle;

use oracle::{Plain, drawn, plain_of};
use peerdma::access::MemAttrs;
use peerdma::addr::Bytes;
use peerdma::chunk::{Chunk, ChunkList, Chunks, PushError};
use proptest::prelude::*;

fn bytes(n: u64) -> Bytes {
    Bytes::new(n)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_list_holds_what_was_pushed_with_neighbours_merged(pieces in drawn()) {
        let plain = Plain::merged(&pieces);
        let mut list = Chunks::new();
        for (pushed, piece) in pieces.iter().enumerate() {
            list.push(piece.chunk()).unwrap();
            prop_assert_eq!(plain_of(list.iter()), Plain::merged(&pieces[..=pushed]));
        }
        prop_assert_eq!(list.ranges(), plain.ranges.len());
        prop_assert_eq!(list.len().as_u64(), plain.len());
        prop_assert_eq!(list.is_empty(), pieces.is_empty());
        let again = Chunks::collect_from(plain.ranges.iter().map(|piece| piece.chunk())).unwrap();
        prop_assert_eq!(again, list, "equal memory makes equal lists");
    }

    #[test]
    fn runs_are_maximal_and_name_their_boundaries(pieces in drawn()) {
        let plain = Plain::merged(&pieces);
        let list = Chunks::collect_from(pieces.iter().map(|piece| piece.chunk())).unwrap();
        let runs: Vec<_> = list.runs().map(|run| (run.owner(), run.attrs(), run.at(), run.len())).collect();
        prop_assert_eq!(runs, plain.runs());
        prop_assert_eq!(list.runs().len(), plain.runs().len());
        let ranges: Vec<_> = list.runs().flat_map(|run| run.chunks().collect::<Vec<_>>()).collect();
        prop_assert_eq!(plain_of(ranges), plain);
    }

    #[test]
    fn a_slice_at_any_offset_is_the_same_slice_of_the_plain_list(pieces in drawn(), cuts in oracle::cuts()) {
        let plain = Plain::merged(&pieces);
        let list = Chunks::collect_from(pieces.iter().map(|piece| piece.chunk())).unwrap();
        for (offset, len) in plain.places(&cuts) {
            let part = list.slice(bytes(offset), bytes(len));
            let expected = plain.slice(offset, len);
            prop_assert_eq!(part.map(plain_of), expected.clone(), "{:#x}+{:#x}", offset, len);
            let (Some(part), Some(expected)) = (part, expected) else { continue };
            prop_assert_eq!(part.len(), bytes(len));
            let runs: Vec<_> = part.runs().map(|run| (run.owner(), run.attrs(), run.at(), run.len())).collect();
            prop_assert_eq!(runs, expected.runs());
            // A slice of the slice.
            for (offset, len) in expected.places(&cuts) {
                let inner = part.slice(bytes(offset), bytes(len)).map(plain_of);
                prop_assert_eq!(inner, expected.slice(offset, len), "{:#x}+{:#x}", offset, len);
            }
        }
    }

    #[test]
    fn a_chain_is_its_parts_one_after_another(
        pieces in [drawn(), drawn(), drawn()],
        cuts in oracle::cuts(),
    ) {
        let plain: Vec<_> = pieces.iter().map(|pieces| Plain::merged(pieces)).collect();
        let lists = pieces.each_ref().map(|pieces| Chunks::collect_from(pieces.iter().map(|piece| piece.chunk())).unwrap());
        let [front, middle, back] = lists.each_ref().map(|list| list.view());
        let chain = front.chain(middle).unwrap().chain(back).unwrap();
        let joined = Plain::joined(&plain);
        prop_assert_eq!(chain.len().as_u64(), joined.len());
        prop_assert_eq!(chain.is_empty(), joined.ranges.is_empty());
        prop_assert_eq!(plain_of(chain.iter()), joined.clone());
        let mut at = 0;
        for run in chain.runs() {
            prop_assert_eq!(run.at().as_u64(), at);
            prop_assert_eq!(run.chunks().map(|chunk| chunk.len().as_u64()).sum::<u64>(), run.len().as_u64());
            at += run.len().as_u64();
        }
        for (offset, len) in joined.places(&cuts) {
            let part = chain.slice(bytes(offset), bytes(len));
            prop_assert_eq!(part.map(|part| plain_of(part.iter())), joined.slice(offset, len));
            prop_assert!(part.is_none_or(|part| part.len() == bytes(len)));
        }
    }

    #[test]
    fn appending_a_view_merges_at_the_seam(pieces in drawn(), cuts in oracle::cuts()) {
        let plain = Plain::merged(&pieces);
        let list = Chunks::collect_from(pieces.iter().map(|piece| piece.chunk())).unwrap();
        for (cut, _) in plain.places(&cuts) {
            let mut copy = Chunks::new();
            for (offset, len) in [(0, cut), (cut, plain.len().saturating_sub(cut))] {
                if let Some(part) = list.slice(bytes(offset), bytes(len)) {
                    copy.append_view(part).unwrap();
                }
            }
            if cut <= plain.len() {
                prop_assert_eq!(&copy, &list, "cut at {:#x}", cut);
            }
        }
    }
}

#[test]
fn every_slice_of_a_small_mixed_list_is_right() {
    let page = |owner, offset, len| oracle::Piece { owner, offset, len, attrs: MemAttrs::empty() };
    // An unaligned head, middle and tail, a range inside one page, and another owner with ends of its own.
    let plain = Plain::merged(&[
        page(0, 0x1ffd, 5),
        page(0, 0x3fff, 2),
        page(0, 0x5008, 3),
        page(0, 0x7000, 4),
        page(1, 0x0ffe, 3),
        page(1, 0x9fff, 1),
    ]);
    let list = Chunks::collect_from(plain.ranges.iter().map(|piece| piece.chunk())).unwrap();
    for offset in 0..=plain.len() + 1 {
        for len in 0..=plain.len() + 1 {
            let part = list.slice(bytes(offset), bytes(len)).map(plain_of);
            assert_eq!(part, plain.slice(offset, len), "{offset}+{len}");
        }
    }
}

#[test]
fn a_list_that_would_pass_2_to_the_64_refuses_the_chunk_and_stays() {
    let whole = |owner| Chunk::new(owner, Bytes::ZERO, bytes(u64::MAX), MemAttrs::empty()).unwrap();
    let mut list = Chunks::collect_from([whole(0)]).unwrap();
    let refused = PushError::TooLong { list: bytes(u64::MAX), chunk: bytes(1) };
    assert_eq!(list.push(Chunk::new(1, bytes(4), bytes(1), MemAttrs::empty()).unwrap()), Err(refused));
    assert_eq!(list, Chunks::collect_from([whole(0)]).unwrap());
    assert!(list.view().chain(list.view()).is_none());
    let mut other = Chunks::collect_from([whole(1)]).unwrap();
    assert!(other.append_view(list.view()).is_err());
    assert_eq!(other.ranges(), 1);
}

#[test]
fn an_empty_list_has_no_parts() {
    let list = Chunks::<u8>::new();
    assert!(list.is_empty() && list.metadata() == Bytes::ZERO);
    assert_eq!((list.runs().count(), list.iter().count()), (0, 0));
    assert!(list.slice(Bytes::ZERO, Bytes::ZERO).is_none());
    assert!(list.slice(Bytes::ZERO, bytes(1)).is_none());
    let chain = list.view().chain(list.view()).unwrap();
    assert!(chain.is_empty() && chain.runs().next().is_none());
}
