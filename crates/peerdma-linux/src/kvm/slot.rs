//! One slot.

use super::error::SlotError;
use super::memory::SlotMemory;
use super::vm::Inner;
use peerdma::addr::{AddrRange, GuestPhys};
use std::fmt;
use std::sync::Arc;

/// Which slot of a machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[repr(transparent)]
pub struct SlotId(u16);

impl SlotId {
    pub(super) const fn new(number: u16) -> Self {
        Self(number)
    }

    /// Its number, as KVM counts.
    pub const fn number(self) -> u16 {
        self.0
    }
}

impl fmt::Display for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {}", self.0)
    }
}

/// Memory that a guest sees, deleted when dropped.
///
/// *What holding this tells you:* the guest sees the memory there as long as the memory is there; nothing else is.
/// When it has been dropped, no processor of the guest reaches the memory through it.
#[derive(Debug)]
#[must_use = "dropping it takes the memory from the guest"]
pub struct Slot {
    pub(super) vm: Arc<Inner>,
    pub(super) id: SlotId,
    pub(super) range: AddrRange<GuestPhys>,
    pub(super) request: crate::sys::kvm::SlotRequest,
    /// Dropped after the slot.
    pub(super) memory: SlotMemory,
    pub(super) deleted: bool,
}

impl Slot {
    /// Which slot it is.
    pub fn id(&self) -> SlotId {
        self.id
    }

    /// Where the guest sees it.
    pub fn range(&self) -> AddrRange<GuestPhys> {
        self.range
    }

    /// Moves it to another place in the guest, as a BAR moves when its register is written.
    ///
    /// The kernel takes the slot out and puts it in again: an access of the guest in between leaves as one to a hole.
    /// So the guest's processors that could make one do not run meanwhile, as none does while it writes a BAR's register.
    ///
    /// # Errors
    /// [`SlotError`]; it is where it was. Memory that belongs to the guest cannot be moved ([`SlotError::NotPermitted`]).
    pub fn move_to(&mut self, at: GuestPhys) -> Result<(), SlotError> {
        let range = self.vm.move_slot(self, at)?;
        self.range = range;
        self.request.guest = at.as_u64();
        Ok(())
    }

    /// Takes it from the guest, and says if that failed; dropping it does the same and says nothing.
    ///
    /// # Errors
    /// [`SlotError::Kernel`]: it is still there, and its memory is never unmapped then.
    pub fn delete(mut self) -> Result<(), SlotError> {
        self.take()
    }

    pub(super) fn take(&mut self) -> Result<(), SlotError> {
        if !self.deleted {
            self.vm.delete_slot(self.id, self.range, self.request)?;
            self.deleted = true;
        }
        Ok(())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.take().is_err() {
            // The guest still reaches it, so that nothing else may ever be there.
            std::mem::forget(self.memory.clone());
        }
    }
}
