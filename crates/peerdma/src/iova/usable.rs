//! The IOVAs that an address space can map.
//!
//! IOMMUs end somewhere, and windows inside are taken: interrupts on x86, what firmware
//! reserved, what somebody excluded. Linux lists what is left, and so does this.
//!
//! Not here: which of these IOVAs are mapped ([`Mapped`](crate::dma::Mapped)).

use crate::addr::{AddrRange, Bytes, Granule, Iova};
use alloc::vec::Vec;

/// Why a list of usable IOVAs makes no sense.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RangesError {
    /// A range whose last address lies below its first.
    #[error("usable IOVA range {first}-{last} ends before it starts; the space's answer is damaged")]
    Reversed {
        /// First address.
        first: Iova,
        /// Last address, inclusive.
        last: Iova,
    },
    /// Two ranges share addresses.
    #[error("usable IOVA ranges {0} and {1} overlap; the space's answer is damaged")]
    Overlap(AddrRange<Iova>, AddrRange<Iova>),
}

/// The IOVAs that a space can map: sorted ranges that share no address.
///
/// Two ranges may touch; a mapping lies inside one of them all the same, since Linux
/// asks for that too (`vfio_iommu_iova_dma_valid`).
#[derive(Clone, PartialEq, Eq, Debug, Hash, Default)]
pub struct IovaRanges {
    sorted: Vec<AddrRange<Iova>>,
}

impl IovaRanges {
    /// Takes pairs of first and last address, both inclusive, in any order.
    ///
    /// That is how type1 and iommufd report them. `0..=u64::MAX` loses its last byte:
    /// no length holds 2^64, and iommufd maps nothing that ends there.
    ///
    /// # Errors
    /// [`RangesError`] where a pair is reversed or two share addresses; the answer it
    /// came from cannot be relied on, so the space should not be used.
    pub fn from_inclusive(pairs: impl IntoIterator<Item = (Iova, Iova)>) -> Result<Self, RangesError> {
        let mut sorted = Vec::new();
        for (first, last) in pairs {
            let reversed = RangesError::Reversed { first, last };
            let range = match AddrRange::from_inclusive(first, last) {
                Some(range) => range,
                None if last < first => return Err(reversed),
                None => AddrRange::new(first, Bytes::new(u64::MAX)).ok_or(reversed)?,
            };
            sorted.push(range);
        }
        sorted.sort_by_key(AddrRange::start);
        match sorted.windows(2).find(|pair| pair[1].start() <= pair[0].last()) {
            Some(pair) => Err(RangesError::Overlap(pair[0], pair[1])),
            None => Ok(Self { sorted }),
        }
    }

    /// What is left of the ranges without `holes`, each widened to whole granules.
    #[must_use]
    pub fn without(&self, holes: &[AddrRange<Iova>], granule: Granule) -> Self {
        let within = granule.bytes().as_u64() - 1;
        let widened = holes.iter().map(|hole| {
            let (first, last) = (hole.start().as_u64() & !within, hole.last().as_u64() | within);
            // All 2^64 bytes are no range; of a hole so large no whole granule is outside.
            AddrRange::from_inclusive(Iova::new(first), Iova::new(last)).unwrap_or(*hole)
        });
        let widened: Vec<_> = widened.collect();
        Self { sorted: self.sorted.iter().flat_map(|range| range.outside(&widened)).collect() }
    }

    /// The ranges, lowest first.
    pub fn as_slice(&self) -> &[AddrRange<Iova>] {
        &self.sorted
    }

    /// Whether one of the ranges holds all of `iova`.
    pub fn contain(&self, iova: &AddrRange<Iova>) -> bool {
        self.nearest(iova.start()).is_some_and(|range| range.contains_range(iova))
    }

    /// The range that holds `iova`, or else the last one below it, or else the first one.
    pub fn nearest(&self, iova: Iova) -> Option<AddrRange<Iova>> {
        let at_or_below = self.sorted.partition_point(|range| range.start() <= iova);
        self.sorted.get(at_or_below.saturating_sub(1)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(pairs: &[(u64, u64)]) -> Result<IovaRanges, RangesError> {
        IovaRanges::from_inclusive(pairs.iter().map(|(first, last)| (Iova::new(*first), Iova::new(*last))))
    }

    fn range(first: u64, last: u64) -> AddrRange<Iova> {
        AddrRange::from_inclusive(Iova::new(first), Iova::new(last)).unwrap()
    }

    #[test]
    fn usable_ranges_come_out_sorted_and_damage_is_refused() {
        let sorted = ranges(&[(0x9000, 0xffff), (0, 0xfff)]).unwrap();
        assert_eq!(sorted.as_slice(), [range(0, 0xfff), range(0x9000, 0xffff)]);
        assert_eq!(
            ranges(&[(0, 0x1fff), (0x1fff, 0x2fff)]),
            Err(RangesError::Overlap(range(0, 0x1fff), range(0x1fff, 0x2fff)))
        );
        let reversed = RangesError::Reversed { first: Iova::new(2), last: Iova::new(1) };
        assert_eq!(ranges(&[(2, 1)]), Err(reversed));
    }

    #[test]
    fn usable_ranges_reach_up_to_the_top_of_the_space() {
        let all = ranges(&[(0, u64::MAX)]).unwrap();
        assert_eq!(all.as_slice(), [range(0, u64::MAX - 1)]);
        let upper = ranges(&[(1 << 63, u64::MAX)]).unwrap();
        assert!(upper.contain(&range(u64::MAX - 0xfff, u64::MAX)));
    }

    #[test]
    fn the_nearest_usable_range_is_named_from_both_sides() {
        let two = ranges(&[(0x1000, 0x1fff), (0x5000, 0x5fff)]).unwrap();
        for (at, first) in [(0, 0x1000), (0x1000, 0x1000), (0x3000, 0x1000), (0x6000, 0x5000)] {
            assert_eq!(two.nearest(Iova::new(at)).map(|range| range.start().as_u64()), Some(first), "{at:#x}");
        }
        assert_eq!(IovaRanges::default().nearest(Iova::new(0)), None);
    }
}
