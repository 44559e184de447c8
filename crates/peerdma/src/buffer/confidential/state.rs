//! Where a private register is in its life.

use super::event::{Action, Barred, Event, Stage};
use super::table::{Answer, TABLE};
use crate::dma::confidential::{Interface, MemoryKind};
use alloc::vec::Vec;

/// Where a private register is in its life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct State {
    stage: Stage,
    started: bool,
    viommu: bool,
}

/// Why an event is refused; nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{event} is refused while {stage} ({why}): {}", why.sentence())]
pub struct Refusal {
    /// The event.
    pub event: Event,
    /// The stage.
    pub stage: Stage,
    /// Why.
    pub why: Barred,
}

impl State {
    /// A device like any other, for a guest that has not started.
    pub const fn new() -> Self {
        Self { stage: Stage::Shared, started: false, viommu: false }
    }

    /// A state as it is written, whether or not anything leads there.
    #[cfg(test)]
    pub(super) const fn written(stage: Stage, started: bool, viommu: bool) -> Self {
        Self { stage, started, viommu }
    }

    /// How far it has come.
    pub const fn stage(&self) -> Stage {
        self.stage
    }

    /// Whether the guest has started.
    pub const fn is_started(&self) -> bool {
        self.started
    }

    /// Whether the guest's IOMMU is in front of the device.
    pub const fn has_viommu(&self) -> bool {
        self.viommu
    }

    /// The interface's state in the words of TDISP.
    pub const fn interface(&self) -> Interface {
        match self.stage {
            Stage::Shared | Stage::Closed => Interface::Plain,
            Stage::Prepared | Stage::Locking => Interface::Unlocked,
            Stage::Locked => Interface::Locked,
            Stage::Running => Interface::Run,
            Stage::Failed => Interface::Error,
        }
    }

    /// What the memory is to confidential guests, for an [`Offer`](super::super::terms::Offer) of it.
    pub const fn memory(&self) -> MemoryKind {
        MemoryKind::Mmio(self.interface())
    }

    /// What is to be done about an event.
    ///
    /// # Errors
    /// [`Refusal`], which says what to do instead; the state is as it was.
    pub fn step(&mut self, event: Event) -> Result<Vec<Action>, Refusal> {
        let refused = |why| Refusal { event, stage: self.stage, why };
        // Each combination stands in one row, as a test says; one left out must not hand memory out.
        let row = TABLE.iter().find(|row| row.holds(self, event));
        let (stage, actions) = match row.map(|row| row.answer) {
            Some(Answer::Goes(stage, actions)) => (stage, actions),
            Some(Answer::Stays(actions)) => (self.stage, actions),
            Some(Answer::Refused(why)) => return Err(refused(why)),
            None => return Err(refused(Barred::Closed)),
        };
        self.stage = stage;
        self.viommu = (self.viommu || event == Event::AttachViommu) && event != Event::Close;
        self.started = self.started || event == Event::StartGuest;
        Ok(actions.to_vec())
    }
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}
