//! Buffers that are taken away as one, since they lie behind one register.

use super::Buffer;
use super::buffer::Inner;
use super::disturbing::{Disturbing, Group};
use crate::buffer::life::{Answers, Causes, Disturbance, Event, Life, Phase, Refused};
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
    /// What has begun and not ended; each takes itself out.
    under_way: Vec<Arc<Group>>,
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
    /// It comes into being in one step: by what registers said last, with everything begun that is under way, and
    /// told with the others when that is over. Nobody finds it in [`buffers`](Self::buffers) before.
    ///
    /// # Errors
    /// [`Refused::Dead`]: the memory is gone for good, or about to be. [`Refused::TooMany`]: more disturbances are under
    /// way than a buffer counts.
    pub fn export(&self, name: &str, offer: Offer) -> Result<Buffer, Refused> {
        let mut state = self.0.lock();
        if !state.gone.is_none() {
            return Err(Refused::Dead { causes: state.gone });
        }
        let mut life = Life::answering(state.answers);
        for group in &state.under_way {
            life.step(Event::Begin(group.what()))?;
        }
        // Nobody is attached who would have to be told, and nobody can have put a fence there.
        life.step(Event::FencesRetired(life.generation()))?;
        if life.phase() == Phase::Dead {
            return Err(Refused::Dead { causes: life.causes() });
        }
        let buffer = Buffer(Inner::new(name, life, offer));
        state.under_way.iter().for_each(|group| group.join(&buffer.0));
        state.buffers.retain(|buffer| buffer.strong_count() > 0);
        state.buffers.push(Arc::downgrade(&buffer.0));
        Ok(buffer)
    }

    /// Announces that something is about to happen to the memory, to the importers of all its buffers. It may
    /// not happen before the wait for what is returned has ended.
    ///
    /// Waits for nobody; see [`Buffer::begin`].
    ///
    /// # Errors
    /// As [`Buffer::begin`]; nothing is announced then, and importers that heard of it may map again.
    pub fn disturb(&self, what: Disturbance) -> Result<Disturbing, Refused> {
        let mut state = self.0.lock();
        let disturbing = Disturbing::of(what, Some(self.clone()));
        state.under_way.push(disturbing.group().clone());
        let buffers: Vec<_> = state.buffers.iter().filter_map(Weak::upgrade).collect();
        // It comes as news.
        state.ends_with(what, Disturbance::Removal);
        // Importers may call back.
        drop(state);
        buffers.iter().try_for_each(|buffer| buffer.begin(disturbing.group()))?;
        Ok(disturbing)
    }

    /// Every buffer that somebody still has.
    pub fn buffers(&self) -> Vec<Buffer> {
        self.0.lock().buffers.iter().filter_map(Weak::upgrade).map(Buffer).collect()
    }

    /// How many disturbances have begun and not ended.
    #[cfg(test)]
    pub(super) fn under_way(&self) -> usize {
        self.0.lock().under_way.len()
    }

    /// A disturbance is over, which had come so far that it `happens`, and the registers say this. Answers of which buffers:
    /// what is exported from here on is of memory as it is now.
    pub(super) fn over(&self, group: &Arc<Group>, happens: bool, answers: Option<Answers>) -> Vec<Arc<Inner>> {
        let mut state = self.0.lock();
        state.under_way.retain(|other| !Arc::ptr_eq(other, group));
        if happens {
            state.ends_with(group.what(), Disturbance::Close);
            state.answers = answers.unwrap_or(state.answers);
        }
        group.dissolve()
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
