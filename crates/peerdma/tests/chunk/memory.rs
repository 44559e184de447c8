//! What a list costs, byte for byte.

use peerdma::access::MemAttrs;
use peerdma::addr::Bytes;
use peerdma::chunk::{Chunk, Chunks};

/// An owner of 16 bytes, as in the engine.
type Owner = (u64, u64);
/// A header, at most.
const HEADER: u64 = 64;

fn listed(owners: u64, ranges: impl IntoIterator<Item = (u64, u64)>) -> Chunks<Owner> {
    let chunk = |(index, (offset, len)): (usize, (u64, u64))| {
        Chunk::new((0, index as u64 % owners), Bytes::new(offset), Bytes::new(len), MemAttrs::empty()).unwrap()
    };
    Chunks::collect_from(ranges.into_iter().enumerate().map(chunk)).unwrap()
}

/// Ranges of these many pages, in this order, with a page between each two.
fn apart(pages: impl IntoIterator<Item = u64>) -> Vec<(u64, u64)> {
    let mut next = 0x100;
    let place = |pages: u64| {
        let range = (next << 12, pages << 12);
        next += pages + 1;
        range
    };
    pages.into_iter().map(place).collect()
}

#[test]
fn a_range_of_whole_pages_costs_eight_bytes_and_a_stretch_one_header() {
    // 1 GiB in 2 MiB, 64 KiB and 4 KiB, the large ones spread among the small.
    let mixed = (0..65536).flat_map(|small: u64| {
        let large = small.is_multiple_of(256).then_some(512);
        let middle = small.is_multiple_of(16).then_some(16);
        large.into_iter().chain(middle).chain([1])
    });
    for (pages, count) in [(vec![262_144], 1), (mixed.collect(), 256 + 4096 + 65536), (vec![1; 262_144], 262_144)] {
        let list = listed(1, apart(pages));
        assert_eq!(list.ranges() as u64, count);
        assert!(list.metadata().as_u64() <= 8 * count + HEADER, "{count} ranges: {:?}", list.metadata());
    }
}

#[test]
fn a_buffer_within_pages_costs_no_more_than_one_of_whole_pages() {
    let list = listed(1, [(0x1010, 0x20_0000)]);
    assert!(list.metadata().as_u64() <= 8 + HEADER);
    let three = listed(1, [(0x1ff0, 0x10), (0x5000, 0x3000), (0x9000, 0x10)]);
    assert!(three.metadata().as_u64() <= 3 * 8 + HEADER);
}

#[test]
fn a_range_within_pages_in_the_middle_costs_one_word_more() {
    let list = listed(1, [(0x1000, 0x1000), (0x5010, 0x20), (0x9000, 0x1000)]);
    assert!(list.metadata().as_u64() <= 3 * 8 + 8 + HEADER);
}

#[test]
fn owners_that_alternate_cost_a_header_each() {
    let list = listed(2, apart([1; 1000]));
    assert_eq!(list.runs().count(), 1000);
    assert!(list.metadata().as_u64() <= 1000 * (8 + HEADER));
}

#[test]
fn a_view_and_its_ranges_hold_no_heap_of_their_own() {
    let list = listed(1, apart([1; 64]));
    let held = list.metadata();
    let part = list.slice(Bytes::new(0x800), Bytes::new(0x1_0000)).unwrap();
    assert_eq!(part.iter().count(), 17);
    assert_eq!(list.metadata(), held);
    // Copies of a view are copies of a few words.
    assert!(size_of_val(&part) <= 80);
}
