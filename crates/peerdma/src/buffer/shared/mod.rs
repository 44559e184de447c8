//! Buffers that threads share: a life behind a lock, notices in order, waits with a deadline.
//!
//! ```
//! use peerdma::access::{MemAttrs, Prot};
//! use peerdma::addr::Bytes;
//! use peerdma::buffer::life::{Answers, Disturbance, Generation, Phase};
//! use peerdma::buffer::shared::{Buffer, Holder, Importer, Mapped, Receipt};
//! use peerdma::buffer::{Enforcement, Lifetime};
//! use peerdma::chunk::{Chunk, Chunks};
//! use peerdma::dma::Owner;
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
//! let ram = Chunk::new(Owner::Ram, Bytes::new(0x10_0000), Bytes::new(0x1000), MemAttrs::empty()).unwrap();
//! let buffer = Buffer::new("ring", Chunks::collect_from([ram])?, Prot::ReadWrite, Answers::YES);
//! let nic = Arc::new(Nic::default());
//! let seat = buffer.attach(Holder::here("nic0"), Lifetime::Revocable, Enforcement::Cooperative, Prot::ReadWrite, nic.clone())?;
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

mod attachment;
mod buffer;
mod disturbing;
mod importer;
#[cfg(test)]
mod tests;
mod wake;

pub use attachment::{Attachment, MapRefused, Mapped};
pub use disturbing::{Disturbed, Disturbing, Held, Late};
pub use importer::{Holder, Importer, Process, Receipt};
pub use wake::Wake;

use crate::access::Prot;
use crate::buffer::life::{Answers, Disturbance, Event, Life, Phase, Refused};
use crate::buffer::{Enforcement, Lifetime};
use crate::chunk::Chunks;
use crate::dma::Owner;
use alloc::sync::Arc;
use buffer::Inner;

/// A buffer, in its exporter's hands. Handles are cheap to clone and all the same buffer.
#[derive(Clone)]
pub struct Buffer(Arc<Inner>);

impl Buffer {
    /// A buffer of these ranges, of memory that answers as said: with decoding off it is born revoked.
    ///
    /// `prot` is what importers may do at most.
    pub fn new(name: &str, place: Chunks<Owner>, prot: Prot, answers: Answers) -> Self {
        Self(Arc::new(Inner::new(name, Life::answering(answers), place, prot)))
    }

    /// Its name, for those who wait.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Where in its life it is.
    pub fn phase(&self) -> Phase {
        self.0.with(|state| state.life.phase())
    }

    /// Where it lies now, for its exporter.
    pub fn place(&self) -> Arc<Chunks<Owner>> {
        self.0.with(|state| state.place.clone())
    }

    /// Announces that something is about to happen to the memory. It may not happen before the wait
    /// for what is returned has ended.
    ///
    /// Does not block; importers are told before it returns, unless another thread is telling them.
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

    /// Attaches an importer, of whom everything has been settled.
    ///
    /// # Errors
    /// [`Refused::Dead`]: the memory is gone for good, or about to be.
    pub fn attach(
        &self,
        holder: Holder,
        lifetime: Lifetime,
        enforcement: Enforcement,
        prot: Prot,
        importer: Arc<dyn Importer>,
    ) -> Result<Attachment, Refused> {
        let who = self.0.seat(holder, importer, |who| Event::Attach { who, lifetime, enforcement })?;
        Ok(Attachment::new(&self.0, who, lifetime, prot))
    }
}

impl core::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "buffer {} ({})", self.0.name, self.phase())
    }
}
