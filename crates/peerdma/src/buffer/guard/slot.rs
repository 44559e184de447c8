//! A user's place at a gate, and the proof that it is inside.

use super::barrier::HeavyFence;
use super::gate::{Closed, GateState, Generation, Inner, OUTSIDE, Opening, Padded};
use crate::sync::atomic::{AtomicU64, Ordering};
use alloc::sync::Arc;
use core::fmt;
use thiserror::Error;

/// A slot's number at its gate; none is given twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct SlotId(pub(super) u64);

impl fmt::Display for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a slot and whoever waits for it share.
pub(super) struct Cell {
    /// The word of the generation that its user is in, or [`OUTSIDE`].
    pub(super) inside: Padded<AtomicU64>,
    pub(super) id: SlotId,
    pub(super) name: Arc<str>,
}

/// One user's place at a gate, for one thread at a time.
///
/// It goes in by a store and a load, without a lock and without writing to anything that others
/// write, and stays good for one generation; see [`renew`](Self::renew).
///
/// Going in borrows the slot, so that one user is not inside twice (whoever is called by it gets the
/// [`Guard`] by reference), and a slot with its user inside cannot be dropped:
///
/// ```compile_fail,E0499
/// # use peerdma::buffer::guard::{Gate, Portable};
/// # let mut slot = Gate::new(Portable).opening().unwrap().slot("twice");
/// let outer = slot.enter().unwrap();
/// let inner = slot.enter().unwrap();
/// drop(outer);
/// ```
///
/// ```compile_fail,E0505
/// # use peerdma::buffer::guard::{Gate, Portable};
/// # let mut slot = Gate::new(Portable).opening().unwrap().slot("dropped");
/// let guard = slot.enter().unwrap();
/// drop(slot);
/// drop(guard);
/// ```
pub struct Slot<F> {
    cell: Arc<Cell>,
    gate: Arc<Inner<F>>,
    word: u64,
}

impl<F: HeavyFence> Slot<F> {
    /// Goes in, if the slot's generation is still open.
    ///
    /// While the guard lives, the memory of this generation neither moves nor goes away: whoever
    /// closes the gate waits. So a guard is for as long as an access takes, or until the fence
    /// of what a device was told to do stands in the buffer's reservation.
    ///
    /// Never blocks.
    ///
    /// # Errors
    /// [`Closed`] if the generation is over. What was mapped in it leads nowhere: map anew
    /// when the gate opens, and [`renew`](Self::renew) the slot.
    #[inline]
    pub fn enter(&mut self) -> Result<Guard<'_>, Closed> {
        let inside = &self.cell.inside.0;
        inside.store(self.word, Ordering::Relaxed);
        self.gate.fence.light();
        // Acquire: nothing that the user reads under the guard is read before this.
        let now = self.gate.word.0.load(Ordering::Acquire);
        if now == self.word { Ok(Guard { inside }) } else { Err(refuse(inside, self.word, now)) }
    }
}

/// Leaves, because the generation is over.
///
/// Apart, so that what is inlined at every use is the way in and no more.
#[cold]
#[inline(never)]
fn refuse(inside: &AtomicU64, word: u64, now: u64) -> Closed {
    inside.store(OUTSIDE, Ordering::Release);
    Closed { generation: Generation::of_word(word), now: GateState::of_word(now) }
}

impl<F> Slot<F> {
    pub(super) const fn new(cell: Arc<Cell>, gate: Arc<Inner<F>>, word: u64) -> Self {
        Self { cell, gate, word }
    }

    /// Makes it good for another generation, whose mapping its user has now.
    ///
    /// # Errors
    /// [`OtherGate`] if the generation is another gate's; take a slot from there.
    pub fn renew(&mut self, opening: &Opening<F>) -> Result<(), OtherGate> {
        if !opening.is_of(&self.gate) {
            return Err(OtherGate { slot: self.cell.id });
        }
        self.word = opening.word();
        Ok(())
    }

    /// The generation that it is good for.
    pub const fn generation(&self) -> Generation {
        Generation::of_word(self.word)
    }

    /// Its number at the gate.
    pub fn id(&self) -> SlotId {
        self.cell.id
    }

    /// What its user is called.
    pub fn name(&self) -> &str {
        &self.cell.name
    }
}

impl<F> Drop for Slot<F> {
    fn drop(&mut self) {
        let cell = self.gate.register.with(|register| register.cells.remove(&self.cell.id));
        // A guard that was forgotten left its word behind; what it borrowed ended before this.
        if let Some(cell) = cell {
            cell.inside.0.store(OUTSIDE, Ordering::Release);
        }
    }
}

impl<F> fmt::Debug for Slot<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("id", &self.cell.id)
            .field("name", &self.name())
            .field("generation", &self.generation())
            .finish()
    }
}

/// A slot was to be renewed for another gate's generation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("slot {slot} stands at another gate than the one that was opened; take a slot from there")]
pub struct OtherGate {
    /// The slot.
    pub slot: SlotId,
}

/// Proof that the memory of a generation stays where it is, for as long as this lives.
///
/// A guard that is forgotten ([`core::mem::forget`]) keeps the revoker waiting until its slot goes in
/// and out again, or is dropped; it never lets one through.
#[must_use = "the memory may move as soon as the guard is dropped"]
pub struct Guard<'slot> {
    inside: &'slot AtomicU64,
}

impl Drop for Guard<'_> {
    #[inline]
    fn drop(&mut self) {
        // Release: whoever sees that the user is out sees what it did inside.
        self.inside.store(OUTSIDE, Ordering::Release);
    }
}

impl fmt::Debug for Guard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guard")
    }
}

#[cfg(test)]
impl<F> Slot<F> {
    /// Leaves the slot as it is between the store and the load of [`enter`](Slot::enter).
    pub(super) fn hold_word(&self) {
        self.cell.inside.0.store(self.word, Ordering::Relaxed);
    }
}
