//! Waiting until a gate's users are out, for those who may block.

use super::barrier::{BarrierRefused, HeavyFence};
use super::closing::{Closing, Drained, Outstanding};
use crate::sync::blocking::Waiting;
use alloc::vec::Vec;
use core::time::Duration;
use thiserror::Error;

impl<F: HeavyFence> Closing<F> {
    /// Waits until all users are out, for `longest` at most.
    ///
    /// Looks again and again, at first at once and then after pauses that grow to a millisecond: a user who
    /// leaves stores one word and wakes nobody, because waking would cost every access what only
    /// a revocation needs.
    ///
    /// # Errors
    /// [`StillInside`], with whoever is and with what to go on waiting with. The gate stays closed.
    ///
    /// ```
    /// use core::time::Duration;
    /// use peerdma::buffer::guard::{Gate, Portable};
    ///
    /// let gate = Gate::new(Portable);
    /// let mut slot = gate.opening()?.slot("nic queue 3");
    /// let guard = slot.enter()?;
    /// let late = gate.close().wait_at_most(Duration::from_millis(2)).expect_err("it is inside");
    /// assert_eq!(&*late.outstanding[0].name, "nic queue 3");
    /// drop(guard);
    /// late.closing.wait_at_most(Duration::from_secs(1))?.open()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_at_most(self, longest: Duration) -> Result<Drained<F>, StillInside<F>> {
        let mut waiting = Waiting::at_most(longest);
        let mut closing = self;
        loop {
            closing = match closing.try_drained() {
                Ok(drained) => return Ok(drained),
                Err(closing) => closing,
            };
            if !waiting.pause() {
                let (outstanding, refused) = (closing.outstanding(), closing.barrier_refused());
                return Err(StillInside { outstanding, refused, closing });
            }
        }
    }
}

/// Some users did not leave in time.
#[derive(Debug, Error)]
#[error("{}{} may still use the memory of generation {}; stop them, or wait longer", Names(.outstanding), Refused(*.refused), .closing.generation())]
pub struct StillInside<F> {
    /// Who.
    pub outstanding: Vec<Outstanding>,
    /// Why everybody is taken to be, if the barrier was refused.
    pub refused: Option<BarrierRefused>,
    /// What to go on waiting with.
    pub closing: Closing<F>,
}

/// The first of them by name, and how many more.
struct Names<'n>(&'n [Outstanding]);

impl core::fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        const SHOWN: usize = 4;
        for (nth, outstanding) in self.0.iter().take(SHOWN).enumerate() {
            write!(f, "{}{:?} (slot {})", if nth == 0 { "" } else { ", " }, outstanding.name, outstanding.slot)?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

struct Refused(Option<BarrierRefused>);

impl core::fmt::Display for Refused {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            Some(refused) => write!(f, " ({refused})"),
            None => Ok(()),
        }
    }
}
