//! Numbers that look random and are the same on every machine.

/// Marsaglia's xorshift with 64 bits.
#[derive(Clone)]
pub struct Draw(u64);

impl Draw {
    /// A sequence; `seed` may be anything.
    pub const fn new(seed: u64) -> Self {
        Self(seed | 0x2545_f491_0000_0001)
    }

    /// The next number.
    #[inline]
    #[expect(clippy::should_implement_trait, reason = "numbers without an end are no iteration")]
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// The next number below `end`, which is at most 2^32.
    #[inline]
    pub fn below(&mut self, end: u64) -> u64 {
        ((self.next() >> 32).wrapping_mul(end)) >> 32
    }

    /// Puts what is in `list` into another order.
    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            list.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}
