//! IOVAs that are reserved and map nothing.

use super::Lists;
use super::context::Context;
use super::staged::Staged;
use crate::addr::{AddrRange, Bytes, Iova};
use crate::dma::io_space::IoSpace;
use crate::iova::Depot;
use core::mem::{self, ManuallyDrop};

/// IOVAs of one context, mapping nothing; dropping it gives them back.
///
/// Holding one tells you that nobody else maps in its range. Where nothing translates,
/// or everything is reached by bus address, it holds no IOVAs at all.
#[derive(Debug)]
#[must_use = "dropping a reservation gives its IOVAs back"]
pub struct Reservation<'c, 'a, S: IoSpace, D: Depot> {
    context: &'c Context<'a, S, D>,
    iova: Option<AddrRange<Iova>>,
    len: Bytes,
    lists: Lists,
}

impl<'c, 'a, S: IoSpace, D: Depot> Reservation<'c, 'a, S, D> {
    pub(super) fn new(context: &'c Context<'a, S, D>, iova: Option<AddrRange<Iova>>, len: Bytes, lists: Lists) -> Self {
        Self { context, iova, len, lists }
    }

    /// How many bytes it was made for.
    pub fn len(&self) -> Bytes {
        self.len
    }

    /// Always false; nothing of no length is reserved.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Whether IOVAs are held.
    pub fn holds_iovas(&self) -> bool {
        self.iova.is_some()
    }

    /// Begins to link.
    #[inline]
    pub fn stage(self) -> Staged<'c, 'a, S, D> {
        let (context, iova, len, lists) = self.into_parts();
        Staged::new(context, iova, len, lists)
    }

    /// Gives the IOVAs back, as dropping it does.
    pub fn release(self) {}

    /// Empties the lists of the mapping before.
    pub(super) fn clear(&mut self) {
        self.lists.spans.clear();
        self.lists.bounced.clear();
    }

    /// Keeps its IOVAs out of circulation, since something is still mapped there.
    pub(super) fn lose(mut self) {
        if let Some(iova) = self.iova.take() {
            self.context.lose(iova);
        }
    }

    fn into_parts(self) -> (&'c Context<'a, S, D>, Option<AddrRange<Iova>>, Bytes, Lists) {
        // Its drop would give back what goes on as another state.
        let mut this = ManuallyDrop::new(self);
        (this.context, this.iova.take(), this.len, mem::take(&mut this.lists))
    }
}

impl<S: IoSpace, D: Depot> Drop for Reservation<'_, '_, S, D> {
    fn drop(&mut self) {
        self.context.give_back(self.iova.take(), mem::take(&mut self.lists));
    }
}
