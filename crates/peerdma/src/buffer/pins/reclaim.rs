//! What could be moved out of a full region, and from whom.

use super::region::TenantId;
use crate::addr::Bytes;
use alloc::vec::Vec;

/// How much of a region one tenant may use, and how much of it is left to him.
///
/// As the files `dmem.min`, `dmem.low` and `dmem.max` of a control group right below the root (Linux 7.2
/// `kernel/cgroup/dmem.c`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Nobody moves his memory out for others while he uses no more than this.
    pub min: Bytes,
    /// As `min`, as long as there is something else to move out.
    pub low: Bytes,
    /// He uses no more than this; `None` for all there is.
    pub max: Option<Bytes>,
}

impl Limits {
    /// Nothing protected, and nothing held back.
    pub const NONE: Self = Self { min: Bytes::ZERO, low: Bytes::ZERO, max: None };
}

/// What one tenant has in a region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Share {
    /// Who.
    pub tenant: TenantId,
    /// Bytes of his that lie there.
    pub resident: Bytes,
    /// Bytes of those that pins hold, whoever's pins.
    pub held: Bytes,
    /// His limits.
    pub limits: Limits,
}

/// Why memory is taken from a tenant.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Pass {
    /// He asked for more than his own limit, and makes room for himself.
    HisOwn,
    /// He uses more than is kept for him.
    AboveLow,
    /// Nothing else is left, and he uses more than is his in any case.
    AboveMin,
}

/// Bytes that could be moved out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Evictable {
    /// Whose.
    pub tenant: TenantId,
    /// How many at most, counted in bytes: a buffer goes as a whole, even if it reaches below a limit.
    pub bytes: Bytes,
    /// Why.
    pub pass: Pass,
}

/// For whom room is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Room {
    /// For a tenant at his own limit.
    Within(TenantId),
    /// For whoever asks of a region that is full.
    Anywhere,
}

/// What could be moved out of a region, in the order in which it is to be tried.
///
/// At his own limit a tenant makes room from his own memory, whatever is protected. In a full region first
/// those give who use more than their `low`, down to that; then, if that does not do, all who use more than
/// their `min`, down to that (Linux 7.2 `dmem_cgroup_state_evict_valuable`, once with and once without
/// `ignore_low`). What pins hold is never among it, which Linux finds out buffer by buffer. Between tenants
/// of one pass no order is given; which buffer was used last is not known here.
pub fn reclaimable(shares: &[Share], room: Room) -> Vec<Evictable> {
    let loose = |share: &Share| share.resident.as_u64().saturating_sub(share.held.as_u64());
    let above = |share: &Share, kept: Bytes| share.resident.as_u64().saturating_sub(kept.as_u64());
    let mut found = Vec::new();
    let mut give = |tenant: TenantId, bytes: u64, pass: Pass| {
        if bytes > 0 {
            found.push(Evictable { tenant, bytes: Bytes::new(bytes), pass });
        }
    };
    match room {
        Room::Within(tenant) => {
            for share in shares.iter().filter(|share| share.tenant == tenant) {
                give(tenant, loose(share), Pass::HisOwn);
            }
        }
        Room::Anywhere => {
            // A `low` below `min` protects nothing more than that does.
            let first = |share: &Share| loose(share).min(above(share, share.limits.low.max(share.limits.min)));
            for share in shares {
                give(share.tenant, first(share), Pass::AboveLow);
            }
            for share in shares {
                let all = loose(share).min(above(share, share.limits.min));
                give(share.tenant, all - first(share), Pass::AboveMin);
            }
        }
    }
    found
}
