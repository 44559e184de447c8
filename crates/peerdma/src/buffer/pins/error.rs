//! Why a ledger does not take a charge, or does not let one go.

use super::handle::{Charge, PinHandle};
use super::reclaim::Evictable;
use super::region::{RegionId, TenantId};
use crate::addr::Bytes;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// What a tenant has of a region, in an error.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    /// Who.
    pub tenant: String,
    /// Bytes that count as used by him: his own, and those of others that he pins.
    pub used: Bytes,
    /// Bytes that his pins hold.
    pub pinned: Bytes,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.tenant, self.used)?;
        if self.pinned > Bytes::ZERO { write!(f, " ({} pinned)", self.pinned) } else { Ok(()) }
    }
}

/// Why memory is not charged, or not pinned. Nothing has changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChargeError {
    /// Nobody described this region.
    #[error("{region} is not described; describe it with its capacity first")]
    NoRegion {
        /// The region.
        region: RegionId,
    },
    /// Nobody described this tenant.
    #[error("{tenant} is not described; name it first")]
    NoTenant {
        /// Who.
        tenant: TenantId,
    },
    /// Nothing was asked for.
    #[error("a charge of no bytes holds nothing; ask for at least one")]
    Empty,
    /// The handle is none of this ledger's.
    #[error("the charge belongs to another ledger; pin it there")]
    AnotherLedger,
    /// The tenant would use more than his limit.
    #[error(
        "{} cannot keep {} more in {}: it uses {} of its limit of {max}{}; release what it does not need, or raise the \
         limit",
        .shortage.tenant, .shortage.need, .shortage.region, .shortage.used, Others(&.shortage.others)
    )]
    OverMax {
        /// His limit.
        max: Bytes,
        /// Who wanted what, and who has what.
        shortage: Box<Shortage>,
    },
    /// The region is full.
    #[error(
        "{} cannot keep {} in {}: {} of {capacity} are in use, {own} of them its own{}; move out what may be moved, or \
         release some",
        .shortage.tenant, .shortage.need, .shortage.region, .shortage.used, Others(&.shortage.others)
    )]
    Full {
        /// All that there is.
        capacity: Bytes,
        /// What lies there of the tenant's own.
        own: Bytes,
        /// Who wanted what, and who has what.
        shortage: Box<Shortage>,
    },
}

/// Who wanted how much where, and who has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shortage {
    /// Who wanted it.
    pub tenant: String,
    /// The region.
    pub region: String,
    /// What counts against the limit that was hit: used by the tenant, or all that lies in the region.
    pub used: Bytes,
    /// What he asked for.
    pub need: Bytes,
    /// Who else has how much.
    pub others: Vec<Holder>,
    /// What could be moved out, in the order in which it is to be tried.
    pub reclaimable: Vec<Evictable>,
}

/// Why memory is not let go. The handle comes back, and nothing has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnchargeError {
    /// Pins hold it.
    #[error("{len} of {tenant} in {region} are held by pins of {}; have them unpinned first", Names(holders))]
    Pinned {
        /// The charge.
        charge: Charge,
        /// Whose it is.
        tenant: String,
        /// The region.
        region: String,
        /// How many bytes.
        len: Bytes,
        /// Whose pins.
        holders: Vec<String>,
    },
    /// The handle is none of this ledger's.
    #[error("the charge belongs to another ledger; release it there")]
    AnotherLedger {
        /// The charge.
        charge: Charge,
    },
}

/// Why a pin is not let go. The handle comes back, and nothing has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnpinError {
    /// Fences that use the memory have not retired.
    #[error("{outstanding} fences still use memory that {tenant} pins in {region}; unpin it once they have retired")]
    StillUsed {
        /// The pin.
        pin: PinHandle,
        /// Who pins.
        tenant: String,
        /// The region.
        region: String,
        /// How many fences.
        outstanding: usize,
    },
    /// The handle is none of this ledger's.
    #[error("the pin belongs to another ledger; release it there")]
    AnotherLedger {
        /// The pin.
        pin: PinHandle,
    },
}

/// The part of a sentence about who else has how much.
struct Others<'a>(&'a [Holder]);

impl fmt::Display for Others<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, holder) in self.0.iter().enumerate() {
            write!(f, "{}{holder}", if index == 0 { "; others: " } else { ", " })?;
        }
        Ok(())
    }
}

struct Names<'a>(&'a [String]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, name) in self.0.iter().enumerate() {
            write!(f, "{}{name}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}
