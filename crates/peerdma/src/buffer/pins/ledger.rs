//! Who has how much of which region.

use super::error::{ChargeError, Holder, Shortage, UnchargeError, UnpinError};
use super::handle::{Charge, PinHandle, Seal, Users};
use super::reclaim::{Evictable, Limits, Room, Share, reclaimable};
use super::region::{RegionId, TenantId};
use crate::addr::Bytes;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

struct Region {
    name: String,
    capacity: u64,
    limits: BTreeMap<TenantId, Limits>,
}

struct Charged {
    region: RegionId,
    tenant: TenantId,
    len: u64,
    /// How many pins each tenant has on it; none has zero.
    pinned_by: BTreeMap<TenantId, usize>,
}

struct Pinned {
    /// The charge whose memory it holds.
    charge: u64,
    tenant: TenantId,
}

struct Deferred {
    pin: PinHandle,
    users: Box<dyn Users + Send>,
}

impl Deferred {
    fn is_used(&self) -> bool {
        self.users.outstanding() > 0
    }
}

/// Who has how much of which region of device memory, within limits for each tenant.
///
/// A tenant uses what he has put into a region, and what he keeps there by a pin although somebody else put it
/// there: both are kept from others, so both count against his limit. Linux 7.2 charges whoever
/// allocates (`dmem_cgroup_try_charge` by `ttm_resource_alloc`) and pins for nothing, so that a process without any
/// memory of its own can hold all of a GPU's. Memory itself counts once against the region.
///
/// ```
/// use peerdma::addr::Bytes;
/// use peerdma::buffer::pins::{ChargeError, Ledger, Limits, RegionId, TenantId, UnpinError};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (vram, trainer, nic) = (RegionId::new(0), TenantId::new(1), TenantId::new(2));
/// let mib = |n: u64| Bytes::new(n << 20);
/// let mut ledger = Ledger::new();
/// ledger.describe_region(vram, "drm/0000:41:00.0/vram0", mib(256));
/// ledger.describe_tenant(trainer, "trainer");
/// ledger.describe_tenant(nic, "nic");
/// ledger.limit(vram, nic, Limits { max: Some(mib(64)), ..Limits::NONE })?;
///
/// let buffer = ledger.charge(vram, trainer, mib(48))?;
/// let pin = ledger.pin(&buffer, nic)?;
/// let second = ledger.charge(vram, trainer, mib(32))?;
/// let refused = ledger.pin(&second, nic).unwrap_err();
/// assert!(refused.to_string().starts_with(
///     "nic cannot keep 32 MiB more in drm/0000:41:00.0/vram0: it uses 48 MiB of its limit of 64 MiB; others: trainer 80 MiB"
/// ));
///
/// // A transfer still runs.
/// let Err(UnpinError::StillUsed { pin, .. }) = ledger.unpin(pin, &|| 1_usize) else { unreachable!() };
/// ledger.unpin(pin, &|| 0_usize)?;
/// ledger.uncharge(buffer)?;
/// # Ok(())
/// # }
/// ```
#[derive(Default)]
pub struct Ledger {
    seal: Seal,
    regions: BTreeMap<RegionId, Region>,
    tenants: BTreeMap<TenantId, String>,
    charges: BTreeMap<u64, Charged>,
    pins: BTreeMap<u64, Pinned>,
    /// Let go by their holders, and still used.
    deferred: Vec<Deferred>,
    /// Given back, and still pinned.
    leaving: Vec<Charge>,
    next: u64,
}

impl Ledger {
    /// A ledger without regions and tenants.
    pub fn new() -> Self {
        Self::default()
    }

    /// Describes a region, or describes it anew; `name` is what errors call it.
    ///
    /// A capacity below what lies there takes nothing away, and nothing more in.
    pub fn describe_region(&mut self, region: RegionId, name: &str, capacity: Bytes) {
        let limits = self.regions.remove(&region).map(|known| known.limits).unwrap_or_default();
        self.regions.insert(region, Region { name: name.to_string(), capacity: capacity.as_u64(), limits });
    }

    /// Describes a tenant; `name` is what errors call it.
    pub fn describe_tenant(&mut self, tenant: TenantId, name: &str) {
        self.tenants.insert(tenant, name.to_string());
    }

    /// Sets a tenant's limits in a region. A limit below what he uses takes nothing away, and nothing more in.
    ///
    /// # Errors
    /// [`ChargeError::NoRegion`], [`ChargeError::NoTenant`]: describe it first.
    pub fn limit(&mut self, region: RegionId, tenant: TenantId, limits: Limits) -> Result<(), ChargeError> {
        self.name(tenant)?;
        self.regions.get_mut(&region).ok_or(ChargeError::NoRegion { region })?.limits.insert(tenant, limits);
        Ok(())
    }

    /// Charges a tenant for `len` bytes that are to lie in a region.
    ///
    /// # Errors
    /// - [`ChargeError::OverMax`]: move out memory of the tenant, as listed, and ask again.
    /// - [`ChargeError::Full`]: move out what is listed, in that order, and ask again.
    /// - The others: describe region and tenant, and ask for bytes.
    pub fn charge(&mut self, region: RegionId, tenant: TenantId, len: Bytes) -> Result<Charge, ChargeError> {
        let capacity = self.regions.get(&region).ok_or(ChargeError::NoRegion { region })?.capacity;
        self.within_max(region, tenant, len)?;
        let used = self.sum(|charged| charged.region == region);
        if used.checked_add(len.as_u64()).is_none_or(|all| all > capacity) {
            let own = Bytes::new(self.sum(|charged| charged.region == region && charged.tenant == tenant));
            let shortage = self.shortage(region, tenant, (Bytes::new(used), len), Room::Anywhere)?;
            return Err(ChargeError::Full { capacity: Bytes::new(capacity), own, shortage });
        }
        let number = self.number();
        self.charges.insert(number, Charged { region, tenant, len: len.as_u64(), pinned_by: BTreeMap::new() });
        Ok(Charge { ledger: self.seal.clone(), number })
    }

    /// Gives memory back that is no longer in its region: freed, or moved elsewhere.
    ///
    /// # Errors
    /// [`UnchargeError`], with the handle; have the pins let go first.
    pub fn uncharge(&mut self, charge: Charge) -> Result<(), UnchargeError> {
        let Some(charged) = self.charges.get(&charge.number).filter(|_| charge.ledger == self.seal) else {
            return Err(UnchargeError::AnotherLedger { charge });
        };
        let holders: Vec<String> = charged.pinned_by.keys().map(|holder| self.called(*holder)).collect();
        if !holders.is_empty() {
            return Err(UnchargeError::Pinned {
                tenant: self.called(charged.tenant),
                region: self.region_name(charged.region),
                len: Bytes::new(charged.len),
                charge,
                holders,
            });
        }
        self.charges.remove(&charge.number);
        Ok(())
    }

    /// Gives memory back as soon as no pin holds it; until then it counts.
    ///
    /// For an owner who is going, while pins of others wait for their devices.
    ///
    /// # Errors
    /// [`UnchargeError::AnotherLedger`], with the handle.
    pub fn uncharge_when_unpinned(&mut self, charge: Charge) -> Result<(), UnchargeError> {
        match self.uncharge(charge) {
            Err(UnchargeError::Pinned { charge, .. }) => {
                self.leaving.push(charge);
                Ok(())
            }
            done => done,
        }
    }

    /// Keeps memory in its region on behalf of a tenant, who need not be the one who put it there.
    ///
    /// Pins of one tenant on the same memory count once against his limit.
    ///
    /// # Errors
    /// [`ChargeError::OverMax`]: the pin would pass the tenant's limit. [`ChargeError::AnotherLedger`]: the charge
    /// is none of this ledger's.
    pub fn pin(&mut self, charge: &Charge, tenant: TenantId) -> Result<PinHandle, ChargeError> {
        self.name(tenant)?;
        let known = self.charges.get(&charge.number).filter(|_| charge.ledger == self.seal);
        let charged = known.ok_or(ChargeError::AnotherLedger)?;
        if charged.tenant != tenant && !charged.pinned_by.contains_key(&tenant) {
            self.within_max(charged.region, tenant, Bytes::new(charged.len))?;
        }
        let number = self.number();
        if let Some(charged) = self.charges.get_mut(&charge.number) {
            *charged.pinned_by.entry(tenant).or_insert(0) += 1;
        }
        self.pins.insert(number, Pinned { charge: charge.number, tenant });
        Ok(PinHandle { ledger: self.seal.clone(), number })
    }

    /// Lets a pin go, unless somebody still uses the memory.
    ///
    /// # Errors
    /// [`UnpinError`], with the handle: wait for its users, or leave it with [`unpin_when_unused`](Self::unpin_when_unused).
    pub fn unpin(&mut self, pin: PinHandle, users: &dyn Users) -> Result<(), UnpinError> {
        let Some(known) = self.pins.get(&pin.number).filter(|_| pin.ledger == self.seal) else {
            return Err(UnpinError::AnotherLedger { pin });
        };
        match users.outstanding() {
            0 => {
                self.remove_pin(pin.number);
                Ok(())
            }
            outstanding => {
                let tenant = self.called(known.tenant);
                let charged = self.charges.get(&known.charge);
                let region = charged.map_or_else(String::new, |charged| self.region_name(charged.region));
                Err(UnpinError::StillUsed { pin, tenant, region, outstanding })
            }
        }
    }

    /// Lets a pin go as soon as nobody uses the memory; until then it holds, and counts.
    ///
    /// For a holder who is going: a process that ends while its device writes.
    ///
    /// # Errors
    /// [`UnpinError::AnotherLedger`], with the handle.
    pub fn unpin_when_unused(&mut self, pin: PinHandle, users: Box<dyn Users + Send>) -> Result<(), UnpinError> {
        match self.unpin(pin, &*users) {
            Err(UnpinError::StillUsed { pin, .. }) => {
                self.deferred.push(Deferred { pin, users });
                Ok(())
            }
            done => done,
        }
    }

    /// Lets go of pins that were left behind and that nobody uses any more, and of memory that was left behind and that
    /// nobody pins any more; says how many pins are still used.
    pub fn settle(&mut self) -> usize {
        let (used, unused) = core::mem::take(&mut self.deferred).into_iter().partition(Deferred::is_used);
        self.deferred = used;
        let unused: Vec<Deferred> = unused;
        unused.into_iter().for_each(|deferred| self.remove_pin(deferred.pin.number));
        for charge in core::mem::take(&mut self.leaving) {
            // It is this ledger's own, and is put back where pins hold it yet.
            let _ = self.uncharge_when_unpinned(charge);
        }
        self.deferred.len()
    }

    /// What each tenant has in a region, in their order.
    pub fn shares(&self, region: RegionId) -> Vec<Share> {
        let of = |tenant: TenantId| {
            let own = |charged: &Charged| charged.region == region && charged.tenant == tenant;
            let (resident, held) = (self.sum(own), self.sum(|charged| own(charged) && !charged.pinned_by.is_empty()));
            let limits = self.limits(region, tenant);
            Share { tenant, resident: Bytes::new(resident), held: Bytes::new(held), limits }
        };
        self.tenants.keys().copied().map(of).collect()
    }

    /// What a tenant uses of a region: his own, and others' memory that he pins.
    pub fn used(&self, region: RegionId, tenant: TenantId) -> Bytes {
        let uses = |charged: &Charged| charged.tenant == tenant || charged.pinned_by.contains_key(&tenant);
        Bytes::new(self.sum(|charged| charged.region == region && uses(charged)))
    }

    /// What of a region a tenant's pins hold.
    pub fn pinned(&self, region: RegionId, tenant: TenantId) -> Bytes {
        Bytes::new(self.sum(|charged| charged.region == region && charged.pinned_by.contains_key(&tenant)))
    }

    /// What could be moved out of a region, in the order in which it is to be tried.
    pub fn reclaimable(&self, region: RegionId, room: Room) -> Vec<Evictable> {
        reclaimable(&self.shares(region), room)
    }

    fn within_max(&self, region: RegionId, tenant: TenantId, len: Bytes) -> Result<(), ChargeError> {
        if len == Bytes::ZERO {
            return Err(ChargeError::Empty);
        }
        self.name(tenant)?;
        let used = self.used(region, tenant);
        match self.limits(region, tenant).max {
            Some(max) if used.checked_add(len).is_none_or(|all| all > max) => {
                let shortage = self.shortage(region, tenant, (used, len), Room::Within(tenant))?;
                Err(ChargeError::OverMax { max, shortage })
            }
            _ => Ok(()),
        }
    }

    fn shortage(
        &self,
        region: RegionId,
        tenant: TenantId,
        (used, need): (Bytes, Bytes),
        room: Room,
    ) -> Result<Box<Shortage>, ChargeError> {
        let (name, others) = (self.name(tenant)?.to_string(), self.others(region, tenant));
        let reclaimable = self.reclaimable(region, room);
        Ok(Box::new(Shortage { tenant: name, region: self.region_name(region), used, need, others, reclaimable }))
    }

    fn others(&self, region: RegionId, but: TenantId) -> Vec<Holder> {
        let of = |(tenant, name): (&TenantId, &String)| {
            let (used, pinned) = (self.used(region, *tenant), self.pinned(region, *tenant));
            (*tenant != but && used > Bytes::ZERO).then(|| Holder { tenant: name.clone(), used, pinned })
        };
        self.tenants.iter().filter_map(of).collect()
    }

    fn limits(&self, region: RegionId, tenant: TenantId) -> Limits {
        let known = self.regions.get(&region).and_then(|region| region.limits.get(&tenant));
        known.copied().unwrap_or(Limits::NONE)
    }

    fn name(&self, tenant: TenantId) -> Result<&str, ChargeError> {
        self.tenants.get(&tenant).map(String::as_str).ok_or(ChargeError::NoTenant { tenant })
    }

    fn region_name(&self, region: RegionId) -> String {
        self.regions.get(&region).map_or_else(|| region.to_string(), |known| known.name.clone())
    }

    /// What errors call a tenant.
    fn called(&self, tenant: TenantId) -> String {
        self.tenants.get(&tenant).cloned().unwrap_or_else(|| tenant.to_string())
    }

    fn remove_pin(&mut self, number: u64) {
        let Some(pin) = self.pins.remove(&number) else { return };
        let Some(charged) = self.charges.get_mut(&pin.charge) else { return };
        match charged.pinned_by.get_mut(&pin.tenant) {
            Some(count) if *count > 1 => *count -= 1,
            _ => _ = charged.pinned_by.remove(&pin.tenant),
        }
    }

    /// Fits where one region is meant: what lies there was no more than its capacity when it came.
    fn sum(&self, which: impl Fn(&Charged) -> bool) -> u64 {
        self.charges.values().filter(|charged| which(charged)).map(|charged| charged.len).sum()
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shares: Vec<_> = self.regions.keys().map(|region| (*region, self.shares(*region))).collect();
        f.debug_struct("Ledger")
            .field("shares", &shares)
            .field("deferred", &self.deferred.len())
            .finish_non_exhaustive()
    }
}
