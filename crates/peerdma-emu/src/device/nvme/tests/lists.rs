//! Data pointers that are wrong, each with its status.

use super::*;

/// Reads `count` blocks by PRPs.
fn by_prps(driver: &mut Driver<'_>, count: u32, first: u64, second: u64) -> Result<u32, DriverError> {
    let request = Request::new(2).blocks(0, count);
    driver.perform(1, request.at(BusAddr::new(first), BusAddr::new(second)))
}

fn descriptor(at: u64, len: u32, kind: u8) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&at.to_le_bytes());
    bytes[8..12].copy_from_slice(&len.to_le_bytes());
    bytes[15] = kind;
    bytes
}

/// Moves `count` blocks by an SGL.
fn by_sgl(driver: &mut Driver<'_>, opcode: u8, count: u32, first: [u8; 16]) -> Result<u32, DriverError> {
    driver.perform(1, Request::new(opcode).blocks(0, count).listed(first))
}

const DATA_BLOCK: u8 = 0x00;
const BIT_BUCKET: u8 = 0x10;
const SEGMENT: u8 = 0x20;
const LAST_SEGMENT: u8 = 0x30;

#[test]
fn prps_that_point_where_they_may_not_are_refused() {
    let machine = Machine::new(BlockSize::Short);
    let mut driver = machine.driver();
    let driver = &mut driver;
    assert_eq!(status(by_prps(driver, 1, DATA + 2, 0)), Status::PRP_OFFSET_INVALID);
    assert_eq!(status(by_prps(driver, 16, DATA, DATA + 8)), Status::PRP_OFFSET_INVALID, "the second page");
    assert_eq!(status(by_prps(driver, 24, DATA, DATA + 4)), Status::PRP_OFFSET_INVALID, "a list between entries");
    machine.ram.write(Bytes::new(DATA), &(DATA + 0x1008).to_le_bytes()).unwrap();
    assert_eq!(status(by_prps(driver, 24, DATA, DATA)), Status::PRP_OFFSET_INVALID, "an entry of the list");
    assert_eq!(status(by_prps(driver, 24, DATA, RAM)), Status::DATA_TRANSFER_ERROR, "a list that is nowhere");
    assert_eq!(by_prps(driver, 1, DATA + 4, u64::MAX), Ok(0), "the second entry is not looked at for one page");
}

#[test]
fn a_list_may_begin_inside_a_page_and_goes_on_in_the_next() {
    let machine = Machine::new(BlockSize::Short);
    let mut driver = machine.driver();
    let data = noise(4 * 4096, 9);
    machine.medium.write(Bytes::ZERO, &data).unwrap();
    let list = DATA + 0x10_0000;
    // Two words are left in the first page of the list: an entry, and the way on.
    let words = [(list + 0xff0, DATA + 0x5000), (list + 0xff8, list + 0x1000)];
    let more = [(list + 0x1000, DATA + 0x3000), (list + 0x1008, DATA + 0x1000)];
    for (at, word) in words.into_iter().chain(more) {
        machine.ram.write(Bytes::new(at), &word.to_le_bytes()).unwrap();
    }
    by_prps(&mut driver, 32, DATA + 0x8000, list + 0xff0).unwrap();
    let read = [0x8000, 0x5000, 0x3000, 0x1000].map(|at| machine.ram(DATA + at, 4096)).concat();
    assert!(read == data);
    // The way on has to lead to a page.
    machine.ram.write(Bytes::new(list + 0xff8), &(list + 0x1008).to_le_bytes()).unwrap();
    assert_eq!(status(by_prps(&mut driver, 32, DATA, list + 0xff0)), Status::PRP_OFFSET_INVALID);
}

#[test]
fn a_prp_list_that_leads_to_itself_ends_with_the_data() {
    let machine = Machine::new(BlockSize::Short);
    let mut driver = machine.driver();
    let list = DATA + 0x10_0000;
    let itself: Vec<u8> = (0..512).flat_map(|_| list.to_le_bytes()).collect();
    machine.ram.write(Bytes::new(list), &itself).unwrap();
    // Writes, since a read would change the list on its way.
    let request = Request::new(1).blocks(0, 8192).at(BusAddr::new(DATA), BusAddr::new(list));
    assert_eq!(driver.perform(1, request), Ok(0));
}

#[test]
fn sgls_that_are_wrong_are_refused_each_with_its_status() {
    let machine = Machine::new(BlockSize::Short);
    let mut driver = machine.driver();
    let list = DATA + 0x10_0000;
    let mut read = |first: [u8; 16], segment: &[[u8; 16]]| {
        machine.ram.write(Bytes::new(list), &segment.concat()).unwrap();
        status(by_sgl(&mut driver, 2, 2, first))
    };
    let data = |len| descriptor(DATA, len, DATA_BLOCK);
    assert_eq!(read(data(1023), &[]), Status::SGL_LENGTH_INVALID);
    assert_eq!(read(data(1025), &[]), Status::SGL_LENGTH_INVALID);
    assert_eq!(read(descriptor(DATA, 1024, 0x01), &[]), Status::SGL_TYPE_INVALID, "an offset");
    assert_eq!(read(descriptor(DATA, 1024, 0x50), &[]), Status::SGL_TYPE_INVALID);
    for len in [0, 8, 17] {
        assert_eq!(read(descriptor(list, len, LAST_SEGMENT), &[data(1024)]), Status::INVALID_SGL_SEGMENT, "{len}");
    }
    let last = |count: u32| descriptor(list, count * 16, LAST_SEGMENT);
    assert_eq!(read(last(2), &[data(1024), data(1)]), Status::SGL_LENGTH_INVALID);
    assert_eq!(read(last(1), &[last(1)]), Status::INVALID_SGL_SEGMENT, "the last leads nowhere");
    let segment = |count: u32| descriptor(list, count * 16, SEGMENT);
    assert_eq!(read(segment(1), &[data(1024)]), Status::INVALID_SGL_SEGMENT, "one that is not the last leads on");
    assert_eq!(read(segment(2), &[last(1), data(1024)]), Status::INVALID_SGL_SEGMENT, "and does so at its end");
    assert_eq!(read(segment(1), &[segment(1)]), Status::INVALID_SGL_COUNT, "one that leads to itself");
    assert_eq!(read(descriptor(list, !15, LAST_SEGMENT), &[]), Status::INVALID_SGL_COUNT);
    assert_eq!(read(descriptor(RAM, 32, LAST_SEGMENT), &[]), Status::DATA_TRANSFER_ERROR);
    assert_eq!(read(descriptor(!15, 32, LAST_SEGMENT), &[]), Status::DATA_TRANSFER_ERROR, "past the last address");
    let reserved = Request::new(2).blocks(0, 2).listed(data(1024)).with(0, 2 | 3 << 14);
    assert_eq!(status(driver.perform(1, reserved)), Status::INVALID_FIELD);
}

#[test]
fn a_bit_bucket_takes_bytes_of_a_read_and_none_of_a_write() {
    let machine = Machine::new(BlockSize::Short);
    let mut driver = machine.driver();
    let data = noise(1024, 4);
    machine.medium.write(Bytes::ZERO, &data).unwrap();
    let list = DATA + 0x10_0000;
    let segment =
        [descriptor(DATA, 100, DATA_BLOCK), descriptor(7, 600, BIT_BUCKET), descriptor(DATA + 100, 324, DATA_BLOCK)];
    machine.ram.write(Bytes::new(list), &segment.concat()).unwrap();
    let first = descriptor(list, 48, LAST_SEGMENT);
    by_sgl(&mut driver, 2, 2, first).unwrap();
    assert_eq!(machine.ram(DATA, 425), [&data[..100], &data[700..], &[0]].concat());
    assert_eq!(status(by_sgl(&mut driver, 1, 2, first)), Status::SGL_LENGTH_INVALID, "424 bytes are no two blocks");
    assert_eq!(by_sgl(&mut driver, 2, 2, descriptor(0, 1024, BIT_BUCKET)), Ok(0));
}

#[test]
fn commands_that_ask_for_what_is_not_there_are_refused() {
    let machine = Machine::new(BlockSize::Short);
    let mut driver = machine.driver();
    let blocks = driver.blocks();
    let mut read = |request: Request| status(driver.perform(1, request.at(BusAddr::new(DATA), BusAddr::new(0))));
    assert_eq!(read(Request::new(2).blocks(blocks, 1)), Status::LBA_OUT_OF_RANGE);
    assert_eq!(read(Request::new(2).blocks(u64::MAX, 2)), Status::LBA_OUT_OF_RANGE);
    assert_eq!(read(Request::new(8).blocks(blocks - 1, 2)), Status::LBA_OUT_OF_RANGE);
    assert_eq!(read(Request::new(2).blocks(0, 8193)), Status::INVALID_FIELD, "more than 4 MiB");
    assert_eq!(read(Request::new(2).blocks(0, 1).of(2)), Status::INVALID_NAMESPACE);
    assert_eq!(read(Request::new(2).blocks(0, 1).of(u32::MAX)), Status::INVALID_NAMESPACE);
    assert_eq!(read(Request::new(9).blocks(0, 1)), Status::INVALID_OPCODE);
    assert_eq!(read(Request::new(2).blocks(0, 1).with(0, 2 | 1 << 8)), Status::INVALID_FIELD, "fused");
    let outside = [range(RAM, 512)];
    assert_eq!(status(driver.write(1, 0, &outside, Form::Prps)), Status::DATA_TRANSFER_ERROR);
    assert_eq!(driver.read(1, 0, &outside, Form::Prps), Ok(()), "nobody is told of writes that are lost");
    assert!(matches!(driver.read(1, 0, &[range(DATA, 511)], Form::Prps), Err(DriverError::NotBlocks { .. })));
    assert!(matches!(driver.read(1, 0, &[], Form::Sgl), Err(DriverError::NotBlocks { .. })));
}
