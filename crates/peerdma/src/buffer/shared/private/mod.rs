//! A register whose memory becomes a confidential guest's, driven step by step.
//!
//! [`confidential::State`](crate::buffer::confidential::State) says what an event asks for, [`PrivateBar`] does it: it takes the
//! memory from importers and gives it back, tells every offer what the memory is, and has an [`Interface`] do
//! what only a device can.
//!
//! The register has two faces. What is exported of it to everybody is out of reach from the lock on, until it is given back;
//! who attaches meanwhile is refused by what the memory is. What is exported to the guest's own devices comes into being while
//! the interface runs, and goes for good with it. Rejected: one buffer for both, whose importers of before would be told
//! that they may map again.
//!
//! ```
//! # use peerdma::access::MemAttrs;
//! # use peerdma::addr::Bytes;
//! # use peerdma::buffer::terms::{Offer, Place, Stays};
//! # use peerdma::chunk::{Chunk, Chunks};
//! # use peerdma::dma::{Owner, OwnerId};
//! use peerdma::buffer::confidential::{Action, Stage};
//! use peerdma::buffer::life::{Answers, Phase};
//! use peerdma::buffer::shared::{Interface, PrivateBar};
//! use std::time::Duration;
//!
//! /// Does all that it is asked to.
//! struct Willing;
//! impl Interface for Willing {
//!     type Error = std::convert::Infallible;
//!     fn perform(&mut self, _: Action) -> Result<(), Self::Error> {
//!         Ok(())
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let vram = Chunk::new(Owner::Device(OwnerId::new(1)), Bytes::ZERO, Bytes::new(0x1000), MemAttrs::MMIO).unwrap();
//! # let offer = Offer::new(Chunks::collect_from([vram])?, Stays::UNTIL_REVOKED, Place::Ram)?;
//! let patience = Duration::from_secs(1);
//! let mut bar = PrivateBar::new(Answers::YES, Willing);
//! let shared = bar.export("frames", offer.clone())?;
//! bar.attach_viommu()?;
//! bar.prepare()?;
//! bar.start_guest()?;
//! bar.lock(patience)?;
//! assert_eq!(shared.phase(), Phase::Revoked);
//! bar.run()?;
//! let guests_own = bar.export_private("frames of the guest", offer)?;
//! bar.close(patience)?;
//! assert_eq!((bar.stage(), shared.phase(), guests_own.phase()), (Stage::Closed, Phase::Live, Phase::Dead));
//! # Ok(())
//! # }
//! ```

mod error;
mod steps;
#[cfg(test)]
mod tests;

pub use error::{PrivateError, Undone};

use super::{Bar, Buffer, Disturbed, Disturbing};
use crate::buffer::confidential::{Action, Event, Refusal, Stage, State};
use crate::buffer::life::{Answers, Refused};
use crate::buffer::terms::{Methods, Offer};
use crate::dma::confidential::{self, MemoryKind};
use alloc::vec::Vec;

/// What only the device, its driver and the platform's security manager can do.
pub trait Interface {
    /// Why something was not done.
    type Error: core::error::Error + 'static;

    /// Does one thing, and returns when it is done.
    ///
    /// Never asked for [`Action::Revoke`] and [`Action::Return`], which are the memory's. What was done before and is asked
    /// for again, because something after it failed, is to succeed.
    ///
    /// # Errors
    /// Why it is not done; the register stays in the state before, in which nobody outside the guest reaches more.
    fn perform(&mut self, action: Action) -> Result<(), Self::Error>;

    /// What the registers say after a reset, where that changes whether memory answers. `None`: it is as before.
    fn answers(&mut self) -> Option<Answers> {
        None
    }
}

/// What has been taken from the importers of the shared face.
#[derive(Debug)]
enum Taken {
    /// They have been told.
    Announced(Disturbing),
    /// They have let go.
    Released(Disturbed),
}

/// A register that can become a confidential guest's, with what is exported of it.
///
/// # Blocking
/// [`lock`](Self::lock), [`unlock`](Self::unlock) and [`close`](Self::close) wait for importers, at most as long as they are told.
pub struct PrivateBar<D> {
    state: State,
    shared: Bar,
    /// The guest's own face, while the interface runs.
    own: Option<Bar>,
    taken: Option<Taken>,
    device: D,
}

impl<D: Interface> PrivateBar<D> {
    /// Memory that answers as said, of a device like any other, for a guest that has not started.
    pub fn new(answers: Answers, device: D) -> Self {
        Self { state: State::new(), shared: Bar::new(answers), own: None, taken: None, device }
    }

    /// How far it has come.
    pub fn stage(&self) -> Stage {
        self.state.stage()
    }

    /// The shared face, for what else happens to a register: [`Bar::disturb`].
    pub fn shared(&self) -> &Bar {
        &self.shared
    }

    /// The device.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// Exports a part of it to everybody. While it is the guest's, the buffer is born out of reach, and says why.
    ///
    /// # Errors
    /// As [`Bar::export`].
    pub fn export(&self, name: &str, mut offer: Offer) -> Result<Buffer, Refused> {
        offer.set_memory(self.state.memory());
        self.shared.export(name, offer)
    }

    /// Exports a part of it to the guest's own devices, which it has accepted, until the interface stops.
    ///
    /// No CPU of a process maps it, whatever the offer permits.
    ///
    /// # Errors
    /// [`PrivateError::Refused`] unless the interface runs.
    pub fn export_private(&mut self, name: &str, offer: Offer) -> Result<Buffer, PrivateError<D::Error>> {
        self.state.step(Event::AttachWithT)?;
        let offer = offer.without(Methods::CPU).with_memory(MemoryKind::Mmio(confidential::Interface::Run));
        let own = self.own.get_or_insert_with(|| Bar::new(Answers::YES));
        own.export(name, offer).map_err(PrivateError::Export)
    }

    /// Tells all that is offered of the shared face what the memory is now.
    fn tell(&self) {
        let memory = self.state.memory();
        for buffer in self.shared.buffers() {
            buffer.0.with(|state| state.offer.set_memory(memory));
        }
    }

    /// What an event asks for, with nothing changed.
    fn asked(&self, event: Event) -> Result<(State, Vec<Action>), Refusal> {
        let mut next = self.state;
        let actions = next.step(event)?;
        Ok((next, actions))
    }
}
