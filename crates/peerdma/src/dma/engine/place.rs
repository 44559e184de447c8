//! Where a range goes, with all that may be wrong with it.
//!
//! The order of checks follows Linux 7.2 `dma_iova_link` where there is translation and
//! `dma_direct_map_phys` where there is none; kernel-side names of what differs are at
//! each step.

use super::context::Inner;
use super::error::{AddressNumber, LinkError, WhyBounce};
use super::staged::Staged;
use super::{Bounced, Noted};
use crate::access::{MemAttrs, Prot};
use crate::addr::{AddrRange, Address, Bytes, PhysAddr};
use crate::dma::bounce::{Bouncer, Slot};
use crate::dma::initiator::Bouncing;
use crate::dma::io_space::{IoSpace, Source};
use crate::dma::owner::{Owner, advanced};
use crate::dma::publish::End;
use crate::dma::reach::Reach;
use crate::dma::span::{Behind, DeviceAddress, Span};
use crate::iova::Depot;

/// A range that is about to be linked.
#[derive(Clone, Copy)]
pub(super) struct Range {
    pub(super) owner: Owner,
    pub(super) attrs: MemAttrs,
    pub(super) offset: Bytes,
    pub(super) len: Bytes,
}

impl Range {
    #[inline]
    fn behind(&self) -> Behind {
        if self.end() == End::Memory { Behind::Memory } else { Behind::Mmio }
    }

    #[inline]
    fn end(&self) -> End {
        match self.owner {
            Owner::Bar { function, .. } => End::Function(function),
            Owner::Device(_) => End::Unknown,
            _ if self.attrs.contains(MemAttrs::MMIO) => End::Unknown,
            _ => End::Memory,
        }
    }
}

/// The number a source starts at, whose low bits say where in a granule it does.
#[inline]
pub(super) fn start_of<F>(source: &Source<F>) -> u64 {
    match source {
        Source::Physical(at) => at.as_u64(),
        Source::Process(at) => at.as_u64(),
        Source::File { offset, .. } => offset.as_u64(),
    }
}

/// The source `by` before, which is never before its start: `by` are low bits of it.
#[inline]
fn retreated<F: Clone>(source: &Source<F>, by: u64) -> Source<F> {
    fn back<A: Address>(at: A, by: u64) -> A {
        A::from_raw(at.as_u64() - by)
    }
    match source {
        Source::Physical(at) => Source::Physical(back(*at, by)),
        Source::Process(at) => Source::Process(back(*at, by)),
        Source::File { file, offset } => Source::File { file: file.clone(), offset: Bytes::new(offset.as_u64() - by) },
    }
}

impl<'a, S: IoSpace, D: Depot> Staged<'_, 'a, S, D> {
    /// Puts a range at the end of what is linked; on failure a part of it may be.
    #[inline]
    pub(super) fn put(
        &mut self,
        inner: &mut Inner<S>,
        reach: Reach,
        range: &Range,
        prot: Prot,
    ) -> Result<(), LinkError> {
        match reach {
            Reach::Iova => self.put_translated(inner, range, prot),
            Reach::Bus { start, bridge } => {
                let address = start.checked_add(range.offset).ok_or_else(|| self.above(range, u64::MAX))?;
                self.formable(range, address.as_u64())?;
                self.push(DeviceAddress::Bus { address, bridge }, range.len, range.end(), prot, false);
                Ok(())
            }
            Reach::Physical => self.put_untranslated(range, prot),
        }
    }

    #[inline]
    fn put_translated(&mut self, inner: &mut Inner<S>, range: &Range, prot: Prot) -> Result<(), LinkError> {
        let context = self.context;
        let (mut offset, mut left) = (range.offset, range.len.as_u64());
        while left > 0 {
            let stretch = context.owners.resolve(range.owner, offset, Bytes::new(left), context.fixed.taken)?;
            let len = stretch.len.as_u64();
            let part = Range { offset, len: stretch.len, ..*range };
            self.put_stretch(inner, &part, &stretch.source, prot)?;
            left -= len;
            if left == 0 {
                return Ok(());
            }
            // Both stay within the chunk, whose end does not wrap.
            offset = Bytes::new(offset.as_u64() + len);
        }
        Ok(())
    }

    #[inline]
    fn put_stretch(
        &mut self,
        inner: &mut Inner<S>,
        part: &Range,
        source: &Source<S::File>,
        prot: Prot,
    ) -> Result<(), LinkError> {
        let context = self.context;
        let granule = context.fixed.granule.bytes().as_u64();
        let mask = granule - 1;
        let head = start_of(source) & mask;
        let at = self.next_for(part, head)?;
        let behind = part.behind();
        let end = at.checked_add(part.len.as_u64()).ok_or_else(|| self.out_of_room(part))?;
        let shares = (head | end) & mask != 0;
        if shares && !context.initiator.trusted {
            return self.put_in_parts(inner, part, source, prot, head);
        }
        if context.initiator.bouncing == Bouncing::Never && !context.initiator.coherent && behind == Behind::Memory {
            return Err(LinkError::NotCoherent { initiator: context.initiator.name().into(), owner: part.owner });
        }
        if head == 0 {
            return self.link_granules(inner, part, source, prot, (at, end), false);
        }
        self.link_granules(inner, part, &retreated(source, head), prot, (at, end), false)
    }

    /// Links `at..end` of the reservation, rounded out to granules, and notes the span.
    #[inline]
    fn link_granules(
        &mut self,
        inner: &mut Inner<S>,
        part: &Range,
        source: &Source<S::File>,
        prot: Prot,
        (at, end): (u64, u64),
        bounced: bool,
    ) -> Result<(), LinkError> {
        let context = self.context;
        let mask = context.fixed.granule.bytes().as_u64() - 1;
        let (first, past) = (at & !mask, end.checked_add(mask).map(|end| end & !mask));
        let Some(past) = past.filter(|past| *past <= self.room) else { return Err(self.out_of_room(part)) };
        let Some(iova) = self.iova.and_then(|iova| iova.slice(Bytes::new(first), Bytes::new(past - first))) else {
            return Err(self.out_of_room(part));
        };
        let behind = part.behind();
        let fixed = &context.fixed;
        let attrs = match behind {
            Behind::Memory => fixed.memory,
            Behind::Mmio => fixed.mmio,
        };
        inner.space.link(iova, source, prot, attrs.union(part.attrs))?;
        self.next = end;
        let address = AddrRange::start(&iova).checked_add(Bytes::new(at - first));
        // Inside the reservation, so it exists.
        if let Some(address) = address {
            self.push(DeviceAddress::Iova(address), Bytes::new(end - at), part.end(), prot, bounced);
        }
        Ok(())
    }

    /// Where in the reservation the next range starts.
    #[inline]
    fn next_for(&self, part: &Range, head: u64) -> Result<u64, LinkError> {
        let granule = self.context.fixed.granule;
        if self.next == 0 {
            return Ok(head);
        }
        let into = (head | self.next) & (granule.bytes().as_u64() - 1);
        if into == 0 {
            return Ok(self.next);
        }
        let (owner, offset) = (part.owner, part.offset);
        Err(LinkError::Unaligned { owner, offset, head: Bytes::new(into), granule, linked: self.linked })
    }

    /// An untrusted initiator sees copies of what shares granules with other bytes, and the rest as it is.
    #[cold]
    fn put_in_parts(
        &mut self,
        inner: &mut Inner<S>,
        part: &Range,
        source: &Source<S::File>,
        prot: Prot,
        head: u64,
    ) -> Result<(), LinkError> {
        let granule = self.context.fixed.granule.bytes().as_u64();
        let pool = self.pool(part, WhyBounce::SharesGranule)?;
        let total = part.len.as_u64();
        let first = match head {
            0 => 0,
            head => (granule - head).min(total),
        };
        let last = (total - first) % granule;
        let middle = total - first - last;
        let slice = |from: u64, len: u64| Range {
            offset: Bytes::new(part.offset.as_u64() + from),
            len: Bytes::new(len),
            ..*part
        };
        if first > 0 {
            self.put_copy(inner, pool, &slice(0, first), prot, head)?;
        }
        if middle > 0 {
            let Some(inside) = advanced(source, Bytes::new(first)) else { return Err(self.out_of_room(part)) };
            let part = slice(first, middle);
            let at = self.next_for(&part, 0)?;
            self.link_granules(inner, &part, &inside, prot, (at, at + middle), false)?;
        }
        if last > 0 {
            self.put_copy(inner, pool, &slice(first + middle, last), prot, 0)?;
        }
        Ok(())
    }

    /// Links a granule of a copy.
    fn put_copy(
        &mut self,
        inner: &mut Inner<S>,
        pool: &dyn Bouncer,
        part: &Range,
        prot: Prot,
        head: u64,
    ) -> Result<(), LinkError> {
        let context = self.context;
        let granule = context.fixed.granule;
        let at = self.next_for(part, head)?;
        let slot = self.copied(pool, part, Bytes::new(head))?;
        let answer = (|| {
            let start = Bytes::new(slot.offset().as_u64() - head);
            let whole = Bytes::new((head + part.len.as_u64()).next_multiple_of(granule.bytes().as_u64()));
            let stretch = context.owners.resolve(slot.owner(), start, whole, context.fixed.taken)?;
            let copy = Range { owner: slot.owner(), ..*part };
            self.link_granules(inner, &copy, &stretch.source, prot, (at, at + part.len.as_u64()), true)
        })();
        match answer {
            Ok(()) => {
                self.note_copy(slot, part, prot);
                Ok(())
            }
            Err(error) => {
                pool.give_back(slot);
                Err(error)
            }
        }
    }

    fn put_untranslated(&mut self, range: &Range, prot: Prot) -> Result<(), LinkError> {
        let context = self.context;
        let initiator = &context.initiator;
        let behind = range.behind();
        if initiator.bouncing == Bouncing::Never && !initiator.coherent && behind == Behind::Memory {
            return Err(LinkError::NotCoherent { initiator: initiator.name().into(), owner: range.owner });
        }
        let (mut offset, mut left) = (range.offset, range.len.as_u64());
        while left > 0 {
            let stretch = context.owners.resolve(range.owner, offset, Bytes::new(left), context.fixed.taken)?;
            let part = Range { offset, len: stretch.len, ..*range };
            let Source::Physical(at) = stretch.source else {
                return Err(self.not_shown(&part));
            };
            self.put_physical(&part, at, prot)?;
            left -= stretch.len.as_u64();
            if left > 0 {
                offset = Bytes::new(offset.as_u64() + stretch.len.as_u64());
            }
        }
        Ok(())
    }

    /// `dma_direct_map_phys`: device memory goes as it is, memory through the windows.
    fn put_physical(&mut self, part: &Range, at: PhysAddr, prot: Prot) -> Result<(), LinkError> {
        let initiator = &self.context.initiator;
        if part.behind() == Behind::Mmio {
            if initiator.bouncing == Bouncing::Forced {
                return Err(self.never(part, WhyBounce::Forced));
            }
            self.formable(part, at.as_u64())?;
            self.push(DeviceAddress::CpuPhysical(at), part.len, part.end(), prot, false);
            return Ok(());
        }
        if initiator.bouncing == Bouncing::Forced {
            return self.put_copies(part, prot, WhyBounce::Forced);
        }
        let Some(address) = self.shown(at, part.len) else {
            return self.put_copies(part, prot, WhyBounce::NotShown);
        };
        if self.formable(part, address.as_u64()).is_err() {
            return self.put_copies(part, prot, WhyBounce::AboveMask);
        }
        self.push(address, part.len, End::Memory, prot, false);
        Ok(())
    }

    /// Copies all of a range, in as many slots as it takes.
    #[cold]
    fn put_copies(&mut self, part: &Range, prot: Prot, why: WhyBounce) -> Result<(), LinkError> {
        let pool = self.pool(part, why)?;
        let longest = pool.longest(Bytes::ZERO, self.context.fixed.granule).as_u64().max(1);
        let (mut from, mut left) = (part.offset.as_u64(), part.len.as_u64());
        while left > 0 {
            let len = left.min(longest);
            let piece = Range { offset: Bytes::new(from), len: Bytes::new(len), ..*part };
            let slot = self.copied(pool, &piece, Bytes::ZERO)?;
            let address = match self.address_of(&slot, &piece) {
                Ok(address) => address,
                Err(error) => {
                    pool.give_back(slot);
                    return Err(error);
                }
            };
            self.push(address, piece.len, End::Memory, prot, true);
            self.note_copy(slot, &piece, prot);
            left -= len;
            from = from.saturating_add(len);
        }
        Ok(())
    }

    fn address_of(&self, slot: &Slot, piece: &Range) -> Result<DeviceAddress, LinkError> {
        let context = self.context;
        let stretch = context.owners.resolve(slot.owner(), slot.offset(), slot.len(), context.fixed.taken)?;
        let Source::Physical(at) = stretch.source else { return Err(self.not_shown(piece)) };
        let address = self.shown(at, piece.len).ok_or_else(|| self.not_shown(piece))?;
        self.formable(piece, address.as_u64())?;
        Ok(address)
    }

    /// Where memory appears to an initiator that nothing translates for.
    fn shown(&self, at: PhysAddr, len: Bytes) -> Option<DeviceAddress> {
        let windows = self.context.fixed.windows.as_ref()?;
        let address = windows.show(at, len)?;
        Some(match windows.are_one_to_one() {
            true => DeviceAddress::CpuPhysical(at),
            false => DeviceAddress::Bus { address, bridge: self.context.fixed.bridge },
        })
    }

    /// A slot that holds a copy of the range, whatever the device is to do with it: what it leaves
    /// unwritten must come back as it was.
    fn copied(&self, pool: &dyn Bouncer, part: &Range, head: Bytes) -> Result<Slot, LinkError> {
        Ok(pool.take_filled((part.owner, part.offset), part.len, head, self.context.fixed.granule)?)
    }

    /// Remembers the copy behind what was linked last.
    fn note_copy(&mut self, slot: Slot, part: &Range, prot: Prot) {
        let at = Bytes::new(self.linked.as_u64() - part.len.as_u64());
        self.lists.bounced.push(Bounced { at, slot, original: (part.owner, part.offset), prot });
    }

    fn pool(&self, part: &Range, why: WhyBounce) -> Result<&'a dyn Bouncer, LinkError> {
        let initiator = self.context.initiator.name().into();
        let (owner, offset) = (part.owner, part.offset);
        if part.behind() == Behind::Mmio {
            return Err(self.never(part, why));
        }
        match (self.context.initiator.bouncing, self.context.bouncer) {
            (Bouncing::Never, _) => Err(LinkError::NoBounce { initiator, owner, offset, why }),
            (_, None) => Err(LinkError::NoPool { initiator, owner, offset, why }),
            (_, Some(pool)) => Ok(pool),
        }
    }

    #[cold]
    fn never(&self, part: &Range, why: WhyBounce) -> LinkError {
        let initiator = self.context.initiator.name().into();
        LinkError::MmioNeverBounces { initiator, owner: part.owner, offset: part.offset, why }
    }

    #[cold]
    fn not_shown(&self, part: &Range) -> LinkError {
        let initiator = self.context.initiator.name().into();
        LinkError::NotShown { initiator, owner: part.owner, offset: part.offset }
    }

    #[cold]
    fn out_of_room(&self, part: &Range) -> LinkError {
        let left = self.room.saturating_sub(self.next);
        LinkError::OutOfRoom { owner: part.owner, len: part.len, left: Bytes::new(left) }
    }

    #[cold]
    fn above(&self, part: &Range, last: u64) -> LinkError {
        LinkError::AboveMask {
            initiator: self.context.initiator.name().into(),
            owner: part.owner,
            address: AddressNumber(last),
            highest: AddressNumber(self.context.fixed.highest),
        }
    }

    /// Whether the initiator can put the last address of the range on its bus.
    fn formable(&self, part: &Range, first: u64) -> Result<(), LinkError> {
        let last = first.checked_add(part.len.as_u64() - 1).unwrap_or(u64::MAX);
        match last <= self.context.fixed.highest {
            true => Ok(()),
            false => Err(self.above(part, last)),
        }
    }

    /// Notes a span, as a part of the one before where the device sees no boundary.
    #[inline]
    fn push(&mut self, address: DeviceAddress, len: Bytes, end: End, prot: Prot, bounced: bool) {
        let behind = if end == End::Memory { Behind::Memory } else { Behind::Mmio };
        // Nothing of device memory lies in caches.
        let snooped = behind == Behind::Memory && self.context.initiator.coherent;
        let span = Span { at: self.linked, address, len, behind, snooped, prot, bounced };
        // Lengths of chunks that lie side by side in a list add up below 2^64; see `Chunks`.
        self.linked = Bytes::new(self.linked.as_u64().saturating_add(len.as_u64()));
        match self.lists.spans.last_mut() {
            Some(last) if last.end == end && last.span.continues(&span) => {
                last.span.len = Bytes::new(last.span.len.as_u64() + len.as_u64());
            }
            _ => self.lists.spans.push(Noted { span, end }),
        }
    }
}
