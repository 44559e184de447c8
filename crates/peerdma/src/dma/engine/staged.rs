//! Ranges that are linked and not yet visible.

use super::context::{Context, Inner};
use super::error::{LinkError, LinkManyError, SyncError};
use super::mapping::Mapping;
use super::pages::Plain;
use super::place::Range;
use super::{Lists, segments};
use crate::access::Prot;
use crate::addr::{AddrRange, Bytes, Iova};
use crate::chunk::{Chunk, View};
use crate::dma::io_space::IoSpace;
use crate::dma::owner::Owner;
use crate::iova::Depot;
use core::mem::{self, ManuallyDrop};
use core::panic::Location;

/// Ranges that are linked one after the other, and that no device sees for sure yet.
///
/// It has no addresses to give away: only [`sync`](Self::sync) makes a [`Mapping`] of it.
/// Dropping it unmaps what was linked and gives the IOVAs back.
///
/// ```compile_fail
/// # use peerdma::dma::{IoSpace, Staged};
/// # use peerdma::iova::Depot;
/// fn addresses<S: IoSpace, D: Depot>(staged: &Staged<'_, '_, S, D>) {
///     staged.spans(); // only a mapping that is visible has spans
/// }
/// ```
#[derive(Debug)]
#[must_use = "dropping what is staged unmaps it"]
pub struct Staged<'c, 'a, S: IoSpace, D: Depot> {
    pub(super) context: &'c Context<'a, S, D>,
    pub(super) iova: Option<AddrRange<Iova>>,
    /// Length of the IOVAs.
    pub(super) room: u64,
    reserved: Bytes,
    /// Where in the IOVAs the next range starts; 0 while none is used.
    pub(super) next: u64,
    /// Bytes linked, by whatever address.
    pub(super) linked: Bytes,
    pub(super) lists: Lists,
    /// What the plain ranges linked last have in common.
    pub(super) last_plain: Option<Plain>,
}

/// How far a mapping had come before a call.
#[derive(Clone, Copy)]
struct Checkpoint {
    next: u64,
    linked: Bytes,
    spans: usize,
    last_len: Option<Bytes>,
    bounced: usize,
}

impl<'c, 'a, S: IoSpace, D: Depot> Staged<'c, 'a, S, D> {
    pub(super) fn new(
        context: &'c Context<'a, S, D>,
        iova: Option<AddrRange<Iova>>,
        reserved: Bytes,
        lists: Lists,
    ) -> Self {
        let room = iova.map_or(0, |iova| iova.len().as_u64());
        Self { context, iova, room, reserved, next: 0, linked: Bytes::ZERO, lists, last_plain: None }
    }

    /// Bytes linked so far.
    pub fn linked(&self) -> Bytes {
        self.linked
    }

    /// Links a range after those that are linked.
    ///
    /// Only the first range may start inside a granule and only the last may end inside one; an
    /// initiator that is trusted sees the rest of those granules, one that is not sees copies.
    ///
    /// # Errors
    /// [`LinkError`]; what was linked before still is, and nothing of this range.
    #[inline]
    pub fn link(&mut self, chunk: Chunk<Owner>, prot: Prot) -> Result<(), LinkError> {
        let context = self.context;
        let mut inner = context.inner.borrow_mut();
        let bytes = (chunk.offset(), chunk.len());
        if self.link_plain(&mut inner, chunk.owner(), chunk.attrs(), bytes, prot)? {
            return Ok(());
        }
        let reached = inner.may(context, chunk.owner(), prot)?;
        self.last_plain = self.plain(&reached, chunk.owner(), chunk.attrs(), prot);
        if self.link_plain(&mut inner, chunk.owner(), chunk.attrs(), bytes, prot)? {
            return Ok(());
        }
        let range = Range { owner: chunk.owner(), attrs: chunk.attrs(), offset: chunk.offset(), len: chunk.len() };
        let before = self.checkpoint();
        match self.put(&mut inner, &reached, &range, prot) {
            Ok(()) => Ok(()),
            Err(cause) => Err(self.undone(&mut inner, before, cause)),
        }
    }

    /// Links all ranges of a list; each run of one owner and kind is decided about once.
    ///
    /// # Errors
    /// [`LinkManyError`] names the range; nothing of the list is linked then, and what was linked
    /// before still is.
    pub fn link_many(&mut self, list: View<'_, Owner>, prot: Prot) -> Result<(), LinkManyError> {
        let context = self.context;
        let mut guard = context.inner.borrow_mut();
        let inner = &mut *guard;
        let before = self.checkpoint();
        // What comes by other addresses counts too.
        self.last_plain = None;
        let mut index = 0_usize;
        for run in list.runs() {
            let (owner, attrs) = (run.owner(), run.attrs());
            let reached = inner.may(context, owner, prot);
            let plain = reached.as_ref().ok().and_then(|reached| self.plain(reached, owner, attrs, prot));
            // Noted once for all of them, where nothing else comes between.
            let mut noted = self.next;
            for (offset, len) in run.ranges() {
                if let Some(plain) = &plain {
                    match self.put_plain(inner, plain, offset, len) {
                        Ok(true) => {
                            // No list has so many ranges.
                            index = usize::wrapping_add(index, 1);
                            continue;
                        }
                        Ok(false) => self.note_plain(plain, self.next.wrapping_sub(noted)),
                        Err(cause) => {
                            let cause = self.undone(inner, before, cause);
                            return Err(LinkManyError { index, owner, offset, len, cause });
                        }
                    }
                }
                let range = Range { owner, attrs, offset, len };
                let answer = match &reached {
                    Ok(reached) => self.put(inner, reached, &range, prot),
                    Err(refusal) => Err(refusal.clone()),
                };
                if let Err(cause) = answer {
                    let cause = self.undone(inner, before, cause);
                    return Err(LinkManyError { index, owner, offset, len, cause });
                }
                noted = self.next;
                index += 1;
            }
            if let Some(plain) = &plain {
                self.note_plain(plain, self.next.wrapping_sub(noted));
            }
        }
        Ok(())
    }

    /// Makes what is linked visible to the device, and so gives addresses to it.
    ///
    /// # Errors
    /// [`SyncError`]; what was linked is unmapped then.
    #[track_caller]
    #[inline]
    pub fn sync(self) -> Result<Mapping<'c, 'a, S, D>, SyncError> {
        if self.linked == Bytes::ZERO {
            return Err(SyncError::Empty);
        }
        self.within_limits()?;
        if let Some(used) = self.used() {
            self.context.inner.borrow_mut().space.sync(used);
        }
        let mut this = ManuallyDrop::new(self);
        let (used, lists) = (this.used(), mem::take(&mut this.lists));
        if let Some(watch) = this.context.watch {
            let at = Location::caller();
            lists.spans.iter().for_each(|noted| watch.mapped(&noted.span, at));
        }
        Ok(Mapping::new(this.context, this.iova, used, (this.reserved, this.linked), lists))
    }

    /// Refuses more segments than the initiator takes, as long as no device sees them.
    #[inline]
    fn within_limits(&self) -> Result<(), SyncError> {
        let initiator = &self.context.initiator;
        let Some(most) = initiator.segments.most else { return Ok(()) };
        match segments(&initiator.segments, self.lists.spans.iter().map(|noted| noted.span)) {
            segments if segments > most => {
                Err(SyncError::TooManySegments { initiator: initiator.name().into(), segments, most })
            }
            _ => Ok(()),
        }
    }

    /// The IOVAs that are mapped, in whole granules.
    pub(super) fn used(&self) -> Option<AddrRange<Iova>> {
        self.granules(0, self.next)
    }

    /// `from..to` of the IOVAs, rounded up to granules at both ends.
    fn granules(&self, from: u64, to: u64) -> Option<AddrRange<Iova>> {
        let mask = self.context.fixed.granule.bytes().as_u64() - 1;
        // Both lie in the reservation, which is whole granules.
        let up = |at: u64| at.wrapping_add(mask) & !mask;
        let len = up(to).checked_sub(up(from))?;
        self.iova?.slice(Bytes::new(up(from)), Bytes::new(len))
    }

    #[inline]
    fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            next: self.next,
            linked: self.linked,
            spans: self.lists.spans.len(),
            last_len: self.lists.spans.last().map(|noted| noted.span.len),
            bounced: self.lists.bounced.len(),
        }
    }

    /// Takes back what a failed call did.
    #[cold]
    fn undone(&mut self, inner: &mut Inner<S>, before: Checkpoint, cause: LinkError) -> LinkError {
        self.linked = before.linked;
        self.lists.spans.truncate(before.spans);
        if let (Some(last), Some(len)) = (self.lists.spans.last_mut(), before.last_len) {
            last.span.len = len;
        }
        if let Some(mapped) = self.granules(before.next, self.next)
            && let Err(error) = inner.space.unmap(mapped)
        {
            // The position stays behind what is still mapped, so that unlinking takes it along. Nobody
            // gets its addresses, so nothing is written back from its copies.
            self.lists.bounced[before.bounced..].iter_mut().for_each(|copy| copy.prot = Prot::Read);
            return LinkError::Stuck { cause: cause.into(), still_mapped: mapped, error };
        }
        self.next = before.next;
        let taken = self.lists.bounced.drain(before.bounced..);
        if let Some(pool) = self.context.bouncer {
            taken.for_each(|copy| pool.give_back(copy.slot));
        }
        cause
    }
}

impl<S: IoSpace, D: Depot> Drop for Staged<'_, '_, S, D> {
    fn drop(&mut self) {
        let used = self.used();
        let unmapped = match used {
            Some(used) => self.context.inner.borrow_mut().space.unmap(used).is_ok(),
            None => true,
        };
        // Nothing was visible, so there is nothing to write back.
        self.lists.let_go(self.context.bouncer, unmapped);
        if !unmapped && let Some(iova) = self.iova.take() {
            self.context.lose(iova);
        }
        self.context.give_back(self.iova.take(), mem::take(&mut self.lists));
    }
}
