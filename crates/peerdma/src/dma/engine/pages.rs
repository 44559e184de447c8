//! The common case, kept short: whole granules of memory, one after the other.
//!
//! Nothing here is decided otherwise than in [`place`](super::place). What a run of ranges has in
//! common is looked at once ([`Plain`]); a range that is not whole granules of memory, or does
//! not follow one, is left to the general way.

use super::Noted;
use super::context::Inner;
use super::error::LinkError;
use super::staged::Staged;
use crate::access::{MemAttrs, Prot};
use crate::addr::{AddrRange, Bytes, Iova, PhysAddr};
use crate::dma::initiator::Bouncing;
use crate::dma::io_space::{IoSpace, Source};
use crate::dma::owner::Owner;
use crate::dma::publish::End;
use crate::dma::reach::{Reach, Reached};
use crate::dma::span::{Behind, DeviceAddress, Span};
use crate::iova::Depot;

/// What ranges of memory that are mapped as they are have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plain {
    /// Where the reservation starts.
    base: u64,
    /// The granule less one.
    mask: u64,
    /// The ranges' own attributes, and those with which they are mapped.
    own: MemAttrs,
    attrs: MemAttrs,
    snooped: bool,
    prot: Prot,
    /// Which spans continue each other, since IOVAs do anyway; 0 is kept for spans of other kinds.
    key: u8,
}

impl<S: IoSpace, D: Depot> Staged<'_, '_, S, D> {
    /// What the ranges of `owner` with `attrs` have in common, if they are plain.
    #[inline]
    pub(super) fn plain(&self, reached: &Reached, owner: Owner, attrs: MemAttrs, prot: Prot) -> Option<Plain> {
        let (fixed, initiator) = (&self.context.fixed, &self.context.initiator);
        let iova = self.iova?;
        // Whatever of the reservation is still linked, the bytes can be counted.
        self.linked.checked_add(Bytes::new(self.room))?;
        let unsynchronised = initiator.bouncing == Bouncing::Never && !initiator.coherent;
        if owner != Owner::Ram
            || reached.reach != Reach::Iova
            || fixed.taken.physical.is_none()
            || attrs.contains(MemAttrs::MMIO)
            || unsynchronised
        {
            return None;
        }
        let snooped = initiator.coherent && !attrs.contains(MemAttrs::NOT_SNOOPED);
        Some(Plain {
            base: iova.start().as_u64(),
            mask: fixed.granule.bytes().as_u64() - 1,
            own: attrs,
            attrs: fixed.memory.union(attrs),
            snooped,
            prot,
            key: 1 + prot as u8 * 2 + u8::from(snooped),
        })
    }

    /// Links a range as the plain one before it, if there was one of this kind; `false` if not.
    ///
    /// Memory is reached alike for as long as a mapping is staged.
    #[inline(always)]
    pub(super) fn link_plain(
        &mut self,
        inner: &mut Inner<S>,
        owner: Owner,
        attrs: MemAttrs,
        (offset, len): (Bytes, Bytes),
        prot: Prot,
    ) -> Result<bool, LinkError> {
        let Some(plain) = self.last_plain else { return Ok(false) };
        if owner != Owner::Ram || plain.own != attrs || plain.prot != prot {
            return Ok(false);
        }
        let put = self.put_plain(inner, &plain, offset, len)?;
        if put {
            self.note_plain(&plain, len.as_u64());
        }
        Ok(put)
    }

    /// Links a range if it is whole granules after whole granules; `false` leaves it to the general way.
    ///
    /// The caller notes the span.
    #[inline(always)]
    pub(super) fn put_plain(
        &mut self,
        inner: &mut Inner<S>,
        plain: &Plain,
        offset: Bytes,
        len: Bytes,
    ) -> Result<bool, LinkError> {
        let (at, bytes) = (self.next, len.as_u64());
        if (offset.as_u64() | bytes | at) & plain.mask != 0 || bytes > self.room.wrapping_sub(at) {
            return Ok(false);
        }
        // Inside the reservation, so neither wraps.
        let Some(iova) = AddrRange::new(Iova::new(plain.base.wrapping_add(at)), len) else { return Ok(false) };
        inner.space.link(iova, &Source::Physical(PhysAddr::new(offset.as_u64())), plain.prot, plain.attrs)?;
        self.next = at.wrapping_add(bytes);
        Ok(true)
    }

    /// Notes `len` bytes that were linked as plain ranges up to where the next would start.
    #[inline]
    pub(super) fn note_plain(&mut self, plain: &Plain, len: u64) {
        if len == 0 {
            return;
        }
        let (at, key) = (self.linked, plain.key);
        self.linked = Bytes::new(at.as_u64().wrapping_add(len));
        if let Some(last) = self.lists.spans.last_mut()
            && last.key == key
        {
            last.span.len = Bytes::new(last.span.len.as_u64().wrapping_add(len));
            return;
        }
        let address = DeviceAddress::Iova(Iova::new(plain.base.wrapping_add(self.next.wrapping_sub(len))));
        let (behind, snooped, prot) = (Behind::Memory, plain.snooped, plain.prot);
        let span = Span { at, address, len: Bytes::new(len), behind, snooped, prot, bounced: false };
        self.note(Noted { span, end: End::Memory, key });
    }
}
