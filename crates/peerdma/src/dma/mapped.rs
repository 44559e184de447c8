//! Which IOVA ranges of an address space are mapped.
//!
//! Kernels know, but answer poorly: type1 says EINVAL when an unmapping would cut a
//! mapping, which it also says to a misaligned one, and iommufd answers ENOENT to that
//! only *after* it has unmapped every whole mapping below the one that would be cut
//! (Linux 7.3 `iopt_unmap_iova_range`). A space that keeps this record refuses by name,
//! and before anything has changed.
//!
//! Cost follows mappings: a check is one search in an ordered map, and an unmapping
//! adds one removal for each mapping it takes.
//!
//! Not here: what the ranges point at. The record is only as good as the rule that
//! nobody else maps through another descriptor of the same space; what somebody does
//! shows as the kernel's EEXIST, which is [`MapError::Overlap`] without a culprit.

use super::abilities::{Abilities, Changes};
use super::error::{MapError, UnmapError};
use crate::addr::{AddrRange, Bytes, Iova};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// The mapped ranges of one address space, none of which overlap.
///
/// ```
/// use peerdma::addr::{AddrRange, Bytes, Iova};
/// use peerdma::dma::Mapped;
///
/// let page = |n: u64| AddrRange::new(Iova::new(n << 12), Bytes::new(4096)).unwrap();
/// let mut mapped = Mapped::new();
/// mapped.insert(page(3));
/// assert_eq!(mapped.overlapping(page(3)), Some(page(3)));
/// assert_eq!(mapped.overlapping(page(4)), None);
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Mapped {
    by_start: BTreeMap<Iova, AddrRange<Iova>>,
}

impl Mapped {
    /// Nothing mapped.
    pub const fn new() -> Self {
        Self { by_start: BTreeMap::new() }
    }

    /// How many mappings there are.
    pub fn count(&self) -> usize {
        self.by_start.len()
    }

    /// Whether nothing is mapped.
    pub fn is_empty(&self) -> bool {
        self.by_start.is_empty()
    }

    /// The mappings, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = AddrRange<Iova>> + '_ {
        self.by_start.values().copied()
    }

    /// The lowest mapping that shares an address with `iova`.
    pub fn overlapping(&self, iova: AddrRange<Iova>) -> Option<AddrRange<Iova>> {
        let below = self.by_start.range(..=iova.start()).next_back().map(|(_, range)| *range);
        let at_start = below.filter(|range| iova.start() <= range.last());
        at_start.or_else(|| self.by_start.range(iova.start()..=iova.last()).next().map(|(_, range)| *range))
    }

    /// Refuses by name what cannot be mapped because of what is mapped.
    ///
    /// Call [`Abilities::check_map`] first, then this, then the kernel, then [`insert`](Self::insert).
    ///
    /// # Errors
    /// - [`MapError::Overlap`]: unmap that mapping first. With [`Changes::REPLACE`] a mapping of
    ///   exactly the same range is no error.
    /// - [`MapError::TooManyMappings`]: unmap something, or map larger ranges.
    pub fn check_map(&self, abilities: &Abilities, iova: AddrRange<Iova>) -> Result<(), MapError> {
        match self.overlapping(iova) {
            Some(existing) if existing == iova && abilities.changes.contains(Changes::REPLACE) => return Ok(()),
            Some(existing) => return Err(MapError::Overlap { iova, existing: Some(existing) }),
            None => {}
        }
        match abilities.max_mappings {
            Some(limit) if self.count() >= limit as usize => Err(MapError::TooManyMappings { limit: Some(limit) }),
            _ => Ok(()),
        }
    }

    /// Refuses by name what cannot be unmapped because of what is mapped; says what would be.
    ///
    /// Call [`Abilities::check_unmap`] first, then this, then the kernel if anything would be
    /// unmapped, then [`remove`](Self::remove). Returns the number of bytes that are mapped in
    /// `iova`, which is zero only where [`Changes::UNMAP_NOTHING`] allows it.
    ///
    /// # Errors
    /// - [`UnmapError::NothingMapped`]: there is nothing to do.
    /// - [`UnmapError::Split`]: unmap all of that mapping, or none.
    /// - [`UnmapError::NotOneMapping`]: unmap mapping by mapping.
    pub fn check_unmap(&self, abilities: &Abilities, iova: AddrRange<Iova>) -> Result<Bytes, UnmapError> {
        let Some(lowest) = self.overlapping(iova) else {
            return match abilities.changes.contains(Changes::UNMAP_NOTHING) {
                true => Ok(Bytes::ZERO),
                false => Err(UnmapError::NothingMapped { iova }),
            };
        };
        let highest = self.by_start.range(..=iova.last()).next_back().map_or(lowest, |(_, range)| *range);
        let cut = [lowest, highest].into_iter().find(|range| !iova.contains_range(range));
        if cut.is_some() && !abilities.changes.contains(Changes::UNMAP_PART) {
            return Err(UnmapError::Split { iova, existing: cut });
        }
        let one = lowest == highest && lowest.contains_range(&iova);
        if !one && !abilities.changes.contains(Changes::UNMAP_SEVERAL) {
            return Err(UnmapError::NotOneMapping { iova });
        }
        // The parts lie in `iova` and overlap nowhere, so they sum up to its length at most.
        let len = self.within(iova).map(|range| range.len().as_u64()).sum();
        Ok(Bytes::new(len))
    }

    /// Records that `iova` was mapped, in place of what was recorded there.
    ///
    /// What it overlaps is cut or removed as by [`remove`](Self::remove); after a mapping that
    /// [`check_map`](Self::check_map) let pass there is nothing but an equal range to replace.
    pub fn insert(&mut self, iova: AddrRange<Iova>) {
        self.remove(iova);
        self.by_start.insert(iova.start(), iova);
    }

    /// Records that `iova` is no longer mapped, and returns how many bytes of it were.
    ///
    /// A mapping that reaches out of `iova` leaves its ends behind, as in a space with
    /// [`Changes::UNMAP_PART`].
    pub fn remove(&mut self, iova: AddrRange<Iova>) -> Bytes {
        let taken: Vec<_> = self.touching(iova).collect();
        let mut len = 0;
        for range in taken {
            self.by_start.remove(&range.start());
            if range.start() < iova.start() {
                let before = Bytes::new(iova.start().as_u64() - range.start().as_u64());
                self.by_start.extend(range.slice(Bytes::ZERO, before).map(|left| (left.start(), left)));
            }
            if iova.last() < range.last() {
                let after = Iova::new(iova.last().as_u64() + 1);
                self.by_start.extend(AddrRange::from_inclusive(after, range.last()).map(|left| (after, left)));
            }
            len += intersection(range, iova);
        }
        Bytes::new(len)
    }

    /// The mappings that share an address with `iova`, lowest first.
    fn touching(&self, iova: AddrRange<Iova>) -> impl Iterator<Item = AddrRange<Iova>> + '_ {
        // Mappings overlap each other nowhere, so all that start between the lowest of them
        // and the end of `iova` touch it as well.
        let lowest = self.overlapping(iova).into_iter();
        lowest.flat_map(move |range| self.by_start.range(range.start()..=iova.last()).map(|(_, range)| *range))
    }

    /// Those parts of the mappings that lie in `iova`.
    fn within(&self, iova: AddrRange<Iova>) -> impl Iterator<Item = AddrRange<Iova>> + '_ {
        self.touching(iova).filter_map(move |range| {
            AddrRange::from_inclusive(range.start().max(iova.start()), range.last().min(iova.last()))
        })
    }
}

/// How many bytes two ranges share.
fn intersection(one: AddrRange<Iova>, other: AddrRange<Iova>) -> u64 {
    let first = one.start().max(other.start());
    AddrRange::from_inclusive(first, one.last().min(other.last())).map_or(0, |shared| shared.len().as_u64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dma::recording::Profile;

    fn pages(first: u64, count: u64) -> AddrRange<Iova> {
        AddrRange::new(Iova::new(first << 12), Bytes::new(count << 12)).unwrap()
    }

    fn with(ranges: &[AddrRange<Iova>]) -> Mapped {
        let mut mapped = Mapped::new();
        for range in ranges {
            mapped.insert(*range);
        }
        mapped
    }

    #[test]
    fn neighbours_do_not_overlap() {
        let mapped = with(&[pages(4, 4), pages(10, 2)]);
        for free in [pages(0, 4), pages(8, 2), pages(12, 100)] {
            assert_eq!(mapped.overlapping(free), None, "{free}");
        }
        for (taken, first) in [(pages(7, 1), 4), (pages(3, 2), 4), (pages(0, 20), 4), (pages(8, 3), 10)] {
            assert_eq!(mapped.overlapping(taken).map(|range| range.start().as_u64() >> 12), Some(first), "{taken}");
        }
    }

    #[test]
    fn the_mapping_that_would_be_cut_is_named_at_either_end() {
        let mapped = with(&[pages(4, 4), pages(8, 4)]);
        let abilities = Profile::Iommufd.abilities();
        let cut = |iova| match mapped.check_unmap(&abilities, iova) {
            Err(UnmapError::Split { existing, .. }) => existing,
            _ => None,
        };
        assert_eq!(cut(pages(5, 7)), Some(pages(4, 4)));
        assert_eq!(cut(pages(4, 5)), Some(pages(8, 4)));
        assert_eq!(cut(pages(0, 100)), None);
    }

    #[test]
    fn bytes_are_counted_without_the_gaps() {
        let mapped = with(&[pages(4, 4), pages(10, 2)]);
        let abilities = Profile::Type1.abilities();
        assert_eq!(mapped.check_unmap(&abilities, pages(0, 100)), Ok(pages(0, 6).len()));
        assert_eq!(mapped.check_unmap(&abilities, pages(8, 2)), Ok(Bytes::ZERO));
    }

    #[test]
    fn one_mapping_with_a_gap_beside_it_is_not_one_mapping() {
        let mapped = with(&[pages(4, 4)]);
        let mut abilities = Profile::Type1.abilities();
        abilities.changes = Changes::empty();
        let iova = pages(4, 5);
        assert_eq!(mapped.check_unmap(&abilities, iova), Err(UnmapError::NotOneMapping { iova }));
        assert_eq!(mapped.check_unmap(&abilities, pages(4, 4)), Ok(pages(4, 4).len()));
    }

    #[test]
    fn a_removal_leaves_what_reaches_out_of_it() {
        let mut mapped = with(&[pages(4, 4), pages(8, 2), pages(10, 4)]);
        assert_eq!(mapped.remove(pages(6, 5)), pages(0, 5).len());
        assert!(mapped.iter().eq([pages(4, 2), pages(11, 3)]));
        assert_eq!(mapped.remove(pages(12, 1)), pages(0, 1).len());
        assert!(mapped.iter().eq([pages(4, 2), pages(11, 1), pages(13, 1)]));
        assert_eq!(mapped.remove(pages(0, 4)), Bytes::ZERO);
        assert_eq!(mapped.count(), 3);
    }

    #[test]
    fn what_is_inserted_takes_the_place_of_what_it_overlaps() {
        let mut mapped = with(&[pages(4, 4), pages(8, 4)]);
        mapped.insert(pages(6, 3));
        assert!(mapped.iter().eq([pages(4, 2), pages(6, 3), pages(9, 3)]));
    }

    #[test]
    fn ranges_at_the_end_of_the_space_are_no_exception() {
        let top = AddrRange::from_inclusive(Iova::new(u64::MAX - 0xfff), Iova::new(u64::MAX)).unwrap();
        let mut mapped = with(&[top, pages(0, 1)]);
        assert_eq!(mapped.overlapping(top), Some(top));
        let all = AddrRange::new(Iova::new(0), Bytes::new(u64::MAX)).unwrap();
        assert_eq!(mapped.remove(all), Bytes::new(0x1fff));
        assert!(mapped.iter().eq(AddrRange::new(Iova::new(u64::MAX), Bytes::new(1))));
    }

    #[test]
    fn a_replacement_is_of_exactly_the_same_range() {
        let mapped = with(&[pages(4, 4)]);
        let mut abilities = Profile::Type1.abilities();
        abilities.max_mappings = Some(1);
        let overlap = |iova| Err(MapError::Overlap { iova, existing: Some(pages(4, 4)) });
        assert_eq!(mapped.check_map(&abilities, pages(4, 4)), overlap(pages(4, 4)));
        abilities.changes |= Changes::REPLACE;
        assert_eq!(mapped.check_map(&abilities, pages(4, 4)), Ok(()), "the number of mappings stays");
        assert_eq!(mapped.check_map(&abilities, pages(4, 3)), overlap(pages(4, 3)));
        assert_eq!(mapped.check_map(&abilities, pages(8, 1)), Err(MapError::TooManyMappings { limit: Some(1) }));
    }
}
