//! From reset to queues, and back.

use super::*;
use crate::device::nvme::registers as reg;

#[test]
fn a_drive_comes_up_in_the_order_that_linux_brings_it_up() {
    let machine = Machine::new(BlockSize::Short);
    // nvme_pci_enable: the version and the capabilities are there before anything is written.
    assert_eq!(machine.register(reg::VS), 0x1_0400);
    let cap = machine.device.load(0, reg::CAP, 8);
    assert_eq!((cap & 0xffff, cap >> 32 & 15, cap >> 37 & 1, cap >> 48 & 15), (1023, 0, 1, 0));
    // nvme_disable_ctrl, nvme_pci_configure_admin_queue, nvme_enable_ctrl.
    machine.device.store(0, reg::CC, 0, 4);
    machine.settle();
    assert_eq!(machine.register(reg::CSTS), 0);
    machine.device.store(0, reg::AQA, 31 << 16 | 31, 4);
    machine.device.store(0, reg::ASQ, 0x1_0000, 8);
    machine.device.store(0, reg::ACQ, 0x1_8000, 8);
    machine.device.store(0, reg::CC, 4 << 20 | 6 << 16 | 1, 4);
    machine.settle();
    assert_eq!(machine.register(reg::CSTS), 1);
    let driver = machine.driver();
    assert_eq!(
        (driver.blocks(), driver.block(), driver.longest()),
        (MEDIUM / 512, Bytes::new(512), Bytes::new(4 << 20))
    );
}

#[test]
fn registers_that_are_the_drives_cannot_be_written() {
    let machine = Machine::new(BlockSize::Short);
    for at in [reg::CAP, reg::VS, reg::CSTS, reg::CMBLOC, reg::CMBSTS] {
        let before = machine.register(at);
        machine.device.store(0, at, u64::MAX, 4);
        machine.settle();
        assert_eq!(machine.register(at), before, "{at:?}");
    }
}

#[test]
fn admin_queues_that_are_none_make_it_fatal_until_it_is_disabled() {
    // A queue of one entry; a set of commands that there is not; pages that are too large; the last page.
    for (attributes, base, config) in [
        (0, 0x1_0000, 1),
        (31 << 16 | 31, 0x1_0000, 1 | 7 << 4),
        (31 << 16 | 31, 0x1_0000, 1 | 9 << 7),
        (0xfff_0fff, !0xfff, 1),
    ] {
        let machine = Machine::new(BlockSize::Short);
        machine.device.store(0, reg::AQA, attributes, 4);
        machine.device.store(0, reg::ASQ, base, 8);
        machine.device.store(0, reg::ACQ, base, 8);
        machine.device.store(0, reg::CC, config, 4);
        machine.settle();
        assert_eq!(machine.register(reg::CSTS), 2, "{attributes:#x} {config:#x}");
        machine.driver();
    }
}

#[test]
fn a_queue_that_cannot_be_read_makes_it_fatal() {
    let machine = Machine::new(BlockSize::Short);
    let nowhere = BusAddr::new(1 << 40);
    let submission = Shared::new(machine.ram.clone(), Bytes::new(0x1_0000), Bytes::new(4096), nowhere).unwrap();
    let memory = QueueMemory { submission, completion: machine.shared(0x1_8000, 4096) };
    let error = Driver::bring_up(&machine.device, memory, machine.shared(0x4_0000, 0x4000)).err();
    assert_eq!(error, Some(DriverError::Fatal));
    machine.driver().flush(1).unwrap();
}

#[test]
fn queues_are_refused_with_the_status_of_what_is_wrong() {
    let machine = Machine::new(BlockSize::Short);
    let mut driver = machine.driver();
    let memory = BusAddr::new(0x3_0000);
    let mut create = |opcode, number: u32, entries: u32, flags: u32, at| {
        let request = Request::new(opcode).with(10, number | (entries - 1) << 16).with(11, flags);
        driver
            .perform(0, request.at(at, BusAddr::new(0)))
            .map(|_| Status::SUCCESS)
            .unwrap_or_else(|error| status(Err::<(), _>(error)))
    };
    let completion = 5;
    for number in [0, 1, 65, 0xffff] {
        assert_eq!(create(completion, number, 2, 1, memory), Status::INVALID_QUEUE_ID, "{number}");
    }
    assert_eq!(create(completion, 2, 1, 1, memory), Status::INVALID_QUEUE_SIZE);
    assert_eq!(create(completion, 2, 1025, 1, memory), Status::INVALID_QUEUE_SIZE);
    assert_eq!(create(completion, 2, 2, 0, memory), Status::INVALID_FIELD, "not contiguous");
    assert_eq!(create(completion, 2, 2, 1, BusAddr::new(0x3_0010)), Status::PRP_OFFSET_INVALID);
    assert_eq!(create(completion, 2, 1024, 1, BusAddr::new(!0xfff)), Status::INVALID_FIELD, "past the last address");
    assert_eq!(create(completion, 2, 2, 3 | 65 << 16, memory), Status::INVALID_VECTOR);
    let submission = 1;
    assert_eq!(create(submission, 2, 2, 1 | 2 << 16, memory), Status::COMPLETION_QUEUE_INVALID);
    assert_eq!(create(submission, 2, 2, 1, memory), Status::INVALID_QUEUE_ID);
    let delete_completion = 4;
    assert_eq!(create(delete_completion, 1, 1, 0, memory), Status::INVALID_QUEUE_DELETION);
    assert_eq!(create(delete_completion, 7, 1, 0, memory), Status::INVALID_QUEUE_ID);
    let delete_submission = 0;
    assert_eq!(create(delete_submission, 0, 1, 0, memory), Status::INVALID_QUEUE_ID);
    driver.delete_io_queue(1).unwrap();
    assert_eq!(driver.flush(1), Err(DriverError::NoSuchQueue { queue: 1 }));
    assert_eq!(driver.create_io_queue(machine.queues(0x2_0000, 16), None), Ok(1));
    driver.flush(1).unwrap();
}

#[test]
fn there_are_as_many_queues_as_it_says_and_no_more() {
    let machine = Machine::with(BlockSize::Short, |drive| drive.with_queues(2));
    let mut driver = machine.driver();
    driver.create_io_queue(machine.queues(0x3_0000, 16), None).unwrap();
    let more = driver.create_io_queue(machine.queues(0x3_4000, 16), None);
    assert_eq!(more, Err(DriverError::NoMoreQueues { most: 2 }));
    driver.flush(2).unwrap();
}

#[test]
fn features_are_kept_until_it_is_disabled() {
    let machine = Machine::new(BlockSize::Short);
    let mut driver = machine.driver();
    let feature = |opcode, feature: u32, value| Request::new(opcode).with(10, feature).with(11, value);
    assert_eq!(driver.perform(0, feature(9, 0x0b, 0x1f)), Ok(0));
    assert_eq!(driver.perform(0, feature(10, 0x0b, 0)), Ok(0x1f));
    assert_eq!(driver.perform(0, feature(10, 0x0b | 3 << 8, 0)), Ok(4));
    assert_eq!(driver.perform(0, feature(10, 7, 0)), Ok(63 << 16 | 63));
    assert_eq!(status(driver.perform(0, feature(9, 7, 1 << 16 | 1))), Status::SEQUENCE_ERROR, "queues are there");
    assert_eq!(status(driver.perform(0, feature(9, 0x0b | 1 << 31, 1))), Status::NOT_SAVEABLE);
    assert_eq!(status(driver.perform(0, feature(9, 0x06, 1))), Status::INVALID_FIELD, "there is no write cache");
    let mut driver = machine.driver();
    assert_eq!(driver.perform(0, feature(10, 0x0b, 0)), Ok(0));
}

#[test]
fn identify_and_logs_answer_for_what_is_there() {
    let machine = Machine::with(BlockSize::Long, |drive| drive.with_identity("SERIAL7", 0x1b36));
    let mut driver = machine.driver();
    assert_eq!((driver.block(), driver.blocks()), (Bytes::new(4096), MEDIUM / 4096));
    let at = BusAddr::new(DATA);
    let mut identify = |what, namespace| {
        let request = Request::new(6).of(namespace).with(10, what).at(at, BusAddr::new(0));
        driver.perform(0, request).map(|_| machine.ram(DATA, 4096))
    };
    let controller = identify(1, 0).unwrap();
    assert_eq!((&controller[..2], &controller[4..13]), (&[0x36, 0x1b][..], &b"SERIAL7  "[..]));
    assert_eq!(&identify(2, 0).unwrap()[..8], [1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(identify(2, 1).unwrap(), [0; 4096]);
    assert_eq!(identify(3, 1).unwrap()[..2], [1, 8]);
    assert_eq!(status(identify(0, 2)), Status::INVALID_NAMESPACE);
    assert_eq!(status(identify(0x77, 1)), Status::INVALID_FIELD);
    let mut log = |page: u32, dwords: u32, offset: u32| {
        let request = Request::new(2).with(10, page | (dwords - 1) << 16).with(12, offset);
        driver.perform(0, request.at(at, BusAddr::new(DATA + 4096)))
    };
    assert_eq!((log(2, 128, 0), log(1, 16, 0), log(3, 1, 8)), (Ok(0), Ok(0), Ok(0)));
    assert_eq!(machine.ram(DATA, 4), b"1   ");
    assert_eq!(status(log(0x80, 1, 0)), Status::INVALID_LOG_PAGE);
    assert_eq!(status(log(2, 1, 1024)), Status::INVALID_FIELD);
    assert_eq!(status(driver.perform(0, Request::new(0xc5))), Status::INVALID_OPCODE);
    assert_eq!(driver.perform(0, Request::new(8)), Ok(1), "there is never anything to abort");
}

#[test]
fn a_shutdown_is_said_to_be_complete_and_ends_all_work() {
    let machine = Machine::new(BlockSize::Short);
    let mut driver = machine.driver();
    driver.shut_down().unwrap();
    assert_eq!(driver.flush(1), Err(DriverError::Stuck));
    machine.driver().flush(1).unwrap();
}

#[test]
fn a_reset_forgets_all_and_the_drive_comes_up_again() {
    let machine = Machine::new(BlockSize::Short);
    let mut driver = machine.driver();
    driver.submit(1, Request::new(0).of(1)).unwrap();
    machine.device.with(|drive, _| drive.reset());
    machine.settle();
    assert_eq!((machine.register(reg::CC), machine.register(reg::CSTS), machine.register(reg::VS)), (0, 0, 0x1_0400));
    machine.driver().flush(1).unwrap();
}
