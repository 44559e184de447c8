//! The mapping engine: reserve, link, sync, use, unlink, release.
//!
//! A driver reserves IOVAs once, links ranges one after the other, makes them visible
//! once, and only then has addresses to hand to its device. Each step is a type of its
//! own: [`Reservation`] holds IOVAs and maps nothing, [`Staged`] maps and gives no address
//! away, [`Mapping`] is visible and yields [`Span`]s. What a list mixes (memory, BARs
//! through a switch, BARs through the host bridge, bounced ends) is decided range by
//! range and costs nothing where it does not change.
//!
//! - [`Context`]: one queue of one initiator, over one address space.
//! - [`reservation`], [`staged`], [`mapping`]: the three states.
//! - `relink`: a part of a mapping pointed elsewhere.
//! - `place`: where a range goes, with all that may be wrong with it; `pages`: the common case, kept short.
//! - [`error`]: one enum per step.
//!
//! Compared with Linux 7.2 (`dma_iova_link` and its callers): bounds are checked, a
//! failure unmaps what the failing call mapped and nothing else, the whole reservation
//! is freed and not the part that was mapped, and bus addresses are held against the
//! mask of the device.
//!
//! Everything is dropped safely: a mapping that goes out of scope is unmapped. IOVAs that
//! an address space failed to unmap are not handed out again ([`Context::lost`]).
//!
//! Not here: waiting for the device ([`Mapping::unlink`] under running DMA is the
//! caller's fault, and shows as IOMMU faults).

pub mod context;
pub mod error;
pub mod mapping;
mod pages;
mod place;
mod relink;
pub mod reservation;
pub mod staged;

pub use context::Context;
pub use error::{
    ContextError, LinkError, LinkManyError, MapRangesError, RelinkError, ReserveError, SyncError, UnlinkError,
};
pub use mapping::{Mapping, Spans};
pub use reservation::Reservation;
pub use staged::Staged;

use super::bounce::{Bouncer, Slot};
use super::initiator::Segments;
use super::owner::Owner;
use super::publish::End;
use super::span::Span;
use crate::access::Prot;
use crate::addr::Bytes;
use alloc::vec::Vec;

/// A range that the device sees as a copy.
#[derive(Debug)]
struct Bounced {
    /// Where in the mapping it starts.
    at: Bytes,
    /// The copy.
    slot: Slot,
    /// What it is a copy of.
    original: (Owner, Bytes),
    /// What the device may do.
    prot: Prot,
}

/// A span, and whose memory it ends at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Noted {
    span: Span,
    end: End,
    /// Not 0 for plain memory, see [`pages`]; equal keys continue each other.
    key: u8,
}

/// Lists of one mapping, handed on from one to the next so that none is allocated in steady state.
#[derive(Debug, Default)]
struct Lists {
    spans: Vec<Noted>,
    bounced: Vec<Bounced>,
}

impl Lists {
    /// Gives copies back if the device no longer reaches them; a slot that it still reaches stays
    /// taken for good, as its IOVAs do.
    fn let_go(&mut self, pool: Option<&dyn Bouncer>, unmapped: bool) {
        match pool {
            Some(pool) if unmapped => self.bounced.drain(..).for_each(|copy| pool.give_back(copy.slot)),
            _ => self.bounced.clear(),
        }
    }
}

/// How many segments spans are cut into.
fn segments(limits: &Segments, spans: impl Iterator<Item = Span>) -> usize {
    let count =
        spans.fold(0_u64, |count, span| count.saturating_add(limits.count(span.address.as_u64(), span.len.as_u64())));
    usize::try_from(count).unwrap_or(usize::MAX)
}
