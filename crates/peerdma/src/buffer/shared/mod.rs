//! Buffers that threads share: a life behind a lock, notices in order, waits with a deadline.
//!
//! ```
//! use peerdma::access::{MemAttrs, Prot};
//! use peerdma::addr::Bytes;
//! use peerdma::buffer::life::{Answers, Disturbance, Generation, Phase};
//! use peerdma::buffer::shared::{Buffer, Holder, Importer, Mapped, Receipt};
//! use peerdma::buffer::terms::{Declaration, Offer, Place, Stays};
//! use peerdma::buffer::Lifetime;
//! use peerdma::chunk::{Chunk, Chunks};
//! use peerdma::dma::{Initiator, Owner, OwnerId, Peers};
//! use peerdma::topology::IommuMode;
//! use std::sync::{Arc, Mutex};
//! use std::time::Duration;
//!
//! /// Keeps its mapping where the notice finds it.
//! #[derive(Default)]
//! struct Nic(Mutex<Option<Mapped>>);
//! impl Importer for Nic {
//!     fn let_go(&self, _: Disturbance, _: Receipt) {
//!         *self.0.lock().unwrap() = None; // Its queue is empty; one that is not keeps the receipt.
//!     }
//!     fn may_map(&self, _: Generation, _: Receipt) {}
//!     fn gone(&self) {}
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let memfd = Chunk::new(Owner::Memfd(OwnerId::new(3)), Bytes::ZERO, Bytes::new(0x1000), MemAttrs::empty()).unwrap();
//! let offer = Offer::new(Chunks::collect_from([memfd])?, Stays::UNTIL_REVOKED, Place::Ram)?;
//! let buffer = Buffer::new("ring", offer, Answers::YES);
//!
//! let device = Initiator::new("nic0", IommuMode::Translated);
//! let declaration = Declaration::of_device(device, Prot::ReadWrite).taking(Lifetime::Revocable);
//! let nic = Arc::new(Nic::default());
//! let seat = buffer.attach(&declaration, &Peers::none(), Holder::here("nic0"), nic.clone())?;
//! assert_eq!(seat.terms().lifetime(), Lifetime::Revocable);
//! *nic.0.lock().unwrap() = Some(seat.map()?);
//!
//! let reset = buffer.begin(Disturbance::Reset)?.wait(Duration::from_secs(1))?;
//! assert!(nic.0.lock().unwrap().is_none() && seat.map().is_err());
//! reset.done();
//! assert_eq!(buffer.phase(), Phase::Live);
//! # Ok(())
//! # }
//! ```
//!
//! Not here: other processes (`peerdma-linux`), which are importers like any other.

mod access;
mod attachment;
mod bar;
mod buffer;
mod disturbing;
mod fences;
mod held;
mod importer;
mod moving;
mod pinning;
mod private;
mod report;
#[cfg(test)]
mod tests;
mod wake;

pub use access::{AccessError, InUse, Part};
pub use attachment::{AttachError, Attachment, MapRefused, Mapped};
pub use bar::Bar;
pub use disturbing::{Disturbed, Disturbing};
pub use held::{Held, Late};
pub use importer::{Holder, Importer, Process, Receipt};
pub use moving::{NotMoved, Objection, WhyNot};
pub use pinning::SharedLedger;
pub use private::{Interface, PrivateBar, PrivateError, Undone};
pub use report::Report;
pub use wake::Wake;

use crate::access::Prot;
use crate::buffer::fence::{Reservation, ReservationLock};
use crate::buffer::life::{Answers, AttachmentId, Disturbance, Life, Phase, Refused};
use crate::buffer::terms::{Declaration, Offer, Place, Terms};
use crate::dma::Peers;
use alloc::sync::Arc;
use alloc::vec::Vec;
use buffer::Inner;

/// A buffer, in its exporter's hands. Handles are cheap to clone and all the same buffer.
#[derive(Clone)]
pub struct Buffer(Arc<Inner>);

impl Buffer {
    /// A buffer as offered, of memory that answers as said: with decoding off it is born revoked.
    pub fn new(name: &str, offer: Offer, answers: Answers) -> Self {
        Self(Inner::new(name, Life::answering(answers), offer))
    }

    /// Its name, for those who wait.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Where in its life it is.
    pub fn phase(&self) -> Phase {
        self.0.with(|state| state.life.phase())
    }

    /// What is offered now, for its exporter.
    pub fn offer(&self) -> Offer {
        self.0.with(|state| state.offer.clone())
    }

    /// What is permitted now, of what may be done with it.
    pub fn permitted(&self) -> Prot {
        self.0.with(|state| state.offer.permitted())
    }

    /// Where it lies.
    pub fn place(&self) -> Place {
        self.0.with(|state| state.offer.place())
    }

    /// What devices are doing with it.
    pub fn reservation(&self) -> &ReservationLock<Reservation> {
        &self.0.reservation
    }

    /// Everybody who has attached, with what was settled and how many mappings there are.
    pub fn attached(&self) -> Vec<Attendance> {
        self.0.with(|state| state.attendance())
    }

    /// Announces that something is about to happen to the memory. It may not happen before the wait
    /// for what is returned has ended.
    ///
    /// Waits for nobody: neither for importers, nor for the reservation. Importers are told before it returns, on this
    /// thread and by whatever they do in their callbacks, unless another thread is telling them. One that panics there keeps
    /// no other from being told; its panic goes on from here, and nothing is announced then.
    ///
    /// # Errors
    /// [`Refused::Promised`]: somebody who was promised that it stays has mapped it.
    pub fn begin(&self, what: Disturbance) -> Result<Disturbing, Refused> {
        Self::begin_all(core::slice::from_ref(self), what)
    }

    /// The same for all buffers that one deed disturbs, such as those of one device.
    ///
    /// # Errors
    /// As [`begin`](Self::begin); importers of buffers that were told already are told that they may map.
    pub fn begin_all(buffers: &[Self], what: Disturbance) -> Result<Disturbing, Refused> {
        Disturbing::begin(buffers.iter().map(|buffer| &buffer.0), what)
    }

    /// Settles terms with an importer, and attaches it. It learns them before it maps anything.
    ///
    /// An importer of memory that is out of reach attaches, and maps when it is told that it may.
    ///
    /// # Errors
    /// [`AttachError::Terms`]: the rule that stands against it. [`AttachError::Life`]: the memory is gone for good.
    /// [`AttachError::Pin`]: a limit in the ledger that the buffer is [counted](Self::charge) in.
    pub fn attach(
        &self,
        declaration: &Declaration,
        peers: &Peers<'_>,
        holder: Holder,
        importer: Arc<dyn Importer>,
    ) -> Result<Attachment, AttachError> {
        let (who, terms) = self.0.attach(declaration, peers, holder, importer)?;
        Ok(Attachment::new(&self.0, who, terms))
    }
}

/// One who has attached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attendance {
    /// Which attachment.
    pub who: AttachmentId,
    /// Who stands behind it.
    pub holder: Holder,
    /// What was settled.
    pub terms: Terms,
    /// How many mappings it has.
    pub mappings: u32,
}

impl core::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "buffer {} ({})", self.0.name, self.phase())
    }
}
