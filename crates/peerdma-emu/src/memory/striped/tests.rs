use super::*;
use crate::wire::Operand;
use std::thread;
use std::time::{Duration, Instant};

fn read(memory: &Striped, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xaa; len];
    memory.read(Bytes::new(at), &mut bytes).unwrap();
    bytes
}

#[test]
fn what_was_never_written_is_zero_and_takes_no_memory() {
    let memory = Striped::new(Bytes::new(64 << 40));
    assert_eq!(read(&memory, (64 << 40) - 200_000, 200_000), vec![0; 200_000]);
    assert_eq!(memory.resident(), Bytes::ZERO);
}

#[test]
fn a_write_across_stripes_takes_the_stripes_that_it_touches() {
    let memory = Striped::new(Bytes::new(1 << 40));
    let bytes: Vec<u8> = (0..2 * STRIPE + 2).map(|byte| byte as u8).collect();
    memory.write(Bytes::new(5 * STRIPE - 1), &bytes).unwrap();
    assert_eq!(read(&memory, 5 * STRIPE - 1, bytes.len()), bytes);
    assert_eq!(read(&memory, 5 * STRIPE - 2, 2), [0, 0]);
    assert_eq!(memory.resident(), Bytes::new(4 * STRIPE));
}

#[test]
fn the_last_stripe_takes_no_more_than_there_is() {
    let memory = Striped::new(Bytes::new(STRIPE + 100));
    memory.write(Bytes::new(STRIPE + 99), &[1]).unwrap();
    assert_eq!(memory.resident(), Bytes::new(100));
    memory.discard(Bytes::new(STRIPE), Bytes::new(100)).unwrap();
    assert_eq!((memory.resident(), read(&memory, STRIPE + 99, 1)), (Bytes::ZERO, vec![0]));
}

#[test]
fn what_is_discarded_is_zero_and_whole_stripes_are_given_back() {
    let memory = Striped::new(Bytes::new(1 << 50));
    memory.fill(Bytes::ZERO, Bytes::new(3 * STRIPE), 9).unwrap();
    memory.discard(Bytes::new(10), Bytes::new((1 << 50) - 10)).unwrap();
    assert_eq!(memory.resident(), Bytes::new(STRIPE));
    assert_eq!(read(&memory, 0, 12), [9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 0, 0]);
}

#[test]
fn an_access_that_is_partly_outside_changes_nothing() {
    let memory = Striped::new(Bytes::new(4096));
    let refused = Err(Outside { at: Bytes::new(4095), len: Bytes::new(2), size: Bytes::new(4096) });
    assert_eq!(memory.write(Bytes::new(4095), &[1, 2]), refused);
    assert_eq!(memory.read(Bytes::new(4095), &mut [0; 2]), refused);
    assert_eq!(memory.fill(Bytes::new(4095), Bytes::new(2), 1), refused);
    assert!(memory.write(Bytes::new(u64::MAX), &[1]).is_err());
    assert!(memory.visit(Bytes::new(1), Bytes::new(u64::MAX), &mut |_, _| unreachable!()).is_err());
    assert_eq!((memory.write(Bytes::new(4096), &[]), memory.resident()), (Ok(()), Bytes::ZERO));
    assert!(Striped::new(Bytes::ZERO).is_empty() && Striped::new(Bytes::ZERO).read(Bytes::ZERO, &mut [0]).is_err());
}

#[test]
fn a_word_across_the_edge_of_a_stripe_or_of_the_memory_is_as_any_other_access() {
    let memory = Striped::new(Bytes::new(2 * STRIPE + 6));
    memory.fill(Bytes::ZERO, Bytes::new(2 * STRIPE + 6), 9).unwrap();
    memory.write(Bytes::new(STRIPE - 3), &[1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
    assert_eq!(read(&memory, STRIPE - 3, 8), [1, 2, 3, 4, 5, 6, 7, 8]);
    memory.write(Bytes::new(2 * STRIPE + 2), &[1, 2, 3, 4]).unwrap();
    assert_eq!(read(&memory, 2 * STRIPE + 2, 4), [1, 2, 3, 4]);
    assert!(memory.write(Bytes::new(2 * STRIPE), &[0; 8]).is_err());
    assert!(memory.write(Bytes::new(2 * STRIPE + 3), &[0; 4]).is_err());
    assert!(memory.read(Bytes::new(4 * STRIPE), &mut [0; 8]).is_err());
    assert_eq!(read(&memory, 2 * STRIPE, 6), [9, 9, 1, 2, 3, 4]);
}

#[test]
fn operands_have_to_lie_on_a_multiple_of_their_length() {
    let memory = Striped::new(Bytes::new(20));
    let add = |operand| Atomic::FetchAdd(operand);
    assert_eq!(memory.atomic(Bytes::new(16), add(Operand::Word(3))), Ok(0));
    assert_eq!(memory.atomic(Bytes::new(16), add(Operand::Word(3))), Ok(3));
    assert!(memory.atomic(Bytes::new(16), add(Operand::Double(1))).is_err());
    assert!(memory.atomic(Bytes::new(4), add(Operand::Double(1))).is_err());
    assert!(memory.atomic(Bytes::new(2), add(Operand::Word(1))).is_err());
}

#[test]
fn a_visitor_sees_every_byte_once_and_in_order() {
    let memory = Striped::new(Bytes::new(4 * STRIPE));
    memory.write(Bytes::new(2 * STRIPE), &[5; 3]).unwrap();
    let mut seen = Vec::new();
    let visit = |at: Bytes, bytes: &[u8]| {
        assert_eq!(at.as_u64(), STRIPE - 1 + seen.len() as u64);
        seen.extend_from_slice(bytes);
    };
    let mut visit = visit;
    memory.visit(Bytes::new(STRIPE - 1), Bytes::new(2 * STRIPE), &mut visit).unwrap();
    assert_eq!(seen, read(&memory, STRIPE - 1, 2 * STRIPE as usize));
}

#[test]
fn sums_of_many_threads_lose_nothing() {
    let memory = Striped::new(Bytes::new(8));
    thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                for _ in 0..1000 {
                    memory.atomic(Bytes::ZERO, Atomic::FetchAdd(Operand::Double(1))).unwrap();
                }
            });
        }
    });
    assert_eq!(read(&memory, 0, 8), 4000_u64.to_le_bytes());
}

/// A torn word would be neither all ones nor all zeros.
#[test]
fn an_aligned_word_is_never_seen_half_written() {
    let memory = Striped::new(Bytes::new(STRIPE));
    thread::scope(|threads| {
        threads.spawn(|| (0..2000).for_each(|nth| memory.write(Bytes::new(64), &[(nth & 1) as u8 * 0xff; 8]).unwrap()));
        threads.spawn(|| {
            for _ in 0..2000 {
                let word = read(&memory, 64, 8);
                assert!(word == [0; 8] || word == [0xff; 8], "{word:?}");
            }
        });
    });
}

#[test]
fn a_thread_that_ends_under_a_lock_stops_nobody() {
    let memory = Striped::new(Bytes::new(STRIPE));
    memory.write(Bytes::ZERO, &[1]).unwrap();
    let stopped = thread::scope(|threads| {
        threads
            .spawn(|| {
                let _guard = memory.stripes.find(0).unwrap().write().unwrap();
                std::panic::resume_unwind(Box::new("ends here"));
            })
            .join()
    });
    assert!(stopped.is_err() && memory.stripes.find(0).unwrap().is_poisoned());
    memory.write(Bytes::new(1), &[2]).unwrap();
    assert_eq!(read(&memory, 0, 2), [1, 2]);
}

/// Two copies that want the same two locks go on if both take the same one first. So the later
/// stripe is held here, and whichever way a copy goes, it must be seen to hold the earlier one.
#[test]
fn of_two_stripes_the_earlier_is_locked_first_whichever_is_the_source() {
    let memories: Vec<_> = (0..2).map(|_| Striped::new(Bytes::new(2 * STRIPE))).collect();
    for memory in &memories {
        memory.fill(Bytes::ZERO, Bytes::new(2 * STRIPE), 1).unwrap();
    }
    let [first, second] = &memories[..] else { unreachable!("two were made") };
    // The second memory's first stripe comes before its second, and after all of the first memory's.
    for (earlier, later) in [((first, STRIPE), (second, 0)), ((second, 0), (second, STRIPE))] {
        for (from, to) in [(earlier, later), (later, earlier)] {
            let held = exclusive(later.0.stripes.find(later.1).unwrap());
            thread::scope(|threads| {
                let copy = || from.0.copy_to(Bytes::new(from.1), to.0, Bytes::new(to.1), Bytes::new(STRIPE));
                let copy = threads.spawn(copy);
                let end = Instant::now() + Duration::from_secs(10);
                let mut waits = false;
                while !waits && Instant::now() < end {
                    waits = earlier.0.stripes.find(earlier.1).unwrap().try_write().is_err();
                    thread::yield_now();
                }
                drop(held);
                copy.join().unwrap().unwrap();
                assert!(waits, "from {:#x} to {:#x}", from.1, to.1);
            });
        }
    }
}
