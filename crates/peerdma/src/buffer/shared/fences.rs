//! The wait for what devices were told to do before memory was taken away.
//!
//! Which fences that are is read from the reservation, whose lock belongs to importers as well. Whoever announces a
//! disturbance does not wait for that lock: where somebody has it, those who wait ask later, and are woken for it.

use super::buffer::Inner;
use crate::buffer::fence::{Fence, FenceName, FenceSet, Signal};
use crate::buffer::life::{Event, Generation};
use crate::sync::blocking::Panic;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

/// How far the wait for fences has come.
#[derive(Clone)]
pub(super) enum Waited {
    /// Nobody has waited.
    No,
    /// Somebody had the reservation, which thus could not be asked.
    Unasked {
        generation: Generation,
        /// Whether it was given up since.
        free: bool,
    },
    /// For these; they know it by a weak handle.
    For(Arc<Awaited>),
}

impl Waited {
    fn generation(&self) -> Option<Generation> {
        match self {
            Self::No => None,
            Self::Unasked { generation, .. } => Some(*generation),
            Self::For(awaited) => Some(awaited.generation),
        }
    }

    /// Whether the reservation is yet to be asked.
    pub(super) const fn is_unasked(&self) -> bool {
        matches!(self, Self::Unasked { .. })
    }

    /// Whether the reservation is yet to be asked, and there is a point in trying.
    pub(super) const fn is_to_be_asked(&self) -> bool {
        matches!(self, Self::Unasked { free: true, .. })
    }

    /// Fences that have not retired.
    pub(super) fn names(&self) -> Vec<FenceName> {
        match self {
            Self::For(awaited) => awaited.fences.outstanding().map(Fence::name).collect(),
            _ => Vec::new(),
        }
    }
}

/// The fences that were in the reservation when all importers had been told.
pub(super) struct Awaited {
    buffer: Weak<Inner>,
    generation: Generation,
    fences: FenceSet,
}

impl Awaited {
    /// Says so if all have retired. One that was abandoned never will.
    pub(super) fn look(&self) {
        if let (true, Some(buffer)) = (self.fences.state().is_retired(), self.buffer.upgrade()) {
            // Said twice, or too late, it says nothing.
            let _ = buffer.step(Event::FencesRetired(self.generation));
        }
    }
}

impl Signal for Awaited {
    fn settled(&self) {
        self.look();
    }
}

impl Signal for Inner {
    /// The reservation could not be asked, and has been given up.
    fn settled(&self) {
        let wakes = self.with(|state| match &mut state.fences {
            Waited::Unasked { free, .. } => {
                *free = true;
                state.wakes()
            }
            _ => Vec::new(),
        });
        // Those who wait ask, on their own threads: this one may have other reservations yet.
        self.changed().notify_all();
        let mut panic = Panic::default();
        wakes.iter().for_each(|wake| panic.catch(|| wake.wake()));
        self.let_pins_go();
        panic.go_on();
    }
}

impl Inner {
    /// Finds out which fences are waited for, unless somebody has the reservation; never blocks.
    pub(super) fn await_fences(self: &Arc<Self>, generation: Generation) {
        let is_late = self.with(|state| {
            let known = matches!(&state.fences, Waited::For(awaited) if awaited.generation == generation);
            let is_late = known || state.fences.generation() > Some(generation);
            if !is_late {
                state.fences = Waited::Unasked { generation, free: false };
            }
            is_late
        });
        if is_late {
            return;
        }
        let Some(reservation) = self.reservation.try_lock_or_tell(&self.when_free()) else { return };
        let fences = reservation.users();
        drop(reservation);
        let awaited = Arc::new(Awaited { buffer: Arc::downgrade(self), generation, fences });
        self.with(|state| {
            if state.fences.generation() <= Some(generation) {
                state.fences = Waited::For(awaited.clone());
            }
        });
        let signal: Arc<dyn Signal> = awaited.clone();
        awaited.fences.notify(&signal);
        // Those that retired before they knew whom to tell.
        awaited.look();
    }
}
