//! Bytes that depend on their place and on the run, to recognise them where they arrive.
//!
//! Byte `i` of run `r` with seed `s` is byte `i % 8`, little endian, of
//! `mix(s + mix(r) + (i / 8) * 0x9e3779b97f4a7c15)`, where `mix` is the output function of
//! SplitMix64 (Steele, Lea, Flood 2014) and sums wrap. So any byte can be computed from its
//! offset alone, by anybody, and bytes of another place or another run differ in 255 of 256
//! cases each.
//!
//! Rejected: a counter, which a shift by 256 leaves as it is, and one random buffer for all
//! runs, which takes leftovers for arrivals.

use peerdma::addr::Bytes;

/// The pattern of one run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pattern {
    base: u64,
}

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

impl Pattern {
    /// The pattern of run number `run` with this seed.
    pub const fn new(seed: u64, run: u64) -> Self {
        Self { base: seed.wrapping_add(mix(run)) }
    }

    /// The byte at `offset`.
    ///
    /// ```
    /// use peerdma::addr::Bytes;
    /// use peerdma_linux::pattern::Pattern;
    ///
    /// let pattern = Pattern::new(1, 0);
    /// assert_eq!(pattern.byte(Bytes::new(9)), pattern.bytes(Bytes::new(8), 4)[1]);
    /// ```
    pub const fn byte(self, offset: Bytes) -> u8 {
        let (word, place) = (offset.as_u64() / 8, offset.as_u64() % 8);
        (mix(self.base.wrapping_add(word.wrapping_mul(STEP))) >> (8 * place)) as u8
    }

    /// `len` bytes from `offset` on.
    pub fn bytes(self, offset: Bytes, len: usize) -> Vec<u8> {
        (0..len as u64).map(|index| self.byte(Bytes::new(offset.as_u64().wrapping_add(index)))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_is_what_the_head_of_this_file_says() {
        // SplitMix64 with state 0 gives this as its first output; run 0 mixes to 0.
        assert_eq!(mix(STEP), 0xe220_a839_7b1d_cdaf);
        let pattern = Pattern::new(0, 0);
        assert_eq!(pattern.bytes(Bytes::new(8), 8), 0xe220_a839_7b1d_cdaf_u64.to_le_bytes());
    }

    #[test]
    fn runs_seeds_and_places_do_not_look_alike() {
        let len = 4096;
        let alike = |a: &[u8], b: &[u8]| a.iter().zip(b).filter(|(a, b)| a == b).count();
        let base = Pattern::new(1, 0).bytes(Bytes::ZERO, len);
        for other in [Pattern::new(1, 1), Pattern::new(2, 0), Pattern::new(1 << 63, 0)] {
            assert!(alike(&base, &other.bytes(Bytes::ZERO, len)) < 64);
        }
        for shift in [1u64, 8, 256, 4096] {
            assert!(alike(&base, &Pattern::new(1, 0).bytes(Bytes::new(shift), len)) < 64, "{shift}");
        }
    }
}
