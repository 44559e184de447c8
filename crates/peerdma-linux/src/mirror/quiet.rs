//! The moment in which nobody uses the memory.

use super::error::StillInUse;
use super::turn::Mine;
use super::{Inner, Shared};
use crate::membarrier::CheapestFence;
use peerdma::addr::{AddrRange, ProcVa};
use peerdma::buffer::guard::Drained;
use peerdma::mirror::{DeviceTable, Event, Invalidation, Parked};
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Whom a change waits for that has no turn yet.
const ANOTHER: &str = "another change of the mirror's memory";

/// Nobody is inside and nobody gets in, until this is dropped. One at a time.
#[must_use = "the device is let go on at once"]
pub(super) struct Quiet<'a> {
    drained: Option<Drained<CheapestFence>>,
    _turn: Mine<'a>,
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        // Whoever opened it meanwhile would have had to have this turn.
        let opened = self.drained.take().map(Drained::open);
        assert!(opened.is_none_or(|opened| opened.is_ok()), "a gate is closed and opened by whose turn it is");
    }
}

impl<T> Shared<T> {
    /// Closes the gate, and waits until everybody is out.
    ///
    /// Where somebody does not leave in time the gate stays closed, as it opens only when all are out. Nobody comes back to it:
    /// it is opened by whoever finds it so, see [`reopen`](Self::reopen).
    pub(super) fn quiet(&self, until: Instant) -> Result<Quiet<'_>, StillInUse> {
        let Some(turn) = self.turn.take(until) else {
            return Err(StillInUse { who: vec![ANOTHER.into()], refused: None });
        };
        let longest = until.saturating_duration_since(Instant::now());
        match self.gate.close().wait_at_most(longest) {
            Ok(drained) => {
                self.left_closed.store(false, Ordering::Release);
                Ok(Quiet { drained: Some(drained), _turn: turn })
            }
            Err(late) => {
                self.left_closed.store(true, Ordering::Release);
                let who = late.outstanding.iter().map(|outstanding| outstanding.name.to_string()).collect();
                Err(StillInUse { who, refused: late.refused })
            }
        }
    }

    /// Opens a gate that somebody left closed, once everybody is out; never blocks.
    ///
    /// Contexts call it while they wait, and whoever serves. So nobody has to be told that the last one has left, and no such
    /// word can be lost. Rejected: a bell rung by whoever leaves, which costs every access a look, and in which a context waits
    /// for a server.
    pub(super) fn reopen(&self) {
        if self.left_closed.load(Ordering::Acquire)
            && let Some(turn) = self.turn.try_take()
            // Whoever had the turn since has opened it, or left it so again.
            && self.left_closed.load(Ordering::Acquire)
            && let Ok(drained) = self.gate.close().try_drained()
        {
            self.left_closed.store(false, Ordering::Release);
            drop(Quiet { drained: Some(drained), _turn: turn });
        }
    }
}

impl<T: DeviceTable> Shared<T> {
    /// Something is about to happen to owned memory: the device is stopped, its table forgets, then it happens.
    pub(super) fn announce<R>(&self, event: &Event, until: Instant, deed: impl FnOnce() -> R) -> Result<R, StillInUse> {
        let quiet = self.quiet(until)?;
        let invalidation = {
            let mut inner = self.inner();
            inner.table.quiesce();
            inner.begin(event)
        };
        let done = deed();
        let parked = self.inner().end(invalidation);
        drop(quiet);
        self.answer_all(parked);
        Ok(done)
    }

    /// Owned memory is about to move: the device is stopped and its table forgets where it is; that it is elsewhere is noted
    /// once it is, with the device still stopped.
    ///
    /// Rejected: noting the move before it, and its undoing when the kernel refuses. In between the state names a place at which
    /// there is nothing, and others map what they like.
    pub(super) fn move_over<R, E>(
        &self,
        from: AddrRange<ProcVa>,
        event: &Event,
        until: Instant,
        deed: impl FnOnce() -> Result<R, E>,
    ) -> Result<Result<R, E>, StillInUse> {
        let quiet = self.quiet(until)?;
        let emptied = {
            let mut inner = self.inner();
            inner.table.quiesce();
            // Requests that come meanwhile wait for its end.
            inner.begin(&Event::Discard(from))
        };
        let done = deed();
        let mut inner = self.inner();
        let moved = done.is_ok().then(|| inner.begin(event));
        let mut parked = moved.map(|moved| inner.end(moved)).unwrap_or_default();
        parked.extend(inner.end(emptied));
        drop(inner);
        drop(quiet);
        self.answer_all(parked);
        Ok(done)
    }
}

impl<T: DeviceTable> Inner<T> {
    /// Takes note of an event, and takes from the table what has to go.
    pub(super) fn begin(&mut self, event: &Event) -> Invalidation {
        let invalidation = self.state.begin(event);
        self.unmap(&invalidation);
        invalidation
    }

    pub(super) fn unmap(&mut self, invalidation: &Invalidation) {
        for at in &invalidation.taken {
            self.table.unmap(*at);
        }
    }

    /// Puts back what comes back; whoever waited, to be answered once the gate is open.
    pub(super) fn end(&mut self, invalidation: Invalidation) -> Vec<Parked> {
        let ended = self.state.end(invalidation);
        for (at, prot) in ended.map {
            if !self.table.map(at, prot) {
                self.state.not_mapped(at);
            }
        }
        ended.parked
    }
}
