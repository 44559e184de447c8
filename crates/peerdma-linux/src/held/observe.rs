//! What others hold, told to a ledger.

use super::{Held, Process, sum};
use peerdma::addr::{Bytes, Granule};
use peerdma::pin::{ChargeError, Counter, Holder, Ledger, Outside, Precision, SharedLedger};
use rustix::process::{Resource, getrlimit, getuid};
use std::path::Path;

/// A ledger of this process: its limit, the machine's pages, and whether it has `CAP_IPC_LOCK`, as they are now.
///
/// Whether a ring is held to the limit was settled when the ring was made; so make one after giving the capability up.
pub fn of_this_process() -> Ledger {
    // The kernel's page sizes are powers of two.
    let page = Granule::new(Bytes::new(rustix::param::page_size() as u64)).unwrap_or(Granule::PAGE_4K);
    let mut ledger = Ledger::new(page);
    ledger.limit(getrlimit(Resource::Memlock).current.map(Bytes::new));
    ledger.bypass(crate::pin::is_bypassed());
    ledger
}

/// Tells a ledger of this process what is charged outside its books: by other code of the process, and by other processes of
/// its user. Its refusals then count that, and name whose it is.
///
/// What it says is true for the moment; tell it anew before relying on it.
pub fn observe(ledger: &mut Ledger, held: &Held) {
    observe_as(ledger, held, std::process::id(), getuid().as_raw());
}

/// Asks a ledger, and where it refuses asks again with what other processes have in its books, so that the refusal names
/// them.
pub(crate) fn asked_twice<T>(
    ledger: &SharedLedger,
    ask: impl Fn() -> Result<T, ChargeError>,
) -> Result<T, ChargeError> {
    ask().or_else(|error| {
        let (ChargeError::OverLimit(_), Ok(held)) = (&error, Held::read(Path::new("/proc"))) else {
            return Err(error);
        };
        ledger.with(|ledger| observe(ledger, &held));
        ask()
    })
}

pub(super) fn observe_as(ledger: &mut Ledger, held: &Held, pid: u32, uid: u32) {
    let own = held.processes.iter().find(|process| process.pid == pid);
    // The books may be ahead of the kernel, whom they are charged before.
    let besides =
        |counter, kernel: Bytes| Bytes::new(kernel.as_u64().saturating_sub(ledger.reading(counter).charged.as_u64()));
    let mine = |counter, kernel: fn(&Process) -> Bytes| match own {
        Some(own) => Outside { held: besides(counter, kernel(own)), precision: Precision::Exact, holders: Vec::new() },
        None => Outside::default(),
    };
    let locked = mine(Counter::MmLocked, |own| own.locked);
    let pinned = mine(Counter::MmPinned, |own| own.pinned);
    let user = user(held, pid, uid, pinned.held);
    ledger.observe(Counter::MmLocked, locked);
    ledger.observe(Counter::MmPinned, pinned);
    ledger.observe(Counter::UserLocked, user);
}

/// What of the user's own counter others have, and other code of this process.
fn user(held: &Held, pid: u32, uid: u32, own: Bytes) -> Outside {
    let holder = |process: &Process, held| Holder { pid: process.pid, command: process.command.clone(), held };
    let of = held.processes.iter().filter(|process| process.uid == uid && process.bypass != Some(true));
    let mut holders: Vec<Holder> = of
        .map(|process| holder(process, if process.pid == pid { own } else { process.pinned }))
        .filter(|holder| holder.held > Bytes::ZERO)
        .collect();
    holders.sort_by(|a, b| b.held.cmp(&a.held).then(a.pid.cmp(&b.pid)));
    let precision = if held.is_complete() { Precision::About } else { Precision::AtLeast };
    Outside { held: sum(holders.iter().map(|holder| holder.held)), precision, holders }
}
