//! A table of pages that come and go one by one.
//!
//! Devices that take page faults of their own (on-demand paging of RDMA adapters, GPUs that
//! share a process's memory) keep a window of a process in view: a page is put in when the
//! device faults on it and taken out when the process's kernel takes it back. IOVAs are
//! reserved once for the whole window, as Linux does in `hmm_dma_map_alloc` (7.2,
//! `mm/hmm.c`), so that a fault needs none and a page has the same IOVA each time.
//!
//! A page that is reached by a bus address or untranslated has nothing mapped, and taking it
//! out stops only a device that asks the table: for those the device's own translation is
//! what has to be invalidated first.
//!
//! Not here: waiting until the device has stopped using a page, and telling it.

mod error;

use crate::access::{MemAttrs, Prot};
use crate::addr::{AddrRange, Bytes, Granule, Iova};
use crate::chunk::Chunk;
use crate::dma::abilities::{Changes, Mmio, Placement, Sources};
use crate::dma::initiator::Initiator;
use crate::dma::io_space::{IoSpace, Source};
use crate::dma::owner::{Owner, Owners};
use crate::dma::reach::{Reach, Refusal};
use crate::dma::span::DeviceAddress;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;
pub use error::{FaultError, InvalidateError, MirrorError};

/// A page that the device may use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Page {
    /// Whose memory it shows.
    pub owner: Owner,
    /// Where in the owner it begins.
    pub offset: Bytes,
    /// What the device is handed.
    pub address: DeviceAddress,
    /// What the device may do.
    pub prot: Prot,
}

impl Page {
    fn is_translated(&self) -> bool {
        matches!(self.address, DeviceAddress::Iova(_))
    }
}

/// A window of pages, each in or out, over one reservation of IOVAs.
///
/// The address space is passed with each call and is the same one each time. Drop a mirror
/// after [`invalidate_all`](Self::invalidate_all): it cannot unmap what it does not hold.
#[derive(Clone, Debug)]
pub struct Mirror {
    window: AddrRange<Iova>,
    page: Granule,
    /// Highest number that the initiator can form, inclusive.
    highest: u64,
    /// What every mapping for the initiator says.
    attrs: MemAttrs,
    pages: Vec<Option<Page>>,
}

impl Mirror {
    /// A window with every page out. This is the one call that allocates.
    ///
    /// # Errors
    /// [`MirrorError`]: the initiator cannot have a mirror, or not there.
    pub fn new(initiator: &Initiator, window: AddrRange<Iova>, page: Granule) -> Result<Self, MirrorError> {
        if !initiator.is_coherent() {
            return Err(MirrorError::NotCoherent { initiator: initiator.name().into() });
        }
        if !page.aligns(window.start()) || !page.divides(window.len()) {
            return Err(MirrorError::NotWholePages { window, page });
        }
        let highest = initiator.highest();
        if window.last().as_u64() > highest {
            return Err(MirrorError::AboveMask { initiator: initiator.name().into(), window });
        }
        let count = window.len().as_u64() / page.bytes().as_u64();
        let count = usize::try_from(count).map_err(|_| MirrorError::NotWholePages { window, page })?;
        let attrs = if initiator.privileged { MemAttrs::PRIVILEGED } else { MemAttrs::empty() };
        Ok(Self { window, page, highest, attrs, pages: vec![None; count] })
    }

    /// Number of pages in the window.
    pub fn page_count(&self) -> usize {
        self.pages.len()
    }

    /// The page of this index, if it is in.
    pub fn page(&self, index: usize) -> Option<&Page> {
        self.pages.get(index)?.as_ref()
    }

    /// Lets the device use `chunk` as the page of this index, and says at which address.
    ///
    /// `reach` says how the owner is reached for `prot`, as
    /// [`Peers::reach`](crate::dma::reach::Peers::reach) does. A page that shows the same bytes
    /// already is widened where `prot` asks for more, else left alone. A space without
    /// [`Changes::RELINK`] has it out for a moment while it is widened.
    ///
    /// # Errors
    /// [`FaultError`]. The page is as before, except after a widening that fails half way
    /// ([`FaultError::Widen`]), which leaves it out.
    pub fn fault<S: IoSpace>(
        &mut self,
        space: &mut S,
        owners: &Owners<S::File>,
        index: usize,
        chunk: Chunk<Owner>,
        prot: Prot,
        reach: impl FnOnce(&Chunk<Owner>) -> Result<Reach, Refusal>,
    ) -> Result<Page, FaultError> {
        let iova = self.iova(index)?;
        if chunk.len() != self.page.bytes() || !self.page.divides(chunk.offset()) {
            return Err(FaultError::NotOnePage { chunk: chunk.len(), offset: chunk.offset(), page: self.page });
        }
        let (owner, offset) = (chunk.owner(), chunk.offset());
        let before = self.page(index).copied();
        let prot = match before {
            Some(page) if (page.owner, page.offset) != (owner, offset) => {
                return Err(FaultError::Shown { index, owner: page.owner, offset: page.offset });
            }
            Some(page) if page.prot == prot || page.prot == Prot::ReadWrite => return Ok(page),
            Some(_) => Prot::ReadWrite,
            None => prot,
        };
        let address = match reach(&chunk).map_err(FaultError::Refused)? {
            Reach::Bus { start, bridge } => {
                let address = start.checked_add(offset).ok_or(FaultError::Wraps { owner, offset })?;
                self.formable(DeviceAddress::Bus { address, bridge })?
            }
            Reach::Physical => self.untranslated(space, owners, &chunk)?,
            Reach::Iova => {
                let widened = before.filter(Page::is_translated).map(|_| index);
                self.map(space, owners, (iova, &chunk, prot), widened)?;
                DeviceAddress::Iova(iova.start())
            }
        };
        let page = Page { owner, offset, address, prot };
        self.pages[index] = Some(page);
        Ok(page)
    }

    /// Takes pages out; those that are out already stay so. Returns how many were in.
    ///
    /// # Errors
    /// [`InvalidateError::Unmap`] says which pages are still in; those before them are out.
    pub fn invalidate<S: IoSpace>(&mut self, space: &mut S, pages: Range<usize>) -> Result<usize, InvalidateError> {
        let count = self.pages.len();
        if pages.start > pages.end || pages.end > count {
            return Err(InvalidateError::NoSuchPages { first: pages.start, end: pages.end, count });
        }
        let several = space.abilities().changes.contains(Changes::UNMAP_SEVERAL);
        let (mut at, mut were_in) = (pages.start, 0);
        while at < pages.end {
            let mut end = at + 1;
            let translated = |page: &Option<Page>| page.is_some_and(|page| page.is_translated());
            if translated(&self.pages[at]) {
                while several && end < pages.end && translated(&self.pages[end]) {
                    end += 1;
                }
                let still_in = |error| InvalidateError::Unmap { first: at, end: pages.end, error };
                space.unmap(self.iovas(at, end)).map_err(still_in)?;
            }
            were_in += self.pages[at..end].iter_mut().filter_map(Option::take).count();
            at = end;
        }
        Ok(were_in)
    }

    /// Takes every page out, as has to be done before a mirror is dropped.
    ///
    /// # Errors
    /// As [`invalidate`](Self::invalidate).
    pub fn invalidate_all<S: IoSpace>(&mut self, space: &mut S) -> Result<usize, InvalidateError> {
        self.invalidate(space, 0..self.pages.len())
    }

    /// Maps a page, in place of what it showed with fewer permissions if it is `widened`.
    fn map<S: IoSpace>(
        &mut self,
        space: &mut S,
        owners: &Owners<S::File>,
        (iova, chunk, prot): (AddrRange<Iova>, &Chunk<Owner>, Prot),
        widened: Option<usize>,
    ) -> Result<(), FaultError> {
        let source = whole_page(owners, chunk, space.abilities().sources)?;
        let attrs = self.attrs.union(attrs_of(chunk));
        match widened {
            None => space.link(iova, &source, prot, attrs).map_err(FaultError::Map)?,
            Some(_) if space.abilities().changes.contains(Changes::RELINK) => {
                space.relink(iova, &source, prot, attrs).map_err(FaultError::Map)?;
            }
            Some(index) => {
                space.unmap(iova).map_err(FaultError::Unmap)?;
                self.pages[index] = None;
                space.link(iova, &source, prot, attrs).map_err(FaultError::Widen)?;
            }
        }
        space.sync(iova);
        Ok(())
    }

    /// The address of a page for an initiator that nothing translates for (Linux: `dma_direct_map_phys`).
    fn untranslated<S: IoSpace>(
        &self,
        space: &S,
        owners: &Owners<S::File>,
        chunk: &Chunk<Owner>,
    ) -> Result<DeviceAddress, FaultError> {
        let (owner, offset) = (chunk.owner(), chunk.offset());
        let taken = Sources { physical: Some(Mmio::AsMmio), ..Sources::default() };
        let not_shown = FaultError::NotShown { owner, offset };
        let Source::Physical(at) = whole_page(owners, chunk, taken)? else { return Err(not_shown) };
        let mmio = attrs_of(chunk).contains(MemAttrs::MMIO);
        self.formable(match &space.abilities().placement {
            Placement::Dictated(windows) if !mmio && !windows.are_one_to_one() => {
                let address = windows.show(at, chunk.len()).ok_or(not_shown)?;
                DeviceAddress::Bus { address, bridge: None }
            }
            _ => DeviceAddress::CpuPhysical(at),
        })
    }

    /// The address, if the initiator can put all of the page on its bus.
    fn formable(&self, address: DeviceAddress) -> Result<DeviceAddress, FaultError> {
        let last = address.as_u64().checked_add(self.page.bytes().as_u64() - 1);
        match last.is_some_and(|last| last <= self.highest) {
            true => Ok(address),
            false => Err(FaultError::AboveMask { address }),
        }
    }

    fn iova(&self, index: usize) -> Result<AddrRange<Iova>, FaultError> {
        match index < self.pages.len() {
            true => Ok(self.iovas(index, index + 1)),
            false => Err(FaultError::NoSuchPage { index, count: self.pages.len() }),
        }
    }

    /// The IOVAs of the pages `first..end`, which are in the window and not none.
    fn iovas(&self, first: usize, end: usize) -> AddrRange<Iova> {
        let page = self.page.bytes().as_u64();
        let (offset, len) = (Bytes::new(first as u64 * page), Bytes::new((end - first) as u64 * page));
        self.window.slice(offset, len).unwrap_or(self.window)
    }
}

/// What a mapping of the chunk says about it.
fn attrs_of(chunk: &Chunk<Owner>) -> MemAttrs {
    match chunk.owner().is_mmio() {
        true => chunk.attrs().union(MemAttrs::MMIO),
        false => chunk.attrs(),
    }
}

/// Where a page of an owner lies, in one piece.
fn whole_page<F: Clone>(owners: &Owners<F>, chunk: &Chunk<Owner>, taken: Sources) -> Result<Source<F>, FaultError> {
    let (owner, offset) = (chunk.owner(), chunk.offset());
    let stretch = owners.resolve(owner, offset, chunk.len(), taken).map_err(FaultError::NoSource)?;
    match stretch.len == chunk.len() {
        true => Ok(stretch.source),
        false => Err(FaultError::InPieces { owner, offset, first: stretch.len }),
    }
}
