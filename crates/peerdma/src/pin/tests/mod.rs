//! Claims about what is charged, held, needed and refused.

mod backends;
mod limits;
mod oracle;
mod plans;
mod releases;
mod sharing;

use super::{Ledger, OwnerId, OwnerLimits, Request, RingHandle, RingShape, ScopeId, Via};
use crate::addr::{AddrRange, Bytes, Granule, ProcVa};

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;
const NIC: OwnerId = OwnerId::new(1);
const POOL: OwnerId = OwnerId::new(2);

fn bytes(start: u64, len: u64) -> AddrRange<ProcVa> {
    AddrRange::new(ProcVa::new(start), Bytes::new(len)).unwrap()
}

fn huge() -> Granule {
    Granule::new(Bytes::new(2 * MIB)).unwrap()
}

fn scope(number: u32) -> ScopeId {
    ScopeId::new(number)
}

/// A ledger of two owners without limits of their own.
fn ledger(limit: Option<u64>) -> Ledger {
    let mut ledger = Ledger::new(Granule::PAGE_4K);
    ledger.limit(limit.map(Bytes::new));
    ledger.describe_owner(NIC, "nic", OwnerLimits::NONE);
    ledger.describe_owner(POOL, "pool", OwnerLimits::NONE);
    ledger
}

fn ring(ledger: &mut Ledger) -> RingHandle {
    ledger.open_ring(NIC, RingShape::new(1)).unwrap()
}

fn on_ring(ring: RingHandle, start: u64, len: u64) -> Request {
    Request::new(Via::IoUring { ring }, bytes(start, len))
}
