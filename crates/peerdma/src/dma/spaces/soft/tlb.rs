//! Translations that one thread remembers, for one device.
//!
//! A warm walk of the tables takes two or three nanoseconds, so a cache in front of it has to
//! be a load and two comparisons or it costs more than it saves: direct-mapped, owned by
//! the thread that uses it, without a lock or a reference count on the way.
//!
//! Every slot carries the generation of the domain that it was filled in. An unmapping
//! raises the generation once, after the entries are gone, and every slot of every thread
//! is stale. What makes that safe is the order in which a slot is filled: the generation is
//! read *before* the walk, so that a walk which saw an entry that was removed meanwhile fills
//! its slot with a generation that is already over.
//!
//! Not here: what a device may still do with an address that it was given just before
//! an unmapping (that takes waiting for it, and not a cache).

use super::fault::InitiatorId;
use crate::access::{Access, Prot};
use crate::addr::{Iova, PhysAddr};
use crate::sync::atomic::AtomicU64;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;

/// How many translations it holds; a page goes where the low bits of its number say.
pub(super) const SLOTS: usize = 1024;

/// Translations are remembered in units of 4 KiB, whatever the size of the page they came from.
const UNIT_SHIFT: u32 = 12;

/// No unit has this number, as numbers have 52 bits.
const NO_UNIT: u64 = u64::MAX;

/// One remembered unit; 32 bytes, so that two share a cache line and none lies in two.
#[derive(Clone, Copy)]
#[repr(align(32))]
struct Slot {
    /// Number of the unit if it can be read, then if it can be written.
    readable: u64,
    writable: u64,
    /// When that was true.
    generation: u64,
    /// What to add to an IOVA, modulo 2^64.
    offset: u64,
}

impl Slot {
    const EMPTY: Self = Self { readable: NO_UNIT, writable: NO_UNIT, generation: 0, offset: 0 };
}

/// The number that a domain's unmappings raise, on a cache line of its own: every translation
/// reads it, and what lies beside it must not be written by others.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Generation(pub(super) AtomicU64);

/// What one thread remembers of the translations of one device.
///
/// Used with another domain than before it forgets everything. Threads that translate for the
/// same device have one each.
pub struct Tlb {
    slots: Box<[Slot; SLOTS]>,
    /// The domain whose translations these are. Held, so that no other domain can
    /// have the same address while this remembers something.
    domain: Option<Arc<Generation>>,
    initiator: InitiatorId,
    privileged: bool,
}

impl Default for Tlb {
    fn default() -> Self {
        Self::new(InitiatorId::default())
    }
}

impl fmt::Debug for Tlb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tlb").field("initiator", &self.initiator).finish_non_exhaustive()
    }
}

impl Tlb {
    /// An empty cache; fault records will name `initiator`.
    pub fn new(initiator: InitiatorId) -> Self {
        Self { slots: Box::new([Slot::EMPTY; SLOTS]), domain: None, initiator, privileged: false }
    }

    /// Lets it use mappings that only privileged contexts of the device may use.
    #[must_use]
    pub fn privileged(mut self) -> Self {
        self.privileged = true;
        self
    }

    pub(super) fn is_privileged(&self) -> bool {
        self.privileged
    }

    /// Whom fault records name.
    pub fn initiator(&self) -> InitiatorId {
        self.initiator
    }

    /// Where an access ends up, if that is remembered for this domain in this generation.
    #[inline]
    pub(super) fn find(&self, domain: &Arc<Generation>, now: u64, iova: Iova, access: Access) -> Option<PhysAddr> {
        let unit = iova.as_u64() >> UNIT_SHIFT;
        let slot = &self.slots[unit as usize % SLOTS];
        let tag = match access {
            Access::Read => slot.readable,
            Access::Write => slot.writable,
        };
        let same_domain = self.domain.as_ref().is_some_and(|own| Arc::ptr_eq(own, domain));
        (tag == unit && slot.generation == now && same_domain)
            .then(|| PhysAddr::new(iova.as_u64().wrapping_add(slot.offset)))
    }

    /// Remembers that `iova` led to `to` in the generation `before`, which was read before the walk.
    #[inline]
    pub(super) fn fill(&mut self, domain: &Arc<Generation>, before: u64, iova: Iova, to: PhysAddr, prot: Prot) {
        if !self.domain.as_ref().is_some_and(|own| Arc::ptr_eq(own, domain)) {
            self.turn_to(domain);
        }
        let unit = iova.as_u64() >> UNIT_SHIFT;
        self.slots[unit as usize % SLOTS] = Slot {
            readable: if prot.reads() { unit } else { NO_UNIT },
            writable: if prot.writes() { unit } else { NO_UNIT },
            generation: before,
            offset: to.as_u64().wrapping_sub(iova.as_u64()),
        };
    }

    /// Forgets everything, and serves another domain.
    #[cold]
    fn turn_to(&mut self, domain: &Arc<Generation>) {
        self.slots.fill(Slot::EMPTY);
        self.domain = Some(Arc::clone(domain));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Iova = Iova::new(0x7_5008);
    const TO: PhysAddr = PhysAddr::new(0x1_2008);

    fn filled(domain: &Arc<Generation>, prot: Prot) -> Tlb {
        let mut tlb = Tlb::default();
        tlb.fill(domain, 7, AT, TO, prot);
        tlb
    }

    #[test]
    fn all_of_a_unit_is_remembered_and_nothing_beside_it() {
        let domain = Arc::default();
        let tlb = filled(&domain, Prot::ReadWrite);
        let find = |iova| tlb.find(&domain, 7, Iova::new(iova), Access::Read);
        assert_eq!(find(0x7_5000), Some(PhysAddr::new(0x1_2000)));
        assert_eq!(find(0x7_5fff), Some(PhysAddr::new(0x1_2fff)));
        assert_eq!((find(0x7_4fff), find(0x7_6000)), (None, None));
        // The same slot, another unit.
        assert_eq!(find(0x7_5000 + (SLOTS as u64) * 0x1000), None);
    }

    #[test]
    fn an_access_is_found_only_where_it_is_permitted() {
        let domain = Arc::default();
        for prot in [Prot::Read, Prot::Write, Prot::ReadWrite] {
            let tlb = filled(&domain, prot);
            for access in [Access::Read, Access::Write] {
                let found = tlb.find(&domain, 7, AT, access);
                assert_eq!(found.is_some(), access.is_permitted_by(prot), "{prot} {access}");
            }
        }
    }

    #[test]
    fn what_was_remembered_in_another_generation_is_forgotten() {
        let domain = Arc::default();
        let tlb = filled(&domain, Prot::ReadWrite);
        assert_eq!(tlb.find(&domain, 8, AT, Access::Read), None);
        assert_eq!(tlb.find(&domain, 6, AT, Access::Read), None);
    }

    #[test]
    fn translations_of_one_domain_are_none_of_another() {
        let (domain, other) = (Arc::default(), Arc::default());
        let mut tlb = filled(&domain, Prot::ReadWrite);
        assert_eq!(tlb.find(&other, 7, AT, Access::Read), None);
        tlb.fill(&other, 7, Iova::new(0), TO, Prot::Read);
        assert_eq!(tlb.find(&other, 7, AT, Access::Read), None);
        assert_eq!(tlb.find(&domain, 7, AT, Access::Read), None);
    }

    #[test]
    fn an_empty_cache_finds_nothing_even_at_the_last_address() {
        let domain = Arc::default();
        let tlb = Tlb::default();
        for iova in [0, u64::MAX] {
            assert_eq!(tlb.find(&domain, 0, Iova::new(iova), Access::Read), None);
        }
    }
}
