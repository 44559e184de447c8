//! How a range is written down in words of 64 bits.
//!
//! The low 24 bits of a word count pages and the rest is the number of the first one. A
//! count of zero cannot be, so it marks an escape: the bytes that the range leaves out of
//! its first and last page and the twelve bits of the page number that did not fit, all for
//! the word after it. An escape that says nothing is not needed either, so a word of zero
//! announces offset and length in full.

use alloc::vec::Vec;

/// Ranges are counted in pages of 4 KiB, whatever the pages of CPU and IOMMU are.
const PAGE_SHIFT: u32 = 12;
/// Bytes in such a page.
const PAGE: u64 = 1 << PAGE_SHIFT;
/// Where the page number begins in a word.
const NUMBER_SHIFT: u32 = 24;
/// Mask of the page count; also the largest one.
const COUNT: u64 = (1 << NUMBER_SHIFT) - 1;
/// Bits of a page number that a word holds.
const NUMBER_BITS: u32 = 40;
/// Where an escape holds the bytes left out of the first page.
const HEAD_SHIFT: u32 = 24;
/// Where an escape holds the bytes left out of the last page.
const CUT_SHIFT: u32 = 36;
/// Where an escape holds the upper bits of the page number.
const HIGH_SHIFT: u32 = 48;
/// Words that a range takes at most.
pub(super) const MOST_WORDS: usize = 3;
/// The word before offset and length in full.
const IN_FULL: u64 = 0;

/// Bytes of a range's first and last page that are not its own, where the group's header
/// holds them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Trim {
    /// Left out of the first page.
    pub(super) head: u16,
    /// Left out of the last page.
    pub(super) cut: u16,
}

/// Which ends of a range the group's header speaks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    /// The range is the first of its group.
    pub(super) first: bool,
    /// The range is the last of its group.
    pub(super) last: bool,
}

/// The word of a range of whole pages; `None` if one word does not say the range.
#[inline]
pub(super) fn of_pages(offset: u64, len: u64) -> Option<u64> {
    let (page, count) = (offset >> PAGE_SHIFT, len >> PAGE_SHIFT);
    let fits = (offset | len).is_multiple_of(PAGE) && count <= COUNT && page >> NUMBER_BITS == 0;
    fits.then_some(page << NUMBER_SHIFT | count)
}

/// The word of the same first page and `by` more bytes; `None` if there is none.
#[inline]
pub(super) fn longer(word: u64, by: u64) -> Option<u64> {
    let pages = by >> PAGE_SHIFT;
    (by.is_multiple_of(PAGE) && pages <= COUNT - (word & COUNT)).then(|| word + pages)
}

/// Writes a range behind the words, and returns what its group's header has to hold.
///
/// `len` is not zero and `offset + len` fits in 64 bits.
pub(super) fn write(words: &mut Vec<u64>, offset: u64, len: u64, ends: Ends) -> Trim {
    let head = offset % PAGE;
    // Not above the range's end, so it fits.
    let covered = head + len;
    let count = ((covered - 1) >> PAGE_SHIFT) + 1;
    if count > COUNT {
        words.extend([IN_FULL, offset, len]);
        return Trim::default();
    }
    let cut = (count << PAGE_SHIFT) - covered;
    let page = offset >> PAGE_SHIFT;
    let head_here = if ends.first { 0 } else { head };
    let cut_here = if ends.last { 0 } else { cut };
    let escape = head_here << HEAD_SHIFT | cut_here << CUT_SHIFT | page >> NUMBER_BITS << HIGH_SHIFT;
    if escape != IN_FULL {
        words.push(escape);
    }
    // What of the number does not fit is shifted out, and stands in the escape.
    words.push(page << NUMBER_SHIFT | count);
    Trim { head: (head - head_here) as u16, cut: (cut - cut_here) as u16 }
}

/// Reads the first range, offset and length, and returns it with the words behind it.
///
/// It says as much as words do: whole pages where the group's header holds the rest.
#[inline(always)]
pub(super) fn read(words: &[u64]) -> Option<(u64, u64, &[u64])> {
    let (word, rest) = words.split_first()?;
    let count = word & COUNT;
    if count == 0 {
        // By value all of it, so that a loop over ranges keeps its state in registers.
        return read_escaped(*word, rest);
    }
    Some((word >> NUMBER_SHIFT << PAGE_SHIFT, count << PAGE_SHIFT, rest))
}

/// [`read`] after a word whose count is zero.
#[cold]
#[inline(never)]
fn read_escaped(escape: u64, words: &[u64]) -> Option<(u64, u64, &[u64])> {
    let (word, rest) = words.split_first()?;
    if escape == IN_FULL {
        let (len, rest) = rest.split_first()?;
        return Some((*word, *len, rest));
    }
    let head = escape >> HEAD_SHIFT & (PAGE - 1);
    let cut = escape >> CUT_SHIFT & (PAGE - 1);
    let page = escape >> HIGH_SHIFT << NUMBER_BITS | word >> NUMBER_SHIFT;
    Some(((page << PAGE_SHIFT) + head, ((word & COUNT) << PAGE_SHIFT) - head - cut, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIDDLE: Ends = Ends { first: false, last: false };
    const ONLY: Ends = Ends { first: true, last: true };

    fn written(offset: u64, len: u64, ends: Ends) -> (Vec<u64>, Trim) {
        let mut words = Vec::new();
        let trim = write(&mut words, offset, len, ends);
        (words, trim)
    }

    #[test]
    fn a_range_of_whole_pages_is_one_word() {
        for ends in [MIDDLE, ONLY] {
            assert_eq!(written(0x12_3000, 0x4000, ends), (alloc::vec![0x123 << 24 | 4], Trim::default()));
        }
        let largest = written(((1 << 40) - 1) << 12, 0xff_ffff << 12, MIDDLE);
        assert_eq!(largest.0, [u64::MAX]);
    }

    #[test]
    fn ends_in_the_middle_of_a_page_stand_in_the_header_or_in_one_escape() {
        let trim = Trim { head: 0x10, cut: 0xfd0 };
        assert_eq!(written(0x1010, 0x20, ONLY), (alloc::vec![1 << 24 | 1], trim));
        let escape = 0x10 << 24 | 0xfd0 << 36;
        assert_eq!(written(0x1010, 0x20, MIDDLE), (alloc::vec![escape, 1 << 24 | 1], Trim::default()));
        let first = Ends { first: true, last: false };
        assert_eq!(written(0x1010, 0x20, first), (alloc::vec![0xfd0 << 36, 1 << 24 | 1], Trim { head: 0x10, cut: 0 }));
    }

    #[test]
    fn what_does_not_fit_in_a_word_is_written_beside_it_or_in_full() {
        let above = written(0xabc0_0000_0000_1000, 0x1000, ONLY);
        assert_eq!(above.0, [0xabc << 48, 1 << 24 | 1]);
        let long = written(0x1010, 1 << 36, ONLY);
        assert_eq!(long, (alloc::vec![0, 0x1010, 1 << 36], Trim::default()));
    }

    #[test]
    fn every_range_is_read_as_it_was_written() {
        let last_byte = (u64::MAX - 1, 1);
        for (offset, len) in
            [(0, 1), (0xfff, 2), (0x1000, 0x1000), (0, u64::MAX), (1 << 52, 0x1001), (7, (1 << 36) - 7), last_byte]
        {
            let (words, trim) = written(offset, len, MIDDLE);
            assert_eq!((read(&words), trim), (Some((offset, len, &[][..])), Trim::default()));
        }
    }
}
