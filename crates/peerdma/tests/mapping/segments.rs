//! What a device's list of segments accepts.

use super::{depot, frames, ram, soft};
use peerdma::access::Prot;
use peerdma::addr::{Bytes, Iova};
use peerdma::chunk::Chunks;
use peerdma::dma::{
    Context, ContextError, DirectSpace, Initiator, MapRangesError, Owners, Peers, SegmentLimit, Segments, Span,
    SyncError, Windows,
};
use peerdma::iova::IovaRanges;
use peerdma::topology::IommuMode;
use proptest::prelude::*;

fn cut(segments: Segments, at: u64, len: u64) -> Result<Vec<Span>, MapRangesError> {
    let (arena, owners, peers) = (frames(), Owners::new(), Peers::none());
    let domain = soft(&arena);
    let depot = depot(&domain.abilities().usable);
    let device = Initiator::new("nvme", IommuMode::Translated).with_segments(segments);
    let context = Context::new(device, domain.attach(), &owners, &peers, &depot).unwrap();
    let mapping = context.map_one(ram(at, len), Prot::Read)?;
    Ok(mapping.spans().collect())
}

#[test]
fn a_range_over_four_gibibytes_is_cut_for_lengths_of_32_bits() {
    let longest = Some(Bytes::new(0xffff_f000));
    let spans = cut(Segments { longest, ..Segments::default() }, 0x1_0000_0000, 0x2_8000_0000).unwrap();
    assert_eq!(spans.iter().map(|span| span.len.as_u64()).collect::<Vec<_>>(), [0xffff_f000, 0xffff_f000, 0x8000_2000]);
    assert!(spans.windows(2).all(|two| two[0].address.as_u64() + two[0].len.as_u64() == two[1].address.as_u64()));
}

#[test]
fn more_segments_than_the_device_takes_are_refused_and_unmapped() {
    let segments = Segments { longest: Some(Bytes::new(0x1000)), boundary: None, most: Some(2) };
    assert_eq!(cut(segments, 0x1000, 0x2000).unwrap().len(), 2);
    let refused = cut(segments, 0x1000, 0x3000);
    let error = SyncError::TooManySegments { initiator: "nvme".into(), segments: 3, most: 2 };
    assert_eq!(refused, Err(MapRangesError::Sync(error)));
}

#[test]
fn a_list_of_other_memory_fits_where_it_merges() {
    let (arena, owners, peers) = (frames(), Owners::new(), Peers::none());
    let domain = soft(&arena);
    let depot = depot(&domain.abilities().usable);
    let device =
        Initiator::new("nvme", IommuMode::Translated).with_segments(Segments { most: Some(1), ..Segments::default() });
    let context = Context::new(device, domain.attach(), &owners, &peers, &depot).unwrap();
    let mut list = Chunks::new();
    (0..50_u64).for_each(|page| list.push(ram((page * 3 + 1) << 12, 0x1000)).unwrap());
    assert_eq!(context.map(list.view(), Prot::Read).unwrap().spans().count(), 1);
}

/// A limit that no segment keeps would be broken by whatever is handed out.
#[test]
fn limits_that_no_segment_can_keep_are_refused_with_the_context() {
    let (arena, owners, peers) = (frames(), Owners::new(), Peers::none());
    let domain = soft(&arena);
    let depot = depot(&domain.abilities().usable);
    for (segments, limit) in [
        (Segments { longest: Some(Bytes::ZERO), ..Segments::default() }, SegmentLimit::Longest),
        (Segments { boundary: Some(Bytes::ZERO), ..Segments::default() }, SegmentLimit::Boundary(Bytes::ZERO)),
        (
            Segments { boundary: Some(Bytes::new(0x1800)), ..Segments::default() },
            SegmentLimit::Boundary(Bytes::new(0x1800)),
        ),
        (Segments { most: Some(0), ..Segments::default() }, SegmentLimit::Most),
    ] {
        let device = Initiator::new("nvme", IommuMode::Translated).with_segments(segments);
        let refused = Context::new(device, domain.attach(), &owners, &peers, &depot).err();
        assert_eq!(refused, Some(ContextError::Segments { initiator: "nvme".into(), limit }));
    }
}

/// Counting costs the same however many there are: here 2^43, one by one for hours.
#[test]
fn segments_are_counted_and_not_gone_through() {
    let segments = Segments { longest: Some(Bytes::new(1)), boundary: Some(Bytes::new(0x1000)), most: Some(1 << 40) };
    let device = Initiator::new("odd", IommuMode::None).with_segments(segments);
    let (owners, peers) = (Owners::new(), Peers::none());
    let nothing = depot(&IovaRanges::from_inclusive([(Iova::new(0x1000), Iova::new(0x1fff))]).unwrap());
    let space = DirectSpace::new(Windows::one_to_one(), Iova::new(u64::MAX));
    let context = Context::new(device, space, &owners, &peers, &nothing).unwrap();
    let refused = context.map_one(ram(1, 1 << 43), Prot::Read).err();
    let error = SyncError::TooManySegments { initiator: "odd".into(), segments: 1 << 43, most: 1 << 40 };
    assert_eq!(refused, Some(MapRangesError::Sync(error)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Cut as the device wants it, the bytes are the same, in order, and none is too long or crosses.
    #[test]
    fn spans_are_the_same_bytes_within_the_limits(
        pages in 1_u64..300, longest in 1_u64..0x9000, boundary in 9_u32..20, head in 0_u64..0x1000,
    ) {
        let limits = Segments { longest: Some(Bytes::new(longest)), boundary: Some(Bytes::new(1 << boundary)), most: None };
        let len = pages << 12;
        let spans = cut(limits, 0x10_0000 + head, len).unwrap();
        let whole = cut(Segments::default(), 0x10_0000 + head, len).unwrap();
        prop_assert_eq!(whole.len(), 1);
        let mut next = whole[0].address.as_u64();
        for span in &spans {
            prop_assert_eq!(span.address.as_u64(), next);
            prop_assert!(span.len.as_u64() > 0 && span.len.as_u64() <= longest);
            let last = next + span.len.as_u64() - 1;
            prop_assert_eq!(next >> boundary, last >> boundary);
            next = last + 1;
        }
        prop_assert_eq!(next, whole[0].address.as_u64() + len);
    }
}
