//! What proves that memory is charged, or pinned.

use crate::buffer::fence::FenceSet;
use alloc::sync::Arc;

/// Tells the handles of one ledger from those of another.
#[derive(Clone, Debug, Default)]
pub(super) struct Seal(Arc<()>);

impl PartialEq for Seal {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// Memory of a tenant that lies in a region.
///
/// Given back with [`Ledger::uncharge`](super::Ledger::uncharge); one that is dropped stays charged, since
/// the memory is still there.
#[derive(Debug)]
#[must_use = "memory stays charged until the handle is given back"]
pub struct Charge {
    pub(super) ledger: Seal,
    pub(super) number: u64,
}

/// A pin that keeps memory in its region.
///
/// By handle and not by address: whoever pins twice has two, and each is let go by itself. It cannot be
/// copied, so that nobody lets go of another's pin:
///
/// ```compile_fail,E0599
/// use peerdma::buffer::pins::PinHandle;
///
/// fn twice(pin: &PinHandle) -> PinHandle {
///     pin.clone()
/// }
/// ```
///
/// Given back with [`Ledger::unpin`](super::Ledger::unpin); one that is dropped goes on holding, since a
/// device may still use the memory.
#[derive(Debug)]
#[must_use = "memory stays pinned until the handle is given back"]
pub struct PinHandle {
    pub(super) ledger: Seal,
    pub(super) number: u64,
}

/// What uses memory that is pinned: fences, transfers of a queue.
pub trait Users {
    /// How many still use it. Once zero it stays zero.
    fn outstanding(&self) -> usize;
}

/// What devices were doing with a buffer: see [`Reservation::users`](crate::buffer::fence::Reservation::users).
///
/// One that was abandoned is a user, until it is written off: nobody has said that the device is done.
impl Users for FenceSet {
    fn outstanding(&self) -> usize {
        Self::outstanding(self).count()
    }
}

impl<F: Fn() -> usize> Users for F {
    fn outstanding(&self) -> usize {
        self()
    }
}
