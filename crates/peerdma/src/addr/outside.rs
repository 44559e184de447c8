//! What ranges of addresses leave of one another.

use super::{AddrRange, Address};
use alloc::vec::Vec;

impl<A: Address> AddrRange<A> {
    /// The parts of this range that lie in none of `holes`, ascending.
    ///
    /// Holes may come in any order, overlap each other and reach past the range.
    ///
    /// ```
    /// use peerdma::addr::{AddrRange, Bytes, PhysAddr};
    ///
    /// let range = |start, len| AddrRange::new(PhysAddr::new(start), Bytes::new(len)).unwrap();
    /// let parts = range(0x1000, 0x4000).outside(&[range(0x2000, 0x1000), range(0x4800, 0x1000)]);
    /// assert_eq!(parts, [range(0x1000, 0x1000), range(0x3000, 0x1800)]);
    /// ```
    #[must_use]
    pub fn outside(&self, holes: &[Self]) -> Vec<Self> {
        let mut holes = holes.to_vec();
        holes.sort_unstable_by_key(Self::start);
        let last = self.last().as_u64();
        // Where the rest begins; `None` once a hole has reached the end of the address space.
        let mut rest = Some(self.start().as_u64());
        let mut parts = Vec::new();
        for hole in holes {
            let Some(first) = rest.filter(|first| *first <= last) else { break };
            let before = hole.start().as_u64().checked_sub(1).map(|end| end.min(last));
            parts.extend(before.and_then(|end| Self::from_inclusive(A::from_raw(first), A::from_raw(end))));
            rest = hole.last().as_u64().checked_add(1).map(|next| next.max(first));
        }
        parts.extend(rest.and_then(|first| Self::from_inclusive(A::from_raw(first), self.last())));
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{Bytes, PhysAddr};
    use proptest::prelude::*;

    /// Ranges within a few bytes of one end of the address space.
    fn range(base: u64) -> impl Strategy<Value = AddrRange<PhysAddr>> {
        (0..40u64, 0..40u64).prop_filter_map("reversed", move |(first, last)| {
            AddrRange::from_inclusive(PhysAddr::new(base + first), PhysAddr::new(base + last))
        })
    }

    proptest! {
        #[test]
        fn the_parts_are_what_no_hole_covers_and_as_few_as_can_be(
            (range, holes) in prop_oneof![Just(0), Just(u64::MAX - 39)]
                .prop_flat_map(|base| (range(base), prop::collection::vec(range(base), 0..5)))
        ) {
            let inside = |outer: &AddrRange<PhysAddr>, at: u64| {
                AddrRange::new(PhysAddr::new(at), Bytes::new(1)).is_some_and(|byte| outer.contains_range(&byte))
            };
            let parts = range.outside(&holes);
            for at in (0..40).chain(u64::MAX - 39..=u64::MAX) {
                let expected = inside(&range, at) && !holes.iter().any(|hole| inside(hole, at));
                prop_assert_eq!(parts.iter().filter(|part| inside(part, at)).count(), usize::from(expected));
            }
            prop_assert!(parts.windows(2).all(|pair| pair[0].last().as_u64() + 1 < pair[1].start().as_u64()));
        }
    }
}
