//! Taking memory away from its importers, and giving it back.

use super::buffer::Inner;
use super::importer::Holder;
use super::wake::Wake;
use crate::access::Prot;
use crate::addr::Bytes;
use crate::buffer::fence::FenceName;
use crate::buffer::life::{Answers, Disturbance, Event, Refused, Still};
use crate::buffer::terms::{OfferError, Place};
use crate::chunk::Chunks;
use crate::dma::Owner;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use hosted::time::{Duration, Instant};

extern crate std as hosted;

/// How often those who wait have importers look.
const LOOK: Duration = Duration::from_millis(1);

/// A disturbance that has been announced, and may not happen yet.
///
/// Dropping it gives up: importers are told that they may map again, and nothing has happened.
#[must_use = "dropping it gives the disturbance up"]
pub struct Disturbing {
    what: Disturbance,
    buffers: Vec<Arc<Inner>>,
}

/// A disturbance that may happen, or has: nobody has mapped the memory.
///
/// # What holding this tells you
/// No importer reaches the memory, and none can map it. [`done`](Self::done) ends that, as dropping it does.
///
/// Writes to a device's memory may still be on their way there where an IOMMU took an importer's access away: it waits
/// for those to RAM and not for what it has sent on to a peer (VT-d 4.1, Drain Writes of the IOTLB invalidate register).
/// Its exporter reads from the device first, which pushes them (PCIe 6.0 §2.4.1).
#[must_use = "dropping it says that the disturbance is over"]
pub struct Disturbed(Disturbing);

/// Somebody, or something, that a disturbance waits for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// The buffer's name.
    pub buffer: String,
    /// Who holds on; `None` for fences, which belong to the buffer.
    pub holder: Option<Holder>,
    /// What is outstanding.
    pub what: Still,
    /// Which fences, where it is fences.
    pub fences: Vec<FenceName>,
}

impl fmt::Display for Held {
    /// Writes `vram0: nic0 in process 4711 (server) has 2 mappings`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.holder {
            Some(holder) => write!(f, "{}: {holder} {}", self.buffer, self.what)?,
            None => write!(f, "{}: {}", self.buffer, self.what)?,
        }
        for (index, fence) in self.fences.iter().enumerate() {
            write!(f, "{}{fence}", if index == 0 { ": " } else { ", " })?;
        }
        Ok(())
    }
}

/// The deadline has passed and somebody still holds on.
#[derive(Debug, thiserror::Error)]
#[error("{} must not happen yet: {}; wait on, end whoever holds on, or give up", self.disturbing.what, Lines(&self.held))]
pub struct Late {
    /// The disturbance, to wait for again or to give up.
    pub disturbing: Disturbing,
    /// Who holds on, and what is outstanding. Never empty.
    pub held: Vec<Held>,
}

struct Lines<'a, T>(&'a [T]);

impl<T: fmt::Display> fmt::Display for Lines<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, each) in self.0.iter().enumerate() {
            write!(f, "{}{each}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl Disturbing {
    /// Announces `what` to all importers of all these buffers, or of none.
    pub(super) fn begin<'a>(buffers: impl Iterator<Item = &'a Arc<Inner>>, what: Disturbance) -> Result<Self, Refused> {
        let mut begun = Self { what, buffers: Vec::new() };
        for buffer in buffers {
            // What was begun before a refusal is given up by the drop of `begun`.
            let holders = match what {
                Disturbance::Move => buffer.with(|state| state.pinned()),
                _ => Vec::new(),
            };
            if !holders.is_empty() {
                return Err(Refused::Promised { disturbance: what, holders });
            }
            buffer.step(Event::Begin(what))?;
            begun.buffers.push(buffer.clone());
        }
        Ok(begun)
    }

    /// What is announced.
    pub fn what(&self) -> Disturbance {
        self.what
    }

    /// Whether it may happen now.
    pub fn is_quiet(&self) -> bool {
        self.buffers.iter().all(|buffer| {
            let is_quiet = || buffer.with(|state| state.life.phase().is_quiet());
            is_quiet() || {
                buffer.look();
                is_quiet()
            }
        })
    }

    /// Goes on if it may happen now; never blocks.
    ///
    /// # Errors
    /// Itself, while somebody holds on; see [`held`](Self::held).
    pub fn try_proceed(self) -> Result<Disturbed, Self> {
        match self.is_quiet() {
            true => Ok(Disturbed(self)),
            false => Err(self),
        }
    }

    /// Who holds on, and what is outstanding.
    pub fn held(&self) -> Vec<Held> {
        let mut list = Vec::new();
        for buffer in &self.buffers {
            buffer.with(|state| {
                for outstanding in state.life.outstanding() {
                    let holder = outstanding.who.and_then(|who| state.holder(who).cloned());
                    let fences = if outstanding.what == Still::Fences { state.fences() } else { Vec::new() };
                    list.push(Held { buffer: buffer.name.clone(), holder, what: outstanding.what, fences });
                }
            });
        }
        list
    }

    /// Blocks until it may happen, for at most `patience`.
    ///
    /// # Errors
    /// [`Late`], with who holds on. Nothing has happened then, and nothing was freed.
    pub fn wait(self, patience: Duration) -> Result<Disturbed, Late> {
        let end = Instant::now() + patience;
        for buffer in &self.buffers {
            let mut state = buffer.lock();
            while !state.life.phase().is_quiet() {
                let left = end.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    drop(state);
                    let held = self.held();
                    if held.is_empty() {
                        // The last one let go between the deadline and the question.
                        return Ok(Disturbed(self));
                    }
                    return Err(Late { disturbing: self, held });
                }
                // Some let go only when they are asked to look.
                drop(state);
                buffer.look();
                state = buffer.lock();
                if !state.life.phase().is_quiet() {
                    (state, _) = buffer.changed().wait_at_most(state, left.min(LOOK));
                }
            }
        }
        // Quiet stays quiet until this disturbance ends.
        Ok(Disturbed(self))
    }

    /// Calls `wake` whenever one of the buffers becomes quiet; look with [`try_proceed`](Self::try_proceed).
    pub fn wake(&self, wake: &Arc<dyn Wake>) {
        for buffer in &self.buffers {
            buffer.with(|state| state.wake(wake.clone()));
        }
        if self.is_quiet() {
            wake.wake();
        }
    }

    fn end(&mut self, answers: Option<Answers>) {
        for buffer in self.buffers.drain(..) {
            // Refused only for what is for good.
            let _ = buffer.step(Event::End { disturbance: self.what, answers });
        }
    }
}

impl Drop for Disturbing {
    fn drop(&mut self) {
        self.end(None);
    }
}

impl fmt::Debug for Disturbing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} buffers", self.what, self.buffers.len())
    }
}

impl Disturbed {
    /// It is over, and nothing else has changed.
    pub fn done(self) {}

    /// It is over, and the registers now say whether memory answers.
    pub fn done_answering(mut self, answers: Answers) {
        self.0.end(Some(answers));
    }

    /// The bytes lie elsewhere now; who maps anew gets that place. Then it is over.
    ///
    /// # Errors
    /// [`NotMoved`], with this: it is not over then, and nothing has changed.
    pub fn moved(self, to: Chunks<Owner>, place: Place) -> Result<(), NotMoved> {
        let why = match &self.0.buffers[..] {
            [buffer] => buffer.with(|state| {
                let beyond = state.out_of_reach(place);
                if state.ranges.view().len() != to.view().len() {
                    Some(WhyNot::Length { is: state.ranges.view().len(), given: to.view().len() })
                } else if !beyond.is_empty() {
                    Some(WhyNot::OutOfReach { place, holders: beyond })
                } else {
                    let moved = state.offer.moved_to(to.clone(), place);
                    state.ranges = Arc::new(to);
                    moved.err().map(WhyNot::Offer)
                }
            }),
            several => Some(WhyNot::Several { buffers: several.len() }),
        };
        match why {
            None => Ok(()),
            Some(why) => Err(NotMoved { disturbed: self, why }),
        }
    }

    /// Who maps anew may do so much at most. Then it is over.
    pub fn permit(self, prot: Prot) {
        for buffer in &self.0.buffers {
            buffer.with(|state| state.permitted = prot);
        }
    }
}

/// A move that was not recorded.
#[derive(Debug, thiserror::Error)]
#[error("the buffer's place is as it was: {why}")]
pub struct NotMoved {
    /// The disturbance, which goes on.
    pub disturbed: Disturbed,
    /// Why.
    pub why: WhyNot,
}

/// Why a move was not recorded.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WhyNot {
    /// A buffer's size never changes.
    #[error("the buffer has {is} and the new place {given}")]
    Length {
        /// The buffer's.
        is: Bytes,
        /// The place's.
        given: Bytes,
    },
    /// Somebody who has attached does not reach the new place.
    #[error("{place} is out of reach for {}", Lines(holders))]
    OutOfReach {
        /// The new place.
        place: Place,
        /// Who does not reach it.
        holders: Vec<Holder>,
    },
    /// The ranges cannot be exported.
    #[error(transparent)]
    Offer(OfferError),
    /// The disturbance is of several buffers, or of none.
    #[error("{buffers} buffers do not have one place; move them one by one")]
    Several {
        /// How many.
        buffers: usize,
    },
}

impl fmt::Debug for Disturbed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, quiet", self.0)
    }
}
