//! The gate of a buffer or a group: which generation is open, and who might be inside.

use super::barrier::HeavyFence;
use super::closing::Closing;
use super::slot::{Cell, Slot, SlotId};
use crate::sync::Lock;
use crate::sync::atomic::{AtomicU64, Ordering};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::fmt;
use thiserror::Error;

/// What a slot holds while nobody is inside; no generation has this word.
pub(super) const OUTSIDE: u64 = 0;

/// The bit of the word that says that the generation is over.
const CLOSED: u64 = 1;

/// One value on cache lines of its own.
///
/// Two lines of 64 bytes, since processors fetch them in pairs; one of 128 on others.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Padded<T>(pub(super) T);

/// Which stretch of a gate's life, from one opening to the next closing; counted from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Generation(u64);

impl Generation {
    /// Its number.
    pub const fn number(self) -> u64 {
        self.0
    }

    pub(super) const fn of_word(word: u64) -> Self {
        Self(word >> 1)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a gate is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum GateState {
    /// Users of this generation may go in.
    Open(Generation),
    /// This generation is over, and no other has begun.
    Closed(Generation),
}

impl GateState {
    pub(super) const fn of_word(word: u64) -> Self {
        let generation = Generation::of_word(word);
        if word & CLOSED == 0 { Self::Open(generation) } else { Self::Closed(generation) }
    }
}

impl fmt::Display for GateState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(generation) => write!(f, "generation {generation} is open; map anew"),
            Self::Closed(_) => f.write_str("the gate is closed; map anew when it opens"),
        }
    }
}

/// What was used belongs to a generation that is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("generation {generation} of this memory is over: {now}")]
pub struct Closed {
    /// The generation that is over.
    pub generation: Generation,
    /// What the gate was doing when it was looked at.
    pub now: GateState,
}

/// What a gate, its openings and its slots share.
pub(super) struct Inner<F> {
    /// The generation, shifted by one; and [`CLOSED`]. Everybody reads it, few ever write it.
    pub(super) word: Padded<AtomicU64>,
    pub(super) fence: F,
    pub(super) register: Lock<Register>,
}

/// Whoever might be inside.
#[derive(Default)]
pub(super) struct Register {
    next: u64,
    pub(super) cells: BTreeMap<SlotId, Arc<Cell>>,
}

impl Register {
    fn add(&mut self, name: &str) -> Arc<Cell> {
        let id = SlotId(self.next);
        self.next += 1;
        let cell = Arc::new(Cell { inside: Padded(AtomicU64::new(OUTSIDE)), id, name: Arc::from(name) });
        self.cells.insert(id, Arc::clone(&cell));
        cell
    }
}

/// Lets users of memory in, and lets whoever takes the memory away know when they are out.
///
/// One stands in front of a buffer, or of a group of buffers that are taken away together; then
/// ending all their mappings costs what ending one does. Cloning gives another handle of the same gate.
///
/// # Concurrency
/// Going in and out takes no lock. Making and dropping slots, and closing, take one for a moment.
///
/// # Examples
/// ```
/// use peerdma::buffer::guard::{Gate, Portable};
///
/// let gate = Gate::new(Portable);
/// let mapped_in = gate.opening()?;
/// let mut slot = mapped_in.slot("copy thread");
///
/// let guard = slot.enter()?;
/// let closing = gate.close();
/// // Whoever is inside is named, and the memory is not to be touched yet.
/// let closing = closing.try_drained().expect_err("the copy thread is inside");
/// assert_eq!(&*closing.outstanding()[0].name, "copy thread");
/// drop(guard);
///
/// let drained = closing.try_drained().expect("nobody is inside");
/// assert!(slot.enter().is_err(), "nobody goes in any more");
///
/// // The memory lies elsewhere now; what was mapped before stays closed for good.
/// let next = drained.open()?;
/// assert!(slot.enter().is_err());
/// slot.renew(&next)?;
/// assert!(slot.enter().is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Gate<F> {
    inner: Arc<Inner<F>>,
}

impl<F: HeavyFence> Gate<F> {
    /// A gate that is open, in its first generation.
    pub fn new(fence: F) -> Self {
        let word = Padded(AtomicU64::new(2));
        Self { inner: Arc::new(Inner { word, fence, register: Lock::new(Register::default()) }) }
    }

    /// The generation that is open now, for whoever maps.
    ///
    /// # Errors
    /// [`Closed`] if none is; wait until the gate opens.
    pub fn opening(&self) -> Result<Opening<F>, Closed> {
        // Acquire: whoever maps sees where the memory lies in this generation.
        let word = self.inner.word.0.load(Ordering::Acquire);
        match GateState::of_word(word) {
            GateState::Open(_) => Ok(Opening { gate: Arc::clone(&self.inner), word }),
            now @ GateState::Closed(generation) => Err(Closed { generation, now }),
        }
    }

    /// Ends the generation: from here on nobody goes in.
    ///
    /// Who is inside already goes on; [`Closing`] says who. A gate that is closed stays so, and the
    /// generation that was ended before can be waited for again, also by several at once.
    ///
    /// Blocks for as long as [`HeavyFence::heavy`] does, and not for users.
    pub fn close(&self) -> Closing<F> {
        // Release, so that what the revoker did before is known to those it refuses; the order against
        // the loads of slots is the barrier's.
        let before = self.inner.word.0.fetch_or(CLOSED, Ordering::AcqRel);
        Closing::begin(Arc::clone(&self.inner), before & !CLOSED)
    }
}

impl<F> Gate<F> {
    /// What it is doing; may be otherwise a moment later.
    pub fn state(&self) -> GateState {
        GateState::of_word(self.inner.word.0.load(Ordering::Acquire))
    }
}

impl<F> Clone for Gate<F> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<F> fmt::Debug for Gate<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Gate").field(&self.state()).finish()
    }
}

/// One generation of a gate, in which something was mapped.
///
/// A mapping keeps the one that it was made in: when it is over the mapping leads nowhere, even if
/// the gate has opened again. Slots, one for each thread of use, come from here.
pub struct Opening<F> {
    gate: Arc<Inner<F>>,
    word: u64,
}

impl<F> Opening<F> {
    /// Registers a user, `name`d for whoever has to wait for it.
    ///
    /// Takes memory and a lock, so it belongs where memory is mapped and not where it is used.
    pub fn slot(&self, name: &str) -> Slot<F> {
        let cell = self.gate.register.with(|register| register.add(name));
        Slot::new(cell, Arc::clone(&self.gate), self.word)
    }

    /// Its number.
    pub const fn generation(&self) -> Generation {
        Generation::of_word(self.word)
    }

    /// Whether it has ended; once it has, it stays so.
    pub fn is_over(&self) -> bool {
        self.gate.word.0.load(Ordering::Acquire) != self.word
    }

    pub(super) fn reopened(gate: Arc<Inner<F>>, word: u64) -> Option<Self> {
        // Release, so that who goes in sees what was done to the memory while it was closed.
        let opened = gate.word.0.compare_exchange(word | CLOSED, word + 2, Ordering::AcqRel, Ordering::Acquire);
        opened.is_ok().then(|| Self { gate, word: word + 2 })
    }

    pub(super) fn is_of(&self, gate: &Arc<Inner<F>>) -> bool {
        Arc::ptr_eq(&self.gate, gate)
    }

    pub(super) const fn word(&self) -> u64 {
        self.word
    }
}

impl<F> Clone for Opening<F> {
    fn clone(&self) -> Self {
        Self { gate: Arc::clone(&self.gate), word: self.word }
    }
}

impl<F> fmt::Debug for Opening<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Opening").field(&self.generation()).finish()
    }
}
