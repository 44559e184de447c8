//! A device uses memory of this process by the process's own addresses.
//!
//! A [`Mirror`] stands between a process that changes its memory and a device that uses it. It decides with
//! [`MirrorState`], finds out through [`uffd`](crate::uffd), and keeps the device's table
//! ([`DeviceTable`]) to what the process has.
//!
//! - **Owned** memory ([`Owned`]) is made by the mirror and changed through it: the device is stopped, its table is
//!   emptied, then the kernel is called. There is no moment at which the device could use what is not there.
//! - **Foreign** memory ([`Mirror::watch`]) belongs to code that knows nothing of mirrors. The kernel tells of a discard
//!   before it, of an unmapping and a move after them, and of other things not at all: `docs/mirror.md`.
//! - **Pinned** memory, of either kind, is put into the table as a whole, and never asked for.
//!
//! Before a message is read the gate is closed and everybody is out. Whoever caused it waits in the kernel until it is
//! read. So when a `munmap` or `madvise` returns, no access of the device's is under way that began before it, and
//! none begins before its table has forgotten the range.
//!
//! Bytes move by `process_vm_readv` and `process_vm_writev` on the process itself: memory that has gone is an error and not a signal,
//! permissions are kept, and no reference to the memory is made. The price is some 300 ns for each access, and that an
//! access is not single-copy atomic; rejected: volatile accesses to owned memory alone, as a device with two ways of
//! copying would show two orders. A device with a table of its own brings its own way ([`Context::run`], [`copy_out`],
//! [`copy_in`]).
//!
//! Children are kept from all of it (`MADV_DONTFORK`), so that no page becomes a copy. Rejected: being told of forks, which takes
//! privilege, and which the process cannot do for itself: glibc's `fork` waits for the message with the locks of its allocator
//! held, and a device or a server that allocates meanwhile never comes to where the message is read.
//!
//! A forked child has no use for a mirror: it may drop what it has of one, which does nothing, and nothing else.
//!
//! Nothing runs by itself: [`Mirror::serve`] hears messages and brings pages, on the thread that calls it. That thread must
//! not itself unmap what is watched, and must not be inside a context. While nobody serves, whoever changes watched memory
//! waits, for good if need be: leave it first, or drop the mirror.
//!
//! ```
//! use peerdma::access::Prot;
//! use peerdma::addr::Bytes;
//! use peerdma_linux::mirror::Mirror;
//! use std::time::{Duration, Instant};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let until = || Instant::now() + Duration::from_secs(10);
//! let mirror = Mirror::of_owned_memory(())?;
//! let mut context = mirror.context("copy engine").ok_or("64 contexts are enough")?;
//! let buffer = mirror.create(Bytes::new(1 << 20))?;
//! buffer.write(buffer.range().start(), b"from the CPU")?;
//!
//! let at = buffer.range().start();
//! let device = std::thread::spawn(move || {
//!     let mut bytes = [0; 12];
//!     context.read(at, &mut bytes, until()).map(|()| bytes)
//! });
//! while !device.is_finished() {
//!     mirror.serve(Instant::now() + Duration::from_millis(5))?;
//! }
//! assert_eq!(&device.join().map_err(|_| "the device failed")??, b"from the CPU");
//! assert_eq!(mirror.counts().brought, 1);
//!
//! buffer.protect(buffer.range(), Some(Prot::Read), until())?;
//! buffer.unmap(until())?;
//! # Ok(())
//! # }
//! ```

mod context;
mod error;
mod kept;
mod owned;
mod quiet;
mod serve;
#[cfg(test)]
pub(crate) mod tests;
mod turn;

use crate::bell::Bell;
use crate::membarrier::CheapestFence;
use crate::memory::page_size;
use crate::pin::{Pin, Slice, Standing};
use crate::sys::process_memory;
use crate::sys::region::Region;
use crate::uffd::{Forks, Uffd, Watch};
pub use context::{Context, copy_in, copy_out};
pub use error::{AccessError, ChangeError, NewError, RangeError, ServeError, StillInUse};
use kept::Kept;
pub use owned::Owned;
use peerdma::access::Prot;
use peerdma::addr::{AddrRange, Granule, ProcVa};
use peerdma::buffer::guard::Gate;
use peerdma::mirror::{Counts, DeviceTable, Keeping, MirrorState, Queue, RangeId};
use rustix::event::epoll;
use rustix::io::Errno;
pub use serve::Served;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use turn::Turn;

/// Contexts of one mirror at most.
pub const MOST_CONTEXTS: u32 = peerdma::mirror::queue::MOST_SEATS;

/// Keeps pages in their place while it lives: a [`Pin`], or what else does.
pub trait Holds: Send + Sync {
    /// Whose pages.
    fn holds(&self) -> AddrRange<ProcVa>;

    /// Whether the CPU finds these pages at these addresses; by default nothing is known of that.
    fn standing(&self) -> Option<Standing> {
        None
    }
}

impl Holds for Pin {
    fn holds(&self) -> AddrRange<ProcVa> {
        self.range()
    }

    fn standing(&self) -> Option<Standing> {
        Some(Pin::standing(self))
    }
}

impl Holds for Arc<Pin> {
    fn holds(&self) -> AddrRange<ProcVa> {
        self.range()
    }

    fn standing(&self) -> Option<Standing> {
        Some(Pin::standing(self))
    }
}

impl Holds for Slice {
    fn holds(&self) -> AddrRange<ProcVa> {
        self.range()
    }

    fn standing(&self) -> Option<Standing> {
        Some(Pin::standing(self.pin()))
    }
}

/// Refuses what is known to hold other pages than the process has there.
fn together(at: AddrRange<ProcVa>, pin: Option<&dyn Holds>) -> Result<(), RangeError> {
    match pin.and_then(Holds::standing) {
        Some(standing @ (Standing::Stale { .. } | Standing::Moved { .. })) => Err(RangeError::Parted { at, standing }),
        _ => Ok(()),
    }
}

/// Process memory as one device uses it; clones are handles of the same.
///
/// # Concurrency
/// The lock order is: whose turn it is to stop the device, then the state with the table. Contexts take the state alone, and while
/// they are inside nobody waits for them with it.
pub struct Mirror<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    inner: Mutex<Inner<T>>,
    gate: Gate<CheapestFence>,
    queue: Queue,
    bell: Bell,
    /// Readable when there is a message, or when somebody has asked while whoever serves slept.
    ready: OwnedFd,
    uffd: Option<Uffd>,
    turn: Turn,
    /// Somebody did not leave in time, and the gate is closed for nobody; it is changed by whose turn it is.
    left_closed: AtomicBool,
    /// The process whose memory it is.
    process: u32,
}

struct Inner<T> {
    state: MirrorState,
    table: T,
    foreign: BTreeMap<RangeId, Foreign>,
}

/// A range of somebody else's memory.
struct Foreign {
    /// What holds it, if it is pinned.
    _pin: Option<Box<dyn Holds>>,
    kept: Kept,
}

impl<T: DeviceTable + Send> Mirror<T> {
    /// A mirror that is told of what others do to memory. A device without a table of its own is `()`.
    ///
    /// # Errors
    /// [`NewError`].
    pub fn new(table: T) -> Result<Self, NewError> {
        Self::with(table, Some(Uffd::open(Forks::NotTold)?))
    }

    /// A mirror for owned memory alone, which needs no userfaultfd.
    ///
    /// # Errors
    /// [`NewError`], but for [`NewError::Uffd`].
    pub fn of_owned_memory(table: T) -> Result<Self, NewError> {
        Self::with(table, None)
    }

    fn with(table: T, uffd: Option<Uffd>) -> Result<Self, NewError> {
        let failed = |doing| move |error: Errno| NewError::Kernel { doing, source: error.into() };
        let page = page_size();
        let probe = Region::map(None, page).map_err(failed("mmap"))?;
        process_memory::populate(probe.at(), true).map_err(|error| NewError::NoPopulate { source: error.into() })?;
        probe.read(probe.at().start(), &mut [0; 8]).map_err(|error| NewError::NoCopies { source: error.into() })?;
        let granule = Granule::new(page).ok_or(Errno::INVAL).map_err(failed("page size"))?;
        let bell = Bell::new().map_err(failed("eventfd"))?;
        let ready = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed("epoll_create1"))?;
        let watch = |fd: BorrowedFd<'_>| epoll::add(&ready, fd, epoll::EventData::new_u64(0), epoll::EventFlags::IN);
        watch(bell.as_fd()).map_err(failed("epoll_ctl"))?;
        if let Some(uffd) = &uffd {
            watch(uffd.as_fd()).map_err(failed("epoll_ctl"))?;
        }
        let inner = Inner { state: MirrorState::new(granule), table, foreign: BTreeMap::new() };
        let shared = Shared {
            inner: Mutex::new(inner),
            gate: Gate::new(CheapestFence::of_this_kernel()),
            queue: Queue::new(MOST_CONTEXTS),
            bell,
            ready,
            uffd,
            turn: Turn::default(),
            left_closed: AtomicBool::new(false),
            process: std::process::id(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Lets the device use memory of somebody else, page by page as it asks.
    ///
    /// `prot` is what the device may do at most; what the memory permits is found out for each page, when it is asked for.
    /// Whoever registers memory vouches for it: that nothing in it is borrowed by code that does not expect a device, and that
    /// it is none of the allocator's, which may unmap with its locks held and wait for a server that allocates.
    /// Children of this process do not inherit it from here on (`MADV_DONTFORK`), until it is [left](Self::leave) or the mirror
    /// is dropped. To know what was so before, `/proc/self/smaps` is read up to the range, a millisecond for each 100 MiB of memory
    /// in small pages.
    ///
    /// # Errors
    /// [`RangeError`]; nothing has changed.
    pub fn watch(&self, at: AddrRange<ProcVa>, prot: Prot) -> Result<RangeId, RangeError> {
        self.take_in(at, prot, None)
    }

    /// The same for memory that is pinned: all of it is in the device's table from now on.
    ///
    /// `pin` is dropped with the range. A pin that is known to [hold other pages](Pin::standing) by now is refused. Where the memory is discarded, unmapped or moved all the same, the device loses that part, and
    /// [`Served::diverged`] says so.
    ///
    /// # Errors
    /// [`RangeError`]; nothing has changed, and `pin` was dropped.
    pub fn watch_pinned(
        &self,
        at: AddrRange<ProcVa>,
        prot: Prot,
        pin: impl Holds + 'static,
    ) -> Result<RangeId, RangeError> {
        self.take_in(at, prot, Some(Box::new(pin)))
    }

    fn take_in(&self, at: AddrRange<ProcVa>, prot: Prot, pin: Option<Box<dyn Holds>>) -> Result<RangeId, RangeError> {
        let uffd = self.shared.uffd.as_ref().ok_or(RangeError::Untold { at })?;
        // Held throughout: a message that is read meanwhile takes effect afterwards.
        let mut inner = self.shared.inner();
        together(at, pin.as_deref())?;
        let id = inner.register(at, prot, pin.as_deref())?;
        let kept = uffd.watch(at, Watch::Events).map_err(RangeError::from).and_then(|()| {
            let kept = Kept::new(at).map_err(|error| RangeError::Children { at, source: error.into() });
            // Asked anew: from here on one is told, and before one was not.
            let kept =
                kept.and_then(|kept| together(at, pin.as_deref()).inspect_err(|_| kept.let_go(at)).map(|()| kept));
            kept.inspect_err(|_| {
                // Nothing to leave where the call before has failed: another one may watch it, whom older kernels would
                // take it from.
                let _ = uffd.leave(at);
            })
        });
        match kept {
            Ok(kept) => {
                inner.foreign.insert(id, Foreign { _pin: pin, kept });
                Ok(id)
            }
            Err(error) => {
                inner.forget(id);
                Err(error)
            }
        }
    }

    /// Takes a foreign range, or what is left of it, from the device.
    ///
    /// # Errors
    /// [`ChangeError::StillInUse`] with nothing changed; [`ChangeError::Unknown`] if nothing was left of it;
    /// [`ChangeError::Owned`] for memory of the mirror's own, which is unmapped instead.
    pub fn leave(&self, id: RangeId, until: Instant) -> Result<(), ChangeError> {
        let quiet = self.shared.quiet(until)?;
        let mut inner = self.shared.inner();
        let pieces: Vec<_> = inner.state.pieces_of(id).collect();
        let foreign = inner.foreign.remove(&id);
        if let (None, Some(at)) = (&foreign, pieces.first().copied()) {
            return Err(ChangeError::Owned { id, at });
        }
        inner.table.quiesce();
        let invalidation = inner.state.unregister(id)?;
        inner.unmap(&invalidation);
        for piece in pieces {
            if let Some(uffd) = &self.shared.uffd {
                // What was unmapped meanwhile is not watched any more.
                let _ = uffd.leave(piece);
            }
            if let Some(foreign) = &foreign {
                foreign.kept.let_go(piece);
            }
        }
        let parked = inner.end(invalidation);
        drop(inner);
        drop(quiet);
        drop(foreign);
        self.shared.answer_all(parked);
        Ok(())
    }

    /// A context that uses the memory, by a name for whoever has to wait for it; `None` while [`MOST_CONTEXTS`] are in use.
    ///
    /// Waits while the gate is closed.
    pub fn context(&self, name: &str) -> Option<Context<T>> {
        Context::new(&self.shared, name)
    }

    /// What it came to so far.
    pub fn counts(&self) -> Counts {
        self.shared.inner().state.counts()
    }

    /// What stands in the device's table.
    pub fn present(&self) -> Vec<(AddrRange<ProcVa>, Prot)> {
        self.shared.inner().state.present().collect()
    }

    /// Looks at the device's table, or changes what is no matter of memory there.
    pub fn with_table<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        f(&mut self.shared.inner().table)
    }
}

impl<T> Shared<T> {
    fn inner(&self) -> MutexGuard<'_, Inner<T>> {
        // Who panicked was the table's author; the state is whole between any two calls.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: DeviceTable> Inner<T> {
    /// Registers a range, pinned if something holds it.
    fn register(&mut self, at: AddrRange<ProcVa>, prot: Prot, pin: Option<&dyn Holds>) -> Result<RangeId, RangeError> {
        if let Some(holds) = pin.map(Holds::holds).filter(|holds| !holds.contains_range(&at)) {
            return Err(RangeError::NotHeld { at, holds });
        }
        let keeping = if pin.is_some() { Keeping::Pinned } else { Keeping::Faulting };
        let registered = self.state.register(at, prot, keeping)?;
        if let Some((at, prot)) = registered.map
            && !self.table.map(at, prot)
        {
            self.forget(registered.id);
            return Err(RangeError::Table { at });
        }
        Ok(registered.id)
    }

    /// Undoes a registration that nobody knows of yet.
    fn forget(&mut self, id: RangeId) {
        if let Ok(invalidation) = self.state.unregister(id) {
            self.unmap(&invalidation);
            // Nobody can have asked: the lock was held.
            let _ = self.end(invalidation);
        }
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            // A forked child has something else at these addresses, or nothing.
            return;
        }
        // Nobody has a device's copy to fear any more.
        let inner = self.inner.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (id, foreign) in &inner.foreign {
            inner.state.pieces_of(*id).for_each(|piece| foreign.kept.let_go(piece));
        }
    }
}

impl<T> Clone for Mirror<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> AsFd for Mirror<T> {
    /// Readable when there is something to serve, after [`serve`](Mirror::serve) has returned.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.ready.as_fd()
    }
}

impl<T> std::fmt::Debug for Mirror<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let inner = self.shared.inner();
        f.debug_struct("Mirror").field("gate", &self.shared.gate).field("counts", &inner.state.counts()).finish()
    }
}
