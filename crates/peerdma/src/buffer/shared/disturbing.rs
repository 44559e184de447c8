//! Taking memory away from its importers, and giving it back.

use super::Buffer;
use super::bar::Bar;
use super::buffer::Inner;
use super::held::{Held, Late};
use super::wake::Wake;
use crate::access::Prot;
use crate::buffer::life::{Answers, Disturbance, Event, Refused};
use crate::sync::blocking::{Deadline, Mutex};
use crate::sync::for_every;
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
    /// None when it is over.
    members: Mutex<Vec<Arc<Inner>>>,
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

impl Group {
    pub(super) fn what(&self) -> Disturbance {
        self.what
    }

    /// One more buffer is of it, in which it has begun. Deeds of two authors are counted, so exactly what was begun is ended.
    pub(super) fn join(&self, buffer: &Arc<Inner>) {
        self.members.lock().push(buffer.clone());
    }

    /// It is over, for all of these.
    pub(super) fn dissolve(&self) -> Vec<Arc<Inner>> {
        core::mem::take(&mut *self.members.lock())
    }

    fn members(&self) -> Vec<Arc<Inner>> {
        self.members.lock().clone()
    }
}

impl Disturbing {
    /// One that nothing has been told of yet.
    pub(super) fn of(what: Disturbance, bar: Option<Bar>) -> Self {
        let group = Group { what, members: Mutex::new(Vec::new()) };
        Self { group: Arc::new(group), bar, happens: false }
    }

    /// Announces `what` to all importers of all these buffers, or of none.
    pub(super) fn begin<'a>(
        mut buffers: impl Iterator<Item = &'a Arc<Inner>>,
        what: Disturbance,
    ) -> Result<Self, Refused> {
        let begun = Self::of(what, None);
        // What was begun before a refusal, or a panic of an importer, is given up by the drop of `begun`.
        buffers.try_for_each(|buffer| buffer.begin(&begun.group))?;
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
                if !state.life.phase().is_quiet() && !state.fences.is_to_be_asked() {
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
        let members = match self.bar.take() {
            Some(bar) => bar.over(&self.group, self.happens, answers),
            None => self.group.dissolve(),
        };
        let end = Event::End { disturbance: self.what(), answers };
        // Refused only for what is for good. An importer that panics keeps no other buffer from its end.
        for_every(members, |buffer| drop(buffer.step(end)));
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
    /// What may happen now.
    pub fn what(&self) -> Disturbance {
        self.0.what()
    }

    /// Whether it is about this buffer, and no other.
    pub fn is_of(&self, buffer: &Buffer) -> bool {
        matches!(&self.members()[..], [only] if Arc::ptr_eq(only, &buffer.0))
    }

    pub(super) fn members(&self) -> Vec<Arc<Inner>> {
        self.0.group.members()
    }

    /// It is over, and nothing else has changed.
    pub fn done(self) {}

    /// It is over, and the registers now say whether memory answers.
    pub fn done_answering(mut self, answers: Answers) {
        self.0.end(Some(answers));
    }

    /// Who maps anew may do so much at most, and who attaches anew is offered no more. Then it is over.
    ///
    /// What an attachment was settled for stays settled, so that more can be permitted again.
    pub fn permit(self, prot: Prot) {
        for buffer in &self.members() {
            buffer.with(|state| state.offer.permit(prot));
        }
    }
}

impl fmt::Debug for Disturbed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, quiet", self.0)
    }
}
