//! One ledger for all threads of a process.
//!
//! Lock order: the ledger's lock is the innermost, held for the books alone and never across a call of the
//! kernel's or of a caller's.

use super::counter::Counter;
use super::error::{ChargeError, ReleaseError};
use super::handle::{PinHandle, RingHandle};
use super::ledger::{Ledger, Reading};
use super::outside::Outside;
use super::owner::OwnerId;
use super::request::Request;
use super::ring::RingShape;
use crate::sync::Lock;
use alloc::sync::Arc;

/// A ledger that threads share; a clone is the same ledger.
///
/// Threads that pin at once are each charged before any of them asks the kernel, so that they cannot pass the limit
/// together where each alone would not.
#[derive(Clone, Debug)]
pub struct SharedLedger(Arc<Lock<Ledger>>);

impl SharedLedger {
    /// Shares a ledger.
    pub fn new(ledger: Ledger) -> Self {
        Self(Arc::new(Lock::new(ledger)))
    }

    /// Charges a request until what comes back is dropped; see [`Ledger::charge`]. Blocks while another thread is charged.
    ///
    /// # Errors
    /// As [`Ledger::charge`].
    pub fn charge(&self, owner: OwnerId, request: Request) -> Result<Charge, ChargeError> {
        let pin = self.0.with(|ledger| ledger.charge(owner, request))?;
        Ok(Charge { ledger: self.clone(), pin })
    }

    /// As [`Ledger::open_ring`].
    ///
    /// # Errors
    /// As [`Ledger::open_ring`].
    pub fn open_ring(&self, owner: OwnerId, shape: RingShape) -> Result<RingHandle, ChargeError> {
        self.0.with(|ledger| ledger.open_ring(owner, shape))
    }

    /// As [`Ledger::close_ring`].
    ///
    /// # Errors
    /// As [`Ledger::close_ring`].
    pub fn close_ring(&self, ring: RingHandle) -> Result<(), ReleaseError> {
        self.0.with(|ledger| ledger.close_ring(ring))
    }

    /// As [`Ledger::observe`].
    pub fn observe(&self, counter: Counter, outside: Outside) {
        self.0.with(|ledger| ledger.observe(counter, outside));
    }

    /// As [`Ledger::reading`].
    pub fn reading(&self, counter: Counter) -> Reading {
        self.0.with(|ledger| ledger.reading(counter))
    }

    /// Runs `f` on the ledger, alone: limits and owners are set so.
    ///
    /// `f` must not use this ledger by another handle, which would wait for itself.
    pub fn with<R>(&self, f: impl FnOnce(&mut Ledger) -> R) -> R {
        self.0.with(f)
    }
}

/// A charge that is released when this is dropped: keep it beside what holds the memory, and drop it afterwards.
#[derive(Debug)]
#[must_use = "the charge is released when this is dropped"]
pub struct Charge {
    ledger: SharedLedger,
    pin: PinHandle,
}

impl Charge {
    /// Its handle in the ledger.
    pub fn pin(&self) -> PinHandle {
        self.pin
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        // Somebody who released it by its handle has done what is to be done.
        let _ = self.ledger.0.with(|ledger| ledger.release(self.pin));
    }
}
