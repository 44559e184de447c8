//! From "nobody goes in any more" to "nobody is inside".

use super::barrier::{BarrierRefused, HeavyFence};
use super::gate::{GateState, Generation, Inner, Opening};
use super::slot::{Cell, SlotId};
use crate::sync::atomic::Ordering;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use thiserror::Error;

/// A user who may still be inside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outstanding {
    /// The slot's number at the gate.
    pub slot: SlotId,
    /// What its user is called.
    pub name: Arc<str>,
}

/// A generation that has ended, some of whose users may still be inside.
///
/// Dropping it leaves the gate closed; [`Gate::close`](super::Gate::close) gives another.
#[must_use = "users may still be inside"]
pub struct Closing<F> {
    gate: Arc<Inner<F>>,
    word: u64,
    seen: Seen,
}

/// What is known of those inside.
enum Seen {
    /// Nothing, as the barrier was refused.
    Unfenced(BarrierRefused),
    /// Only these were inside at every look since the barrier. Whoever was once seen outside is out for
    /// good: a slot that holds the generation again is on its way to being refused. So a
    /// user that tries in a loop keeps nobody waiting.
    Inside(Vec<Arc<Cell>>),
}

impl<F: HeavyFence> Closing<F> {
    /// Looks for the first time. The gate's word says closed already.
    pub(super) fn begin(gate: Arc<Inner<F>>, word: u64) -> Self {
        let seen = match gate.fence.heavy() {
            // A slot that is registered later sees the closed word, since the register's lock
            // was taken in between.
            Ok(()) => Seen::Inside(
                gate.register
                    .with(|register| register.cells.values().filter(|cell| is_inside(cell, word)).cloned().collect()),
            ),
            Err(refused) => Seen::Unfenced(refused),
        };
        Self { gate, word, seen }
    }

    /// Looks again; never blocks longer than the barrier takes, if that was refused before.
    ///
    /// # Errors
    /// Itself, as long as somebody may be inside.
    pub fn try_drained(mut self) -> Result<Drained<F>, Self> {
        match &mut self.seen {
            Seen::Unfenced(_) => self = Self::begin(self.gate, self.word),
            Seen::Inside(cells) => cells.retain(|cell| is_inside(cell, self.word)),
        }
        match &self.seen {
            Seen::Inside(cells) if cells.is_empty() => Ok(Drained { gate: self.gate, word: self.word }),
            _ => Err(self),
        }
    }
}

/// Acquire: what the user did inside has happened before whatever follows.
fn is_inside(cell: &Cell, word: u64) -> bool {
    cell.inside.0.load(Ordering::Acquire) == word
}

impl<F> Closing<F> {
    /// Whoever may still be inside, as last looked at; after a refused barrier, everybody.
    pub fn outstanding(&self) -> Vec<Outstanding> {
        let named = |cell: &Arc<Cell>| Outstanding { slot: cell.id, name: Arc::clone(&cell.name) };
        match &self.seen {
            Seen::Inside(cells) => cells.iter().map(named).collect(),
            Seen::Unfenced(_) => self.gate.register.with(|register| register.cells.values().map(named).collect()),
        }
    }

    /// Why everybody is taken to be inside, if the barrier was refused.
    pub const fn barrier_refused(&self) -> Option<BarrierRefused> {
        match self.seen {
            Seen::Unfenced(refused) => Some(refused),
            Seen::Inside(_) => None,
        }
    }

    /// The generation that has ended.
    pub const fn generation(&self) -> Generation {
        Generation::of_word(self.word)
    }
}

impl<F> fmt::Debug for Closing<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Closing")
            .field("generation", &self.generation())
            .field("outstanding", &self.outstanding())
            .finish()
    }
}

/// Proof that a generation is over and all its users are out.
///
/// What they did inside has happened before. The memory may move or go away now, as far as guards are
/// concerned; what devices were told to do is the reservation's question.
#[must_use = "the gate stays closed until it is opened"]
pub struct Drained<F> {
    gate: Arc<Inner<F>>,
    word: u64,
}

impl<F> Drained<F> {
    /// Opens the gate for the next generation. What was mapped before stays closed.
    ///
    /// # Errors
    /// [`AlreadyOpened`] if somebody else who waited for the same generation has opened it.
    pub fn open(self) -> Result<Opening<F>, AlreadyOpened> {
        let (word, now) = (self.word, Arc::clone(&self.gate));
        Opening::reopened(self.gate, word).ok_or_else(|| AlreadyOpened {
            ended: Generation::of_word(word),
            now: GateState::of_word(now.word.0.load(Ordering::Acquire)),
        })
    }

    /// The generation that is over.
    pub const fn generation(&self) -> Generation {
        Generation::of_word(self.word)
    }
}

impl<F> fmt::Debug for Drained<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Drained").field(&self.generation()).finish()
    }
}

/// Another who waited for the same generation opened the gate before.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("the gate that was closed after generation {ended} has been opened by somebody else: {now}")]
pub struct AlreadyOpened {
    /// The generation that was waited for.
    pub ended: Generation,
    /// What the gate was doing when it was looked at.
    pub now: GateState,
}
