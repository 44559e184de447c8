//! A DMA engine behind a table of pages that come and go one by one.

use super::super::importer::{Ended, Worker};
use super::super::party::Past;
use super::{Desk, Lent};
use crate::device::dma::Driver;
use crate::host::Space;
use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::{AddrRange, BusAddr, Bytes, Granule, Iova};
use peerdma::chunk::{Chunk, View};
use peerdma::dma::consumer::mirror::{FaultError, Mirror};
use peerdma::dma::{DeviceAddress, Owner, Owners};
use std::convert::Infallible;
use std::ops::Range;

/// Where the window is: far from what the seat's own IOVAs are given out from.
const WINDOW: Iova = Iova::new(1 << 44);
const PAGE: u64 = Granule::PAGE_4K.bytes().as_u64();

/// What the engine is at.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Job {
    None,
    /// It fills; the last word lies there.
    Fills(BusAddr),
    /// Nothing is left to do when it ends.
    Last,
}

/// A DMA engine whose pages are put in when a job needs them, and taken out page by page.
pub struct MirrorWorker<'c, 'a, 'm> {
    desk: &'c Desk<'a>,
    space: Space,
    owners: &'c Owners<Infallible>,
    driver: Driver<'m>,
    scratch: Lent<'c, 'a>,
    mirror: Mirror,
    /// What each page shows when it is in.
    pages: Vec<Chunk<Owner>>,
    /// Where the last page was that an IOMMU stood before.
    last: Option<BusAddr>,
    job: Job,
}

impl<'c, 'a, 'm> MirrorWorker<'c, 'a, 'm> {
    /// The engine of this driver, over a window of `len` bytes.
    ///
    /// # Errors
    /// Why the initiator cannot have such a window.
    pub fn new(
        (desk, space, owners): (&'c Desk<'a>, Space, &'c Owners<Infallible>),
        driver: Driver<'m>,
        scratch: Lent<'c, 'a>,
        len: Bytes,
    ) -> Result<Self, String> {
        let window = AddrRange::new(WINDOW, len).ok_or("a window of no bytes")?;
        let mirror = Mirror::new(desk.initiator(), window, Granule::PAGE_4K).map_err(|error| error.to_string())?;
        Ok(Self { desk, space, owners, driver, scratch, mirror, pages: Vec::new(), last: None, job: Job::None })
    }

    /// Puts a page in, and says where it is.
    fn fault(&mut self, index: usize) -> Result<DeviceAddress, FaultError> {
        let Self { desk, space, owners, mirror, pages, .. } = self;
        // One page past the last: the chunk is the last's, the refusal the window's.
        let chunk = pages.get(index).or(pages.last()).ok_or(FaultError::NoSuchPage { index, count: 0 })?;
        let reach = |chunk: &Chunk<Owner>| desk.reach(chunk.owner()).map(|reached| reached.reach);
        mirror.fault(space, owners, index, *chunk, Prot::ReadWrite, reach).map(|page| page.address)
    }

    fn wire(&mut self, at: u64) -> Result<BusAddr, FaultError> {
        let page = self.fault((at / PAGE) as usize)?;
        if matches!(page, DeviceAddress::Iova(_)) {
            self.last = Some(BusAddr::new(page.as_u64()));
        }
        Ok(BusAddr::new(page.as_u64() + at % PAGE))
    }
}

/// The pages that a part touches.
fn touched(at: u64, len: u64) -> Range<u64> {
    at / PAGE..(at + len).div_ceil(PAGE)
}

impl Worker for MirrorWorker<'_, '_, '_> {
    fn map(&mut self, place: View<'_, Owner>) -> Result<(), String> {
        let pages = place.iter().flat_map(|chunk| {
            let pages = 0..chunk.len().as_u64() / PAGE;
            pages.filter_map(move |page| {
                let offset = chunk.offset().checked_add(Bytes::new(page * PAGE))?;
                Chunk::new(chunk.owner(), offset, Bytes::new(PAGE), MemAttrs::empty())
            })
        });
        self.pages = pages.collect();
        self.last = None;
        Ok(())
    }

    fn unmap(&mut self) {
        // The window is the mirror's own, and so is each page in it.
        let _ = self.mirror.invalidate_all(&mut self.space);
        self.pages.clear();
    }

    fn start_late(&mut self, word: u64) -> bool {
        let Some(last) = self.last else { return false };
        self.driver.start_fill(last, Bytes::new(64), word);
        self.job = Job::Last;
        true
    }

    fn start(&mut self, (at, len): (Bytes, Bytes), word: u64) {
        let (at, len) = (at.as_u64(), len.as_u64());
        // One piece of addresses, where pages beside each other show memory that is so too.
        if let (1, Ok(first)) = (touched(at, len).count(), self.wire(at)) {
            self.driver.start_fill(first, Bytes::new(len), word);
            self.job = Job::Fills(BusAddr::new(first.as_u64() + len.saturating_sub(8)));
        }
    }

    fn ended(&mut self) -> Option<Ended> {
        let outcome = match self.job {
            Job::None => return Some(Ended::Failed("a page was refused".into())),
            Job::Fills(last) => match self.driver.poll()? {
                Ok(()) => {
                    self.driver.start_copy(last, self.scratch.at(), Bytes::new(8));
                    self.job = Job::Last;
                    return None;
                }
                Err(error) => Err(error),
            },
            Job::Last => self.driver.poll()?,
        };
        self.job = Job::None;
        Some(outcome.map_or_else(|error| Ended::Failed(error.to_string()), |()| Ended::Well))
    }

    fn past_the_end(&mut self, at: Bytes) -> Past {
        match self.wire(at.as_u64()) {
            Ok(_) => Past::Made,
            Err(error) => Past::Refused(error.to_string()),
        }
    }
}
