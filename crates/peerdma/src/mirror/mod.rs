//! Process memory that a device context uses by its own addresses.
//!
//! A process says which ranges of its addresses a context may use. What of them stands in the device's table is
//! brought when the device asks, and leaves the table whenever the process is about to give the memory another
//! meaning. [`MirrorState`] is the decision about both, without a table and without memory: it is told, and
//! answers what is to be done.
//!
//! ```text
//! page request ── fault ──┬─ Bring(ticket) ── the caller touches the page ── finish ──┬─ Map ── respond
//!                         ├─ Parked: an invalidation is under way there               └─ Again ── fault
//!                         └─ Answer
//! event ── begin ── the caller takes `taken` from the device's table ── (the owner's deed) ── end ── parked requests
//! ```
//!
//! The order is that of Linux 7.2 `hmm_range_fault` and `mmu_interval_read_begin`: remember the range's sequence,
//! touch the page without a lock, and install it only if the sequence is the same. So a page that was touched before
//! an invalidation is never installed after it. Requests that meet an invalidation under way are kept, and
//! [`MirrorState::end`] gives each of them back once.
//!
//! - [`range`]: what is registered: faulting, or pinned and mapped whole.
//! - [`event`]: what happens to it, and whether one is told before or after.
//! - [`request`]: what a device asks, and what it is answered.
//! - [`state`](mod@state): the decision. - [`counts`]: what it came to.
//! - [`queue`]: page requests of contexts in the same process, without a lock.
//! - [`table`]: the device's table, as whoever drives a mirror sees it.
//!
//! Not here: finding out what happens to a process (`peerdma_linux::mirror`), and devices (`peerdma-emu`).

pub mod counts;
pub mod event;
pub mod queue;
pub mod range;
pub mod request;
mod runs;
pub mod state;
pub mod table;
#[cfg(test)]
mod tests;

pub use counts::Counts;
pub use event::{Event, Told};
pub use queue::{AskError, Asking, Queue, Ring};
pub use range::{Keeping, RangeId, RegisterError, Registered, UnknownRange};
pub use request::{Answer, Brought, Fault, Finished, Parked, Ticket, Token, Wanted};
pub use state::{Ended, Invalidation, MirrorState};
pub use table::DeviceTable;
