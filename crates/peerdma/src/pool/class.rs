//! Lengths that blocks have.
//!
//! Up to 16 granules every number of them, above that eight lengths between a power of two and the next, so
//! that what is put back fits the next who asks for about as much, and less than an eighth is lost by it.

use super::tags::Code;

/// Granules that a block of `granules` takes, and the code of that length; `None` for more than any pool has.
pub(super) fn fitting(granules: u64) -> Option<(u64, Code)> {
    let wanted = granules.max(1);
    if wanted <= 16 {
        return Some((wanted, Code::new(wanted as u16 - 1)));
    }
    // The power of two below, and the eighth of it that reaches the length.
    let order = 63 - (wanted - 1).leading_zeros();
    let step = 1 << (order - 3);
    let length = wanted.checked_next_multiple_of(step)?;
    let eighth = (length - (1 << order)) / step;
    Some((length, Code::new((16 + u64::from(order - 4) * 8 + eighth - 1) as u16)))
}

/// Granules of a block with that code.
pub(super) fn granules(code: Code) -> u64 {
    let code = u64::from(code.number());
    if code < 16 {
        return code + 1;
    }
    let (order, eighth) = ((code - 16) / 8 + 4, (code - 16) % 8 + 1);
    (1 << order) + (eighth << (order - 3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn small_blocks_lose_nothing_and_large_ones_less_than_an_eighth() {
        for wanted in 1..100_000_u64 {
            let (length, _) = fitting(wanted).unwrap();
            assert!(length >= wanted);
            assert!(wanted > 16 || length == wanted);
            assert!((length - wanted) * 8 < wanted, "{wanted} took {length}");
        }
    }

    proptest! {
        #[test]
        fn a_code_says_the_length_that_it_was_made_for(wanted in 0_u64..1 << 58) {
            let (length, code) = fitting(wanted).unwrap();
            prop_assert_eq!(granules(code), length);
            prop_assert_eq!(fitting(length).unwrap().0, length, "a length fits itself");
        }
    }

    #[test]
    fn a_length_beyond_all_memory_has_no_class() {
        assert!(fitting(u64::MAX).is_none());
    }
}
