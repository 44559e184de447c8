//! What an importer hears, and what its device has to be able to do.

use super::field::Field;
use super::party::Past;
use peerdma::addr::Bytes;
use peerdma::buffer::life::{Disturbance, Generation};
use peerdma::buffer::shared::{Importer, Receipt};
use peerdma::chunk::View;
use peerdma::dma::Owner;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One thing that an importer was told.
#[derive(Debug)]
pub enum News {
    /// To let go.
    LetGo(Receipt),
    /// That it may map.
    MayMap(Receipt),
    /// That the buffer is gone for good.
    Gone,
}

/// Where notices arrive. A driver hears of each when it listens, and goes on as before until then.
#[derive(Debug, Default)]
pub struct Ears(Mutex<VecDeque<News>>);

impl Ears {
    /// Ears that have heard nothing.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    fn news(&self) -> MutexGuard<'_, VecDeque<News>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it was told first of what nobody listened to. The driver has taken note when the receipt is dropped.
    pub fn next(&self) -> Option<News> {
        self.news().pop_front()
    }
}

impl Importer for Ears {
    fn let_go(&self, _: Disturbance, receipt: Receipt) {
        self.news().push_back(News::LetGo(receipt));
    }

    fn may_map(&self, _: Generation, receipt: Receipt) {
        self.news().push_back(News::MayMap(receipt));
    }

    fn gone(&self) {
        self.news().push_back(News::Gone);
    }
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

    /// Maps these ranges for jobs that read; `None` of a device that has none.
    fn map_for_reading(&mut self, place: View<'_, Owner>) -> Option<Result<(), String>> {
        let _ = place;
        None
    }

    /// Takes the mapping down. Nothing runs.
    fn unmap(&mut self);

    /// Starts a job on a part of the buffer: from where, how much. One that writes fills it with `word`.
    fn start(&mut self, part: (Bytes, Bytes), word: u64);

    /// Whether its jobs write.
    fn writes(&self) -> bool {
        true
    }

    /// Starts writing `word` to where its last mapping was, which is gone; false if it had none that an
    /// IOMMU stands before.
    fn start_late(&mut self, word: u64) -> bool {
        let _ = word;
        false
    }

    /// How the job ended, if it has. By then its writes have arrived, not only been sent.
    fn ended(&mut self) -> Option<Ended>;

    /// Tries to have its device reach the 8 bytes at `at`, which are behind the end of what is mapped.
    fn past_the_end(&mut self, at: Bytes) -> Past;
}

/// The field that a mapping shows.
pub fn shown<'f>(fields: &'f [Field], place: View<'_, Owner>) -> Option<&'f Field> {
    let first = place.iter().next()?;
    fields.iter().find(|field| field.is_at(first.owner(), first.offset()))
}
