//! What an allocator makes of a space's ranges, and what it says when it refuses.

use peerdma::addr::{AddrRange, Bytes, Granule, Iova};
use peerdma::iova::{Allocator, ClaimError, ExcludeError, FreeError, IovaRanges, NothingUsable, Want};

const KIB: u64 = 1 << 10;
const GIB: u64 = 1 << 30;

fn usable(pairs: &[(u64, u64)]) -> IovaRanges {
    IovaRanges::from_inclusive(pairs.iter().map(|&(first, last)| (Iova::new(first), Iova::new(last)))).unwrap()
}

fn space(pairs: &[(u64, u64)]) -> Allocator {
    Allocator::new(Granule::PAGE_4K, &usable(pairs)).unwrap()
}

fn range(first: u64, last: u64) -> AddrRange<Iova> {
    AddrRange::from_inclusive(Iova::new(first), Iova::new(last)).unwrap()
}

fn granule(bytes: u64) -> Granule {
    Granule::new(Bytes::new(bytes)).unwrap()
}

#[test]
fn address_zero_is_never_handed_out() {
    let mut iovas = space(&[(0, 0x2fff)]);
    assert_eq!(iovas.free_bytes(), Bytes::new(0x2000));
    assert_eq!(iovas.claim(range(0, 0xfff)), Err(ClaimError::Unusable { range: range(0, 0xfff), at: Iova::new(0) }));
    assert_eq!(iovas.allocate(&Want::new(Bytes::new(1))), Ok(range(0x2000, 0x2fff)));
    assert_eq!(iovas.allocate(&Want::new(Bytes::new(1))), Ok(range(0x1000, 0x1fff)));
    assert_eq!(iovas.allocate(&Want::new(Bytes::new(1))).unwrap_err().largest_gap, None);
}

#[test]
fn a_space_without_a_whole_granule_is_refused() {
    let page = Granule::PAGE_4K;
    for pairs in [&[][..], &[(0, 0xfff)], &[(0x1001, 0x2ffe)], &[(0x1800, 0x27ff), (0x2800, 0x37ff)]] {
        assert_eq!(Allocator::new(page, &usable(pairs)).err(), Some(NothingUsable { granule: page }), "{pairs:x?}");
    }
}

#[test]
fn no_range_lies_in_two_usable_ranges_that_touch() {
    let mut iovas = space(&[(0x1000, 0x4fff), (0x5000, 0x8fff)]);
    let whole = Want::new(Bytes::new(0x8000)).aligned(Granule::PAGE_4K);
    assert!(iovas.allocate(&whole).is_err());
    assert_eq!(iovas.largest_gap(Iova::new(u64::MAX)), Bytes::new(0x4000));
    assert_eq!(iovas.claim(range(0x5000, 0x8fff)), Ok(()));
}

#[test]
fn usable_granules_are_those_that_are_usable_as_a_whole() {
    let mut iovas = space(&[(0x1800, 0x47ff)]);
    assert_eq!(iovas.free_bytes(), Bytes::new(0x2000));
    assert_eq!(iovas.allocate(&Want::new(Bytes::new(0x2000))), Ok(range(0x2000, 0x3fff)));
}

#[test]
fn the_limit_is_the_last_address_and_counts() {
    let mut iovas = space(&[(0, 0xffff_ffff_ffff)]);
    let below = |limit| Want::new(Bytes::new(4 * KIB)).below(Iova::new(limit));
    assert_eq!(iovas.allocate(&below(0xffff_ffff)), Ok(range(0xffff_f000, 0xffff_ffff)));
    assert_eq!(iovas.allocate(&below(0xffff_fffe)), Ok(range(0xffff_e000, 0xffff_efff)));
    assert_eq!(iovas.allocate(&below(0xfff_ffff)), Ok(range(0xfff_f000, 0xfff_ffff)));
    assert_eq!(iovas.allocate(&below(0x1fff)), Ok(range(0x1000, 0x1fff)));
    for limit in [0, 0xfff, 0x1ffe, 0x1fff] {
        assert!(iovas.allocate(&below(limit)).is_err(), "{limit:#x}");
    }
}

#[test]
fn exhaustion_names_what_was_wanted_and_the_largest_gap() {
    let mut iovas = space(&[(0x1000, 0xffff)]);
    iovas.claim(range(0x8000, 0x8fff)).unwrap();
    let want = Want::new(Bytes::new(0x7001)).below(Iova::new(0xefff));
    let exhausted = iovas.allocate(&want).unwrap_err();
    assert_eq!((exhausted.wanted(), exhausted.limit()), (Bytes::new(0x7001), Iova::new(0xefff)));
    assert_eq!(exhausted.largest_gap, Some(range(0x1000, 0x7fff)));
    assert_eq!(
        exhausted.to_string(),
        "no free IOVAs for 28673 bytes naturally aligned up to 0xefff; the largest gap there is 28 KiB at 0x1000; \
         free some, or raise the limit"
    );
}

#[test]
fn a_range_takes_its_length_and_not_the_power_of_two_above() {
    let mut iovas = space(&[(0, 0xffff)]);
    assert_eq!(iovas.allocate(&Want::new(Bytes::new(0x5000))), Ok(range(0x8000, 0xcfff)));
    assert_eq!(iovas.allocate(&Want::new(Bytes::new(0x2000))), Ok(range(0xe000, 0xffff)));
    assert_eq!(iovas.allocate(&Want::new(Bytes::new(0x1000))), Ok(range(0xd000, 0xdfff)));
}

#[test]
fn a_gap_that_holds_no_block_of_the_next_power_of_two_is_used_all_the_same() {
    let mut iovas = space(&[(0x1000, 0xffff)]);
    iovas.claim(range(0xd000, 0xffff)).unwrap();
    // Five pages need a multiple of eight; 0x8000 to 0xcfff is one, and no eight pages are free there.
    assert_eq!(iovas.allocate(&Want::new(Bytes::new(0x5000))), Ok(range(0x8000, 0xcfff)));
}

#[test]
fn what_is_excluded_is_not_handed_out() {
    let mut iovas = space(&[(0, 0xffff_ffff)]);
    // Interrupts of x86: 0xfee00000 to 0xfeefffff.
    iovas.exclude(range(0xfee0_0000, 0xfeef_ffff)).unwrap();
    let at = Iova::new(0xfee0_0000);
    let window = range(0xfee0_0000, 0xfee0_0fff);
    assert_eq!(iovas.claim(window), Err(ClaimError::Unusable { range: window, at }));
    assert_eq!(iovas.free(window), Err(FreeError::NotAllocated { range: window }));
    let below = iovas.allocate(&Want::new(Bytes::new(1 << 20)).below(Iova::new(0xfeef_ffff))).unwrap();
    assert_eq!(below, range(0xfed0_0000, 0xfedf_ffff));
    let taken = ExcludeError::Allocated { range: range(0, 0xffff_ffff), allocated: below, guard: Bytes::ZERO };
    assert_eq!(iovas.exclude(range(0, 0xffff_ffff)), Err(taken));
    iovas.free(below).unwrap();
    iovas.exclude(range(0, 0xffff_ffff)).unwrap();
    assert_eq!(iovas.free_bytes(), Bytes::ZERO);
}

#[test]
fn a_part_of_a_range_is_not_freed_nor_more_than_it() {
    let mut iovas = space(&[(0, 0xffff_ffff)]);
    let allocated = iovas.allocate(&Want::new(Bytes::new(12 * KIB))).unwrap();
    let neighbour = iovas.allocate(&Want::new(Bytes::new(12 * KIB))).unwrap();
    let (start, len) = (allocated.start().as_u64(), 12 * KIB);
    for other in [
        range(start, start + len - 1 - 4 * KIB),
        range(start, start + len - 1 + 4 * KIB),
        range(start + 4 * KIB, start + len - 1),
        range(start, start + len - 2),
        range(neighbour.start().as_u64(), start + len - 1),
    ] {
        let named = if other.start() == neighbour.start() { neighbour } else { allocated };
        assert_eq!(iovas.free(other), Err(FreeError::Differs { range: other, allocated: named }), "{other}");
    }
    assert_eq!(iovas.free(allocated), Ok(()));
    assert_eq!(iovas.free(allocated), Err(FreeError::NotAllocated { range: allocated }));
    assert_eq!(iovas.free(neighbour), Ok(()));
}

#[test]
fn guard_space_is_nobody_s_until_the_range_is_freed() {
    let mut iovas = space(&[(0x1000, 0xffff)]);
    let guarded = iovas.allocate(&Want::new(Bytes::new(0x2000)).guarded(Bytes::new(1))).unwrap();
    assert_eq!(guarded, range(0xc000, 0xdfff));
    let beside = range(0xe000, 0xefff);
    let refused = ClaimError::Guard { range: beside, at: beside.start(), of: guarded };
    assert_eq!(iovas.claim(beside), Err(refused));
    assert_eq!(iovas.free(beside), Err(FreeError::NotAllocated { range: beside }));
    let window = ExcludeError::Allocated { range: beside, allocated: guarded, guard: Bytes::new(0x1000) };
    assert_eq!(iovas.exclude(beside), Err(window));
    iovas.free(guarded).unwrap();
    assert_eq!(iovas.claim(range(0x1000, 0xffff)), Ok(()));
}

#[test]
fn guards_may_lie_above_the_limit() {
    let mut iovas = space(&[(0x1000, 0xffff)]);
    let want = Want::new(Bytes::new(0x1000)).below(Iova::new(0x7fff)).guarded(Bytes::new(0x2000));
    assert_eq!(iovas.allocate(&want), Ok(range(0x7000, 0x7fff)));
    assert_eq!(iovas.largest_gap(Iova::new(u64::MAX)), Bytes::new(0x6000));
}

#[test]
fn an_alignment_asked_for_replaces_the_natural_one() {
    let mut iovas = space(&[(0, 4 * GIB - 1)]);
    let huge = Want::new(Bytes::new(4 * KIB)).aligned(granule(2 << 20));
    assert_eq!(iovas.allocate(&huge).map(|range| range.start()), Ok(Iova::new(0xffe0_0000)));
    let loose = Want::new(Bytes::new(3 * GIB)).aligned(granule(1));
    assert_eq!(iovas.allocate(&loose).map(|range| range.start()), Ok(Iova::new(0x3fe0_0000)));
}

#[test]
fn no_bytes_take_one_granule_and_more_than_there_are_none() {
    let mut iovas = space(&[(0, 0xffff_ffff)]);
    assert_eq!(iovas.allocate(&Want::new(Bytes::ZERO)), Ok(range(0xffff_f000, 0xffff_ffff)));
    for len in [4 * GIB, 1 << 52, 1 << 63, (1 << 63) + 1, u64::MAX] {
        let exhausted = iovas.allocate(&Want::new(Bytes::new(len))).unwrap_err();
        assert_eq!(exhausted.largest_gap, Some(range(0x1000, 0xffff_efff)), "{len:#x}");
        assert!(iovas.allocate(&Want::new(Bytes::new(len)).guarded(Bytes::new(u64::MAX))).is_err());
        assert!(iovas.allocate(&Want::new(Bytes::new(1)).guarded(Bytes::new(len))).is_err());
        assert!(iovas.allocate(&Want::new(Bytes::new(1)).aligned(granule(1 << 63))).is_err());
    }
}

#[test]
fn a_space_of_all_addresses_works_in_single_bytes_and_in_huge_granules() {
    for bytes in [1, 4 * KIB, GIB, 1 << 60, 1 << 61] {
        let mut iovas = Allocator::new(granule(bytes), &usable(&[(0, (1 << 63) - 1), (1 << 63, u64::MAX)])).unwrap();
        let free = iovas.free_bytes();
        let top = iovas.allocate(&Want::new(Bytes::new(bytes))).unwrap();
        assert_eq!(top.last(), Iova::new(u64::MAX), "{bytes:#x}");
        let below = iovas.allocate(&Want::new(Bytes::new(1)).below(Iova::new(u64::MAX - 1))).unwrap();
        assert_eq!(below.last().as_u64(), u64::MAX - bytes, "{bytes:#x}");
        let rest = iovas.largest_gap_range(Iova::new(u64::MAX)).unwrap();
        iovas.claim(rest).unwrap();
        for range in [top, rest, below] {
            assert_eq!(iovas.free(range), Ok(()), "{bytes:#x}");
            assert_eq!(iovas.free(range), Err(FreeError::NotAllocated { range }), "{bytes:#x}");
        }
        assert_eq!(iovas.free_bytes(), free, "{bytes:#x}");
    }
}

/// Nine bytes are no block of sixteen, so that the gap itself is looked at, up to its very last address.
#[test]
fn a_gap_that_ends_with_the_last_address_is_used_up_to_it() {
    for shift in [0, 12, 48] {
        let first = u64::MAX - (9 << shift) + 1;
        let mut iovas = Allocator::new(granule(1 << shift), &usable(&[(first, u64::MAX)])).unwrap();
        let unaligned = Want::new(Bytes::new(9 << shift)).aligned(granule(1));
        assert_eq!(iovas.allocate(&unaligned), Ok(range(first, u64::MAX)), "granule of 2^{shift}");
    }
}

#[test]
fn strangers_are_refused_wherever_they_lie() {
    let mut iovas = space(&[(0x1000, 0xffff)]);
    for stranger in [range(0, 0xfff), range(0, u64::MAX - 1), range(1 << 40, (1 << 41) - 1), range(0x1001, 0x2000)] {
        assert_eq!(iovas.free(stranger), Err(FreeError::NotAllocated { range: stranger }));
        assert!(iovas.claim(stranger).is_err());
    }
    assert_eq!(iovas.exclude(range(1 << 40, u64::MAX)), Ok(()));
    assert_eq!(iovas.exclude(range(0x8000, u64::MAX)), Ok(()));
    assert_eq!(iovas.free_bytes(), Bytes::new(0x7000));
}
