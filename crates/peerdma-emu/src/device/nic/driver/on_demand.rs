//! On-demand regions: faults that the driver serves, and pages that it takes away.

use super::super::command::{NO_VECTOR, number};
use super::super::fault::WRITE;
use super::super::region::{Key, Rights};
use super::super::{Refused, register};
use super::{Domain, Driver, Error};
use crate::device::channel::{COMPLETION, Completion, until};
use crate::device::driver::{Mmio, Shared};
use peerdma::access::Prot;
use peerdma::addr::{Bytes, Granule};
use peerdma::dma::Span;
use peerdma::dma::consumer::rdma::{Region, RegionAddr};

/// Bytes of an on-demand region that an access found no page for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageFault {
    /// The region.
    pub key: Key,
    /// The first of the bytes: the region's base, or where one of its pages begins.
    pub at: RegionAddr,
    /// How many; to the region's end, or to the end of one of its pages.
    pub len: Bytes,
    /// Whether they are to be written.
    pub write: bool,
    /// The adapter's own number for it.
    ticket: u32,
}

/// What a driver does about a page fault.
#[derive(Clone, Copy, Debug)]
pub enum Answer<I> {
    /// Here are pages; more than were asked for, or fewer.
    Pages {
        /// Where in the on-demand region they belong, and what is there.
        region: Region<I>,
        /// What the adapter may do with them; it asks again for what is missing.
        prot: Prot,
    },
    /// There are none, and the work that needs them fails.
    Refuse,
}

/// Pages that were taken away, and may still be in use.
///
/// What holding one tells you: accesses that begin now find no page. Once
/// [`Driver::is_invalidated`] says so, none that began before is left either, its writes are where
/// they were going, and the memory may be given to somebody else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "the pages may be in use until the adapter says otherwise"]
pub struct Invalidation(u64);

/// Page faults of an adapter, in the order in which they happened.
pub struct FaultQueue<'m> {
    mmio: &'m dyn Mmio,
    events: Shared,
    slots: u64,
    read: u64,
}

impl FaultQueue<'_> {
    /// Bytes of memory for `2^slots_log2` events.
    pub const fn bytes(slots_log2: u8) -> Bytes {
        Bytes::new(COMPLETION << if slots_log2 < 12 { slots_log2 } else { 12 })
    }

    /// The next fault, if there is one; it is to be answered by [`Driver::resume`].
    pub fn poll(&mut self) -> Option<PageFault> {
        let mut slot = [0; COMPLETION as usize];
        let at = Bytes::new(COMPLETION * (self.read & (self.slots - 1)));
        self.events.read(at, &mut slot).ok()?;
        let Completion { value, tag, status, detail } = Completion::decode(slot, self.read + 1)?;
        self.read += 1;
        self.mmio.store(0, register::EVENTS_CONSUMED, self.read & u64::from(u32::MAX), 4);
        Some(PageFault {
            key: Key::new(status),
            at: RegionAddr::new(value),
            len: Bytes::new(tag),
            write: detail & WRITE != 0,
            ticket: detail & !WRITE,
        })
    }

    /// Serves the faults that there are: asks for the pages of each, writes them, and resumes it; how
    /// many there were.
    ///
    /// # Errors
    /// The first [`Error`] of a command, after the fault that it belongs to was refused. That the region is
    /// gone or has no such pages is none: whoever waits for it is refused, and the next fault is served.
    pub fn serve<I: Iterator<Item = Span> + Clone>(
        &mut self,
        driver: &Driver<'_>,
        mut pages: impl FnMut(&PageFault) -> Answer<I>,
    ) -> Result<u64, Error> {
        let mut served = 0;
        while let Some(fault) = self.poll() {
            served += 1;
            let written = match pages(&fault) {
                Answer::Pages { region, prot } => driver.write_pages(fault.key, &region, prot).map(|()| true),
                Answer::Refuse => Ok(false),
            };
            driver.resume(&fault, written == Ok(true))?;
            match written {
                Ok(_) | Err(Error::Refused(Refused::Invalid)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(served)
    }
}

impl<'m> Driver<'m> {
    /// Has the adapter tell of page faults in `2^slots_log2` slots of `memory`, which is at a multiple of 32.
    ///
    /// There are no more faults at a time than slots, and than 64. `vector` is the interrupt of each; none
    /// to look at the memory alone.
    ///
    /// # Errors
    /// [`Error::Memory`] where the memory is not [`FaultQueue::bytes`] long; [`Refused::Invalid`] for more than
    /// 4096 slots; [`Refused::Busy`] while faults of an earlier queue are not resumed.
    pub fn watch_faults(&self, memory: &Shared, slots_log2: u8, vector: Option<u16>) -> Result<FaultQueue<'m>, Error> {
        let events = memory.slice(Bytes::ZERO, FaultQueue::bytes(slots_log2))?;
        // Events of an earlier life of the memory would pass for ours.
        events.write(Bytes::ZERO, &vec![0; events.len().as_u64() as usize])?;
        let vector = vector.map_or(NO_VECTOR, u64::from);
        self.command(number::WATCH_FAULTS, &[events.device().as_u64(), u64::from(slots_log2), vector])?;
        Ok(FaultQueue { mmio: self.mmio, slots: events.len().as_u64() / COMPLETION, events, read: 0 })
    }

    /// Registers a region that has no pages yet; the adapter asks for them when they are needed.
    ///
    /// # Errors
    /// [`Refused::Invalid`] where nobody [watches](Self::watch_faults), or base and length make no region;
    /// [`Refused::Exhausted`] where it has too many pages.
    pub fn register_on_demand(
        &self,
        domain: Domain,
        rights: Rights,
        (base, len): (RegionAddr, Bytes),
        page: Granule,
    ) -> Result<Key, Error> {
        let arguments = [domain.with(rights), base.as_u64(), len.as_u64(), log2(page)];
        Ok(Key::new(self.command(number::REGISTER_ON_DEMAND, &arguments)? as u32))
    }

    /// Writes pages of an on-demand region, unasked or before a fault is resumed.
    ///
    /// `region` says where they belong, and `prot` what the adapter may do with them.
    ///
    /// # Errors
    /// [`Refused::Invalid`] where the key names no on-demand region with these bytes, or whose pages are no
    /// larger than those of `region`; [`Error::Memory`] where their list is too long for the memory for lists.
    pub fn write_pages<I: Iterator<Item = Span> + Clone>(
        &self,
        key: Key,
        region: &Region<I>,
        prot: Prot,
    ) -> Result<(), Error> {
        let count = self.list(region.pages())?;
        let first = u64::from(key.as_u32()) | u64::from(prot.writes()) << 32;
        let place = [region.base().as_u64(), region.len().as_u64(), log2(region.page())];
        let [base, len, page] = place;
        self.command(number::WRITE_PAGES, &[first, base, len, page, self.lists.device().as_u64(), count]).map(drop)
    }

    /// Ends a fault: what waits tries again where it is `served`, and fails where it is not.
    ///
    /// # Errors
    /// [`Refused::Invalid`] where it was resumed before.
    pub fn resume(&self, fault: &PageFault, served: bool) -> Result<(), Error> {
        self.command(number::RESUME, &[u64::from(fault.ticket), u64::from(!served)]).map(drop)
    }

    /// Takes pages of an on-demand region away, and waits for nobody who uses them.
    ///
    /// Pages that lie in the range with a part go as a whole. Work that needs them faults; what is
    /// being sent from them goes on with what they hold until the invalidation is done.
    ///
    /// # Errors
    /// [`Refused::Invalid`] where the key names no on-demand region with these bytes;
    /// [`Refused::Exhausted`] while 64 invalidations are not done.
    pub fn invalidate(&self, key: Key, at: RegionAddr, len: Bytes) -> Result<Invalidation, Error> {
        let arguments = [u64::from(key.as_u32()), at.as_u64(), len.as_u64()];
        self.command(number::INVALIDATE, &arguments).map(Invalidation)
    }

    /// Whether nobody uses the pages of an invalidation any more.
    ///
    /// Asks the adapter once and waits for nothing.
    pub fn is_invalidated(&self, invalidation: Invalidation) -> bool {
        let done = self.mmio.load(0, register::INVALIDATED, 8);
        // An adapter that is gone reads as all ones, and uses nothing.
        done >= invalidation.0
    }

    /// Waits until nobody uses the pages of an invalidation any more.
    ///
    /// # Errors
    /// [`Error::Stalled`] where that does not come although nothing moves any more, as after a reset.
    pub fn await_invalidation(&self, invalidation: Invalidation) -> Result<(), Error> {
        until(self.mmio, || self.is_invalidated(invalidation).then_some(())).ok_or(Error::Stalled)
    }
}

/// The size of pages as a power of two.
fn log2(page: Granule) -> u64 {
    u64::from(page.bytes().as_u64().trailing_zeros())
}
