//! Registrations that take longer than a step.

use super::*;
use crate::device::Device;

/// The domain that an adapter allocates first.
const FIRST: u64 = 1;
/// Memory in which nobody writes, as a list of pages that are all at zero.
const LIST: u64 = 0x80_0000;

/// All of a list in one step kept everybody waiting for 8 MiB.
#[test]
fn a_long_list_of_pages_is_read_a_piece_at_a_step_and_messages_pass_meanwhile() {
    let bench = Bench::new();
    let sides = bench.sides();
    let [mut a, b] = connected(&bench, &sides, Rights::ALL);
    // 2 GiB in pages of 4 KiB, whose list of 4 MiB is all zeros.
    let pages = 1_u64 << 19;
    let arguments = [FIRST | 15 << 32, 0, pages << 12, 12, LIST, pages];
    for (index, word) in arguments.into_iter().enumerate() {
        sides[0].store(0, Bytes::new(register::ARGUMENTS + 8 * index as u64), word, 8);
    }
    sides[0].store(0, register::COMMAND, command::number::REGISTER | 99 << 32, 8);
    let answered = || sides[0].load(0, register::STATUS, 8) >> 32 == 99;
    let data = bench.fill(a.base, 100, 3);
    let to = Operation::Write { to: b.at(0), key: b.key, immediate: None };
    a.post(1, a.source(0, 100), to);
    let (mut steps, mut arrived) = (0, None);
    while !answered() {
        assert!(sides[0].pause());
        steps += 1;
        if arrived.is_none() && bench.bytes(b.base, 100) == data {
            arrived = Some(steps);
        }
    }
    assert_eq!(steps, pages * 8 / (64 << 10));
    assert!(arrived.is_some_and(|at| at < steps / 2), "{arrived:?} of {steps}");
    assert_eq!(sides[0].load(0, register::STATUS, 8), 99 << 32, "registered");
}

#[test]
fn a_command_beside_a_registration_is_refused_and_a_reset_ends_it() {
    let bench = Bench::new();
    let sides = bench.sides();
    let _end = End::new(&bench, &sides[0], Rights::ALL);
    let begin = |sequence: u64, number: u64| {
        let arguments = [FIRST, 0, 1 << 31, 12, LIST, 1 << 19];
        for (index, word) in arguments.into_iter().enumerate() {
            sides[0].store(0, Bytes::new(register::ARGUMENTS + 8 * index as u64), word, 8);
        }
        sides[0].store(0, register::COMMAND, number | sequence << 32, 8);
        sides[0].pause();
        sides[0].load(0, register::STATUS, 8)
    };
    assert_ne!(begin(77, command::number::REGISTER) >> 32, 77, "it takes a while");
    let busy = u64::from(Refused::Busy.code());
    assert_eq!(begin(78, command::number::FREE_DOMAIN), busy | 78 << 32);
    bench.nics[0].with(|nic, _| nic.reset());
    while sides[0].pause() {}
    assert_eq!(sides[0].load(0, register::STATUS, 8), 0, "nothing answers it any more");
}
