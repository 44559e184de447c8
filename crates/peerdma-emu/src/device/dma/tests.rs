use super::*;
use crate::device::plain::Plain;
use crate::device::{Bus, FlatDevice};
use crate::memory::{Memory, Striped};
use crate::wire::{Failure, Operand};
use peerdma::addr::BusAddr;
use proptest::prelude::*;

const RAM: u64 = 4 << 20;

fn machine() -> (FlatDevice<DmaEngine>, Arc<Striped>) {
    let ram = Arc::new(Striped::new(Bytes::new(RAM)));
    (FlatDevice::new(DmaEngine::new(), ram.clone()), ram)
}

fn at(raw: u64) -> BusAddr {
    BusAddr::new(raw)
}

#[test]
fn a_copy_of_many_pieces_moves_every_byte_and_interrupts_once() {
    let (device, ram) = machine();
    let data: Vec<u8> = (0..(5 << 18) + 3_u32).map(|n| ((n * 7) >> 3) as u8).collect();
    ram.write(Bytes::new(1), &data).unwrap();
    let options = Options { interrupt: Some(5), ..Options::default() };
    let driver = Driver::new(&device).with(options);
    driver.copy(at(1), at(2 << 20), Bytes::new(data.len() as u64)).unwrap();
    let mut copied = vec![0; data.len()];
    ram.read(Bytes::new(2 << 20), &mut copied).unwrap();
    assert!(copied == data);
    device.with(|_, flat| assert_eq!(flat.interrupts(), [5]));
}

#[test]
fn each_step_moves_one_piece_so_that_others_get_a_turn() {
    let (device, _ram) = machine();
    Driver::new(&device).start_copy(at(0), at(2 << 20), Bytes::new(2 << 20));
    device.with(|engine, flat| {
        assert_eq!(engine.step(flat), Progress::Working);
        assert_eq!(engine.registers.get(reg::MOVED), 1 << 20);
        assert_eq!(engine.registers.get(reg::STATUS), reg::BUSY);
    });
}

#[test]
fn a_read_that_fails_stops_the_copy_with_its_reason() {
    let (device, _ram) = machine();
    let driver = Driver::new(&device);
    let error = driver.copy(at(RAM - (1 << 20)), at(0), Bytes::new(2 << 20)).unwrap_err();
    let reason = Reason::Request(Failure::UnsupportedRequest);
    assert_eq!(error, DriverError::Failed { reason, moved: Bytes::new(1 << 20) });
    driver.copy(at(0), at(64), Bytes::new(64)).unwrap();
}

#[test]
fn a_translation_that_is_refused_stops_the_job() {
    let (device, _ram) = machine();
    let driver = Driver::new(&device).with(Options { addresses: Addresses::TranslateFirst, ..Options::default() });
    driver.copy(at(0), at(0x1000), Bytes::new(0x1000)).unwrap();
    let error = driver.copy(at(RAM), at(0), Bytes::new(8)).unwrap_err();
    assert_eq!(error, DriverError::Failed { reason: Reason::NoTranslation, moved: Bytes::ZERO });
}

#[test]
fn a_job_of_no_bytes_is_done_and_one_past_the_last_address_is_not_sent() {
    let (device, _ram) = machine();
    let driver = Driver::new(&device);
    driver.copy(at(u64::MAX), at(u64::MAX), Bytes::ZERO).unwrap();
    driver.fill(at(u64::MAX), Bytes::ZERO, 1).unwrap();
    let error = driver.fill(at(u64::MAX), Bytes::new(2), 1).unwrap_err();
    let reason = Reason::Request(Failure::NotSent);
    assert_eq!(error, DriverError::Failed { reason, moved: Bytes::ZERO });
    assert!(driver.copy(at(0), at(1), Bytes::new(u64::MAX)).is_err());
}

#[test]
fn the_bell_is_rung_after_the_payload_with_the_width_of_its_value() {
    let (device, ram) = machine();
    ram.write(Bytes::ZERO, &[7; 32]).unwrap();
    ram.write(Bytes::new(0x100), &[0xff; 8]).unwrap();
    for read_back in [false, true] {
        let driver = Driver::new(&device).with(Options { read_back, ..Options::default() });
        driver.copy_then_ring(at(0), at(64), Bytes::new(32), at(0x100), Operand::Word(3)).unwrap();
    }
    let mut bytes = [0; 8];
    ram.read(Bytes::new(0x100), &mut bytes).unwrap();
    assert_eq!(bytes, [3, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
}

#[test]
fn atomics_tell_what_stood_there() {
    let (device, ram) = machine();
    let driver = Driver::new(&device);
    ram.write(Bytes::new(8), &10_u64.to_le_bytes()).unwrap();
    assert_eq!(driver.fetch_add(at(8), Operand::Double(5)).unwrap(), 10);
    assert_eq!(driver.compare_swap(at(8), 15, Operand::Double(20)).unwrap(), 15);
    assert_eq!(driver.compare_swap(at(8), 15, Operand::Double(21)).unwrap(), 20);
    assert_eq!(driver.swap(at(8), Operand::Word(1)).unwrap(), 20);
    assert!(driver.fetch_add(at(9), Operand::Double(5)).is_err(), "an operand that is not aligned is refused");
}

#[test]
fn a_command_that_is_none_fails_and_the_next_one_works() {
    let (device, _ram) = machine();
    crate::device::Mmio::store(&device, 0, reg::COMMAND, 99, 8);
    let driver = Driver::new(&device);
    assert_eq!(driver.wait(), Err(DriverError::Failed { reason: Reason::UnknownCommand, moved: Bytes::ZERO }));
    driver.copy(at(0), at(64), Bytes::new(8)).unwrap();
}

#[test]
fn a_reset_forgets_the_job() {
    let (device, _ram) = machine();
    let driver = Driver::new(&device);
    driver.start_copy(at(0), at(2 << 20), Bytes::new(2 << 20));
    device.with(|engine, flat| {
        assert_eq!(engine.step(flat), Progress::Working);
        engine.reset();
        assert_eq!(engine.step(flat), Progress::Idle);
        assert!(flat.next_write().is_none());
    });
    assert_eq!(driver.wait(), Err(DriverError::Stuck));
}

#[test]
fn an_engine_whose_bar_is_off_is_gone_and_not_waited_for() {
    let plain = FlatDevice::new(Plain::new(), Arc::new(Striped::new(Bytes::new(64))));
    assert_eq!(Driver::new(&plain).copy(at(0), at(1), Bytes::new(1)), Err(DriverError::Stuck), "reads give zeros");
    struct Off;
    impl crate::device::Mmio for Off {
        fn load(&self, _bar: u8, _offset: Bytes, _len: u8) -> u64 {
            u64::MAX
        }
        fn store(&self, _bar: u8, _offset: Bytes, _value: u64, _len: u8) {}
        fn pause(&self) -> bool {
            false
        }
    }
    // All ones before and after are no end of a job.
    let gone = Err(DriverError::Gone { status: u64::MAX });
    assert_eq!(Driver::new(&Off).copy(at(0), at(1), Bytes::new(1)), gone);
    assert_eq!(Driver::new(&Off).wait(), gone);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever stands in the registers, the engine comes to an end.
    #[test]
    fn any_registers_end_in_a_status(words in proptest::collection::vec(any::<u64>(), 7), command in 0_u64..9, small: bool) {
        let (device, _ram) = machine();
        for (index, word) in words.iter().enumerate() {
            let word = if small && index < 3 { word % RAM } else { *word };
            crate::device::Mmio::store(&device, 0, Bytes::new(index as u64 * 8), word, 8);
        }
        crate::device::Mmio::store(&device, 0, reg::COMMAND, command, 8);
        // A fill of all addresses is not waited for.
        let ended = (0..256).any(|_| !crate::device::Mmio::pause(&device));
        let status = crate::device::Mmio::load(&device, 0, reg::STATUS, 8) & 0xff;
        let over = status == reg::DONE || status == reg::FAILED;
        prop_assert!(if ended { over } else { status == reg::BUSY }, "status {}", status);
    }

    #[test]
    fn a_fill_repeats_its_pattern_from_its_start(start in 0_u64..64, len in 0_u64..200_000, value: u64) {
        let (device, ram) = machine();
        Driver::new(&device).fill(at(start), Bytes::new(len), value).unwrap();
        let mut bytes = vec![0; len as usize + 1];
        ram.read(Bytes::new(start), &mut bytes).unwrap();
        let pattern = value.to_le_bytes();
        prop_assert!(bytes[..len as usize].iter().enumerate().all(|(index, byte)| *byte == pattern[index % 8]));
        prop_assert_eq!(bytes[len as usize], 0);
    }
}
