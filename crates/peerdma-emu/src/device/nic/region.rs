//! Memory regions: keys, rights, and the pages behind addresses.
//!
//! A region is registered with its pages, or on demand: then it has none until the driver
//! writes some, which it is asked for when an access finds none, and it loses them
//! when they are invalidated.

use super::window::Window;
use crate::device::bus::How;
use peerdma::addr::BusAddr;
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

/// A page of an on-demand region: where it is and whether it may be written, or that there is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(transparent)]
pub(super) struct Entry(u64);

impl Entry {
    const PRESENT: u64 = 1;
    const WRITABLE: u64 = 2;

    /// The page at a multiple of 4 KiB.
    fn new(page: u64, writable: bool) -> Self {
        Self(page | Self::PRESENT | if writable { Self::WRITABLE } else { 0 })
    }

    fn permits(self, write: bool) -> bool {
        self.0 & Self::PRESENT != 0 && (!write || self.0 & Self::WRITABLE != 0)
    }

    fn page(self) -> u64 {
        self.0 & !(Self::PRESENT | Self::WRITABLE)
    }
}

/// The pages of a region; as many as its base and its length ask for.
#[derive(Debug)]
pub(super) enum Pages {
    /// Fixed for as long as the region is there: first addresses.
    Pinned(Vec<u64>),
    /// Those that were written since they were last taken away.
    OnDemand(Vec<Entry>),
}

impl Pages {
    fn len(&self) -> usize {
        match self {
            Self::Pinned(pages) => pages.len(),
            Self::OnDemand(entries) => entries.len(),
        }
    }
}

/// Bytes of an on-demand region that have no page, or none for this.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Missing {
    pub(super) key: Key,
    pub(super) at: u64,
    pub(super) len: u64,
    pub(super) write: bool,
}

/// A list of pages as a command shows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listed<'a> {
    /// Where in the region the first byte is that they are for, and how many.
    pub(super) at: u64,
    pub(super) len: u64,
    pub(super) page_log2: u64,
    /// First addresses.
    pub(super) words: &'a [u64],
    pub(super) writable: bool,
}

/// Pages that were taken away.
#[derive(Debug)]
pub(super) struct Taken {
    /// First and last address that they were for.
    pub(super) range: (u64, u64),
    /// How often pages of the region were taken away with this time: loans of earlier ones are of these.
    pub(super) count: u64,
    /// Those that may have been written. Nobody counts who did write: what is permitted is taken
    /// as done, as Linux takes every page that it has mapped for writing as dirty (7.2,
    /// `ib_umem_odp_unmap_dma_pages`).
    pub(super) written: Vec<BusAddr>,
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
    pub(super) pages: Pages,
    /// How often pages were taken away.
    pub(super) taken: u64,
}

impl Region {
    /// How many pages a region has; `None` where it wraps, is empty, or its pages are no pages.
    pub(super) fn page_count(base: u64, len: u64, page_log2: u64) -> Option<u64> {
        let last = base.checked_add(len.checked_sub(1)?)?;
        let log2 = u32::try_from(page_log2).ok().filter(|log2| (12..=31).contains(log2))?;
        Some((last >> log2) - (base >> log2) + 1)
    }

    fn has(&self, at: u64, len: u64) -> bool {
        at.checked_sub(self.base).and_then(|from| from.checked_add(len)).is_some_and(|end| end <= self.len)
    }

    fn permits(&self, domain: u32, at: u64, len: u64, right: Rights) -> bool {
        self.domain == domain && self.rights.contains(right) && self.has(at, len)
    }

    fn index(&self, at: u64) -> usize {
        ((at >> self.page_log2) - (self.base >> self.page_log2)) as usize
    }

    fn page(&self, at: u64) -> u64 {
        let index = self.index(at);
        let page = match &self.pages {
            Pages::Pinned(pages) => pages.get(index).copied(),
            Pages::OnDemand(entries) => {
                entries.get(index).filter(|entry| entry.permits(false)).map(|entry| entry.page())
            }
        };
        page.unwrap_or(u64::MAX)
    }

    /// Where the byte at `at` is, and how many of `len` follow it without a gap.
    pub(super) fn piece(&self, at: u64, len: u64) -> (BusAddr, u64) {
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

    pub(super) fn how(&self) -> How {
        let mut how = How::default();
        how.attributes.relaxed = self.rights.contains(Rights::RELAXED);
        how
    }

    /// Where in the region the page at an index begins and ends, without what is outside the region.
    fn extent(&self, index: usize) -> (u64, u64) {
        let first = ((self.base >> self.page_log2) + index as u64) << self.page_log2;
        let last = first | ((1 << self.page_log2) - 1);
        (first.max(self.base), last.min(self.base + (self.len - 1)))
    }

    /// The first pages in a row that are not there for an access to bytes that the region has.
    pub(super) fn missing(&self, key: Key, at: u64, len: u64, write: bool) -> Option<Missing> {
        let Pages::OnDemand(entries) = &self.pages else { return None };
        let range = self.index(at)..=self.index(at + (len - 1));
        let mut lacking = range.skip_while(|index| entries.get(*index).is_some_and(|entry| entry.permits(write)));
        let first = lacking.next()?;
        let more = lacking.take_while(|index| !entries.get(*index).is_some_and(|entry| entry.permits(write)));
        let last = more.last().unwrap_or(first);
        let (at, last) = (self.extent(first).0, self.extent(last).1);
        Some(Missing { key, at, len: last - at + 1, write })
    }

    /// Writes pages; `None`, and nothing is written, where the region takes no such pages.
    ///
    /// Pages of a list may be larger than the region's.
    fn write(&mut self, listed: &Listed<'_>) -> Option<()> {
        let Listed { at, len, page_log2, words, writable } = *listed;
        let count = Self::page_count(at, len, page_log2).filter(|_| self.has(at, len))?;
        let fits = count == words.len() as u64 && page_log2 >= u64::from(self.page_log2);
        let aligned = words.iter().all(|word| word.trailing_zeros() >= self.page_log2);
        let indices = self.index(at)..=self.index(at + (len - 1));
        let (size_log2, base) = (self.page_log2, self.base >> self.page_log2);
        let Pages::OnDemand(entries) = &mut self.pages else { return None };
        let entries = entries.get_mut(indices.clone()).filter(|_| fits && aligned)?;
        for (index, entry) in indices.zip(entries) {
            let page = (base + index as u64) << size_log2;
            let word = words.get(((page >> page_log2) - (at >> page_log2)) as usize).copied().unwrap_or(0);
            *entry = Entry::new(word.wrapping_add(page & ((1 << page_log2) - 1)), writable);
        }
        Some(())
    }

    /// Takes pages away; `None` where it is no on-demand region of such bytes.
    fn take_away(&mut self, at: u64, len: u64) -> Option<Taken> {
        if len == 0 || !self.has(at, len) {
            return None;
        }
        let indices = self.index(at)..=self.index(at + (len - 1));
        let range = (self.extent(*indices.start()).0, self.extent(*indices.end()).1);
        let Pages::OnDemand(entries) = &mut self.pages else { return None };
        let taken = entries.get_mut(indices)?.iter_mut().map(std::mem::take);
        let written = taken.filter(|entry| entry.permits(true)).map(|entry| BusAddr::new(entry.page())).collect();
        self.taken += 1;
        Some(Taken { range, count: self.taken, written })
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
            return Some(Window::EMPTY);
        }
        let region = self.find(key).filter(|region| region.permits(domain, at, len, right))?;
        Some(Window::new(key, region, at, len))
    }

    /// Whether a key names one.
    pub(super) fn has(&self, key: Key) -> bool {
        self.find(key).is_some()
    }

    fn find_mut(&mut self, key: Key) -> Option<&mut Region> {
        let (generation, region) = self.list.get_mut((key.0 >> 8) as usize)?;
        region.as_mut().filter(|_| u32::from(*generation) == key.0 & 0xff)
    }

    /// Writes pages of an on-demand region; `None` where there is none that takes them.
    pub(super) fn write(&mut self, key: Key, listed: &Listed<'_>) -> Option<()> {
        self.find_mut(key)?.write(listed)
    }

    /// Takes pages of an on-demand region away, see [`Region::take_away`].
    pub(super) fn take_away(&mut self, key: Key, at: u64, len: u64) -> Option<Taken> {
        self.find_mut(key)?.take_away(at, len)
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
mod tests;
