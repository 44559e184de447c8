//! The gate in front of a device's CPU windows: shut while its memory does not answer.

use super::lock;
use crate::membarrier::CheapestFence;
use peerdma::buffer::guard::{Closing, Gate, Opening, Outstanding};
use std::sync::Mutex;
use std::time::Duration;

/// A gate, and what is to become of it.
pub(super) struct Door {
    gate: Gate<CheapestFence>,
    state: Mutex<State>,
}

struct State {
    /// Whether accesses are to be let in.
    open: bool,
    /// The generation that was ended; users may still be inside, though none goes in.
    closing: Option<Closing<CheapestFence>>,
}

impl Door {
    pub(super) fn new(open: bool) -> Self {
        let gate = Gate::new(CheapestFence::of_this_kernel());
        let closing = (!open).then(|| gate.close());
        Self { gate, state: Mutex::new(State { open, closing }) }
    }

    /// Lets nobody in any more, and waits for whoever is inside.
    ///
    /// # Errors
    /// Who is inside still. The door stays shut until [`open`](Self::open).
    pub(super) fn shut(&self, patience: Duration) -> Result<(), Vec<Outstanding>> {
        let mut state = lock(&self.state);
        state.open = false;
        let closing = state.closing.take().unwrap_or_else(|| self.gate.close());
        match closing.wait_at_most(patience) {
            // Another closing of a generation that has ended costs nothing, and says that all are out.
            Ok(_) => {
                state.closing = Some(self.gate.close());
                Ok(())
            }
            Err(late) => {
                state.closing = Some(late.closing);
                Err(late.outstanding)
            }
        }
    }

    /// Lets accesses in from now on.
    pub(super) fn open(&self) {
        lock(&self.state).open = true;
        // Whoever comes first opens, if somebody is inside still.
        let _ = self.opening();
    }

    /// The generation for whoever wants in; `None` while the door is shut.
    pub(super) fn opening(&self) -> Option<Opening<CheapestFence>> {
        let mut state = lock(&self.state);
        if !state.open {
            return None;
        }
        if let Some(closing) = state.closing.take() {
            match closing.try_drained() {
                Ok(drained) => return drained.open().ok().or_else(|| self.gate.opening().ok()),
                Err(closing) => {
                    state.closing = Some(closing);
                    return None;
                }
            }
        }
        self.gate.opening().ok()
    }
}
