//! Pins in the books of a ledger.

use super::admission::{Admission, Need};
use super::inner::lock;
use crate::held;
use crate::sys::uring::ENTRIES;
use peerdma::pin::{Charge, ChargeError, OwnerId, Request, RingHandle, RingShape, SharedLedger, Via};
use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Mutex;

/// Has every ring and slot of one pinner, and no second one, charged to an owner in a ledger, before the kernel is asked.
///
/// What the ledger refuses it refuses by name: whose limit, who has how much of it, and how much is missing. Other
/// processes are looked at when the ledger refuses, not each time; call [`held::observe`] to have them counted before.
///
/// ```
/// use peerdma::addr::Bytes;
/// use peerdma::pin::{Counter, OwnerId, OwnerLimits, SharedLedger};
/// use peerdma_linux::{held, memory::Pages, pin::{Booked, Options, Pinner}};
/// use std::sync::Arc;
///
/// let nic = OwnerId::new(0);
/// let mut ledger = held::of_this_process();
/// ledger.describe_owner(nic, "nic", OwnerLimits::NONE);
/// let ledger = SharedLedger::new(ledger);
/// let options = Options::default().admission(Arc::new(Booked::new(ledger.clone(), nic)));
/// # if Pinner::new().is_err() { return Ok(()) }
/// let pinner = Pinner::with(options)?;
/// let before = ledger.reading(Counter::UserLocked).charged;
/// let pin = pinner.pin(Arc::new(Pages::zeroed(Bytes::new(1 << 16))?))?;
/// assert_eq!(ledger.reading(Counter::UserLocked).charged.as_u64() - before.as_u64(), 1 << 16);
/// # drop(pin);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Booked {
    ledger: SharedLedger,
    owner: OwnerId,
    rings: Mutex<BTreeMap<usize, RingHandle>>,
    charges: Mutex<BTreeMap<(usize, u32), Charge>>,
}

impl Booked {
    /// Charges an owner, whom the ledger has been told of.
    pub fn new(ledger: SharedLedger, owner: OwnerId) -> Self {
        Self { ledger, owner, rings: Mutex::default(), charges: Mutex::default() }
    }

    fn charged<T>(&self, ask: impl Fn() -> Result<T, ChargeError>) -> Result<T, ChargeError> {
        held::asked_twice(&self.ledger, ask)
    }
}

impl Admission for Booked {
    fn admit(&self, need: &Need) -> Result<(), Box<dyn Error + Send + Sync>> {
        let ring = lock(&self.rings).get(&need.ring).copied();
        let ring =
            ring.ok_or_else(|| format!("ring {} is not in these books; they are another pinner's", need.ring))?;
        let request = Request::new(Via::IoUring { ring }, need.range);
        let request = need.compound.map_or(request, |compound| request.in_compound_pages(compound));
        let charge = self.charged(|| self.ledger.charge(self.owner, request))?;
        lock(&self.charges).insert((need.ring, need.slot), charge);
        Ok(())
    }

    fn released(&self, need: &Need) {
        // Dropped after the lock is.
        let charge = lock(&self.charges).remove(&(need.ring, need.slot));
        drop(charge);
    }

    fn admit_ring(&self, ring: usize) -> Result<(), Box<dyn Error + Send + Sync>> {
        // Ring and slot name a charge, so that two pinners would take each other's.
        if lock(&self.rings).contains_key(&ring) {
            return Err(
                format!("ring {ring} is in these books already, of another pinner; make a Booked for each").into()
            );
        }
        let handle = self.charged(|| self.ledger.open_ring(self.owner, RingShape::new(ENTRIES)))?;
        lock(&self.rings).insert(ring, handle);
        Ok(())
    }

    fn ring_closed(&self, ring: usize) {
        if let Some(handle) = lock(&self.rings).remove(&ring) {
            // Its pins were released before it; the ledger's own owner may have closed it already.
            let _ = self.ledger.close_ring(handle);
        }
    }
}
