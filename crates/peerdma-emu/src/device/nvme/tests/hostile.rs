//! A host that means harm, or is broken.

use super::*;
use crate::device::nvme::registers as reg;
use proptest::prelude::*;

#[test]
fn doorbells_that_make_no_sense_are_told_as_events() {
    let machine = Machine::new(BlockSize::Short);
    let mut driver = machine.driver();
    let request = Request::new(0x0c);
    let asked: Vec<u16> = (0..4).map(|_| driver.submit(0, request).unwrap()).collect();
    assert_eq!(status(driver.perform(0, request)), Status::EVENT_LIMIT);
    machine.device.store(0, reg::doorbell(1, false), 16, 4);
    machine.settle();
    let told = driver.wait(0, asked[0]).unwrap();
    assert_eq!((told.status, told.result), (Status::SUCCESS, 1 << 16 | 1 << 8));
    // No other is told before the log page was read.
    machine.device.store(0, reg::doorbell(40, true), 1, 4);
    machine.settle();
    assert_eq!(driver.poll(0), Ok(None));
    driver.perform(0, Request::new(2).with(10, 1).at(BusAddr::new(DATA), BusAddr::new(0))).unwrap();
    assert_eq!(driver.wait(0, asked[1]).unwrap().result, 1 << 16);
    driver.flush(1).unwrap();
}

#[test]
fn a_head_past_what_was_completed_is_not_believed() {
    let machine = Machine::new(BlockSize::Short);
    let mut driver = machine.driver();
    let asked = driver.submit(0, Request::new(0x0c)).unwrap();
    machine.device.store(0, reg::doorbell(1, true), 3, 4);
    machine.settle();
    assert_eq!(driver.wait(0, asked).unwrap().result, 1 << 16 | 1 << 8);
    driver.flush(1).unwrap();
}

#[test]
fn a_doorbell_of_eight_bytes_is_two_and_others_are_none() {
    let machine = Machine::new(BlockSize::Short);
    let mut driver = machine.driver();
    machine.device.store(0, reg::doorbell(1, false), 0, 8);
    machine.device.store(0, reg::doorbell(1, false), 7, 2);
    machine.device.store(0, reg::doorbell(1, false), 7, 1);
    machine.settle();
    driver.flush(1).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever stands in the queues, every command is answered, and the drive comes to rest.
    #[test]
    fn any_commands_are_answered(
        seed: u32,
        commands in proptest::collection::vec((any::<bool>(), 0_u8..16, 0_u8..4, 0_u32..3, any::<[u16; 6]>()), 1..14),
    ) {
        let machine = Machine::with(BlockSize::Short, |drive| drive.with_cmb(2, Arc::new(Striped::new(Bytes::new(1 << 16)))));
        let mut driver = machine.driver();
        Driver::enable_cmb(&machine.device, BusAddr::new(DATA + 0x8000)).unwrap();
        machine.fill(DATA, 0x1_0000, seed.into());
        for (admin, opcode, pointer, namespace, words) in commands {
            // Events are held, and queues that go leave their commands without an answer.
            if admin && matches!(opcode, 0 | 4 | 0x0c) {
                continue;
            }
            let at = |word: u16| BusAddr::new(DATA + u64::from(word) * 4);
            let request = Request::new(opcode)
                .of(namespace)
                .at(at(words[0]), at(words[1]))
                .with(9, u32::from(words[1]) | u32::from(words[2]) << 16)
                .with(10, u32::from(words[3] & 0x1ff))
                .with(12, u32::from(words[4] & 0xff))
                .with(11, u32::from(words[5]) & if admin { u32::MAX } else { 0 })
                .with(0, u32::from(opcode) | u32::from(pointer) << 14);
            let queue = u16::from(!admin);
            let command = driver.submit(queue, request).unwrap();
            prop_assert!(driver.wait(queue, command).is_ok(), "{opcode:#x} was not answered");
        }
        machine.settle();
    }

    /// Whatever is written to the registers, the drive comes to rest and works after it is brought up again.
    #[test]
    fn any_registers_are_survived(
        writes in proptest::collection::vec((0_u64..0x48, any::<u64>(), 1_u8..=8, any::<bool>()), 1..60),
        seed: u32,
    ) {
        let machine = Machine::with(BlockSize::Short, |drive| drive.with_cmb(2, Arc::new(Striped::new(Bytes::new(1 << 16)))));
        drop(machine.driver());
        machine.fill(0x1_0000, 0x2_0000, seed.into());
        for (word, value, len, step) in writes {
            // The registers of control, and the first doorbells.
            let at = if word < 0x30 { word * 2 } else { 0x1000 + (word - 0x30) * 4 };
            let value = if word >= 0x30 { value & 0x3f } else { value };
            machine.device.store(0, Bytes::new(at), value, len);
            if step {
                machine.device.pause();
            }
        }
        machine.settle();
        machine.device.with(|drive, _| drive.reset());
        machine.driver().flush(1).unwrap();
    }
}
