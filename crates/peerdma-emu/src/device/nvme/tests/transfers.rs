//! Data arrives, whichever way it is named.

use super::*;
use proptest::prelude::*;

#[test]
fn what_is_written_is_read_and_no_byte_beside_it_changes() {
    for (block, form) in [(BlockSize::Short, Form::Prps), (BlockSize::Long, Form::Sgl)] {
        let machine = Machine::new(block);
        let mut driver = machine.driver();
        let len = 3 * block.bytes().as_u64();
        let data = machine.fill(DATA, len, 1);
        driver.write(1, 5, &[range(DATA, len)], form).unwrap();
        let at = 5 * block.bytes().as_u64();
        assert_eq!(machine.medium(at, len), data);
        assert_eq!((machine.medium(at - 1, 1), machine.medium(at + len, 1)), (vec![0], vec![0]));
        let into = DATA + 0x1_0000;
        driver.read(1, 5, &[range(into, len)], form).unwrap();
        assert_eq!(machine.ram(into - 8, len + 16), [&[0; 8], &data[..], &[0; 8]].concat());
    }
}

#[test]
fn a_transfer_longer_than_a_command_is_several_with_lists_of_several_pages() {
    let machine = Machine::new(BlockSize::Short);
    let mut driver = machine.driver();
    // 4 MiB from inside a page are 1025 pages, whose list has three.
    let (at, len) = (DATA + 0x204, (8 << 20) + 512);
    let data = machine.fill(at, len, 2);
    driver.write(1, 3, &[range(at, len)], Form::Prps).unwrap();
    assert!(machine.medium(3 * 512, len) == data);
    // Pages in reverse, so that nothing continues what is before it.
    let pages: Vec<_> = (0..1024).rev().map(|page| range(DATA + page * 4096, 4096)).collect();
    driver.read(1, 3, &pages, Form::Prps).unwrap();
    let read: Vec<u8> = (0..1024).rev().flat_map(|page| machine.ram(DATA + page * 4096, 4096)).collect();
    assert!(read == data[..4 << 20]);
}

#[test]
fn comparisons_zeroes_and_flushes_do_what_they_say() {
    let machine = Machine::new(BlockSize::Short);
    let mut driver = machine.driver();
    machine.fill(DATA, 0x3_0000, 3);
    let data = [range(DATA, 0x3_0000)];
    driver.write(1, 0, &data, Form::Prps).unwrap();
    driver.compare(1, 0, &data, Form::Prps).unwrap();
    machine.ram.write(Bytes::new(DATA + 0x2_ffff), &[machine.ram(DATA + 0x2_ffff, 1)[0] ^ 1]).unwrap();
    assert_eq!(status(driver.compare(1, 0, &data, Form::Sgl)), Status::COMPARE_FAILURE);
    driver.write_zeroes(1, 1, 300).unwrap();
    assert_eq!(machine.medium(512, 300 * 512), vec![0; 300 * 512]);
    assert_eq!(machine.medium(301 * 512, 16), machine.ram(DATA + 301 * 512, 16));
    driver.flush(1).unwrap();
    driver.perform(1, Request::new(0).of(u32::MAX)).unwrap();
    // More than one step does.
    machine.medium.write(Bytes::new((8 << 20) - 1), &[1, 1, 1]).unwrap();
    driver.write_zeroes(1, 2, (8 << 20) / 512 - 2).unwrap();
    assert_eq!(machine.medium((8 << 20) - 1, 3), [0, 1, 1]);
}

#[test]
fn each_completion_interrupts_with_the_vector_of_its_queue() {
    let machine = Machine::new(BlockSize::Short);
    let mut driver = machine.driver();
    let before = machine.device.with(|_, flat| flat.interrupts().len());
    driver.flush(1).unwrap();
    driver.perform(0, Request::new(8)).unwrap();
    machine.device.with(|_, flat| assert_eq!(flat.interrupts()[before..], [1, 0]));
}

#[test]
fn phases_turn_with_every_round_of_a_queue() {
    let machine = Machine::new(BlockSize::Short);
    let mut driver = machine.driver();
    for round in 0..200 {
        driver.write_zeroes(1, round % 7, 1).unwrap();
    }
    // Several on the way at once, more than a round of them.
    for _ in 0..10 {
        let commands: Vec<u16> = (0..15).map(|_| driver.submit(1, Request::new(0).of(1)).unwrap()).collect();
        assert_eq!(driver.submit(1, Request::new(0)), Err(DriverError::QueueFull { queue: 1 }));
        for command in commands.into_iter().rev() {
            assert!(driver.wait(1, command).unwrap().status.is_success());
        }
        assert_eq!(driver.poll(1), Ok(None));
    }
}

#[test]
fn queues_are_served_by_turns() {
    let machine = Machine::new(BlockSize::Short);
    let mut driver = machine.driver();
    let second = driver.create_io_queue(machine.queues(0x3_0000, 16), Some(2)).unwrap();
    for _ in 0..3 {
        driver.submit(1, Request::new(0).of(1)).unwrap();
        driver.submit(second, Request::new(0).of(1)).unwrap();
    }
    let before = machine.device.with(|_, flat| flat.interrupts().len());
    machine.settle();
    machine.device.with(|_, flat| assert_eq!(flat.interrupts()[before..], [1, 2, 1, 2, 1, 2]));
}

#[test]
fn a_drive_waits_for_room_in_a_full_completion_queue() {
    let machine = Machine::new(BlockSize::Short);
    let mut driver = machine.driver();
    // Two completions fit into a queue of three.
    let memory =
        QueueMemory { submission: machine.shared(0x3_0000, 8 * 64), completion: machine.shared(0x3_8000, 8 * 16) };
    let create = |opcode, entries: u32, flags, at| {
        Request::new(opcode).with(10, 2 | (entries - 1) << 16).with(11, flags).at(BusAddr::new(at), BusAddr::new(0))
    };
    driver.perform(0, create(5, 3, 1, 0x3_8000)).unwrap();
    driver.perform(0, create(1, 8, 1 | 2 << 16, 0x3_0000)).unwrap();
    for index in 0..5_u64 {
        let mut command = [0; 64];
        (command[2], command[4]) = (index as u8, 1);
        memory.submission.write(Bytes::new(index * 64), &command).unwrap();
    }
    machine.device.store(0, registers::doorbell(2, false), 5, 4);
    machine.settle();
    let commands = || (0..3).map(|index| machine.ram(0x3_8000 + index * 16 + 12, 3)).collect::<Vec<_>>();
    assert_eq!(commands(), [[0, 0, 1], [1, 0, 1], [0, 0, 0]]);
    machine.device.store(0, registers::doorbell(2, true), 1, 4);
    machine.settle();
    assert_eq!(commands(), [[0, 0, 1], [1, 0, 1], [2, 0, 1]]);
    machine.device.store(0, registers::doorbell(2, true), 0, 4);
    machine.settle();
    assert_eq!(commands(), [[3, 0, 0], [4, 0, 0], [2, 0, 1]]);
}

/// Ranges that PRPs can name: the first ends with a page, those between are whole pages.
fn prp_ranges() -> impl Strategy<Value = Vec<(u64, u64)>> {
    let pages = proptest::sample::subsequence((0..64_u64).collect::<Vec<_>>(), 2..40).prop_shuffle();
    (pages, 0_u64..8, 1_u64..=8).prop_map(|(pages, skip, last)| {
        let count = pages.len();
        let cut = |(index, page): (usize, u64)| {
            let start = if index == 0 { skip * 512 } else { 0 };
            let end = if index + 1 == count { last * 512 } else { 4096 };
            (DATA + page * 4096 + start, end - start)
        };
        pages.into_iter().enumerate().map(cut).collect()
    })
}

/// Ranges of any length that are whole blocks together.
fn sgl_ranges() -> impl Strategy<Value = Vec<(u64, u64)>> {
    proptest::collection::vec((0_u64..4096, 1_u64..3000), 1..40).prop_map(|ranges| {
        let total: u64 = ranges.iter().map(|(_, len)| len).sum();
        let rest = total.next_multiple_of(512) - total;
        // Each in 8 KiB of its own.
        let mut placed: Vec<_> =
            ranges.iter().enumerate().map(|(index, (skip, len))| (DATA + index as u64 * 8192 + skip, *len)).collect();
        if let Some((_, len)) = placed.last_mut() {
            *len += rest;
        }
        placed
    })
}

fn moves(ranges: &[(u64, u64)], form: Form, first: u64, seed: u64) {
    let machine = Machine::new(BlockSize::Short);
    let mut driver = machine.driver();
    let data: Vec<u8> = ranges.iter().flat_map(|(at, len)| machine.fill(*at, *len, seed ^ at)).collect();
    let addresses: Vec<_> = ranges.iter().map(|(at, len)| range(*at, *len)).collect();
    driver.write(1, first, &addresses, form).unwrap();
    assert!(machine.medium(first * 512, data.len() as u64) == data);
    let before = machine.ram(DATA, 1 << 19);
    for (at, len) in ranges {
        machine.fill(*at, *len, !seed ^ at);
    }
    driver.read(1, first, &addresses, form).unwrap();
    assert!(machine.ram(DATA, 1 << 19) == before, "all is as it was, between the ranges too");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn data_named_by_any_prps_arrives(ranges in prp_ranges(), first in 0_u64..1000, seed: u32) {
        moves(&ranges, Form::Prps, first, seed.into());
    }

    #[test]
    fn data_named_by_any_sgl_arrives(ranges in sgl_ranges(), first in 0_u64..1000, seed: u32) {
        moves(&ranges, Form::Sgl, first, seed.into());
    }
}
