//! Claims about mirrors, and a mirror beside a value for each page.

mod claims;
mod oracle;
mod seats;

use super::*;
use crate::access::{Access, Prot};
use crate::addr::{AddrRange, Bytes, Granule, ProcVa};

const PAGE: u64 = 4096;

fn mirror() -> MirrorState {
    MirrorState::new(Granule::new(Bytes::new(PAGE)).unwrap())
}

/// Pages from a number on.
fn pages(first: u64, count: u64) -> AddrRange<ProcVa> {
    AddrRange::new(ProcVa::new(first * PAGE), Bytes::new(count * PAGE)).unwrap()
}

fn wanted(page: u64, access: Access) -> Wanted {
    Wanted { at: ProcVa::new(page * PAGE + 8), access }
}

/// Asks for a page that is to be brought.
fn ticket(mirror: &mut MirrorState, page: u64, access: Access) -> Ticket {
    match mirror.fault(wanted(page, access), Token(page)) {
        Fault::Bring(ticket) => ticket,
        other => unreachable!("page {page} is there to be brought, and not {other:?}"),
    }
}

/// Asks for a page and brings it.
fn bring(mirror: &mut MirrorState, page: u64, access: Access, has: Prot) -> Finished {
    let ticket = ticket(mirror, page, access);
    mirror.finish(ticket, Brought::Page(has))
}
