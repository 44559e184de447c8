//! The lists of ranges that the rows map: 1 MiB in pieces, none next to another.

use crate::draw::Draw;

/// Pages of 4 KiB in 1 MiB.
pub(super) const PAGES: u64 = 256;

/// Where memory begins, so that no target is the zero page.
const MEMORY: u64 = 0x1_0000_0000;

/// A page shift.
pub(super) const SHIFT: u32 = 12;

/// Ranges of these lengths, each in a place of its own, in an order that no prefetcher sees through.
///
/// Address and pages of each.
pub(super) fn scattered(lengths: &[u64]) -> Vec<(u64, u64)> {
    let longest = lengths.iter().copied().max().unwrap_or(1).next_power_of_two();
    // Twice the room, so that no two touch.
    let place = longest * 2;
    let mut ranges: Vec<_> =
        (0u64..).zip(lengths).map(|(nth, &pages)| (MEMORY + ((nth * place) << SHIFT), pages)).collect();
    Draw::new(3).shuffle(&mut ranges);
    ranges
}

/// 256 single pages.
pub(super) fn single_pages() -> Vec<(u64, u64)> {
    scattered(&[1; PAGES as usize])
}

/// 16 ranges of 64 KiB.
pub(super) fn uniform() -> Vec<(u64, u64)> {
    scattered(&[16; 16])
}

/// 14 ranges of 4 KiB to 512 KiB.
pub(super) fn mixed() -> Vec<(u64, u64)> {
    scattered(&[1, 1, 2, 4, 8, 16, 32, 128, 1, 2, 5, 8, 16, 32])
}

/// One range of 1 MiB.
pub(super) fn whole() -> Vec<(u64, u64)> {
    scattered(&[PAGES])
}
