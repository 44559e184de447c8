//! Why a ledger does not take a pin, or does not let one go.

use super::backend::Backend;
use super::counter::{Basis, Counter};
use super::handle::{PinHandle, RingHandle};
use super::outside::{Holder, Precision};
use super::owner::OwnerId;
use crate::addr::Bytes;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// Why memory is not to be pinned. Nothing has changed, and the kernel was not asked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChargeError {
    /// The kernel would refuse it, mostly after pinning all of it.
    #[error("{0}")]
    OverLimit(Box<Shortage>),
    /// A limit of zero, which some calls refuse before they count.
    #[error(
        "{backend} for {owner} refused: RLIMIT_MEMLOCK is 0, with which the kernel answers EPERM without CAP_IPC_LOCK; \
         raise the limit (peerdma memlock prints how)"
    )]
    Forbidden {
        /// What was asked for.
        backend: Backend,
        /// On whose behalf.
        owner: String,
    },
    /// The owner has as many pins as it may.
    #[error(
        "pin of {need} for {owner} refused: it has {pins} pins and may have {limit}; release one, or raise its limit"
    )]
    TooMany {
        /// On whose behalf.
        owner: String,
        /// What was asked for.
        need: Bytes,
        /// How many it has.
        pins: u32,
        /// How many it may have.
        limit: u32,
    },
    /// The owner would hold more than it may.
    #[error(
        "pin of {need} for {owner} refused: its pins hold {used} of {limit} that it may hold; release some, or raise its \
         limit"
    )]
    TooLarge {
        /// On whose behalf.
        owner: String,
        /// What was asked for, in whole pages.
        need: Bytes,
        /// What it holds.
        used: Bytes,
        /// What it may hold.
        limit: Bytes,
    },
    /// Nobody described this owner.
    #[error("{owner} is not described; name it first, with what it may hold")]
    NoOwner {
        /// Who.
        owner: OwnerId,
    },
    /// The ring was closed, or is another ledger's.
    #[error("{ring} is not open; open it in this ledger first")]
    NoRing {
        /// Which.
        ring: RingHandle,
    },
    /// No ring has this shape.
    #[error("a ring of {entries} entries cannot be; the kernel makes them of 1 to 32768")]
    RingShape {
        /// What was asked for.
        entries: u32,
    },
    /// More than 64 bits, or than 2^32 pins.
    #[error("the sum of what is pinned passes what can be counted; release some pins first")]
    Overflow,
}

/// Which limit is passed, by whom, and who has the rest.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Shortage {
    /// On whose behalf.
    pub owner: String,
    /// What was to pin it; `None` for a ring's own memory.
    pub backend: Option<Backend>,
    /// What would be charged.
    pub need: Bytes,
    /// What the limit is held against.
    pub counter: Counter,
    /// The soft limit of `RLIMIT_MEMLOCK`.
    pub limit: Bytes,
    /// What this process is charged by this ledger's books.
    pub own: Bytes,
    /// What is charged besides.
    pub outside: Bytes,
    /// How well that is known.
    pub precision: Precision,
    /// Whose it is, largest first.
    pub holders: Vec<Holder>,
}

impl Shortage {
    /// All that is charged already; saturates.
    pub fn used(&self) -> Bytes {
        self.own.checked_add(self.outside).unwrap_or(Bytes::new(u64::MAX))
    }

    /// The least limit with which it would fit; saturates.
    pub fn needed_limit(&self) -> Bytes {
        self.used().checked_add(self.need).unwrap_or(Bytes::new(u64::MAX))
    }

    /// How much would have to be released for it.
    pub fn missing(&self) -> Bytes {
        Bytes::new(self.needed_limit().as_u64().saturating_sub(self.limit.as_u64()))
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMED: usize = 3;
        let Self { owner, need, counter, limit, own, outside, precision, holders, .. } = self;
        match self.backend {
            Some(backend) => write!(f, "pin of {need} by {backend} for {owner} refused: ")?,
            None => write!(f, "ring of {need} for {owner} refused: ")?,
        }
        let who = match counter.basis() {
            Basis::Process => "this process has",
            Basis::User => "this user has",
        };
        write!(f, "{who} {}{} of RLIMIT_MEMLOCK {limit} in {counter}", precision.prefix(), self.used())?;
        if *outside > Bytes::ZERO {
            let whose = match counter.basis() {
                Basis::Process => "by other code of it",
                Basis::User => "in other processes",
            };
            write!(f, ", {own} of it here and {}{outside} {whose}", precision.prefix())?;
        }
        for (index, holder) in holders.iter().take(NAMED).enumerate() {
            write!(f, "{}{holder}", if index == 0 { ": " } else { ", " })?;
        }
        if holders.len() > NAMED {
            write!(f, " and {} more", holders.len() - NAMED)?;
        }
        write!(f, "; raise the limit to {} (peerdma memlock prints how)", self.needed_limit())?;
        // Where all of it is too little, nothing that is released helps.
        if self.missing() <= self.used() { write!(f, ", or release {}", self.missing()) } else { Ok(()) }
    }
}

/// Why a pin or ring is not let go. Nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReleaseError {
    /// It was released before, or is another ledger's.
    #[error("{pin} was released before; whoever has its place now keeps it")]
    Stale {
        /// Which.
        pin: PinHandle,
    },
    /// The ring was closed before.
    #[error("{ring} was closed before")]
    StaleRing {
        /// Which.
        ring: RingHandle,
    },
    /// Pins stand against it.
    #[error("{ring} still has {pins} pins; release them, or close it with them")]
    RingInUse {
        /// Which.
        ring: RingHandle,
        /// How many.
        pins: usize,
    },
}
