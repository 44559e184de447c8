//! Free IOVAs of one domain.

use super::tree::{Is, State, Tree};
use super::{ClaimError, ExcludeError, Exhausted, FreeError, IovaRanges, NothingUsable, Want};
use crate::addr::{AddrRange, Bytes, Granule, Iova};
use alloc::collections::BTreeMap;

/// Hands out IOVAs and takes them back.
///
/// The highest place that fits is taken, as in Linux (`alloc_iova`), which leaves low
/// addresses to devices that can form no others: first the highest free block of the
/// length rounded up to a power of two, of which only the length itself is taken; if there
/// is none, the highest gap that takes the range at all. So allocation fails only if no
/// gap does. Address 0 is never handed out, as in Linux (`init_iova_domain`).
///
/// The first step is constant time. The second looks at gaps half as long as the range
/// or longer, one by one, and so is slower the fuller and the more fragmented the space.
///
/// No range costs heap: two bits for each granule, in pieces of 4096 granules that exist
/// only where some but not all of them are used by one. Guarded ranges are the exception.
///
/// ```
/// use peerdma::addr::{Bytes, Granule, Iova};
/// use peerdma::iova::{Allocator, IovaRanges, Want};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let usable = IovaRanges::from_inclusive([(Iova::new(0), Iova::new(0xffff_ffff))])?;
/// let mut iovas = Allocator::new(Granule::PAGE_4K, &usable)?;
/// let range = iovas.allocate(&Want::new(Bytes::new(5 << 12)))?;
/// assert_eq!(range.start(), Iova::new(0xffff_8000)); // a multiple of 8 pages
/// assert_eq!(range.len(), Bytes::new(5 << 12));
/// iovas.free(range)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Allocator {
    granule: Granule,
    tree: Tree,
    /// Free pages.
    free: u64,
    /// Guarded ranges by their first page.
    guarded: BTreeMap<u64, Guarded>,
}

#[derive(Clone, Copy, Debug)]
struct Guarded {
    last: u64,
    /// Pages kept free on each side.
    guard: u64,
}

impl Allocator {
    /// An allocator of all that is usable, in multiples of `granule`.
    ///
    /// Granules that are usable only in part are not handed out, and where two usable ranges touch,
    /// the last granule of the lower one is not either, since no mapping may lie in both.
    ///
    /// # Errors
    /// [`NothingUsable`] if that leaves nothing.
    pub fn new(granule: Granule, usable: &IovaRanges) -> Result<Self, NothingUsable> {
        let shift = shift(granule);
        let top = usable.as_slice().last().ok_or(NothingUsable { granule })?;
        let mut this =
            Self { granule, tree: Tree::new(top.last().as_u64() >> shift), free: 0, guarded: BTreeMap::new() };
        for (nth, range) in usable.as_slice().iter().enumerate() {
            let Some((first, mut last)) = whole_pages(range, shift) else { continue };
            let next = usable.as_slice().get(nth + 1).and_then(|next| whole_pages(next, shift));
            if next.is_some_and(|(first_of_next, _)| first_of_next == last + 1) {
                last -= 1;
            }
            let first = first.max(1);
            if first <= last {
                this.tree.put(first, last, State::Free);
                this.free += last - first + 1;
            }
        }
        if this.free == 0 { Err(NothingUsable { granule }) } else { Ok(this) }
    }

    /// What ranges are multiples of.
    #[inline]
    pub const fn granule(&self) -> Granule {
        self.granule
    }

    /// Keeps `range` from being handed out: interrupt windows, host-bridge windows, what no DMA range covers.
    ///
    /// Granules that it covers in part are excluded too. What is not usable anyway stays so; nothing brings an
    /// excluded range back.
    ///
    /// # Errors
    /// [`ExcludeError`] if something there is allocated; then nothing is excluded.
    pub fn exclude(&mut self, range: AddrRange<Iova>) -> Result<(), ExcludeError> {
        let shift = shift(self.granule);
        let (first, last) = (range.start().as_u64() >> shift, range.last().as_u64() >> shift);
        if let Some((start, run)) = self.guarded_near(first, last) {
            let allocated = self.range(start, run.last);
            return Err(ExcludeError::Allocated { range, allocated, guard: Bytes::new(run.guard << shift) });
        }
        if let Some(page) = self.tree.next(first, Is::Taken).filter(|&page| page <= last) {
            return Err(ExcludeError::Allocated { range, allocated: self.allocated_at(page), guard: Bytes::ZERO });
        }
        let mut from = first;
        while let Some(start) = self.tree.next(from, Is::Free).filter(|&page| page <= last) {
            let end = self.tree.next(start, Is::NotFree).map_or(self.tree.last(), |page| page - 1).min(last);
            self.tree.put(start, end, State::Barred);
            self.free -= end - start + 1;
            let Some(next) = end.checked_add(1) else { break };
            from = next;
        }
        Ok(())
    }

    /// Allocates what is wanted; the range's length is the one wanted, rounded up to whole granules.
    ///
    /// # Errors
    /// [`Exhausted`] if no gap takes it, with the largest one that there is.
    #[inline]
    pub fn allocate(&mut self, want: &Want) -> Result<AddrRange<Iova>, Exhausted> {
        let shift = shift(self.granule);
        let placed = match (pages(want.len(), shift), last_whole_page(want.limit(), shift)) {
            (Some(pages), Some(limit)) => self.place(want, pages, limit, shift).map(|first| (first, pages)),
            _ => None,
        };
        let Some((first, pages)) = placed else { return Err(self.exhausted(want)) };
        self.free -= pages;
        Ok(self.range(first, first + (pages - 1)))
    }

    #[inline(always)]
    fn place(&mut self, want: &Want, pages: u64, limit: u64, of_granule: u32) -> Option<u64> {
        let natural = order(pages);
        let align = want.align().map_or(natural, |align| shift(align).saturating_sub(of_granule));
        if want.guard() == Bytes::ZERO
            && let Some(first) = self.tree.take(pages, natural.max(align), limit)
        {
            return Some(first);
        }
        self.place_in_gap(want, pages, align, limit)
    }

    /// Takes the highest aligned place in the highest gap that has one, guard space included.
    #[cold]
    fn place_in_gap(&mut self, want: &Want, pages: u64, align: u32, limit: u64) -> Option<u64> {
        let guard = match want.guard() {
            Bytes::ZERO => 0,
            guard => self::pages(guard, shift(self.granule))?,
        };
        let stretch = guard.checked_mul(2)?.checked_add(pages)?;
        // A stretch of 2^(n+1) - 1 pages holds an aligned block of 2^n, wherever it starts; one that starts at a
        // multiple of 2^n does if it has that many.
        let anywhere = ((stretch >> 1) + (stretch & 1)).ilog2();
        let aligned = pages.ilog2().min(align);
        let least = anywhere.max(aligned);
        let mut gap = self.tree.gap(least, limit.saturating_add(guard));
        while let Some((low, high)) = gap {
            if let Some(first) = highest_place(low, high, limit, pages, align, guard) {
                let last = first + (pages - 1);
                if guard > 0 {
                    self.tree.put(first - guard, first - 1, State::Barred);
                    self.tree.put(last + 1, last + guard, State::Barred);
                    self.guarded.insert(first, Guarded { last, guard });
                    self.free -= 2 * guard;
                }
                self.tree.put(first, last, State::Head);
                return Some(first);
            }
            gap = self.tree.gap(least, low.checked_sub(1)?);
        }
        None
    }

    #[cold]
    fn exhausted(&self, want: &Want) -> Exhausted {
        Exhausted { want: *want, largest_gap: self.largest_gap_range(want.limit()) }
    }

    /// Allocates exactly `range`.
    ///
    /// # Errors
    /// [`ClaimError`], which names what is in the way; then nothing is allocated.
    pub fn claim(&mut self, range: AddrRange<Iova>) -> Result<(), ClaimError> {
        let Some((first, last)) = self.exact_pages(&range) else {
            return Err(ClaimError::Unaligned { range, granule: self.granule });
        };
        let at = |page: u64| Iova::new(page << shift(self.granule));
        if let Some(page) = self.tree.next(first, Is::NotFree).filter(|&page| page <= last) {
            return Err(match (self.tree.state(page), self.guarded_near(page, page)) {
                (State::Head | State::Rest, _) => ClaimError::Allocated { range, allocated: self.allocated_at(page) },
                (_, Some((of, run))) => ClaimError::Guard { range, at: at(page), of: self.range(of, run.last) },
                (_, None) => ClaimError::Unusable { range, at: at(page) },
            });
        }
        if last > self.tree.last() {
            return Err(ClaimError::Unusable { range, at: at(first.max(self.tree.last() + 1)) });
        }
        self.tree.put(first, last, State::Head);
        self.free -= last - first + 1;
        Ok(())
    }

    /// Takes back a range that was allocated or claimed, and the guard space beside it.
    ///
    /// # Errors
    /// [`FreeError`] unless it is exactly that, all of it and only once; then nothing changes.
    #[inline]
    pub fn free(&mut self, range: AddrRange<Iova>) -> Result<(), FreeError> {
        let Some((first, last)) = self.exact_pages(&range) else { return Err(self.stranger(range)) };
        if !self.tree.release(first, last) {
            return Err(self.stranger(range));
        }
        self.free += last - first + 1;
        if !self.guarded.is_empty() {
            self.free_guard(first, last);
        }
        Ok(())
    }

    fn free_guard(&mut self, first: u64, last: u64) {
        if let Some(Guarded { guard, .. }) = self.guarded.remove(&first) {
            self.tree.put(first - guard, first - 1, State::Free);
            self.tree.put(last + 1, last + guard, State::Free);
            self.free += 2 * guard;
        }
    }

    #[cold]
    fn stranger(&self, range: AddrRange<Iova>) -> FreeError {
        let page = range.start().as_u64() >> shift(self.granule);
        match self.tree.state(page) {
            State::Head | State::Rest => FreeError::Differs { range, allocated: self.allocated_at(page) },
            State::Free | State::Barred => FreeError::NotAllocated { range },
        }
    }

    /// Free bytes, wherever they are.
    pub fn free_bytes(&self) -> Bytes {
        Bytes::new(self.free << shift(self.granule))
    }

    /// Length of the longest range of free IOVAs up to `limit`, inclusive, whatever its alignment.
    pub fn largest_gap(&self, limit: Iova) -> Bytes {
        self.largest_gap_range(limit).map_or(Bytes::ZERO, |range| range.len())
    }

    /// The longest range of free IOVAs up to `limit`, inclusive, the highest of several.
    pub fn largest_gap_range(&self, limit: Iova) -> Option<AddrRange<Iova>> {
        let limit = last_whole_page(limit, shift(self.granule))?;
        let largest_block = (0..self.tree.rank()).rev().find(|&order| self.tree.gap(order, limit).is_some())?;
        // A stretch whose largest block is two orders smaller is shorter than that block.
        let least = largest_block.saturating_sub(1);
        let mut largest: Option<(u64, u64)> = None;
        let mut gap = self.tree.gap(least, limit);
        while let Some((low, high)) = gap {
            if largest.is_none_or(|(first, last)| high - low > last - first) {
                largest = Some((low, high));
            }
            gap = low.checked_sub(1).and_then(|below| self.tree.gap(least, below));
        }
        largest.map(|(first, last)| self.range(first, last))
    }

    /// The allocated range that holds `page`, which is allocated.
    fn allocated_at(&self, page: u64) -> AddrRange<Iova> {
        let first = self.tree.previous(page, Is::Head).unwrap_or(page);
        self.range(first, self.tree.run_from(first).unwrap_or(page))
    }

    /// A guarded range that has a page of `first..=last`, guard space included.
    fn guarded_near(&self, first: u64, last: u64) -> Option<(u64, Guarded)> {
        let near = |(start, run): &(u64, Guarded)| start - run.guard <= last && first <= run.last + run.guard;
        self.guarded.iter().map(|(&start, &run)| (start, run)).find(near)
    }

    /// Pages of a range made of whole granules.
    #[inline(always)]
    fn exact_pages(&self, range: &AddrRange<Iova>) -> Option<(u64, u64)> {
        let (start, len) = (range.start().as_u64(), range.len().as_u64());
        let inside = self.granule.bytes().as_u64() - 1;
        if (start | len) & inside != 0 {
            return None;
        }
        let first = start >> shift(self.granule);
        Some((first, first + ((len >> shift(self.granule)) - 1)))
    }

    /// The addresses of pages of the space.
    #[inline(always)]
    fn range(&self, first: u64, last: u64) -> AddrRange<Iova> {
        let shift = shift(self.granule);
        let start = Iova::new(first << shift);
        match AddrRange::new(start, Bytes::new((last - first + 1) << shift)) {
            Some(range) => range,
            None => unreachable!("pages {first} to {last} of the space have no addresses"),
        }
    }
}

/// The granule's size as a power of two, below 64.
#[inline(always)]
pub(super) const fn shift(granule: Granule) -> u32 {
    granule.bytes().as_u64().trailing_zeros() & 63
}

/// Granules that a length takes, at least one; `None` if they exceed the space.
#[inline(always)]
fn pages(len: Bytes, shift: u32) -> Option<u64> {
    let last = len.as_u64().saturating_sub(1);
    (last >> shift).checked_add(1)
}

/// The order of the smallest block that holds so many pages.
#[inline(always)]
const fn order(pages: u64) -> u32 {
    64 - (pages - 1).leading_zeros()
}

/// The last granule that ends at `limit` or below.
#[inline(always)]
fn last_whole_page(limit: Iova, shift: u32) -> Option<u64> {
    let inside = (1 << shift) - 1;
    let page = limit.as_u64() >> shift;
    if limit.as_u64() & inside == inside { Some(page) } else { page.checked_sub(1) }
}

/// The first and the last granule that lie in a range as a whole.
fn whole_pages(range: &AddrRange<Iova>, shift: u32) -> Option<(u64, u64)> {
    let inside = (1u64 << shift) - 1;
    let first = range.start().as_u64().checked_add(inside)? >> shift;
    let last = last_whole_page(range.last(), shift)?;
    (first <= last).then_some((first, last))
}

/// The highest aligned first page such that the pages lie in `low..=high` with their guard, and up to `limit`.
fn highest_place(low: u64, high: u64, limit: u64, pages: u64, align: u32, guard: u64) -> Option<u64> {
    let last = high.checked_sub(guard)?.min(limit);
    let highest = last.checked_sub(pages - 1)?;
    let first = if align < 64 { highest & (u64::MAX << align) } else { 0 };
    (first >= low.checked_add(guard)?).then_some(first)
}
