//! A region of a shared buffer, deregistered when the buffer's memory is to be taken away.

use super::region::Region;
use peerdma::buffer::life::{Disturbance, Generation};
use peerdma::buffer::shared::{Attachment, Importer, InUse, MapRefused, Receipt};
use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What registers the buffer's memory: a dma-buf, or where this process has it mapped.
type Registers<E> = Box<dyn Fn() -> Result<Region, E> + Send + Sync>;

/// Why a buffer is not registered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError<E: Error + 'static> {
    /// The buffer does not let it be mapped now.
    #[error(transparent)]
    Refused(#[from] MapRefused),
    /// The registration fails.
    #[error(transparent)]
    Register(E),
}

/// An importer of a shared buffer whose part is a region.
///
/// Told to let go, it gives its region up: that is deregistered as soon as nobody has it in use, and the
/// buffer waits for that. See [`Imported`], which is made of it and its attachment.
pub struct Importing<E: Error + 'static> {
    registers: Registers<E>,
    region: Mutex<Option<Arc<InUse<Region>>>>,
}

impl<E: Error + 'static> Importing<E> {
    /// An importer that registers so, each time that the buffer is within reach anew.
    pub fn new(registers: impl Fn() -> Result<Region, E> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { registers: Box::new(registers), region: Mutex::new(None) })
    }

    /// Seats it: `attachment` is what the buffer gave for it.
    pub fn seated(self: Arc<Self>, attachment: Attachment) -> Imported<E> {
        Imported { importing: self, seat: attachment }
    }

    fn slot(&self) -> MutexGuard<'_, Option<Arc<InUse<Region>>>> {
        self.region.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn release(&self) {
        // Dropped after the lock is: deregistering tells the buffer.
        let region = self.slot().take();
        drop(region);
    }
}

impl<E: Error + 'static> Importer for Importing<E> {
    fn let_go(&self, _: Disturbance, _: Receipt) {
        self.release();
    }

    fn may_map(&self, _: Generation, _: Receipt) {}

    fn gone(&self) {
        self.release();
    }
}

impl<E: Error + 'static> fmt::Debug for Importing<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "importer with {:?}", self.slot())
    }
}

/// A shared buffer in an adapter's hands. Dropped, it is deregistered and detached.
///
/// After each time that memory was taken away the region is another, with other keys: peers have to be told.
#[derive(Debug)]
pub struct Imported<E: Error + 'static> {
    importing: Arc<Importing<E>>,
    seat: Attachment,
}

impl<E: Error + 'static> Imported<E> {
    /// The region, registered now where it is not. Drop it when the work that uses it has completed: whoever disturbs the
    /// buffer waits for that.
    ///
    /// # Errors
    /// [`ImportError::Refused`]: the buffer is out of reach; ask again later. [`ImportError::Register`]: see there.
    pub fn region(&self) -> Result<Arc<InUse<Region>>, ImportError<E>> {
        if let Some(region) = self.importing.slot().as_ref() {
            return Ok(Arc::clone(region));
        }
        // Without the lock: mapping may tell others, who may call back.
        let mapped = self.seat.map()?;
        let made = Arc::new(mapped.with((self.importing.registers)().map_err(ImportError::Register)?));
        let mut slot = self.importing.slot();
        if let Some(other) = slot.as_ref() {
            return Ok(Arc::clone(other));
        }
        *slot = Some(Arc::clone(&made));
        drop(slot);
        // A notice in between found nothing to give up.
        if !made.mapped().is_current() {
            self.importing.release();
        }
        Ok(made)
    }

    /// The attachment.
    pub fn seat(&self) -> &Attachment {
        &self.seat
    }
}

impl<E: Error + 'static> Drop for Imported<E> {
    fn drop(&mut self) {
        self.importing.release();
    }
}
