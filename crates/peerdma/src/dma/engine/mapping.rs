//! What a device can use.

use super::context::Context;
use super::error::UnlinkError;
use super::reservation::Reservation;
use super::{Bounced, Lists, Noted};
use crate::addr::{AddrRange, Bytes, Iova};
use crate::dma::bounce::{Bouncer, MemoryError, Towards};
use crate::dma::initiator::Segments;
use crate::dma::io_space::IoSpace;
use crate::dma::publish::{Leg, Publish, Sender, publish};
use crate::dma::span::Span;
use crate::iova::Depot;
use core::mem::{self, ManuallyDrop};
use core::panic::Location;

/// Ranges that the device sees, with the addresses to hand to it.
///
/// Holding one tells you that its ranges are mapped and visible. Dropping it unmaps them and gives
/// the IOVAs back; [`unlink`](Self::unlink) does so too, reports what fails, and keeps the IOVAs
/// for the next mapping.
///
/// Nothing here leads from a device's address to where it goes:
///
/// ```compile_fail
/// # use peerdma::dma::{IoSpace, Mapping};
/// # use peerdma::iova::Depot;
/// fn backwards<S: IoSpace, D: Depot>(mapping: &Mapping<'_, '_, S, D>) -> peerdma::addr::PhysAddr {
///     mapping.translate(mapping.spans().next().unwrap().address)
/// }
/// ```
#[derive(Debug)]
#[must_use = "dropping a mapping unmaps it"]
pub struct Mapping<'c, 'a, S: IoSpace, D: Depot> {
    pub(super) context: &'c Context<'a, S, D>,
    iova: Option<AddrRange<Iova>>,
    /// The mapped part of the IOVAs.
    used: Option<AddrRange<Iova>>,
    reserved: Bytes,
    len: Bytes,
    pub(super) lists: Lists,
}

impl<'c, 'a, S: IoSpace, D: Depot> Mapping<'c, 'a, S, D> {
    pub(super) fn new(
        context: &'c Context<'a, S, D>,
        iova: Option<AddrRange<Iova>>,
        used: Option<AddrRange<Iova>>,
        (reserved, len): (Bytes, Bytes),
        lists: Lists,
    ) -> Self {
        Self { context, iova, used, reserved, len, lists }
    }

    /// Bytes mapped.
    pub fn len(&self) -> Bytes {
        self.len
    }

    /// Always false; nothing of no length is mapped.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// What to hand to the device, in the order of linking, cut to what its segments accept.
    ///
    /// No span is empty; together they are [`len`](Self::len) bytes long.
    pub fn spans(&self) -> Spans<'_> {
        Spans { spans: &self.lists.spans, segments: self.context.initiator.segments, rest: None }
    }

    /// What must happen after `sender` wrote here and before it writes to `doorbell`, so that whoever
    /// sees the doorbell sees the payload; each step cites its rule.
    pub fn publish<T: IoSpace, E: Depot>(&self, doorbell: &Mapping<'_, '_, T, E>, sender: Sender) -> Publish {
        let leg = |noted: &Noted| Leg::of(&noted.span).ending_at(noted.end);
        let pairs = self.lists.spans.iter().flat_map(|payload| {
            doorbell.lists.spans.iter().map(move |ring| publish(&leg(payload), &leg(ring), sender))
        });
        pairs.fold(Publish::nothing(), Publish::and)
    }

    /// Brings copies up to date before the device uses them; nothing to do without copies.
    ///
    /// # Errors
    /// [`MemoryError`] of whoever owns the memory; the copies before it are up to date.
    pub fn sync_for_device(&self) -> Result<(), MemoryError> {
        self.sync_part(Bytes::ZERO, self.len, Towards::Device)
    }

    /// Brings the originals up to date after the device wrote; nothing to do without copies.
    ///
    /// # Errors
    /// As [`sync_for_device`](Self::sync_for_device).
    pub fn sync_for_cpu(&self) -> Result<(), MemoryError> {
        self.sync_part(Bytes::ZERO, self.len, Towards::Cpu)
    }

    /// Does so for `len` bytes from `at`, counted from the start of the mapping.
    ///
    /// What the device may not write is not copied back. What it may only write is copied to it when it
    /// is mapped and not again, since it may be writing right now (Linux 7.2 `swiotlb_sync_single_for_device`).
    ///
    /// # Errors
    /// As [`sync_for_device`](Self::sync_for_device).
    pub fn sync_part(&self, at: Bytes, len: Bytes, towards: Towards) -> Result<(), MemoryError> {
        let Some(pool) = self.context.bouncer else { return Ok(()) };
        self.lists.bounced.iter().try_for_each(|copy| copy.sync_part(pool, at, len, towards))
    }

    /// Unmaps, writes copies back, and keeps the IOVAs for the next mapping.
    ///
    /// The device must have finished; what it still does ends in faults.
    ///
    /// # Errors
    /// [`UnlinkError`] says what stays mapped; those IOVAs are not used again.
    #[track_caller]
    pub fn unlink(self) -> Result<Reservation<'c, 'a, S, D>, UnlinkError> {
        let mut this = ManuallyDrop::new(self);
        let unlinked = this.take_apart(Location::caller());
        let (iova, lists) = (this.iova.take(), mem::take(&mut this.lists));
        let mut reservation = Reservation::new(this.context, iova, this.reserved, lists);
        match unlinked {
            Ok(()) => {
                reservation.clear();
                Ok(reservation)
            }
            Err(error) => {
                if matches!(error, UnlinkError::Space { .. }) {
                    reservation.lose();
                }
                Err(error)
            }
        }
    }

    /// Unmaps and writes copies back; what the device still reaches stays taken, and mapped for the watch.
    #[inline]
    fn take_apart(&mut self, at: &'static Location<'static>) -> Result<(), UnlinkError> {
        let unmapped = match self.used.take() {
            Some(used) => self.unmap(used),
            None => Ok(()),
        };
        let gone = !matches!(unmapped, Err(UnlinkError::Space { .. }));
        if let Some(watch) = self.context.watch.filter(|_| gone) {
            self.lists.spans.iter().for_each(|noted| watch.unmapped(&noted.span, at));
        }
        if self.lists.bounced.is_empty() {
            return unmapped;
        }
        // The device cannot write any more, or its writes have nowhere to go.
        let written = self.write_back();
        self.lists.let_go(self.context.bouncer, gone);
        unmapped.and(written.map_err(UnlinkError::Memory))
    }

    /// Brings all originals up to date, also those after one that fails; the last chance to do so.
    #[cold]
    fn write_back(&self) -> Result<(), MemoryError> {
        let Some(pool) = self.context.bouncer else { return Ok(()) };
        let mut first = Ok(());
        for copy in &self.lists.bounced {
            first = first.and(copy.sync_part(pool, Bytes::ZERO, self.len, Towards::Cpu));
        }
        first
    }

    #[inline]
    fn unmap(&mut self, used: AddrRange<Iova>) -> Result<(), UnlinkError> {
        match self.context.inner.borrow_mut().space.unmap(used) {
            Ok(unmapped) if unmapped == used.len() => Ok(()),
            Ok(unmapped) => Err(UnlinkError::Short { iova: used, mapped: used.len(), unmapped }),
            Err(error) => Err(UnlinkError::Space { still_mapped: used, error }),
        }
    }
}

impl<S: IoSpace, D: Depot> Drop for Mapping<'_, '_, S, D> {
    #[track_caller]
    fn drop(&mut self) {
        let unlinked = self.take_apart(Location::caller());
        if matches!(unlinked, Err(UnlinkError::Space { .. }))
            && let Some(iova) = self.iova.take()
        {
            self.context.lose(iova);
        }
        self.context.give_back(self.iova.take(), mem::take(&mut self.lists));
    }
}

impl Bounced {
    /// Copies what lies in `len` bytes from `at` of the mapping.
    fn sync_part(&self, pool: &dyn Bouncer, at: Bytes, len: Bytes, towards: Towards) -> Result<(), MemoryError> {
        let wanted = match towards {
            Towards::Device => self.prot.reads(),
            Towards::Cpu => self.prot.writes(),
        };
        let (first, end) = (at.as_u64(), at.as_u64().saturating_add(len.as_u64()));
        let start = self.at.as_u64();
        let (from, to) = (first.max(start), end.min(start.saturating_add(self.slot.len().as_u64())));
        if !wanted || from >= to {
            return Ok(());
        }
        pool.sync(&self.slot, self.original, Bytes::new(from - start), Bytes::new(to - from), towards)
    }
}

/// Iterator over the spans of a mapping.
#[derive(Clone, Debug)]
pub struct Spans<'m> {
    spans: &'m [Noted],
    segments: Segments,
    /// What is left of a span that is too long or crosses a boundary.
    rest: Option<Span>,
}

impl Iterator for Spans<'_> {
    type Item = Span;

    #[inline]
    fn next(&mut self) -> Option<Span> {
        let span = match self.rest.take() {
            Some(rest) => rest,
            None => {
                let (first, rest) = self.spans.split_first()?;
                self.spans = rest;
                first.span
            }
        };
        let len = self.segments.first(span.address.as_u64(), span.len.as_u64());
        let cut = Bytes::new(len);
        if len < span.len.as_u64()
            && let (Some(at), Some(address)) = (span.at.checked_add(cut), span.address.checked_add(cut))
        {
            self.rest = Some(Span { at, address, len: Bytes::new(span.len.as_u64() - len), ..span });
            return Some(Span { len: cut, ..span });
        }
        Some(span)
    }
}
