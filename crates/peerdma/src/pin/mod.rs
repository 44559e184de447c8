//! Who holds how much memory in its place, counted as the kernel counts it, and before it does.
//!
//! Linux counts memory that devices use in three counters, each held against `RLIMIT_MEMLOCK` by those that charge
//! it, and by each in its own way: in pages or in whole compound pages, at each call or once for everything that
//! shares a container, a file or a ring. Whoever passes the limit learns `ENOMEM`, mostly after everything was pinned already, and
//! never which limit, whose use or how much was missing. So it is counted here beforehand.
//!
//! - [`Backend`] and its [`Rule`]: what is charged to which [`Counter`], as data.
//! - [`required_memlock`]: the limit that a [`Plan`] needs, before anything is mapped.
//! - [`Ledger`]: what a process has pinned through whom, checked before each call; [`SharedLedger`] for threads. A
//!   [`PinHandle`] is one pin, however often the same memory is pinned.
//!
//! Three traps are modelled, since each makes a sum that looks right wrong: counters are not shared (one page may be charged in three),
//! a compound page is charged whole to the first slot of a ring that pins part of it, and **that slot takes the charge
//! with it** when it is cleared, although another still pins the page. From then on the kernel's charge is a lower
//! bound of what is held, and a [`Reading`] says so.
//!
//! Not here: asking the kernel (`peerdma_linux::held` reads what others hold), and memory in devices
//! ([`buffer::pins`](crate::buffer::pins)), which other limits are for.

mod backend;
mod books;
mod counter;
mod coverage;
mod error;
mod handle;
mod ledger;
mod outside;
mod owner;
mod plan;
mod request;
mod ring;
mod shared;
#[cfg(test)]
mod tests;

pub use backend::{Backend, Bypass, Counted, Rule};
pub use books::Cost;
pub use counter::{Basis, Counter};
pub use error::{ChargeError, ReleaseError, Shortage};
pub use handle::{PinHandle, RingHandle};
pub use ledger::{Ledger, Reading};
pub use outside::{Holder, Outside, Precision};
pub use owner::{OwnerId, OwnerLimits};
pub use plan::{CounterNeed, Need, Plan, PlanError, ProcessId, required_memlock};
pub use request::{Request, ScopeId, Via};
pub use ring::RingShape;
pub use shared::{Charge, SharedLedger};
