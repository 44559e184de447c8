//! How many completions answer a read.

use crate::addr::{BusAddr, Bytes};

/// The fewest completions that a read can be answered with: each carries at most the
/// completer's Max_Payload_Size, and all but the last end on a multiple of the Read
/// Completion Boundary (PCIe 6.0 §2.3.1.1), of 128 bytes outside root complexes.
pub fn fewest_completions(address: BusAddr, len: Bytes, max_payload: Bytes, boundary: Bytes) -> u64 {
    let boundary = boundary.as_u64().max(1);
    // Payload sizes are multiples of the boundary; what is left over cannot be used up.
    let whole = (max_payload.as_u64() / boundary).max(1).saturating_mul(boundary);
    let first = whole - (address.as_u64() % boundary);
    match len.as_u64() {
        0 => 0,
        len => 1 + len.saturating_sub(first).div_ceil(whole),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_is_cut_at_the_payload_size_and_on_completion_boundaries() {
        let fewest = |address, len, most| {
            fewest_completions(BusAddr::new(address), Bytes::new(len), Bytes::new(most), Bytes::new(128))
        };
        assert_eq!(fewest(0x1000, 4096, 256), 16);
        assert_eq!(fewest(0x1040, 4096, 256), 17, "an unaligned start costs one more");
        assert_eq!(fewest(0x1040, 64, 128), 1);
        assert_eq!((fewest(0x1040, 65, 128), fewest(0x1000, 0, 128)), (2, 0));
        assert_eq!(fewest(0, u64::MAX, u64::MAX), 2, "no overflow");
    }
}
