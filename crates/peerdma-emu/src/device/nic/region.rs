//! Memory regions: keys, rights, and the pages behind addresses.

use crate::device::bus::{Bus, How};
use crate::memory::Memory;
use crate::wire::Failure;
use peerdma::addr::{BusAddr, Bytes};
use peerdma::dma::consumer::rdma::RegionAddr;
use std::ops::BitOr;

/// Names a memory region, for local work requests and for remote ones.
///
/// The lower 8 bits are a generation: the key of a region that is gone does not name the one
/// that took its place, until 256 of them did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(transparent)]
pub struct Key(u32);

impl Key {
    /// The region that this number names, if any.
    pub const fn new(raw: u32) -> Self {
        Self(raw)
    }

    /// The number, for the other side.
    pub const fn as_u32(self) -> u32 {
        self.0
    }
}

/// What may be done with a memory region; reading it locally always may.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
#[repr(transparent)]
pub struct Rights(u32);

impl Rights {
    /// Nothing but to read it locally.
    pub const NONE: Self = Self(0);
    /// To receive into it, and to write there what was read remotely.
    pub const LOCAL_WRITE: Self = Self(1);
    /// To be written by peers.
    pub const REMOTE_WRITE: Self = Self(2);
    /// To be read by peers.
    pub const REMOTE_READ: Self = Self(4);
    /// To be changed by AtomicOps of peers.
    pub const REMOTE_ATOMIC: Self = Self(8);
    /// That writes to it are sent with Relaxed Ordering.
    pub const RELAXED: Self = Self(16);

    /// Everything, strictly ordered.
    pub const ALL: Self = Self(15);

    pub(super) const fn of(bits: u32) -> Self {
        Self(bits & 31)
    }

    pub(super) const fn bits(self) -> u32 {
        self.0
    }

    /// Whether all of `other` is in it.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Rights {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// One memory region.
#[derive(Debug)]
pub(super) struct Region {
    pub(super) domain: u32,
    pub(super) rights: Rights,
    pub(super) base: u64,
    /// Not zero; base and length do not reach past the last address.
    pub(super) len: u64,
    pub(super) page_log2: u32,
    /// As many as base and length ask for.
    pub(super) pages: Vec<u64>,
}

impl Region {
    /// How many pages a region has; `None` where it wraps, is empty, or its pages are no pages.
    pub(super) fn page_count(base: u64, len: u64, page_log2: u64) -> Option<u64> {
        let last = base.checked_add(len.checked_sub(1)?)?;
        let log2 = u32::try_from(page_log2).ok().filter(|log2| (12..=31).contains(log2))?;
        Some((last >> log2) - (base >> log2) + 1)
    }

    fn permits(&self, domain: u32, at: u64, len: u64, right: Rights) -> bool {
        let inside = at >= self.base
            && at.checked_sub(self.base).and_then(|from| from.checked_add(len)).is_some_and(|end| end <= self.len);
        self.domain == domain && self.rights.contains(right) && inside
    }

    fn page(&self, at: u64) -> u64 {
        let index = (at >> self.page_log2) - (self.base >> self.page_log2);
        self.pages.get(index as usize).copied().unwrap_or(u64::MAX)
    }

    /// Where the byte at `at` is, and how many of `len` follow it without a gap.
    fn piece(&self, at: u64, len: u64) -> (BusAddr, u64) {
        let size = 1_u64 << self.page_log2;
        let within = at & (size - 1);
        let first = self.page(at);
        let mut run = size - within;
        let mut next = first.wrapping_add(size);
        while run < len && self.page(at + run) == next {
            run += size;
            next = next.wrapping_add(size);
        }
        (BusAddr::new(first.wrapping_add(within)), run.min(len))
    }

    fn how(&self) -> How {
        let mut how = How::default();
        how.attributes.relaxed = self.rights.contains(Rights::RELAXED);
        how
    }
}

/// Bytes of a region that may be accessed.
#[derive(Clone, Copy)]
pub(super) struct Window<'a> {
    region: Option<&'a Region>,
    at: u64,
    len: u64,
}

impl Window<'_> {
    /// Goes through the pieces with `done` bytes before each.
    fn each(self, mut act: impl FnMut(How, BusAddr, u64, u64) -> Result<(), Failure>) -> Result<(), Failure> {
        let Some(region) = self.region else { return Ok(()) };
        let mut done = 0;
        while done < self.len {
            let (at, run) = region.piece(self.at + done, self.len - done);
            act(region.how(), at, done, run)?;
            done += run;
        }
        Ok(())
    }

    /// Reads all of it into a buffer, from its start.
    pub(super) fn fetch(self, bus: &mut dyn Bus, into: (&dyn Memory, Bytes)) -> Result<(), Failure> {
        let (memory, start) = into;
        self.each(|how, at, done, run| {
            // Reads keep their order with the writes before them; the hint is for writes.
            let how = How { attributes: Default::default(), ..how };
            bus.fetch(how, at, (memory, Bytes::new(start.as_u64() + done)), Bytes::new(run))
        })
    }

    /// Writes all of it from a buffer, from its start.
    pub(super) fn send(self, bus: &mut dyn Bus, from: (&dyn Memory, Bytes)) -> Result<(), Failure> {
        let (memory, start) = from;
        self.each(|how, at, done, run| bus.send(how, (memory, Bytes::new(start.as_u64() + done)), at, Bytes::new(run)))
    }

    /// Writes a number's 8 bytes.
    pub(super) fn put(self, bus: &mut dyn Bus, value: u64) -> Result<(), Failure> {
        let bytes = value.to_le_bytes();
        self.each(|how, at, done, run| {
            bus.write(how, at, bytes.get(done as usize..(done + run) as usize).unwrap_or(&[]))
        })
    }

    /// Where it begins.
    pub(super) fn start(self) -> Option<BusAddr> {
        Some(self.region?.piece(self.at, self.len).0)
    }
}

/// All regions of an adapter.
#[derive(Debug, Default)]
pub(super) struct Regions {
    list: Vec<(u8, Option<Region>)>,
    /// Pages of all of them.
    pages: usize,
}

/// Most regions of an adapter.
const MOST: usize = 1 << 16;
/// Most pages of all regions of an adapter: 32 GiB in pages of 4 KiB, and 64 MiB for the list.
const MOST_PAGES: usize = 1 << 23;

impl Regions {
    /// Takes a region in; `None` where there are too many, or too many pages.
    pub(super) fn insert(&mut self, region: Region) -> Option<Key> {
        let pages = self.pages + region.pages.len();
        if pages > MOST_PAGES {
            return None;
        }
        let index = match self.list.iter().position(|(_, region)| region.is_none()) {
            Some(free) => free,
            None if self.list.len() < MOST => {
                self.list.push((0, None));
                self.list.len() - 1
            }
            None => return None,
        };
        let (generation, place) = self.list.get_mut(index)?;
        *generation = generation.wrapping_add(1);
        *place = Some(region);
        self.pages = pages;
        Some(Key((index as u32) << 8 | u32::from(*generation)))
    }

    fn find(&self, key: Key) -> Option<&Region> {
        let (generation, region) = self.list.get((key.0 >> 8) as usize)?;
        region.as_ref().filter(|_| u32::from(*generation) == key.0 & 0xff)
    }

    /// Removes a region; the one that was there.
    pub(super) fn remove(&mut self, key: Key) -> Option<Region> {
        self.find(key)?;
        let region = self.list.get_mut((key.0 >> 8) as usize)?.1.take()?;
        self.pages -= region.pages.len();
        Some(region)
    }

    /// The bytes, if the key names a region of this domain that has all of them and permits
    /// this. No bytes are always permitted, whatever the key (InfiniBand 1.4 §9.4.1.1).
    pub(super) fn window(&self, key: Key, domain: u32, at: RegionAddr, len: u64, right: Rights) -> Option<Window<'_>> {
        let at = at.as_u64();
        if len == 0 {
            return Some(Window { region: None, at, len });
        }
        let region = self.find(key).filter(|region| region.permits(domain, at, len, right))?;
        Some(Window { region: Some(region), at, len })
    }

    /// Forgets all regions; their keys stay dead.
    pub(super) fn clear(&mut self) {
        self.pages = 0;
        for (_, region) in &mut self.list {
            *region = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_all_regions_together_are_bounded_and_come_back() {
        let mut regions = Regions::default();
        let large = || {
            let pages = vec![0; MOST_PAGES / 2];
            Region { domain: 1, rights: Rights::ALL, base: 0, len: 1, page_log2: 12, pages }
        };
        let keys = [regions.insert(large()).unwrap(), regions.insert(large()).unwrap()];
        assert!(regions.insert(large()).is_none());
        assert!(regions.remove(keys[0]).is_some() && regions.remove(keys[0]).is_none());
        assert!(regions.insert(large()).is_some());
        regions.clear();
        assert!(regions.insert(large()).is_some());
    }
}
