//! What a pool promises, on arrays of bytes.

use super::*;
use crate::addr::PhysAddr;
use crate::dma::owner::OwnerId;
use crate::topology::FunctionId;
use core::cell::Cell;
use proptest::collection::vec;
use proptest::prelude::*;

const AREA: u64 = 0x10_0000;
const PAGE: Granule = Granule::PAGE_4K;
const DIRTY: u8 = 0xee;

fn bytes(n: u64) -> Bytes {
    Bytes::new(n)
}

fn granule(n: u64) -> Granule {
    Granule::new(bytes(n)).unwrap()
}

/// A pool of this many bytes, all dirty, and 1 MiB of process memory that counts.
fn pool(len: u64, cell: u64) -> BouncePool<ByteArrays> {
    let memory = ByteArrays::new();
    memory.add((Owner::Ram, bytes(AREA)), vec![DIRTY; len as usize]).unwrap();
    memory.add((Owner::Process, bytes(0)), (0..1 << 20).map(counting).collect()).unwrap();
    BouncePool::new(memory, (Owner::Ram, bytes(AREA)), bytes(len), granule(cell)).unwrap()
}

/// Never zero, and of a period that no page has.
fn counting(at: u32) -> u8 {
    (at % 251) as u8 + 1
}

fn seen(pool: &BouncePool<ByteArrays>, offset: u64, len: u64) -> Vec<u8> {
    let mut seen = vec![DIRTY; len as usize];
    pool.memory().read((Owner::Ram, bytes(offset)), &mut seen).unwrap();
    seen
}

#[test]
fn the_whole_granules_of_a_slot_are_zero_and_nobody_elses() {
    let pool = pool(0x8000, 0x1000);
    let slot = pool.take(bytes(0x1100), bytes(0xf80), PAGE).unwrap();
    assert_eq!((slot.offset().as_u64() & 0xfff, slot.len()), (0xf80, bytes(0x1100)));
    let start = slot.offset().as_u64() - 0xf80;
    assert_eq!(seen(&pool, start, 0x3000), [0; 0x3000]);
    assert_eq!(pool.left(), bytes(0x5000), "three granules are touched");
    let other = pool.take(bytes(1), Bytes::ZERO, PAGE).unwrap();
    assert!(other.offset().as_u64() >= start + 0x3000 || other.offset().as_u64() < start);
    pool.give_back(slot);
    pool.give_back(other);
    assert_eq!(pool.left(), pool.size());
}

#[test]
fn a_filled_slot_shows_the_copy_and_zeros_beside_it() {
    let pool = pool(0x8000, 0x1000);
    let slot = pool.take_filled((Owner::Process, bytes(77)), bytes(0x1001), bytes(0x800), PAGE).unwrap();
    let granules = seen(&pool, slot.offset().as_u64() - 0x800, 0x2000);
    let expected: Vec<u8> = (77..77 + 0x1001).map(counting).collect();
    assert_eq!(granules[0x800..0x1801], expected);
    assert!(granules[..0x800].iter().chain(&granules[0x1801..]).all(|byte| *byte == 0));
}

#[test]
fn a_granule_larger_than_a_cell_is_a_slots_alone_and_aligned() {
    let pool = pool(0x8_0000, 0x1000);
    let first = pool.take(bytes(1), Bytes::ZERO, PAGE).unwrap();
    let large = pool.take(bytes(0x1001), bytes(0xfffe), granule(0x1_0000)).unwrap();
    let start = large.offset().as_u64() - 0xfffe;
    assert_eq!(start & 0xffff, 0);
    assert_eq!(seen(&pool, start, 0x2_0000), vec![0; 0x2_0000]);
    assert!(first.offset().as_u64() < start);
    assert_eq!(pool.left(), bytes(0x8_0000 - 0x1000 - 0x2_0000));
}

#[test]
fn an_exhausted_pool_says_what_is_left_and_in_how_large_a_piece() {
    let pool = pool(0x4000, 0x1000);
    let slots: Vec<_> = (0..4).map(|_| pool.take(bytes(0x1000), Bytes::ZERO, PAGE).unwrap()).collect();
    let mut slots = slots.into_iter();
    pool.give_back(slots.next().unwrap());
    let _held = slots.next().unwrap();
    pool.give_back(slots.next().unwrap());
    let refused = pool.take(bytes(0x1001), Bytes::ZERO, PAGE);
    let expected = PoolError::Exhausted { wanted: bytes(0x2000), largest: bytes(0x1000), left: bytes(0x2000) };
    assert_eq!(refused, Err(expected));
}

#[test]
fn what_is_longer_than_the_longest_slot_is_refused_and_the_longest_is_had() {
    let pool = pool(0x10_0000, 0x1000);
    for head in [0, 0x234] {
        let longest = pool.longest(bytes(head), PAGE);
        assert_eq!(longest, bytes(0x4_0000 - head));
        let refused = pool.take(bytes(longest.as_u64() + 1), bytes(head), PAGE);
        assert!(matches!(refused, Err(PoolError::TooLong { .. })), "{refused:?}");
        pool.give_back(pool.take(longest, bytes(head), PAGE).unwrap());
    }
}

#[test]
fn questions_without_sense_are_refused_by_name() {
    let pool = pool(0x4000, 0x1000);
    assert_eq!(pool.take(Bytes::ZERO, Bytes::ZERO, PAGE), Err(PoolError::Empty));
    let head = pool.take(bytes(1), bytes(0x1000), PAGE);
    assert_eq!(head, Err(PoolError::Head { head: bytes(0x1000), granule: PAGE }));
    let large = granule(0x8_0000);
    let refused = pool.take(bytes(1), Bytes::ZERO, large);
    assert_eq!(refused, Err(PoolError::Granule { granule: large, longest: bytes(0x4_0000) }));
    assert_eq!(pool.longest(Bytes::ZERO, large), Bytes::ZERO);
    let most = bytes(u64::MAX);
    assert!(matches!(pool.take(most, bytes(1), PAGE), Err(PoolError::TooLong { .. })));
    assert!(matches!(pool.take(most, Bytes::ZERO, PAGE), Err(PoolError::TooLong { .. })));
    assert_eq!(pool.left(), pool.size());
}

#[test]
fn an_area_is_cut_to_whole_cells() {
    let memory = ByteArrays::new();
    let area = |offset, len, cell| BouncePool::new(&memory, (Owner::Ram, bytes(offset)), bytes(len), granule(cell));
    assert_eq!(area(0x1800, 0x2000, 0x1000).unwrap().size(), bytes(0x1000));
    assert!(matches!(area(0x1800, 0x1000, 0x1000), Err(AreaError::TooSmall { .. })));
    assert!(matches!(area(0, 0, 0x1000), Err(AreaError::TooSmall { .. })));
    assert!(matches!(area(u64::MAX, 2, 1), Err(AreaError::TooLarge { .. })));
    assert!(matches!(area(0, u64::MAX, 0x1000), Err(AreaError::TooLarge { .. })));
    assert!(matches!(area(0, u64::MAX, 1 << 60), Err(AreaError::Cell { .. })));
    let bar = Owner::Bar { function: FunctionId::at_index(0), bar: 0 };
    let refused = BouncePool::new(&memory, (bar, bytes(0)), bytes(0x1000), PAGE);
    assert_eq!(refused.err(), Some(AreaError::DeviceMemory { owner: bar }));
}

#[test]
fn device_memory_is_never_copied() {
    let pool = pool(0x4000, 0x1000);
    let bar = Owner::Bar { function: FunctionId::at_index(0), bar: 2 };
    let refused = pool.take_filled((bar, bytes(0)), bytes(16), Bytes::ZERO, PAGE);
    assert_eq!(refused, Err(MemoryError::DeviceMemory { owner: bar }.into()));
    assert_eq!(pool.left(), pool.size(), "nothing is taken");
}

#[test]
fn a_part_is_synchronised_alone_and_only_inside_the_slot() {
    let pool = pool(0x4000, 0x1000);
    let original = (Owner::Process, bytes(0x100));
    let slot = pool.take(bytes(0x100), bytes(0x40), PAGE).unwrap();
    pool.sync(&slot, original, bytes(0x10), bytes(0x20), Towards::Device).unwrap();
    let copy = seen(&pool, slot.offset().as_u64(), 0x100);
    let expected: Vec<u8> = (0x110..0x130).map(counting).collect();
    assert_eq!(copy[0x10..0x30], expected);
    assert!(copy[..0x10].iter().chain(&copy[0x30..]).all(|byte| *byte == 0));
    for (at, len) in [(0xf0, 0x11), (0x101, 0), (u64::MAX, 2)] {
        let refused = pool.sync(&slot, original, bytes(at), bytes(len), Towards::Cpu);
        assert_eq!(refused, Err(MemoryError::OutsideSlot { at: bytes(at), len: bytes(len), slot: bytes(0x100) }));
    }
    assert_eq!(pool.sync(&slot, original, bytes(0x100), Bytes::ZERO, Towards::Cpu), Ok(()));
}

#[test]
fn what_the_device_wrote_comes_back_and_what_it_left_stays() {
    let pool = pool(0x4000, 0x1000);
    let original = (Owner::Process, bytes(0x1ff0));
    let slot = pool.take_filled(original, bytes(0x40), bytes(0xff0), PAGE).unwrap();
    pool.memory().write((slot.owner(), bytes(slot.offset().as_u64() + 8)), &[0x99; 8]).unwrap();
    pool.copy_out(&slot, original).unwrap();
    let mut after = [0; 0x40];
    pool.memory().read(original, &mut after).unwrap();
    let mut expected: Vec<u8> = (0x1ff0..0x2030).map(counting).collect();
    expected[8..16].fill(0x99);
    assert_eq!(after[..], expected);
}

/// Fails at the nth call.
#[derive(Debug)]
struct Failing {
    memory: ByteArrays,
    calls_left: Cell<u32>,
}

impl Failing {
    fn call(&self) -> Result<(), MemoryError> {
        match self.calls_left.get().checked_sub(1) {
            Some(left) => self.calls_left.set(left),
            None => return Err(MemoryError::Inaccessible { owner: Owner::Process, errno: 14 }),
        }
        Ok(())
    }
}

impl Memory for Failing {
    fn copy(&self, from: Place, to: Place, len: Bytes) -> Result<(), MemoryError> {
        self.call().and_then(|()| self.memory.copy(from, to, len))
    }

    fn zero(&self, at: Place, len: Bytes) -> Result<(), MemoryError> {
        self.call().and_then(|()| self.memory.zero(at, len))
    }
}

#[test]
fn a_slot_that_could_not_be_written_is_not_lost() {
    let memory = ByteArrays::new();
    memory.add((Owner::Ram, bytes(AREA)), vec![DIRTY; 0x2000]).unwrap();
    memory.add((Owner::Process, bytes(0)), vec![1; 0x1000]).unwrap();
    let memory = Failing { memory, calls_left: Cell::new(0) };
    let pool = BouncePool::new(memory, (Owner::Ram, bytes(AREA)), bytes(0x2000), PAGE).unwrap();
    for calls in 0..4 {
        pool.memory().calls_left.set(calls);
        let slot = pool.take_filled((Owner::Process, bytes(0)), bytes(0x800), bytes(0x200), PAGE);
        // Zeros before, zeros behind, the copy.
        assert_eq!(slot.is_ok(), calls == 3, "{calls}");
        match slot {
            Ok(slot) => pool.give_back(slot),
            Err(_) => assert_eq!(pool.left(), pool.size(), "{calls}"),
        }
    }
    pool.memory().calls_left.set(0);
    assert!(pool.take(bytes(1), Bytes::ZERO, PAGE).is_err());
    assert_eq!(pool.left(), pool.size());
}

#[test]
fn a_slot_of_another_pool_changes_nothing() {
    let (mine, theirs) = (pool(0x4000, 0x1000), pool(0x10_0000, 0x1000));
    let held = mine.take(bytes(0x1000), Bytes::ZERO, PAGE).unwrap();
    let beyond: Vec<_> = (0..200).map(|_| theirs.take(bytes(0x1000), Bytes::ZERO, PAGE).unwrap()).collect();
    let foreign = beyond.into_iter().next_back().unwrap();
    mine.give_back(foreign);
    assert_eq!(mine.left(), bytes(0x3000));
    mine.give_back(held);
}

#[test]
fn arrays_of_one_owner_do_not_overlap_and_bytes_beside_them_are_nobodys() {
    let memory = ByteArrays::new();
    let owner = Owner::Memfd(OwnerId::new(3));
    memory.add((owner, bytes(0x100)), vec![1; 0x100]).unwrap();
    for (offset, len) in [(0x1ff, 1), (0xff, 2), (0, 0x1000), (0x100, 1)] {
        let refused = memory.add((owner, bytes(offset)), vec![2; len]);
        assert!(matches!(refused, Err(MemoryError::Overlap { .. })), "{offset:#x} {len:#x}");
    }
    memory.add((owner, bytes(0x200)), vec![2; 0x10]).unwrap();
    memory.add((Owner::Process, bytes(0x180)), vec![3; 0x10]).unwrap();
    let outside = memory.zero((owner, bytes(0x1ff)), bytes(2));
    assert_eq!(outside, Err(MemoryError::Outside { owner, offset: bytes(0x1ff), len: bytes(2) }));
    let stranger = Owner::Device(OwnerId::new(1));
    assert_eq!(memory.zero((stranger, bytes(0)), bytes(1)), Err(MemoryError::NoSuchOwner { owner: stranger }));
    memory.copy((owner, bytes(0x100)), (owner, bytes(0x1f0)), bytes(0x10)).unwrap();
    assert_eq!(memory.remove((owner, bytes(0x200))), Some(vec![2; 0x10]));
    let last = memory.add((owner, bytes(u64::MAX)), vec![0; 2]);
    assert!(matches!(last, Err(MemoryError::Outside { .. })));
}

/// Without `std` arrays are one thread's.
#[cfg(feature = "std")]
#[test]
fn threads_take_and_give_back_without_sharing_a_byte() {
    let pool = pool(0x2_0000, 0x1000);
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let pool = &pool;
            scope.spawn(move || {
                for round in 0..200_u64 {
                    let len = 1 + (round * 977) % 0x2800;
                    let Ok(slot) = pool.take(bytes(len), Bytes::ZERO, PAGE) else { continue };
                    let mark = vec![thread; len as usize];
                    pool.memory().write((slot.owner(), slot.offset()), &mark).unwrap();
                    assert_eq!(seen(pool, slot.offset().as_u64(), len), mark);
                    pool.give_back(slot);
                }
            });
        }
    });
    assert_eq!(pool.left(), pool.size());
}

proptest! {
    /// Slots never overlap, stay in the area, start where they were asked to, are zero, and a
    /// refusal for want of room is true: an oracle of one flag for each cell agrees.
    #[test]
    fn a_pool_agrees_with_a_list_of_flags(
        first in 0_u64..70,
        cells in 1_u64..200,
        cell_log2 in 4_u32..8,
        steps in vec((any::<bool>(), 1_u64..1500, 0_u64..0x400, 3_u32..12, any::<prop::sample::Index>()), 1..80),
    ) {
        let cell = 1_u64 << cell_log2;
        let (start, len) = (first * cell, cells * cell);
        let memory = ByteArrays::new();
        memory.add((Owner::Ram, bytes(start)), vec![DIRTY; len as usize]).unwrap();
        let pool = BouncePool::new(memory, (Owner::Ram, bytes(start)), bytes(len), granule(cell)).unwrap();
        let mut free = vec![true; cells as usize];
        let mut taken: Vec<(Slot, core::ops::Range<usize>)> = Vec::new();
        for (take, len, head, granule_log2, which) in steps {
            if !take {
                if !taken.is_empty() {
                    let (slot, cells) = taken.swap_remove(which.index(taken.len()));
                    free[cells].fill(true);
                    pool.give_back(slot);
                }
                continue;
            }
            let unit = granule(1 << granule_log2);
            let head = head % unit.bytes().as_u64();
            let step = unit.bytes().as_u64().max(cell);
            let whole = (head + len).div_ceil(step) * step / cell;
            match pool.take(bytes(len), bytes(head), unit) {
                Ok(slot) => {
                    let begin = slot.offset().as_u64() - head;
                    prop_assert_eq!(PhysAddr::new(begin).as_u64() % step, 0);
                    prop_assert_eq!(slot.len(), bytes(len));
                    let first = (begin - start) / cell;
                    let cells = first as usize..(first + whole) as usize;
                    prop_assert!(free[cells.clone()].iter().all(|free| *free), "someone else's, or outside");
                    free[cells.clone()].fill(false);
                    let mut seen = vec![DIRTY; (whole * cell) as usize];
                    pool.memory().read((Owner::Ram, bytes(begin)), &mut seen).unwrap();
                    prop_assert!(seen.iter().all(|byte| *byte == 0));
                    pool.memory().write((Owner::Ram, bytes(begin)), &vec![DIRTY; seen.len()]).unwrap();
                    taken.push((slot, cells));
                }
                Err(PoolError::TooLong { .. }) => prop_assert!(whole > 64),
                Err(PoolError::Granule { .. }) => prop_assert!(unit.bytes().as_u64() > 64 * cell),
                Err(PoolError::Exhausted { wanted, largest, left }) => {
                    prop_assert_eq!(wanted, bytes(whole * cell));
                    prop_assert_eq!(left, bytes(free.iter().filter(|free| **free).count() as u64 * cell));
                    prop_assert!(largest < wanted);
                    // No run of that length that starts aligned and lies in one group of 64.
                    let fits = |at: u64| {
                        let absolute = first + at;
                        (absolute * cell).is_multiple_of(step)
                            && absolute / 64 == (absolute + whole - 1) / 64
                            && at + whole <= cells
                            && free[at as usize..(at + whole) as usize].iter().all(|free| *free)
                    };
                    prop_assert!((0..cells).all(|at| !fits(at)));
                }
                Err(error) => prop_assert!(false, "{}", error),
            }
            let left = free.iter().filter(|free| **free).count() as u64 * cell;
            prop_assert_eq!(pool.left(), bytes(left));
        }
    }
}
