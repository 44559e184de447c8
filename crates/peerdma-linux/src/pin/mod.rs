//! Memory that stays where it is: long-term pins through io_uring's registered buffers.
//!
//! Where a process has no device whose driver pins for it, the kernel offers one long-term pin to everybody: a buffer
//! that is registered with an io_uring ring is pinned with `FOLL_LONGTERM | FOLL_WRITE` (Linux 6.18
//! `io_sqe_buffer_register`) until it is taken from the ring. [`Pinner`] has rings for nothing but that.
//!
//! ```
//! use peerdma::addr::Bytes;
//! use peerdma_linux::{memory::Pages, pin::Pinner};
//! use std::sync::Arc;
//!
//! let pages = Arc::new(Pages::zeroed(Bytes::new(1 << 16))?);
//! # if Pinner::new().is_err() { return Ok(()) }
//! let pinner = Pinner::new()?;
//! let pin = Arc::new(pinner.pin(Arc::clone(&pages))?);
//! let head = pin.slice(Bytes::ZERO, Bytes::new(512)).expect("the first 512 of 65536 bytes");
//! assert_eq!(head.range().start(), pages.address());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - [`options`](Options): which ring, which decides what a fork does; `seat` makes its calls.
//! - [`Pin`] is a handle, [`Slice`] a part of one, [`PinId`] its name.
//! - [`Admission`] is asked before the kernel is, [`Booked`] by a ledger; `why` says what the kernel's one errno means.
//! - [`Standing`] says whether pages and addresses still belong together; `unpin` waits for fences, or refuses.
//! - [`Held`] is what another holder has of it.
//!
//! Not here: keeping memory in RAM although it may move ([`mlock`](crate::mlock)), and pins of VFIO or iommufd address
//! spaces, which their mappings hold.

mod admission;
mod booked;
mod error;
mod frames;
mod hand_on;
mod handle;
mod holders;
mod inner;
mod limit;
mod options;
mod seat;
mod standing;
mod steady;
mod table;
#[cfg(test)]
mod tests;
mod transfer;
mod unpin;
mod why;

pub use admission::{Admission, Need, OverLimit, OwnLimit};
pub use booked::Booked;
pub use error::{PinError, RingError};
pub use hand_on::{HandOnError, Held};
pub use handle::{Pin, Slice};
pub use holders::Holders;
pub use limit::Limit;
pub(crate) use limit::is_bypassed;
pub use options::{MOST_SLOTS, Options, Ring, RingKind};
pub use standing::{ProbeError, Standing, Unknown};
pub use steady::Steady;
#[cfg(test)]
pub(crate) use steady::sealed;
pub use table::PinId;
pub use transfer::TransferError;
pub use unpin::UnpinError;
pub use why::Refusal;
pub(crate) use why::explained;

use inner::Inner;
use peerdma::addr::{AddrRange, Bytes, ProcVa};
use std::sync::{Arc, Mutex};

/// Pins memory, and holds what it pinned.
///
/// Copies of it, and its pins, share the rings; the last of them that goes takes them along.
///
/// # Concurrency
/// Any thread may use it. Pins of one ring are made one after another, at about 110 ms for each GiB that was not
/// touched before; whoever pins or unpins waits that long.
///
/// # Fork
/// See [`RingKind`]. In a forked child all calls refuse ([`PinError::Forked`]) or list nothing, and dropping handles lets
/// nothing go: the pins are the parent's. What the child reads at a pinned address is a copy, made at the fork, of anonymous private
/// memory; shared memory stays shared, and the parent's pages stay the parent's.
#[derive(Clone, Debug)]
pub struct Pinner {
    inner: Arc<Inner>,
}

/// A pin, as its pinner lists it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Pinned {
    /// Which.
    pub id: PinId,
    /// What was pinned.
    pub range: AddrRange<ProcVa>,
    /// What the kernel charges for it at least.
    pub charge: Bytes,
    /// How many slots it takes.
    pub slots: usize,
}

impl Pinner {
    /// Makes a ring to hold pins in, the kind that no child inherits where there is one.
    ///
    /// # Errors
    /// [`RingError`]: io_uring is disabled, refused or absent, or the limit has no room for the ring.
    pub fn new() -> Result<Self, RingError> {
        Self::with(Options::default())
    }

    /// Makes one of a chosen kind.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with(options: Options) -> Result<Self, RingError> {
        Ok(Self { inner: Arc::new(Inner::open(options)?) })
    }

    /// Which ring it has.
    pub fn ring_kind(&self) -> RingKind {
        self.inner.kind()
    }

    /// How many rings it has; more than one where more pins were made than one ring has slots for.
    pub fn rings(&self) -> usize {
        self.inner.rings()
    }

    /// Pins memory, which stays mapped as long as the pin lives.
    ///
    /// Blocks while pages are found, and moved out of where long-term pins must not be (CMA, movable zones); where a
    /// userfaultfd serves them, until it has.
    ///
    /// # Errors
    /// [`PinError`]; nothing is pinned then.
    pub fn pin<M: Steady + 'static>(&self, memory: Arc<M>) -> Result<Pin, PinError> {
        let range = memory.range();
        self.make(range, Some(memory))
    }

    /// Pins a part of memory; any offset and length, of which whole pages are pinned.
    ///
    /// # Errors
    /// [`PinError::Outside`] where the memory has no such part, and the others.
    pub fn pin_part<M: Steady + 'static>(&self, memory: Arc<M>, offset: Bytes, len: Bytes) -> Result<Pin, PinError> {
        let all = memory.range();
        if len == Bytes::ZERO {
            return Err(PinError::Empty { start: all.start() });
        }
        let range = all.slice(offset, len).ok_or(PinError::Outside { memory: all, offset, len })?;
        self.make(range, Some(memory))
    }

    /// Pins memory of this process that somebody else has mapped.
    ///
    /// Nothing keeps it mapped: if it is unmapped, or its pages discarded, the pin stays with the old pages, and
    /// devices write where nobody reads ([`Pin::standing`] says so where it can). Whoever then hands the pin to a device,
    /// or transfers through it, vouches that the memory may be written behind the compiler's back.
    ///
    /// # Errors
    /// [`PinError`]; nothing is pinned then.
    pub fn pin_foreign(&self, start: ProcVa, len: Bytes) -> Result<Pin, PinError> {
        if len == Bytes::ZERO {
            return Err(PinError::Empty { start });
        }
        self.make(AddrRange::new(start, len).ok_or(PinError::Wraps { start, len })?, None)
    }

    fn make(&self, range: AddrRange<ProcVa>, memory: Option<Arc<dyn Steady>>) -> Result<Pin, PinError> {
        let (id, slots) = self.inner.pin(range)?;
        let frames = self.inner.note_frames(range);
        Ok(Pin { inner: Arc::clone(&self.inner), id, range, slots, memory, frames, fences: Mutex::default() })
    }

    /// Lets go of pins that were dropped while devices used them, and are not used any more; how many still are.
    pub fn settle(&self) -> usize {
        self.inner.settle()
    }

    /// What an id names; nothing once the pin is gone, whatever came in its place.
    pub fn pinned(&self, id: PinId) -> Option<Pinned> {
        self.inner.known(id).map(|known| listed(id, &known))
    }

    /// All pins that live.
    pub fn pins(&self) -> Vec<Pinned> {
        self.inner.all().iter().map(|(id, known)| listed(*id, known)).collect()
    }
}

fn listed(id: PinId, known: &inner::Known) -> Pinned {
    Pinned { id, range: known.range, charge: known.charge, slots: known.slots }
}
