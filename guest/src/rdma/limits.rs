//! A user with a limit, who registers more than that: refused by the kernel, and by the ledger before it.

use super::Tally;
use crate::checks::{Stop, equal};
use peerdma::addr::Bytes;
use peerdma::pin::{ChargeError, OwnerId, OwnerLimits, SharedLedger};
use peerdma_linux::held;
use peerdma_linux::memory::Pages;
use peerdma_linux::pin::Limit;
use peerdma_linux::verbs::{Domain, RegisterError, Rights, Verbs};
use std::sync::Arc;

pub(super) fn run(device: &str, tally: &mut Tally) {
    let domain = open(device);
    let outcome = domain.and_then(|domain| {
        let limit = Limit::of_this_thread().bytes().ok_or_else(|| Stop::broken("this user has no limit"))?;
        let half = Bytes::new(limit.as_u64() / 2);
        let first = domain.register(Arc::new(Pages::zeroed(half)?), Rights::local())?;
        tally.claim(
            "a registration past RLIMIT_MEMLOCK is refused, and the error has the limit and what is pinned",
            over(&domain, limit, half),
        );
        tally.claim(
            "a ledger refuses the same before the kernel is asked, and names the counter",
            booked(domain.clone(), limit),
        );
        first.deregister()?;
        let again = domain.register(Arc::new(Pages::zeroed(limit)?), Rights::local());
        tally.claim(
            "what was deregistered counts no more: all of the limit can be registered",
            again.map(drop).map_err(Stop::from),
        );
        Ok(())
    });
    tally.claim("a user who may open the adapter registers memory within the limit", outcome);
}

fn open(device: &str) -> Result<Domain, Stop> {
    let devices = Verbs::load()?.devices()?;
    let found = devices.iter().find(|found| found.name() == device);
    Ok(found.ok_or_else(|| Stop::broken(format!("no {device} among {devices:?}")))?.open()?.domain()?)
}

fn over(domain: &Domain, limit: Bytes, half: Bytes) -> Result<(), Stop> {
    match domain.register(Arc::new(Pages::zeroed(limit)?), Rights::local()) {
        Err(RegisterError::Memlock { len, pinned, limit: said, .. }) => {
            equal("what it says", &(limit, half, Limit::Memlock(limit)), &(len, pinned, said))
        }
        other => Err(Stop::broken(format!("{other:?}"))),
    }
}

fn booked(domain: Domain, limit: Bytes) -> Result<(), Stop> {
    let owner = OwnerId::new(0);
    let mut ledger = held::of_this_process();
    ledger.describe_owner(owner, "user", OwnerLimits::NONE);
    // What the first region has is outside of these books, and told to them when they refuse.
    let domain = domain.booked(SharedLedger::new(ledger), owner);
    match domain.register(Arc::new(Pages::zeroed(Bytes::new(2 * limit.as_u64()))?), Rights::local()) {
        Err(RegisterError::Charge(error @ ChargeError::OverLimit(_))) if error.to_string().contains("rdma") => Ok(()),
        other => Err(Stop::broken(format!("{other:?}"))),
    }
}
