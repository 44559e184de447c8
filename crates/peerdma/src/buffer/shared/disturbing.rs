//! Taking memory away from its importers, and giving it back.

use super::bar::Bar;
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
use crate::sync::blocking::{Deadline, Mutex};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

/// How often those who wait have importers look.
const LOOK: Duration = Duration::from_millis(1);

/// A disturbance that has been announced, and may not happen yet.
///
/// Dropping it gives up: importers are told that they may map again, and nothing has happened.
#[must_use = "dropping it gives the disturbance up"]
pub struct Disturbing {
    group: Arc<Group>,
    /// Whose memory it is about, where all buffers of one are.
    bar: Option<Bar>,
    /// Whether it has come so far that it may happen.
    happens: bool,
}

/// Buffers that one disturbance is about; of a [`Bar`] also those that are exported meanwhile.
pub(super) struct Group {
    what: Disturbance,
    /// `None` when it is over.
    members: Mutex<Option<Vec<Arc<Inner>>>>,
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
#[error("{} must not happen yet: {}; wait on, end whoever holds on, or give up", self.disturbing.what(), Lines(&self.held))]
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

impl Group {
    /// Announces it to one more buffer, unless it is over.
    pub(super) fn add(&self, buffer: &Arc<Inner>) -> Result<(), Refused> {
        let holders = match self.what {
            Disturbance::Move => buffer.with(|state| state.pinned()),
            _ => Vec::new(),
        };
        if !holders.is_empty() {
            return Err(Refused::Promised { disturbance: self.what, holders });
        }
        // Not under the lock, since importers may call back. It is a member from when it has begun, so that
        // exactly what was begun is ended: deeds of two authors are counted.
        buffer.step(Event::Begin(self.what))?;
        let mut members = self.members.lock();
        match &mut *members {
            Some(members) => members.push(buffer.clone()),
            None => {
                drop(members);
                // Over meanwhile. Refused only for what is for good.
                let _ = buffer.step(Event::End { disturbance: self.what, answers: None });
            }
        }
        Ok(())
    }

    fn members(&self) -> Vec<Arc<Inner>> {
        self.members.lock().clone().unwrap_or_default()
    }
}

impl Disturbing {
    /// One that nothing has been told of yet.
    pub(super) fn of(what: Disturbance, bar: Option<Bar>) -> Self {
        let group = Group { what, members: Mutex::new(Some(Vec::new())) };
        Self { group: Arc::new(group), bar, happens: false }
    }

    /// Announces `what` to all importers of all these buffers, or of none.
    pub(super) fn begin<'a>(
        mut buffers: impl Iterator<Item = &'a Arc<Inner>>,
        what: Disturbance,
    ) -> Result<Self, Refused> {
        let begun = Self::of(what, None);
        // What was begun before a refusal is given up by the drop of `begun`.
        buffers.try_for_each(|buffer| begun.group.add(buffer))?;
        Ok(begun)
    }

    pub(super) fn group(&self) -> &Arc<Group> {
        &self.group
    }

    /// What is announced.
    pub fn what(&self) -> Disturbance {
        self.group.what
    }

    /// Whether it may happen now.
    pub fn is_quiet(&self) -> bool {
        self.group.members().iter().all(|buffer| {
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
            true => Ok(self.proceed()),
            false => Err(self),
        }
    }

    /// Who holds on, and what is outstanding.
    pub fn held(&self) -> Vec<Held> {
        let members = self.group.members();
        members.iter().flat_map(|buffer| buffer.with(|state| state.held(&buffer.name))).collect()
    }

    /// Blocks until it may happen, for at most `patience`.
    ///
    /// # Errors
    /// [`Late`], with who holds on. Nothing has happened then, and nothing was freed.
    pub fn wait(self, patience: Duration) -> Result<Disturbed, Late> {
        let deadline = Deadline::after(patience);
        for buffer in &self.group.members() {
            let mut state = buffer.lock();
            while !state.life.phase().is_quiet() {
                let Some(left) = deadline.left() else {
                    drop(state);
                    let held = self.held();
                    if held.is_empty() {
                        // The last one let go between the deadline and the question.
                        return Ok(self.proceed());
                    }
                    return Err(Late { disturbing: self, held });
                };
                // Some let go only when they are asked to look.
                drop(state);
                buffer.look();
                state = buffer.lock();
                if !state.life.phase().is_quiet() {
                    (state, _) = buffer.changed().wait_at_most(state, left.min(LOOK));
                }
            }
        }
        // Quiet stays quiet until this disturbance ends, and what is exported meanwhile is born so.
        Ok(self.proceed())
    }

    /// Calls `wake` whenever one of the buffers becomes quiet; look with [`try_proceed`](Self::try_proceed).
    ///
    /// The buffers do not keep it alive: what was dropped is not called. It may be called once too often, and is
    /// called at once if there is nothing to wait for. A buffer whose importers let go only when they are
    /// [asked to look](super::Importer::look) is to be looked at now and then all the same.
    pub fn wake(&self, wake: &Arc<dyn Wake>) {
        for buffer in &self.group.members() {
            buffer.with(|state| state.wake(wake));
        }
        if self.is_quiet() {
            wake.wake();
        }
    }

    fn proceed(mut self) -> Disturbed {
        self.happens = true;
        Disturbed(self)
    }

    fn end(&mut self, answers: Option<Answers>) {
        let what = self.group.what;
        if let Some(bar) = self.bar.take_if(|_| self.happens) {
            bar.happened(what, answers);
        }
        let members = self.group.members.lock().take();
        for buffer in members.into_iter().flatten() {
            // Refused only for what is for good.
            let _ = buffer.step(Event::End { disturbance: what, answers });
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
        write!(f, "{} of {} buffers", self.what(), self.group.members().len())
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
        let why = match &self.0.group.members()[..] {
            [buffer] => buffer.with(|state| {
                let beyond = state.out_of_reach(place);
                if state.ranges.view().len() != to.view().len() {
                    Some(WhyNot::Length { is: state.ranges.view().len(), given: to.view().len() })
                } else if !beyond.is_empty() {
                    Some(WhyNot::OutOfReach { place, holders: beyond })
                } else {
                    match state.offer.moved_to(to.clone(), place) {
                        Ok(()) => {
                            state.ranges = Arc::new(to);
                            None
                        }
                        Err(refused) => Some(WhyNot::Offer(refused)),
                    }
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
        for buffer in &self.0.group.members() {
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
