//! What a device can use.

use super::context::Context;
use super::error::{RelinkError, SyncError, UnlinkError};
use super::place::start_of;
use super::reservation::Reservation;
use super::{Lists, Noted};
use crate::access::{MemAttrs, Prot};
use crate::addr::{AddrRange, Bytes, Iova};
use crate::chunk::Chunk;
use crate::dma::bounce::{MemoryError, Towards};
use crate::dma::initiator::Segments;
use crate::dma::io_space::IoSpace;
use crate::dma::owner::Owner;
use crate::dma::publish::{Leg, Publish, Sender, publish};
use crate::dma::reach::Reach;
use crate::dma::span::{Behind, DeviceAddress, Span};
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
    context: &'c Context<'a, S, D>,
    iova: Option<AddrRange<Iova>>,
    /// The mapped part of the IOVAs.
    used: Option<AddrRange<Iova>>,
    reserved: Bytes,
    len: Bytes,
    lists: Lists,
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

    /// Refuses a mapping of more segments than the initiator takes, and tells the watch of any other.
    #[track_caller]
    #[inline]
    pub(super) fn within_limits(self) -> Result<Self, SyncError> {
        if let Some(most) = self.context.initiator.segments.most {
            let segments = self.spans().count();
            if segments > most {
                return Err(SyncError::TooManySegments {
                    initiator: self.context.initiator.name().into(),
                    segments,
                    most,
                });
            }
        }
        if let Some(watch) = self.context.watch {
            let at = Location::caller();
            self.lists.spans.iter().for_each(|noted| watch.mapped(&noted.span, at));
        }
        Ok(self)
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
    /// What the device may not write is not copied back.
    ///
    /// # Errors
    /// As [`sync_for_device`](Self::sync_for_device).
    pub fn sync_part(&self, at: Bytes, len: Bytes, towards: Towards) -> Result<(), MemoryError> {
        let Some(pool) = self.context.bouncer else { return Ok(()) };
        let (first, end) = (at.as_u64(), at.as_u64().saturating_add(len.as_u64()));
        for copy in self.lists.bounced.iter().filter(|copy| towards == Towards::Device || copy.prot.writes()) {
            let start = copy.at.as_u64();
            let (from, to) = (first.max(start), end.min(start.saturating_add(copy.slot.len().as_u64())));
            if from < to {
                pool.sync(&copy.slot, copy.original, Bytes::new(from - start), Bytes::new(to - from), towards)?;
            }
        }
        Ok(())
    }

    /// Points whole granules of the mapping elsewhere, where the space can, without a moment in which
    /// they lead nowhere.
    ///
    /// `at` counts from the start of the mapping.
    ///
    /// # Errors
    /// [`RelinkError`]; the granules lead where they led.
    pub fn relink(&mut self, at: Bytes, chunk: Chunk<Owner>, prot: Prot) -> Result<(), RelinkError> {
        let context = self.context;
        let not_whole = RelinkError::NotWhole { at, len: chunk.len() };
        let granule = context.fixed.granule;
        let Some(span) = self.span_with(at, chunk.len()) else { return Err(not_whole) };
        let into = Bytes::new(at.as_u64() - span.at.as_u64());
        let DeviceAddress::Iova(start) = span.address else { return Err(not_whole) };
        let Some(iova) = start.checked_add(into).and_then(|start| AddrRange::new(start, chunk.len())) else {
            return Err(not_whole);
        };
        let mut inner = context.inner.borrow_mut();
        let reached = inner.may(context, chunk.owner(), prot)?;
        let behind = if chunk.owner().is_mmio() || chunk.attrs().contains(MemAttrs::MMIO) {
            Behind::Mmio
        } else {
            Behind::Memory
        };
        if span.bounced || behind != span.behind || reached.reach != Reach::Iova {
            return Err(not_whole);
        }
        let stretch = context
            .owners
            .resolve(chunk.owner(), chunk.offset(), chunk.len(), context.fixed.taken)
            .map_err(super::LinkError::from)?;
        let whole = stretch.len == chunk.len()
            && granule.aligns(iova.start())
            && granule.divides(chunk.len())
            && granule.divides(Bytes::new(start_of(&stretch.source)));
        if !whole {
            return Err(not_whole);
        }
        let attrs = match behind {
            Behind::Memory => context.fixed.memory,
            Behind::Mmio => context.fixed.mmio,
        };
        inner.space.relink(iova, &stretch.source, prot, attrs.union(chunk.attrs())).map_err(super::LinkError::from)?;
        Ok(())
    }

    fn span_with(&self, at: Bytes, len: Bytes) -> Option<Span> {
        let end = at.checked_add(len)?;
        let holds = |span: &&Span| span.at <= at && span.at.checked_add(span.len).is_some_and(|last| end <= last);
        self.lists.spans.iter().map(|noted| &noted.span).find(holds).copied()
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
                if !matches!(error, UnlinkError::Memory(_)) {
                    reservation.lose();
                }
                Err(error)
            }
        }
    }

    /// Unmaps and writes copies back; the copies go back to the pool in any case.
    #[inline]
    fn take_apart(&mut self, at: &'static Location<'static>) -> Result<(), UnlinkError> {
        let unmapped = match self.used.take() {
            Some(used) => self.unmap(used),
            None => Ok(()),
        };
        if let Some(watch) = self.context.watch {
            self.lists.spans.iter().for_each(|noted| watch.unmapped(&noted.span, at));
        }
        if self.lists.bounced.is_empty() {
            return unmapped;
        }
        // The device cannot write any more, or its writes have nowhere to go.
        let written = self.sync_for_cpu();
        if let Some(pool) = self.context.bouncer {
            self.lists.bounced.drain(..).for_each(|copy| pool.give_back(copy.slot));
        }
        unmapped.and(written.map_err(UnlinkError::Memory))
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
        let mut len = span.len.as_u64();
        if let Some(longest) = self.segments.longest {
            len = len.min(longest.as_u64().max(1));
        }
        if let Some(boundary) = self.segments.boundary.map(Bytes::as_u64).filter(|boundary| boundary.is_power_of_two())
        {
            len = len.min(boundary - (span.address.as_u64() & (boundary - 1)));
        }
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
