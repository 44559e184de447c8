//! Buffers that are taken away as one, since they lie behind one register.

use super::Buffer;
use super::buffer::Inner;
use super::disturbing::{Disturbing, Group};
use crate::buffer::life::{Answers, Causes, Disturbance, Refused};
use crate::buffer::terms::Offer;
use crate::sync::blocking::Mutex;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::fmt;

/// Memory of one device, and all buffers that were exported of it.
///
/// For whoever owns a device and does things to it: before it clears a decode bit, resets the function or
/// writes the BAR it calls [`disturb`](Self::disturb), and waits; afterwards it says
/// [`done`](super::Disturbed::done). Every buffer of the memory hears of it, also one that is exported
/// meanwhile: that one is born out of reach, and comes within reach with the others. Handles are cheap to
/// clone and all the same memory.
///
/// # Examples
/// ```
/// use peerdma::access::MemAttrs;
/// use peerdma::addr::Bytes;
/// use peerdma::buffer::life::{Answers, Disturbance, Phase};
/// use peerdma::buffer::shared::Bar;
/// use peerdma::buffer::terms::{Offer, Place, Stays};
/// use peerdma::chunk::{Chunk, Chunks};
/// use peerdma::dma::{Owner, OwnerId};
/// use std::time::Duration;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let page = |at| Chunk::new(Owner::Device(OwnerId::new(1)), Bytes::new(at), Bytes::new(0x1000), MemAttrs::MMIO);
/// let offer = |at| Offer::new(Chunks::collect_from(page(at)).unwrap_or_default(), Stays::UNTIL_REVOKED, Place::Ram);
/// let bar = Bar::new(Answers::YES);
/// let doorbells = bar.export("doorbells", offer(0)?)?;
///
/// let reset = bar.disturb(Disturbance::FunctionReset)?.wait(Duration::from_secs(1))?;
/// let born = bar.export("ring", offer(0x1000)?)?;
/// assert_eq!((doorbells.phase(), born.phase()), (Phase::Revoked, Phase::Revoked));
/// reset.done(); // The function has been reset.
/// assert_eq!((doorbells.phase(), born.phase()), (Phase::Live, Phase::Live));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Bar(Arc<Mutex<State>>);

struct State {
    answers: Answers,
    /// Those that somebody still has.
    buffers: Vec<Weak<Inner>>,
    under_way: Vec<Weak<Group>>,
    /// Why it is gone for good.
    gone: Causes,
}

impl Bar {
    /// Memory that answers as said, with nothing exported of it.
    pub fn new(answers: Answers) -> Self {
        Self(Arc::new(Mutex::new(State { answers, buffers: Vec::new(), under_way: Vec::new(), gone: Causes::NONE })))
    }

    /// Exports a part of it. Of memory that is being disturbed, or does not answer, the buffer is born out of reach.
    ///
    /// # Errors
    /// [`Refused::Dead`]: the memory is gone for good. [`Refused::TooMany`]: more disturbances are under way
    /// than a buffer counts.
    pub fn export(&self, name: &str, offer: Offer) -> Result<Buffer, Refused> {
        let mut state = self.0.lock();
        if !state.gone.is_none() {
            return Err(Refused::Dead { causes: state.gone });
        }
        let buffer = Buffer::new(name, offer, state.answers);
        state.buffers.retain(|buffer| buffer.strong_count() > 0);
        state.buffers.push(Arc::downgrade(&buffer.0));
        state.under_way.retain(|group| group.strong_count() > 0);
        let groups: Vec<_> = state.under_way.iter().filter_map(Weak::upgrade).collect();
        // What begins from here on finds the buffer in the list. Nobody has it yet, so that what has begun may
        // proceed before the buffer belongs to it.
        drop(state);
        groups.iter().try_for_each(|group| group.add(&buffer.0))?;
        Ok(buffer)
    }

    /// Announces that something is about to happen to the memory, to the importers of all its buffers. It may
    /// not happen before the wait for what is returned has ended.
    ///
    /// Does not block.
    ///
    /// # Errors
    /// As [`Buffer::begin`]; nothing is announced then, and importers that heard of it may map again.
    pub fn disturb(&self, what: Disturbance) -> Result<Disturbing, Refused> {
        let mut state = self.0.lock();
        let disturbing = Disturbing::of(what, Some(self.clone()));
        state.under_way.push(Arc::downgrade(disturbing.group()));
        let buffers: Vec<_> = state.buffers.iter().filter_map(Weak::upgrade).collect();
        // It comes as news.
        state.ends_with(what, Disturbance::Removal);
        // Importers may call back.
        drop(state);
        buffers.iter().try_for_each(|buffer| disturbing.group().add(buffer))?;
        Ok(disturbing)
    }

    /// Every buffer that somebody still has.
    pub fn buffers(&self) -> Vec<Buffer> {
        self.0.lock().buffers.iter().filter_map(Weak::upgrade).map(Buffer).collect()
    }

    /// Something has happened, and the registers say this.
    pub(super) fn happened(&self, what: Disturbance, answers: Option<Answers>) {
        let mut state = self.0.lock();
        state.ends_with(what, Disturbance::Close);
        state.answers = answers.unwrap_or(state.answers);
    }
}

impl State {
    fn ends_with(&mut self, what: Disturbance, end: Disturbance) {
        if what == end && !self.gone.has(end) {
            self.gone.begin(end);
        }
    }
}

impl fmt::Debug for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.lock();
        f.debug_struct("Bar").field("answers", &state.answers).field("gone", &state.gone).finish_non_exhaustive()
    }
}
