//! The question before a pin: may it be?
//!
//! The kernel pins everything before it counts (Linux 6.18 `io_sqe_buffer_register` by `io_buffer_account_pin`), so
//! that a pin of 1 GiB over the limit costs the time of a pin and then fails. Whoever keeps books says so beforehand.

use super::limit::Limit;
use peerdma::addr::{AddrRange, Bytes, Granule, ProcVa};
use std::error::Error;
use std::fmt::Debug;

/// What a slot is going to need. A pin takes one slot for each GiB, and all of them are asked for before the first is filled.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Need {
    /// What the slot is to hold.
    pub range: AddrRange<ProcVa>,
    /// What the kernel will charge for it at least: whole pages, those of hugetlb whole huge pages. Transparent huge
    /// pages are charged whole too, which nobody can tell from outside.
    pub charge: Bytes,
    /// The same of the whole pin.
    pub whole: Bytes,
    /// The largest pages of the mappings, where they are larger than the processor's smallest.
    pub compound: Option<Granule>,
    /// The limit, as the process has it now.
    pub limit: Limit,
    /// Which of the pinner's rings, from 0.
    pub ring: usize,
    /// Which slot of the ring. Ring and slot name the charge until it is released.
    pub slot: u32,
}

/// Whether pins may be made; called before the kernel is, and once a pin is gone. One value serves one pinner.
///
/// It is not asked for [`Pinner::clone_pins`](super::Pinner::clone_pins), and is told that a pin is released when its
/// own slot is, although the kernel goes on charging for what a clone or another process keeps.
pub trait Admission: Send + Sync + Debug {
    /// Says whether it may be; what it returns without an error is counted until [`released`](Self::released).
    ///
    /// # Errors
    /// Why not; it becomes the source of [`PinError::NotAdmitted`](super::PinError::NotAdmitted).
    fn admit(&self, need: &Need) -> Result<(), Box<dyn Error + Send + Sync>>;

    /// A slot that was admitted is empty again, or was not filled.
    fn released(&self, need: &Need);

    /// Says whether another ring may be made, which takes some of the limit itself.
    ///
    /// Called with a lock of the pinner's held, so that it must not call the pinner.
    ///
    /// # Errors
    /// Why not; it becomes the source of [`RingError::NotAdmitted`](super::RingError::NotAdmitted).
    fn admit_ring(&self, ring: usize) -> Result<(), Box<dyn Error + Send + Sync>> {
        let _ = ring;
        Ok(())
    }

    /// A ring that was admitted was closed, or not made. The kernel takes some milliseconds to return its charge.
    fn ring_closed(&self, ring: usize) {
        let _ = ring;
    }
}

/// Admits what fits the process's own limit by itself; the kernel counts the rest.
///
/// It refuses only what is certain to be refused: a charge that alone is above the limit.
#[derive(Clone, Copy, Default, Debug)]
pub struct OwnLimit;

/// One pin alone is more than may be pinned at all.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("it would be charged {charge} at least, and {limit} is all that may be; raise the limit or pin less")]
pub struct OverLimit {
    /// What it needs.
    pub charge: Bytes,
    /// What there is.
    pub limit: Limit,
}

impl Admission for OwnLimit {
    fn admit(&self, need: &Need) -> Result<(), Box<dyn Error + Send + Sync>> {
        match need.limit.bytes() {
            Some(most) if need.whole > most => Err(Box::new(OverLimit { charge: need.whole, limit: need.limit })),
            _ => Ok(()),
        }
    }

    fn released(&self, _: &Need) {}
}
