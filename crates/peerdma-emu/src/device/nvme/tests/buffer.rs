//! The controller memory buffer.

use super::*;
use crate::device::nvme::registers as reg;

/// Where the buffer is on the bus; nothing else is there, so that a request for it would fail.
const BASE: u64 = 1 << 40;
const LEN: u64 = 1 << 18;

fn machine() -> (Machine, Arc<Striped>) {
    let buffer = Arc::new(Striped::new(Bytes::new(LEN)));
    let shown = buffer.clone();
    (Machine::with(BlockSize::Short, |drive| drive.with_cmb(2, shown)), buffer)
}

#[test]
fn the_buffer_is_shown_when_it_is_asked_for() {
    let (machine, _buffer) = machine();
    assert_eq!(machine.device.load(0, reg::CAP, 8) >> 57 & 1, 1);
    assert_eq!((machine.register(reg::CMBLOC), machine.register(reg::CMBSZ)), (0, 0));
    let shown = Driver::enable_cmb(&machine.device, BusAddr::new(BASE));
    assert_eq!(shown, Ok((2, Bytes::ZERO, Bytes::new(LEN))));
    let past_the_end = Driver::enable_cmb(&machine.device, BusAddr::new(!0xfff));
    assert_eq!(past_the_end, Err(DriverError::NoCmb));
    let without = Machine::new(BlockSize::Short);
    assert_eq!(Driver::enable_cmb(&without.device, BusAddr::new(BASE)), Err(DriverError::NoCmb));
}

#[test]
fn queues_lists_and_data_may_lie_in_the_drives_own_buffer() {
    let (machine, buffer) = machine();
    Driver::enable_cmb(&machine.device, BusAddr::new(BASE)).unwrap();
    let part = |at: u64, len: u64| {
        Shared::new(buffer.clone(), Bytes::new(at), Bytes::new(len), BusAddr::new(BASE + at)).unwrap()
    };
    let admin = QueueMemory { submission: part(0, 1024), completion: part(0x1000, 512) };
    let mut driver = Driver::bring_up(&machine.device, admin, part(0x8000, 0x8000)).unwrap();
    let memory = QueueMemory { submission: part(0x2000, 1024), completion: part(0x3000, 512) };
    driver.create_io_queue(memory, None).unwrap();
    let data = noise(0x1_4000, 5);
    buffer.write(Bytes::new(0x2_0200), &data).unwrap();
    driver.write(1, 9, &[range(BASE + 0x2_0200, 0x1_4000)], Form::Prps).unwrap();
    assert!(machine.medium(9 * 512, 0x1_4000) == data);
    driver.compare(1, 9, &[range(BASE + 0x2_0200, 0x1_4000)], Form::Sgl).unwrap();
    driver.read(1, 9, &[range(DATA, 0x1_0000), range(BASE + 0x1_0000, 0x4000)], Form::Prps).unwrap();
    let mut tail = vec![0; 0x4000];
    buffer.read(Bytes::new(0x1_0000), &mut tail).unwrap();
    assert!([machine.ram(DATA, 0x1_0000), tail].concat() == data);
}

#[test]
fn a_range_that_is_partly_in_the_buffer_is_refused() {
    let (machine, _buffer) = machine();
    let mut driver = machine.driver();
    Driver::enable_cmb(&machine.device, BusAddr::new(BASE)).unwrap();
    for (at, len) in [(BASE + LEN - 512, 1024), (BASE - 512, 1024), (BASE - 512, LEN + 1024)] {
        let result = driver.read(1, 0, &[range(at, len)], Form::Sgl);
        assert_eq!(status(result), Status::INVALID_CMB_USE, "{at:#x}");
    }
    driver.read(1, 0, &[range(BASE + LEN - 512, 512)], Form::Sgl).unwrap();
}

#[test]
fn a_buffer_that_is_not_used_is_found_on_the_bus_or_not_at_all() {
    let (machine, _buffer) = machine();
    let mut driver = machine.driver();
    machine.device.store(0, reg::CMBMSC, BASE | reg::CMB_SHOWN, 8);
    machine.settle();
    let result = driver.write(1, 0, &[range(BASE, 512)], Form::Prps);
    assert_eq!(status(result), Status::DATA_TRANSFER_ERROR);
}
