//! How an NVMe controller reads a command's lists, after the NVM Express Base Specification
//! 2.0, §4.1. Nothing of the crate's but addresses.

use std::collections::BTreeMap;

/// Words of memory as the controller reads them, by address.
pub(crate) type Memory = BTreeMap<u64, u64>;

/// The ranges of a PRP command (§4.1.1).
pub(crate) fn read_prps(prp1: u64, prp2: u64, len: u64, page: u64, memory: &Memory) -> Vec<(u64, u64)> {
    assert_eq!(prp1 % 4, 0, "PRP entry 1 is dword aligned");
    let first = len.min(page - prp1 % page);
    let mut ranges = vec![(prp1, first)];
    let mut left = len - first;
    if left == 0 {
        return ranges;
    }
    if left <= page {
        assert_eq!(prp2 % page, 0, "a second page begins at its start");
        ranges.push((prp2, left));
        return ranges;
    }
    assert_eq!(prp2 % 8, 0, "a list is qword aligned");
    let mut at = prp2;
    while left > 0 {
        if at % page == page - 8 && left > page {
            at = memory[&at];
            assert_eq!(at % page, 0, "a list goes on at the start of a page");
            continue;
        }
        let entry = memory[&at];
        assert_eq!(entry % page, 0, "entries of a list have no offset");
        ranges.push((entry, left.min(page)));
        left -= left.min(page);
        at += 8;
    }
    ranges
}

/// The ranges of an SGL command (§4.1.2).
pub(crate) fn read_sgl(first: [u8; 16], memory: &Memory) -> Vec<(u64, u64)> {
    let mut ranges = Vec::new();
    let mut descriptor = first;
    loop {
        let (address, len) = fields(descriptor);
        let segments_follow = match descriptor[15] {
            0x00 => {
                ranges.push((address, len));
                return ranges;
            }
            0x20 => true,
            0x30 => false,
            other => panic!("descriptor of type {other:#x}"),
        };
        assert!(len > 0 && len % 16 == 0 && address % 8 == 0, "a segment of {len} bytes at {address:#x}");
        let descriptors: Vec<[u8; 16]> =
            (0..len / 16).map(|index| descriptor_at(address + 16 * index, memory)).collect();
        let (blocks, next) = match segments_follow {
            true => descriptors.split_at(descriptors.len() - 1),
            false => (&descriptors[..], &[][..]),
        };
        for block in blocks {
            assert_eq!(block[15], 0, "only the last descriptor of a segment leads on");
            ranges.push(fields(*block));
        }
        match next.first() {
            None => return ranges,
            Some(next) => descriptor = *next,
        }
        assert_ne!(descriptor[15], 0, "the last descriptor of this segment leads on");
    }
}

fn fields(descriptor: [u8; 16]) -> (u64, u64) {
    assert_eq!(descriptor[12..15], [0; 3], "reserved");
    let address = u64::from_le_bytes(descriptor[..8].try_into().unwrap());
    let len = u32::from_le_bytes(descriptor[8..12].try_into().unwrap());
    (address, len.into())
}

fn descriptor_at(address: u64, memory: &Memory) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&memory[&address].to_le_bytes());
    bytes[8..].copy_from_slice(&memory[&(address + 8)].to_le_bytes());
    bytes
}
