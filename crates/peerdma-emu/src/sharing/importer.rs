//! Drivers that map, use and let go, a step at a time.

use super::field::Field;
use peerdma::addr::Bytes;
use peerdma::buffer::life::{Disturbance, Generation};
use peerdma::buffer::shared::{Importer, Receipt};
use peerdma::chunk::View;
use peerdma::dma::Owner;
use std::sync::{Arc, Mutex, PoisonError};

/// What an importer was told and has not dealt with.
#[derive(Debug, Default)]
struct Told {
    let_go: Option<Disturbance>,
    gone: bool,
    /// Notices that it has not answered.
    receipts: Vec<Receipt>,
}

/// Where notices arrive: written down, and dealt with at the driver's next step.
#[derive(Debug, Default)]
pub struct Ears(Mutex<Told>);

impl Ears {
    /// Ears that have heard nothing.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the driver has to let go; it has heard that until it may map again.
    pub fn must_let_go(&self) -> Option<Disturbance> {
        self.told().let_go
    }

    /// Whether the buffer is gone for good.
    pub fn is_gone(&self) -> bool {
        self.told().gone
    }

    /// Says that the driver has taken note of everything.
    pub fn note(&self) {
        // Not dropped under the lock: that calls the buffer, which may call back.
        let receipts = std::mem::take(&mut self.told().receipts);
        drop(receipts);
    }
}

impl Importer for Ears {
    fn let_go(&self, cause: Disturbance, receipt: Receipt) {
        let mut told = self.told();
        told.let_go = Some(cause);
        told.receipts.push(receipt);
    }

    fn may_map(&self, _: Generation, receipt: Receipt) {
        let mut told = self.told();
        told.let_go = None;
        told.receipts.push(receipt);
    }

    fn gone(&self) {
        self.told().gone = true;
    }
}

/// What an importer's driver is at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Doing {
    /// Nothing is mapped.
    Idle,
    /// Mapped, and nothing runs.
    Mapped,
    /// A job runs.
    Working,
}

/// How one job ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ended {
    /// As it should.
    Well,
    /// The device says that it could not; why.
    Failed(String),
}

/// A device's driver, as far as a buffer's importer needs it.
pub trait Worker {
    /// Maps these ranges for its device.
    ///
    /// # Errors
    /// Why the engine refused; nothing is mapped then.
    fn map(&mut self, place: View<'_, Owner>) -> Result<(), String>;

    /// Takes the mapping down. Nothing runs.
    fn unmap(&mut self);

    /// Starts writing `word` all over a part of the buffer: from where, how much.
    fn start(&mut self, part: (Bytes, Bytes), word: u64);

    /// Starts writing `word` to where its last mapping was, which is gone; false if it had none that an
    /// IOMMU stands before.
    fn start_late(&mut self, word: u64) -> bool {
        let _ = word;
        false
    }

    /// How the job ended, if it has. By then its writes have arrived, not only been sent.
    fn ended(&mut self) -> Option<Ended>;
}

/// The field that a mapping shows, for its epoch.
pub fn shown<'f>(fields: &'f [Field], place: View<'_, Owner>) -> Option<&'f Field> {
    let first = place.iter().next()?;
    fields.iter().find(|field| field.is_at(first.owner(), first.offset()))
}
