//! A part of a mapping pointed elsewhere while the device may be using the rest.
//!
//! The device keeps its addresses. What else its spans say of the part (whose memory, which
//! protection, whether snooped) may change, and then the part becomes a span of its own, so
//! that spans and [`publish`](Mapping::publish) stay true.

use super::error::{LinkError, RelinkError};
use super::mapping::Mapping;
use super::place::{Range, start_of};
use super::{Noted, segments};
use crate::access::Prot;
use crate::addr::{AddrRange, Bytes};
use crate::chunk::Chunk;
use crate::dma::io_space::IoSpace;
use crate::dma::owner::Owner;
use crate::dma::reach::Reach;
use crate::dma::span::{Behind, DeviceAddress, Span};
use crate::iova::Depot;
use core::panic::Location;

impl<S: IoSpace, D: Depot> Mapping<'_, '_, S, D> {
    /// Points whole granules of the mapping elsewhere, where the space can, without a moment in which
    /// they lead nowhere.
    ///
    /// `at` counts from the start of the mapping. Memory takes the place of memory and device memory
    /// that of device memory. Where protection or owner change, [`spans`](Self::spans) are cut there.
    ///
    /// # Errors
    /// [`RelinkError`]; the granules lead where they led.
    #[track_caller]
    pub fn relink(&mut self, at: Bytes, chunk: Chunk<Owner>, prot: Prot) -> Result<(), RelinkError> {
        let context = self.context;
        let range = Range { owner: chunk.owner(), attrs: chunk.attrs(), offset: chunk.offset(), len: chunk.len() };
        let not_whole = RelinkError::NotWhole { at, len: range.len };
        let Some((index, parts)) = self.cut(at, &range, prot) else { return Err(not_whole) };
        let Noted { span, .. } = parts.new;
        let DeviceAddress::Iova(start) = span.address else { return Err(not_whole) };
        let Some(iova) = AddrRange::new(start, span.len) else { return Err(not_whole) };
        let mut inner = context.inner.borrow_mut();
        let reached = inner.may(context, range.owner, prot)?;
        if span.bounced || range.behind() != span.behind || reached.reach != Reach::Iova {
            return Err(not_whole);
        }
        let stretch = context
            .owners
            .resolve(range.owner, range.offset, range.len, context.fixed.taken)
            .map_err(LinkError::from)?;
        let granule = context.fixed.granule;
        let whole = stretch.len == range.len
            && granule.aligns(iova.start())
            && granule.divides(range.len)
            && granule.divides(Bytes::new(start_of(&stretch.source)));
        if !whole {
            return Err(not_whole);
        }
        if parts.differ {
            self.within_limits(&parts)?;
        }
        let attrs = match range.behind() {
            Behind::Memory => context.fixed.memory,
            Behind::Mmio => context.fixed.mmio,
        };
        inner.space.relink(iova, &stretch.source, prot, attrs.union(range.attrs)).map_err(LinkError::from)?;
        drop(inner);
        if parts.differ {
            if let Some(watch) = context.watch.filter(|_| parts.was.span.prot != prot) {
                let here = Location::caller();
                watch.unmapped(&Span { prot: parts.was.span.prot, ..span }, here);
                watch.mapped(&span, here);
            }
            self.lists.spans.splice(index..=index, parts.iter());
        }
        Ok(())
    }

    /// The span that holds a range, cut before and after it, and what it would say there.
    fn cut(&self, at: Bytes, range: &Range, prot: Prot) -> Option<(usize, Parts)> {
        let end = at.checked_add(range.len)?;
        let ends = |span: &Span| span.at.checked_add(span.len);
        let holds = |noted: &Noted| noted.span.at <= at && ends(&noted.span).is_some_and(|last| end <= last);
        let index = self.lists.spans.iter().position(holds)?;
        let was = self.lists.spans[index];
        let between = |from: Bytes, to: Bytes| {
            let len = Bytes::new(to.as_u64().checked_sub(from.as_u64())?);
            let address = was.span.address.checked_add(Bytes::new(from.as_u64() - was.span.at.as_u64()))?;
            Some(Noted { span: Span { at: from, address, len, ..was.span }, ..was }).filter(|_| len != Bytes::ZERO)
        };
        let part = between(at, end)?;
        let snooped = range.is_snooped(self.context.initiator.coherent);
        let new = Noted { span: Span { prot, snooped, ..part.span }, end: range.end(), key: part.key };
        let last = ends(&was.span)?;
        let after = if end < last { between(end, last) } else { None };
        Some((index, Parts { was, before: between(was.span.at, at), new, after, differ: new != part }))
    }

    /// Refuses more segments than the initiator takes.
    fn within_limits(&self, parts: &Parts) -> Result<(), RelinkError> {
        let initiator = &self.context.initiator;
        let Some(most) = initiator.segments.most else { return Ok(()) };
        let limits = &initiator.segments;
        let all = segments(limits, self.lists.spans.iter().map(|noted| noted.span));
        let cut = segments(limits, parts.iter().map(|noted| noted.span));
        // What is cut is one of all.
        let segments = (all - segments(limits, [parts.was.span].into_iter())).saturating_add(cut);
        match segments > most {
            true => Err(RelinkError::TooManySegments { initiator: initiator.name().into(), segments, most }),
            false => Ok(()),
        }
    }
}

/// A span with something else in its middle.
struct Parts {
    was: Noted,
    before: Option<Noted>,
    new: Noted,
    after: Option<Noted>,
    /// Whether the middle says anything else than the whole did.
    differ: bool,
}

impl Parts {
    fn iter(&self) -> impl Iterator<Item = Noted> + use<> {
        [self.before, Some(self.new), self.after].into_iter().flatten()
    }
}
