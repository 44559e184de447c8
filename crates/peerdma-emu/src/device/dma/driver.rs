//! The driver of a DMA engine.

use super::job::Reason;
use super::registers as reg;
use crate::device::Mmio;
use crate::wire::{Attributes, Operand, Pasid};
use peerdma::addr::{BusAddr, Bytes};
use std::cell::Cell;

/// What the addresses of a job are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Addresses {
    /// Sent as they are; an IOMMU may translate them.
    #[default]
    Untranslated,
    /// Translated by the engine first (ATS).
    TranslateFirst,
    /// Sent as they are, said to be translated.
    Translated,
}

/// How a job's requests are sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// The address space; none for the function's own.
    pub pasid: Option<Pasid>,
    /// What the addresses are.
    pub addresses: Addresses,
    /// Relaxed Ordering and No Snoop; the engine knows no ID-based ordering.
    pub attributes: Attributes,
    /// With the rights of a supervisor.
    pub privileged: bool,
    /// From within the trusted device interface.
    pub trusted: bool,
    /// Reads the payload's last byte before it rings.
    pub read_back: bool,
    /// Interrupts at the end of a job with this vector.
    pub interrupt: Option<u16>,
}

impl Options {
    fn control(&self) -> u64 {
        let bit = |set: bool, bit: u64| if set { bit } else { 0 };
        bit(self.attributes.relaxed, reg::RELAXED)
            | bit(self.attributes.no_snoop, reg::NO_SNOOP)
            | bit(self.privileged, reg::PRIVILEGED)
            | bit(self.trusted, reg::TRUSTED)
            | bit(self.read_back, reg::READ_BACK)
            | bit(self.addresses == Addresses::TranslateFirst, reg::TRANSLATE)
            | bit(self.addresses == Addresses::Translated, reg::TRANSLATED)
            | self.pasid.map_or(0, |pasid| reg::WITH_PASID | u64::from(pasid.number()))
            | self.interrupt.map_or(0, |vector| reg::INTERRUPT | u64::from(vector) << reg::VECTOR_SHIFT)
    }
}

/// Why a job brought no success.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DriverError {
    /// The engine said so.
    #[error("the engine stopped after {moved}: {reason}")]
    Failed {
        /// Why.
        reason: Reason,
        /// Bytes it had moved by then.
        moved: Bytes,
    },
    /// The job has not ended, and nothing in the machine moves any more.
    #[error("the engine is still at work, and nothing moves any more")]
    Stuck,
    /// The registers answer with what no engine says; it is gone, or its BAR is off.
    #[error("the engine's registers answer {status:#x}, which is no status; it is gone, or its BAR is off")]
    Gone {
        /// What the status register gave.
        status: u64,
    },
}

/// The driver of one engine.
///
/// Each call waits for the job to end; [`start_copy`](Self::start_copy) and [`wait`](Self::wait) are its two halves.
pub struct Driver<'a> {
    mmio: &'a dyn Mmio,
    options: Options,
    /// How many jobs had ended when the last one was started.
    finished: Cell<u64>,
}

impl<'a> Driver<'a> {
    /// A driver that sends plain requests.
    pub fn new(mmio: &'a dyn Mmio) -> Self {
        Self { mmio, options: Options::default(), finished: Cell::new(0) }
    }

    /// With other options for the jobs to come.
    #[must_use]
    pub fn with(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Copies `len` bytes.
    ///
    /// # Errors
    /// [`DriverError`]; bytes before the failure may have arrived.
    pub fn copy(&self, from: BusAddr, to: BusAddr, len: Bytes) -> Result<(), DriverError> {
        self.start_copy(from, to, len);
        self.wait()
    }

    /// Starts a copy, and does not wait. The engine drops it while another job is at work.
    pub fn start_copy(&self, from: BusAddr, to: BusAddr, len: Bytes) {
        self.start(
            reg::COPY,
            0,
            &[(reg::SOURCE, from.as_u64()), (reg::DESTINATION, to.as_u64()), (reg::LENGTH, len.as_u64())],
        );
    }

    /// Fills `len` bytes with a pattern that begins with the lowest byte of `value`.
    ///
    /// # Errors
    /// [`DriverError`].
    pub fn fill(&self, to: BusAddr, len: Bytes, value: u64) -> Result<(), DriverError> {
        self.start_fill(to, len, value);
        self.wait()
    }

    /// Starts to fill, and does not wait. The engine drops it while another job is at work.
    pub fn start_fill(&self, to: BusAddr, len: Bytes, value: u64) {
        let job = [(reg::DESTINATION, to.as_u64()), (reg::LENGTH, len.as_u64()), (reg::VALUE, value)];
        self.start(reg::FILL, 0, &job);
    }

    /// Copies, then writes `value` to `bell`.
    ///
    /// # Errors
    /// [`DriverError`]; the bell was not rung.
    pub fn copy_then_ring(
        &self,
        from: BusAddr,
        to: BusAddr,
        len: Bytes,
        bell: BusAddr,
        value: Operand,
    ) -> Result<(), DriverError> {
        let places = [(reg::SOURCE, from.as_u64()), (reg::DESTINATION, to.as_u64()), (reg::LENGTH, len.as_u64())];
        let bell = [(reg::BELL, bell.as_u64()), (reg::VALUE, value.value())];
        self.start(reg::COPY_THEN_RING, narrow(value), &[&places[..], &bell[..]].concat());
        self.wait()
    }

    /// Writes `value` to `bell`.
    ///
    /// # Errors
    /// [`DriverError`].
    pub fn ring(&self, bell: BusAddr, value: Operand) -> Result<(), DriverError> {
        self.start(reg::RING, narrow(value), &[(reg::BELL, bell.as_u64()), (reg::VALUE, value.value())]);
        self.wait()
    }

    /// Adds to what stands at `at`; what stood there before.
    ///
    /// # Errors
    /// [`DriverError`].
    pub fn fetch_add(&self, at: BusAddr, value: Operand) -> Result<u64, DriverError> {
        self.atomic(reg::FETCH_ADD, at, value, 0)
    }

    /// Replaces what stands at `at`; what stood there before.
    ///
    /// # Errors
    /// [`DriverError`].
    pub fn swap(&self, at: BusAddr, value: Operand) -> Result<u64, DriverError> {
        self.atomic(reg::SWAP, at, value, 0)
    }

    /// Replaces what stands at `at` if it is `expected`, cut to the width of `new`; what stood there before.
    ///
    /// # Errors
    /// [`DriverError`].
    pub fn compare_swap(&self, at: BusAddr, expected: u64, new: Operand) -> Result<u64, DriverError> {
        self.atomic(reg::COMPARE_SWAP, at, new, expected)
    }

    fn atomic(&self, command: u64, at: BusAddr, value: Operand, expected: u64) -> Result<u64, DriverError> {
        let job = [(reg::DESTINATION, at.as_u64()), (reg::VALUE, value.value()), (reg::EXPECTED, expected)];
        self.start(command, narrow(value), &job);
        self.wait()?;
        Ok(self.load(reg::RESULT))
    }

    fn start(&self, command: u64, control: u64, job: &[(Bytes, u64)]) {
        for (at, value) in job {
            self.store(*at, *value);
        }
        self.store(reg::CONTROL, self.options.control() | control);
        // The engine may not look at once, and how its last job ended is no news.
        self.finished.set(self.load(reg::FINISHED));
        self.store(reg::COMMAND, command);
    }

    /// Waits until the job has ended.
    ///
    /// # Errors
    /// [`DriverError`].
    pub fn wait(&self) -> Result<(), DriverError> {
        let mut moving = true;
        while self.load(reg::FINISHED) == self.finished.get() {
            if !moving {
                let status = self.load(reg::STATUS);
                return Err(if status == u64::MAX { DriverError::Gone { status } } else { DriverError::Stuck });
            }
            moving = self.mmio.pause();
        }
        self.outcome()
    }

    /// How the job ended, if it has; does not wait.
    pub fn poll(&self) -> Option<Result<(), DriverError>> {
        (self.load(reg::FINISHED) != self.finished.get()).then(|| self.outcome())
    }

    fn outcome(&self) -> Result<(), DriverError> {
        let status = self.load(reg::STATUS);
        let failed = Reason::from_code(status >> 8 & 0xff).filter(|_| status & 0xff == reg::FAILED);
        match (status, failed) {
            (reg::DONE, _) => Ok(()),
            (_, Some(reason)) => Err(DriverError::Failed { reason, moved: Bytes::new(self.load(reg::MOVED)) }),
            _ => Err(DriverError::Gone { status }),
        }
    }

    fn load(&self, at: Bytes) -> u64 {
        self.mmio.load(0, at, 8)
    }

    fn store(&self, at: Bytes, value: u64) {
        self.mmio.store(0, at, value, 8);
    }
}

/// The control bit for the width of a value.
fn narrow(value: Operand) -> u64 {
    match value {
        Operand::Word(_) => reg::NARROW,
        Operand::Double(_) => 0,
    }
}
