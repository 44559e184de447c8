//! No unpin under DMA: it waits for the fences that still use the memory, or is refused.

use super::handle::Pin;
use super::inner::{Inner, Slot, lock};
use super::steady::Steady;
use super::table::PinId;
use peerdma::buffer::fence::{Fence, FenceName, FenceSet, NotRetired};
use std::sync::Arc;
use std::time::Duration;

/// Why a pin is not let go. The handle comes back, and nothing has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnpinError {
    /// A device may still be writing there.
    #[error(
        "{}: {outstanding} fences that use it have not retired, {first} first; wait for them (Pin::unpin_within), or stop \
         the device and write them off",
        .pin.id()
    )]
    StillUsed {
        /// The pin.
        pin: Box<Pin>,
        /// How many.
        outstanding: usize,
        /// The first of them.
        first: FenceName,
    },
    /// It was still so when the time was over, or nobody will say when it is not.
    #[error("{}: {source}", .pin.id())]
    NotRetired {
        /// The pin.
        pin: Box<Pin>,
        /// Which fence, and what to do.
        source: NotRetired,
    },
}

/// A pin whose handle was dropped while devices used it.
#[derive(Debug)]
pub(super) struct Left {
    pub(super) id: PinId,
    pub(super) slots: Vec<Slot>,
    fences: FenceSet,
    /// Kept mapped as long as it is pinned.
    _memory: Option<Arc<dyn Steady>>,
}

impl Pin {
    /// Notes that a device uses the memory until `fence` has retired; the pin is not let go before.
    pub fn used_until(&self, fence: Fence) {
        lock(&self.fences).extend([fence]);
    }

    /// Lets the pin go, unless a device may still use the memory.
    ///
    /// Charges are returned before this returns.
    ///
    /// # Errors
    /// [`UnpinError::StillUsed`], with the pin.
    pub fn unpin(self) -> Result<(), UnpinError> {
        let (outstanding, first) = {
            let fences = lock(&self.fences);
            (fences.outstanding().count(), fences.outstanding().next().map(Fence::name))
        };
        match first {
            Some(first) => Err(UnpinError::StillUsed { pin: Box::new(self), outstanding, first }),
            None => Ok(()),
        }
    }

    /// Lets the pin go once no device uses the memory any more, and waits for that for `longest` at most.
    ///
    /// Blocks. Whoever retires the fences must be able to meanwhile.
    ///
    /// # Errors
    /// [`UnpinError::NotRetired`], with the pin.
    pub fn unpin_within(self, longest: Duration) -> Result<(), UnpinError> {
        // Not waited for under the lock: others may look at the pin meanwhile.
        let fences = lock(&self.fences).clone();
        match fences.wait_at_most(longest) {
            // A transfer that failed is over too; who started it hears of that from its fence.
            Ok(_) => self.unpin(),
            Err(source) => Err(UnpinError::NotRetired { pin: Box::new(self), source }),
        }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        if !self.inner.is_of_this_process() {
            // The parent's, and its locks may be held by threads that this process does not have.
            return;
        }
        let (id, slots) = (self.id, std::mem::take(&mut self.slots));
        let fences = std::mem::take(&mut *lock(&self.fences));
        if fences.outstanding().next().is_none() {
            self.inner.release(id, slots);
        } else {
            self.inner.leave(Left { id, slots, fences, _memory: self.memory.take() });
        }
        self.inner.settle();
    }
}

impl Inner {
    /// Lets go of what was left behind and is not used any more; how many still are.
    pub(super) fn settle(&self) -> usize {
        if !self.is_of_this_process() {
            return 0;
        }
        let mut left = lock(&self.left);
        if left.is_empty() {
            return 0;
        }
        let is_used = |left: &Left| left.fences.outstanding().next().is_some();
        let (used, unused): (Vec<Left>, Vec<Left>) = std::mem::take(&mut *left).into_iter().partition(is_used);
        *left = used;
        let still = left.len();
        drop(left);
        unused.into_iter().for_each(|left| self.release(left.id, left.slots));
        still
    }

    fn leave(&self, pin: Left) {
        lock(&self.left).push(pin);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !self.is_of_this_process() {
            self.forget_books();
        } else if self.settle() > 0 {
            // A device may still write there, and nobody is left who would hear when it stops. The slots keep their
            // rings, and so the pages, until the process ends; its device files are closed before that.
            std::mem::forget(std::mem::take(&mut *lock(&self.left)));
        } else {
            self.close();
        }
    }
}
