use super::super::{Frames, Mirror, Striped};
use super::*;
use crate::wire::{Atomic, Operand};
use peerdma::addr::PhysAddr;
use peerdma::iopt::TableMemory;
use proptest::prelude::*;
use std::sync::Arc;
use std::thread;

const LEN: u64 = 3 * STRIPE + 1000;

fn all(memory: &dyn Memory) -> Vec<u8> {
    let mut bytes = vec![0; memory.len().as_u64() as usize];
    memory.read(Bytes::ZERO, &mut bytes).unwrap();
    bytes
}

#[test]
fn what_was_never_written_takes_no_memory_where_it_is_copied_to() {
    let (from, to) = (Striped::new(Bytes::new(1 << 30)), Striped::new(Bytes::new(1 << 30)));
    from.write(Bytes::new(STRIPE), &[1]).unwrap();
    to.write(Bytes::new(2 * STRIPE), &[7; 2]).unwrap();
    copy((&from, Bytes::ZERO), (&to, Bytes::ZERO), Bytes::new(1 << 30)).unwrap();
    assert_eq!(to.resident(), Bytes::new(STRIPE));
    assert_eq!(difference((&from, Bytes::ZERO), (&to, Bytes::ZERO), Bytes::new(4 * STRIPE)), Ok(None));
}

#[test]
fn a_copy_that_is_partly_outside_changes_nothing() {
    let (from, to) = (Striped::new(Bytes::new(100)), Striped::new(Bytes::new(1 << 20)));
    let frames = Frames::new(PhysAddr::new(0), 1).unwrap();
    from.write(Bytes::ZERO, &[1; 100]).unwrap();
    for source in [&from as &dyn Memory, &frames] {
        for (at, to_at, len) in [(1, 0, 4096), (0, (1 << 20) - 1, 2), (u64::MAX, 0, 2), (0, 0, u64::MAX)] {
            let done = copy((source, Bytes::new(at)), (&to, Bytes::new(to_at)), Bytes::new(len));
            assert!(done.is_err(), "{at} {to_at} {len}");
        }
    }
    assert_eq!(to.resident(), Bytes::ZERO);
}

/// Each thread copies a range onto the next one's, some backwards, so that locks are wanted in
/// every order. A copy that took source before target would stop here for good.
#[test]
fn copies_in_circles_go_on() {
    let memories: Vec<_> = (0..2).map(|_| Striped::new(Bytes::new(4 * STRIPE))).collect();
    for memory in &memories {
        memory.fill(Bytes::ZERO, Bytes::new(4 * STRIPE), 1).unwrap();
    }
    thread::scope(|threads| {
        for nth in 0..4_usize {
            let memories = &memories;
            threads.spawn(move || {
                for round in 0..400_u64 {
                    let from = (&memories[nth % 2] as &dyn Memory, Bytes::new(round * 4096 % (2 * STRIPE)));
                    let to = (&memories[(nth + nth / 2) % 2] as &dyn Memory, Bytes::new(round * 12288 % (3 * STRIPE)));
                    let (from, to) = if round % 2 == 0 { (from, to) } else { (to, from) };
                    copy(from, to, Bytes::new(STRIPE)).unwrap();
                }
            });
        }
    });
    assert!(memories.iter().all(|memory| all(memory).iter().all(|&byte| byte == 1)));
}

#[test]
fn other_kinds_of_memory_are_copied_and_filled_too() {
    let frames = Frames::new(PhysAddr::new(0), 64).unwrap();
    assert_eq!(frames.allocate(32), Some(PhysAddr::new(0)));
    let bytes: Vec<u8> = (0..100_000_u32).map(|byte| (byte % 251) as u8).collect();
    frames.write(Bytes::new(3), &bytes).unwrap();
    copy((&frames, Bytes::new(3)), (&frames, Bytes::new(20_000)), Bytes::new(100_000)).unwrap();
    let mut seen = Vec::new();
    visit(&frames, Bytes::new(20_000), Bytes::new(100_000), &mut |_, now| seen.extend_from_slice(now)).unwrap();
    assert_eq!(seen, bytes);
    copy((&frames, Bytes::new(20_000)), (&frames, Bytes::new(5)), Bytes::new(100_000)).unwrap();
    assert_eq!(all(&frames)[5..100_005], bytes);
    fill(&frames, Bytes::new(7), Bytes::new(70_000), 4).unwrap();
    assert_eq!(all(&frames)[7..70_007], [4; 70_000]);
    assert_eq!(all(&frames)[70_007..70_008], bytes[70_002..70_003]);
}

#[derive(Clone, Debug)]
enum Step {
    Write(u64, Vec<u8>),
    Fill(u64, u64, u8),
    /// Both ways between the memories, or within the first or the second.
    Copy(usize, u64, usize, u64, u64),
    Atomic(u64, u64),
}

fn offset() -> impl Strategy<Value = u64> {
    // Near the edges of stripes, where mistakes are.
    prop_oneof![0..LEN, (0..4_u64, 0..40_u64).prop_map(|(stripe, near)| (stripe * STRIPE + near).saturating_sub(20))]
}

fn step() -> impl Strategy<Value = Step> {
    let length = prop_oneof![0..64_u64, 0..LEN, Just(STRIPE), Just(2 * STRIPE)];
    prop_oneof![
        (offset(), prop::collection::vec(any::<u8>(), 0..300)).prop_map(|(at, bytes)| Step::Write(at, bytes)),
        (offset(), length.clone(), prop_oneof![Just(0), any::<u8>()])
            .prop_map(|(at, len, byte)| Step::Fill(at, len, byte)),
        (0..2_usize, offset(), 0..2_usize, offset(), length).prop_map(|(a, f, b, t, len)| Step::Copy(a, f, b, t, len)),
        (offset(), any::<u64>()).prop_map(|(at, value)| Step::Atomic(at & !7, value)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// One memory is striped, the other a mirror whose writes stay in its own pages, or passes through.
    #[test]
    fn two_memories_are_as_two_arrays(steps in prop::collection::vec(step(), 1..40), engaged in any::<bool>()) {
        let (first, behind) = (Striped::new(Bytes::new(LEN)), Arc::new(Striped::new(Bytes::new(LEN))));
        let second = Mirror::new(behind.clone());
        if engaged {
            second.engage();
        }
        let memories: [&dyn Memory; 2] = [&first, &second];
        let mut arrays = [vec![0_u8; LEN as usize], vec![0_u8; LEN as usize]];
        for step in steps {
            match step {
                Step::Write(at, bytes) => for (memory, array) in memories.iter().zip(&mut arrays) {
                    let done = memory.write(Bytes::new(at), &bytes);
                    let range = array.get_mut(at as usize..at as usize + bytes.len());
                    prop_assert_eq!(done.is_ok(), range.is_some());
                    if let Some(range) = range {
                        range.copy_from_slice(&bytes);
                    }
                },
                Step::Fill(at, len, byte) => {
                    let done = fill(memories[len as usize % 2], Bytes::new(at), Bytes::new(len), byte);
                    let range = arrays[len as usize % 2].get_mut(at as usize..(at + len) as usize);
                    prop_assert_eq!(done.is_ok(), range.is_some());
                    if let Some(range) = range {
                        range.fill(byte);
                    }
                }
                Step::Copy(a, from, b, to, len) => {
                    let done = copy((memories[a], Bytes::new(from)), (memories[b], Bytes::new(to)), Bytes::new(len));
                    let source = arrays[a].get(from as usize..(from + len) as usize).map(<[u8]>::to_vec);
                    let target = arrays[b].get_mut(to as usize..(to + len) as usize);
                    prop_assert_eq!(done.is_ok(), source.is_some() && target.is_some());
                    if let (Some(source), Some(target)) = (source, target) {
                        target.copy_from_slice(&source);
                    }
                }
                Step::Atomic(at, value) => for (memory, array) in memories.iter().zip(&mut arrays) {
                    let found = memory.atomic(Bytes::new(at), Atomic::FetchAdd(Operand::Double(value)));
                    let Some(range) = array.get_mut(at as usize..at as usize + 8) else {
                        prop_assert!(found.is_err());
                        continue;
                    };
                    let stood = u64::from_le_bytes(range.try_into().unwrap());
                    prop_assert_eq!(found, Ok(stood));
                    range.copy_from_slice(&stood.wrapping_add(value).to_le_bytes());
                },
            }
        }
        for (memory, array) in memories.iter().zip(&arrays) {
            prop_assert!(&all(*memory) == array);
            let mut seen = Vec::new();
            visit(*memory, Bytes::ZERO, Bytes::new(LEN), &mut |_, bytes| seen.extend_from_slice(bytes)).unwrap();
            prop_assert!(&seen == array);
        }
        prop_assert!(!engaged || behind.resident() == Bytes::ZERO);
        let apart = arrays[0].iter().zip(&arrays[1]).position(|(one, other)| one != other);
        let found = difference((memories[0], Bytes::ZERO), (memories[1], Bytes::ZERO), Bytes::new(LEN)).unwrap();
        prop_assert_eq!(found.map(|at| at.as_u64() as usize), apart);
    }
}
