//! Arenas in front of a shared allocator.

use peerdma::addr::{AddrRange, Bytes, Granule, Iova};
use peerdma::iova::{Allocator, Arena, Depot, FreeError, IovaRanges, Want};
use proptest::prelude::*;
use std::cell::RefCell;

fn shared(last: u64) -> RefCell<Allocator> {
    let usable = IovaRanges::from_inclusive([(Iova::new(0), Iova::new(last))]).unwrap();
    RefCell::new(Allocator::new(Granule::PAGE_4K, &usable).unwrap())
}

fn pages(number: u64) -> Want {
    Want::new(Bytes::new(number << 12))
}

fn free_bytes(shared: &impl Depot) -> u64 {
    shared.with(|allocator| allocator.free_bytes().as_u64())
}

#[test]
fn a_freed_range_comes_back_without_the_shared_allocator() {
    let shared = shared(0xffff_ffff);
    let mut arena = Arena::new();
    let range = arena.allocate(&shared, &pages(3)).unwrap();
    arena.free(&shared, range).unwrap();
    let locked = shared.borrow_mut();
    assert_eq!(arena.allocate(&shared, &pages(3)), Ok(range));
    arena.free(&shared, range).unwrap();
    assert_eq!(arena.held(), Bytes::new(3 << 12));
    drop(locked);
    arena.drain(&shared).unwrap();
    assert_eq!(arena.held(), Bytes::ZERO);
    assert_eq!(free_bytes(&shared), 0xffff_f000);
}

#[test]
fn a_range_is_handed_out_again_for_its_own_length_only() {
    let shared = shared(0xffff_ffff);
    let mut arena = Arena::new();
    let three = arena.allocate(&shared, &pages(3)).unwrap();
    arena.free(&shared, three).unwrap();
    let four = arena.allocate(&shared, &pages(4)).unwrap();
    assert_ne!(four.start(), three.start());
    // Rounded up to whole granules it is the same length.
    assert_eq!(arena.allocate(&shared, &Want::new(Bytes::new((2 << 12) + 1))), Ok(three));
    shared.borrow_mut().free(three).unwrap();
    shared.borrow_mut().free(four).unwrap();
}

#[test]
fn kept_ranges_above_the_limit_are_passed_over() {
    let shared = shared(0xffff_ffff_ffff);
    let mut arena = Arena::new();
    let low = arena.allocate(&shared, &pages(1).below(Iova::new(0xff_ffff))).unwrap();
    let high = arena.allocate(&shared, &pages(1)).unwrap();
    let higher = arena.allocate(&shared, &pages(1)).unwrap();
    for range in [low, higher, high] {
        arena.free(&shared, range).unwrap();
    }
    let exactly = pages(1).below(low.last());
    assert_eq!(arena.allocate(&shared, &exactly), Ok(low));
    assert_ne!(arena.allocate(&shared, &exactly), Ok(low));
    assert_eq!(arena.allocate(&shared, &pages(1)), Ok(high));
    assert_eq!(arena.allocate(&shared, &pages(1)), Ok(higher));
}

#[test]
fn alignments_and_guards_asked_for_are_kept() {
    let shared = shared(0xffff_ffff);
    let mut arena = Arena::new();
    let loose = arena.allocate(&shared, &pages(3).aligned(Granule::PAGE_4K)).unwrap();
    let next = arena.allocate(&shared, &pages(3).aligned(Granule::PAGE_4K)).unwrap();
    for range in [loose, next] {
        arena.free(&shared, range).unwrap();
    }
    let natural = arena.allocate(&shared, &pages(3)).unwrap();
    assert_eq!(natural.start().as_u64() & 0x3fff, 0);
    arena.free(&shared, natural).unwrap();
    let guarded = arena.allocate(&shared, &pages(3).guarded(Bytes::new(4096))).unwrap();
    let beside = AddrRange::new(guarded.last().checked_add(Bytes::new(1)).unwrap(), Bytes::new(4096)).unwrap();
    assert!(shared.borrow_mut().claim(beside).is_err());
}

#[test]
fn an_arena_gives_back_what_it_keeps_before_it_says_that_there_is_no_room() {
    let shared = shared(0xffff);
    let mut arena = Arena::new();
    let small: Vec<_> = (0..15).map(|_| arena.allocate(&shared, &pages(1)).unwrap()).collect();
    for &range in &small {
        arena.free(&shared, range).unwrap();
    }
    assert_eq!(free_bytes(&shared), 0);
    let large = arena.allocate(&shared, &pages(8)).unwrap();
    assert_eq!(arena.held(), Bytes::ZERO);
    let exhausted = arena.allocate(&shared, &pages(8)).unwrap_err();
    assert_eq!(exhausted.largest_gap.map(|gap| gap.len()), Some(Bytes::new(7 << 12)));
    arena.free(&shared, large).unwrap();
}

#[test]
fn a_range_freed_twice_is_refused_whether_it_was_kept_or_not() {
    let shared = shared(0xffff_ffff);
    let mut arena = Arena::keeping(Bytes::new(100 << 12));
    let ranges: Vec<_> = (0..60).map(|_| arena.allocate(&shared, &pages(2)).unwrap()).collect();
    let long = arena.allocate(&shared, &pages(513)).unwrap();
    for &range in ranges.iter().chain([&long]) {
        assert_eq!(arena.free(&shared, range), Ok(()));
        assert_eq!(arena.free(&shared, range), Err(FreeError::NotAllocated { range }));
    }
    arena.drain(&shared).unwrap();
    assert_eq!(free_bytes(&shared), 0xffff_f000);
}

#[test]
fn a_range_is_refused_however_many_were_freed_since() {
    let shared = shared(0xffff_ffff);
    let mut arena = Arena::new();
    let ranges: Vec<_> = (0..20).map(|_| arena.allocate(&shared, &pages(1)).unwrap()).collect();
    for &range in &ranges {
        arena.free(&shared, range).unwrap();
    }
    for &range in &ranges {
        assert_eq!(arena.free(&shared, range), Err(FreeError::NotAllocated { range }));
    }
}

#[test]
fn a_range_that_is_not_naturally_aligned_is_not_kept() {
    let shared = shared(0xffff_ffff);
    let mut arena = Arena::new();
    let natural = arena.allocate(&shared, &pages(3)).unwrap();
    arena.free(&shared, natural).unwrap();
    let loose = AddrRange::new(Iova::new(0x5000), Bytes::new(0x3000)).unwrap();
    shared.borrow_mut().claim(loose).unwrap();
    arena.free(&shared, loose).unwrap();
    assert_eq!(arena.held(), natural.len());
    assert_eq!(shared.borrow_mut().claim(loose), Ok(()));
}

#[test]
fn what_is_held_and_what_is_free_are_all_there_is() {
    let shared = shared(0xffff_ffff);
    let mut arena = Arena::new();
    let ranges: Vec<_> = (0..200).map(|_| arena.allocate(&shared, &pages(1)).unwrap()).collect();
    for (nth, &range) in ranges.iter().enumerate() {
        arena.free(&shared, range).unwrap();
        let out = (ranges.len() - nth - 1) as u64 * 4096;
        assert_eq!(out + arena.held().as_u64() + free_bytes(&shared), 0xffff_f000, "after {nth}");
    }
    assert!(free_bytes(&shared) > 0xffff_f000 - 40 * 4096, "an arena gives back what it has too much of");
}

#[test]
fn a_stranger_is_named_when_it_leaves_the_arena_and_the_others_are_given_back() {
    let shared = shared(0xffff_ffff);
    let mut arena = Arena::new();
    let own = arena.allocate(&shared, &pages(1)).unwrap();
    let stranger = AddrRange::new(Iova::new(0x5000), Bytes::new(4096)).unwrap();
    arena.free(&shared, stranger).unwrap();
    arena.free(&shared, own).unwrap();
    assert_eq!(arena.drain(&shared), Err(FreeError::NotAllocated { range: stranger }));
    assert_eq!(free_bytes(&shared), 0xffff_f000);
    assert_eq!(arena.drain(&shared), Ok(()));
}

#[cfg(feature = "std")]
#[test]
fn two_threads_share_an_allocator_through_their_arenas() {
    let shared = std::sync::Mutex::new(shared(0xffff_ffff).into_inner());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut arena = Arena::keeping(Bytes::new(1 << 20));
                let mut held = Vec::new();
                for round in 0..2000u64 {
                    held.push(arena.allocate(&shared, &pages(1 + round * 7 % 40)).unwrap());
                    if held.len() > 50 {
                        arena.free(&shared, held.swap_remove((round as usize * 31) % held.len())).unwrap();
                    }
                }
                for range in held {
                    arena.free(&shared, range).unwrap();
                }
                arena.drain(&shared).unwrap();
            });
        }
    });
    assert_eq!(free_bytes(&shared), 0xffff_f000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn nothing_is_lost_and_nothing_doubled_between_two_arenas(
        most in prop_oneof![Just(0u64), 1u64..1 << 20, Just(u64::MAX)],
        steps in prop::collection::vec((any::<bool>(), any::<usize>(), 0u64..600, 0u64..4096), 1..300),
    ) {
        // Small enough to run out now and then.
        let shared = shared((4 << 20) - 1);
        let mut arenas = [Arena::keeping(Bytes::new(most)), Arena::keeping(Bytes::new(most / 2))];
        let mut live: Vec<AddrRange<Iova>> = Vec::new();
        for (which, nth, number, limit) in steps {
            let arena = &mut arenas[usize::from(which)];
            if number % 3 == 0 && !live.is_empty() {
                let range = live.swap_remove(nth % live.len());
                prop_assert_eq!(arena.free(&shared, range), Ok(()));
                continue;
            }
            let number = if number % 5 == 0 { number } else { number % 9 };
            let limit = if limit % 2 == 0 { u64::MAX } else { limit << 10 };
            if let Ok(range) = arena.allocate(&shared, &pages(number).below(Iova::new(limit))) {
                prop_assert_eq!(range.len().as_u64() >> 12, number.max(1));
                prop_assert!((range.start().as_u64() >> 12).is_multiple_of(number.max(1).next_power_of_two()));
                prop_assert!(range.last().as_u64() <= limit);
                for other in &live {
                    prop_assert!(range.last() < other.start() || other.last() < range.start(), "{} {}", range, other);
                }
                live.push(range);
            }
        }
        let held: u64 = arenas.iter().map(|arena| arena.held().as_u64()).sum();
        let out: u64 = live.iter().map(|range| range.len().as_u64()).sum();
        prop_assert_eq!(held + out + free_bytes(&shared), (4 << 20) - 4096);
        for range in live {
            prop_assert_eq!(arenas[0].free(&shared, range), Ok(()));
        }
        for arena in &mut arenas {
            prop_assert_eq!(arena.drain(&shared), Ok(()));
        }
        let whole = AddrRange::new(Iova::new(4096), Bytes::new((4 << 20) - 4096)).unwrap();
        prop_assert_eq!(shared.borrow_mut().claim(whole), Ok(()));
    }
}
