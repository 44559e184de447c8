//! A second-stage fault against a move: one order for all who meet there.
//!
//! An importer without DMA addresses (a virtual machine monitor's slot, say) finds out where memory lies when the guest
//! faults. Meanwhile the exporter may move the memory, and somebody else may take the slot away. So a fault
//! is served in one order: look at the slot and remember its sequence; map the buffer; take its reservation, and see
//! that nothing which has to come first is under way; take the slot; see whether the sequence is the same; only
//! then install. Whoever takes something out of the slot advances the sequence.
//!
//! What protects a fault from a move is the mapping (`shared::Mapped`): a move waits until every mapping is gone, and
//! none is made meanwhile. What is installed holds it, and is taken out, with it, when the importer is told to let go. The
//! sequence is for the fault that crosses this: it was mapped before and would install after, when nobody takes it out any
//! more, and gives its mapping back instead. The reservation is for what a move leaves behind, such as a copy that still
//! runs, whose fence the fault finds there; the mover does not have it while it waits, or moves. An exporter without a
//! `shared::Buffer` may instead keep the place in what the lock guards, and hold it while it moves: then
//! that keeps faults out (the example below).
//!
//! Linux 7.2 does so in three places that have to agree (`mmu_invalidate_retry`, the reservation held through
//! a dma-buf's `invalidate_mappings`, and the importer's own lock). Here it is [`SecondStage::fault`],
//! [`Fault::serve`] and [`SecondStage::invalidate`], and there is no other way to the slot's table.
//!
//! KVM counts invalidations under way besides (`mmu_invalidate_in_progress`), as its pages move between two calls
//! without a lock, and a fault finds them by page tables. Here a fault maps first, which is refused meanwhile.

use super::lock::ReservationLock;
use crate::sync::blocking::Mutex;
use core::fmt;

/// The second-stage table of one importer's slot, and how often something was taken out of it.
///
/// # Examples
/// ```
/// use peerdma::addr::PhysAddr;
/// use peerdma::buffer::fence::{ReservationLock, SecondStage, Served};
///
/// let buffer = ReservationLock::new(PhysAddr::new(0x10_0000));
/// let slot = SecondStage::new(None);
/// let fault = || {
///     let (fault, _installed) = slot.fault(|table| *table);
///     fault.serve(&buffer, |at| Ok::<_, core::convert::Infallible>(*at), |table, at| *table = Some(at))
/// };
/// assert_eq!(fault(), Ok(Served::Installed));
///
/// // A move of an exporter whose lock guards the place: the reservation first, then the slots, then the memory.
/// let mut place = buffer.lock();
/// assert_eq!(slot.invalidate(|table| table.take()), Some(PhysAddr::new(0x10_0000)));
/// *place = PhysAddr::new(0x20_0000);
/// drop(place);
/// assert_eq!(fault(), Ok(Served::Installed));
/// assert_eq!(slot.invalidate(|table| *table), Some(PhysAddr::new(0x20_0000)));
/// ```
pub struct SecondStage<T> {
    slot: Mutex<Slot<T>>,
}

struct Slot<T> {
    /// How often something was taken out.
    sequence: u64,
    table: T,
}

/// What became of a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "a fault that is to be tried again has installed nothing"]
pub enum Served {
    /// The table leads to the memory.
    Installed,
    /// Something was taken out of the slot meanwhile; nothing is installed. Let the guest fault again.
    Again,
}

impl<T> SecondStage<T> {
    /// The table of a slot, as it is.
    pub fn new(table: T) -> Self {
        Self { slot: Mutex::new(Slot { sequence: 0, table }) }
    }

    /// Begins to serve a fault: `look` sees what the slot says of it, such as which buffer lies behind.
    ///
    /// What it answers holds until something is taken out of the slot, which [`Fault::serve`] notices. What a
    /// fault relies on is looked at here, and not before.
    ///
    /// Blocks for the slot's lock, with which `look` runs.
    pub fn fault<R>(&self, look: impl FnOnce(&T) -> R) -> (Fault<'_, T>, R) {
        let slot = self.slot.lock();
        let looked = look(&slot.table);
        (Fault { stage: self, seen: slot.sequence }, looked)
    }

    /// Takes something out of the table: `change` runs with the slot's lock held, and faults under way begin again.
    ///
    /// Called when the importer is told to let go, before its mapping is given back. A mover that guards the place by the
    /// buffer's lock calls it with that held. Who takes the slot itself away needs no buffer's lock.
    pub fn invalidate<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let mut slot = self.slot.lock();
        slot.sequence += 1;
        change(&mut slot.table)
    }
}

/// A fault that is being served, from the moment at which its slot was looked at.
#[must_use = "the guest goes on waiting"]
pub struct Fault<'slot, T> {
    stage: &'slot SecondStage<T>,
    seen: u64,
}

impl<T> Fault<'_, T> {
    /// Puts what `find` says of where the memory lies into the table by `install`, unless that is out of date.
    ///
    /// What holds the buffer's mapping goes into the table by `install`. Where it does not come to that it is dropped by
    /// the caller, when this has returned: giving a mapping back is nothing to do with a buffer's lock held.
    ///
    /// Blocks for both locks: `find` runs with the buffer's held, `install` with both. Neither may
    /// take a lock of a buffer or call into this slot. Call it without any such lock.
    ///
    /// # Errors
    /// What `find` answers, such as fences of usage [`Kernel`](super::Usage::Kernel) that have not retired, which are to be waited
    /// for without the locks. Nothing is installed.
    pub fn serve<B, P, E>(
        self,
        buffer: &ReservationLock<B>,
        find: impl FnOnce(&mut B) -> Result<P, E>,
        install: impl FnOnce(&mut T, P),
    ) -> Result<Served, E> {
        let mut reservation = buffer.lock();
        let place = find(&mut reservation)?;
        let mut slot = self.stage.slot.lock();
        if slot.sequence != self.seen {
            return Ok(Served::Again);
        }
        install(&mut slot.table, place);
        Ok(Served::Installed)
    }
}

impl<T> fmt::Debug for Fault<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fault").field("seen", &self.seen).finish()
    }
}

impl<T> fmt::Debug for SecondStage<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecondStage")
    }
}
