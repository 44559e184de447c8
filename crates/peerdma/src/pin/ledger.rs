//! What one process has pinned, through whom and on whose behalf.

use super::books::{Books, Cost, Entry};
use super::counter::Counter;
use super::error::{ChargeError, ReleaseError, Shortage};
use super::handle::{PinHandle, Places, RingHandle};
use super::outside::Outside;
use super::owner::{OwnerId, OwnerLimits};
use super::request::{Request, Via};
use super::ring::RingShape;
use crate::addr::{Bytes, Granule};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};

#[derive(Clone, Debug)]
struct Owner {
    name: String,
    limits: OwnerLimits,
    pins: u32,
    size: u64,
}

#[derive(Clone, Debug)]
struct Pinned {
    owner: OwnerId,
    entry: Entry,
}

#[derive(Clone, Debug)]
struct Ring {
    charge: Bytes,
    pins: usize,
}

/// What a counter stands at, by these books.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Reading {
    /// What the kernel has charged to this process.
    pub charged: Bytes,
    /// What is held and would have been charged, had each paid for its own. Never less than `charged`.
    pub held: Bytes,
}

impl Reading {
    /// Whether the kernel's charge is what is held; otherwise it is a lower bound, since a slot is gone that had paid for a compound
    /// page which another slot still pins.
    pub fn is_exact(&self) -> bool {
        self.charged == self.held
    }
}

/// What one process has pinned, checked against every limit before the kernel is asked.
///
/// A pin is charged before the call and released if the call fails, so that threads that pin at once cannot pass the
/// limit together ([`SharedLedger`](super::SharedLedger)). What other processes of the user hold is not known
/// here; [`observe`](Self::observe) tells it, and errors name who it is.
///
/// ```
/// use peerdma::addr::{AddrRange, Bytes, Granule, ProcVa};
/// use peerdma::pin::{ChargeError, Counter, Ledger, OwnerId, OwnerLimits, Request, RingShape, Via};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let nic = OwnerId::new(0);
/// let mut ledger = Ledger::new(Granule::PAGE_4K);
/// ledger.limit(Some(Bytes::new(8 << 20)));
/// ledger.describe_owner(nic, "nic", OwnerLimits::NONE);
///
/// // A ring is charged itself, and a byte of a huge page is charged as the whole page.
/// let ring = ledger.open_ring(nic, RingShape::new(1))?;
/// let byte = AddrRange::new(ProcVa::new(0x7f00_0000_0000), Bytes::new(1)).unwrap();
/// let huge = Granule::new(Bytes::new(2 << 20)).unwrap();
/// let request = Request::new(Via::IoUring { ring }, byte).in_compound_pages(huge);
/// let first = ledger.charge(nic, request)?;
/// let second = ledger.charge(nic, request)?;
/// assert_eq!(ledger.reading(Counter::UserLocked).charged, Bytes::new((2 << 20) + 2 * 4096));
///
/// // The slot that paid goes, and takes the charge along; the other still holds the page.
/// ledger.release(first)?;
/// let reading = ledger.reading(Counter::UserLocked);
/// assert!(!reading.is_exact() && reading.charged == Bytes::new(2 * 4096));
///
/// let all = AddrRange::new(ProcVa::new(0x7f00_4000_0000), Bytes::new(8 << 20)).unwrap();
/// let refused = ledger.charge(nic, Request::new(Via::IoUring { ring }, all)).unwrap_err();
/// assert!(refused.to_string().starts_with(
///     "pin of 8 MiB by io_uring for nic refused: this user has at least 8 KiB of RLIMIT_MEMLOCK 8 MiB in user->locked_vm"
/// ));
/// ledger.release(second)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Ledger {
    books: Books,
    /// `RLIMIT_MEMLOCK`; `None` for unlimited.
    limit: Option<Bytes>,
    /// Whether the process has the capability not to be held to it.
    bypass: bool,
    owners: BTreeMap<OwnerId, Owner>,
    pins: Places<Pinned>,
    rings: Places<Ring>,
    outside: BTreeMap<Counter, Outside>,
}

impl Ledger {
    /// Empty books of a process on a machine of such pages, without a limit.
    pub fn new(page: Granule) -> Self {
        Self {
            books: Books::new(page),
            limit: None,
            bypass: false,
            owners: BTreeMap::new(),
            pins: Places::default(),
            rings: Places::default(),
            outside: BTreeMap::new(),
        }
    }

    /// Sets the process's soft `RLIMIT_MEMLOCK`; `None` is unlimited. One below what is charged takes nothing away.
    pub fn limit(&mut self, soft: Option<Bytes>) {
        self.limit = soft;
    }

    /// Sets whether the process has `CAP_IPC_LOCK` in the initial user namespace: then it is charged and never refused.
    pub fn bypass(&mut self, capable: bool) {
        self.bypass = capable;
    }

    /// Describes an owner, or describes it anew; `name` is what errors call it.
    pub fn describe_owner(&mut self, owner: OwnerId, name: &str, limits: OwnerLimits) {
        let (pins, size) = self.owners.get(&owner).map_or((0, 0), |known| (known.pins, known.size));
        self.owners.insert(owner, Owner { name: name.to_string(), limits, pins, size });
    }

    /// Says what is charged to a counter and stands not in these books: by other processes of the user, or by other code
    /// of this one.
    pub fn observe(&mut self, counter: Counter, outside: Outside) {
        self.outside.insert(counter, outside);
    }

    /// What a counter stands at, as far as these books tell.
    pub fn reading(&self, counter: Counter) -> Reading {
        Reading { charged: self.books.charged(counter), held: self.books.held(counter) }
    }

    /// What an owner holds: how many pins, and of which size.
    pub fn owned(&self, owner: OwnerId) -> Option<(u32, Bytes)> {
        self.owners.get(&owner).map(|owner| (owner.pins, Bytes::new(owner.size)))
    }

    /// What the kernel would charge for a request now. Nothing is charged.
    ///
    /// # Errors
    /// As [`charge`](Self::charge), for whom it would refuse.
    pub fn check(&self, owner: OwnerId, request: &Request) -> Result<Cost, ChargeError> {
        let known = self.owner(owner)?;
        if let Via::IoUring { ring } = request.via() {
            self.rings.at(ring.place, ring.generation).ok_or(ChargeError::NoRing { ring })?;
        }
        let cost = self.books.cost(request).ok_or(ChargeError::Overflow)?;
        self.within_owner(known, cost.size)?;
        let (backend, rule) = (request.via().backend(), request.via().backend().rule());
        let asks_first = matches!(backend, super::Backend::Mlock | super::Backend::Rdma);
        if asks_first && !self.bypass && self.limit == Some(Bytes::ZERO) {
            return Err(ChargeError::Forbidden { backend, owner: known.name.clone() });
        }
        if let Some(counter) = rule.counter {
            self.within_limit(known, Some(backend), counter, cost.charged)?;
        }
        Ok(cost)
    }

    /// Charges a request, before the kernel is asked for it; release it again if the kernel refuses all the same.
    ///
    /// # Errors
    /// - [`ChargeError::OverLimit`]: raise the limit or release as much as it says, its own or that of whom it names.
    /// - [`ChargeError::Forbidden`]: raise the limit from 0.
    /// - [`ChargeError::TooMany`], [`ChargeError::TooLarge`]: the owner is to release some.
    /// - The others: describe the owner, open the ring, pin less.
    pub fn charge(&mut self, owner: OwnerId, request: Request) -> Result<PinHandle, ChargeError> {
        let cost = self.check(owner, &request)?;
        let entry = self.books.enter(request).ok_or(ChargeError::Overflow)?;
        let Some((place, generation)) = self.pins.add(Pinned { owner, entry }) else {
            self.books.strike(entry);
            return Err(ChargeError::Overflow);
        };
        if let Some(known) = self.owners.get_mut(&owner) {
            known.pins += 1;
            known.size += cost.size.as_u64();
        }
        if let Some(ring) = self.ring_of(&request) {
            ring.pins += 1;
        }
        Ok(PinHandle { place, generation })
    }

    /// Releases a pin: the kernel has unpinned it, or never pinned it.
    ///
    /// # Errors
    /// [`ReleaseError::Stale`]: it was released before; look for who did.
    pub fn release(&mut self, pin: PinHandle) -> Result<(), ReleaseError> {
        let Pinned { owner, entry } = self.pins.take(pin.place, pin.generation).ok_or(ReleaseError::Stale { pin })?;
        self.books.strike(entry);
        if let Some(known) = self.owners.get_mut(&owner) {
            known.pins -= 1;
            known.size -= entry.size.as_u64();
        }
        if let Some(ring) = self.ring_of(&entry.request) {
            ring.pins -= 1;
        }
        Ok(())
    }

    /// Charges a ring's own memory, before it is made.
    ///
    /// # Errors
    /// [`ChargeError::OverLimit`] as for a pin (at a limit of 0 no ring can be made); [`ChargeError::RingShape`]: ask for fewer
    /// entries.
    pub fn open_ring(&mut self, owner: OwnerId, shape: RingShape) -> Result<RingHandle, ChargeError> {
        let known = self.owner(owner)?;
        let charge = shape.charge(self.books.page()).ok_or(ChargeError::RingShape { entries: shape.entries() })?;
        self.within_limit(known, None, Counter::UserLocked, charge)?;
        self.books.charge_ring(charge).ok_or(ChargeError::Overflow)?;
        let Some((place, generation)) = self.rings.add(Ring { charge, pins: 0 }) else {
            self.books.release_ring(charge);
            return Err(ChargeError::Overflow);
        };
        Ok(RingHandle { place, generation })
    }

    /// Gives a ring's own memory back, after it was closed.
    ///
    /// # Errors
    /// [`ReleaseError::RingInUse`]: release its pins first, whose memory the kernel unpins with the ring.
    pub fn close_ring(&mut self, ring: RingHandle) -> Result<(), ReleaseError> {
        let known = self.rings.at(ring.place, ring.generation).ok_or(ReleaseError::StaleRing { ring })?;
        if known.pins > 0 {
            return Err(ReleaseError::RingInUse { ring, pins: known.pins });
        }
        if let Some(Ring { charge, .. }) = self.rings.take(ring.place, ring.generation) {
            self.books.release_ring(charge);
        }
        Ok(())
    }

    fn owner(&self, owner: OwnerId) -> Result<&Owner, ChargeError> {
        self.owners.get(&owner).ok_or(ChargeError::NoOwner { owner })
    }

    fn ring_of(&mut self, request: &Request) -> Option<&mut Ring> {
        let Via::IoUring { ring } = request.via() else { return None };
        self.rings.at_mut(ring.place, ring.generation)
    }

    fn within_owner(&self, owner: &Owner, size: Bytes) -> Result<(), ChargeError> {
        let name = || owner.name.clone();
        let all = owner.size.checked_add(size.as_u64()).ok_or(ChargeError::Overflow)?;
        match owner.limits {
            OwnerLimits { pins: Some(limit), .. } if owner.pins >= limit => {
                Err(ChargeError::TooMany { owner: name(), need: size, pins: owner.pins, limit })
            }
            OwnerLimits { size: Some(limit), .. } if all > limit.as_u64() => {
                Err(ChargeError::TooLarge { owner: name(), need: size, used: Bytes::new(owner.size), limit })
            }
            _ if owner.pins == u32::MAX => Err(ChargeError::Overflow),
            _ => Ok(()),
        }
    }

    fn within_limit(
        &self,
        owner: &Owner,
        backend: Option<super::Backend>,
        counter: Counter,
        need: Bytes,
    ) -> Result<(), ChargeError> {
        let Some(limit) = self.limit.filter(|_| !self.bypass) else { return Ok(()) };
        let own = self.books.charged(counter);
        let outside = self.outside.get(&counter).cloned().unwrap_or_default();
        let all = own.checked_add(outside.held).and_then(|used| used.checked_add(need));
        // What adds nothing passes no limit, even one that was lowered meanwhile: Linux does not look then.
        if need == Bytes::ZERO || all.is_some_and(|all| all <= limit) {
            return Ok(());
        }
        Err(ChargeError::OverLimit(Box::new(Shortage {
            owner: owner.name.clone(),
            backend,
            need,
            counter,
            limit,
            own,
            outside: outside.held,
            precision: outside.precision,
            holders: outside.holders,
        })))
    }
}
