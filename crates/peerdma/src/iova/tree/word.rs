//! Aligned blocks in a word of 64 bits.
//!
//! Each node of the tree has 64 children, so the same questions are asked of pages in a
//! word, of whole words in a leaf, and of whole children in an inner node.

/// Bit b is set where bits b to b + 2^order - 1 of `word` are, and b is a multiple of 2^order.
///
/// `order` is at most 6.
#[inline(always)]
pub(super) const fn blocks(word: u64, order: u32) -> u64 {
    // Each step joins pairs: the lower of two set neighbours stands for both.
    let mut starts = word;
    if order >= 1 {
        starts &= (starts >> 1) & 0x5555_5555_5555_5555;
    }
    if order >= 2 {
        starts &= (starts >> 2) & 0x1111_1111_1111_1111;
    }
    if order >= 3 {
        starts &= (starts >> 4) & 0x0101_0101_0101_0101;
    }
    if order >= 4 {
        starts &= (starts >> 8) & 0x0001_0001_0001_0001;
    }
    if order >= 5 {
        starts &= (starts >> 16) & 0x0000_0001_0000_0001;
    }
    if order >= 6 {
        starts &= starts >> 32;
    }
    starts
}

/// One more than the order of the largest aligned block of set bits: 0 for none, 7 for all 64.
#[inline(always)]
pub(super) const fn rank(word: u64) -> u8 {
    if word == 0 {
        return 0;
    }
    if word == u64::MAX {
        return 7;
    }
    let pairs = word & (word >> 1) & 0x5555_5555_5555_5555;
    if pairs == 0 {
        return 1;
    }
    let fours = pairs & (pairs >> 2) & 0x1111_1111_1111_1111;
    if fours == 0 {
        return 2;
    }
    let eights = fours & (fours >> 4) & 0x0101_0101_0101_0101;
    if eights == 0 {
        return 3;
    }
    let sixteens = eights & (eights >> 8) & 0x0001_0001_0001_0001;
    if sixteens == 0 {
        return 4;
    }
    if sixteens & (sixteens >> 16) & 0x0000_0001_0000_0001 == 0 {
        return 5;
    }
    6
}

/// Bits `first` to `last`, both inclusive and below 64.
#[inline(always)]
pub(super) const fn span(first: u32, last: u32) -> u64 {
    (u64::MAX << (first & 63)) & (u64::MAX >> (63 - (last & 63)))
}

/// The place of the highest set bit of a word that has one.
#[inline(always)]
pub(super) const fn highest(word: u64) -> u32 {
    (word | 1).ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether bits `at..at + 2^order` are set, one by one.
    fn is_block(word: u64, at: u32, order: u32) -> bool {
        at.is_multiple_of(1 << order) && (at..at + (1 << order)).all(|bit| word >> bit & 1 == 1)
    }

    proptest::proptest! {
        #[test]
        fn blocks_and_ranks_are_what_counting_bit_by_bit_says(a: u64, b: u64, c: u64) {
            for word in [a, a | b, a | b | c, a & b, !(a & b & c), span((a % 64) as u32 / 2, 32 + (b % 32) as u32)] {
                let mut largest = 0;
                for order in 0..=6 {
                    let starts = (0..64).filter(|&at| is_block(word, at, order)).fold(0, |all, at| all | 1u64 << at);
                    proptest::prop_assert_eq!(blocks(word, order), starts, "{:#x} order {}", word, order);
                    if starts != 0 {
                        largest = order as u8 + 1;
                    }
                }
                proptest::prop_assert_eq!(rank(word), largest, "{:#x}", word);
            }
        }
    }
}
