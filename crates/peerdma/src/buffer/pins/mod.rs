//! Pins into device memory, with limits for each who uses it.
//!
//! Memory that an importer cannot follow is held in its place by a pin, and what is held in a device is kept
//! from everybody else. So pins are counted where the memory is, by handle, against limits that name a
//! tenant and a region: what the kernel's controller for device memory does for allocations (`dmem`).
//!
//! - [`Ledger`]: who has how much. A [`Charge`] is memory that lies in a region, a [`PinHandle`] keeps it there.
//! - [`reclaimable`]: what could be moved out of a full region, and from whom, by what `min` and `low` protect.
//! - [`Users`]: nothing is unpinned under a device that still uses it.
//!
//! Only the exporter has the ledger, so that nobody pins behind its back; whether an attachment needs a
//! pin was settled when it came about ([`Terms::pin`](super::terms::Terms::pin)). A buffer that was given the ledger
//! (`Buffer::charge`) takes the pin when the importer attaches, which a limit refuses, and lets it go when it detaches.
//!
//! Not here: pages of processes, which count against `RLIMIT_MEMLOCK`, and moving anything.

mod error;
mod handle;
mod ledger;
mod reclaim;
mod region;
#[cfg(test)]
mod tests;

pub use error::{ChargeError, Holder, Shortage, UnchargeError, UnpinError};
pub use handle::{Charge, PinHandle, Users};
pub use ledger::Ledger;
pub use reclaim::{Evictable, Limits, Pass, Room, Share, reclaimable};
pub use region::{RegionId, TenantId};
