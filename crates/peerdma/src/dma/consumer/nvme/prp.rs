//! Physical region pages (§4.1.1): the data as addresses of memory pages.
//!
//! The first entry may point into a page, every other one names a whole page, and the
//! data fills all pages between first and last. Two entries stand in the command. Where
//! there are more, the second points to a list of pages full of entries, and the last
//! entry of each such page to the next one if there is more to come.

use super::{Controller, ListPage};
use crate::addr::{Bytes, Granule};
use crate::dma::consumer::joined::Joined;
use crate::dma::span::{DeviceAddress, Span};

/// The two entries of a command, after the list behind them was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prps {
    first: DeviceAddress,
    second: Option<DeviceAddress>,
    pages: u64,
    list_pages: usize,
    len: Bytes,
}

impl Prps {
    /// PRP entry 1: where the data begins.
    pub fn prp1(&self) -> DeviceAddress {
        self.first
    }

    /// PRP entry 2: the second page of two, or the list; `None` (write zero) if the data ends in its first page.
    pub fn prp2(&self) -> Option<DeviceAddress> {
        self.second
    }

    /// How many memory pages the data touches.
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// How many of the list pages are in use until the command completes.
    pub fn list_pages(&self) -> usize {
        self.list_pages
    }

    /// Bytes of data.
    pub fn len(&self) -> Bytes {
        self.len
    }

    /// Always false; no command without data gets here.
    pub fn is_empty(&self) -> bool {
        false
    }
}

/// Why data cannot be written as PRPs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrpError {
    /// There are no spans.
    #[error("a command without data has no PRPs; leave both entries zero")]
    Empty,
    /// The data does not begin at a multiple of four.
    #[error("the data begins at {address}, and PRP entry 1 takes multiples of 4; move it, or use an SGL")]
    NotDwordAligned {
        /// Where it begins.
        address: DeviceAddress,
    },
    /// A span in the middle does not begin at a page.
    #[error("the span at byte {at:#x} of the data begins at {address}, inside a page of {page}; use an SGL, or map the parts so that they continue each other", at = at.as_u64())]
    BeginsInsidePage {
        /// Where in the data.
        at: Bytes,
        /// Where it begins.
        address: DeviceAddress,
        /// Memory page of the controller.
        page: Granule,
    },
    /// What lies before a span in the middle does not end with a page.
    #[error("what lies before byte {at:#x} of the data ends inside a page of {page}; use an SGL, or map the parts so that they continue each other", at = at.as_u64())]
    EndsInsidePage {
        /// Where in the data the next span begins.
        at: Bytes,
        /// Memory page of the controller.
        page: Granule,
    },
    /// A span runs past the end of all addresses.
    #[error("the span at byte {at:#x} of the data runs from {address} past the last address", at = at.as_u64())]
    Wraps {
        /// Where in the data.
        at: Bytes,
        /// Where it begins.
        address: DeviceAddress,
    },
    /// The data is longer than one command takes.
    #[error("the data is longer than {longest}, which is all that one command transfers; split it")]
    TooLong {
        /// What a command transfers.
        longest: Bytes,
    },
    /// There are not enough pages for the list.
    #[error("{pages} pages of data need a list of {needed} pages, and {given} were given")]
    TooFewListPages {
        /// Pages of data.
        pages: u64,
        /// Pages of list.
        needed: u64,
        /// How many there are.
        given: usize,
    },
    /// A page for the list is none.
    #[error("list page {index} at {address} has {words} words and is not one whole memory page of {page}")]
    NoListPage {
        /// Which of those given.
        index: usize,
        /// Where the drive finds it.
        address: DeviceAddress,
        /// Its words.
        words: usize,
        /// Memory page of the controller.
        page: Granule,
    },
}

/// What a first pass over the spans tells.
struct Measure {
    first: DeviceAddress,
    pages: u64,
    len: u64,
}

impl Controller {
    /// Writes data as PRPs: the list into pages from the front of `list`, the two entries of the command as
    /// answer.
    ///
    /// Pages of the list are whole memory pages of the controller, and their words are
    /// overwritten only if all is well.
    ///
    /// # Errors
    /// [`PrpError`]; nothing was written.
    pub fn prps<I>(&self, spans: I, list: &mut [ListPage<'_>]) -> Result<Prps, PrpError>
    where
        I: Iterator<Item = Span> + Clone,
    {
        let measure = self.measure(spans.clone())?;
        let Measure { first, pages, len } = measure;
        let prps = |second, list_pages| Prps { first, second, pages, list_pages, len: Bytes::new(len) };
        let mut rest = PageWalk::new(spans, self.page_bytes()).skip(1);
        if pages <= 2 {
            return Ok(prps(rest.next(), 0));
        }
        let used = self.list_pages(list, pages)?;
        let second = list.first().map(|page| page.address);
        self.fill(rest, pages - 1, list);
        Ok(prps(second, used))
    }

    fn measure(&self, spans: impl Iterator<Item = Span>) -> Result<Measure, PrpError> {
        let (page, mask) = (self.page, self.page_bytes() - 1);
        let mut so_far: Option<Measure> = None;
        let mut ends_inside = false;
        for Span { at, address, len, .. } in Joined::new(spans) {
            let (raw, len) = (address.as_u64(), len.as_u64());
            let last = raw.checked_add(len - 1).ok_or(PrpError::Wraps { at, address })?;
            let measure = match &mut so_far {
                None if raw % 4 != 0 => return Err(PrpError::NotDwordAligned { address }),
                None => so_far.insert(Measure { first: address, pages: 0, len: 0 }),
                Some(_) if ends_inside => return Err(PrpError::EndsInsidePage { at, page }),
                Some(_) if raw & mask != 0 => return Err(PrpError::BeginsInsidePage { at, address, page }),
                Some(measure) => measure,
            };
            let total = measure.len.checked_add(len).filter(|total| *total <= self.longest.as_u64());
            measure.len = total.ok_or(PrpError::TooLong { longest: self.longest })?;
            // Fewer pages than bytes.
            measure.pages += (last & !mask).wrapping_sub(raw & !mask) / (mask + 1) + 1;
            ends_inside = last & mask != mask;
        }
        so_far.ok_or(PrpError::Empty)
    }

    /// How many of the pages the list takes, if they are there and whole.
    fn list_pages(&self, list: &[ListPage<'_>], pages: u64) -> Result<usize, PrpError> {
        let per_page = self.page_bytes() / 8;
        // The last word of each page but the last is taken by the way to the next.
        let needed = (pages - 2).div_ceil(per_page - 1);
        let short = PrpError::TooFewListPages { pages, needed, given: list.len() };
        let used = usize::try_from(needed).ok().and_then(|needed| list.get(..needed)).ok_or(short)?;
        let whole = |page: &ListPage<'_>| {
            page.words.len() as u64 == per_page && self.page.divides(Bytes::new(page.address.as_u64()))
        };
        match used.iter().position(|page| !whole(page)) {
            None => Ok(used.len()),
            Some(index) => Err(PrpError::NoListPage {
                index,
                address: used[index].address,
                words: used[index].words.len(),
                page: self.page,
            }),
        }
    }

    /// Writes so many entries into pages that were found to suffice.
    fn fill(&self, mut entries: impl Iterator<Item = DeviceAddress>, count: u64, list: &mut [ListPage<'_>]) {
        let mut left = count;
        let mut pages = list.iter_mut().peekable();
        while let Some(page) = pages.next() {
            let words = page.words.len() as u64;
            let chained = left > words;
            let here = if chained { words - 1 } else { left };
            left -= here;
            let (entry_words, way) = page.words.split_at_mut(here as usize);
            for (word, entry) in entry_words.iter_mut().zip(entries.by_ref()) {
                *word = entry.as_u64().to_le();
            }
            match (chained, way.first_mut(), pages.peek()) {
                (true, Some(way), Some(next)) => *way = next.address.as_u64().to_le(),
                _ => return,
            }
        }
    }
}

/// The address of each page that spans touch; the first as it is, inside its page.
struct PageWalk<I> {
    spans: Joined<I>,
    /// Where the next page begins, and how many bytes are left from there.
    next: Option<(DeviceAddress, u64)>,
    page: u64,
}

impl<I: Iterator<Item = Span>> PageWalk<I> {
    fn new(spans: I, page: u64) -> Self {
        Self { spans: Joined::new(spans), next: None, page }
    }
}

impl<I: Iterator<Item = Span>> Iterator for PageWalk<I> {
    type Item = DeviceAddress;

    #[inline]
    fn next(&mut self) -> Option<DeviceAddress> {
        let (address, left) = match self.next.take() {
            Some(next) => next,
            None => self.spans.next().map(|span| (span.address, span.len.as_u64()))?,
        };
        let step = self.page - (address.as_u64() & (self.page - 1));
        if step < left {
            // Nothing wraps: the span's last byte was measured.
            self.next = address.checked_add(Bytes::new(step)).map(|next| (next, left - step));
        }
        Some(address)
    }
}
