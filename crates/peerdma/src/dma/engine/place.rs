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
use crate::addr::{AddrRange, Address, BusAddr, Bytes, PhysAddr};
use crate::dma::bounce::{Bouncer, Slot};
use crate::dma::error::MapError;
use crate::dma::initiator::Bouncing;
use crate::dma::io_space::{IoSpace, Source};
use crate::dma::owner::{Owner, ResolveError, advanced};
use crate::dma::publish::End;
use crate::dma::reach::{Reach, Reached};
use crate::dma::span::{Behind, DeviceAddress, Span};
use crate::iova::Depot;
use crate::topology::HostBridgeId;

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
    pub(super) fn behind(&self) -> Behind {
        if self.end() == End::Memory { Behind::Memory } else { Behind::Mmio }
    }

    /// Whether accesses are, of an initiator whose usually are or are not; nothing of device memory
    /// lies in caches.
    #[inline]
    pub(super) fn is_snooped(&self, coherent: bool) -> bool {
        coherent && self.end() == End::Memory && !self.attrs.contains(MemAttrs::NOT_SNOOPED)
    }

    #[inline]
    pub(super) fn end(&self) -> End {
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
        reached: &Reached,
        range: &Range,
        prot: Prot,
    ) -> Result<(), LinkError> {
        if self.linked.checked_add(range.len).is_none() {
            return Err(self.too_long(range));
        }
        match reached.reach {
            Reach::Iova => self.put_translated(inner, range, prot),
            Reach::Bus { start, bridge } => self.put_bus(range, (start, bridge), reached.len, prot),
            Reach::Physical => self.put_untranslated(range, prot),
        }
    }

    /// A bus address past the end of a BAR is another function's, or nobody's.
    fn put_bus(
        &mut self,
        range: &Range,
        (start, bridge): (BusAddr, Option<HostBridgeId>),
        owner_len: Option<Bytes>,
        prot: Prot,
    ) -> Result<(), LinkError> {
        // Chunks end below 2^64.
        let end = range.offset.as_u64() + range.len.as_u64();
        if let Some(whole) = owner_len.filter(|whole| whole.as_u64() < end) {
            let (owner, offset) = (range.owner, whole.max(range.offset));
            return Err(ResolveError::Outside { owner, offset }.into());
        }
        // No table is on the way, and nothing of a peer's memory lies in caches.
        let context = self.context;
        let kept = MemAttrs::MMIO.union(MemAttrs::NOT_SNOOPED);
        self.expressed(range, context.fixed.mmio.union(range.attrs).difference(kept))?;
        let address = start.checked_add(range.offset).ok_or_else(|| self.above(range, u64::MAX))?;
        self.formable(range, address.as_u64())?;
        self.push(range, DeviceAddress::Bus { address, bridge }, prot, false);
        Ok(())
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
        let end = at.checked_add(part.len.as_u64()).ok_or_else(|| self.out_of_room(part, at))?;
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
        let Some(past) = past.filter(|past| *past <= self.room) else { return Err(self.out_of_room(part, at)) };
        let Some(iova) = self.iova.and_then(|iova| iova.slice(Bytes::new(first), Bytes::new(past - first))) else {
            return Err(self.out_of_room(part, at));
        };
        let behind = part.behind();
        let fixed = &context.fixed;
        let attrs = match behind {
            Behind::Memory => fixed.memory,
            Behind::Mmio => fixed.mmio,
        };
        crate::dma::permit::link(&mut inner.space, iova, source, prot, attrs.union(part.attrs))?;
        self.next = end;
        let address = AddrRange::start(&iova).checked_add(Bytes::new(at - first));
        // Inside the reservation, so it exists.
        if let Some(address) = address {
            self.push(part, DeviceAddress::Iova(address), prot, bounced);
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
            let wraps = MapError::SourceWraps { kind: source.kind(), len: part.len };
            let Some(inside) = advanced(source, Bytes::new(first)) else { return Err(wraps.into()) };
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
            if stretch.len < whole {
                return Err(ResolveError::InPieces { owner: slot.owner(), offset: start, len: whole }.into());
            }
            self.link_granules(inner, part, &stretch.source, prot, (at, at + part.len.as_u64()), true)
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
        self.expressed(range, range.attrs.difference(context.fixed.expressed))?;
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
        let forced = self.context.fixed.copies_all;
        if part.behind() == Behind::Mmio {
            if let Some(why) = forced {
                return Err(self.never(part, why));
            }
            self.formable(part, at.as_u64())?;
            self.push(part, DeviceAddress::CpuPhysical(at), prot, false);
            return Ok(());
        }
        if let Some(why) = forced {
            return self.put_copies(part, prot, why);
        }
        let Some(address) = self.shown(at, part.len, false) else {
            return self.put_copies(part, prot, WhyBounce::NotShown);
        };
        if self.last_formed(part.len, address.as_u64()).is_err() {
            return self.put_copies(part, prot, WhyBounce::AboveMask);
        }
        self.push(part, address, prot, false);
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
            if let Err(error) = self.push_slot(&slot, &piece, prot) {
                pool.give_back(slot);
                return Err(error);
            }
            self.note_copy(slot, &piece, prot);
            left -= len;
            from = from.saturating_add(len);
        }
        Ok(())
    }

    /// Notes the spans of a copy, as many as the area of the pool has pieces there.
    fn push_slot(&mut self, slot: &Slot, piece: &Range, prot: Prot) -> Result<(), LinkError> {
        let context = self.context;
        let (mut from, mut left) = (0, slot.len().as_u64());
        while left > 0 {
            // Inside the slot, whose end does not wrap.
            let at = Bytes::new(slot.offset().as_u64() + from);
            let stretch = context.owners.resolve(slot.owner(), at, Bytes::new(left), context.fixed.taken)?;
            let part = Range { offset: Bytes::new(piece.offset.as_u64() + from), len: stretch.len, ..*piece };
            let Source::Physical(at) = stretch.source else { return Err(self.not_shown(&part)) };
            let address = self.shown(at, part.len, true).ok_or_else(|| self.not_shown(&part))?;
            self.formable(&part, address.as_u64())?;
            self.push(&part, address, prot, true);
            from += part.len.as_u64();
            left -= part.len.as_u64();
        }
        Ok(())
    }

    /// Where memory appears to an initiator that nothing translates for: `phys_to_dma`, and for what
    /// is `shared` with a confidential guest's devices `phys_to_dma_unencrypted`.
    fn shown(&self, at: PhysAddr, len: Bytes, shared: bool) -> Option<DeviceAddress> {
        let context = self.context;
        let windows = context.fixed.windows.as_ref()?;
        let (guest, below) = (context.initiator.guest, PhysAddr::new(windows.show(at, len)?.as_u64()));
        let number = if shared { guest.shared_address(below) } else { guest.private_address(below) };
        Some(match windows.are_one_to_one() {
            true => DeviceAddress::CpuPhysical(number),
            false => DeviceAddress::Bus { address: BusAddr::new(number.as_u64()), bridge: context.fixed.bridge },
        })
    }

    /// Refuses attributes for which there are no tables.
    #[inline]
    fn expressed(&self, range: &Range, left: MemAttrs) -> Result<(), LinkError> {
        match left.is_empty() {
            true => Ok(()),
            false => Err(LinkError::AttrsNotTaken {
                initiator: self.context.initiator.name().into(),
                owner: range.owner,
                offset: range.offset,
                attrs: left,
            }),
        }
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
    fn out_of_room(&self, part: &Range, at: u64) -> LinkError {
        let left = self.room.saturating_sub(at);
        LinkError::OutOfRoom { owner: part.owner, len: part.len, left: Bytes::new(left) }
    }

    #[cold]
    fn too_long(&self, range: &Range) -> LinkError {
        LinkError::TooLong { owner: range.owner, len: range.len, linked: self.linked }
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
        self.last_formed(part.len, first).map_err(|last| self.above(part, last))
    }

    /// As [`formable`](Self::formable); fails with the address, or the highest of all where there is none so high.
    fn last_formed(&self, len: Bytes, first: u64) -> Result<(), u64> {
        match first.checked_add(len.as_u64() - 1) {
            Some(last) if last <= self.context.fixed.highest => Ok(()),
            last => Err(last.unwrap_or(u64::MAX)),
        }
    }

    /// Notes a span, as a part of the one before where the device sees no boundary.
    #[inline]
    fn push(&mut self, part: &Range, address: DeviceAddress, prot: Prot, bounced: bool) {
        let (end, behind, len) = (part.end(), part.behind(), part.len);
        let snooped = part.is_snooped(self.context.initiator.coherent);
        let span = Span { at: self.linked, address, len, behind, snooped, prot, bounced };
        // Fits, as `put` saw to.
        self.linked = Bytes::new(self.linked.as_u64().wrapping_add(len.as_u64()));
        self.note(Noted { span, end, key: 0 });
    }

    /// Notes a span, as a part of the one before where the device sees no boundary.
    pub(super) fn note(&mut self, noted: Noted) {
        match self.lists.spans.last_mut() {
            Some(last) if last.end == noted.end && last.span.continues(&noted.span) => {
                last.span.len = Bytes::new(last.span.len.as_u64() + noted.span.len.as_u64());
            }
            _ => self.lists.spans.push(noted),
        }
    }
}
