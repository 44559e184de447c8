//! Random sequences on the allocator and on the oracle; after each step they agree.

use crate::oracle::Oracle;
use peerdma::addr::{Bytes, Granule, Iova};
use peerdma::iova::{Allocator, ClaimError, ExcludeError, FreeError, IovaRanges, Want};
use proptest::prelude::*;

/// Two usable ranges in pages: across leaves near the bottom, and one far up.
const LOW: (u64, u64) = (1, 0x2fff);
const HIGH: (u64, u64) = (0x3_0000_0f00, 0x3_0000_17ff);

#[derive(Clone, Debug)]
enum Step {
    Allocate { bytes: u64, limit: u64, align: Option<u32>, guard: u64 },
    Free { nth: usize },
    FreeOther { nth: usize, shift: i64, longer: i64 },
    Claim { page: u64, pages: u64 },
    Exclude { page: u64, bytes: u64 },
}

/// Mostly short, seldom long, with all sizes of words and leaves among them.
fn page_counts() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 1u64..10, 4 => 1u64..200, 2 => 1u64..2000, 1 => 1u64..9000, 1 => (0u32..13).prop_map(|order| 1 << order)]
}

fn page_numbers() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0u64..0x3100, 2 => HIGH.0 - 64..HIGH.1 + 64, 1 => Just(LOW.1 - 3), 1 => Just(0x1000), 1 => any::<u32>().prop_map(u64::from)]
}

fn steps(shift: u32) -> impl Strategy<Value = Step> {
    let limits = prop_oneof![
        4 => Just(u64::MAX),
        1 => page_numbers().prop_map(move |page| (page << shift) - u64::from(page > 0)),
        1 => page_numbers().prop_map(move |page| (page << shift) + 5),
    ];
    let aligns = prop_oneof![5 => Just(None), 2 => (0u32..28).prop_map(Some)];
    let guards = prop_oneof![5 => Just(0u64), 1 => 1u64..(3 << shift)];
    let allocate = (page_counts(), 0u64..1 << shift, limits, aligns, guards).prop_map(
        move |(pages, less, limit, align, guard)| Step::Allocate {
            bytes: (pages << shift) - less,
            limit,
            align,
            guard,
        },
    );
    prop_oneof![
        12 => allocate,
        6 => any::<usize>().prop_map(|nth| Step::Free { nth }),
        2 => (any::<usize>(), -3i64..3, -3i64..3).prop_map(|(nth, shift, longer)| Step::FreeOther { nth, shift, longer }),
        3 => (page_numbers(), page_counts()).prop_map(|(page, pages)| Step::Claim { page, pages }),
        1 => (page_numbers(), 1u64..8 << shift).prop_map(|(page, bytes)| Step::Exclude { page, bytes }),
    ]
}

fn step(iovas: &mut Allocator, oracle: &mut Oracle, shift: u32, step: &Step) {
    match *step {
        Step::Allocate { bytes, limit, align, guard } => {
            let align = align.map(|order| Granule::new(Bytes::new(1 << order)).unwrap());
            let mut want = Want::new(Bytes::new(bytes)).below(Iova::new(limit)).guarded(Bytes::new(guard));
            if let Some(align) = align {
                want = want.aligned(align);
            }
            match iovas.allocate(&want) {
                Ok(range) => {
                    let guard = oracle.guard_pages(&want);
                    let (first, last) = oracle.pages(&range);
                    assert!(oracle.is_free(first - guard, last + guard), "{range} or its guard is not free");
                    assert_eq!(last - first + 1, oracle.wanted_pages(&want), "{want:?} got {range}");
                    assert!(first.is_multiple_of(oracle.align_pages(&want)), "{range} is not aligned for {want:?}");
                    assert!(range.last().as_u64() <= limit, "{range} is above {limit:#x}");
                    oracle.take(first, last, guard);
                }
                Err(exhausted) => {
                    assert!(!oracle.has_room(&want), "{exhausted}, but {:x?}", oracle.free);
                    let gap = exhausted.largest_gap.map_or(0, |gap| gap.len().as_u64());
                    assert_eq!(gap >> shift, oracle.largest_gap(want.limit()), "{exhausted}");
                }
            }
        }
        Step::Free { nth } if !oracle.taken.is_empty() => {
            let (first, last) = oracle.give_back(nth % oracle.taken.len());
            let range = oracle.range(first, last);
            assert_eq!(iovas.free(range), Ok(()));
            assert_eq!(iovas.free(range), Err(FreeError::NotAllocated { range }), "freed twice");
        }
        Step::FreeOther { nth, shift, longer } if !oracle.taken.is_empty() => {
            let (first, last, _) = oracle.taken[nth % oracle.taken.len()];
            let (from, to) = (first.saturating_add_signed(shift), last.saturating_add_signed(shift + longer));
            if from <= to && !oracle.taken.iter().any(|&(first, last, _)| (first, last) == (from, to)) {
                let range = oracle.range(from, to);
                let holder = oracle.taken.iter().find(|taken| taken.0 <= from && from <= taken.1);
                let expected = match holder {
                    Some(&(first, last, _)) => FreeError::Differs { range, allocated: oracle.range(first, last) },
                    None => FreeError::NotAllocated { range },
                };
                assert_eq!(iovas.free(range), Err(expected));
            }
        }
        Step::Claim { page, pages } => {
            let range = oracle.range(page, page + pages - 1);
            let claimed = iovas.claim(range);
            assert_eq!(claimed.is_ok(), oracle.is_free(page, page + pages - 1), "{claimed:?}");
            match claimed {
                Ok(()) => oracle.take(page, page + pages - 1, 0),
                Err(ClaimError::Allocated { allocated, .. }) => {
                    let (first, last) = oracle.pages(&allocated);
                    assert!(oracle.taken.iter().any(|taken| (taken.0, taken.1) == (first, last)), "{claimed:?}");
                }
                Err(ClaimError::Guard { at, of, .. }) => {
                    let ((first, last), at) = (oracle.pages(&of), at.as_u64() >> shift);
                    let guards = |taken: &&(u64, u64, u64)| (taken.0, taken.1) == (first, last);
                    let guard = oracle.taken.iter().find(guards).unwrap().2;
                    assert!(at.abs_diff(first) <= guard || at.abs_diff(last) <= guard, "{claimed:?}");
                }
                Err(ClaimError::Unusable { at, .. }) => {
                    let at = at.as_u64() >> shift;
                    let is_taken = oracle.taken.iter().any(|taken| taken.0 <= at && at <= taken.1);
                    assert!(!is_taken && !oracle.is_free(at, at), "{claimed:?}");
                }
                Err(other) => panic!("{other}"),
            }
        }
        Step::Exclude { page, bytes } => {
            let range = oracle.range(page, page).start();
            let range = peerdma::addr::AddrRange::new(range, Bytes::new(bytes)).unwrap();
            let (first, last) = (page, range.last().as_u64() >> shift);
            let in_the_way = |taken: &&(u64, u64, u64)| taken.0 - taken.2 <= last && first <= taken.1 + taken.2;
            match iovas.exclude(range) {
                Ok(()) => {
                    assert_eq!(oracle.taken.iter().find(in_the_way), None, "excluded {range}");
                    oracle.remove(first, last);
                }
                Err(ExcludeError::Allocated { allocated, guard, .. }) => {
                    let (first, last) = oracle.pages(&allocated);
                    let found = (first, last, guard.as_u64() >> shift);
                    assert!(oracle.taken.iter().filter(in_the_way).any(|&taken| taken == found), "{found:x?}");
                }
                Err(other) => panic!("{other}"),
            }
        }
        Step::Free { .. } | Step::FreeOther { .. } => {}
    }
}

fn run(granule: Granule, sequence: &[Step]) {
    let shift = granule.bytes().as_u64().trailing_zeros();
    let ends = |(first, last): (u64, u64)| (Iova::new(first << shift), Iova::new(((last + 1) << shift) - 1));
    let usable = IovaRanges::from_inclusive([ends((0, LOW.1)), ends(HIGH)]).unwrap();
    let mut iovas = Allocator::new(granule, &usable).unwrap();
    let mut oracle = Oracle::new(granule, &[LOW, HIGH]);
    for next in sequence {
        step(&mut iovas, &mut oracle, shift, next);
        assert_eq!(iovas.free_bytes().as_u64() >> shift, oracle.free_pages(), "after {next:?}");
    }
    let limits = [u64::MAX, HIGH.0 << shift, 0x2345 << shift, (0x1000 << shift) - 1];
    for limit in limits.map(Iova::new) {
        assert_eq!(iovas.largest_gap(limit).as_u64() >> shift, oracle.largest_gap(limit), "up to {limit}");
    }
    while !oracle.taken.is_empty() {
        let (first, last) = oracle.give_back(oracle.taken.len() / 2);
        assert_eq!(iovas.free(oracle.range(first, last)), Ok(()));
    }
    for &(first, last) in &oracle.free {
        assert_eq!(iovas.claim(oracle.range(first, last)), Ok(()), "what was freed is not one gap again");
    }
    assert_eq!(iovas.free_bytes(), Bytes::ZERO);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn pages_are_handed_out_and_taken_back_as_the_oracle_says(sequence in prop::collection::vec(steps(12), 1..120)) {
        run(Granule::PAGE_4K, &sequence);
    }

    #[test]
    fn single_bytes_are_handed_out_as_pages_are(sequence in prop::collection::vec(steps(0), 1..120)) {
        run(Granule::new(Bytes::new(1)).unwrap(), &sequence);
    }
}
